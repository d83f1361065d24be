"""The vector unit in RTL described: its sizes, its command, its cycles as a formula.

A command names a program (``machine.vector_programs``) and runs it on rows of one width. Elements
of a beat lie at bit ``32 * lane``, narrow formats in the low bits of their 32. Every row starts on
a new beat; what lies beyond the width in its last beat is ignored, and sent as 0.
"""

from machine.config import config, require
from machine.floats import FloatConfig
from machine.vector import Mask, ReductionOrder, check_core
from machine.vector_microcode import ITERATIVE, Count, Step, gap_cycles, interval_cycles
from machine.vector_programs import PROGRAMS, Code

__all__ = [
    "COMMAND_BITS", "COMMAND_FIELDS", "DECODE_CYCLES", "HALVES", "INPUT_FORMATS", "MAX_ROWS",
    "OUTPUT_FORMATS", "WHOLE_INPUTS", "WHOLE_OUTPUTS", "VectorCommand", "VectorCoreConfig",
    "command_cycles", "done_cycles", "pack_command", "step_beats",
]

# The command word: field, lowest bit, width. Bits between the fields are ignored; rows_last and
# width_last are one less than the number, value is a float32.
COMMAND_BITS = 160
COMMAND_FIELDS = (
    ("code", 0, 6), ("x_format", 8, 2), ("y_format", 10, 2), ("o_format", 12, 2), ("order", 14, 1),
    ("mask", 15, 2), ("saturate", 17, 1), ("rows_last", 32, 16), ("width_last", 48, 16),
    ("position", 64, 32), ("window", 96, 32), ("value", 128, 32),
)
INPUT_FORMATS = ("float32", "float16", "bfloat16", "int32")  # by the command's number
OUTPUT_FORMATS = ("float32", "float16", "bfloat16", "int8")
MAX_ROWS = 1 << 16  # of one command
DECODE_CYCLES = 2  # from a command's acceptance to its first beat
HALVES = (Code.ROPE,)  # programs that pair the two halves of a row
WHOLE_INPUTS = (Code.FROM_INTEGER, Code.MULTIPLY_INTEGER, Code.DEQUANTISE,
                Code.DEQUANTISE_BIAS)  # of int32 x
WHOLE_OUTPUTS = (Code.QUANTISE, Code.QUANTISE_ROWS)  # of int8


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
    saturate: bool = False  # overflow to float16 or bfloat16 stops at the largest finite number
    value: int = 0  # factor, scale or epsilon: the bits of a float32

    def check(self, cfg: VectorCoreConfig) -> None:
        """Raise ``ValueError`` unless a unit of `cfg` can carry the command out."""
        require(1 <= self.rows <= MAX_ROWS, "rows", f"from 1 to {MAX_ROWS}", self.rows)
        require(1 <= self.width <= cfg.row_elements, "width",
                f"from 1 to row_elements, {cfg.row_elements}", self.width)
        if self.code in HALVES:
            step = 2 * cfg.lanes
            require(self.width % step == 0, "width",
                    f"a multiple of {step}, two beats of {cfg.lanes} lanes", self.width)
        for name, known in (("x_format", INPUT_FORMATS), ("y_format", INPUT_FORMATS),
                            ("o_format", OUTPUT_FORMATS)):
            require(getattr(self, name) in known, name, f"one of {', '.join(known)}",
                    getattr(self, name))
        require((self.x_format == "int32") == (self.code in WHOLE_INPUTS), "x_format",
                f"int32 for {', '.join(c.name for c in WHOLE_INPUTS)} alone", self.x_format)
        require((self.o_format == "int8") == (self.code in WHOLE_OUTPUTS), "o_format",
                f"int8 for {', '.join(c.name for c in WHOLE_OUTPUTS)} alone", self.o_format)
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
    }
    return sum(int(values[name]) << low for name, low, _ in COMMAND_FIELDS)


def step_beats(cfg: VectorCoreConfig, step: Step, width: int, order: ReductionOrder) -> int:
    """Return the beats of `step` on a row of `width` elements, added in `order`."""
    beats = cfg.beats(width)
    in_turn = order is ReductionOrder.SEQUENTIAL and step.adds
    return {
        Count.ROW: beats, Count.HALF: beats // 2, Count.ONE: 1,
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
    return DECODE_CYCLES + steps_cycles(
        cfg, program.command, command.width, command.order
    ) + command.rows * steps_cycles(cfg, program.rows, command.width, command.order)
