"""Figures of a run, drawn from what its directory holds and nothing else.

Every function takes plain data, as ``run.json`` and ``layers.csv`` hold it, and returns a figure.
Matplotlib is asked for here and nowhere else in the package (extra: plot).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from archsim.accounting import CLASSES
from archsim.energy import NOT_MODELLED
from archsim.output.report import by_kind

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["bound_figure", "cycles_figure", "energy_figure", "operators_figure"]

WIDTH_IN = 9.0
ROW_IN = 0.32  # height of a bar with its gap
TOP_OPERATIONS = 16  # bars of `operators_figure` before the rest is summed
# One colour a class, the same in every report: work green, memory blue and violet, ports orange,
# waiting and idleness grey.
COLOURS = {
    "busy": "#009E73", "bank_conflict": "#8C510A", "port_conflict": "#D55E00",
    "port_bound": "#E69F00", "bus_conflict": "#542788", "row_miss": "#0072B2",
    "row_conflict": "#7B9FD3", "pim_conflict": "#B2182B",
    "turnaround": "#56B4E9", "refresh": "#CC79A7", "mode_switch": "#F0E442",
    "memory_wait": "#08519C", "fill": "#A6DBA0", "drain": "#D9F0D3", "control": "#762A83",
    "token_wait": "#BDBDBD", "unused": "#E5E5E5", "halted": "#F5F5F5",
}


def _figure(rows: int) -> "Figure":
    """Return an empty figure for `rows` horizontal bars."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH_IN, 1.1 + ROW_IN * max(rows, 1)), layout="constrained")


def cycles_figure(run: Mapping[str, Any]) -> "Figure":
    """Return where the cycles of each kind of resource went, in % of the run; 100 % a bar."""
    kinds = by_kind(run["cycles"])
    figure = _figure(len(kinds) + 2)
    axes = figure.add_subplot()
    names = [f"{kind} x{len(rows)}" for kind, rows in kinds.items()]
    left = [0.0] * len(kinds)
    for name in CLASSES:
        share = []
        for rows in kinds.values():
            total = sum(sum(row.values()) for row in rows)
            share.append(100 * sum(row[name] for row in rows) / total if total else 0.0)
        if any(share):
            axes.barh(names, share, left=left, color=COLOURS[name], label=name.replace("_", " "),
                      edgecolor="white", linewidth=0.3)
            left = [before + mine for before, mine in zip(left, share, strict=True)]
    axes.invert_yaxis()
    axes.set(xlabel="% of the run", xlim=(0, 100))
    figure.legend(loc="outside upper center", ncols=6, fontsize=8, frameon=False)
    return figure


def bound_figure(run: Mapping[str, Any]) -> "Figure":
    """Return the least time each resource needs, and the simulated time as a line."""
    tick_us = run["totals"]["tick_ps"] * 1e-6
    terms = sorted(run["bound"]["terms_ticks"].items(), key=lambda term: (-term[1], term[0]))
    shown = [term for term in terms if term[1]]
    figure = _figure(len(shown))
    axes = figure.add_subplot()
    axes.barh([name for name, _ in shown], [ticks * tick_us for _, ticks in shown],
              color="#0072B2")
    axes.invert_yaxis()
    axes.axvline(run["totals"]["ticks"] * tick_us, color="#D55E00", label="simulated")
    axes.legend(fontsize=8, loc="lower right")
    axes.set(xlabel="least time, us")
    return figure


def operators_figure(layers: Sequence[Mapping[str, str]]) -> "Figure":
    """Return the time charged to each operation, all layers together, the longest first.

    `layers` are the rows of ``layers.csv``. A tick is charged to one operation only.
    """
    sums: dict[str, float] = {}
    for row in layers:
        name = row["operation"] or "program"
        sums[name] = sums.get(name, 0.0) + float(row["charged_ps"]) * 1e-6
    ranked = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    rest = ranked[TOP_OPERATIONS:]
    if rest:
        ranked[TOP_OPERATIONS:] = [(f"{len(rest)} more", sum(time for _, time in rest))]
    figure = _figure(len(ranked))
    axes = figure.add_subplot()
    axes.barh([name for name, _ in ranked], [time for _, time in ranked], color="#009E73")
    axes.invert_yaxis()
    axes.set(xlabel="charged time, us")
    return figure


def energy_figure(run: Mapping[str, Any]) -> "Figure":
    """Return the modelled energy of each component; one with nothing modelled says so."""
    rows = run["energy"]
    known = [row for row in rows if row["energy_pj"] != NOT_MODELLED]
    components = sorted({row["component"] for row in rows})
    figure = _figure(len(components))
    axes = figure.add_subplot()
    left = [0.0] * len(components)
    for kind, colour in (("dynamic", "#0072B2"), ("static", "#BDBDBD")):
        share = [1e-6 * sum(row["energy_pj"] for row in known
                            if (row["component"], row["kind"]) == (component, kind))
                 for component in components]
        axes.barh(components, share, left=left, color=colour, label=kind)
        left = [before + mine for before, mine in zip(left, share, strict=True)]
    for place, component in enumerate(components):
        if not any(row["component"] == component for row in known):
            axes.annotate(f" {NOT_MODELLED}", (0, place), va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="energy, uJ")
    axes.legend(fontsize=8, loc="lower right")
    return figure
