"""The program: what golden computes, the simulator times and the RTL runs.

A program is a set of streams, one for each in-order queue. Streams run concurrently; the only
order between them is made by tokens (counting semaphores). Memory operands are described once,
in a table of descriptors, and instructions name them by index.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

__all__ = [
    "LOOP_LEVELS",
    "NAME",
    "NO_LEVEL",
    "REGISTERS",
    "UNIT_LEVEL",
    "VERSION",
    "Capability",
    "Edge",
    "Gather",
    "Group",
    "Instruction",
    "Launch",
    "Layout",
    "Operand",
    "Predicate",
    "Program",
    "Queue",
    "QueueKind",
    "Space",
    "Stream",
    "Symbol",
    "SymbolKind",
    "Token",
]

VERSION = 1
LOOP_LEVELS = 7  # nested loops a queue can run, levels 0 (outermost) to 6
UNIT_LEVEL = 7  # the pseudo level whose index is a unit's rank among the units of the mask
NO_LEVEL = 15  # the encoding of "no level"
REGISTERS = 16  # 64-bit signed scalar registers a queue
NAME = r"[A-Za-z_][A-Za-z0-9_./-]*"  # what every name in a program looks like


class Space(IntEnum):
    """An address space of one chip."""

    DRAM = 0
    SCRATCHPAD = 1
    ACCUMULATOR = 2
    TABLE = 3  # on-chip look-up tables
    PIM_BUFFER = 4  # the global vector buffer of a PIM channel
    PIM_LATCH = 5  # the result latches of a PIM channel


class Layout(IntEnum):
    """How the elements of an operand lie in memory."""

    ROW = 0  # element (i, j, ...) at sum of index * stride, packed to the bit
    TILE = 1  # as ROW; the strides walk tiles in the order the array consumes them
    BIT_PLANE = 2  # the first axis is the bit of the weight, one bit an element
    TABLE = 3  # the last axis is a look-up table of 8 entries
    BLOCK_SCALED = 4  # MX, NVFP4, BFP: each block's scale stands before its elements


class Capability(IntEnum):
    """What a program needs of a machine; a loader refuses a program whose bits it lacks."""

    SYSTOLIC = 0
    LUT = 1
    VECTOR = 2
    PIM = 3
    LINK = 4
    INDIRECT = 5  # base registers, gather and scatter
    GROUP_SCALE = 6  # scales and zero points applied at the end of each group of K


class QueueKind(IntEnum):
    """The kind of unit that a queue drives."""

    DMA = 0
    ARRAY = 1
    VECTOR = 2
    PIM = 3
    LINK = 4


class SymbolKind(IntEnum):
    """Who writes a tensor before the program runs, and who reads it after."""

    CONST = 0  # packed once, offline: weights, tables
    INPUT = 1  # packed at every launch
    OUTPUT = 2  # read after the run
    STATE = 3  # kept between launches: KV cache, recurrent state
    LAUNCH = 4  # part of the launch table: page tables, expert lists
    SCRATCH = 5  # neither packed nor read


@dataclass(frozen=True, slots=True, order=True)
class Queue:
    """An in-order instruction queue: `index` counts the streams of one kind on one chip."""

    kind: QueueKind
    index: int = 0
    chip: int = 0

    def __str__(self) -> str:
        return f"chip{self.chip}.{self.kind.name.lower()}{self.index}"


@dataclass(frozen=True, slots=True)
class Token:
    """A counting semaphore; any queue on any chip may wait for it and signal it."""

    name: str
    initial: int = 0  # count before the program starts


@dataclass(frozen=True, slots=True)
class Predicate:
    """Run the instruction only if a register is non-zero (or, with `negate`, zero).

    An instruction whose predicate is false still waits and signals, so that counts stay static.
    """

    register: int
    negate: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """The edge rule of one dimension: size = clamp(bound - sum(index * step), 0, tile).

    `steps` holds up to two (level, step) pairs, so that a dimension may be split by a loop and
    by the units of a mask. The bound is `bound`, or the value of `bound_register` if that is set.
    """

    bound: int = 0
    steps: tuple[tuple[int, int], ...] = ()
    bound_register: int | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Quantisation groups of `size` elements along `axis`, each with a scale and a zero point.

    `scale` and `zero` are indices of operands with one element a group; None is absent.
    """

    axis: int
    size: int
    scale: int | None = None
    zero: int | None = None


@dataclass(frozen=True, slots=True)
class Gather:
    """Indirection along `axis`: position p lies at index[p // granule] * granule + p % granule.

    `index` is the operand that holds the index list: a KV page table, expert lists.
    """

    axis: int
    index: int
    granule: int = 1


@dataclass(frozen=True, slots=True)
class Operand:
    """A strided tile of a tensor in one address space.

    Its first element is at ``address_bytes`` plus the base register (in bytes) plus the sum over
    loop levels of index * loop stride (in elements). Strides count packed elements.
    """

    name: str
    space: Space
    address_bytes: int
    shape: tuple[int, ...]  # 1 to 4 dimensions, each the tile's full size
    strides: tuple[int, ...]  # elements, one a dimension
    format: str  # a name in machine.formats
    layout: Layout = Layout.ROW
    base_register: int | None = None
    loop_strides: tuple[tuple[int, int], ...] = ()  # (level, elements); level 7 is the unit's rank
    edges: tuple[Edge | None, ...] = ()  # one a dimension; empty means no edge anywhere
    group: Group | None = None
    gather: Gather | None = None


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a stream.

    `operands` maps a role of the opcode (``machine.opcodes``) to an operand's index, `fields`
    its named fields to integers (enumerations by value). Absent operands and fields at their
    default are left out of both.
    """

    opcode: int
    unit_mask: int = 1  # bit i drives the i-th unit of the queue's kind
    waits: tuple[tuple[int, int], ...] = ()  # (token, count), taken at issue
    signals: tuple[tuple[int, int], ...] = ()  # (token, count), given at completion
    predicate: Predicate | None = None
    op_id: int = 0  # into Program.ops, for accounting
    layer_id: int = 0  # the layer accounted for, plus the loop index at `layer_level`
    layer_level: int = NO_LEVEL
    operands: Mapping[str, int] = field(default_factory=dict)
    fields: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """The instructions of one queue; loops are LOOP ... END pairs, the last is HALT."""

    queue: Queue
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True, slots=True)
class Symbol:
    """A tensor that the program names: where it lies, and who fills it."""

    name: str
    kind: SymbolKind
    space: Space
    address_bytes: int
    shape: tuple[int, ...]
    format: str
    layout: Layout = Layout.ROW
    chip: int = 0
    transform: str = ""  # the offline transform golden.pack applies, by name; "" is none


@dataclass(frozen=True, slots=True)
class Program:
    """A self-contained program: constants of control, tensors, tokens and streams."""

    name: str
    capabilities: frozenset[Capability] = frozenset()
    chips: int = 1
    symbols: tuple[Symbol, ...] = ()
    launch: tuple[str, ...] = ()  # names of the launch table's scalar entries, in order
    tokens: tuple[Token, ...] = ()
    ops: tuple[str, ...] = ()  # names of accounting ids
    operands: tuple[Operand, ...] = ()
    streams: tuple[Stream, ...] = ()
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Launch:
    """The values of one launch: scalars by entry name, tensors of kind LAUNCH by symbol name."""

    values: Mapping[str, int] = field(default_factory=dict)
    tensors: Mapping[str, Sequence[int]] = field(default_factory=dict)
