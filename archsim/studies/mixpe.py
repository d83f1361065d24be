"""MixPE (arXiv 2411.16158): elements without a multiplier beside INT8 and FP16 ones.

Ours are rows of ``machine/tables/area.csv``, whole elements of our array in both dataflows. Both
elements of a pair make the same sums of 4-bit weights: MixPE of the codes, scaled once a group; the
baseline of weights dequantised to its own format before. What compares are ratios: the processes
differ. The paper's areas were not released; the power of its elements was, in the simulator.
"""

import tomllib
from importlib.resources import files
from typing import Any

from archsim.studies.tables import Study, measured
from machine.area import AreaRow, area_table

__all__ = ["TABLES", "elements", "luts", "needed"]

TARGETS = ("osu018", "sky130")
FPGAS = ("ecp5-nodsp", "xcup-nodsp")


def _facts() -> dict[str, Any]:
    text = files("archsim").joinpath("studies/mixpe.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _sides(pair: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the elements of a `pair`, the baseline first."""
    return [pair["baseline"], *([pair["between"]] if "between" in pair else []), pair["mixpe"]]


def elements() -> list[Study]:
    """Return area, delay and energy of each pair, a study for each library."""
    facts = _facts()
    return [_pair(facts["facts"], pair, target) for pair in facts["pairs"] for target in TARGETS]


def _pair(facts: dict[str, Any], pair: dict[str, Any], target: str) -> Study:
    group, powers = facts["group"], facts["dynamic_nw"]
    base = measured("pe", target, pair["baseline"]["parameters"])
    rows = []
    for side in _sides(pair):
        row = measured("pe", target, side["parameters"])
        want = powers[side["row"]] / powers[pair["baseline"]["row"]] if "row" in side else None
        of = {"area": _ratio(row.area_um2, base.area_um2),
              "delay": _ratio(row.delay_ps, base.delay_ps),
              "energy": _ratio(row.energy_pj, base.energy_pj)}
        rows.append({
            "element": side["name"], "area_um2": row.area_um2, "area": of["area"],
            "delay_ps": row.delay_ps, "delay": of["delay"], "energy_pj": row.energy_pj,
            "energy": of["energy"], "published_energy": None if want is None else round(want, 3),
            # For a multiply-accumulate, if no weight is used twice; what takes the codes is scaled
            # once a group.
            "scalings": 1 if side is pair["baseline"] else round(1 / group, 4),
        })
    return Study(f"{pair['name']}, {target}", rows, _notes(rows[-1], rows[0], pair, facts))


def _ratio(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else round(value / base, 3)


def _notes(mixpe: dict[str, Any], base: dict[str, Any], pair: dict[str, Any],
           facts: dict[str, Any]) -> list[str]:
    """Say what ours gains, whether the published ratio is kept, and why not."""
    notes = [(f"area of {mixpe['element']} over {base['element']}: {mixpe['area']} "
              "(published: none, the simulator's areas are placeholders)")]
    ours, want = mixpe["energy"], mixpe["published_energy"]
    if ours is None:
        notes.append(f"energy: published {want}, ours not measured: no energies in the library, or "
                     "random codes would not count in half of the cycles (masked floats)")
    else:
        kept = abs(ours / want - 1) <= facts["tolerance"]
        notes.append(f"energy: published {want}, ours {ours}: "
                     f"{'within' if kept else 'outside'} {facts['tolerance']:.0%}")
        if pair["mixpe"]["row"] == pair["baseline"]["row"]:
            notes.append("The simulator has one row of power for both elements and gains by "
                         "products a cycle and by the larger array; ours is the element alone.")
    notes.append(f"scalings a multiply-accumulate: 1 of {facts['group']} after the group's sum, or "
                 "1 a weight before; what scales is no part of an element and not in the area")
    return notes


def luts() -> list[Study]:
    """Return lookup tables and registers of the integer pair on FPGAs without multiplier blocks."""
    pair = _facts()["pairs"][0]
    studies = []
    for target in FPGAS:
        rows: list[dict[str, Any]] = []
        for side in _sides(pair):
            row = measured("pe", target, side["parameters"])
            base = rows[0]["lut"] if rows else row.lut
            rows.append({"element": side["name"], "lut": row.lut, "carry": row.carry, "ff": row.ff,
                         "luts_over_int8": _ratio(row.lut, base)})
        notes = ["published: nothing for FPGAs; beside a multiplier block MixPE saves the block"]
        studies.append(Study(f"{pair['name']}, {target}", rows, notes))
    return studies


TABLES = {"elements": elements, "luts": luts}


def needed() -> list[AreaRow | None]:
    """Return every row of the table of gates that the studies read; None where one is missing."""
    pairs = _facts()["pairs"]
    asked = [(side["parameters"], target) for pair in pairs for side in _sides(pair)
             for target in TARGETS]
    asked += [(side["parameters"], target) for side in _sides(pairs[0]) for target in FPGAS]
    return [area_table().get(("pe", parameters, target)) for parameters, target in asked]
