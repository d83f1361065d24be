"""The text form of a program, written: one line a declaration, one line an instruction.

``machine.assembly`` reads it back. ``parse(text(p)) == normal(p)``, and the text that `text`
writes is canonical: ``text(parse(t)) == t``.
"""

import struct
from collections.abc import Iterable
from enum import IntEnum

from machine.encoding import normal
from machine.opcodes import OPCODES, Alu, Field, Opcode
from machine.program import (
    NO_LEVEL,
    Edge,
    Instruction,
    Layout,
    Operand,
    Program,
    Symbol,
    SymbolKind,
)

__all__ = ["CONTROL", "field_text", "instruction_text", "text"]

# Instructions of control, whose text leaves the op out where it is the first.
CONTROL = (Opcode.HALT, Opcode.LOOP, Opcode.END, Opcode.SCALAR)


def text(program: Program) -> str:
    """Return the canonical text form of `program`."""
    program = normal(program)
    lines = [f"program {program.name} version {program.version}"]
    lines += _words("needs", (bit.name.lower() for bit in sorted(program.capabilities)))
    lines.append(f"chips {program.chips}")
    lines += _words("launch", program.launch)
    for token in program.tokens:
        lines.append(f"token {token.name}" + (f" {token.initial}" if token.initial else ""))
    lines += [f"op {name}" for name in program.ops]
    lines += [_symbol(symbol) for symbol in program.symbols]
    lines += [_operand(operand, program.operands) for operand in program.operands]
    for stream in program.streams:
        lines.append(f"stream {stream.queue}")
        depth = 1
        for instruction in stream.instructions:
            depth = max(1, depth - (instruction.opcode == Opcode.END))
            lines.append("  " * depth + instruction_text(program, instruction))
            depth += instruction.opcode == Opcode.LOOP
    return "\n".join(lines) + "\n"


def _words(keyword: str, words: Iterable[str]) -> list[str]:
    words = list(words)
    return [" ".join([keyword, *words])] if words else []


def _integers(values: tuple[int, ...]) -> str:
    return "[" + ",".join(map(str, values)) + "]"


def _symbol(symbol: Symbol) -> str:
    words = ["symbol", symbol.name, symbol.space.name.lower(), f"0x{symbol.address_bytes:04x}",
             symbol.format, _integers(symbol.shape), SymbolKind(symbol.kind).name.lower()]
    if symbol.layout:
        words.append(f"layout={Layout(symbol.layout).name.lower()}")
    if symbol.chip:
        words.append(f"chip={symbol.chip}")
    if symbol.transform:
        words.append(f"transform={symbol.transform}")
    return " ".join(words)


def _operand(operand: Operand, operands: tuple[Operand, ...]) -> str:
    words = ["operand", operand.name, operand.space.name.lower(),
             f"0x{operand.address_bytes:04x}", operand.format, _integers(operand.shape),
             "stride", _integers(operand.strides)]
    if operand.base_register is not None:
        words += ["base", f"r{operand.base_register}"]
    if operand.layout:
        words.append(f"layout={Layout(operand.layout).name.lower()}")
    if operand.loop_strides:
        words += ["loop", *(f"{level}:{stride}" for level, stride in operand.loop_strides)]
    if any(operand.edges):
        words += ["edge", *(f"{axis}:{_edge(edge)}"
                            for axis, edge in enumerate(operand.edges) if edge)]
    if operand.group is not None:
        words += ["group", f"axis={operand.group.axis}", f"size={operand.group.size}"]
        for name, index in (("scale", operand.group.scale), ("zero", operand.group.zero)):
            if index is not None:
                words.append(f"{name}=@{_name(operands, index)}")
    if operand.gather is not None:
        gather = operand.gather
        words += ["gather", f"axis={gather.axis}", f"index=@{_name(operands, gather.index)}"]
        if gather.granule != 1:
            words.append(f"granule={gather.granule}")
    return " ".join(words)


def _edge(edge: Edge) -> str:
    bound = edge.bound if edge.bound_register is None else f"r{edge.bound_register}"
    return f"{bound}" + "".join(f"-{level}*{step}" for level, step in edge.steps)


def _name(operands: tuple[Operand, ...], index: int) -> str:
    return operands[index].name if 0 <= index < len(operands) else f"?{index}"


def instruction_text(program: Program, instruction: Instruction) -> str:
    """Return one instruction as text; what has no text form is shown with a question mark."""
    try:
        opcode = Opcode(instruction.opcode)
    except ValueError:
        return f"?{instruction.opcode}"
    fields = dict(instruction.fields)
    if opcode == Opcode.LOOP:
        count, register = fields.pop("count", 0), fields.pop("count_is_register", 0)
        words = ["loop", f"r{count}" if register else f"{count}"]
    elif opcode == Opcode.SCALAR:
        words = _scalar(program, fields)
    elif opcode == Opcode.READ:
        words = ["read", f"r{fields.pop('rd', 0)}"]
    else:
        words = [opcode.name.lower()]
    table = {field.name: field for field in OPCODES[opcode].fields}
    if "vop" in fields:
        words.append(f"vop={field_text(table['vop'], fields.pop('vop'))}")
    roles = [role.name for role in OPCODES[opcode].roles]
    order = sorted(instruction.operands, key=lambda n: (n not in roles, roles.index(n)
                                                        if n in roles else 0, n))
    words += [f"{name}={_name(program.operands, instruction.operands[name])}" for name in order]
    if instruction.unit_mask != 1:
        words.append(f"units={instruction.unit_mask:#x}")
    words += [f"{name}={field_text(field, fields.pop(name))}"
              for name, field in table.items() if name in fields]
    words += [f"{name}=?{value}" for name, value in fields.items()]
    return " ".join(words + _tail(program, instruction, opcode))


def _tail(program: Program, instruction: Instruction, opcode: Opcode) -> list[str]:
    words = []
    for keyword, pairs in (("wait", instruction.waits), ("signal", instruction.signals)):
        if pairs:
            words.append(keyword)
        for token, count in pairs:
            known = 0 <= token < len(program.tokens)
            words.append(f"{program.tokens[token].name if known else f'?{token}'}:{count}")
    op = instruction.op_id
    if op or (program.ops and opcode not in CONTROL):
        words.append(f"op={program.ops[op] if 0 <= op < len(program.ops) else f'?{op}'}")
    if instruction.layer_level != NO_LEVEL:
        words.append(f"layer={instruction.layer_id}+{instruction.layer_level}")
    elif instruction.layer_id:
        words.append(f"layer={instruction.layer_id}")
    if instruction.predicate is not None:
        negate = "!" if instruction.predicate.negate else ""
        words += ["if", f"{negate}r{instruction.predicate.register}"]
    return words


def _scalar(program: Program, fields: dict[str, int]) -> list[str]:
    """Take the fields of a SCALAR and return its words: ``r1 = add r2 7``."""
    rd, ra = fields.pop("rd", 0), fields.pop("ra", 0)
    number, b, b_is_register = fields.pop("alu", 0), fields.pop("b", 0), fields.pop(
        "b_is_register", 0)
    try:
        alu = Alu(number)
    except ValueError:
        return [f"r{rd}", "=", f"?{number}"]
    operand = f"r{b}" if b_is_register else f"{b}"
    words = [f"r{rd}", "="]
    if alu == Alu.SET:
        words.append(operand)
    elif alu == Alu.LAUNCH:
        words += ["launch", program.launch[b] if 0 <= b < len(program.launch) else f"?{b}"]
    elif alu == Alu.INDEX:
        words += ["index", operand]
    else:
        return [*words, alu.name.lower(), f"r{ra}", operand]
    return words


def field_text(field: Field, value: int) -> str:
    """Return a field's value as the text form writes it."""
    if field.kind == "float32":
        return _float32(value)
    if field.kind == "register":
        return f"r{value}"
    if field.kind == "mask":
        return f"{value:#x}"
    if isinstance(field.kind, type) and issubclass(field.kind, IntEnum):
        try:
            return field.kind(value).name.lower()
        except ValueError:
            return f"?{value}"
    return str(int(value))


def _float32(bits: int) -> str:
    """The shortest decimal that reads back to `bits`; hexadecimal bits for infinities and NaN."""
    if not 0 <= bits < 2**32 or bits >> 23 & 0xFF == 0xFF:
        return f"{bits:#x}"
    value = struct.unpack("<f", struct.pack("<I", bits))[0]
    for digits in range(1, 10):
        shown = f"{value:.{digits}g}"
        try:
            if struct.pack("<f", float(shown)) == struct.pack("<f", value):
                return shown
        except OverflowError:  # rounded up beyond the largest float32; more digits are needed
            continue
    raise AssertionError("nine digits tell every float32 from its neighbours")
