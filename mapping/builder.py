"""Building a program: streams, operands, tokens and rings of buffer slots."""

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from machine.errors import UserError
from machine.formats import format_named, packed_bytes
from machine.opcodes import OPCODES, Alu, Opcode
from machine.program import (
    NO_LEVEL,
    Capability,
    Edge,
    Gather,
    Instruction,
    Layout,
    Operand,
    Predicate,
    Program,
    Queue,
    Space,
    Stream,
    Symbol,
    SymbolKind,
    Token,
)
from machine.records import WAIT_SLOTS

__all__ = ["Count", "ProgramBuilder", "Ring", "StreamBuilder", "fp32_bits", "packed_strides"]

Count = tuple[int, int]  # a token and how many of it
SHARES = 8  # a slot is handed over in 8 shares, so that up to 8 groups of units can hold it
DRAM_ALIGN_BYTES = 32768  # one page of each of 32 channels: a symbol starts on channel 0


def fp32_bits(value: float) -> int:
    """Return the bits of `value` rounded to FP32, as the program's float fields hold them."""
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def packed_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides, in elements, of a dense row-major tensor of `shape`."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


@dataclass(slots=True)
class StreamBuilder:
    """The instructions of one queue while they are written."""

    builder: "ProgramBuilder"
    queue: Queue
    mask: int = 1  # units driven unless an instruction says otherwise
    instructions: list[Instruction] = field(default_factory=list)
    _depth: int = 0
    _pending: list[Count] = field(default_factory=list)  # waits the next instruction takes
    _registers: dict[str, int] = field(default_factory=dict)

    def register(self, name: str) -> int:
        """Return the register that `name` stands for in this stream."""
        if name not in self._registers:
            if len(self._registers) == 16:
                raise UserError(f"{self.queue}: registers must be at most 16, {name} is one more")
            self._registers[name] = len(self._registers)
        return self._registers[name]

    @contextmanager
    def loop(self, count: int, *, register: bool = False) -> Iterator[int]:
        """Repeat what is written inside `count` times; yields the loop's level.

        `count` is the number of a register that holds the count if `register` is set.
        """
        self._put(Opcode.LOOP, {"count": count, "count_is_register": register})
        self._depth += 1
        yield self._depth - 1
        self._depth -= 1
        self._put(Opcode.END)

    def scalar(self, alu: Alu, rd: int, b: int, *, ra: int = 0, register: bool = False) -> None:
        """Write rd = alu(ra, b); `b` is a register's number if `register` is set."""
        fields = {"alu": alu, "rd": rd, "ra": ra, "b": b, "b_is_register": register}
        self._put(Opcode.SCALAR, fields)

    def launch(self, name: str) -> int:
        """Return a register that holds the launch entry `name`; read where this is first called."""
        fresh = name not in self._registers
        rd = self.register(name)
        if fresh:
            self.scalar(Alu.LAUNCH, rd, self.builder.launch_entry(name))
        return rd

    def wait(self, *tokens: Count) -> None:
        """Let the next instruction take `tokens`; a NOP does where a loop begins or ends first."""
        self._pending += tokens

    def finish(self) -> None:
        """Write the waits that no instruction has taken."""
        if self._pending:
            pending, self._pending = tuple(self._pending), []
            self._put(Opcode.NOP, waits=pending)

    def fence(self, *tokens: Count) -> None:
        """Write a FENCE that gives `tokens` when all before it has completed."""
        self._put(Opcode.FENCE, signals=tokens)

    def op(self, opcode: Opcode, *, waits: Sequence[Count] = (), signals: Sequence[Count] = (),
           mask: int | None = None, predicate: Predicate | None = None,
           operands: dict[str, int] | None = None, fields: dict[str, int] | None = None) -> None:
        """Write one instruction."""
        self._put(
            opcode,
            fields,
            unit_mask=self.mask if mask is None else mask,
            waits=tuple(waits),
            signals=tuple(signals),
            predicate=predicate,
            operands=operands,
        )

    def _put(self, opcode: Opcode, fields: dict[str, int] | None = None, *, unit_mask: int = 1,
             waits: tuple[Count, ...] = (), signals: tuple[Count, ...] = (),
             predicate: Predicate | None = None, operands: dict[str, int] | None = None) -> None:
        pending, self._pending = tuple(self._pending), []
        if opcode == Opcode.SCALAR:
            self._pending += pending
        elif pending and (opcode in (Opcode.LOOP, Opcode.END)
                          or len(pending) + len(waits) > WAIT_SLOTS):
            self._put(Opcode.NOP, waits=pending)
        else:
            waits = (*pending, *waits)
        defaults = {f.name: f.default for f in OPCODES[opcode].fields}
        kept = {n: int(v) for n, v in (fields or {}).items() if int(v) != defaults[n]}
        self.instructions.append(Instruction(
            opcode=opcode, unit_mask=unit_mask, waits=waits, signals=signals, predicate=predicate,
            op_id=self.builder.current_op, layer_id=self.builder.current_layer,
            layer_level=self.builder.layer_level, operands=operands or {}, fields=kept,
        ))


@dataclass(frozen=True, slots=True)
class Ring:
    """Slots of one buffer, handed round between a producer and its consumer.

    The slot's offset is in a register of each stream, so that a program may use a ring any
    number of times. A slot changes hands in `SHARES` shares: `parts` consumers take and give
    back ``SHARES / parts`` each.
    """

    name: str
    space: Space
    address_bytes: int
    slot_bytes: int
    slots: int
    free: int  # token: shares of slots the producer may fill
    full: int  # token: shares of slots a consumer may read

    def open(self, *streams: StreamBuilder) -> None:
        """Set the slot register of each stream so that its first step leads to slot 0."""
        for stream in streams:
            last = (self.slots - 1) * self.slot_bytes
            stream.scalar(Alu.SET, stream.register(f"{self.name}.slot"), last)

    def step(self, stream: StreamBuilder) -> int:
        """Move `stream` on to its next slot; return the register with the slot's offset."""
        slot = stream.register(f"{self.name}.slot")
        stream.scalar(Alu.ADD, slot, self.slot_bytes, ra=slot)
        stream.scalar(Alu.WRAP, slot, self.slots * self.slot_bytes, ra=slot)
        return slot

    def slot(self, stream: StreamBuilder) -> int:
        """Return the register with the offset of the slot `stream` is at."""
        return stream.register(f"{self.name}.slot")

    def take_free(self, parts: int = 1) -> Count:
        """The producer's wait for an empty slot."""
        return self.free, SHARES // parts

    def give_full(self, parts: int = 1) -> Count:
        """The producer's signal that the slot is filled."""
        return self.full, SHARES // parts

    def take_full(self, parts: int = 1) -> Count:
        """A consumer's wait for a filled slot."""
        return self.full, SHARES // parts

    def give_free(self, parts: int = 1) -> Count:
        """A consumer's signal that it has done with the slot."""
        return self.free, SHARES // parts


class ProgramBuilder:
    """Collects a program's parts; `build` freezes them."""

    def __init__(self, name: str):
        self.name = name
        self.current_op = 0
        self.current_layer = 0
        self.layer_level = NO_LEVEL
        self.dram_bytes = 0
        self._symbols: list[Symbol] = []
        self._launch: list[str] = []
        self._tokens: list[Token] = []
        self._ops: list[str] = []
        self._operands: dict[Operand, int] = {}
        self._names: dict[str, int] = {}
        self._described: list[Operand] = []
        self._streams: dict[Queue, StreamBuilder] = {}

    def stream(self, queue: Queue, mask: int = 1) -> StreamBuilder:
        """Return the stream of `queue`, made at the first call."""
        if queue not in self._streams:
            self._streams[queue] = StreamBuilder(self, queue, mask)
        return self._streams[queue]

    def token(self, name: str, initial: int = 0) -> int:
        """Return a new token's number."""
        self._tokens.append(Token(name, initial))
        return len(self._tokens) - 1

    def ring(self, name: str, space: Space, address_bytes: int, slot_bytes: int,
             slots: int = 2) -> Ring:
        """Return a ring of `slots` slots at `address_bytes`, all empty."""
        free, full = self.token(f"{name}.free", slots * SHARES), self.token(f"{name}.full")
        return Ring(name, space, address_bytes, slot_bytes, slots, free, full)

    def launch_entry(self, name: str) -> int:
        """Return the index of the launch table's entry `name`."""
        if name not in self._launch:
            self._launch.append(name)
        return self._launch.index(name)

    @contextmanager
    def accounting(self, op: str, layer: int = 0, level: int = NO_LEVEL) -> Iterator[None]:
        """Account what is written inside for operator `op` of `layer` (+ the index at `level`)."""
        before = (self.current_op, self.current_layer, self.layer_level)
        if op not in self._ops:
            self._ops.append(op)
        self.current_op, self.current_layer, self.layer_level = self._ops.index(op), layer, level
        yield
        self.current_op, self.current_layer, self.layer_level = before

    def symbol(self, name: str, kind: SymbolKind, shape: Sequence[int], format: str, *,
               layout: Layout = Layout.ROW, transform: str = "") -> Symbol:
        """Place a tensor in DRAM after those before it and return it."""
        made = Symbol(name, kind, Space.DRAM, self.dram_bytes, tuple(shape), format, layout,
                      transform=transform)
        bytes_ = packed_bytes(format_named(format), tuple(shape))
        self.dram_bytes += -(-bytes_ // DRAM_ALIGN_BYTES) * DRAM_ALIGN_BYTES
        self._symbols.append(made)
        return made

    def operand(self, name: str, space: Space, address_bytes: int, shape: Sequence[int],
                format: str, *, strides: Sequence[int] | None = None, base: int | None = None,
                loops: Sequence[tuple[int, int]] = (), edges: Sequence[Edge | None] = (),
                gather: Gather | None = None, layout: Layout = Layout.ROW) -> int:
        """Return the index of the operand described, the same for an equal description."""
        steps = tuple(sorted((level, step) for level, step in loops if step))
        made = Operand(
            name, space, address_bytes, tuple(shape),
            packed_strides(shape) if strides is None else tuple(strides), format, layout,
            base_register=base, loop_strides=steps,
            edges=tuple(edges) if any(e is not None for e in edges) else (), gather=gather,
        )
        nameless = replace(made, name="")
        if nameless not in self._operands:
            count = self._names[name] = self._names.get(name, 0) + 1
            unique = name if count == 1 else f"{name}_{count}"
            self._operands[nameless] = len(self._operands)
            self._described.append(replace(made, name=unique))
        return self._operands[nameless]

    def build(self, capabilities: frozenset[Capability]) -> Program:
        """Return the program; every stream gets its HALT."""
        streams = []
        for queue, stream in sorted(self._streams.items()):
            stream.finish()
            halt = Instruction(opcode=Opcode.HALT)
            streams.append(Stream(queue, (*stream.instructions, halt)))
        return Program(
            self.name, capabilities, 1, tuple(self._symbols), tuple(self._launch),
            tuple(self._tokens), tuple(self._ops), tuple(self._described),
            tuple(streams),
        )
