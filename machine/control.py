"""The meaning of control: how a stream's loops, registers and operands unfold.

Every executor that runs a program in software walks it with `Cursor`, so that loops, predicates,
edges and indirection mean one thing. The RTL decodes the binary by itself.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from machine.errors import UserError
from machine.opcodes import Alu, Opcode
from machine.program import (
    LOOP_LEVELS,
    NO_LEVEL,
    REGISTERS,
    UNIT_LEVEL,
    Instruction,
    Operand,
    Program,
    Space,
    Stream,
)

__all__ = ["Cursor", "Step", "Tile", "matching", "units"]


@dataclass(frozen=True, slots=True)
class Tile:
    """An operand with every address, size and edge resolved for one unit and one iteration."""

    operand: Operand
    address_bytes: int  # of the tile's first element, rounded down; see `offset_elements`
    offset_elements: int  # elements from `address_bytes` to the first element
    shape: tuple[int, ...]  # after the edge rule; a 0 makes the tile empty

    @property
    def space(self) -> Space:
        """The address space it lies in."""
        return self.operand.space

    @property
    def elements(self) -> int:
        """How many elements it has."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True, slots=True)
class Step:
    """One dynamic instruction of a stream."""

    pc: int
    instruction: Instruction
    indices: tuple[int, ...]  # loop indices, outermost first
    registers: tuple[int, ...]
    active: bool  # False where the predicate is false

    @property
    def layer(self) -> int:
        """The layer this execution is accounted for."""
        level = self.instruction.layer_level
        at = self.indices[level] if level != NO_LEVEL and level < len(self.indices) else 0
        return self.instruction.layer_id + at

    def resolve(self, operand: Operand, rank: int = 0) -> Tile:
        """Return the tile that `operand` names for the unit of rank `rank` in the mask."""
        base = operand.address_bytes
        if operand.base_register is not None:
            base += self.registers[operand.base_register]
        offset = 0
        for level, stride in operand.loop_strides:
            offset += self._index(level, rank) * stride
        return Tile(operand, base, offset, self._shape(operand, rank))

    def _index(self, level: int, rank: int) -> int:
        if level == UNIT_LEVEL:
            return rank
        return self.indices[level] if level < len(self.indices) else 0

    def _shape(self, operand: Operand, rank: int) -> tuple[int, ...]:
        if not operand.edges:
            return operand.shape
        sizes = []
        for tile, edge in zip(operand.shape, operand.edges, strict=True):
            if edge is None:
                sizes.append(tile)
                continue
            left = edge.bound
            if edge.bound_register is not None:
                left = self.registers[edge.bound_register]
            for level, step in edge.steps:
                left -= self._index(level, rank) * step
            sizes.append(min(tile, max(left, 0)))
        return tuple(sizes)


def units(mask: int) -> Iterator[tuple[int, int]]:
    """Yield (rank, unit) for every unit whose bit is set in `mask`, rank counting from 0."""
    rank = unit = 0
    while mask:
        if mask & 1:
            yield rank, unit
            rank += 1
        mask >>= 1
        unit += 1


class Cursor:
    """Walks one stream: unrolls loops, runs scalar instructions, yields every other one.

    ``next_step`` returns None after HALT. A READ is yielded; the caller answers it with
    ``give(value)`` before it asks for the next step. SCALAR, LOOP and END are yielded only if
    `control` is set, for executors that charge time for them.
    """

    def __init__(
        self, program: Program, stream: Stream, values: Mapping[str, int], *, control: bool = False
    ):
        self.program = program
        self.stream = stream
        self.registers = [0] * REGISTERS
        self._launch = [values.get(name, 0) for name in program.launch]
        self._control = control
        self._pc = 0
        self._loops: list[list[int]] = []  # [pc of the body, index, count]
        self._matching = matching(stream)
        self._reading: int | None = None
        # What steps show of the registers and loops, kept until either changes.
        self._shown_registers: tuple[int, ...] | None = None
        self._shown_indices: tuple[int, ...] | None = None

    def give(self, value: int) -> None:
        """Answer the READ that was yielded last: its register becomes `value`."""
        assert self._reading is not None, "no READ waits for a value"
        self.registers[self._reading] = value
        self._shown_registers = None
        self._reading = None

    def next_step(self) -> Step | None:
        """Return the next dynamic instruction, or None after HALT."""
        assert self._reading is None, "the READ yielded last was not answered"
        while True:
            pc = self._pc
            instruction = self.stream.instructions[pc]
            opcode = instruction.opcode
            step = self._step(pc, instruction)
            self._pc = pc + 1
            if opcode == Opcode.LOOP:
                self._enter(pc, instruction, step.active)
            elif opcode == Opcode.END:
                self._again()
            elif opcode == Opcode.SCALAR:
                if step.active:
                    self._scalar(instruction)
            else:
                if opcode == Opcode.HALT:
                    self._pc = pc
                    return None
                if opcode == Opcode.READ and step.active:
                    self._reading = instruction.fields.get("rd", 0)
                return step
            if self._control:
                return step

    def _step(self, pc: int, instruction: Instruction) -> Step:
        active = True
        if instruction.predicate is not None:
            value = self.registers[instruction.predicate.register]
            active = (value == 0) == instruction.predicate.negate
        if self._shown_registers is None:
            self._shown_registers = tuple(self.registers)
        if self._shown_indices is None:
            self._shown_indices = tuple([loop[1] for loop in self._loops])
        return Step(pc, instruction, self._shown_indices, self._shown_registers, active)

    def _enter(self, pc: int, instruction: Instruction, active: bool) -> None:
        count = instruction.fields.get("count", 0)
        if instruction.fields.get("count_is_register"):
            count = self.registers[count]
        if not active or count <= 0:
            self._pc = self._matching[pc] + 1
        else:
            self._loops.append([pc + 1, 0, count])
            self._shown_indices = None

    def _again(self) -> None:
        loop = self._loops[-1]
        loop[1] += 1
        self._shown_indices = None
        if loop[1] < loop[2]:
            self._pc = loop[0]
        else:
            self._loops.pop()

    def _scalar(self, instruction: Instruction) -> None:
        get = instruction.fields.get
        b = get("b", 0)
        if get("b_is_register"):
            b = self.registers[b]
        self._shown_registers = None
        self.registers[get("rd", 0)] = self._alu(
            Alu(get("alu", 0)), self.registers[get("ra", 0)], b
        )

    def _alu(self, alu: Alu, a: int, b: int) -> int:
        match alu:
            case Alu.SET:
                result = b
            case Alu.LAUNCH:
                result = self._launch[b]
            case Alu.ADD:
                result = a + b
            case Alu.SUB:
                result = a - b
            case Alu.MUL:
                result = a * b
            case Alu.MIN:
                result = min(a, b)
            case Alu.MAX:
                result = max(a, b)
            case Alu.CEILDIV:
                result = -(-a // b) if b else 0
            case Alu.LT:
                result = int(a < b)
            case Alu.EQ:
                result = int(a == b)
            case Alu.WRAP:
                result = a - b if a >= b else a
            case Alu.INDEX:
                result = self._loops[b][1] if b < len(self._loops) else 0
        return (result + 2**63) % 2**64 - 2**63


def matching(stream: Stream) -> dict[int, int]:
    """Return the pc of each LOOP's END; raise `UserError` where they do not pair."""
    pairs, opened = {}, []
    for pc, instruction in enumerate(stream.instructions):
        if instruction.opcode == Opcode.LOOP:
            opened.append(pc)
            if len(opened) > LOOP_LEVELS:
                raise UserError(f"{stream.queue}[{pc}]: loops must nest at most {LOOP_LEVELS} deep")
        elif instruction.opcode == Opcode.END:
            if not opened:
                raise UserError(f"{stream.queue}[{pc}]: end must close a loop, none is open")
            pairs[opened.pop()] = pc
    if opened:
        raise UserError(f"{stream.queue}[{opened[-1]}]: loop must have an end")
    return pairs
