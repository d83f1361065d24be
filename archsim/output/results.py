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
from archsim.output.trace import write_trace
from archsim.result import SimResult
from machine.errors import UserError
from machine.load import config_hash, resolved

__all__ = ["SCHEMA_VERSION", "check_output", "summary", "write_directory", "write_results"]

SCHEMA_VERSION = 1
# Every name that a run, a text run or a report writes; a directory with another is not replaced.
RESULT_FILES = frozenset({
    "run.json", "config.resolved.toml", "layers.csv", "stalls.csv", "energy.csv", "trace.json.gz",
    "embeddings.npy", "embeddings.csv", "report.html",
})


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
            "block_fidelities": job.fidelities,
            "block_departures": job.departures,
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


def write_results(outcome: Outcome, directory: Path) -> Path:
    """Write the results of `outcome` into `directory` and return it, as `write_directory` does."""
    return write_directory(directory, lambda at: _write_files(outcome, at))


def write_directory(directory: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a new directory, give it the name `directory`, and return that.

    Whatever stops it, an interrupt too, nothing half-written is left, and a directory that was
    there is as it was. Raises `UserError` as `check_output` does, and where nothing can be written.
    """
    directory = directory.absolute()
    check_output(directory)
    temporary = None
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
        whole = temporary / directory.name
        whole.mkdir()
        write(whole)
        _put_in_place(whole, directory, temporary / "earlier")
    except OSError as error:
        raise UserError(f"{directory}: --output must be writable: {error.strerror}") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return directory


def check_output(directory: Path) -> None:
    """Raise `UserError` unless `directory` can be made, is empty or holds a run's results alone."""
    directory = directory.absolute()
    if not directory.exists():
        above = next(path for path in directory.parents if path.exists())
        if not (above.is_dir() and os.access(above, os.W_OK)):
            why = "a directory" if not above.is_dir() else "writable"
            raise UserError(f"{directory}: --output must be writable: {above} is not {why}")
        return
    names = {path.name for path in directory.iterdir()} if directory.is_dir() else {""}
    if names and not ("run.json" in names and names <= RESULT_FILES):
        raise UserError(f"{directory}: --output must be new, empty or an earlier run's directory")


def _put_in_place(whole: Path, directory: Path, aside: Path) -> None:
    """Rename `whole` to `directory`; what had that name goes `aside`, and back if this fails."""
    had = directory.exists()
    if had:
        directory.rename(aside)
    try:
        whole.rename(directory)
    except BaseException:
        if had:
            aside.rename(directory)
        raise


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
    (at / "layers.csv").write_text(_table(
        ("layer", "operation", "instructions", "start_ps", "end_ps", "busy_ps", "charged_ps"),
        ((o.layer, ops[o.op] if ops else "", o.instructions,
          *(_ps(ticks, result) for ticks in (o.start, o.last, o.busy, o.charged)))
         for o in result.operations),
    ), encoding="utf-8")
    (at / "stalls.csv").write_text(_table(
        ("resource", "total_ticks", *(f"{name}_ticks" for name in CLASSES)),
        ((name, sum(row.values()), *(row[c] for c in CLASSES))
         for name, row in result.accounts.items()),
    ), encoding="utf-8")
    (at / "energy.csv").write_text(_table(EnergyRow.columns(), (
        row.cells() for row in energy(result))), encoding="utf-8")
    write_trace(result, at / "trace.json.gz")


def _ps(ticks: int, result: SimResult) -> int | float:
    exact = ticks * result.tick_ps
    return exact.numerator if exact.denominator == 1 else float(exact)


def _table(header: tuple[str, ...], rows: Any) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()
