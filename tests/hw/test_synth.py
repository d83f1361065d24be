# amaranth: UnusedElaboratable=no
"""Synthesis: small designs come to what is known of them; errors are sentences."""

import dataclasses

import pytest
from amaranth.hdl import Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.designs import DESIGNS
from hw.synth import TARGETS, critical_path, emit_rtlil, rtlil_hash, synthesise, tool_of
from hw.synth_table import emitted, present_hash, synthesised
from machine.area import area_table
from machine.errors import UserError

CELLS = [pytest.param("osu018", marks=pytest.mark.osu018), "sky130"]
FPGAS = ["ecp5", "ecp5-nodsp", "xcup", "xcup-nodsp"]


class Registers(wiring.Component):
    """A word, a cycle later."""

    def __init__(self, bits: int):
        super().__init__({"i": In(bits), "o": Out(bits)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.eq(self.i)
        return m


class Multiplier(wiring.Component):
    """Signed product."""

    def __init__(self, bits: int):
        super().__init__({"a": In(signed(bits)), "b": In(signed(bits)), "o": Out(signed(2 * bits))})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o.eq(self.a * self.b)
        return m


class Fields(wiring.Component):
    """Inverted lanes of an array layout, whose nets have names that abc9 refuses."""

    def __init__(self):
        super().__init__({"i": In(data.ArrayLayout(4, 3)), "o": Out(data.ArrayLayout(4, 3))})

    def elaborate(self, platform):
        m = Module()
        lanes = Signal(data.ArrayLayout(4, 3))
        m.d.sync += [lane.eq(~given) for lane, given in zip(lanes, self.i, strict=True)]
        m.d.comb += self.o.eq(lanes)
        return m


def found(component: wiring.Component, target: str, **options):
    texts = emit_rtlil([("top", component)])
    return synthesise(texts, "top", target, **options)


@pytest.mark.synth
@pytest.mark.parametrize("target", FPGAS)
def test_registers_alone_are_flip_flops(target):
    got = found(Registers(11), target)
    assert (got.ff, got.lut, got.dsp, got.carry, got.bram) == (11, 0, 0, 0, 0)


@pytest.mark.synth
@pytest.mark.parametrize("target", FPGAS)
def test_a_multiplier_is_one_block_or_none(target):
    got = found(Multiplier(16), target)
    assert got.dsp == (0 if target.endswith("-nodsp") else 1)
    assert (got.lut > 100) == target.endswith("-nodsp")


@pytest.mark.synth
@pytest.mark.parametrize("target", CELLS)
def test_an_area_is_the_sum_of_its_cells(target):
    # DFFPOSX1 of the liberty: 96 um2; dfxtp_1 of the LEF: 7.36 by 2.72 um. The reset adds a gate
    # a bit: AND of 32 um2 in the one, at least nor2 of 1.38 by 2.72 um in the other.
    flop, gate = {"osu018": (96, 24), "sky130": (7.36 * 2.72, 1.38 * 2.72)}[target]
    small, large = found(Registers(3), target), found(Registers(13), target)
    assert large.area_um2 - small.area_um2 >= 10 * (flop + gate) - 1e-9
    assert large.area_um2 - small.area_um2 <= 10 * (flop + 2 * gate) + 1e-9


@pytest.mark.synth
@pytest.mark.parametrize("target", ["ecp5", "xcup"])
def test_names_that_abc9_refuses_are_written_otherwise(target):
    assert found(Fields(), target).ff == 12
    assert "lanes[" not in "".join(emit_rtlil([("top", Fields())]))


@pytest.mark.synth
def test_an_error_of_yosys_is_raised_and_ends_nothing_else():
    with pytest.raises(RuntimeError, match="^yosys failed: .*ERROR.*nonsense"):
        synthesise(["nonsense\n"], "top", "ecp5")


@pytest.mark.synth
def test_what_the_tools_read_and_wrote_is_kept(tmp_path):
    found(Registers(2), "sky130", keep=tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"0.il", "run.ys", "log.txt", "stat.json", "netlist.json", "cells.lib"} <= names


def test_the_hash_follows_the_rtl():
    of = [rtlil_hash(emit_rtlil([("top", Registers(bits))])) for bits in (3, 3, 4)]
    assert of[0] == of[1] != of[2]


def test_a_missing_tool_is_an_import_error(monkeypatch):
    def missing(package):
        raise ModuleNotFoundError(f"No package {package}")

    monkeypatch.setattr("hw.synth.version", missing)
    with pytest.raises(ImportError, match="No package pyosys"):
        tool_of("ecp5")


def test_a_design_refuses_parameters_that_its_configuration_refuses():
    with pytest.raises(UserError, match="^pe: a_bits must be from"):
        emitted("pe", "a_bits=99")


ROWS = sorted(area_table().values(), key=lambda row: (row.design, row.parameters, row.target))
NAMES = [f"{row.design}-{row.parameters}-{row.target}" for row in ROWS]


def test_every_stored_row_is_of_the_present_rtl_and_tool():
    assert {row.target for row in ROWS} == set(TARGETS)
    assert {row.design for row in ROWS} == set(DESIGNS)
    old = [name for name, row in zip(NAMES, ROWS, strict=True)
           if row.rtlil != present_hash(row) or row.tool != tool_of(row.target)]
    assert not old, f"run `make tables`: {', '.join(old)}"


def test_an_array_of_8x8_with_short_paths_reaches_150_mhz():
    # At the table's seed; the rows are of the present RTL, and the slow tests place them again.
    common = "acc_rows=0 pe.depth_cycles=5"
    by = {more: area_table()["systolic", common + more, "ecp5-85k-block"]
          for more in ("", " short_paths=true")}
    assert by[" short_paths=true"].fmax_mhz >= 150 > by[""].fmax_mhz
    assert by[" short_paths=true"].dsp == 64


def check(row) -> None:
    """Fail unless a synthesis now gives exactly what is stored."""
    got, want = dataclasses.asdict(synthesised(row)), dataclasses.asdict(row)
    differing = {name: (got[name], want[name]) for name in want if got[name] != want[name]}
    assert not differing, f"(now, stored): {differing}"


@pytest.mark.synth
@pytest.mark.osu018
@pytest.mark.parametrize("target", ["ecp5", "osu018", "sky130"])
def test_three_stored_rows_are_measured_again(target):
    check(area_table()["pe", "", target])


@pytest.mark.synth
@pytest.mark.parametrize("target, bare", [("ecp5-85k", True), ("ecp5-85k-block", False)])
def test_the_longest_path_of_a_deep_element_is_the_bare_multiplier_block_or_without_it(
        tmp_path, target, bare):
    row = area_table()["pe", "pe.depth_cycles=5", target]
    top, texts, _ = emitted(row.design, row.parameters)
    assert synthesise(texts, top, target, keep=tmp_path).fmax_mhz == row.fmax_mhz
    path = critical_path(tmp_path)
    assert sum(step.ns for step in path) == pytest.approx(1000 / row.fmax_mhz, abs=0.05)
    blocks = [step.ns for step in path if step.cell == "MULT18X18D" and step.kind == "logic"]
    if not bare:
        assert not blocks
        return
    # Register, wires, block, wires, register: 3.927 ns of the block in the database of nextpnr.
    assert [step.kind for step in path] == ["clk-to-q", "routing", "logic", "routing", "setup"]
    assert [path[0].cell, path[-1].cell] == ["TRELLIS_FF", "TRELLIS_FF"]
    assert blocks == [3.93]


@pytest.mark.slow
@pytest.mark.synth
@pytest.mark.osu018
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_every_stored_row_is_measured_again(row):
    check(row)
