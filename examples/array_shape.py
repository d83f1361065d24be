"""Which array shape, and how much bandwidth, for prefill and for decode?

Sweeps rows x columns of the arrays and the number of DRAM channels of ``npu-hbm2``, simulates one
decode step and one prefill of a model on each machine in a process pool, and writes ``run.json``
(what was asked for), ``points.csv``, ``pareto.csv`` and ``pareto.svg`` into a directory. A point
is on the front if no other is at least as fast with no more multipliers and no more channels.

    python examples/array_shape.py --output runs/array_shape
"""

import argparse
import csv
import json
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass, fields
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

from archsim.job import make_phase, prepare_model, run_job
from machine.load import config_hash, read_machine
from mapping.fit import DoesNotFit

MACHINE = "npu-hbm2"
SHAPES = ((32, 32), (64, 64), (32, 128), (128, 32), (128, 128))
CHANNELS = (8, 16, 32)
PHASES = {"decode": (16, 1, 256), "prefill": (1, 128, 1)}  # batch, tokens, keys


@dataclass(frozen=True, slots=True)
class Point:
    """One machine in one phase; `tokens_per_s` is 0 where the model does not fit."""

    phase: str
    rows: int
    cols: int
    channels: int
    multipliers: int
    tokens_per_s: float
    time_over_bound: float
    note: str


def evaluate(task: tuple[str, str, int, int, int, int]) -> Point:
    """Simulate one point; `task` is model, phase, rows, cols, channels and seed."""
    model, phase, rows, cols, channels, seed = task
    overrides = [f"arrays.0.rows={rows}", f"arrays.0.cols={cols}", f"dram.channels={channels}"]
    job = prepare_model(model, MACHINE, make_phase(phase, *PHASES[phase]),
                        overrides=overrides, seed=seed)
    if isinstance(job, DoesNotFit):
        return Point(phase, rows, cols, channels, 0, 0.0, 0.0, job.sentence)
    outcome = run_job(job)
    assert outcome.result is not None
    multipliers = rows * cols * job.machine.arrays[0].count
    return Point(phase, rows, cols, channels, multipliers, job.tokens / outcome.result.seconds,
                 outcome.result.ticks / outcome.bound.ticks, "")


def sweep(model: str, shapes: tuple[tuple[int, int], ...], channels: tuple[int, ...], seed: int,
          jobs: int) -> list[Point]:
    """Evaluate every point, in an order shuffled by `seed` so that workers share long ones."""
    tasks = [(model, phase, rows, cols, count, seed)
             for phase in PHASES for rows, cols in shapes for count in channels]
    order = list(range(len(tasks)))
    random.Random(seed).shuffle(order)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(evaluate, [tasks[i] for i in order]))
    return [point for _, point in sorted(zip(order, found, strict=True), key=lambda p: p[0])]


def front(points: list[Point]) -> list[Point]:
    """Return the points that no other of the same phase dominates."""
    def dominates(a: Point, b: Point) -> bool:
        no_worse = (a.tokens_per_s >= b.tokens_per_s and a.multipliers <= b.multipliers
                    and a.channels <= b.channels)
        better = (a.tokens_per_s > b.tokens_per_s or a.multipliers < b.multipliers
                  or a.channels < b.channels)
        return no_worse and better

    alive = [p for p in points if p.tokens_per_s > 0]
    return [p for p in alive if not any(q.phase == p.phase and dominates(q, p) for q in alive)]


def write_csv(points: list[Point], path: Path) -> None:
    """Write one row a point."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(f.name for f in fields(Point))
        writer.writerows(astuple(p) for p in points)


def plot(points: list[Point], best: list[Point], path: Path) -> None:
    """Draw throughput against multipliers: a panel a phase, a line a number of channels."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    counts = sorted({p.channels for p in points})
    styles = dict(zip(counts, (("#0072B2", "o"), ("#E69F00", "s"), ("#009E73", "^")), strict=False))
    for i, phase in enumerate(PHASES):
        axes = figure.add_subplot(1, len(PHASES), i + 1)
        for count in counts:
            mine = [p for p in points if (p.phase, p.channels) == (phase, count) and p.multipliers]
            axes.scatter([p.multipliers for p in mine], [p.tokens_per_s for p in mine], s=28,
                         color=styles[count][0], marker=styles[count][1], label=f"{count} channels")
        chosen = [p for p in best if p.phase == phase]
        axes.scatter([p.multipliers for p in chosen], [p.tokens_per_s for p in chosen], s=130,
                     facecolors="none", edgecolors="black", linewidths=0.8, label="Pareto front")
        # One label a shape, at the fastest of its points.
        ascending = sorted(chosen, key=lambda p: p.tokens_per_s)
        for p in {(p.rows, p.cols): p for p in ascending}.values():
            axes.annotate(f"{p.rows}x{p.cols}", (p.multipliers, p.tokens_per_s), fontsize=8,
                          textcoords="offset points", xytext=(0, 9), ha="center")
        axes.set(title=phase, xlabel="multipliers", ylabel="tokens/s")
        axes.set_xscale("log", base=2)
        axes.margins(0.12)
        fastest = max((p.tokens_per_s for p in points if p.phase == phase), default=1)
        axes.set_ylim(0, 1.12 * fastest)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, loc="lower right")
    with matplotlib.rc_context({"svg.hashsalt": "archsim"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, sweep, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="opt-125m")
    parser.add_argument("--output", type=Path, default=Path("runs/array_shape"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="use the first N shapes")
    parser.add_argument("--channels", type=int, default=len(CHANNELS), help="use the first N")
    given = parser.parse_args(arguments)
    points = sweep(given.model, SHAPES[: given.shapes], CHANNELS[: given.channels], given.seed,
                   given.jobs)
    best = front(points)
    given.output.mkdir(parents=True, exist_ok=True)
    asked = {
        "version": version("archsim"), "model": Path(given.model).name, "machine": MACHINE,
        "config_sha256": config_hash(read_machine(MACHINE)), "seed": given.seed,
        "phases": PHASES, "shapes": SHAPES[: given.shapes], "channels": CHANNELS[: given.channels],
    }
    (given.output / "run.json").write_text(json.dumps(asked, indent=1, sort_keys=True) + "\n")
    write_csv(points, given.output / "points.csv")
    write_csv(best, given.output / "pareto.csv")
    plot(points, best, given.output / "pareto.svg")
    for p in best:
        print(f"{p.phase:8} {p.rows}x{p.cols} x{p.multipliers // p.rows // p.cols}, "
              f"{p.channels} channels: {p.tokens_per_s:,.0f} tokens/s, "
              f"{p.time_over_bound:.2f} x bound")


if __name__ == "__main__":
    main()
