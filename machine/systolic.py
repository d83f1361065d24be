"""The systolic array: its sizes, its command, its latency and the cycles of a whole matmul.

The array multiplies tiles. A command names one tile, in one of two dataflows:

``ws``  weight-stationary: ``k`` rows of weights are preloaded, ``m`` rows of activations stream
        through them, one row of sums leaves for each. ``k`` is at most ``rows``.
``os``  output-stationary: ``k`` pairs (column of activations, row of weights) stream in, the sums
        stay in the elements, then ``m`` rows of sums leave. ``m`` is at most ``rows``.

An element may take several activations and weights a beat (``pe.k_lanes``): a tile's ``k`` counts
beats of them, the k of a matmul single products.

Time is counted in cycles of the array's own clock, with cycle 0 the one that takes the command.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Literal, NamedTuple

from pydantic import Field

from machine.config import Fidelity, config, require
from machine.floats import KULISCH_MARKS, kulisch_bits
from machine.formats import Format, check_matmul, format_named
from machine.pe import PeConfig, limits

__all__ = [
    "COMMAND_BITS",
    "COMMAND_FIELDS",
    "FIDELITIES",
    "MAX_LENGTH",
    "Dataflow",
    "MatmulCycles",
    "SystolicConfig",
    "Tile",
    "Work",
    "matmul_cycles",
    "matmul_tiles",
    "pack_tile",
    "signed_bits",
]

Dataflow = Literal["ws", "os"]

# The command word: field, lowest bit, width. Bits between the fields are ignored.
# dataflow is 0 for ws and 1 for os; m_last and k_last are the tile's m - 1 and k - 1.
COMMAND_BITS = 64
COMMAND_FIELDS = (
    ("dataflow", 0, 1),
    ("accumulate", 1, 1),
    ("emit", 2, 1),
    ("acc_row", 16, 16),
    ("m_last", 32, 16),
    ("k_last", 48, 16),
)
MAX_LENGTH = 1 << 16  # longest m or k of one command

# Timing options: ours, equal to the RTL's; SCALE-Sim's serial folds (``archsim.scalesim``).
FIDELITIES: tuple[Fidelity, ...] = ("rtl", "peer:scale-sim")


@config
class SystolicConfig:
    """A group of equal systolic arrays of multiply-accumulate elements."""

    kind: Literal["systolic"] = "systolic"
    name: str = "array"  # prefix of the instances' names
    count: int = 1  # identical arrays
    rows: int  # elements an activation beat feeds: k of a ws tile, m of an os tile
    cols: int  # elements a weight beat feeds: columns of a row of sums
    a_bits: int = 8  # of an activation; signed integers, unless the element says otherwise
    w_bits: int = 8  # of a weight as the elements hold it, likewise
    acc_bits: int = 32  # of a sum; integers are signed and wrap
    acc_rows: int = 512  # rows of sums kept for accumulation over k tiles; 0: no such memory
    dataflows: tuple[Dataflow, ...] = ("os", "ws")  # what a command may select
    pe: PeConfig = Field(default_factory=PeConfig)
    short_paths: bool = False  # registers doubled beside what they enable; no cycle more or less
    clock: str = "core"  # clock domain
    fidelity: Fidelity = "rtl"  # timing option, one of `FIDELITIES`

    def __post_init__(self) -> None:
        for name in ("count", "rows", "cols"):
            value = getattr(self, name)
            require(value >= 1, name, "at least 1", value)
        require(0 <= self.acc_rows <= MAX_LENGTH, "acc_rows", f"from 0 to {MAX_LENGTH}",
                self.acc_rows)
        flows = self.dataflows
        require(len(flows) > 0 and len(set(flows)) == len(flows), "dataflows",
                "one or more different ones of 'os', 'ws'", flows)
        require(self.fidelity in FIDELITIES, "fidelity", f"one of {', '.join(FIDELITIES)}",
                self.fidelity)
        self._check_element()
        self._check_sums()

    def _check_element(self) -> None:
        """Raise ``ValueError`` where the array and its element do not fit each other."""
        pe, fixed = self.pe, self.pe.fixed
        for name, (least, most) in (("a_bits", fixed.act_bits), ("w_bits", fixed.weight_bits)):
            value = getattr(self, name)
            what = f"from {least} to {most}" if least < most else str(least)
            require(least <= value <= most, name, what, value)
        for name, fmt in (("a_bits", self.act_format), ("w_bits", self.operand_format)):
            value = getattr(self, name)
            require(value == fmt.bits, name, f"{fmt.bits}, the bits of {fmt.name}", value)
        require(pe.add_cycles == 1 or self.dataflows == ("os",), "dataflows",
                f"('os',) for an adder of {pe.add_cycles} cycles", self.dataflows)
        plain = pe.k_lanes == self.initiation_interval_cycles == 1
        require(plain or self.fidelity == "rtl", "fidelity",
                "rtl for elements of more than one product or step a beat", self.fidelity)

    def _check_sums(self) -> None:
        """Raise ``ValueError`` if a tile's sum of products can leave the accumulator."""
        if not self.pe.fixed.integer:
            self._check_float_sums()
            return
        low, high = self.product_limits
        count = self.rows * self.pe.k_lanes
        least = signed_bits(count * low, count * high)
        names = f"{self.act_format.name} by {self.operand_format.name}"
        require(least <= self.acc_bits <= 64, "acc_bits",
                f"from {least} (for {count} products of {names}) to 64", self.acc_bits)

    def _check_float_sums(self) -> None:
        """Raise ``ValueError`` unless floats may be added in the accumulator, and fit it."""
        act, weight, acc = self.act_format, self.operand_format, self.pe.acc_format
        check_matmul(act, weight, acc)
        if self.pe.kind == "mx":
            for name, fmt in (("a_format", act), ("w_format", weight)):
                require(fmt.name.startswith("mx"), name, "an OCP MX format", fmt.name)
            floats = [format_named(fmt.element).is_float for fmt in (act, weight)]
            require(floats[0] == floats[1], "w_format",
                    f"of {'floats' if floats[0] else 'integers'}, as {act.name} is", weight.name)
        if acc != "kulisch":
            bits = format_named(acc).bits
            require(self.acc_bits == bits, "acc_bits", f"{bits}, the bits of {acc}", self.acc_bits)
            return
        least = kulisch_bits(act, weight, self.rows) + len(KULISCH_MARKS)
        require(least <= self.acc_bits <= 64, "acc_bits",
                f"from {least} (for {self.rows} exact products of {act.name} by {weight.name}, and "
                f"{len(KULISCH_MARKS)} marks) to 64", self.acc_bits)

    @property
    def act_format(self) -> Format:
        """Format of one activation."""
        return format_named(self.pe.a_format or self.pe.fixed.act.format(self.a_bits))

    @property
    def weight_format(self) -> Format:
        """Format of one weight as it is stored."""
        return format_named(self.pe.w_format or self.pe.fixed.weight.format(self.w_bits))

    @property
    def operand_format(self) -> Format:
        """Format of one weight as the elements hold it."""
        decoded = self.pe.fixed.operand
        return format_named(decoded) if decoded else self.weight_format

    @property
    def product_limits(self) -> tuple[int, int]:
        """Lowest and highest product of an activation and a weight, both integers."""
        ends = [a * w for a in limits(self.act_format) for w in limits(self.operand_format)]
        return min(ends), max(ends)

    @property
    def product_bits(self) -> int:
        """Bits of the sum of one element's products in a beat, a signed integer."""
        low, high = self.product_limits
        return signed_bits(self.pe.k_lanes * low, self.pe.k_lanes * high)

    @property
    def act_bits(self) -> int:
        """Bits of one element's activations in a beat; lane l lies at bit ``l * a_bits``.

        What the lanes share lies above them.
        """
        return self.pe.k_lanes * self.a_bits + self.pe.fixed.act_shared_bits

    @property
    def weight_bits(self) -> int:
        """Bits of one element's weights in a beat; lane l lies at bit ``l * w_bits``.

        What the lanes share lies above them.
        """
        return self.pe.k_lanes * self.w_bits + self.pe.fixed.weight_shared_bits

    @property
    def act_port_bits(self) -> int:
        """Bits of an element's activation port: ``act_bits``, and whether they count if masked."""
        return self.act_bits + self.pe.fixed.masked

    @property
    def size(self) -> str:
        """Rows by columns, as people write it."""
        return f"{self.rows}x{self.cols}"

    @property
    def act_beat_bits(self) -> int:
        """Width of one beat of activations; element e lies at bit ``e * act_bits``."""
        return self.rows * self.act_bits

    @property
    def weight_beat_bits(self) -> int:
        """Width of one beat of weights; column c lies at bit ``c * weight_bits``."""
        return self.cols * self.weight_bits

    @property
    def sum_beat_bits(self) -> int:
        """Width of one beat of sums; column c lies at bit ``c * acc_bits``."""
        return self.cols * self.acc_bits

    @property
    def macs_per_beat(self) -> int:
        """Multiply-accumulates of one beat of activations, all elements busy."""
        return self.rows * self.cols * self.pe.k_lanes

    @property
    def macs_per_cycle(self) -> Fraction:
        """Multiply-accumulates a cycle of one array, all elements busy."""
        return Fraction(self.macs_per_beat, self.initiation_interval_cycles)

    @property
    def initiation_interval_cycles(self) -> int:
        """Cycles between two beats of activations."""
        return self.pe.initiation_interval_cycles(self.w_bits)

    @property
    def multiply_cycles(self) -> int:
        """Steps from a beat at an element's inputs to the sum of its products at the adder."""
        return self.pe.multiply_cycles(self.w_bits)

    @property
    def depth_cycles(self) -> int:
        """Steps from a beat at an element's inputs to its sum register."""
        return self.multiply_cycles + self.pe.add_cycles

    @property
    def latency_cycles(self) -> int:
        """Cycles from a row's acceptance to the cycle its sums are offered.

        One for the input register, ``rows - 1 + cols - 1`` for the skew, the element's depth, one
        for the output queue. In ``os`` the row of sums j counts from the j-th cycle after the last
        pair of its tile and the ``merge_cycles`` of the element.
        """
        return self.rows + self.cols + self.depth_cycles

    def k_beats(self, k: int) -> int:
        """Beats that `k` products take; the last one's unused lanes hold zeros."""
        return -(-k // self.pe.k_lanes)

    @property
    def max_m(self) -> int:
        """Most rows of one ``ws`` tile that is accumulated over k."""
        return min(self.acc_rows, MAX_LENGTH)

    def ws_tile_cycles(self, m: int, next_k: int | None = None) -> int:
        """Cycles from the first row of a ``ws`` tile to that of the next one.

        The next tile's `next_k` rows of weights (default: ``rows``) load while this one's `m` rows
        of activations stream: the longer of the two counts, nothing is added.
        """
        beats = m * self.initiation_interval_cycles
        return max(beats, self.rows if next_k is None else next_k)

    def os_tile_cycles(self, k: int, last_m: int | None = None) -> int:
        """Cycles from the last pair of one ``os`` tile to that of the next, which has `k` pairs.

        The `last_m` rows of sums (default: ``rows``) of the tile before leave meanwhile, once its
        partial sums are added up; that much later the next pair may come.
        """
        interval, merge = self.initiation_interval_cycles, self.pe.merge_cycles
        rows = self.rows if last_m is None else last_m
        return max(max(interval, merge + 1) + (k - 1) * interval, merge + rows)


@config
class Tile:
    """One command of the array."""

    dataflow: Dataflow
    m: int  # rows of sums; ws: rows of activations as well
    k: int  # beats of weights; os: as many of activations
    accumulate: bool = False  # add the stored rows of sums
    emit: bool = True  # send the rows of sums out; otherwise store them
    acc_row: int = 0  # first stored row, for accumulate and for storing

    def check(self, cfg: SystolicConfig) -> None:
        """Raise ``ValueError`` if an array of configuration `cfg` cannot execute this command."""
        require(self.dataflow in cfg.dataflows, "dataflow",
                f"one of {', '.join(cfg.dataflows)}", self.dataflow)
        m_limit, k_limit = cfg.rows, MAX_LENGTH
        if self.dataflow == "ws":
            m_limit, k_limit = MAX_LENGTH, cfg.rows
        require(1 <= self.m <= m_limit, "m", f"from 1 to {m_limit}", self.m)
        require(1 <= self.k <= k_limit, "k", f"from 1 to {k_limit}", self.k)
        if self.accumulate or not self.emit:
            require(self.acc_row >= 0 and self.acc_row + self.m <= cfg.acc_rows, "acc_row",
                    f"from 0 to {cfg.acc_rows - self.m} for {self.m} rows of {cfg.acc_rows}",
                    self.acc_row)

    @property
    def act_beats(self) -> int:
        """Beats of activations this tile takes."""
        return self.m if self.dataflow == "ws" else self.k

    @property
    def weight_beats(self) -> int:
        """Beats of weights this tile takes."""
        return self.k

    @property
    def sum_beats(self) -> int:
        """Beats of sums this tile sends."""
        return self.m if self.emit else 0


def pack_tile(tile: Tile) -> int:
    """Return the command word of `tile`, laid out as `COMMAND_FIELDS`."""
    values = {
        "dataflow": int(tile.dataflow == "os"), "accumulate": int(tile.accumulate),
        "emit": int(tile.emit), "acc_row": tile.acc_row,
        "m_last": tile.m - 1, "k_last": tile.k - 1,
    }
    return sum(values[name] << low for name, low, _ in COMMAND_FIELDS)


def signed_bits(low: int, high: int) -> int:
    """Return the bits of two's complement that hold every integer from `low` to `high`."""
    return max((-low - 1).bit_length() if low < 0 else 0, high.bit_length()) + 1


class Work(NamedTuple):
    """One tile of a matmul: the command and the corner of the operands it works on."""

    tile: Tile
    m_from: int
    n_from: int
    k_from: int  # counts products


def _spans(length: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield (start, size) of the pieces of `length`, each of size `step` but the last."""
    for start in range(0, length, step):
        yield start, min(step, length - start)


def _steps(cfg: SystolicConfig, k: int, dataflow: Dataflow) -> tuple[int, int]:
    """Return the tile sizes (m, k) that a matmul over `k` beats is cut into."""
    if dataflow == "os":
        one_pass = k <= MAX_LENGTH or cfg.acc_rows < cfg.rows
        return cfg.rows, k if one_pass else MAX_LENGTH
    return (MAX_LENGTH if k <= cfg.rows else cfg.max_m), cfg.rows


def _check_matmul(cfg: SystolicConfig, m: int, n: int, k: int, dataflow: Dataflow) -> None:
    """Raise ``ValueError`` if `cfg` cannot execute an `m` x `n` x `k` matmul."""
    for name, value in (("m", m), ("n", n), ("k", k)):
        require(value >= 1, name, "at least 1", value)
    require(dataflow in cfg.dataflows, "dataflow", f"one of {', '.join(cfg.dataflows)}", dataflow)
    lanes = cfg.pe.k_lanes
    limit = lanes * (cfg.rows if dataflow == "ws" else MAX_LENGTH)
    needed = 1 if dataflow == "ws" else cfg.rows
    require(k <= limit or cfg.acc_rows >= needed, "k",
            f"at most {limit} without {needed} accumulator rows", k)
    zero_free = cfg.pe.fixed.masked and cfg.pe.fixed.integer
    require(k % lanes == 0 or not zero_free, "k",
            f"a multiple of {lanes}: {cfg.act_format.name} has no zero", k)


def matmul_tiles(
    cfg: SystolicConfig, m: int, n: int, k: int, dataflow: Dataflow
) -> Iterator[Work]:
    """Yield the tiles of an [m, k] by [k, n] matmul in the order one array executes them.

    Columns outside, rows next, k inside; edge tiles have their real sizes. Raises ``ValueError``
    for a size below 1, a k that needs more accumulator rows than there are, and one that would
    leave lanes unused where activations have no zero.
    """
    _check_matmul(cfg, m, n, k, dataflow)
    beats = cfg.k_beats(k)
    m_step, k_step = _steps(cfg, beats, dataflow)
    for n_from, _ in _spans(n, cfg.cols):
        for m_from, m_size in _spans(m, m_step):
            for k_from, k_size in _spans(beats, k_step):
                tile = Tile(dataflow=dataflow, m=m_size, k=k_size, accumulate=k_from > 0,
                            emit=k_from + k_size == beats)
                yield Work(tile, m_from, n_from, k_from * cfg.pe.k_lanes)


class MatmulCycles(NamedTuple):
    """Where the cycles of an unstalled matmul on one array go, first command to last sums taken."""

    fill_cycles: int  # commands and the first tile's weights, before the first activation
    busy_cycles: int  # a beat of activations enters, or is the one the elements work on
    wait_cycles: int  # ws: weights still loading; os: sums of the tile before merge or leave
    drain_cycles: int  # after the last activation

    @property
    def total_cycles(self) -> int:
        """All cycles: the sum of the four classes."""
        return sum(self)


def matmul_cycles(
    cfg: SystolicConfig, m: int, n: int, k: int, dataflow: Dataflow
) -> MatmulCycles:
    """Return the cycles of `matmul_tiles` run back to back with no stall on any stream.

    Derived from the array's rules: one beat of each stream a cycle, of activations one in
    ``initiation_interval_cycles``; a ws tile's first weight not before the first activation of the
    tile in front, its first activation after its last weight; a tile's rows of sums do not overlap
    those of the tile in front. Raises ``ValueError`` as `matmul_tiles` does.
    """
    _check_matmul(cfg, m, n, k, dataflow)
    beats = cfg.k_beats(k)
    m_step, k_step = _steps(cfg, beats, dataflow)
    strips = -(-n // cfg.cols)
    m_sizes, k_sizes = _sizes(m, m_step), _sizes(beats, k_step)
    k_tiles = sum(k_sizes.values())
    m_tiles = sum(m_sizes.values())
    k_first, m_final = min(beats, k_step), m - m_step * (m_tiles - 1)
    interval, merge = cfg.initiation_interval_cycles, cfg.pe.merge_cycles

    # Every tile delays the next by a time of its own m and k; the last of all has no next one.
    delay = cfg.ws_tile_cycles if dataflow == "ws" else _os_delay(cfg)
    spent = strips * sum(
        m_count * k_count * delay(m_size, k_size)
        for m_size, m_count in m_sizes.items()
        for k_size, k_count in k_sizes.items()
    ) - delay(m_final, k_first)
    if dataflow == "ws":
        fill, acts, span, leave = 1 + k_first, strips * k_tiles * m, spent + m_final * interval, 0
    else:
        fill, acts, span = 2, strips * m_tiles * beats, k_first * interval + spent
        leave = merge + m_final - 1
    busy = acts * interval
    return MatmulCycles(fill, busy, span - busy, leave + cfg.latency_cycles - (interval - 1))


def _os_delay(cfg: SystolicConfig) -> Callable[[int, int], int]:
    """Return ``os_tile_cycles`` with its arguments in the order of ``ws_tile_cycles``."""
    return lambda m, k: cfg.os_tile_cycles(k, m)


def _sizes(length: int, step: int) -> dict[int, int]:
    """Return how many pieces of each size `_spans` yields."""
    whole, edge = divmod(length, step)
    return {size: count for size, count in ((step, whole), (edge, 1)) if size and count}
