"""LUT Tensor Core (arXiv 2408.06003): the published areas of its arrays beside ours.

Ours are sums of rows of ``machine/tables/area.csv``: units, and the register of tables with the
adders in front of it where the array makes the tables. Control and output queue, which are the
harness's, are left out for every design alike. What compares are ratios: the processes differ.
"""

import tomllib
from importlib.resources import files
from typing import Any

from archsim.studies.tables import Study, measured
from machine.area import area_table

__all__ = ["TABLES", "ablation", "accumulators", "needed", "shapes", "weight_bits"]

TARGETS = ("osu018", "sky130")
ROWS = 2  # of every register of tables that was synthesised
_UNITS = {"lut": "", "mac": "unit=mac", "add": "unit=add"}
_WIDTHS = {8: ("", "int11"), 16: ("a_bits=16", "int19")}


def _published() -> dict[str, Any]:
    text = files("archsim").joinpath("studies/lut_tensor_core.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def ablation() -> list[Study]:
    """Return Table 2 with ours beside it, a study for each width of the sums and each library."""
    facts = _published()["ablation"]
    return [_ablation(facts, acc_bits, target) for acc_bits in (32, 16) for target in TARGETS]


def _ablation(facts: dict[str, Any], acc_bits: int, target: str) -> Study:
    areas, energies, shares = [], [], []
    units = facts["rows"] * facts["columns"]
    for step in facts["steps"]:
        given = f"{step['parameters']} w_bits=2"
        wide = "" if acc_bits == 32 else f"acc_bits={acc_bits}"
        unit = measured("lut_unit", target, given, wide)
        tables = measured("lut_tables", target, given)
        areas.append(units * _area(unit) + _area(tables))
        shares.append(_area(tables) / areas[-1])
        if unit.energy_pj is not None and tables.energy_pj is not None:
            energies.append(units * unit.energy_pj + tables.energy_pj)
    published = facts["published_density"]
    rows = []
    for index, step in enumerate(facts["steps"]):
        density = areas[0] / areas[index]
        want = published[index] if index < len(published) else None
        row = {
            "array": step["name"], "published": want, "ours": round(density, 3),
            "deviation": None if want is None else round(density / want - 1, 3),
            "area_um2": round(areas[index], 1), "tables": f"{shares[index]:.1%}",
        }
        if energies:
            efficiencies = facts["published_efficiency"]
            row["published_efficiency"] = efficiencies[index] if index < len(published) else None
            row["our_efficiency"] = round(energies[0] / energies[index], 3)
        rows.append(row)
    title = f"Table 2: density at W2 A8, M2 N64 K4, sums of {acc_bits} bits, {target}"
    return Study(title, rows, _ablation_notes(rows, facts["tolerance"]))


def _ablation_notes(rows: list[dict[str, Any]], tolerance: float) -> list[str]:
    """Say whether ours keeps the order and the tolerance, and where the differences come from."""
    compared = [row for row in rows if row["published"] is not None]
    ours = [row["ours"] for row in compared]
    outside = [row["array"] for row in compared if abs(row["deviation"]) > tolerance]
    order = "as published" if ours == sorted(set(ours)) else "not as published"
    return [
        f"order of the densities: {order}; within {tolerance:.0%}: "
        + ("all" if not outside else f"all but {', '.join(outside)}"),
        ("The accumulators, the same in all, dilute every step: compare 32 with 16 bits. Our unit "
        "folds negation into the carry of its adder, so eliminating the inverted index saves "
        "little. The adders that make tables serve 64 columns, so moving them out saves little."),
    ]


def _area(row: Any) -> float:
    return float(row.area_um2)


def weight_bits() -> list[Study]:
    """Return areas at equal throughput over weight bits, a study for each width and library."""
    return [_weight_bits(a_bits, target) for a_bits in _WIDTHS for target in TARGETS]


def _array(unit: str, a_bits: int, w_bits: int, target: str) -> float:
    """Return the area of an M2 N64 K4 array times the cycles it takes for one weight."""
    width, fmt = _WIDTHS[a_bits]
    kind = f"tables.format={fmt}" if unit == "lut" else _UNITS[unit]
    register = kind if unit == "lut" else _UNITS["mac"]  # both others hold the activations
    one = 2 * 64 * _area(measured("lut_unit", target, width, kind, f"w_bits={w_bits}"))
    cycles = 1 if unit == "mac" else w_bits
    return cycles * (one + _area(measured("lut_tables", target, width, register)))


def _weight_bits(a_bits: int, target: str) -> Study:
    rows = []
    widest = _array("mac", a_bits, 8, target)
    for w_bits in range(1, 9):
        of = {unit: _array(unit, a_bits, w_bits, target) for unit in _UNITS}
        smallest = min(of, key=lambda unit: of[unit])
        rows.append({"weight_bits": w_bits,
                     **{f"{unit}_um2": round(area, 1) for unit, area in of.items()},
                     "mac_8_um2": round(widest, 1), "smallest": smallest,
                     "lut_over_mac": round(of["lut"] / of["mac"], 3),
                     "lut_over_mac_8": round(of["lut"] / widest, 3)})
    facts = _published()["weight_bits"]
    notes = [
        (f"lut up to: {_up_to(rows, 'lut_um2', 'mac_8_um2')} bits against a multiplier of 8-bit "
        f"weights, dequantised first (published, FP16: {facts['published_lut_up_to']}); "
        f"{_up_to(rows, 'lut_um2', 'mac_um2')} against one of the weight's own bits"),
        (f"add up to: {_up_to(rows, 'add_um2', 'mac_8_um2')} bits (published, FP16: "
        f"{facts['published_add_up_to']}); {_up_to(rows, 'add_um2', 'mac_um2')} against one of "
        "the weight's own bits"),
        "Integer activations: a multiplier of floats is larger beside a table than these are.",
    ]
    return Study(f"Area at equal throughput, A{a_bits} integers, M2 N64 K4, {target}", rows, notes)


def _up_to(rows: list[dict[str, Any]], name: str, other: str) -> int:
    """Return the most weight bits up to which `name` is never larger than `other`; 0: for none."""
    most = 0
    for row in rows:
        if row[name] > row[other]:
            break
        most = row["weight_bits"]
    return most


def shapes() -> list[Study]:
    """Return areas of arrays of a product of 512 over M and K, a study for each library."""
    return [_shapes(target) for target in TARGETS]


def _shapes(target: str) -> Study:
    facts = _published()["shapes"]
    rows = []
    for k, fmt in facts["formats"].items():
        form = f"tables.format={fmt}"
        width = "" if k == "4" else f"k={k}"
        unit = _area(measured("lut_unit", target, form, width, "w_bits=2"))
        row_of_tables = _area(measured("lut_tables", target, form, width)) / ROWS
        for m in (1, 2, 4, 8, 16):
            columns = facts["product"] / (m * int(k))
            area = m * columns * unit + m * row_of_tables
            rows.append({"m": m, "n": round(columns, 1), "k": int(k), "area_um2": round(area, 1),
                         "units_um2": round(m * columns * unit, 1),
                         "bits_in_a_cycle": round(columns * int(k) + m * int(k) * 8 / 2, 1)})
    least = min(rows, key=lambda row: row["area_um2"])
    chosen = facts["published"]
    notes = [
        (f"least area: M{least['m']} N{least['n']:g} K{least['k']} (published choice: "
        f"M{chosen['m']} N{chosen['n']} K{chosen['k']})"),
        ("W2 A8, exact tables. A number of columns that is not whole stands for arrays of the next "
        "sizes, scaled. Bits a cycle: planes of weights, and 8-bit activations every 2 cycles; "
        "wires and the registers of weights, which the paper counts, are not in the area."),
    ]
    return Study(f"Area of M x N x K = {facts['product']}, {target}", rows, notes)


def accumulators() -> list[Study]:
    """Return elements' areas by format and accumulator, a study for each library."""
    return [_accumulators(target) for target in TARGETS]


def _accumulators(target: str) -> Study:
    rows, absent = [], []
    elements = _published()["accumulators"]["elements"]
    integer = _area(measured("pe", target, elements[0]["parameters"]))
    for element in elements:
        found = area_table().get(("pe", element["parameters"], target))
        if found is None:
            absent.append(element["name"])
        size = None if found is None else _area(found)
        rows.append({"element": element["name"], "area_um2": size,
                     "over_int8": None if size is None else round(size / integer, 3)})
    notes = ["published order: INT8 < FP8 Kulisch < FP8 FP32; ours: " + " < ".join(
        row["element"] for row in sorted(rows[:3], key=lambda row: row["area_um2"] or 0.0)
        if row["area_um2"] is not None)]
    notes.append("E4M3 multiplies 4 by 4 bits of significand, an integer element 8 by 8; both hold "
                 "weights and pass data on alike. The masked float element has one more bit.")
    if absent:
        notes.append(f"not measured: {', '.join(absent)}")
    return Study(f"Multiply-accumulate elements by accumulator, {target}", rows, notes)


TABLES = {"2": ablation, "weight-bits": weight_bits, "shapes": shapes,
          "accumulators": accumulators}


def needed() -> list[tuple[str, str]]:
    """Return (design, parameters) of every row of the table of gates that the studies read."""
    asked = []
    steps = [step["parameters"] for step in _published()["ablation"]["steps"]]
    for step in steps:
        asked += [("lut_unit", f"{step} w_bits=2"), ("lut_unit", f"{step} w_bits=2 acc_bits=16"),
                  ("lut_tables", f"{step} w_bits=2")]
    for width, fmt in _WIDTHS.values():
        for kind in (f"tables.format={fmt}", "unit=mac", "unit=add"):
            asked += [("lut_unit", f"{width} {kind} w_bits={bits}") for bits in range(1, 9)]
        asked += [("lut_tables", f"{width} {kind}")
                  for kind in (f"tables.format={fmt}", "unit=mac")]
    for k, fmt in _published()["shapes"]["formats"].items():
        width = "" if k == "4" else f"k={k}"
        asked += [("lut_unit", f"{width} tables.format={fmt} w_bits=2"),
                  ("lut_tables", f"{width} tables.format={fmt}")]
    return [(design, " ".join(sorted(text.split()))) for design, text in dict.fromkeys(asked)]
