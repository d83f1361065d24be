# amaranth: UnusedElaboratable=no
"""The documented members of every hardware component are those of its signature."""

import importlib
import inspect
import re
from pathlib import Path
from typing import get_type_hints

import pytest
from amaranth.lib import wiring

from hw.chain import Wire
from hw.float_divide import RootStart
from hw.floats import decoded_shape
from machine.dram import DramConfig
from machine.floats import FloatConfig
from machine.formats import FORMATS
from machine.front_end import FrontEndConfig
from machine.group import GroupConfig
from machine.group_scale import GroupScaleConfig
from machine.load import read_machine
from machine.lut import LutConfig, TableConfig
from machine.lut_table import TableQuantiserConfig, TableUnitConfig
from machine.pim import BankUnitConfig, PimConfig
from machine.systolic import SystolicConfig
from machine.vector import ScaleRule
from machine.vector_core import VectorCoreConfig

ROOT = Path(__file__).parents[1]

# One example of each type of configuration, and of each other argument by its name.
NUMBER = decoded_shape(FORMATS["float16"], normalised=True)
CONFIGS = {
    FloatConfig: FloatConfig(operation="multiply_add"),
    GroupConfig: GroupConfig(cols=3),
    GroupScaleConfig: GroupScaleConfig(cols=3),
    SystolicConfig: SystolicConfig(rows=4, cols=3),
    LutConfig: LutConfig(m=2, n=3, tables=TableConfig(format="int11", precomputed=False)),
    TableQuantiserConfig: TableQuantiserConfig(rule=ScaleRule.BLOCK, block=2),
    TableUnitConfig: TableUnitConfig(),
    VectorCoreConfig: VectorCoreConfig(lanes=4, row_elements=32),
    BankUnitConfig: BankUnitConfig(),
    FrontEndConfig: FrontEndConfig(units=(2, 1, 1, 0, 0), tokens=4),
    DramConfig: read_machine("npu-hbm2").dram,
    PimConfig: PimConfig(unit=BankUnitConfig(), buffer_bytes=1024, gwrite_cycles=96, dot_cycles=2),
}
ARGUMENTS = {
    "delays": (0, 1, 2), "width": 8, "limit": 3, "layout": 8, "stages": [Wire(8), Wire(8)],
    "parts": {"a": Wire(8)}, "a": NUMBER, "b": NUMBER, "x": NUMBER, "y": NUMBER, "shape": NUMBER,
    "fmt": FORMATS["float16"], "digits": 12, "start": RootStart(NUMBER, 12),
    "rounding": "floor", "cycles": 2, "registers": 1, "act": FORMATS["float8_e4m3fn"],
    "weight": FORMATS["float8_e4m3fn"], "acc": FORMATS["float32"], "low": -20, "depth": 4,
    "act_block": FORMATS["mxfp8_e4m3"], "weight_block": FORMATS["mxfp4"], "lanes": 4,
    "act_format": "float16", "sources": 3, "units": 2, "ports": 2, "weight_format": "shift4",
}
OPTIONS = {"holds": True}  # what adds members


# Monitors and harnesses of proofs, whose members are those of the design they hold.
HARNESSES = {"properties", "mutation"}


def components() -> list[type[wiring.Component]]:
    """Return the classes of hardware, each where it is defined."""
    found = []
    for path in sorted((ROOT / "hw").rglob("*.py")):
        if path.stem in HARNESSES:
            continue
        dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for _, thing in inspect.getmembers(importlib.import_module(dotted), inspect.isclass):
            if issubclass(thing, wiring.Component) and thing.__module__ == dotted:
                found.append(thing)
    return found


def example(component: type[wiring.Component]) -> wiring.Component:
    """Return an instance of `component`, made of `CONFIGS` and `ARGUMENTS`."""
    hints = get_type_hints(component.__init__)
    arguments = {}
    for name, parameter in list(inspect.signature(component.__init__).parameters.items())[1:]:
        if hints.get(name) in CONFIGS:
            arguments[name] = CONFIGS[hints[name]]
        elif parameter.default is parameter.empty:
            assert name in ARGUMENTS, f"{component.__qualname__}: no example of argument {name}"
            arguments[name] = ARGUMENTS[name]
        elif name in OPTIONS:
            arguments[name] = OPTIONS[name]
    return component(**arguments)


def documented(docstring: str) -> list[tuple[str, str]]:
    """Return (name, direction) of each member in the section Members of `docstring`."""
    _, _, section = inspect.cleandoc(docstring).partition("Members\n-------\n")
    return re.findall(r"^(\w+) : (In|Out)\(", section, re.MULTILINE)


def declared(component: wiring.Component) -> list[tuple[str, str]]:
    """Return (name, direction) of each member in the signature of `component`."""
    members = component.signature.members
    return [(name, "In" if member.flow == wiring.In else "Out") for name, member in members.items()]


@pytest.mark.parametrize("component", components(), ids=lambda component: component.__qualname__)
def test_documented_members_are_the_signature(component):
    assert documented(component.__doc__ or "") == declared(example(component))


class Drifted(wiring.Component):
    """Example of a component and its documentation.

    Members
    -------
    a : In(1)
        Documented as it is.
    b : Out(8)
        Documented as the opposite direction.
    c : Out(8)
        Documented only.
    """

    def __init__(self):
        super().__init__({"a": wiring.In(1), "b": wiring.In(8), "d": wiring.Out(8)})


def test_a_drift_of_documentation_is_seen():
    assert documented(Drifted.__doc__) == [("a", "In"), ("b", "Out"), ("c", "Out")]
    assert declared(Drifted()) == [("a", "In"), ("b", "In"), ("d", "Out")]


def test_the_walk_finds_the_array():
    assert {"Element", "Product", "Systolic"} <= {component.__name__ for component in components()}
