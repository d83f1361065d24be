"""Mutants of a component's netlist, all in one compiled simulation, which selects one by a number.

Yosys draws them (pass ``mutate``: a bit of a cell's port inverted, constant, or inverted where
another bit says so) from the word-level netlist, flattened, optimised and free of unused bits.
Clocks are left alone: a clock behind a selector comes too late for a simulation without delays.
"""

import ctypes
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyosys
from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, ClockSignal, Const, Instance, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from hw.cxxrtl import StreamSimulation
from hw.formal import prove
from hw.yosys import run

__all__ = ["Inert", "Mutant", "MutantSimulation", "Twins", "equivalent", "survivors"]

SELECT_BITS = 16  # width of the input that selects

LIST = """read_rtlil design.il
proc
flatten
memory -nomap
wreduce
opt -full
zinit
splitcells
opt_clean -purge
write_rtlil design.il
mutate -list {count} -seed {seed} -o mutants
"""
# Proofs see what the simulation does: zero where a memory has no row, or nothing was read yet. Left
# undefined, each of two copies would have its own value there, and no copy would equal another.
APPLY = """read_rtlil design.il
script mutants
opt_clean -purge
write_rtlil mutated.il
write_cxxrtl -g0 design.cc
memory_map
setundef -zero -undriven -init
write_rtlil proved.il
"""
# Added to the loop of a run: in one cycle a reset, after which it begins again.
RESTART = """
    if (cycle == again) {
      again = -1;
      top.p_rst.set<bool>(true);
      top.p_clk.set<bool>(false);
      top.step();
      top.p_clk.set<bool>(true);
      top.step();
      top.p_rst.set<bool>(false);
      for (int64_t &beats_done : done) left += beats_done, beats_done = 0;
      cycle = -1;
      continue;
    }
"""
# Added to the module of a netlist: whether two bits differ.
WATCH = """  wire output 65535 \\differs
  cell $xor $watch
    parameter \\A_SIGNED 0
    parameter \\B_SIGNED 0
    parameter \\A_WIDTH 1
    parameter \\B_WIDTH 1
    parameter \\Y_WIDTH 1
    connect \\A {one}
    connect \\B {other}
    connect \\Y \\differs
  end
end
"""


@dataclass(frozen=True)
class Mutant:
    """One mutant: its number, from 1 on, and what Yosys says of it."""

    number: int
    change: str  # -mode, -cell, -port, -portbit, ...: the options of Yosys's mutate


class MutantSimulation(StreamSimulation):
    """A component, all of whose ports are streams, and mutants of it, compiled.

    Parameters
    ----------
    component : wiring.Component
        Not elaborated elsewhere.
    count : int
        Mutants to draw. Of a netlist with fewer than about twice as many Yosys's draw does not end.
    seed : int
        Of the draw.
    every : int
        Keep every such mutant of those drawn, the first one first.
    """

    def __init__(self, component: wiring.Component, count: int, seed: int = 0, every: int = 1):
        self.name = type(component).__name__.lower()
        self.signature = component.signature
        self.count, self.seed, self.every = count, seed, every
        self.mutants: list[Mutant] = []
        self.netlist = ""  # RTLIL with all mutants
        self.proved = ""  # the same without memories, for proofs
        super().__init__(component)
        self._selected = ctypes.c_uint32.in_dll(self._library, "selected")
        self._restart = ctypes.c_int64.in_dll(self._library, "restart")

    def select(self, number: int) -> None:
        """Make the next runs those of mutant `number`, or of the component for 0."""
        self._selected.value = number

    def restart(self, cycle: int) -> None:
        """Reset the next runs in `cycle`, then begin them again; -1: do not.

        Results and cycles are those after the reset. Memories keep what was written before it.
        """
        self._restart.value = cycle

    def _design(self, component: wiring.Component, name: str, parts: Any = ()) -> str:
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work)
            (folder / "design.il").write_text(rtlil.convert(component, name=name, emit_src=False))
            run(LIST.format(count=2 * self.count, seed=self.seed), folder)
            drawn = re.findall("^mutate (.*)$", (folder / "mutants").read_text(), re.MULTILINE)
            drawn = [change for change in drawn if "CLK -portbit" not in change]

            # A constant bit set to its own value is no mutant.
            self._apply(folder, drawn)
            bits = _bits(self.netlist)
            drawn = [change for number, change in enumerate(drawn, 1)
                     if len(set(bits[number])) == 2]
            self._apply(folder, drawn[: self.count : self.every])
            # A mutant may ask a memory for a row it does not have: zero, and no end of the process.
            return "#define CXXRTL_NDEBUG\n" + (folder / "design.cc").read_text()

    def _apply(self, folder: Path, changes: list[str]) -> None:
        """Number `changes` and put all of them into one netlist."""
        self.mutants = [Mutant(number, text) for number, text in enumerate(changes, 1)]
        (folder / "mutants").write_text("".join(
            f"mutate -ctrl selected {SELECT_BITS} {mutant.number} {mutant.change}\n"
            for mutant in self.mutants))
        run(APPLY, folder)
        self.netlist = (folder / "mutated.il").read_text()
        self.proved = (folder / "proved.il").read_text()

    def _runtime(self) -> Path:
        return Path(pyosys.__file__).parent / "share/include/backends/cxxrtl/runtime"

    def _loop(self, name: str) -> str:
        clock, each = "top.p_clk.set<bool>(false);", "cycle < max_cycles; cycle++) {"
        loop = super()._loop(name).replace(
            clock, f"{clock}\n    top.p_selected.set<uint32_t>(selected);")
        loop = loop.replace(each, each + RESTART).replace(
            "left = 0, cycle = 0;", "left = 0, cycle = 0, again = restart;")
        return 'extern "C" { uint32_t selected = 0; int64_t restart = -1; }\n' + loop


def _bits(netlist: str) -> dict[int, tuple[str, str]]:
    """Return, by number of the mutant, the bit it replaces and what it puts there, as RTLIL."""
    cells = [(kind, dict(re.findall(r"^    connect \\(\w+) (.*)$", body, re.M))) for kind, body in
             re.findall(r"^  cell (\$eq|\$mux) .*?\n(.*?)^  end", netlist, re.M | re.S)]
    numbers = {ports["Y"]: int(ports["B"].split("'")[1], 2)
               for kind, ports in cells if kind == "$eq" and ports["A"] == "\\selected"}
    return {numbers[ports["S"]]: (ports["A"], ports["B"])
            for kind, ports in cells if kind == "$mux" and ports["S"] in numbers}


def _instance(simulation: MutantSimulation, ports: Any, number: int, **wires: Any) -> Instance:
    """Return mutant `number` of `simulation` as an instance with `ports` and further `wires`."""
    wires |= {"i_clk": ClockSignal(), "i_rst": ResetSignal(),
              "i_selected": Const(number, SELECT_BITS)}
    for path, member, value in ports.signature.flatten(ports):
        side = "i" if member.flow is In else "o"
        wires[f"{side}_{'__'.join(path)}"] = value
    return Instance(simulation.name, **wires)


class Inert(wiring.Component):
    """A component; asserts that the bit a mutant replaces always has the value it would put there.

    Parameters
    ----------
    simulation : MutantSimulation
        The component and its mutants.
    legal : function
        Of the members that enter: what may be assumed of them, an expression.
    """

    def __init__(self, simulation: MutantSimulation, legal: Callable[[Any], Any]):
        self.simulation, self.legal = simulation, legal
        super().__init__(simulation.signature)

    def elaborate(self, platform):
        m = Module()
        differs = Signal()
        m.d.comb += [Assume(self.legal(self)), Assert(~differs)]
        m.submodules += _instance(self.simulation, self, 0, o_differs=differs)
        return m


class Twins(wiring.Component):
    """A component and one mutant of it, side by side; asserts that their outputs are the same.

    A payload counts only while it is valid.

    Parameters
    ----------
    simulation : MutantSimulation
        The component and its mutants.
    number : int
        Of the mutant.
    legal : function
        Of the members that enter: what may be assumed of them, an expression.
    """

    def __init__(self, simulation: MutantSimulation, number: int, legal: Callable[[Any], Any]):
        self.simulation, self.number, self.legal = simulation, number, legal
        super().__init__(simulation.signature)

    def elaborate(self, platform):
        m = Module()
        m.d.comb += Assume(self.legal(self))
        original, mutant = self.signature.create(), self.signature.create()
        for ports, number in ((original, 0), (mutant, self.number)):
            m.submodules += _instance(self.simulation, ports, number)

        for name, member in self.signature.members.items():
            outer, one, other = (getattr(ports, name) for ports in (self, original, mutant))
            if member.flow is In:
                for inner in (one, other):
                    m.d.comb += [inner.valid.eq(outer.valid), inner.payload.eq(outer.payload)]
                m.d.comb += [outer.ready.eq(one.ready), Assert(one.ready == other.ready)]
            else:
                m.d.comb += [one.ready.eq(outer.ready), other.ready.eq(outer.ready),
                             outer.valid.eq(one.valid), outer.payload.eq(one.payload),
                             Assert(one.valid == other.valid),
                             Assert(~one.valid | (one.payload == other.payload))]
        return m


def equivalent(
    simulation: MutantSimulation, number: int, legal: Callable[[Any], Any], timeout_s: int = 20
) -> str:
    """Return how mutant `number` is proved to be equal to the component, for `legal` inputs.

    ``inert``: the bit it replaces always has the value it puts there. ``twins``: the outputs are
    the same. An empty text says that neither was proved.
    """
    one, other = _bits(simulation.netlist)[number]
    watched = simulation.proved.rstrip().removesuffix("end") + WATCH.format(one=one, other=other)
    if _proved(Inert(simulation, legal), watched, timeout_s):
        return "inert"
    twins = _proved(Twins(simulation, number, legal), simulation.proved, timeout_s)
    return "twins" if twins else ""


def _proved(harness: wiring.Component, modules: str, timeout_s: int) -> bool:
    verdict = prove(harness, engine="abc scorr; pdr", timeout_s=timeout_s, modules=modules)
    return verdict.status == "pass"


def survivors(
    simulation: MutantSimulation, holds: Callable[[MutantSimulation], bool]
) -> list[Mutant]:
    """Return the mutants for which `holds` says that the simulation is as it should be.

    Raises ``ValueError`` if the component itself is not.
    """
    simulation.select(0)
    if not holds(simulation):
        raise ValueError("the component itself must pass the check of its mutants")
    found = []
    for mutant in simulation.mutants:
        simulation.select(mutant.number)
        if holds(simulation):
            found.append(mutant)
    simulation.select(0)
    return found
