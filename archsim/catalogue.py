"""What archsim knows by name, and whether a user's file is right."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from machine.errors import must_be, unknown
from machine.formats import FORMATS
from machine.load import preset_names, read_machine
from machine.opcodes import OPCODES
from machine.program import QueueKind
from machine.vector import OPERANDS, VectorOp
from mapping.families import model_names, read_model
from mapping.parameters import parameter_count

__all__ = ["catalogue", "catalogue_table", "check_file"]


def catalogue(what: str) -> list[dict[str, Any]]:
    """Return a row for every known thing of the kind `what`; raises `UserError` for another."""
    kinds = {
        "machines": _machines, "models": _models, "formats": _formats,
        "instructions": _instructions, "operations": _operations, "blocks": _blocks,
    }
    if what not in kinds:
        raise unknown("list", what, kinds)
    return kinds[what]()


def _machines() -> list[dict[str, Any]]:
    rows = []
    for name in preset_names():
        m = read_machine(name)
        rows.append({
            "name": name, "arrays": m.units(QueueKind.ARRAY),
            "array": m.arrays[0].size,
            "vector_units": m.units(QueueKind.VECTOR), "scratchpad_bytes": m.scratchpad.bytes,
            "dram_channels": m.dram.channels, "dram_bytes": m.dram.capacity_bytes,
            "pim": "" if m.pim is None else ("single", "dual")[m.pim.row_buffers - 1],
        })
    return rows


def _models() -> list[dict[str, Any]]:
    rows = []
    for name in model_names():
        m = read_model(name)
        rows.append({"name": name, "family": m.family, "layers": m.layers, "d_model": m.d_model,
                     "heads": f"{m.attention.heads}/{m.attention.kv_heads}",
                     "parameters": parameter_count(m)})
    return rows


def _formats() -> list[dict[str, Any]]:
    return [{"name": f.name, "code": f.code, "kind": f.kind.value, "bits": f.bits}
            for f in FORMATS.values()]


def _instructions() -> list[dict[str, Any]]:
    return [{"name": op.name.lower(), "code": int(op),
             "queues": " ".join(q.name.lower() for q in spec.queues) or "every",
             "operands": " ".join(r.name if r.required else f"[{r.name}]" for r in spec.roles),
             "fields": " ".join(f.name for f in spec.fields)}
            for op, spec in OPCODES.items()]


def _operations() -> list[dict[str, Any]]:
    return [{"name": op.name.lower(), "code": int(op), "sources": " ".join(OPERANDS[op])}
            for op in VectorOp]


def _blocks() -> list[dict[str, Any]]:
    rows = []
    for name in preset_names():
        for block, fidelity in read_machine(name).fidelities.items():
            rows.append({"machine": name, "block": block, "fidelity": fidelity})
    return rows


def catalogue_table(rows: list[dict[str, Any]]) -> Any:
    """Return the rows as a table for a terminal."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for key in rows[0]:
        right = isinstance(rows[0][key], int)
        table.add_column(key, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{v:,}" if isinstance(v, int) else str(v) for v in row.values()))
    return table


def check_file(
    name: str, machine: str = "tiny", launch: Mapping[str, int | Sequence[int]] | None = None
) -> dict[str, str]:
    """Return the file's name and what it is, if it is right: a machine, a model or a program.

    A program is verified for `machine` and `launch`. Raises `UserError` with what is wrong.
    """
    path = Path(name)
    if path.suffix == ".prog":
        from archsim.job import prepare_program

        job = prepare_program(path, machine, launch=launch)
        return {"file": name, "is": f"a program that {job.machine.name} can run"}
    if path.suffix == ".toml" or name in preset_names():
        return {"file": name, "is": f"a machine, {read_machine(name).name}"}
    if path.suffix == ".json" or path.is_dir() or name in model_names():
        model = read_model(name)
        return {"file": name, "is": f"a model, {model.name}, {parameter_count(model):,} parameters"}
    if path.exists():
        raise must_be("file", "a machine (.toml), a model (.json or a folder) or a program (.prog)",
                      name)
    raise unknown("name", name, [*preset_names(), *model_names()])
