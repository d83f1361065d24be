"""The text form of one instruction, read."""

import re
import struct
from dataclasses import dataclass, field
from enum import IntEnum

from machine.errors import UserError, unknown
from machine.lines import Line, names
from machine.opcodes import OPCODES, Alu, Field, Opcode
from machine.program import LOOP_LEVELS, NO_LEVEL, Instruction, Predicate

__all__ = ["Names", "parse_instruction"]

_COMMON = ("units", "op", "layer")


@dataclass(frozen=True, slots=True)
class Names:
    """The index behind each name that an instruction may use."""

    tokens: dict[str, int]
    ops: dict[str, int]
    operands: dict[str, int]
    launch: dict[str, int]


@dataclass
class _Draft:
    """An instruction as far as its words are read."""

    opcode: Opcode
    fields: dict[str, int] = field(default_factory=dict)
    operands: dict[str, int] = field(default_factory=dict)
    common: dict[str, str] = field(default_factory=dict)
    waits: list[tuple[int, int]] = field(default_factory=list)
    signals: list[tuple[int, int]] = field(default_factory=list)
    predicate: Predicate | None = None


def parse_instruction(line: Line, known: Names) -> Instruction:
    """Return the instruction that `line` describes, with names resolved by `known`."""
    if re.fullmatch(r"r\d+", line.words[0]):
        draft = _Draft(Opcode.SCALAR, _scalar(line, known))
    else:
        draft = _Draft(_opcode(line))
        if draft.opcode == Opcode.LOOP:
            draft.fields = _loop(line)
        elif draft.opcode == Opcode.READ:
            draft.fields = {"rd": line.register("register", line.take("register"))}
    while line.left:
        _word(line, draft, known)
    defaults = {spec.name: spec.default for spec in OPCODES[draft.opcode].fields}
    level, layer = _layer(line, draft.common.get("layer", "0"))
    units = line.integer("units", draft.common.get("units", "1"), low=0)
    return Instruction(
        opcode=draft.opcode,
        unit_mask=units,
        waits=tuple(draft.waits),
        signals=tuple(draft.signals),
        predicate=draft.predicate,
        op_id=line.known("op", draft.common["op"], known.ops) if "op" in draft.common else 0,
        layer_id=layer,
        layer_level=level,
        operands=draft.operands,
        fields={name: v for name, v in draft.fields.items() if v != defaults[name]},
    )


def _opcode(line: Line) -> Opcode:
    word = line.take("opcode")
    spelt = {name: code for name, code in names(Opcode).items() if code != Opcode.SCALAR}
    if word not in spelt:
        raise unknown("opcode", word, spelt, where=line.where)
    return Opcode(spelt[word])


def _loop(line: Line) -> dict[str, int]:
    word = line.take("count")
    if word.startswith("r"):
        return {"count": line.register("count", word), "count_is_register": 1}
    return {"count": _in_range(line, OPCODES[Opcode.LOOP].fields[0], line.integer("count", word))}


def _scalar(line: Line, known: Names) -> dict[str, int]:
    """Read ``r1 = 5``, ``r1 = r2``, ``r1 = launch NAME``, ``r1 = index 0``, ``r1 = add r2 7``."""
    fields = {"rd": line.register("register", line.take("register"))}
    line.expect("=")
    word = line.take("value")
    if re.fullmatch(r"r\d+|-?\d.*", word):
        return fields | {"alu": Alu.SET} | _scalar_b(line, word)
    binary = {name: alu for name, alu in names(Alu).items() if alu != Alu.SET}
    if word not in binary:
        raise unknown("operation", word, binary, where=line.where)
    alu = binary[word]
    fields["alu"] = alu
    if alu == Alu.LAUNCH:
        return fields | {"b": line.known("launch entry", line.take("launch entry"), known.launch)}
    if alu == Alu.INDEX:
        level = line.integer("level", line.take("level"))
        if not 0 <= level < LOOP_LEVELS:
            raise line.error("level", f"0 to {LOOP_LEVELS - 1}", level)
        return fields | {"b": level}
    fields["ra"] = line.register("first operand", line.take("register"))
    return fields | _scalar_b(line, line.take("second operand"))


def _scalar_b(line: Line, word: str) -> dict[str, int]:
    if word.startswith("r"):
        return {"b": line.register("register", word), "b_is_register": 1}
    value = line.integer("value", word)
    if not -(2**63) <= value < 2**63:
        raise line.error("value", "a signed 64-bit number", value)
    return {"b": value}


def _word(line: Line, draft: _Draft, known: Names) -> None:
    """Take one option of an instruction: a token list, a predicate, or key=value."""
    if line.coming in ("wait", "signal"):
        keyword = line.take("keyword")
        pairs = draft.waits if keyword == "wait" else draft.signals
        if pairs or ":" not in line.coming:
            raise UserError(f"{line.where}: {keyword} must be followed, once, by token:count")
        while ":" in line.coming:
            pairs.append(_token(line, known))
    elif line.coming == "if":
        line.take("keyword")
        word = line.take("register")
        register = line.register("predicate", word.removeprefix("!"))
        if draft.predicate is not None:
            raise line.error("predicate", "given once", word)
        draft.predicate = Predicate(register, word.startswith("!"))
    else:
        _option(line, draft, known)


def _token(line: Line, known: Names) -> tuple[int, int]:
    name, _, count = line.take("token:count").partition(":")
    return line.known("token", name, known.tokens), line.integer("count", count, low=1)


def _option(line: Line, draft: _Draft, known: Names) -> None:
    spec = OPCODES[draft.opcode]
    roles = [role.name for role in spec.roles]
    # The register of a READ and the numbers of LOOP and SCALAR stand without a key.
    keyed = draft.opcode not in (Opcode.READ, Opcode.LOOP, Opcode.SCALAR)
    fields = {f.name: f for f in spec.fields} if keyed else {}
    keys = [*roles, *fields, *_COMMON]
    key, value = line.option(keys, draft.opcode.name.lower())
    if key in draft.operands or key in draft.fields or key in draft.common:
        raise line.error(key, "given once", value)
    if key in roles:
        draft.operands[key] = line.known("operand", value, known.operands)
    elif key in fields:
        draft.fields[key] = _field(line, fields[key], value)
    else:
        draft.common[key] = value


def _field(line: Line, spec: Field, word: str) -> int:
    """Return the value of a field; fields of an enumeration are written by name."""
    if spec.kind == "float32":
        return _float32(line, spec.name, word)
    if spec.kind == "register":
        return line.register(spec.name, word)
    if isinstance(spec.kind, type) and issubclass(spec.kind, IntEnum):
        return int(line.member(spec.name, word, spec.kind))
    return _in_range(line, spec, line.integer(spec.name, word))


def _in_range(line: Line, spec: Field, value: int) -> int:
    low, high = spec.range
    if not low <= value <= high:
        raise line.error(spec.name, f"{low} to {high}", value)
    return value


def _float32(line: Line, name: str, word: str) -> int:
    """Return the bits of a number rounded to float32; ``0x...`` gives the bits themselves."""
    if word.startswith("0x"):
        bits = line.integer(name, word)
        if bits >= 2**32:
            raise line.error(name, "at most 32 bits", word)
        return bits
    try:
        return int(struct.unpack("<I", struct.pack("<f", float(word)))[0])
    except (ValueError, OverflowError):
        raise line.error(name, "a number that float32 holds", word) from None


def _layer(line: Line, word: str) -> tuple[int, int]:
    """Return (level, layer) of ``3`` or ``3+0``."""
    match = re.fullmatch(r"(\d+)(?:\+(\d+))?", word)
    if not match or (match[2] and int(match[2]) >= LOOP_LEVELS):
        raise line.error("layer", f"ID or ID+LEVEL, levels 0 to {LOOP_LEVELS - 1}", word)
    return int(match[2]) if match[2] else NO_LEVEL, int(match[1])
