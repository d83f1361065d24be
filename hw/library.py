"""A part of a design: expanded where it is used, or an instance of a module emitted once."""

from typing import Any

from amaranth.hdl import ClockSignal, Elaboratable, Instance, ResetSignal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

__all__ = ["part"]


def part(
    component: type[Any], cfg: Any, library: str | None
) -> tuple[wiring.PureInterface, Elaboratable]:
    """Return ports and elaboratable of a `component` of `cfg`, a type that has ``ports(cfg)``.

    Without `library` they are the component itself; with it, an instance of the Verilog module
    ``<library>_<component>``, so that equal parts are emitted once.
    """
    if library is None:
        expanded = component(cfg)
        return expanded, expanded
    ports = component.ports(cfg).create()
    wires = {"i_clk": ClockSignal(), "i_rst": ResetSignal()}
    for path, member, value in ports.signature.flatten(ports):
        side = "i" if member.flow is In else "o"
        wires[f"{side}_{'__'.join(path)}"] = value
    return ports, Instance(f"{library}_{component.__name__.lower()}", **wires)
