"""Energy of a run: counts times sourced numbers, static and dynamic apart.

DRAM commands and standby come from the machine's currents (`machine.dram`), multiply-accumulates of
an array whose element was synthesised from that (`archsim.area`), everything else from
``machine/tables/energy.csv``, whose every row names its source. A component without a sourced
number has no energy: its row says ``not modelled``, and no total counts it.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from archsim.area import NODE_NM, element_energy
from archsim.lut import LOOKUP_BITS
from archsim.pim_books import pim_energies
from archsim.result import SimResult
from machine.buffer import BufferConfig
from machine.opcodes import Opcode
from machine.program import Space
from machine.systolic import SystolicConfig

__all__ = ["NOT_MODELLED", "EnergyRow", "TableRow", "energy", "energy_table"]

NOT_MODELLED = "not modelled"
_CURRENTS = "IDD currents of the machine's dram.power"


@dataclass(frozen=True)
class TableRow:
    """One sourced number."""

    component: str
    operation: str
    value_pj: float
    unit: str
    node_nm: int | None
    source: str


@dataclass(frozen=True)
class EnergyRow:
    """The energy of one component's operation; None where it is not modelled."""

    component: str
    operation: str
    kind: str  # "dynamic" or "static"
    count: float | None  # of `unit`
    unit: str
    energy_pj: float | None
    source: str

    @staticmethod
    def columns() -> tuple[str, ...]:
        """The names of `cells`."""
        return "component", "operation", "kind", "count", "unit", "energy_pj", "source"

    def cells(self) -> tuple[str, ...]:
        """Return the row as text; what is not modelled says so."""
        values = self.to_dict()
        return tuple(_text(values[name]) for name in self.columns())

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain data; what is not modelled says so."""
        values = {name: getattr(self, name) for name in self.columns()}
        if self.energy_pj is None:
            values["energy_pj"] = NOT_MODELLED
        return values


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def energy_table() -> dict[tuple[str, str], TableRow]:
    """Return ``machine/tables/energy.csv`` by component and operation."""
    text = files("machine").joinpath("tables/energy.csv").read_text(encoding="utf-8")
    rows = [
        TableRow(row["component"], row["operation"], float(row["value_pj"]), row["unit"],
                 int(row["node_nm"]) if row["node_nm"] else None, row["source"])
        for row in csv.DictReader(text.splitlines())
    ]
    return {(row.component, row.operation): row for row in rows}


def energy(result: SimResult) -> list[EnergyRow]:
    """Return the energy of every component of all chips, dynamic rows before static ones."""
    table = energy_table()
    return [*_units(result, table), *_buffers(result, table), *_dram(result, table),
            *_pim(result), *_static(result, table)]


def _sourced(row: TableRow, component: str, kind: str, count: float) -> EnergyRow:
    return EnergyRow(component, row.operation, kind, count, row.unit, count * row.value_pj,
                     row.source)


def _absent(component: str, operation: str, kind: str, count: float | None = None,
            unit: str = "") -> EnergyRow:
    return EnergyRow(component, operation, kind, count, unit, None, NOT_MODELLED)


def _units(result: SimResult, table: dict[tuple[str, str], TableRow]) -> Iterator[EnergyRow]:
    """Arrays, vector units, crossbar, links and sequencers."""
    work = result.work
    narrow = sum(w.macs(up_to_bits=8) for w in work)
    wide = sum(w.macs(above_bits=8, up_to_bits=16) for w in work)
    rest = sum(w.macs(above_bits=16, up_to_bits=LOOKUP_BITS - 1) for w in work)
    looked_up = sum(w.macs(above_bits=LOOKUP_BITS - 1) for w in work)
    yield _narrow_macs(result, table["array", "mac of 8 bits"], narrow)
    yield _sourced(table["array", "mac of 16 bits"], "array", "dynamic", wide)
    if rest:
        yield _absent("array", "mac above 16 bits", "dynamic", rest, "mac")
    if looked_up:
        yield _absent("array", "plane looked up", "dynamic", looked_up, "mac of one bit")
    yield _absent("vector", "operation", "dynamic", sum(w.elements for w in work), "element")
    moved = sum(w.moved_bytes(Opcode.LOAD, Opcode.STORE) for w in work)
    yield _absent("crossbar", "transfer", "dynamic", moved, "byte")
    if result.machine.links is not None:
        sent = sum(w.moved_bytes(Opcode.SEND) for w in work)
        yield _sourced(table["link", "transfer"], "link", "dynamic", sent)
    yield _absent("sequencer", "issue", "dynamic", len(result.log), "instruction")


def _narrow_macs(result: SimResult, row: TableRow, count: float) -> EnergyRow:
    """Multiply-accumulates of up to 8 bits: by the machine's own element where it was measured."""
    found = {element_energy(cfg) for cfg in result.machine.arrays}
    own = found.pop() if len(found) == 1 else None
    if own is None or row.node_nm != NODE_NM:
        return _sourced(row, "array", "dynamic", count)
    value_pj, source = own
    return EnergyRow("array", row.operation, "dynamic", count, row.unit, count * value_pj, source)


def _buffers(result: SimResult, table: dict[tuple[str, str], TableRow]) -> Iterator[EnergyRow]:
    """Words of the buffers' ports."""
    for space, cfg in _spaces(result):
        for write, operation in ((False, "read"), (True, "write")):
            words = sum(
                count
                for work in result.work
                for (_, of, written), count in work.words().items()
                if of is space and written is write
            )
            yield _sourced(table["buffer", operation], space.name.lower(), "dynamic",
                           words * cfg.word_bytes)


def _spaces(result: SimResult) -> Iterator[tuple[Space, BufferConfig]]:
    yield Space.SCRATCHPAD, result.machine.scratchpad
    yield Space.ACCUMULATOR, result.machine.accumulator


def _dram(result: SimResult, table: dict[tuple[str, str], TableRow]) -> Iterator[EnergyRow]:
    """Commands by the machine's currents, and the interface."""
    for operation, field, counter in (
        ("activate", "activate_pj", "activates"), ("read", "read_pj", "reads"),
        ("write", "write_pj", "writes"), ("refresh", "refresh_pj", "refreshes"),
    ):
        count = sum(getattr(one, counter) for one in result.dram)
        parts = [getattr(one, field) for one in result.dram_energy]
        if None in parts:
            yield _absent("dram", operation, "dynamic", count, "command")
        else:
            yield EnergyRow("dram", operation, "dynamic", count, "command", sum(parts), _CURRENTS)
    bursts = sum(one.reads + one.writes for one in result.dram)
    yield _sourced(table["dram", "interface"], "dram", "dynamic",
                   bursts * result.machine.dram.burst_bytes)


def _pim(result: SimResult) -> Iterator[EnergyRow]:
    """Commands of memory that computes."""
    pim, dram = result.machine.pim, result.machine.dram
    if pim is None:
        return
    every = [channel for channels in result.pim for channel in channels]
    for operation, count, unit, energy_pj, source in pim_energies(every, dram, pim):
        if energy_pj is None:
            yield _absent("pim", operation, "dynamic", count, unit)
        else:
            yield EnergyRow("pim", operation, "dynamic", count, unit, energy_pj, source)


def _static(result: SimResult, table: dict[tuple[str, str], TableRow]) -> Iterator[EnergyRow]:
    """Leakage and standby over the whole run."""
    machine, chips = result.machine, len(result.work)
    ns = float(result.ticks * result.tick_ps / 1000)
    systolic = [a for a in machine.arrays if isinstance(a, SystolicConfig)]
    elements = sum(a.count * a.rows * a.cols for a in systolic)
    yield _sourced(table["array", "leakage"], "array", "static", chips * elements * ns)
    if len(systolic) < len(machine.arrays):
        yield _absent("array", "leakage of lookup arrays", "static")
    if machine.pim is not None:
        yield _absent("pim", "second row buffers, vector buffers, units", "static")
    if machine.tables is not None:
        yield _absent("tables", "access and leakage", "static")
    yield _absent("vector", "leakage", "static")
    for space, cfg in _spaces(result):
        yield _sourced(table["buffer", "leakage"], space.name.lower(), "static",
                       chips * cfg.bytes * ns)
    standby = [one.standby_pj for one in result.dram_energy]
    cycles = sum(one.active_rank_cycles + one.precharged_rank_cycles for one in result.dram)
    if None in standby:
        yield _absent("dram", "standby", "static", cycles, "rank cycle")
    else:
        total = sum(one for one in standby if one is not None)
        yield EnergyRow("dram", "standby", "static", cycles, "rank cycle", total, _CURRENTS)
