"""NeuPIMs (arXiv 2403.00579): what its scheduler takes a request to cost, and what it costs.

The scheduler's estimate (Algorithm 1, `mapping.pim`) decides which requests share a channel; the
channel is simulated command by command, alone, with refresh.
"""

import tomllib
from importlib.resources import files
from typing import Any

from archsim.pim import PimChannel, PimRun
from archsim.studies.tables import Study
from machine.chip import Machine
from machine.load import read_machine
from machine.pim_macros import PimOp, attend_ops, attend_shape, logit_ops, logit_shape
from mapping.pim import attention_cycles

__all__ = ["TABLES", "estimate", "request"]


def _facts() -> dict[str, Any]:
    text = files("archsim").joinpath("studies/neupims.toml").read_text(encoding="utf-8")
    return dict(tomllib.loads(text)["facts"])


def request(machine: Machine, *, heads: int, depth: int, length: int,
            first_row: int) -> list[PimOp]:
    """Return the PIM queue of q K and p V of one request, its cache from `first_row` on.

    Raises ``ValueError`` naming the numbers for what does not fit, or a machine without PIM.
    """
    dram, pim = machine.dram, machine.pim
    if pim is None:
        raise ValueError(f"pim must be given, {machine.name} has none")
    keys = logit_shape(dram, pim, heads=heads, depth=depth, length=length)
    values = attend_shape(dram, pim, depth=depth, length=length)
    row = first_row + keys.chunks * keys.tiles
    ops = logit_ops(dram, pim, keys, list(range(first_row, row)))
    each = values.chunks * values.tiles
    return ops + attend_ops(dram, pim, values, [
        list(range(row + head * each, row + (head + 1) * each)) for head in range(heads)])


def estimate() -> list[Study]:
    """Return estimate and simulated time by length, with two row buffers a bank and with one."""
    facts = _facts()
    shape = {name: facts[name] for name in ("heads", "depth")}
    rows: list[dict[str, Any]] = []
    runs: dict[tuple[int, int], PimRun] = {}
    for length in facts["lengths"]:
        row = {"tokens": length, "estimate": attention_cycles(length=length, **shape)}
        for buffers, name in ((2, "dual"), (1, "single")):
            machine = read_machine(facts["machine"], [f"pim.row_buffers={buffers}"])
            assert machine.pim is not None
            run = PimChannel(machine.dram, machine.pim).run(request(
                machine, length=length, first_row=facts["first_row"], **shape))
            runs[length, buffers] = run
            row |= {f"{name}": run.cycles,
                    f"{name}_gap_%": 100 * (row["estimate"] / run.cycles - 1)}
        rows.append(row)
    title = (f"one request of GPT3-7B, {facts['heads']} heads of {facts['depth']} in one channel: "
             "cycles")
    published = facts["published"]
    found = runs[published["length"], 2]
    dots = sum(max(c.dots, 1) for c in found.trace if c.command in ("DOT", "GEMV"))
    counts = {"gwrites": found.counts["GWRITE"], "activations": found.counts["GACT"],
              "dots": dots, "reads": found.counts["GEMV"] + found.counts["READRES"]}
    told = ", ".join(f"{name} {count} (published {published[name]})"
                     for name, count in counts.items())
    notes = [
        "gap: the estimate less the simulated time, in % of that",
        "the estimate knows no refresh, no precharge bank by bank and no filling of the units",
        (f"{published['length']} tokens, dual: {found.cycles} cycles, published "
         f"{published['cycles']}; {told}"),
    ]
    return [Study(title, rows, notes)]


TABLES = {"estimate": estimate}
