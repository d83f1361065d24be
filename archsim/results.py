"""The results directory of a run: written whole under a temporary name, then given its own.

Same job, same bytes, ``manifest.when`` in ``run.json`` apart. Column names carry units; README's
"Reading the output" explains each.
"""

import csv
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w

from archsim.accounting import CLASSES
from archsim.energy import EnergyRow, energy
from archsim.job import Outcome
from archsim.trace import write_trace
from machine.errors import UserError
from machine.load import config_hash, resolved

__all__ = ["SCHEMA_VERSION", "summary", "write_directory", "write_results"]

SCHEMA_VERSION = 1


def summary(outcome: Outcome) -> dict[str, Any]:
    """Return what ``run.json`` holds, without ``manifest.when``: plain data, keys sorted."""
    job, result = outcome.job, outcome.result
    machine = job.machine
    data: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "title": job.title,
        "manifest": {
            "version": version("archsim"),
            "machine": machine.name,
            "config_sha256": config_hash(machine),
            "program_sha256": job.program_hash,
            "seed": job.seed,
            "fidelity": "bound" if result is None else "cycle",
            "block_fidelities": machine.fidelities,
        },
        "bound": outcome.bound.to_dict(),
    }
    if job.mapped is not None:
        data["manifest"] |= {
            "model": job.mapped.model.name,
            "formats": str(job.mapped.formats),
            "phase": job.mapped.phase.kind,
            "model_notes": list(job.mapped.model.notes),
            "tilings": {name: f"{t.m}x{t.n}x{t.k}" for name, t in job.mapped.tilings},
        }
    if result is None:
        return data
    seconds = result.seconds
    data["totals"] = {
        "time_ps": int(result.ticks * result.tick_ps),
        "ticks": result.ticks,
        "tick_ps": float(result.tick_ps),
        "instructions": len(result.log),
        "time_over_bound": result.ticks / outcome.bound.ticks if outcome.bound.ticks else None,
    }
    if job.tokens:
        data["totals"] |= {"tokens": job.tokens, "tokens_per_s": job.tokens / seconds}
    data["cycles"] = result.accounts
    data["energy"] = [row.to_dict() for row in energy(result)]
    return data


def write_results(outcome: Outcome, directory: Path, *, force: bool = False) -> Path:
    """Write the results of `outcome` into `directory` and return it (`write_directory`)."""
    return write_directory(directory, lambda at: _write_files(outcome, at), force=force)


def write_directory(
    directory: Path, write: Callable[[Path], None], *, force: bool = False
) -> Path:
    """Let `write` fill a new directory, give it the name `directory`, and return that.

    A directory that exists is replaced if it holds an earlier run's results, or with `force`;
    otherwise `UserError`. Nothing half-written is left behind.
    """
    directory = directory.absolute()
    if directory.exists() and not force and not _ours(directory):
        raise UserError(f"{directory}: --output must be new, empty or an earlier run's directory")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    except OSError as error:
        raise UserError(f"{directory}: --output must be writable: {error.strerror}") from None
    try:
        write(temporary)
        os.chmod(temporary, 0o755)
        if directory.exists():
            shutil.rmtree(directory)
        temporary.rename(directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return directory


def _ours(directory: Path) -> bool:
    return directory.is_dir() and (
        (directory / "run.json").is_file() or not any(directory.iterdir()))


def _write_files(outcome: Outcome, at: Path) -> None:
    data = summary(outcome)
    data["manifest"]["when"] = {"written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    text = json.dumps(data, indent=1, sort_keys=True) + "\n"
    (at / "run.json").write_text(text, encoding="utf-8")
    config = tomli_w.dumps(resolved(outcome.job.machine))
    (at / "config.resolved.toml").write_text(config, encoding="utf-8")
    result = outcome.result
    if result is None:
        return
    ops = result.program.ops
    period_ps = float(result.tick_ps)
    (at / "layers.csv").write_text(_table(
        ("layer", "operation", "instructions", "start_ps", "end_ps", "span_ps", "critical_ps"),
        ((o.layer, ops[o.op] if ops else "", o.instructions, o.start * period_ps,
          o.last * period_ps, o.span * period_ps, o.busy * period_ps) for o in result.operations),
    ), encoding="utf-8")
    (at / "stalls.csv").write_text(_table(
        ("resource", "total_ticks", *(f"{name}_ticks" for name in CLASSES)),
        ((name, sum(row.values()), *(row[c] for c in CLASSES))
         for name, row in result.accounts.items()),
    ), encoding="utf-8")
    (at / "energy.csv").write_text(_table(EnergyRow.columns(), (
        row.cells() for row in energy(result))), encoding="utf-8")
    write_trace(result, at / "trace.json.gz")


def _table(header: tuple[str, ...], rows: Any) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()
