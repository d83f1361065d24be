"""The trace of a run, loadable in Perfetto: one track a unit, slices that never overlap.

A slice runs from an execution's start to its completion or to the next start on its unit,
whichever is first. Slices of one operation and layer that touch become one. If more than `most`
are left, gaps inside one operation and layer are closed as well, of 1 tick, then 2, 4, and so on
until they fit; the trace's ``otherData`` says up to which gap. What still does not fit is cut at
the end, and ``otherData`` says how many slices were.
"""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

from archsim.result import SimResult

__all__ = ["MOST_SLICES", "slices", "trace", "write_trace"]

MOST_SLICES = 50_000


def slices(result: SimResult, resource: str, *, gap: int = 0) -> np.ndarray:
    """Return the slices of a unit, int64 [n, 4]: start, end, row of the log, executions.

    Neighbours of one operation and layer that are at most `gap` ticks apart are one slice.
    """
    parts, rows = result.parts[resource], result.rows[resource]
    order = np.argsort(parts[:, 0], kind="stable")
    start, row = parts[order, 0], rows[order]
    end = np.minimum(parts[order, -1], np.append(start[1:], np.iinfo(np.int64).max))
    kept = end > start
    start, end, row = start[kept], end[kept], row[kept]
    if len(start) == 0:
        return np.zeros((0, 4), np.int64)
    op = np.asarray(result.log.op, np.int64)[row]
    layer = np.asarray(result.log.layer, np.int64)[row]
    new = np.ones(len(start), bool)
    new[1:] = (op[1:] != op[:-1]) | (layer[1:] != layer[:-1]) | (start[1:] - end[:-1] > gap)
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(start)) - 1
    return np.stack([start[first], end[last], row[first], last - first + 1], axis=1)


def trace(result: SimResult, *, most: int = MOST_SLICES) -> dict[str, Any]:
    """Return the trace in the JSON form of the Trace Event Format; times are in microseconds."""
    gap = 0
    found = {name: slices(result, name) for name in result.parts}
    while sum(map(len, found.values())) > most and gap < result.ticks:
        gap = max(1, gap * 2)
        found = {name: slices(result, name, gap=gap) for name in result.parts}
    events: list[dict[str, Any]] = []
    for track, name in enumerate(found):
        chip = int(name.split(".")[0].removeprefix("chip"))
        events.append({"ph": "M", "name": "thread_name", "pid": chip, "tid": track,
                       "args": {"name": name}})
    rows = sorted(
        (start, track, end, row, count)
        for track, name in enumerate(found)
        for start, end, row, count in found[name].tolist()
    )
    chips = [event["pid"] for event in events]
    events += [_event(result, chips[track], track, start, end, row, count)
               for start, track, end, row, count in rows[:most]]
    return {
        "displayTimeUnit": "ns",
        "otherData": {"program": result.program.name, "gap_closed_ticks": gap,
                      "slices_cut": max(0, len(rows) - most)},
        "traceEvents": events,
    }


def _event(result: SimResult, chip: int, track: int, start: int, end: int, row: int,
           count: int) -> dict[str, Any]:
    ops, log = result.program.ops, result.log
    op, layer, pc = int(log.op[row]), int(log.layer[row]), int(log.pc[row])
    us = result.tick_ps / 10**6
    return {
        "ph": "X", "pid": chip, "tid": track,
        "name": ops[op] if op < len(ops) else log.queues[log.queue[row]],
        "ts": float(start * us), "dur": float((end - start) * us),
        "args": {"layer": layer, "pc": pc, "executions": count},
    }


def write_trace(result: SimResult, path: Path, *, most: int = MOST_SLICES) -> None:
    """Write the trace to `path`, compressed; the same result gives the same bytes."""
    text = json.dumps(trace(result, most=most), separators=(",", ":"), sort_keys=True)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
