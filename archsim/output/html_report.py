"""One self-contained HTML page of a run: tables and figures, no script, nothing fetched.

The page is made from a run's directory alone, so that it can be made later, elsewhere and again:
the same directory gives the same bytes.
"""

import csv
import html
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsim.accounting import CLASSES
from archsim.energy import NOT_MODELLED
from archsim.output.plots import bound_figure, cycles_figure, energy_figure, operators_figure
from archsim.output.report import by_kind
from machine.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["page", "write_report"]

NAME = "report.html"
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #1b1b1b; background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: .18rem .42rem; text-align: right; border-bottom: 1px solid #e4e4e4; }
th { vertical-align: bottom; } th:first-child, td:first-child, .text { text-align: left; }
td:first-child { white-space: nowrap; }
figure { margin: .5rem 0; } figure svg { max-width: 100%; height: auto; }
.wide { overflow-x: auto; } .note { color: #555; font-size: .86rem; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: .8rem; }
"""


def write_report(directory: Path) -> Path:
    """Write ``report.html`` into the `directory` of a run and return its path.

    Raises `UserError` where that is no directory of a simulated run, and where matplotlib or the
    right to write is missing.
    """
    text = page(directory)
    target = directory / NAME
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{target}: report must be writable: {error.strerror}") from None
    return target


def page(directory: Path) -> str:
    """Return the page of the run in `directory`."""
    run = _run(directory)
    with (directory / "layers.csv").open(newline="", encoding="utf-8") as file:
        layers = list(csv.DictReader(file))
    config = (directory / "config.resolved.toml").read_text(encoding="utf-8")
    manifest = run["manifest"]
    parts = [
        f"<h1>{html.escape(run['title'])}</h1>", _headline(run),
        "<h2>Where the cycles went</h2>",
        _note("Each bar is a kind of resource, the mean of equal ones; the classes of a resource "
              "sum to the run."),
        _svg(cycles_figure(run)), _wide(_cycles(run)),
        "<h2>Least time by resource</h2>",
        _note("The time each resource needs at its peak for this program as it is mapped. The "
              "longest is the bound."),
        _svg(bound_figure(run)),
        "<h2>Operators</h2>",
        _note("A tick is charged to the instruction under way that completes first."),
        _svg(operators_figure(layers)),
        _details("Every layer", _table(list(layers[0]) if layers else [],
                                       (row.values() for row in layers))),
        "<h2>Energy</h2>", _svg(energy_figure(run)), _wide(_energy(run["energy"])),
        "<h2>What this run is</h2>", _manifest(manifest),
        _details("The machine, every default filled in", f"<pre>{html.escape(config)}</pre>"),
    ]
    return ("<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
            '<meta name=viewport content="width=device-width">\n'
            f"<title>{html.escape(run['title'])}</title>\n<style>{STYLE}</style>\n"
            + "\n".join(parts) + "\n</html>\n")


def _run(directory: Path) -> dict[str, Any]:
    """Return ``run.json`` of a simulated run. Raises `UserError` where there is none."""
    try:
        run = json.loads((directory / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{directory}: directory must be one that archsim run -o wrote") from None
    if "cycles" not in run or not (directory / "layers.csv").exists():
        raise UserError(f"{directory}: run must be simulated, with layers.csv beside run.json")
    return run


def _headline(run: dict[str, Any]) -> str:
    totals, bound = run["totals"], run["bound"]
    tick_us = totals["tick_ps"] * 1e-6
    rows = [("time", f"{totals['ticks'] * tick_us:,.3f} us"),
            ("ticks", f"{totals['ticks']:,} of {totals['tick_ps']:g} ps"),
            ("instructions", f"{totals['instructions']:,}")]
    if "tokens_per_s" in totals:
        rows.insert(1, ("tokens/s", f"{totals['tokens_per_s']:,.0f}"))
    if bound["ticks"]:
        rows += [("bound", f"{bound['ticks'] * tick_us:,.3f} us, set by {bound['resource']}"),
                 ("time / bound", f"{totals['time_over_bound']:.3f}")]
    return _table([], rows)


def _cycles(run: dict[str, Any]) -> str:
    kinds = by_kind(run["cycles"])
    used = [c for c in CLASSES if any(row[c] for rows in kinds.values() for row in rows)]
    body = []
    for kind, rows in kinds.items():
        total = sum(sum(row.values()) for row in rows)
        shares = [sum(row[name] for row in rows) for name in used]
        body.append([f"{kind} x{len(rows)}",
                     *(f"{100 * part / total:.1f}" if part else "" for part in shares)])
    return _table(["% of the run", *(name.replace("_", " ") for name in used)], body)


def _energy(rows: list[dict[str, Any]]) -> str:
    body = ((row["component"], row["operation"], row["kind"],
             "" if row["count"] is None else f"{row['count']:,} {row['unit']}",
             NOT_MODELLED if row["energy_pj"] == NOT_MODELLED
             else f"{row['energy_pj'] * 1e-6:,.3f}", row["source"]) for row in rows)
    return _table(["component", "operation", "kind", "count", "uJ", "source"], body, text=(1, 2, 5))


def _manifest(manifest: dict[str, Any]) -> str:
    flat = []
    for key, value in manifest.items():
        if isinstance(value, dict):
            flat += [(f"{key}: {name}", str(part)) for name, part in value.items()]
        elif isinstance(value, list):
            flat += [(key, str(part)) for part in value]
        else:
            flat.append((key, str(value)))
    return _details("Version, hashes, formats, fidelity of each block", _table([], flat, text=(1,)))


def _table(header: Sequence[str], rows: Iterable[Iterable[Any]], *, text: Sequence[int] = ()
           ) -> str:
    """Return a table; columns numbered in `text`, and the first, are set to the left."""
    lines = ["<table>"]
    if header:
        lines.append(_row("th", header, text))
    lines += [_row("td", row, text) for row in rows]
    return "\n".join([*lines, "</table>"])


def _row(tag: str, cells: Iterable[Any], text: Sequence[int]) -> str:
    return "<tr>" + "".join(
        f"<{tag}{' class=text' if place in text else ''}>{html.escape(str(cell))}</{tag}>"
        for place, cell in enumerate(cells)) + "</tr>"


def _note(sentence: str) -> str:
    return f"<p class=note>{html.escape(sentence)}</p>"


def _wide(table: str) -> str:
    return f"<div class=wide>{table}</div>"


def _details(summary: str, body: str) -> str:
    return f"<details><summary>{html.escape(summary)}</summary>{_wide(body)}</details>"


def _svg(figure: "Figure") -> str:
    """Return `figure` as SVG to stand inside a page, the same bytes for the same figure."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "archsim", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    drawing = out.getvalue()
    return f"<figure>{drawing[drawing.index('<svg'):]}</figure>"
