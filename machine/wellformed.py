"""The part of the verifier that looks at a program as written, without running it."""

import re
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Protocol

from machine.control import units
from machine.encoding import encode
from machine.errors import UserError
from machine.faults import Fault, FaultKind, fault_at, listed
from machine.formats import FORMATS, Kind
from machine.instruction_rules import instruction_faults
from machine.opcodes import Dataflow, Opcode
from machine.program import (
    LOOP_LEVELS,
    NAME,
    REGISTERS,
    UNIT_LEVEL,
    Capability,
    Layout,
    Operand,
    Program,
    QueueKind,
    Space,
    Symbol,
)

__all__ = ["Sizes", "declaration_faults", "needed_capabilities", "wellformed_faults"]


class Sizes(Protocol):
    """What the verifier asks of a machine; ``machine.chip.Machine`` answers it."""

    @property
    def capabilities(self) -> frozenset[Capability]: ...

    @property
    def tokens(self) -> int: ...

    @property
    def token_bits(self) -> int: ...

    def units(self, kind: QueueKind) -> int: ...

    def space_bytes(self, space: Space, chip: int = 0) -> int | None: ...


_OF_OPCODE = {
    Opcode.PRELOAD: Capability.SYSTOLIC,
    Opcode.VECTOR: Capability.VECTOR,
    Opcode.SEND: Capability.LINK,
    Opcode.RECV: Capability.LINK,
}


def needed_capabilities(program: Program) -> frozenset[Capability]:
    """Return the capabilities that the program's instructions and operands use."""
    needed = set()
    for operand in program.operands:
        if operand.base_register is not None or operand.gather is not None:
            needed.add(Capability.INDIRECT)
    for stream in program.streams:
        if stream.queue.kind == QueueKind.PIM:
            needed.add(Capability.PIM)
        for instruction in stream.instructions:
            opcode, get = instruction.opcode, instruction.fields.get
            if opcode == Opcode.MATMUL:
                lut = get("dataflow") == Dataflow.LUT or get("tables")
                needed.add(Capability.LUT if lut else Capability.SYSTOLIC)
                if get("group_end"):
                    needed.add(Capability.GROUP_SCALE)
            elif opcode in _OF_OPCODE:
                needed.add(_OF_OPCODE[Opcode(opcode)])
    return frozenset(needed)


def wellformed_faults(program: Program, machine: Sizes | None) -> list[Fault]:
    """Return the faults that can be seen without running `program`, on `machine` if given."""
    found = [*declaration_faults(program), *_capability_faults(program, machine),
             *_stream_faults(program, machine)]
    if machine is not None and len(program.tokens) > machine.tokens:
        found.append(Fault(FaultKind.TOKEN, f"tokens must be at most {machine.tokens}, "
                                            f"not {len(program.tokens)}"))
    for at, stream in enumerate(program.streams):
        found += _control_faults(program, at)
        for pc in range(len(stream.instructions)):
            found += instruction_faults(program, at, pc)
    if not found:
        try:
            encode(program)
        except UserError as error:
            found.append(Fault(FaultKind.ENCODING, str(error)))
    return found


def declaration_faults(program: Program) -> Iterator[Fault]:
    """Yield the faults of names, symbols and operands."""
    lists: dict[str, Sequence[str]] = {
        "program": (program.name,), "launch entry": program.launch, "op": program.ops,
        "token": [token.name for token in program.tokens],
        "symbol": [symbol.name for symbol in program.symbols],
        "operand": [operand.name for operand in program.operands],
    }
    for what, names in lists.items():
        seen: set[str] = set()
        for name in names:
            if not re.fullmatch(NAME, name):
                yield Fault(FaultKind.NAME, f"{what} must be a letter or _, then letters, digits "
                                            f"and _ . / -, not {name!r}")
            elif name in seen:
                yield Fault(FaultKind.NAME, f"{what} must be named once, not {name!r} twice")
            seen.add(name)
    for token in program.tokens:
        if token.initial < 0:
            yield Fault(FaultKind.TOKEN, f"initial count of token {token.name!r} must be at "
                                         f"least 0, not {token.initial}")
    for symbol in program.symbols:
        yield from _symbol_faults(program, symbol)
    for number, operand in enumerate(program.operands):
        for kind, message in _operand_faults(program, number, operand):
            yield Fault(kind, f"operand {operand.name!r}: {message}")


def _symbol_faults(program: Program, symbol: Symbol) -> Iterator[Fault]:
    where = f"symbol {symbol.name!r}"
    if symbol.format not in FORMATS:
        yield Fault(FaultKind.FORMAT, f"{where}: format must be a known one, "
                                      f"not {symbol.format!r}")
    if not 0 <= symbol.chip < program.chips:
        yield Fault(FaultKind.OPERAND, f"{where}: chip must be below {program.chips}, "
                                       f"not {symbol.chip}")
    if symbol.address_bytes < 0 or any(size < 0 for size in symbol.shape):
        yield Fault(FaultKind.OPERAND, f"{where}: address and shape must be at least 0")


def _operand_faults(
    program: Program, number: int, operand: Operand
) -> Iterator[tuple[FaultKind, str]]:
    bad = FaultKind.OPERAND
    dimensions = len(operand.shape)
    row = FORMATS.get(operand.format)
    if row is None:
        yield FaultKind.FORMAT, f"format must be a known one, not {operand.format!r}"
    elif row.kind is Kind.BLOCK and operand.layout != Layout.BLOCK_SCALED:
        yield FaultKind.FORMAT, (f"format must be an element format with a group outside layout "
                                 f"block_scaled, not {operand.format!r}")
    if not 1 <= dimensions <= 4:
        yield bad, f"shape must have 1 to 4 dimensions, not {dimensions}"
    if len(operand.strides) != dimensions:
        yield bad, f"strides must be {dimensions}, one a dimension, not {len(operand.strides)}"
    if any(size < 1 for size in operand.shape):
        yield bad, f"shape must be at least 1 everywhere, not {list(operand.shape)}"
    if operand.address_bytes < 0:
        yield bad, f"address must be at least 0, not {operand.address_bytes}"
    registers = [operand.base_register, *(e.bound_register for e in operand.edges if e)]
    for register in registers:
        if register is not None and not 0 <= register < REGISTERS:
            yield FaultKind.REGISTER, f"register must be below {REGISTERS}, not {register}"
    levels = [level for level, _ in operand.loop_strides]
    levels += [level for edge in operand.edges if edge for level, _ in edge.steps]
    for level in levels:
        if not 0 <= level <= UNIT_LEVEL:
            yield bad, f"loop level must be 0 to {UNIT_LEVEL}, not {level}"
    if operand.edges and len(operand.edges) != dimensions:
        yield bad, f"edges must be {dimensions}, one a dimension, not {len(operand.edges)}"
    yield from _indirect_faults(program, number, operand)


def _indirect_faults(
    program: Program, number: int, operand: Operand
) -> Iterator[tuple[FaultKind, str]]:
    """Yield the faults of groups and gathers, which name other operands."""
    bad, dimensions = FaultKind.OPERAND, len(operand.shape)
    named: dict[str, int | None] = {}
    if operand.group is not None:
        named |= {"scale": operand.group.scale, "zero": operand.group.zero}
        if not 0 <= operand.group.axis < dimensions or operand.group.size < 1:
            yield bad, "group must have an axis of the operand and a size of at least 1"
    if operand.gather is not None:
        named["index"] = operand.gather.index
        if not 0 <= operand.gather.axis < dimensions or operand.gather.granule < 1:
            yield bad, "gather must have an axis of the operand and a granule of at least 1"
    for what, other in named.items():
        if other is None:
            continue
        if not 0 <= other < len(program.operands) or other == number:
            yield bad, f"{what} must be the number of another operand, not {other}"
        elif program.operands[other].gather or program.operands[other].group:
            yield bad, f"{what} must be an operand without group and gather"
        elif what == "index":
            row = FORMATS.get(program.operands[other].format)
            if row is not None and row.kind is not Kind.INTEGER:
                yield FaultKind.FORMAT, f"index must have an integer format, not {row.name}"


def _capability_faults(program: Program, machine: Sizes | None) -> Iterator[Fault]:
    for bit in sorted(needed_capabilities(program) - program.capabilities):
        yield Fault(FaultKind.CAPABILITY, f"{_lower(bit)} must be declared, it is used")
    if machine is not None:
        for bit in sorted(program.capabilities - machine.capabilities):
            yield Fault(FaultKind.CAPABILITY, f"{_lower(bit)} must be offered by the machine, "
                        f"which has {listed([_lower(b) for b in sorted(machine.capabilities)])}")


def _lower(member: IntEnum) -> str:
    return member.name.lower()


# Executed by the queue itself.
_NO_UNIT = (Opcode.NOP, Opcode.HALT, Opcode.FENCE, Opcode.LOOP, Opcode.END, Opcode.SCALAR,
            Opcode.READ)


def _stream_faults(program: Program, machine: Sizes | None) -> Iterator[Fault]:
    driven: dict[tuple[int, QueueKind, int], tuple[int, int]] = {}
    seen = set()
    for at, stream in enumerate(program.streams):
        queue = stream.queue
        if queue in seen:
            yield Fault(FaultKind.QUEUE, "queue must have one stream", str(queue))
        seen.add(queue)
        if not 0 <= queue.chip < program.chips:
            yield Fault(FaultKind.QUEUE, f"chip must be below {program.chips}", str(queue))
        there = None if machine is None else machine.units(queue.kind)
        masks: dict[int, int] = {}
        for pc, instruction in enumerate(stream.instructions):
            if instruction.opcode not in _NO_UNIT:
                masks.setdefault(instruction.unit_mask, pc)
        for mask, pc in masks.items():
            if mask < 1:
                yield fault_at(program, at, pc, FaultKind.UNITS, "units must name at least one")
            for _, unit in units(mask):
                if there is not None and unit >= there:
                    yield fault_at(program, at, pc, FaultKind.UNITS, f"units must be below "
                                   f"{there}, the machine's {_lower(queue.kind)} units, "
                                   f"not {unit}")
                owner, first = driven.setdefault((queue.chip, queue.kind, unit), (at, pc))
                if owner != at:
                    other = program.streams[owner].queue
                    yield fault_at(program, at, pc, FaultKind.UNITS, f"{_lower(queue.kind)} unit "
                                   f"{unit} must be driven by one stream, {other}[{first}] "
                                   f"drives it too")


def _control_faults(program: Program, at: int) -> Iterator[Fault]:
    instructions = program.streams[at].instructions
    if not instructions or instructions[-1].opcode != Opcode.HALT:
        yield Fault(FaultKind.CONTROL, "last instruction must be halt",
                    str(program.streams[at].queue))
    opened: list[int] = []
    for pc, instruction in enumerate(instructions):
        if instruction.opcode == Opcode.HALT and pc + 1 < len(instructions):
            yield fault_at(program, at, pc, FaultKind.CONTROL, "halt must be the last instruction")
        elif instruction.opcode == Opcode.LOOP:
            opened.append(pc)
            if len(opened) > LOOP_LEVELS:
                yield fault_at(program, at, pc, FaultKind.CONTROL,
                               f"loops must nest at most {LOOP_LEVELS} deep, not {len(opened)}")
        elif instruction.opcode == Opcode.END:
            if opened:
                opened.pop()
            else:
                yield fault_at(program, at, pc, FaultKind.CONTROL, "end must close a loop")
    for pc in opened:
        yield fault_at(program, at, pc, FaultKind.CONTROL, "loop must have an end")
