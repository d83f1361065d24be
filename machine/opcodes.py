"""The instruction set: every opcode, its operand roles and its fields, as one table.

Encoding, assembler, verifier, documentation and executors all read this table.
"""

from dataclasses import dataclass
from enum import IntEnum

from machine.program import NO_LEVEL, QueueKind, Space
from machine.vector import Mask, ReductionOrder, ScaleRule, VectorOp

__all__ = [
    "OPCODES",
    "Alu",
    "Dataflow",
    "Field",
    "KOrder",
    "Mode",
    "Opcode",
    "OpcodeSpec",
    "PimMode",
    "Role",
    "Rounding",
    "RowBuffer",
]


class Opcode(IntEnum):
    """An instruction's first byte; the number never changes."""

    NOP = 0  # waits and signals only
    HALT = 1  # the end of a stream
    FENCE = 2  # completes when every earlier instruction of its queue has completed
    LOOP = 3  # run the body `count` times; 0 is legal
    END = 4  # the end of the innermost loop's body
    SCALAR = 5  # register arithmetic
    READ = 6  # register = one element of memory
    LOAD = 16  # DRAM to an on-chip space, with format conversion
    STORE = 17  # an on-chip space to DRAM; completes when the write is visible
    PRELOAD = 32  # weights of one array tile into the second weight registers
    MATMUL = 33  # acc (set or +=) a x w, walking array tiles; optionally flush to `out`
    FLUSH = 34  # out = round(acc)
    VECTOR = 48  # one operation of the vector unit, machine.vector.VectorOp
    PIM_GWRITE = 64  # vector into the global buffers
    PIM_ACTIVATE = 65  # open a row in a group of banks
    PIM_GEMV = 66  # dot products over a loop of rows into the result latches
    PIM_READRES = 67  # result latches out
    PIM_HEADER = 68  # announce the next GEMV to the controller
    PIM_PRECHARGE = 69  # close the PIM row buffers
    SEND = 80  # a tile to another chip
    RECV = 81  # the matching tile from another chip


class Alu(IntEnum):
    """What a SCALAR puts into its register `rd`."""

    SET = 0  # register = b
    LAUNCH = 1  # register = launch table [b]
    ADD = 2
    SUB = 3
    MUL = 4
    MIN = 5
    MAX = 6
    CEILDIV = 7
    LT = 8  # 1 if a < b, else 0
    EQ = 9  # 1 if a == b, else 0
    INDEX = 10  # register = this queue's loop index at level b
    WRAP = 11  # a - b if a >= b, else a: the next slot of a ring


class Dataflow(IntEnum):
    """How an array walks a matrix product."""

    OS = 0  # output-stationary
    WS = 1  # weight-stationary
    LUT = 2  # tables on the array, weights look them up


class KOrder(IntEnum):
    """The order in which a MATMUL adds the products of floats; `k_size` says of how many.

    1 is no order of a MATMUL: a tree is the vector unit's.
    """

    SEQUENTIAL = 0  # to the accumulator, k ascending; k_size is 0
    DESCENDING = 2  # tiles of k_size products, each from +0, its last k first; then accumulated
    INTERLEAVED = 3  # k_size partial sums from +0, product k to k mod k_size; then accumulated


class Mode(IntEnum):
    """Whether a result replaces what is there or is added to it."""

    SET = 0
    ACCUMULATE = 1


class Rounding(IntEnum):
    """How a result is rounded where its format has no such value."""

    NEAREST_EVEN = 0
    TOWARD_ZERO = 1
    FLOOR = 2


class PimMode(IntEnum):
    """Which banks of a PIM channel a command addresses together."""

    ALL = 0
    BANK = 1
    GROUP = 2
    BUNDLE = 3


class RowBuffer(IntEnum):
    """Which row buffer of a bank a PIM command uses."""

    MEM = 0
    PIM = 1


@dataclass(frozen=True, slots=True)
class Role:
    """An operand slot of an opcode, and the address spaces its operand may lie in."""

    name: str
    written: bool = False
    required: bool = True
    spaces: tuple[Space, ...] = tuple(Space)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an opcode, an integer in the binary.

    `kind` says how it is meant and written: an enumeration, ``int``, ``float32`` (its bits),
    ``register`` (a number below REGISTERS) or ``mask`` (one bit a channel).
    """

    name: str
    bits: int
    kind: type | str = "int"
    signed: bool = False
    default: int = 0

    @property
    def range(self) -> tuple[int, int]:
        """The least and the greatest value that its bits hold."""
        if self.signed:
            return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        return 0, 2**self.bits - 1


@dataclass(frozen=True, slots=True)
class OpcodeSpec:
    """What one opcode takes; an empty `queues` means every queue."""

    queues: tuple[QueueKind, ...] = ()
    roles: tuple[Role, ...] = ()
    fields: tuple[Field, ...] = ()


_MEMORY = (Space.DRAM,)
_CHIP = (Space.SCRATCHPAD, Space.ACCUMULATOR, Space.TABLE)
_SPACES = {
    "memory": _MEMORY,
    "chip": _CHIP,
    "any": _MEMORY + _CHIP,
    "pad": (Space.SCRATCHPAD,),
    "table": (Space.SCRATCHPAD, Space.TABLE),
    "acc": (Space.ACCUMULATOR,),
    "buffer": (Space.PIM_BUFFER,),
    "latch": (Space.PIM_LATCH,),
}


def _roles(reads: str = "", writes: str = "", optional: str = "") -> tuple[Role, ...]:
    """Roles in the order read, written, optional, each ``name:spaces``; ``!`` is written."""
    made = []
    for words, written, required in ((reads, False, True), (writes, True, True),
                                     (optional, False, False)):
        for word in words.split():
            name, spaces = word.rstrip("!").split(":")
            made.append(Role(name, written or word.endswith("!"), required, _SPACES[spaces]))
    return tuple(made)


_DMA, _ARRAY, _VECTOR = (QueueKind.DMA,), (QueueKind.ARRAY,), (QueueKind.VECTOR,)
_PIM, _LINK = (QueueKind.PIM,), (QueueKind.LINK,)
_CONVERT = (Field("rounding", 4, Rounding), Field("saturate", 1, default=1))
_CHANNELS = (
    Field("channels", 32, "mask", default=0xFFFFFFFF),
    Field("mode", 4, PimMode),
    Field("row_buffer", 2, RowBuffer, default=RowBuffer.PIM),
)

OPCODES: dict[Opcode, OpcodeSpec] = {
    Opcode.NOP: OpcodeSpec(),
    Opcode.HALT: OpcodeSpec(),
    Opcode.FENCE: OpcodeSpec(),
    Opcode.LOOP: OpcodeSpec(
        fields=(Field("count", 32), Field("count_is_register", 1)),
    ),
    Opcode.END: OpcodeSpec(),
    Opcode.SCALAR: OpcodeSpec(
        fields=(
            Field("alu", 5, Alu),
            Field("rd", 4, "register"),
            Field("ra", 4, "register"),
            Field("b", 64, signed=True),
            Field("b_is_register", 1),
        ),
    ),
    Opcode.READ: OpcodeSpec(roles=_roles("src:any"), fields=(Field("rd", 4, "register"),)),
    Opcode.LOAD: OpcodeSpec(_DMA, _roles("src:memory", "dst:chip"), _CONVERT),
    Opcode.STORE: OpcodeSpec(_DMA, _roles("src:chip", "dst:memory"), _CONVERT),
    Opcode.PRELOAD: OpcodeSpec(_ARRAY, _roles("w:pad")),
    Opcode.MATMUL: OpcodeSpec(
        _ARRAY,
        _roles("a:table", "acc:acc", "w:pad asum:chip out:pad!"),
        (
            Field("dataflow", 4, Dataflow),
            Field("mode", 2, Mode),
            Field("set_level", 4, default=NO_LEVEL),  # there, index 0 sets and others accumulate
            Field("tables", 1),  # `a` holds precomputed tables
            Field("k_order", 4, KOrder),
            Field("group_end", 1),  # apply scale and zero x activation sum after each group
            *_CONVERT,
            Field("k_size", 16),  # of k_order: products of a tile, or partial sums
        ),
    ),
    Opcode.FLUSH: OpcodeSpec(_ARRAY, _roles("acc:acc", "out:pad"), _CONVERT),
    Opcode.VECTOR: OpcodeSpec(
        _VECTOR,
        _roles("x:chip", "y:chip", "x1:chip x2:chip x3:chip scale:chip! state:chip!"),
        (
            Field("vop", 8, VectorOp),
            Field("axis", 3),
            Field("reduction", 4, ReductionOrder),
            Field("mask", 4, Mask),
            Field("window", 32),
            Field("position", 32, signed=True),
            Field("position_register", 5, "register", default=31),  # 31: none; else is added
            Field("scale_rule", 4, ScaleRule),
            Field("k", 16),
            Field("value", 32, "float32"),  # eps, scale or constant, as FP32 bits
            *_CONVERT,
        ),
    ),
    Opcode.PIM_GWRITE: OpcodeSpec(_PIM, _roles("src:any", "dst:buffer"), _CHANNELS),
    Opcode.PIM_ACTIVATE: OpcodeSpec(_PIM, _roles("w:memory"), _CHANNELS),
    Opcode.PIM_GEMV: OpcodeSpec(
        _PIM, _roles("a:buffer w:memory", "dst:latch"), (*_CHANNELS, Field("accumulate", 2, Mode))
    ),
    Opcode.PIM_READRES: OpcodeSpec(_PIM, _roles("src:latch", "dst:any"), _CHANNELS),
    Opcode.PIM_HEADER: OpcodeSpec(
        _PIM, (), (*_CHANNELS, Field("dots", 16), Field("reads", 16), Field("rows", 16))
    ),
    Opcode.PIM_PRECHARGE: OpcodeSpec(_PIM, (), _CHANNELS),
    Opcode.SEND: OpcodeSpec(_LINK, _roles("src:any"), (Field("peer", 16), Field("tag", 32))),
    Opcode.RECV: OpcodeSpec(_LINK, _roles("", "dst:any"), (Field("peer", 16), Field("tag", 32))),
}
