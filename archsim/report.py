"""What a run prints: one screen of tables, read from the outcome and nothing else."""

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from archsim.accounting import CLASSES
from archsim.energy import energy
from archsim.job import Outcome
from archsim.results import summary

__all__ = ["bound_table", "outcome_json", "outcome_table"]

TOP_OPERATIONS = 8  # rows of the operations table before the rest is summed


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return what ``run.json`` holds, for printing."""
    return summary(outcome)


def outcome_table(outcome: Outcome, written: Path | None) -> list[Any]:
    """Return the parts of a run's screen, in order."""
    parts: list[Any] = [Text(outcome.job.title, style="bold"), *_headline(outcome)]
    parts += [Text(), _cycles(outcome), Text(), _operations(outcome), Text(), _energy(outcome)]
    if written is not None:
        parts += [Text(), Text(f"results in {written}")]
    return parts


def _headline(outcome: Outcome) -> list[Text]:
    result = outcome.result
    assert result is not None
    job, limit = outcome.job, outcome.bound
    seconds = result.seconds
    rate = f", {job.tokens / seconds:,.0f} tokens/s" if job.tokens else ""
    over = f"{result.ticks / limit.ticks:.3f}" if limit.ticks else "-"
    marks = ", ".join(sorted({f"{v}" for v in job.machine.fidelities.values()}))
    return [
        Text(f"time {_time(seconds)}{rate}; {result.ticks:,} ticks of "
             f"{float(result.tick_ps):g} ps, {len(result.log):,} instructions"),
        Text(f"bound {_time(limit.ticks * float(result.tick_ps) * 1e-12)}, set by "
             f"{limit.resource}; time / bound {over}"),
        Text(f"fidelity cycle; timing of blocks: {marks}"),
    ]


def _time(seconds: float) -> str:
    for scale, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= scale:
            return f"{seconds / scale:,.3f} {unit}"
    return f"{seconds * 1e9:,.1f} ns"


def _cycles(outcome: Outcome) -> Table:
    """Where the cycles of each kind of resource went, in percent of the run."""
    result = outcome.result
    assert result is not None
    groups: dict[str, list[dict[str, int]]] = {}
    for name, row in result.accounts.items():
        groups.setdefault(_kind(name), []).append(row)
    sums = {k: {c: sum(r[c] for r in rows) for c in CLASSES} for k, rows in groups.items()}
    used = [c for c in CLASSES if any(s[c] for s in sums.values())]
    table = Table(title="where the cycles went, % (mean of equal units)", box=None,
                  title_justify="left", pad_edge=False)
    table.add_column("resource")
    for name in used:
        table.add_column(name.replace("_", " "), justify="right")
    for kind, row in sums.items():
        total = sum(row.values()) or 1
        table.add_row(f"{kind} x{len(groups[kind])}",
                      *(f"{100 * row[c] / total:.1f}" if row[c] else "" for c in used))
    return table


def _kind(resource: str) -> str:
    name = resource.split(".", 1)[-1]
    return name.rstrip("0123456789")


def _operations(outcome: Outcome) -> Table:
    """The operators on the critical path, longest first."""
    result = outcome.result
    assert result is not None
    names = result.program.ops
    sums: dict[str, list[int]] = {}
    for op in result.operations:
        row = sums.setdefault(names[op.op] if names else "program", [0, 0, 0])
        row[0] += op.busy
        row[1] += op.instructions
        row[2] += 1
    ranked = sorted(sums.items(), key=lambda item: (-item[1][0], item[0]))
    rest = ranked[TOP_OPERATIONS:]
    total = result.ticks or 1
    table = Table(title="operators, by their share of the time", box=None, title_justify="left",
                  pad_edge=False)
    for name, right in (("operator", False), ("time", True), ("%", True), ("layers", True),
                        ("instructions", True)):
        table.add_column(name, justify="right" if right else "left")
    period = float(result.tick_ps) * 1e-12
    for name, (busy, count, layers) in ranked[:TOP_OPERATIONS]:
        table.add_row(name, _time(busy * period), f"{100 * busy / total:.1f}", f"{layers}",
                      f"{count:,}")
    if rest:
        busy, count = sum(r[1][0] for r in rest), sum(r[1][1] for r in rest)
        table.add_row(f"{len(rest)} more", _time(busy * period), f"{100 * busy / total:.1f}", "",
                      f"{count:,}")
    return table


def _energy(outcome: Outcome) -> Table:
    """Energy by component, with where each number is from."""
    result = outcome.result
    assert result is not None
    table = Table(title="energy", box=None, title_justify="left", pad_edge=False)
    for name, right in (("component", False), ("mJ", True), ("source", False)):
        table.add_column(name, justify="right" if right else "left")
    total = 0.0
    for row in energy(result):
        table.add_row(row.component, _mj(row.energy_pj), row.source)
        total += row.energy_pj or 0.0
    table.add_row("sum of what is modelled", _mj(total), "")
    return table


def _mj(energy_pj: float | None) -> str:
    return "not modelled" if energy_pj is None else f"{energy_pj * 1e-9:,.3f}"


def bound_table(outcome: Outcome) -> list[Any]:
    """Return the bound of every resource, the longest first."""
    limit = outcome.bound
    tick = float(outcome.job.machine.tick_ps) * 1e-12
    table = Table(box=None, pad_edge=False)
    for name, right in (("resource", False), ("work", True), ("peak", False), ("time", True)):
        table.add_column(name, justify="right" if right else "left")
    for row in limit.rows:
        table.add_row(row.resource, f"{row.work:,}", row.peak, _time(row.ticks * tick))
    head = f"no faster than {_time(limit.ticks * tick)}, set by {limit.resource}"
    return [Text(outcome.job.title, style="bold"), Text(head), Text(), table]
