"""Where every element lies in memory that computes, and what lies at every place."""

from dataclasses import dataclass
from typing import NamedTuple

from machine.config import require
from machine.dram import DramConfig
from machine.pim import PimConfig

__all__ = ["Banks", "KvRows", "Place", "RowPool", "RowsPlacement", "pim_gpt_cache"]


class Place(NamedTuple):
    """A place of one element; `column` counts a bank unit's columns, `bank` is flat."""

    channel: int
    bank: int
    row: int
    column: int
    lane: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Banks:
    """The banks elements are dealt to."""

    channels: int
    banks: int  # of a channel
    rows: int  # of a bank
    columns: int  # of a row, each as wide as the unit
    lanes: int

    @classmethod
    def of(cls, dram: DramConfig, pim: PimConfig) -> "Banks":
        """Return the banks of `dram` as `pim` reads them."""
        pim.check(dram)
        return cls(channels=dram.channels, banks=dram.banks, rows=dram.rows,
                   columns=pim.row_columns(dram), lanes=pim.unit.lanes)

    @property
    def row_elements(self) -> int:
        """Elements of a row."""
        return self.columns * self.lanes


@dataclass(frozen=True, kw_only=True, slots=True)
class RowsPlacement:
    """A matrix [outputs, depth], every output in one bank, its elements along that bank's rows.

    Outputs are dealt to the channels first, then to the banks, so neighbours work at once. The rows
    of one slice of the vector, as wide as a row, follow each other: each slice is put in the global
    buffer once. Raises ``ValueError`` naming the rows if the matrix does not fit.
    """

    banks: Banks
    outputs: int
    depth: int
    first_row: int = 0

    def __post_init__(self) -> None:
        for name in ("outputs", "depth"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        require(self.first_row >= 0, "first_row", "at least 0", self.first_row)
        end = self.first_row + self.rows
        require(end <= self.banks.rows, "rows", f"at most {self.banks.rows} of a bank", end)

    @property
    def slices(self) -> int:
        """Slices of the vector."""
        return -(-self.depth // self.banks.row_elements)

    @property
    def groups(self) -> int:
        """Outputs of the fullest bank: rows of one slice."""
        return -(-self.outputs // (self.banks.channels * self.banks.banks))

    @property
    def rows(self) -> int:
        """Rows of every bank that are taken."""
        return self.slices * self.groups

    def place(self, output: int, k: int) -> Place:
        """Return where element `k` of `output` lies."""
        b = self.banks
        require(0 <= output < self.outputs, "output", f"from 0 to {self.outputs - 1}", output)
        require(0 <= k < self.depth, "k", f"from 0 to {self.depth - 1}", k)
        over, channel = divmod(output, b.channels)
        group, bank = divmod(over, b.banks)
        part, at = divmod(k, b.row_elements)
        row = self.first_row + part * self.groups + group
        return Place(channel, bank, row, *divmod(at, b.lanes))

    def element(self, place: Place) -> tuple[int, int] | None:
        """Return (output, k) of what lies at `place`, or None: nothing of this matrix."""
        b, row = self.banks, place.row - self.first_row
        if not 0 <= row < self.rows:
            return None
        part, group = divmod(row, self.groups)
        output = (group * b.banks + place.bank) * b.channels + place.channel
        k = part * b.row_elements + place.column * b.lanes + place.lane
        return (output, k) if output < self.outputs and k < self.depth else None


def pim_gpt_cache(banks: Banks, *, elements: int, tokens_max: int,
                  first_row: int = 0) -> tuple[RowsPlacement, RowsPlacement]:
    """Return where keys [tokens, elements] and values [elements, tokens] lie, rows reserved.

    All heads together are `elements`. A token's key is contiguous (row-major), a token's value is
    one lane of many rows (column-major); both grow without moving. After PIM-GPT (arXiv
    2310.09385; the layout is from memory, unverified).
    """
    keys = RowsPlacement(banks=banks, outputs=tokens_max, depth=elements, first_row=first_row)
    values = RowsPlacement(banks=banks, outputs=elements, depth=tokens_max,
                           first_row=first_row + keys.rows)
    return keys, values


class RowPool:
    """The free rows of one channel, the same in every bank; the lowest is taken first."""

    def __init__(self, rows: range) -> None:
        self._free = sorted(rows, reverse=True)
        self._taken: set[int] = set()

    @property
    def free(self) -> int:
        """How many rows are free."""
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """Return `count` rows; raises ``ValueError`` naming the numbers if fewer are free."""
        require(count <= self.free, "rows", f"at most {self.free}, the free ones", count)
        taken = [self._free.pop() for _ in range(count)]
        self._taken.update(taken)
        return taken

    def give(self, rows: list[int]) -> None:
        """Take back `rows`; raises ``ValueError`` for one that is not taken."""
        for row in rows:
            require(row in self._taken, "row", "a taken one", row)
            self._taken.remove(row)
        self._free = sorted([*self._free, *rows], reverse=True)


class KvRows:
    """Keys and values of one request in one channel: NeuPIMs' layouts, growing token by token.

    Keys: a bank a token, whole heads along a row; as many tokens as there are banks take the next
    rows. Values: a bank an element, tokens along a row; as many tokens as a row has elements take
    the next rows. Rows come from `pool` when the first token of theirs is appended.
    """

    def __init__(self, banks: Banks, pool: RowPool, *, channel: int, heads: int,
                 depth: int) -> None:
        dots = -(-depth // banks.lanes)
        require(dots <= banks.columns, "columns of a head",
                f"at most {banks.columns}, the columns of a row", dots)
        self.banks, self.channel, self.heads, self.depth = banks, channel, heads, depth
        self._pool, self._dots = pool, dots
        self.tokens = 0
        self.key_rows: list[int] = []  # row of tile i, chunk c at i * key_chunks + c
        self.value_rows: list[int] = []  # of piece p, head h, tile i at (p * heads + h) * tiles + i
        self._of_row: dict[int, tuple[bool, int]] = {}

    @property
    def key_chunks(self) -> int:
        """Rows that one tile of tokens takes."""
        return -(-self.heads // self._heads_per_row)

    @property
    def value_tiles(self) -> int:
        """Rows that the elements of one head take."""
        return -(-self.depth // self.banks.banks)

    @property
    def _heads_per_row(self) -> int:
        return self.banks.columns // self._dots

    def append(self) -> None:
        """Make place for one more token; raises ``ValueError`` if rows lack, changing nothing."""
        keys = self.key_chunks if self.tokens % self.banks.banks == 0 else 0
        full = self.tokens % self.banks.row_elements == 0
        values = self.heads * self.value_tiles if full else 0
        rows = self._pool.take(keys + values)
        for is_value, some, listed in ((False, rows[:keys], self.key_rows),
                                       (True, rows[keys:], self.value_rows)):
            for row in some:
                self._of_row[row] = is_value, len(listed)
                listed.append(row)
        self.tokens += 1

    def release(self) -> None:
        """Give all rows back; the request is over."""
        self._pool.give([*self.key_rows, *self.value_rows])
        self.tokens, self.key_rows, self.value_rows, self._of_row = 0, [], [], {}

    def key(self, head: int, element: int, token: int) -> Place:
        """Return where an element of a token's key lies."""
        self._check(head, element, token)
        b = self.banks
        tile, bank = divmod(token, b.banks)
        chunk, place = divmod(head, self._heads_per_row)
        column, lane = divmod(element, b.lanes)
        row = self.key_rows[tile * self.key_chunks + chunk]
        return Place(self.channel, bank, row, place * self._dots + column, lane)

    def value(self, head: int, element: int, token: int) -> Place:
        """Return where an element of a token's value lies."""
        self._check(head, element, token)
        b = self.banks
        piece, at = divmod(token, b.row_elements)
        tile, bank = divmod(element, b.banks)
        row = self.value_rows[(piece * self.heads + head) * self.value_tiles + tile]
        return Place(self.channel, bank, row, *divmod(at, b.lanes))

    def element(self, place: Place) -> tuple[str, int, int, int] | None:
        """Return ("key" or "value", head, element, token) of what lies at `place`, or None."""
        b = self.banks
        if place.channel != self.channel or place.row not in self._of_row:
            return None
        is_value, index = self._of_row[place.row]
        if is_value:
            over, tile = divmod(index, self.value_tiles)
            piece, head = divmod(over, self.heads)
            element = tile * b.banks + place.bank
            token = piece * b.row_elements + place.column * b.lanes + place.lane
        else:
            tile, chunk = divmod(index, self.key_chunks)
            part, column = divmod(place.column, self._dots)
            if part >= self._heads_per_row:
                return None
            head = chunk * self._heads_per_row + part
            element, token = column * b.lanes + place.lane, tile * b.banks + place.bank
        inside = head < self.heads and element < self.depth and token < self.tokens
        return ("value" if is_value else "key", head, element, token) if inside else None

    def _check(self, head: int, element: int, token: int) -> None:
        for name, value, end in (("head", head, self.heads), ("element", element, self.depth),
                                 ("token", token, self.tokens)):
            require(0 <= value < end, name, f"from 0 to {end - 1}", value)
