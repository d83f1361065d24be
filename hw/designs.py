"""The designs that are synthesised: by name, from parameters to components."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from amaranth.lib import wiring

from hw.pe import CONTROL, IntMac
from hw.systolic import Column, Systolic
from machine.systolic import SystolicConfig

__all__ = ["DESIGNS", "Design"]

Parts = list[tuple[str, wiring.Component]]


@dataclass(frozen=True)
class Design:
    """A kind of design.

    `parts` returns modules by name, the top last; equal parts are emitted once and instantiated.
    `held` are the ports that keep a value while energy is measured, the others are random in
    every cycle; `steady` of them keep a random value. `work` says what one cycle then does.
    """

    config: type
    parts: Callable[[Any], Parts]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)
    steady: tuple[str, ...] = ()
    work: str = ""


def _systolic(cfg: SystolicConfig) -> Parts:
    return [("systolic_intmac", IntMac(cfg)), ("systolic_column", Column(cfg, library="systolic")),
            ("systolic", Systolic(cfg, library="systolic"))]


_ONE = {"rows": 1, "cols": 1}
_MULTIPLY = CONTROL.const({"mac": 1}).as_value().value  # by the held weight, onto the sum from above

DESIGNS: dict[str, Design] = {
    "pe": Design(
        SystolicConfig, lambda cfg: [("pe", IntMac(cfg))], {**_ONE, "acc_rows": 0},
        held={"rst": 0, "en": 1, "control": _MULTIPLY}, steady=("weight",), work="mac"),
    "systolic": Design(SystolicConfig, _systolic, {"rows": 8, "cols": 8}),
}
