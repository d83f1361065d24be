"""The binary form of a program: what a loader checks and the RTL's sequencer runs.

A file is a header, then the sections of ``machine.records.SECTIONS``, each right behind the one
before it. Strings are UTF-8, each ended by a zero byte and stored once, in order of first use.
Everything is little endian. ``machine.decoding`` reads it back.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from machine.errors import UserError, must_be
from machine.formats import format_named
from machine.opcodes import OPCODES, Opcode
from machine.program import (
    NO_LEVEL,
    UNIT_LEVEL,
    Capability,
    Edge,
    Instruction,
    Operand,
    Program,
    Stream,
    Symbol,
)
from machine.records import (
    DIMENSIONS,
    HEADER,
    INSTRUCTION,
    MAGIC,
    NAME_ENTRY,
    OPERAND,
    SECTIONS,
    SIGNAL_SLOTS,
    STREAM,
    SYMBOL,
    SYMBOL_DIMENSIONS,
    TOKEN,
    WAIT_SLOTS,
    Record,
    field_record,
)

__all__ = ["encode", "normal", "require_capabilities"]


def require_capabilities(program: Program, capabilities: Iterable[Capability]) -> None:
    """Raise `UserError` if `program` needs what a machine with `capabilities` lacks."""
    lacking = sorted(program.capabilities - frozenset(capabilities))
    if lacking:
        names = ", ".join(bit.name.lower() for bit in lacking)
        raise UserError(f"program {program.name!r} needs {names}, which the machine lacks")


def normal(program: Program) -> Program:
    """Return the program in normal form: what equal programs have in common.

    Fields at their default are left out; loop strides stand in ascending order of level, each
    level once, none 0; an edge keeps no step of 0, and no bound beside a bound register.
    ``decode(encode(p)) == normal(p)``.
    """
    return replace(
        program,
        operands=tuple(_normal_operand(operand) for operand in program.operands),
        streams=tuple(
            replace(stream, instructions=tuple(map(_normal_instruction, stream.instructions)))
            for stream in program.streams
        ),
    )


def _normal_operand(operand: Operand) -> Operand:
    strides: dict[int, int] = {}
    for level, stride in operand.loop_strides:
        strides[level] = strides.get(level, 0) + stride
    edges = tuple(
        edge and replace(
            edge,
            bound=0 if edge.bound_register is not None else edge.bound,
            steps=tuple(pair for pair in edge.steps if pair[1]),
        )
        for edge in operand.edges
    )
    return replace(
        operand,
        loop_strides=tuple(sorted((level, s) for level, s in strides.items() if s)),
        edges=edges if any(edges) else (),
    )


def _normal_instruction(instruction: Instruction) -> Instruction:
    spec = OPCODES.get(Opcode(instruction.opcode))
    defaults = {field.name: field.default for field in spec.fields} if spec else {}
    kept = {name: v for name, v in instruction.fields.items() if v != defaults.get(name)}
    return instruction if kept == instruction.fields else replace(instruction, fields=kept)


class _Strings:
    """The section of strings while it grows."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._at: dict[str, int] = {}

    def offset(self, text: str) -> int:
        """Return where `text` begins, adding it if it is new."""
        if text not in self._at:
            self._at[text] = len(self.data)
            self.data += text.encode() + b"\0"
        return self._at[text]


def encode(program: Program) -> bytes:
    """Return the binary form of `program`.

    Raises `UserError`, naming the record, if a value does not fit its field.
    """
    program = normal(program)
    strings = _Strings()
    name = strings.offset(program.name)
    sections = {
        "symbols": _records(SYMBOL, [_symbol_values(s, strings) for s in program.symbols],
                            [symbol.name for symbol in program.symbols]),
        "launch": _records(NAME_ENTRY, [{"name": strings.offset(n)} for n in program.launch]),
        "tokens": _records(TOKEN, [
            {"name": strings.offset(t.name), "initial": t.initial} for t in program.tokens],
            [token.name for token in program.tokens]),
        "ops": _records(NAME_ENTRY, [{"name": strings.offset(n)} for n in program.ops]),
        "operands": _records(OPERAND, [_operand_values(o, strings) for o in program.operands],
                             [operand.name for operand in program.operands]),
        "streams": _records(STREAM, _stream_values(program.streams),
                            [str(stream.queue) for stream in program.streams]),
        "instructions": b"".join(
            _instruction_word(instruction, f"{stream.queue}[{pc}]").to_bytes(INSTRUCTION.bytes,
                                                                            "little")
            for stream in program.streams
            for pc, instruction in enumerate(stream.instructions)),
    }
    sections["strings"] = bytes(strings.data)
    header = {
        "magic": MAGIC, "version": program.version, "chips": program.chips, "name": name,
        "capabilities": sum(1 << bit for bit in program.capabilities),
    }
    at = HEADER.bytes
    for section in SECTIONS:
        header |= {f"{section}_offset": at, f"{section}_bytes": len(sections[section])}
        at += len(sections[section])
    return _records(HEADER, [header]) + b"".join(sections[section] for section in SECTIONS)


def _records(record: Record, rows: Iterable[dict[str, int]], names: Sequence[str] = ()) -> bytes:
    """Pack `rows`; an error names a row by its name, where it has one, else by its number."""
    return b"".join(
        record.pack(row, f"{record.name} {repr(names[at]) if names else at}").to_bytes(
            record.bytes, "little")
        for at, row in enumerate(rows)
    )


def _sizes(name: str, sizes: tuple[int, ...], most: int, where: str) -> dict[str, int]:
    if len(sizes) > most:
        raise must_be(f"{name} dimensions", f"at most {most}", len(sizes), where=where)
    return {f"{name}{axis}": size for axis, size in enumerate(sizes)}


def _symbol_values(symbol: Symbol, strings: _Strings) -> dict[str, int]:
    where = f"symbol {symbol.name!r}"
    return {
        "name": strings.offset(symbol.name), "transform": strings.offset(symbol.transform),
        "kind": symbol.kind, "space": symbol.space, "layout": symbol.layout,
        "dimensions": len(symbol.shape), "chip": symbol.chip,
        "format": format_named(symbol.format, where=where).code,
        "address_bytes": symbol.address_bytes,
        **_sizes("shape", symbol.shape, SYMBOL_DIMENSIONS, where),
    }


def _operand_values(operand: Operand, strings: _Strings) -> dict[str, int]:
    where = f"operand {operand.name!r}"
    for name, sizes in (("strides", operand.strides), ("edges", operand.edges)):
        if len(sizes) != len(operand.shape) and (sizes or name == "strides"):
            raise must_be(name, f"{len(operand.shape)}, one a dimension", len(sizes), where=where)
    for level, _ in operand.loop_strides:
        if not 0 <= level <= UNIT_LEVEL:
            raise must_be("loop level", f"0 to {UNIT_LEVEL}", level, where=where)
    values = {
        "name": strings.offset(operand.name), "space": operand.space, "layout": operand.layout,
        "format": format_named(operand.format, where=where).code,
        "address_bytes": operand.address_bytes, "dimensions": len(operand.shape),
        "base_register": _plus_one(operand.base_register),
        **_sizes("shape", operand.shape, DIMENSIONS, where),
        **_sizes("stride", operand.strides, DIMENSIONS, where),
        **{f"loop{level}": stride for level, stride in operand.loop_strides},
    }
    for axis in range(DIMENSIONS):
        edge = operand.edges[axis] if axis < len(operand.edges) else None
        values |= _edge_values(axis, edge, where)
    if operand.group is not None:
        values |= {
            "group_axis": operand.group.axis + 1, "group_size": operand.group.size,
            "group_scale": _plus_one(operand.group.scale),
            "group_zero": _plus_one(operand.group.zero),
        }
    if operand.gather is not None:
        values |= {
            "gather_axis": operand.gather.axis + 1, "gather_index": operand.gather.index,
            "gather_granule": operand.gather.granule,
        }
    return values


def _plus_one(value: int | None) -> int:
    return 0 if value is None else value + 1


def _edge_values(axis: int, edge: Edge | None, where: str) -> dict[str, int]:
    name = f"edge{axis}"
    if edge is None:
        return {f"{name}_level0": NO_LEVEL, f"{name}_level1": NO_LEVEL}
    if len(edge.steps) > 2:
        raise must_be(f"{name} steps", "at most 2", len(edge.steps), where=where)
    values = {f"{name}_present": 1, f"{name}_bound": edge.bound,
              f"{name}_register": _plus_one(edge.bound_register)}
    for i in range(2):
        level, step = edge.steps[i] if i < len(edge.steps) else (NO_LEVEL, 0)
        values |= {f"{name}_level{i}": level, f"{name}_step{i}": step}
    return values


def _stream_values(streams: tuple[Stream, ...]) -> Iterable[dict[str, int]]:
    first = 0
    for stream in streams:
        queue, count = stream.queue, len(stream.instructions)
        yield {"kind": queue.kind, "index": queue.index, "chip": queue.chip,
               "first": first, "count": count}
        first += count


def _instruction_word(instruction: Instruction, where: str) -> int:
    opcode = Opcode(instruction.opcode)
    values = {
        "opcode": opcode, "op_id": instruction.op_id, "unit_mask": instruction.unit_mask,
        "layer_id": instruction.layer_id, "layer_level": instruction.layer_level,
        "fields": _field_bits(instruction, opcode, where),
    }
    if instruction.predicate is not None:
        values |= {"predicated": 1, "predicate_register": instruction.predicate.register,
                   "predicate_negate": instruction.predicate.negate}
    for name, pairs, most in (("wait", instruction.waits, WAIT_SLOTS),
                              ("signal", instruction.signals, SIGNAL_SLOTS)):
        if len(pairs) > most:
            raise must_be(f"{name}s", f"at most {most}", len(pairs), where=where)
        for i, (token, count) in enumerate(pairs):
            if not count:
                raise must_be(f"count of {name} {i}", "at least 1", count, where=where)
            values |= {f"{name}{i}_token": token, f"{name}{i}_count": count}
    roles = [role.name for role in OPCODES[opcode].roles]
    for name, index in instruction.operands.items():
        if name not in roles:
            raise must_be("operand", f"one of {', '.join(roles) or 'none'}", name, where=where)
        values[f"operand{roles.index(name)}"] = index + 1
    return INSTRUCTION.pack(values, where)


def _field_bits(instruction: Instruction, opcode: Opcode, where: str) -> int:
    values = {field.name: field.default for field in OPCODES[opcode].fields}
    for name, value in instruction.fields.items():
        if name not in values:
            raise must_be("field", f"one of {', '.join(values) or 'none'}", name, where=where)
        values[name] = value
    return field_record(opcode).pack(values, where)
