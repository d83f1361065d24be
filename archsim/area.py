"""Area of a machine at a process node, and energy of its elements: measured gates, brought there.

Numbers are those of ``machine/tables/area.csv`` (`archsim synth`), times the factors of
`machine.scaling`. A part without a measured design has no area: its row says ``not modelled``.
"""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from machine.area import AreaRow, area_table
from machine.chip import Machine
from machine.errors import must_be
from machine.scaling import SOURCE, area_factor, energy_factor
from machine.systolic import SystolicConfig

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["AreaEstimate", "area", "area_report", "area_tables", "element_energy",
           "element_parameters"]

NOT_MODELLED = "not modelled"
NODE_NM, VOLTS = 28, 0.9  # of the papers' designs: TSMC 28 nm, typical, 0.9 V (arXiv 2408.06003)
AREA_TARGET, AREA_NM = "sky130", 130  # of the two libraries the one with sizes of a real process
ENERGY_TARGET, ENERGY_NM, ENERGY_VOLTS = "osu018", 180, 1.8  # the one with energies


@dataclass(frozen=True)
class AreaEstimate:
    """The area of one component; None where it is not modelled."""

    component: str
    count: int
    unit: str
    area_um2: float | None
    source: str

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain data; what is not modelled says so."""
        row = dataclasses.asdict(self)
        return {**row, "area_um2": NOT_MODELLED if self.area_um2 is None else self.area_um2}


def element_parameters(cfg: SystolicConfig) -> str:
    """Return the parameters under which an element of `cfg` is in the table of gates."""
    plain = SystolicConfig(rows=1, cols=1)
    given = []
    for name in ("a_bits", "w_bits", "acc_bits"):
        if getattr(cfg, name) != getattr(plain, name):
            given.append(f"{name}={getattr(cfg, name)}")
    if set(cfg.dataflows) != set(plain.dataflows):
        listed = ",".join(f'"{flow}"' for flow in cfg.dataflows)
        given.append(f"dataflows=[{listed}]")
    for field in dataclasses.fields(cfg.pe):
        value = getattr(cfg.pe, field.name)
        if value != getattr(plain.pe, field.name):
            given.append(f"pe.{field.name}={value}")
    return " ".join(sorted(given))


def _element(cfg: Any, target: str) -> AreaRow | None:
    """Return the measured element of an array; None where none was measured."""
    if not isinstance(cfg, SystolicConfig):
        return None
    return area_table().get(("pe", element_parameters(cfg), target))


def _named(row: AreaRow, from_nm: int, to: str) -> str:
    which = " ".join(filter(None, (row.design, row.parameters, row.target)))
    return f"machine/tables/area.csv, {which}: {row.source}; {from_nm} nm {SOURCE} to {to}"


def element_energy(cfg: Any) -> tuple[float, str] | None:
    """Return the energy of an array's multiply-accumulate in pJ at 28 nm and 0.9 V, and its source.

    It is the switching of the mapped netlist under random operands, without glitches and wires
    (`hw.activity`). None where no such element was measured.
    """
    row = _element(cfg, ENERGY_TARGET)
    if row is None or row.energy_pj is None:
        return None
    factor = energy_factor(ENERGY_NM, ENERGY_VOLTS, NODE_NM, VOLTS)
    return row.energy_pj * factor, _named(row, ENERGY_NM, f"{NODE_NM} nm and {VOLTS} V")


def area(machine: Machine, node_nm: float = NODE_NM) -> list[AreaEstimate]:
    """Return the area of one chip's components; raises `UserError` for a node off the table."""
    try:
        factor = area_factor(AREA_NM, node_nm)
    except ValueError as error:
        raise must_be("--node", str(error).partition("must be ")[2].partition(", not")[0],
                      node_nm) from None
    rows = []
    for cfg in machine.arrays:
        row = _element(cfg, AREA_TARGET)
        if isinstance(cfg, SystolicConfig):
            count = cfg.count * cfg.rows * cfg.cols
            if row is not None and row.area_um2 is not None:
                rows.append(AreaEstimate(f"{cfg.name}: elements", count, "element",
                                         count * row.area_um2 * factor,
                                         _named(row, AREA_NM, f"{node_nm:g} nm")))
            else:
                rows.append(AreaEstimate(f"{cfg.name}: elements", count, "element", None,
                                         NOT_MODELLED))
        rows.append(AreaEstimate(f"{cfg.name}: the rest", cfg.count, "array", None, NOT_MODELLED))
    for name, size in (("scratchpad", machine.scratchpad.bytes),
                       ("accumulator", machine.accumulator.bytes)):
        rows.append(AreaEstimate(name, size, "byte", None, NOT_MODELLED))
    vectors = sum(cfg.count for cfg in machine.vectors)
    rows.append(AreaEstimate("vector", vectors, "unit", None, NOT_MODELLED))
    return rows


def area_report(rows: list[AreaEstimate]) -> list[dict[str, Any]]:
    """Return `rows` as plain data."""
    return [row.to_dict() for row in rows]


def area_tables(rows: list[AreaEstimate]) -> "list[Table | str]":
    """Return `rows` as a table for a terminal, with the sources under it."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name, justify in (("component", "left"), ("count", "right"), ("unit", "left"),
                          ("mm2", "right")):
        table.add_column(name, justify="right" if justify == "right" else "left")
    for row in rows:
        size = NOT_MODELLED if row.area_um2 is None else f"{row.area_um2 / 1e6:.4g}"
        table.add_row(row.component, f"{row.count:,}", row.unit, size)
    sources = dict.fromkeys(row.source for row in rows if row.area_um2 is not None)
    return [table, *sources, "cells without wires, at full density; a placed design is larger"]
