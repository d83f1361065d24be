# amaranth: UnusedElaboratable=no
"""Ends of blocks around float arithmetic: float units, the quantiser of tables, codes of groups.

Mode `prove` by property-directed reachability, so for any number of cycles and a reset at any of
them. The broken designs fail within the depth of each test.
"""

import pytest
from amaranth.hdl import Assert, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.float_unit import FloatUnit
from hw.formal import prove
from hw.lut_quantise import TableQuantiser
from hw.properties import Carried, Kept
from hw.qoq import QoqSystolic
from machine.floats import FloatConfig
from machine.lut_table import TableQuantiserConfig
from machine.pe import PeConfig
from machine.qoq import LENGTH_BITS
from machine.systolic import SystolicConfig
from machine.vector import ScaleRule

SMALL = {"a": "float4_e2m1fn", "b": "float4_e2m1fn", "out": "float4_e2m1fn"}
UNITS = [FloatConfig(operation=operation, depth_cycles=depth, **SMALL)
         for operation, depth in (("add", 2), ("multiply", 1), ("divide", 3))]
QUANTISER = TableQuantiserConfig(rule=ScaleRule.BLOCK, block=2, k=2, format="int3",
                                 out_format="int2", divider_cycles=1)
ARRAY = SystolicConfig(rows=1, cols=1, acc_rows=2, pe=PeConfig(kind="qoq"))


class Stepped(wiring.Component):
    """A unit with registers beside one without, whose results wait as many steps."""

    def __init__(self, dut: FloatUnit):
        self.dut = dut
        super().__init__({"en": In(1), "a": In(4), "b": In(4)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        cfg = self.dut.cfg
        m.submodules.twin = twin = FloatUnit(FloatConfig(operation=cfg.operation, **SMALL))
        for unit in (dut, twin):
            m.d.comb += [unit.en.eq(self.en), unit.a.eq(self.a), unit.b.eq(self.b)]
        result, there = twin.o, self.en
        for step in range(cfg.latency_cycles):
            later, filled = Signal(4, name=f"later_{step}"), Signal(name=f"filled_{step}")
            with m.If(self.en):
                m.d.sync += [later.eq(result), filled.eq(1 if step == 0 else there)]
            result, there = later, filled
        with m.If(there):
            m.d.comb += Assert(dut.o == result)
        return m


@pytest.mark.parametrize("cfg", UNITS, ids=lambda cfg: cfg.operation)
def test_a_float_unit_moves_with_its_steps_alone_and_loses_no_result(cfg):
    verdict = prove(Stepped(FloatUnit(cfg)), engine="abc scorr; pdr")
    assert verdict.status == "pass", verdict.reason


def test_a_unit_that_does_not_wait_is_seen(edited):
    dut = edited("hw.float_unit", "chain.en.eq(self.en)", "chain.en.eq(1)").FloatUnit(UNITS[0])
    assert prove(Stepped(dut), mode="bmc", depth=6, engine="abc bmc3").status == "fail"


class QuantiserHarness(wiring.Component):
    """The quantiser between free ends: tables and blocks are counted, what is offered is kept."""

    def __init__(self, dut):
        self.dut = dut
        super().__init__({"i": In(stream.Signature(QUANTISER.table_bits)),
                          "o": Out(stream.Signature(QUANTISER.code_bits)),
                          "o_scales": Out(stream.Signature(32))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        wiring.connect(m, wiring.flipped(self.i), dut.i)
        at = Signal(range(QUANTISER.block))
        last, enters = at == QUANTISER.block - 1, dut.i.valid & dut.i.ready
        with m.If(enters):
            m.d.sync += at.eq(at + 1)
        # In work there is one block; two tables, and two scales, wait behind it.
        for name, entered, capacity in (("o", enters, QUANTISER.block + 2),
                                        ("o_scales", enters & last, 3)):
            port = getattr(dut, name)
            wiring.connect(m, port, wiring.flipped(getattr(self, name)))
            m.submodules[f"kept_{name}"] = kept = Kept(len(port.payload))
            m.submodules[f"carried_{name}"] = carried = Carried(1, capacity)
            m.d.comb += [
                kept.valid.eq(port.valid), kept.ready.eq(port.ready),
                kept.payload.eq(port.payload),
                carried.entered.eq(entered), carried.left.eq(port.valid & port.ready),
            ]
        return m


def test_the_quantiser_sends_each_table_and_each_scale_once_and_keeps_them():
    verdict = prove(QuantiserHarness(TableQuantiser(QUANTISER)), engine="abc pdr", timeout_s=600)
    assert verdict.status == "pass", verdict.reason


@pytest.mark.parametrize("old, new", [
    ("with m.If(codes.i.ready):", "with m.If(1):"),
    pytest.param("with m.If(scales.i.ready):", "with m.If(1):", marks=pytest.mark.slow),
    ('self.i.ready.eq(fsm.ongoing("fill"))', 'self.i.ready.eq(1)'),
], ids=["codes are lost", "scales are lost", "tables are lost"])
def test_a_broken_quantiser_is_seen(edited, old, new):
    dut = edited("hw.lut_quantise", old, new).TableQuantiser(QUANTISER)
    verdict = prove(QuantiserHarness(dut), mode="bmc", depth=40, engine="abc bmc3")
    assert verdict.status == "fail"


class GroupsHarness(wiring.Component):
    """The array behind the decoder between free ends: a group's word serves its beats of codes."""

    def __init__(self, dut):
        self.dut = dut
        super().__init__(dut.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        wiring.connect(m, wiring.flipped(self), dut)
        codes, groups = (port.valid & port.ready for port in (dut.i_codes, dut.i_groups))
        served = Signal(LENGTH_BITS)
        with m.If(groups):
            m.d.sync += served.eq(0)
        with m.Elif(codes):
            m.d.sync += served.eq(served + 1)
        length = dut.i_groups.payload[:LENGTH_BITS]
        m.d.comb += Assert(groups == (codes & dut.i_groups.valid & (served == length)))
        m.d.comb += Assert(~codes | dut.i_groups.valid)
        return m


def test_a_groups_word_leaves_with_the_last_beat_of_codes_it_serves():
    verdict = prove(GroupsHarness(QoqSystolic(ARRAY)), engine="abc pdr")
    assert verdict.status == "pass", verdict.reason


@pytest.mark.parametrize("old, new", [
    ("self.i_codes.valid & last)", "last)"), ("Mux(last, 0, count + 1)", "count + 1"),
    ("array.i_weights.ready & self.i_groups.valid)", "array.i_weights.ready)"),
], ids=["leaves alone", "counts on", "codes do not wait"])
def test_broken_groups_are_seen(edited, old, new):
    dut = edited("hw.qoq", old, new).QoqSystolic(ARRAY)
    verdict = prove(GroupsHarness(dut), mode="bmc", depth=12, engine="abc bmc3")
    assert verdict.status == "fail"
