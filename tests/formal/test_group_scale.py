# amaranth: UnusedElaboratable=no
"""The stage that scales groups: no row of totals is lost, made up, overtaken or changed.

Mode: `prove` by property-directed reachability, for any number of cycles, any words, any waits at
the three streams and a reset at any cycle. The arithmetic is not part of it: a column of registers
as deep stands in for it. The broken designs fail within 10 cycles.
"""

import pytest
from amaranth.hdl import Assert, Assume, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw import group_scale
from hw.formal import prove
from hw.properties import Carried, Kept
from machine.group_scale import GroupScaleConfig

CFG = GroupScaleConfig(cols=1, rows=2, convert_cycles=1, multiply_cycles=0)
WIDTH = 2  # bits of a sum that are followed


class Registers(wiring.Component):
    """The ports of a column; the sum comes out ``add_cycles`` steps later, nothing is added."""

    def __init__(self, cfg):
        self.cfg = cfg
        super().__init__({"en": In(1), "sum": In(32), "scale": In(cfg.scale_bits),
                          "total": In(32), "o": Out(32)})

    def elaborate(self, platform):
        m = Module()
        value = self.sum[:WIDTH]
        for step in range(self.cfg.add_cycles):
            later = Signal(WIDTH, name=f"value_{step}")
            with m.If(self.en):
                m.d.sync += later.eq(value)
            value = later
        m.d.comb += self.o.eq(value)
        return m


class Harness(wiring.Component):
    """The stage between three free streams; of the rows of groups that are sent, one is followed.

    A producer keeps the word of a group until it is taken, and groups have one or two rows.
    """

    def __init__(self, dut):
        self.dut = dut
        super().__init__({
            "choose": In(1),
            "i_sums": In(stream.Signature(WIDTH)),
            "i_scales": In(stream.Signature(CFG.scale_word_bits)),
            "o": Out(stream.Signature(32)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        wiring.connect(m, wiring.flipped(self.i_scales), dut.i_scales)
        wiring.connect(m, dut.o, wiring.flipped(self.o))
        m.d.comb += [
            dut.i_sums.payload.eq(self.i_sums.payload),
            dut.i_sums.valid.eq(self.i_sums.valid),
            self.i_sums.ready.eq(dut.i_sums.ready),
        ]
        word = self.i_scales.payload
        second = Signal()  # the next row is the second one of its group
        takes = dut.i_sums.valid & dut.i_sums.ready
        with m.If(takes):
            m.d.sync += second.eq(~second & word[0])
        before, stalled = Signal(18), Signal()
        m.d.sync += [before.eq(word[:18]),
                     stalled.eq(self.i_scales.valid & ~self.i_scales.ready)]
        m.d.comb += [
            Assume(word[1:16] == 0),
            Assume(~stalled | (self.i_scales.valid & (word[:18] == before))),
            # A row goes with a word, and a word leaves with its last row, neither alone.
            Assert(~takes | dut.i_scales.valid),
            Assert((dut.i_scales.valid & dut.i_scales.ready) == (takes & (second == word[0]))),
        ]
        m.submodules.kept = kept = Kept(32)
        m.submodules.carried = carried = Carried(WIDTH, capacity=CFG.add_cycles + 2)
        m.d.comb += [
            kept.valid.eq(dut.o.valid), kept.ready.eq(dut.o.ready), kept.payload.eq(dut.o.payload),
            carried.choose.eq(self.choose), carried.entered.eq(takes & word[17]),
            carried.expected.eq(self.i_sums.payload),
            carried.left.eq(dut.o.valid & dut.o.ready),
            carried.payload.eq(dut.o.payload[:WIDTH]),
        ]
        return m


def stage(module):
    """Return the stage of `module` with registers in place of the arithmetic."""
    module.ScaleColumn = Registers
    return module.GroupScale(CFG)


def test_rows_of_totals_leave_in_order_unchanged_under_any_waits(edited):
    module = edited("hw.group_scale", '"GroupScale", ', '"GroupScale", ')
    assert group_scale.ScaleColumn is not Registers
    verdict = prove(Harness(stage(module)), engine="abc pdr")
    assert verdict.status == "pass", verdict.reason


@pytest.mark.parametrize("old, new", [
    ("queue.i.valid.eq(slot.valid & slot.last)", "queue.i.valid.eq(slot.valid)"),
    ("step):\n            m.d.sync += line", "1):\n            m.d.sync += line"),
    ("self.i_sums.ready.eq(step & self.i_scales.valid)", "self.i_sums.ready.eq(step)"),
    ("step & self.i_sums.valid & last_row", "step & last_row"),
    ("with m.If(step & here.valid):", "with m.If(here.valid):"),
    ("row.eq(Mux(last_row, 0, row + 1))", "row.eq(row + 1)"),
], ids=["sends what it keeps", "slots wait not", "needs no word", "word alone", "counts twice",
        "counts on"])
def test_a_broken_stage_is_seen(edited, old, new):
    dut = stage(edited("hw.group_scale", old, new))
    assert prove(Harness(dut), mode="bmc").status == "fail"
