"""The designs that are synthesised: by name, from parameters to components."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from amaranth.lib import wiring

from hw.activity import Count, Every, Pulse, Stimulus
from hw.lut import Lut, TableRegister, unit_of
from hw.pe import CONTROL, Element
from hw.systolic import Systolic, array_parts
from machine.lut import LutConfig
from machine.systolic import SystolicConfig

__all__ = ["DESIGNS", "Design"]

Parts = list[tuple[str, wiring.Component]]


@dataclass(frozen=True)
class Design:
    """A kind of design, from parameters to components.

    `parts` returns modules by name, the top last; equal parts are emitted once and instantiated.
    `stimulus` is what the ports do in the cycles whose energy is measured; without it none is.
    """

    config: type
    parts: Callable[[Any], Parts]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    stimulus: Callable[[Any], Stimulus | None] | None = None


def _systolic(cfg: SystolicConfig) -> Parts:
    return [*array_parts(cfg, "systolic"), ("systolic", Systolic(cfg, library="systolic"))]


def _pe_at_work(cfg: SystolicConfig) -> Stimulus | None:
    """Multiply by the held weight and add to the sum from above, every cycle.

    None for an element that cannot every cycle, and for a masked one: random activations would
    count in half of the cycles.
    """
    if cfg.pe.fixed.masked or cfg.initiation_interval_cycles != 1:
        return None
    multiply = CONTROL.const({"mac": 1}).as_value().value
    return {"rst": 0, "en": 1, "control": multiply, "weight": Every(0)}


def _unit_at_work(cfg: LutConfig) -> Stimulus:
    """Look up or multiply every cycle; a new row comes when all planes of the last are through."""
    planes = cfg.beats_of(cfg.w_bits)
    return {"rst": 0, "look": 1, "add": 1, "first": 0, "plane": Count(planes),
            "last": Pulse(planes), "row": Every(planes)}


def _tables_at_work(cfg: LutConfig) -> Stimulus:
    """Take a new row whenever the units are through with the last."""
    planes = cfg.beats_of(cfg.w_bits)
    return {"rst": 0, "load": Pulse(planes), "beat": Every(planes)}


DESIGNS: dict[str, Design] = {
    "pe": Design(SystolicConfig, lambda cfg: [("pe", Element(cfg))],
                 {"rows": 1, "cols": 1, "acc_rows": 0}, _pe_at_work),
    "systolic": Design(SystolicConfig, _systolic, {"rows": 8, "cols": 8}),
    "lut_unit": Design(LutConfig, lambda cfg: [("lut_unit", unit_of(cfg)(cfg))], {}, _unit_at_work),
    "lut_tables": Design(LutConfig, lambda cfg: [("lut_tables", TableRegister(cfg))], {},
                         _tables_at_work),
    "lut": Design(LutConfig, lambda cfg: [("lut_unit", unit_of(cfg)(cfg)),
                                          ("lut", Lut(cfg, library="lut"))]),
}
