"""The tables of docs/instruction-set.md, written from the tables the code runs by.

``python -m machine.instruction_tables docs/instruction-set.md`` renews the page.
"""

import re
import sys
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path

from machine.disassembly import field_text
from machine.faults import FaultKind
from machine.instruction_rules import vector_sources
from machine.opcodes import (
    OPCODES,
    Alu,
    Dataflow,
    Field,
    KOrder,
    Mode,
    PimMode,
    Role,
    Rounding,
    RowBuffer,
)
from machine.program import Capability, Layout, QueueKind, Space, SymbolKind
from machine.records import RECORDS, Record, field_record
from machine.vector import OPERANDS, Mask, ReductionOrder, ScaleRule, VectorOp

__all__ = ["fill", "tables"]

_ENUMERATIONS: tuple[type[IntEnum], ...] = (
    Capability, QueueKind, Space, Layout, SymbolKind, Dataflow, KOrder, Mode, Rounding, Mask,
    ReductionOrder, ScaleRule, PimMode, RowBuffer, Alu,
)


def fill(page: str) -> str:
    """Return `page` with the text between ``<!-- table: NAME -->`` and ``<!-- end -->`` renewed.

    Raises `KeyError` for a table that there is not.
    """
    made = tables()
    return re.sub(
        r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)",
        lambda found: found[1] + "\n" + made[found[2]] + "\n" + found[3], page, flags=re.DOTALL)


def tables() -> dict[str, str]:
    """Return every table of the page by its name, in Markdown."""
    return {
        "opcodes": _opcodes(),
        "fields": _fields(),
        "enumerations": _enumerations(),
        "vector": _vector(),
        "faults": _table(("fault", "meaning"),
                         ((f"`{kind}`", kind.meaning) for kind in FaultKind)),
        **{record.name: _record(record) for record in RECORDS},
    }


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _opcodes() -> str:
    rows = []
    for opcode, spec in OPCODES.items():
        queues = ", ".join(_name(kind) for kind in spec.queues) or "any"
        operands = "; ".join(_role(role) for role in spec.roles) or "-"
        fields = ", ".join(f"`{field.name}`" for field in spec.fields) or "-"
        rows.append((str(opcode.value), f"`{_name(opcode)}`", queues, operands, fields))
    return _table(("code", "opcode", "queue", "operands, in the order of their slots", "fields"),
                  rows)


def _role(role: Role) -> str:
    shown = f"`{role.name}`" + (" written" if role.written else "")
    shown += "" if role.required else ", optional"
    return f"{shown} ({', '.join(_name(space) for space in role.spaces)})"


def _fields() -> str:
    rows = []
    for opcode, spec in OPCODES.items():
        positions = {slot.name: lsb for lsb, slot in field_record(opcode).positions()}
        for field in spec.fields:
            lsb = positions[field.name]
            rows.append((f"`{_name(opcode)}`", f"`{field.name}`", f"{lsb}-{lsb + field.bits - 1}",
                         _kind(field), _default(field)))
    return _table(("opcode", "field", "bits of `fields`", "kind", "default"), rows)


def _kind(field: Field) -> str:
    if isinstance(field.kind, type):
        return field.kind.__name__
    return f"signed {field.kind}" if field.signed else str(field.kind)


def _default(field: Field) -> str:
    shown = field_text(field, field.default)
    if shown.startswith("?"):
        return "must be given"
    return "none (31)" if shown == "r31" else f"`{shown}`"


def _enumerations() -> str:
    return _table(("enumeration", "values"), (
        (kind.__name__, ", ".join(f"`{_name(member)}` {member.value}" for member in kind))
        for kind in _ENUMERATIONS))


def _vector() -> str:
    rows = []
    for vop in VectorOp:
        optional = {name.strip("[]") for name in OPERANDS[vop] if name.startswith("[")}
        sources = ", ".join(
            f"`{role}` {name}" + (" (optional)" if name in optional else "")
            for name, role in vector_sources(vop).items())
        rows.append((str(vop.value), f"`{_name(vop)}`", sources))
    return _table(("code", "operator", "sources by role"), rows)


def _record(record: Record) -> str:
    rows = []
    for lsb, slot in record.positions():
        last = lsb + slot.bits - 1
        signed = "signed; " if slot.signed else ""
        rows.append((f"{lsb}-{last}" if slot.bits > 1 else str(lsb),
                     f"`{slot.name}`" if slot.name else "reserved, 0",
                     (signed + slot.meaning).removesuffix("; ") or "-"))
    return _table((f"bits of {record.bytes} bytes", "field", "meaning"), rows)


def _name(member: IntEnum) -> str:
    return member.name.lower()


if __name__ == "__main__":
    for given in sys.argv[1:]:
        path = Path(given)
        path.write_text(fill(path.read_text()))
