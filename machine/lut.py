"""The lookup-table array: its sizes, its command, its latency and the cycles of a whole product.

The array multiplies `m` rows of activations by `n` columns of weights, `k` activations at a time:
their signed sums lie in a table, and a plane of `k` weight bits names an entry and its sign
(LUT Tensor Core, arXiv 2408.06003). One plane enters a cycle; a weight of W bits takes W cycles.
The same harness holds the arrays it is compared with: one that multiplies and one that adds.

Time is counted in cycles of the array's own clock.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from pydantic import Field

from machine.config import Analytic, Fidelity, config, require
from machine.formats import Format, format_named

__all__ = [
    "COMMAND_BITS", "COMMAND_FIELDS", "FLOAT_TABLES", "MAX_TABLES", "LutConfig", "LutCycles",
    "LutTile", "LutWork", "TableConfig", "TableMemoryConfig", "lut_matmul_cycles",
    "lut_matmul_tiles", "pack_lut_tile", "sum_bits",
]

# The command word: field, lowest bit, width. Bits between the fields are ignored.
# rows_last, planes_last and tables_last are the tile's rows - 1, planes - 1 and tables - 1.
COMMAND_BITS = 32
COMMAND_FIELDS = (
    ("accumulate", 0, 1),
    ("emit", 1, 1),
    ("planes_last", 4, 3),
    ("rows_last", 8, 6),
    ("tables_last", 16, 16),
)
MAX_TABLES = 1 << 16  # most tables a row of one command
MAX_ROWS = 64
FLOAT_TABLES = ("float16", "float8_e4m3fn", "float8_e5m2")  # entries that are not integers


def sum_bits(k: int, a_bits: int, *, symmetric: bool) -> int:
    """Return the bits of an integer table entry: signed sums of `k` activations of `a_bits`.

    Half tables hold sums of +-a, which reach +k * 2**(a_bits - 1); whole ones sums of some of the
    activations, which do not.
    """
    return a_bits + (k.bit_length() if symmetric else (k - 1).bit_length())


@config
class TableConfig:
    """The tables of a lookup array. Each flag is a step from the conventional array to LUT-TC."""

    format: str = "int8"  # of an entry: int2 to int32, or one of `FLOAT_TABLES`
    symmetric: bool = True  # reinterpreted weights: 2**(k - 1) entries, the others are negatives
    remapped: bool = True  # offline; if not, the array inverts the index where the sign is set
    precomputed: bool = True  # tables enter; if not, activations do and the array adds them

    def __post_init__(self) -> None:
        entry = format_named(self.format, where="tables.format")
        integer = entry.name == f"int{entry.bits}" and entry.bits >= 2
        require(integer or entry.name in FLOAT_TABLES, "format",
                f"int2 to int32 or one of {', '.join(FLOAT_TABLES)}", self.format)
        require(self.symmetric or not self.remapped, "remapped",
                "false for whole tables, which have no sign to remap", self.remapped)
        require(integer or self.precomputed, "precomputed",
                f"true for entries of {entry.name}: the array adds integers only", self.precomputed)
        require(integer or self.symmetric, "symmetric",
                f"true for entries of {entry.name}: whole tables are of integers", self.symmetric)

    @property
    def entry(self) -> Format:
        """The format of an entry."""
        return format_named(self.format)


@config
class LutConfig:
    """A group of equal lookup arrays, or of arrays of another unit in the same harness."""

    kind: Literal["lut"] = "lut"
    name: str = "lut"  # prefix of the instances' names
    count: int = 1  # identical arrays
    unit: Literal["lut", "mac", "add"] = "lut"  # mac: k products a cycle; add: k bits a cycle
    m: int = 2  # rows: tables held
    n: int = 64  # columns: groups of weights
    k: int = 4  # activations of a table
    a_bits: int = 8  # signed activations, where the array takes those
    w_bits: int = 8  # most bits of a weight
    acc_bits: int = 32  # sums; integers wrap; of float tables float32 or float16
    depth_cycles: int = 1  # 1: look up and add in one cycle; 2: what is found is registered
    tables: TableConfig = Field(default_factory=TableConfig)
    clock: str = "core"  # clock domain
    fidelity: Fidelity = "rtl"

    def __post_init__(self) -> None:
        for name, low, high in (("count", 1, 32), ("m", 1, MAX_ROWS), ("n", 1, 4096), ("k", 2, 6),
                                ("a_bits", 2, 16), ("w_bits", 1, 8), ("depth_cycles", 1, 2)):
            value = getattr(self, name)
            require(low <= value <= high, name, f"from {low} to {high}", value)
        require(self.fidelity == "rtl", "fidelity", "rtl", self.fidelity)
        if self.unit == "lut":
            self._check_tables()
        if self.is_float:
            require(self.acc_bits in (16, 32), "acc_bits", "16 or 32 for tables of "
                    f"{self.tables.format}, float16 or float32", self.acc_bits)
            require(self.depth_cycles == 1, "depth_cycles",
                    "1 for float tables: the sum is read in the cycle it is written",
                    self.depth_cycles)
            return
        least = self.least_acc_bits
        what = (f"1 table of {self.tables.format}" if self.takes_tables else
                f"{self.k} activations of {self.a_bits} bits")
        require(least <= self.acc_bits <= 64, "acc_bits",
                f"from {least} (for {what} by {self.w_bits} weight bits) to 64", self.acc_bits)

    def _check_tables(self) -> None:
        if self.tables.precomputed:
            return
        least = sum_bits(self.k, self.a_bits, symmetric=self.tables.symmetric)
        require(self.tables.entry.bits >= least, "tables.format",
                f"int{least} or wider for sums of {self.k} activations of {self.a_bits} bits",
                self.tables.format)

    @property
    def size(self) -> str:
        """Rows by columns by activations of a table, as the paper writes it."""
        return f"M{self.m}N{self.n}K{self.k}"

    @property
    def takes_tables(self) -> bool:
        """Whether tables enter, and not activations."""
        return self.unit == "lut" and self.tables.precomputed

    @property
    def is_float(self) -> bool:
        """Whether the entries, and so the sums, are floats."""
        return self.unit == "lut" and self.tables.entry.is_float

    @property
    def sum_format(self) -> Format:
        """The format of a sum."""
        return format_named(f"{'float' if self.is_float else 'int'}{self.acc_bits}")

    @property
    def reinterpreted(self) -> bool:
        """Whether weight w, two's complement of W bits, stands for 2 w + 1; otherwise for w.

        2 w + 1 is the q' = 2 q - (2**W - 1) of the biased code q = w + 2**(W - 1).
        """
        return self.unit == "lut" and self.tables.symmetric

    @property
    def least_acc_bits(self) -> int:
        """The bits that the sum of one table's `k` products may need."""
        if self.takes_tables:
            return self.tables.entry.bits + self.w_bits
        weight = (1 << self.w_bits) - 1 if self.reinterpreted else 1 << self.w_bits - 1
        return (self.k * weight << self.a_bits - 1).bit_length() + 1

    @property
    def entries(self) -> int:
        """Entries of one table."""
        return 2 ** (self.k - self.tables.symmetric)

    @property
    def row_bits(self) -> int:
        """Bits of one row of `i_tables`: a table, or `k` activations."""
        if self.takes_tables:
            return self.entries * self.tables.entry.bits
        return self.k * self.a_bits

    @property
    def table_beat_bits(self) -> int:
        """Width of one beat of tables; row r lies at bit ``r * row_bits``."""
        return self.m * self.row_bits

    @property
    def table_bits(self) -> int:
        """Bits of the tables held: m * entries * entry bits (equation 7 of arXiv 2408.06003)."""
        return self.m * self.entries * self.tables.entry.bits if self.unit == "lut" else 0

    @property
    def weight_bits(self) -> int:
        """Bits of the weights of one table step: k * n * w_bits (equation 8)."""
        return self.k * self.n * self.w_bits

    @property
    def group_bits(self) -> int:
        """Bits of one group in a beat of weights: one plane of `k`, or `k` whole weights (mac)."""
        return self.k * (self.w_bits if self.unit == "mac" else 1)

    @property
    def weight_beat_bits(self) -> int:
        """Width of one beat of weights; group g lies at bit ``g * group_bits``."""
        return self.n * self.group_bits

    @property
    def sum_beat_bits(self) -> int:
        """Width of one beat of sums; column c lies at bit ``c * acc_bits``."""
        return self.n * self.acc_bits

    def beats_of(self, planes: int) -> int:
        """Beats of weights for one table and weights of `planes` bits."""
        return 1 if self.unit == "mac" else planes

    @property
    def macs_per_cycle(self) -> int:
        """Multiply-accumulates a cycle of one array, all units busy; of one weight bit, but mac."""
        return self.m * self.n * self.k

    @property
    def latency_cycles(self) -> int:
        """Cycles from a tile's last beat of weights to the cycle its first row is offered.

        The unit's depth and one for the output queue; row r is offered r cycles later.
        """
        return self.depth_cycles + 1

    def tile_cycles(self, tile: "LutTile") -> int:
        """Cycles from the first beat of weights of `tile` to that of the next one.

        The sums leave from where they are added: the next tile starts with the last row.
        """
        leave = tile.rows + self.depth_cycles - 2 if tile.emit else 0
        return tile.weight_beats(self) + leave


@config
class TableMemoryConfig:
    """The memory that holds tables between the vector units and the lookup arrays.

    Every unit has a port of its own, as wide as its beats: nothing waits for it.
    """

    bytes: int  # capacity
    clock: str = "core"
    fidelity: Analytic = "analytic"

    def __post_init__(self) -> None:
        require(self.bytes >= 1, "bytes", "at least 1", self.bytes)


@config
class LutTile:
    """One command: `rows` by `n` sums over `tables` tables a row."""

    rows: int  # rows of sums sent, at most m
    tables: int  # tables a row
    planes: int  # bits of a weight
    accumulate: bool = False  # go on from the sums of the command in front
    emit: bool = True  # send the rows of sums out; otherwise they stay

    def check(self, cfg: LutConfig) -> None:
        """Raise ``ValueError`` if an array of configuration `cfg` cannot execute this command."""
        for name, high in (("rows", cfg.m), ("tables", MAX_TABLES), ("planes", cfg.w_bits)):
            value = getattr(self, name)
            require(1 <= value <= high, name, f"from 1 to {high}", value)

    def weight_beats(self, cfg: LutConfig) -> int:
        """Beats of weights this command takes."""
        return self.tables * cfg.beats_of(self.planes)

    @property
    def sum_beats(self) -> int:
        """Beats of sums this command sends."""
        return self.rows if self.emit else 0


def pack_lut_tile(tile: LutTile) -> int:
    """Return the command word of `tile`, laid out as `COMMAND_FIELDS`."""
    values = {"accumulate": int(tile.accumulate), "emit": int(tile.emit),
              "planes_last": tile.planes - 1, "rows_last": tile.rows - 1,
              "tables_last": tile.tables - 1}
    return sum(values[name] << low for name, low, _ in COMMAND_FIELDS)


class LutWork(NamedTuple):
    """One command of a product and the corner of the operands it works on."""

    tile: LutTile
    m_from: int
    n_from: int
    table_from: int


def _check_matmul(cfg: LutConfig, m: int, n: int, k: int, planes: int) -> int:
    """Return the tables a row of an `m` x `n` x `k` product; raise ``ValueError`` for a bad one."""
    for name, value in (("m", m), ("n", n), ("k", k)):
        require(value >= 1, name, "at least 1", value)
    require(1 <= planes <= cfg.w_bits, "planes", f"from 1 to {cfg.w_bits}", planes)
    return -(-k // cfg.k)


def lut_matmul_tiles(cfg: LutConfig, m: int, n: int, k: int, planes: int) -> Iterator[LutWork]:
    """Yield the commands of an [m, k] by [k, n] product with weights of `planes` bits.

    Columns outside, rows next, tables inside; the sums stay in the array over all tables. Raises
    ``ValueError`` for a size below 1 or for more planes than the array's weights have bits.
    """
    tables = _check_matmul(cfg, m, n, k, planes)
    for n_from in range(0, n, cfg.n):
        for m_from in range(0, m, cfg.m):
            for start in range(0, tables, MAX_TABLES):
                size = min(MAX_TABLES, tables - start)
                tile = LutTile(rows=min(cfg.m, m - m_from), tables=size, planes=planes,
                               accumulate=start > 0, emit=start + size == tables)
                yield LutWork(tile, m_from, n_from, start)


class LutCycles(NamedTuple):
    """Where the cycles of an unstalled product go, first command to last sums taken."""

    fill_cycles: int  # the first command and table, before the first beat of weights
    busy_cycles: int  # a beat of weights enters
    wait_cycles: int  # sums of the tile in front still leaving
    drain_cycles: int  # after the last beat of weights

    @property
    def total_cycles(self) -> int:
        """All cycles: the sum of the four classes."""
        return sum(self)


def lut_matmul_cycles(cfg: LutConfig, m: int, n: int, k: int, planes: int) -> LutCycles:
    """Return the cycles of `lut_matmul_tiles` run back to back with no stall on any stream.

    Raises ``ValueError`` as `lut_matmul_tiles` does.
    """
    tables = _check_matmul(cfg, m, n, k, planes)
    strips, blocks = -(-n // cfg.n), -(-m // cfg.m)
    last = m - cfg.m * (blocks - 1)
    gap = cfg.depth_cycles - 2
    return LutCycles(
        fill_cycles=1,
        busy_cycles=strips * blocks * tables * cfg.beats_of(planes),
        wait_cycles=strips * (m + blocks * gap) - (last + gap),
        drain_cycles=last + cfg.depth_cycles,
    )
