"""Registers moved into a multiplier block: the netlist does the same in every cycle."""

import json
import random
from copy import deepcopy
from typing import Any

import pytest
from amaranth.hdl import EnableInserter, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.block_registers import BLOCK, move_registers
from hw.synth import emit_rtlil, synthesise
from hw.synth_table import emitted

BITS = 6


class Pipeline(wiring.Component):
    """A product between registers; `shared` lets the first operand's register be seen as well."""

    def __init__(self, shared: bool = False, product: bool = True, operands: bool = True):
        self.shared, self.product, self.operands = shared, product, operands
        super().__init__({"en": In(1), "a": In(signed(BITS)), "b": In(signed(BITS)),
                          "o": Out(signed(2 * BITS)), "seen": Out(signed(BITS))})

    def elaborate(self, platform):
        m = Module()
        a, b = self.a, self.b
        if self.operands:
            a, b = Signal(signed(BITS)), Signal(signed(BITS))
            m.d.sync += [a.eq(self.a), b.eq(self.b)]
        target = m.d.sync if self.product else m.d.comb
        target += self.o.eq(a * b)
        if self.shared:
            m.d.comb += self.seen.eq(a)
        return EnableInserter(self.en)(m)


def netlist(tmp_path, component: wiring.Component) -> dict[str, Any]:
    synthesise(emit_rtlil([("top", component)]), "top", "ecp5", keep=tmp_path)
    return json.loads((tmp_path / "netlist.json").read_text())["modules"]["top"]


class Netlist:
    """Registers and blocks, cycle by cycle; the block as Lattice's simulation model has it."""

    def __init__(self, module: dict[str, Any]):
        self.module, self.cells = module, module["cells"]
        self.q = {name: 0 for name, cell in self.cells.items() if cell["type"] == "TRELLIS_FF"}
        self.a, self.b, self.p = ({name: 0 for name in self.cells} for _ in "abp")

    def step(self, **inputs: int) -> dict[str, int]:
        """Return the outputs under `inputs`, and take the clock's edge."""
        nets: dict[Any, int] = {"0": 0, "1": 1, "x": 0}
        for name, port in self.module["ports"].items():
            if port["direction"] == "input":
                nets |= {bit: inputs[name] >> i & 1 for i, bit in enumerate(port["bits"])}
        for name, value in self.q.items():
            nets[self.cells[name]["connections"]["Q"][0]] = value
        blocks = [name for name, cell in self.cells.items() if cell["type"] == BLOCK]
        made = {}
        for name in blocks:  # a block's operands are registers or ports here, never a block
            cell = self.cells[name]
            modes = cell["parameters"]
            if modes.get("REG_OUTPUT_CLK", "NONE") != "NONE":
                self._drive(nets, name, self.p[name])
            made[name] = self._product(nets, name)
            if modes.get("REG_OUTPUT_CLK", "NONE") == "NONE":
                self._drive(nets, name, made[name])
        outputs = {name: sum(nets[bit] << i for i, bit in enumerate(port["bits"]))
                   for name, port in self.module["ports"].items() if port["direction"] == "output"}
        self._edge(nets, made)
        return outputs

    def _word(self, nets, name: str, letter: str) -> int:
        pins = self.cells[name]["connections"]
        value = sum(nets[pins[f"{letter}{i}"][0]] << i for i in range(18))
        return value - (1 << 18 if value >> 17 and nets[pins[f"SIGNED{letter}"][0]] else 0)

    def _product(self, nets, name: str) -> int:
        modes = self.cells[name]["parameters"]
        inside = {"A": self.a, "B": self.b}
        a, b = (inside[letter][name] if modes.get(f"REG_INPUT{letter}_CLK", "NONE") != "NONE"
                else self._word(nets, name, letter) for letter in "AB")
        return a * b

    def _drive(self, nets, name: str, value: int) -> None:
        for i in range(36):
            nets[self.cells[name]["connections"][f"P{i}"][0]] = value >> i & 1

    def _edge(self, nets, made: dict[str, int]) -> None:
        for name, old in list(self.q.items()):
            pins = self.cells[name]["connections"]
            taken = nets[pins["DI"][0]] if nets[pins["CE"][0]] else old
            self.q[name] = 0 if nets[pins["LSR"][0]] else taken
        for name, product in made.items():
            pins = self.cells[name]["connections"]
            if "CLK0" not in pins:
                continue
            for kept, value in ((self.a, self._word(nets, name, "A")),
                                (self.b, self._word(nets, name, "B")), (self.p, product)):
                taken = value if nets[pins["CE0"][0]] else kept[name]
                kept[name] = 0 if nets[pins["RST0"][0]] else taken


def compare(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Fail at the first cycle in which two netlists differ: random steps, resets and operands."""
    rng = random.Random(1)
    one, other = Netlist(before), Netlist(after)
    for cycle in range(400):
        inputs = {"clk": 0, "rst": int(rng.random() < 0.1), "en": rng.getrandbits(1),
                  "a": rng.getrandbits(BITS), "b": rng.getrandbits(BITS)}
        want, got = one.step(**inputs), other.step(**inputs)
        assert got == want, f"cycle {cycle}: {got} != {want}"


@pytest.mark.synth
@pytest.mark.parametrize("given, moved", [
    ({}, 4 * BITS),
    ({"product": False}, 2 * BITS),
    ({"operands": False}, 2 * BITS),
    ({"shared": True}, 2 * BITS),  # the product's alone: one operand would be without delays
])
def test_what_serves_the_block_alone_moves_and_nothing_changes(tmp_path, given, moved):
    before = netlist(tmp_path, Pipeline(**given))
    after = deepcopy(before)
    assert move_registers(after) == moved
    kinds = [cell["type"] for cell in after["cells"].values()]
    assert kinds.count("TRELLIS_FF") == sum(
        cell["type"] == "TRELLIS_FF" for cell in before["cells"].values()) - moved
    compare(before, after)


@pytest.mark.synth
def test_a_register_of_another_mode_stays(tmp_path):
    before = netlist(tmp_path, Pipeline())
    for key, value in (("REGSET", "SET"), ("SRMODE", "ASYNC"), ("CEMUX", "INV")):
        module = deepcopy(before)
        for cell in module["cells"].values():
            if cell["type"] == "TRELLIS_FF":
                cell["parameters"][key] = value
        assert move_registers(module) == 0, key


@pytest.mark.synth
def test_a_difference_is_seen(tmp_path):
    before = netlist(tmp_path, Pipeline())
    for place in ("REG_INPUTA_CLK", "REG_OUTPUT_CLK"):
        after = deepcopy(before)
        move_registers(after)
        [block] = [cell for cell in after["cells"].values() if cell["type"] == BLOCK]
        block["parameters"][place] = "NONE"
        with pytest.raises(AssertionError, match="^cycle"):
            compare(before, after)


@pytest.mark.synth
def test_all_registers_beside_the_multiplier_of_an_element_move_at_depth_4(tmp_path):
    for depth, moved in ((1, 0), (3, 16), (4, 32), (5, 32)):
        top, texts, _ = emitted("pe", f"pe.depth_cycles={depth}")
        synthesise(texts, top, "ecp5", keep=tmp_path)
        module = json.loads((tmp_path / "netlist.json").read_text())["modules"][top]
        assert move_registers(module) == moved, depth
