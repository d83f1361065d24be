"""The binary form of a program read back: every bit accounted for, or refused by name.

`decode` accepts exactly what ``machine.encoding.encode`` writes.
"""

from enum import IntEnum
from typing import TypeVar

from machine.encoding import encode
from machine.errors import UserError, must_be
from machine.formats import format_of_code
from machine.opcodes import OPCODES, Opcode
from machine.program import (
    NO_LEVEL,
    VERSION,
    Capability,
    Edge,
    Gather,
    Group,
    Instruction,
    Layout,
    Operand,
    Predicate,
    Program,
    Queue,
    QueueKind,
    Space,
    Stream,
    Symbol,
    SymbolKind,
    Token,
)
from machine.records import (
    DIMENSIONS,
    HEADER,
    INSTRUCTION,
    MAGIC,
    NAME_ENTRY,
    OPERAND,
    OPERAND_SLOTS,
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

__all__ = ["decode"]

_Enum = TypeVar("_Enum", bound=IntEnum)


def decode(data: bytes, where: str = "program") -> Program:
    """Return the program in `data`; `where` (a file's name) opens every error.

    Raises `UserError`, naming section, index and field, for a wrong magic number or version, an
    unknown capability, a section out of place, missing or trailing bytes, a reserved bit set, or
    a value without a meaning.
    """
    if len(data) < HEADER.bytes:
        raise must_be("size", f"at least {HEADER.bytes} bytes", len(data), where=where)
    header = _header(data, where)
    sections = _sections(data, header, where)
    strings = _read_strings(sections["strings"], f"{where}: strings")

    def rows(section: str, record: Record) -> list[tuple[str, dict[str, int]]]:
        return _rows(sections[section], record, f"{where}: {section}")

    def name(at: str, row: dict[str, int]) -> str:
        return _string(strings, row["name"], "name", at)

    program = Program(
        name=_string(strings, header["name"], "name", f"{where}: header"),
        capabilities=frozenset(bit for bit in Capability if header["capabilities"] >> bit & 1),
        chips=header["chips"],
        symbols=tuple(_symbol(row, strings, at) for at, row in rows("symbols", SYMBOL)),
        launch=tuple(name(at, row) for at, row in rows("launch", NAME_ENTRY)),
        tokens=tuple(Token(name(at, row), row["initial"]) for at, row in rows("tokens", TOKEN)),
        ops=tuple(name(at, row) for at, row in rows("ops", NAME_ENTRY)),
        operands=tuple(_operand(row, strings, at) for at, row in rows("operands", OPERAND)),
        streams=_streams(rows("streams", STREAM), rows("instructions", INSTRUCTION)),
        version=header["version"],
    )
    written = encode(program)
    if written != data:
        first = next((i for i, (a, b) in enumerate(zip(written, data, strict=False)) if a != b),
                     min(len(written), len(data)))
        raise UserError(f"{where}: byte {first} must be as encode writes it")
    return program


def _header(data: bytes, where: str) -> dict[str, int]:
    where = f"{where}: header"
    header = HEADER.unpack(int.from_bytes(data[: HEADER.bytes], "little"), where)
    if header["magic"] != MAGIC:
        raise must_be("magic", f"{MAGIC:#x}", header["magic"], where=where)
    if header["version"] != VERSION:
        raise must_be("version", str(VERSION), header["version"], where=where)
    unknown = header["capabilities"] & ~sum(1 << bit for bit in Capability)
    if unknown:
        raise UserError(f"{where}: capabilities must be known ones, not bits {unknown:#x}")
    return header


def _sections(data: bytes, header: dict[str, int], where: str) -> dict[str, bytes]:
    found, at = {}, HEADER.bytes
    for section in SECTIONS:
        offset, size = header[f"{section}_offset"], header[f"{section}_bytes"]
        if offset != at:
            raise must_be(f"{section}_offset", str(at), offset, where=f"{where}: header")
        at += size
        found[section] = data[offset:at]
    if len(data) != at:
        raise must_be("size", f"{at} bytes as its sections say", len(data), where=where)
    return found


def _read_strings(data: bytes, where: str) -> dict[int, str]:
    if data and data[-1]:
        raise must_be("last byte", "0", data[-1], where=where)
    found, at = {}, 0
    for text in data.split(b"\0")[:-1]:
        try:
            found[at] = text.decode()
        except UnicodeDecodeError:
            raise UserError(f"{where}: string at {at} must be UTF-8, not {text!r}") from None
        at += len(text) + 1
    return found


def _string(strings: dict[int, str], offset: int, field: str, where: str) -> str:
    if offset not in strings:
        raise must_be(field, "the offset of a string", offset, where=where)
    return strings[offset]


def _rows(data: bytes, record: Record, where: str) -> list[tuple[str, dict[str, int]]]:
    if len(data) % record.bytes:
        raise must_be("size", f"a multiple of {record.bytes} bytes", len(data), where=where)
    rows = []
    for index in range(len(data) // record.bytes):
        word = int.from_bytes(data[index * record.bytes : (index + 1) * record.bytes], "little")
        at = f"{where}[{index}]"
        rows.append((at, record.unpack(word, at)))
    return rows


def _member(kind: type[_Enum], value: int, field: str, where: str) -> _Enum:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(f"{item.value} ({item.name.lower()})" for item in kind)
        raise must_be(field, f"one of {known}", value, where=where) from None


def _format(code: int, where: str) -> str:
    try:
        return format_of_code(code).name
    except KeyError:
        raise must_be("format", "the code of a number format", code, where=where) from None


def _shape(row: dict[str, int], name: str, most: int, where: str) -> tuple[int, ...]:
    if row["dimensions"] > most:
        raise must_be("dimensions", f"at most {most}", row["dimensions"], where=where)
    return tuple(row[f"{name}{axis}"] for axis in range(row["dimensions"]))


def _minus_one(value: int) -> int | None:
    return value - 1 if value else None


def _symbol(row: dict[str, int], strings: dict[int, str], where: str) -> Symbol:
    return Symbol(
        name=_string(strings, row["name"], "name", where),
        kind=_member(SymbolKind, row["kind"], "kind", where),
        space=_member(Space, row["space"], "space", where),
        address_bytes=row["address_bytes"],
        shape=_shape(row, "shape", SYMBOL_DIMENSIONS, where),
        format=_format(row["format"], where),
        layout=_member(Layout, row["layout"], "layout", where),
        chip=row["chip"],
        transform=_string(strings, row["transform"], "transform", where),
    )


def _operand(row: dict[str, int], strings: dict[int, str], where: str) -> Operand:
    shape = _shape(row, "shape", DIMENSIONS, where)
    edges = tuple(_edge(row, axis) for axis in range(len(shape)))
    group = gather = None
    if row["group_axis"]:
        group = Group(row["group_axis"] - 1, row["group_size"],
                      _minus_one(row["group_scale"]), _minus_one(row["group_zero"]))
    if row["gather_axis"]:
        gather = Gather(row["gather_axis"] - 1, row["gather_index"], row["gather_granule"])
    return Operand(
        name=_string(strings, row["name"], "name", where),
        space=_member(Space, row["space"], "space", where),
        address_bytes=row["address_bytes"],
        shape=shape,
        strides=_shape(row, "stride", DIMENSIONS, where),
        format=_format(row["format"], where),
        layout=_member(Layout, row["layout"], "layout", where),
        base_register=_minus_one(row["base_register"]),
        loop_strides=tuple((i, row[f"loop{i}"]) for i in range(8) if row[f"loop{i}"]),
        edges=edges if any(edges) else (),
        group=group,
        gather=gather,
    )


def _edge(row: dict[str, int], axis: int) -> Edge | None:
    name = f"edge{axis}"
    if not row[f"{name}_present"]:
        return None
    pairs = [(row[f"{name}_level{i}"], row[f"{name}_step{i}"]) for i in range(2)]
    return Edge(
        bound=row[f"{name}_bound"],
        steps=tuple(pair for pair in pairs if pair[0] != NO_LEVEL),
        bound_register=_minus_one(row[f"{name}_register"]),
    )


def _streams(
    streams: list[tuple[str, dict[str, int]]], instructions: list[tuple[str, dict[str, int]]]
) -> tuple[Stream, ...]:
    made = [_instruction(row, where) for where, row in instructions]
    found, first = [], 0
    for where, row in streams:
        if row["first"] != first:
            raise must_be("first", str(first), row["first"], where=where)
        first += row["count"]
        if first > len(made):
            raise must_be("count", f"at most {len(made) - row['first']}", row["count"],
                          where=where)
        kind = _member(QueueKind, row["kind"], "kind", where)
        queue = Queue(kind, row["index"], row["chip"])
        found.append(Stream(queue, tuple(made[row["first"] : first])))
    return tuple(found)


def _instruction(row: dict[str, int], where: str) -> Instruction:
    opcode = _member(Opcode, row["opcode"], "opcode", where)
    spec = OPCODES[opcode]
    predicate = None
    if row["predicated"]:
        predicate = Predicate(row["predicate_register"], bool(row["predicate_negate"]))
    operands = {}
    for slot in range(OPERAND_SLOTS):
        index = _minus_one(row[f"operand{slot}"])
        if index is None:
            continue
        if slot >= len(spec.roles):
            raise must_be(f"operand{slot}", f"absent from {opcode.name.lower()}", index,
                          where=where)
        operands[spec.roles[slot].name] = index
    values = field_record(opcode).unpack(row["fields"], where)
    for field in spec.fields:
        if isinstance(field.kind, type) and issubclass(field.kind, IntEnum):
            _member(field.kind, values[field.name], field.name, where)
    return Instruction(
        opcode=opcode,
        unit_mask=row["unit_mask"],
        waits=_pairs(row, "wait", WAIT_SLOTS),
        signals=_pairs(row, "signal", SIGNAL_SLOTS),
        predicate=predicate,
        op_id=row["op_id"],
        layer_id=row["layer_id"],
        layer_level=row["layer_level"],
        operands=operands,
        fields={f.name: values[f.name] for f in spec.fields if values[f.name] != f.default},
    )


def _pairs(row: dict[str, int], name: str, slots: int) -> tuple[tuple[int, int], ...]:
    return tuple((row[f"{name}{i}_token"], row[f"{name}{i}_count"])
                 for i in range(slots) if row[f"{name}{i}_count"])
