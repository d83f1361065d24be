"""What a run prints: one screen of tables, read from the outcome and nothing else."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from archsim.accounting import CLASSES
from archsim.energy import NOT_MODELLED, EnergyRow, energy
from archsim.job import Outcome
from archsim.output.results import summary
from archsim.result import SimResult

__all__ = ["bound_table", "by_kind", "outcome_json", "outcome_table"]

TOP_OPERATIONS = 8  # rows of the operators' table before the rest is summed
MEMORIES = ("scratchpad.", "accumulator.", "crossbar", "dram")  # resources that are no units


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return what ``run.json`` holds, for printing."""
    return summary(outcome)


def outcome_table(outcome: Outcome, written: Path | None) -> list[Any]:
    """Return the parts of a run's screen, in order; no table is wider than 80 columns."""
    result = outcome.result
    assert result is not None
    parts: list[Any] = [Text(outcome.job.title, style="bold"), *_headline(outcome, result), Text()]
    parts += [_title("where the cycles went, % of the run, mean of equal resources")]
    kinds = by_kind(result.accounts)
    memories = {kind: rows for kind, rows in kinds.items() if kind.startswith(MEMORIES)}
    units = {kind: rows for kind, rows in kinds.items() if kind not in memories}
    parts += [_cycles("unit", units), Text(), _cycles("port, memory", memories), Text()]
    parts += [_title("operators; a tick is charged to the instruction that completes first")]
    parts += [_operations(result), Text(), *_energy(energy(result))]
    if written is not None:
        parts += [Text(), Text(f"results in {written}")]
    return parts


def bound_table(outcome: Outcome) -> list[Any]:
    """Return the least time of every resource, the longest first."""
    limit = outcome.bound
    tick = float(outcome.job.machine.tick_ps) * 1e-12
    table = _table(("resource", "least time", "% of the bound"))
    for name, ticks in sorted(limit.terms.items(),
                              key=lambda term: (-term[1], term[0] != limit.resource, term[0])):
        table.add_row(name, _time(ticks * tick), _percent(ticks, limit.ticks))
    head = "no work, no bound"
    if limit.ticks:
        head = f"no faster than {_time(limit.ticks * tick)}, set by {limit.resource}"
    return [Text(outcome.job.title, style="bold"), Text(head), Text(), table]


def _table(columns: Iterable[str]) -> Table:
    """Return an empty table whose first column is left-aligned and the others right."""
    table = Table(box=None, padding=(0, 0, 0, 1), pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    return table


def _title(text: str) -> Text:
    return Text(text, style="italic")


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if part else ""


def _time(seconds: float) -> str:
    if not seconds:
        return "0"
    for scale, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= scale:
            return f"{seconds / scale:,.3f} {unit}"
    return f"{seconds * 1e9:,.1f} ns"


def _headline(outcome: Outcome, result: SimResult) -> list[Text]:
    job, limit = outcome.job, outcome.bound
    seconds = result.seconds
    rate = f", {job.tokens / seconds:,.0f} tokens/s" if job.tokens and seconds else ""
    bound = "bound: no work, no bound"
    if limit.ticks:
        bound = (f"bound {_time(limit.ticks * float(result.tick_ps) * 1e-12)}, set by "
                 f"{limit.resource}; time / bound {result.ticks / limit.ticks:.3f}")
    marks: dict[str, list[str]] = {}
    for block, mark in job.fidelities.items():
        marks.setdefault(mark, []).append(block)
    declared = [f"{mark}: {', '.join(blocks)}" for mark, blocks in sorted(marks.items())[::-1]]
    notes = job.mapped.model.notes if job.mapped is not None else ()
    return [
        Text(f"time {_time(seconds)}{rate}; {result.ticks:,} ticks of "
             f"{float(result.tick_ps):g} ps, {len(result.log):,} instructions"),
        Text(bound),
        Text("\n".join(["fidelity cycle; the timing of each block is",
                        *(f"  {line}" for line in declared),
                        *(f"  {block} is not rtl: {why}" for block, why in job.departures.items()),
                        *(f"note: {n}" for n in notes)])),
    ]


def by_kind(accounts: Mapping[str, dict[str, int]]) -> dict[str, list[dict[str, int]]]:
    """Return the accounts of equal resources of all chips together, by kind; units come first."""
    kinds: dict[str, list[dict[str, int]]] = {}
    for name, row in accounts.items():
        kinds.setdefault(name.split(".", 1)[-1].rstrip("0123456789"), []).append(row)
    return dict(sorted(kinds.items(), key=lambda kind: kind[0].startswith(MEMORIES)))


def _cycles(what: str, kinds: dict[str, list[dict[str, int]]]) -> Table:
    """Where the cycles of each kind went; a class that none of them has is left out."""
    sums = {k: {c: sum(r[c] for r in rows) for c in CLASSES} for k, rows in kinds.items()}
    used = [c for c in CLASSES if any(row[c] for row in sums.values())]
    table = _table([f"\n{what}", *(c.replace("_", "\n") if "_" in c else f"\n{c}" for c in used)])
    for kind, row in sums.items():
        table.add_row(f"{kind} x{len(kinds[kind])}",
                      *(_percent(row[c], sum(row.values())) for c in used))
    return table


def _operations(result: SimResult) -> Table:
    """The operators, longest first; a time in which several are under way is charged once."""
    names = result.program.ops
    sums: dict[str, list[int]] = {}
    for op in result.operations:
        row = sums.setdefault(names[op.op] if names else "program", [0, 0, 0, 0])
        for place, value in enumerate((op.charged, op.busy, 1, op.instructions)):
            row[place] += value
    ranked = sorted(sums.items(), key=lambda item: (-item[1][0], item[0]))
    rest = [row for _, row in ranked[TOP_OPERATIONS:]]
    if rest:
        ranked[TOP_OPERATIONS:] = [
            (f"{len(rest)} more", [sum(column) for column in zip(*rest, strict=True)])]
    idle = result.ticks - sum(row[0] for row in sums.values())
    if idle:
        ranked.append(("nothing under way", [idle, 0, 0, 0]))
    table = _table(("operator", "charged", "%", "under way", "layers", "instructions"))
    tick = float(result.tick_ps) * 1e-12
    for name, (charged, busy, layers, count) in ranked:
        table.add_row(name, _time(charged * tick), _percent(charged, result.ticks),
                      _time(busy * tick) if busy else "", f"{layers or ''}",
                      f"{count:,}" if count else "")
    return table


def _energy(rows: list[EnergyRow]) -> list[Any]:
    """Energy by component, dynamic and static, and the list of the sources it names."""
    scale, unit = _energy_unit(sum(row.energy_pj or 0.0 for row in rows))
    sources: list[str] = []
    for row in rows:
        if row.energy_pj is not None and _short(row.source) not in sources:
            sources.append(_short(row.source))
    table = _table(("component", "dynamic", "static", "sources"))
    for component in sorted({row.component for row in rows}):
        mine = [row for row in rows if row.component == component]
        named = sorted({sources.index(_short(r.source)) + 1 for r in mine
                        if r.energy_pj is not None})
        cells = [_energy_cell([r for r in mine if r.kind == kind], scale)
                 for kind in ("dynamic", "static")]
        table.add_row(component, *cells, " ".join(f"[{n}]" for n in named))
    totals = [sum(r.energy_pj or 0.0 for r in rows if r.kind == kind) / scale
              for kind in ("dynamic", "static")]
    table.add_row("what is modelled", *(f"{total:,.3f}" for total in totals))
    notes = [f"[{n}] {name}{_assumed(name, rows)}" for n, name in enumerate(sources, 1)]
    partly = [f"* without {row.component} {row.operation}: {NOT_MODELLED}" for row in rows
              if row.energy_pj is None and any(
                  (r.component, r.kind) == (row.component, row.kind) and r.energy_pj is not None
                  for r in rows)]
    return [_title(f"energy, {unit}"), table, *(Text(note) for note in notes + partly)]


def _energy_unit(total_pj: float) -> tuple[float, str]:
    """Return the unit in which `total_pj` is no small fraction, in pJ, and its name."""
    for scale, unit in ((1e9, "mJ"), (1e6, "uJ")):
        if total_pj >= 0.1 * scale:
            return scale, unit
    return 1e3, "nJ"


def _energy_cell(rows: list[EnergyRow], scale: float) -> str:
    """Return the sum of `rows`, marked where a part of it is not modelled."""
    known = [row.energy_pj for row in rows if row.energy_pj is not None]
    if not known:
        return NOT_MODELLED
    return f"{sum(known) / scale:,.3f}" + ("*" if len(known) < len(rows) else "")


def _short(source: str) -> str:
    return source.split(",")[0]


def _assumed(name: str, rows: list[EnergyRow]) -> str:
    applied = any(_short(row.source) == name and "assumed" in row.source for row in rows)
    return ", in part assumed to hold here" if applied else ""
