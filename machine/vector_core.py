"""The vector unit in RTL described: its sizes, its command, its cycles as a formula.

A command names a program (``machine.vector_programs``) and runs it on rows of one width. Elements
of a beat lie at bit ``32 * lane``, narrow formats in the low bits of their 32. Every row starts on
a new beat; what lies beyond the width in its last beat is ignored, and sent as 0.
"""

from struct import pack

from machine.config import config, require
from machine.floats import FloatConfig
from machine.formats import FORMATS
from machine.vector import Mask, ReductionOrder, check_core
from machine.vector_curves import ROUNDER
from machine.vector_microcode import ITERATIVE, Count, Step, gap_cycles, interval_cycles
from machine.vector_programs import PROGRAMS, Code

__all__ = [
    "COMMAND_BITS", "COMMAND_FIELDS", "DECODE_CYCLES", "FLOATS", "INPUT_FORMATS", "LOOPS",
    "MAX_ROWS", "OUTPUT_FORMATS", "QUANTISED", "QUANTISERS", "WHOLE_INPUTS", "VectorCommand",
    "VectorCoreConfig", "command_cycles", "done_cycles", "pack_command", "quantiser_words",
    "step_beats",
]

# The command word: field, lowest bit, width. Bits between the fields are ignored; rows_last,
# width_last and repeats_last are one less than the number, value is a float32.
COMMAND_BITS = 192
COMMAND_FIELDS = (
    ("code", 0, 6), ("x_format", 8, 4), ("y_format", 12, 4), ("o_format", 16, 4), ("order", 20, 1),
    ("mask", 21, 2), ("saturate", 23, 1), ("rows_last", 32, 16), ("width_last", 48, 16),
    ("position", 64, 32), ("window", 96, 32), ("value", 128, 32), ("repeats_last", 160, 16),
)
FLOATS = ("float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
NARROW_INTEGERS = ("int4", "uint4", "int8", "uint8", "int16", "uint16")
INPUT_FORMATS = (*FLOATS, "int32", *NARROW_INTEGERS)  # by the command's number
OUTPUT_FORMATS = (*FLOATS, *NARROW_INTEGERS)
MAX_ROWS = 1 << 16  # of one command, and rounds of a row's loop
DECODE_CYCLES = 2  # from a command's acceptance to its first beat
LOOPS = tuple(code for code, program in PROGRAMS.items() if program.loop >= 0)
WHOLE_INPUTS = (Code.FROM_INTEGER, Code.MULTIPLY_INTEGER, Code.DEQUANTISE,
                Code.DEQUANTISE_BIAS)  # of integers x
QUANTISERS = (Code.QUANTISE, Code.QUANTISE_ROWS)  # the only ones that make integers
QUANTISED = tuple(name for name in OUTPUT_FORMATS if FORMATS[name].bits <= 8
                  or name in NARROW_INTEGERS)


@config
class VectorCoreConfig:
    """One vector unit in RTL."""

    lanes: int = 8  # elements of a beat
    row_elements: int = 256  # the longest row; each lane keeps 8 registers of its share
    unit_cycles: int = 3  # registers inside the adder and the multiplier

    def __post_init__(self) -> None:
        check_core(self.lanes, self.row_elements)
        deepest = FloatConfig(operation="multiply").max_depth_cycles
        require(1 <= self.unit_cycles <= deepest, "unit_cycles", f"from 1 to {deepest}",
                self.unit_cycles)

    @property
    def beat_bits(self) -> int:
        """Width of a beat of x, y and o."""
        return 32 * self.lanes

    @property
    def row_beats(self) -> int:
        """Beats of the longest row."""
        return self.row_elements // self.lanes

    @property
    def latency_cycles(self) -> int:
        """Cycles from a beat's issue to the cycle that writes its result: read, prepare, unit."""
        return self.unit_cycles + 2

    @property
    def output_cycles(self) -> int:
        """Cycles from the issue of a beat that is sent to the cycle it is offered."""
        return self.latency_cycles + 2

    @property
    def iterative_cycles(self) -> int:
        """Cycles a division, a root or a phase takes its unit: digits, and one each around them."""
        return FloatConfig(operation="divide").digits + 5

    @property
    def output_depth(self) -> int:
        """Beats issued and not taken yet, at most; enough for one a cycle."""
        return self.latency_cycles + 3

    def beats(self, width: int) -> int:
        """Return the beats of a row of `width` elements."""
        return -(-width // self.lanes)


@config
class VectorCommand:
    """One command: a program on `rows` rows of `width` elements."""

    code: Code
    rows: int
    width: int
    x_format: str = "float32"
    y_format: str = "float32"
    o_format: str = "float32"
    order: ReductionOrder = ReductionOrder.TREE
    mask: Mask = Mask.NONE  # of SOFTMAX
    position: int = 0  # of the first row; the next row stands at the next position
    window: int = 0  # of Mask.WINDOW
    repeats: int = 1  # rounds of a row's loop: TOPK's count, the rows of a mean
    saturate: bool = False  # overflow to float16 or bfloat16 stops at the largest finite number
    value: int = 0  # factor, scale or epsilon: the bits of a float32

    def check(self, cfg: VectorCoreConfig) -> None:
        """Raise ``ValueError`` unless a unit of `cfg` can carry the command out."""
        require(1 <= self.rows <= MAX_ROWS, "rows", f"from 1 to {MAX_ROWS}", self.rows)
        require(1 <= self.width <= cfg.row_elements, "width",
                f"from 1 to row_elements, {cfg.row_elements}", self.width)
        most = 1 if self.code not in LOOPS else self.width if self.code is Code.TOPK else MAX_ROWS
        require(1 <= self.repeats <= most, "repeats", f"from 1 to {most} of {self.code.name}",
                self.repeats)
        for name, known in (("x_format", INPUT_FORMATS), ("y_format", INPUT_FORMATS),
                            ("o_format", OUTPUT_FORMATS)):
            require(getattr(self, name) in known, name, f"one of {', '.join(known)}",
                    getattr(self, name))
        require((self.x_format not in FLOATS) == (self.code in WHOLE_INPUTS), "x_format",
                f"an integer for {', '.join(c.name for c in WHOLE_INPUTS)} alone", self.x_format)
        if self.code in QUANTISERS:
            require(self.o_format in QUANTISED, "o_format",
                    f"one of {', '.join(QUANTISED)} for {self.code.name}", self.o_format)
        else:
            require(self.o_format in FLOATS, "o_format",
                    f"an integer for {', '.join(c.name for c in QUANTISERS)} alone", self.o_format)
        require(0 <= self.position < (1 << 32) - self.rows, "position",
                f"from 0 to {(1 << 32) - self.rows - 1}", self.position)
        for name in ("window", "value"):
            value = getattr(self, name)
            require(0 <= value < 1 << 32, name, f"from 0 to {(1 << 32) - 1}", value)


def pack_command(command: VectorCommand) -> int:
    """Return the command word of `command`."""
    values = {
        "code": command.code, "x_format": INPUT_FORMATS.index(command.x_format),
        "y_format": INPUT_FORMATS.index(command.y_format),
        "o_format": OUTPUT_FORMATS.index(command.o_format), "order": command.order,
        "mask": command.mask, "saturate": command.saturate, "rows_last": command.rows - 1,
        "width_last": command.width - 1,
        "position": command.position, "window": command.window, "value": command.value,
        "repeats_last": command.repeats - 1,
    }
    return sum(int(values[name]) << low for name, low, _ in COMMAND_FIELDS)


def quantiser_words(name: str) -> tuple[int, int, int]:
    """Return `Given`'s largest, least and rounder for results of format `name`, as float32 bits.

    A float is not rounded to an integer: minus 0 is added to it.
    """
    fmt = FORMATS[name]
    words = (fmt.largest, -fmt.largest if fmt.signed else 0.0)
    largest, least = (int.from_bytes(pack("<f", word), "little") for word in words)
    return largest, least, 0x80000000 if fmt.is_float else ROUNDER


def step_beats(cfg: VectorCoreConfig, step: Step, width: int, order: ReductionOrder) -> int:
    """Return the beats of `step` on a row of `width` elements, added in `order`."""
    beats = cfg.beats(width)
    in_turn = order is ReductionOrder.SEQUENTIAL and step.adds
    return {
        Count.ROW: beats, Count.ONE: 1,
        Count.ELEMENTS: width if in_turn else beats, Count.LANES: cfg.lanes.bit_length() - 1,
    }[step.length]


def steps_cycles(cfg: VectorCoreConfig, steps: tuple[Step, ...], width: int,
                 order: ReductionOrder) -> int:
    """Return the cycles of `steps` on one row: of each, its beats and the gap behind them."""
    total = 0
    for step in steps:
        beats = step_beats(cfg, step, width, order)
        interval = interval_cycles(step, cfg.latency_cycles, cfg.iterative_cycles)
        gap = gap_cycles(step, beats, cfg.latency_cycles, cfg.iterative_cycles)
        total += (beats - 1) * interval + 1 + gap
    return total


def done_cycles(cfg: VectorCoreConfig, command: VectorCommand) -> int:
    """Return the cycles from a command's acceptance to the one after its last result is taken.

    Nothing is stalled. Every program ends with a step that sends.
    """
    last = PROGRAMS[command.code].rows[-1]
    behind = cfg.latency_cycles if last.op in ITERATIVE else 0
    return command_cycles(cfg, command) + cfg.output_cycles - behind


def command_cycles(cfg: VectorCoreConfig, command: VectorCommand) -> int:
    """Return the cycles from a command's acceptance to the next one's, nothing stalled."""
    program = PROGRAMS[command.code]
    first, before, loop, after = (
        steps_cycles(cfg, steps, command.width, command.order)
        for steps in (program.command, *program.parts()))
    return DECODE_CYCLES + first + command.rows * (before + command.repeats * loop + after)
