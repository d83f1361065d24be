# amaranth: UnusedElaboratable=no
"""The queue and the delay lines: nothing is lost, made up, reordered or changed on the way.

Mode: `prove` by property-directed reachability, so for any number of cycles and with a reset at any
of them. The broken designs fail within 8 cycles.
"""

import pytest
from amaranth.hdl import Assert, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.formal import prove
from hw.pe import CONTROL, CONTROL_BITS
from hw.properties import Carried, Kept
from hw.skew import Edge, Skew
from hw.stream import PairQueue
from machine.systolic import SystolicConfig

WIDTH = 4
DELAYS = (0, 1, 3)
ROWS = 3


class QueueHarness(wiring.Component):
    """A queue between two free ends."""

    def __init__(self, dut):
        self.dut = dut
        super().__init__({
            "choose": In(1),
            "i": In(stream.Signature(WIDTH)),
            "o": Out(stream.Signature(WIDTH)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        wiring.connect(m, wiring.flipped(self.i), dut.i)
        wiring.connect(m, dut.o, wiring.flipped(self.o))

        m.submodules.kept = kept = Kept(WIDTH)
        m.submodules.carried = carried = Carried(WIDTH, capacity=2)
        m.d.comb += [
            kept.valid.eq(dut.o.valid),
            kept.ready.eq(dut.o.ready),
            kept.payload.eq(dut.o.payload),
            carried.choose.eq(self.choose),
            carried.entered.eq(dut.i.valid & dut.i.ready),
            carried.expected.eq(dut.i.payload),
            carried.left.eq(dut.o.valid & dut.o.ready),
            carried.payload.eq(dut.o.payload),
        ]

        # Room for two, and the first is offered at once.
        m.d.comb += Assert(dut.i.ready == (carried.inside < 2))
        m.d.comb += Assert(dut.o.valid == (carried.inside > 0))
        return m


def test_the_queue_keeps_every_payload_in_order():
    assert prove(QueueHarness(PairQueue(WIDTH)), engine="abc pdr").status == "pass"


@pytest.mark.parametrize("old, new", [
    ("with m.Elif(self.i.valid & self.i.ready):", "with m.Elif(0):"),
    ("m.d.sync += spare.eq(self.i.payload)", "m.d.sync += self.o.payload.eq(self.i.payload)"),
    ("m.d.sync += spare_free.eq(1)", "pass"),
    ("with m.If(self.o.ready | ~self.o.valid):", "with m.If(1):"),
], ids=["drops", "overtakes", "repeats", "waits not"])
def test_a_broken_queue_is_seen(edited, old, new):
    dut = edited("hw.stream", old, new).PairQueue(WIDTH)
    assert prove(QueueHarness(dut), mode="bmc").status == "fail"


class SkewHarness(wiring.Component):
    """Delay lines, and a record of the last beats."""

    def __init__(self, dut):
        self.dut = dut
        super().__init__({"step": In(1), "choose": In(1), "i": In(2 * len(DELAYS))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        m.d.comb += [dut.step.eq(self.step), dut.i.eq(self.i)]

        # One step of free choice, and how many steps ago it was.
        beat, age = Signal(2 * len(DELAYS)), Signal(range(max(DELAYS) + 2))
        with m.If(self.step & (age != 0) & (age <= max(DELAYS))):
            m.d.sync += age.eq(age + 1)
        with m.If(self.step & (age == 0) & self.choose):
            m.d.sync += [beat.eq(self.i), age.eq(1)]
        for lane, delay in enumerate(DELAYS):
            out = dut.o.word_select(lane, 2)
            if delay == 0:
                m.d.comb += Assert(out == self.i.word_select(lane, 2))
            else:
                with m.If(age == delay):
                    m.d.comb += Assert(out == beat.word_select(lane, 2))
        return m


def test_each_lane_is_delayed_by_its_steps():
    assert prove(SkewHarness(Skew(2, DELAYS)), engine="abc pdr").status == "pass"


@pytest.mark.parametrize("old, new", [
    ("m.d.sync += line.eq(Cat(source, line))", "m.d.sync += line.eq(Cat(source, 0))"),
    ("[self.width * delay :]", "[self.width * delay - 1 :]"),
    ("step):\n                m.d.sync += line.eq", "i[0]):\n                m.d.sync += line.eq"),
], ids=["forgets", "early", "waits not"])
def test_a_broken_delay_line_is_seen(edited, old, new):
    dut = edited("hw.skew", old, new).Skew(2, DELAYS)
    assert prove(SkewHarness(dut), mode="bmc").status == "fail"


class EdgeHarness(wiring.Component):
    """Control of the rows, and what row 0 did in the steps before."""

    def __init__(self, dut):
        self.dut = dut
        super().__init__({
            "step": In(1), "control": In(CONTROL_BITS), "hops": In(range(ROWS))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        m.d.comb += [
            dut.step.eq(self.step), dut.control.eq(self.control), dut.hops.eq(self.hops)]
        past = [(data.View(CONTROL, self.control), self.hops)]
        for ago in range(1, ROWS):
            control = Signal(CONTROL, name=f"control_{ago}")
            hops = Signal(range(ROWS), name=f"hops_{ago}")
            with m.If(self.step):
                m.d.sync += [control.eq(past[-1][0]), hops.eq(past[-1][1])]
            past.append((control, hops))
        ended = [control.mac & control.os & control.last for control, _ in past]

        for row, (was, hops) in enumerate(past):
            now = data.View(CONTROL, dut.controls.word_select(row, CONTROL_BITS))
            for field in ("mac", "os", "first", "last"):
                m.d.comb += Assert(now[field] == was[field])
            m.d.comb += Assert(now.load == (was.load & (hops >= row)))
            waiting = Signal(name=f"waiting_{row}")
            for ago in range(row + 1, ROWS):
                with m.If(ended[ago]):
                    m.d.comb += waiting.eq(1)
            m.d.comb += Assert(now.hold == waiting)
        return m


def test_each_row_does_what_row_0_did_and_holds_its_sums():
    cfg = SystolicConfig(rows=ROWS, cols=1)
    assert prove(EdgeHarness(Edge(cfg)), engine="abc pdr").status == "pass"


@pytest.mark.parametrize("old, new", [
    ("(hops != 0)", "(hops == 0)"),
    ("wait.eq(rows - 1 - row + merge)", "wait.eq(rows - row + merge)"),
    ("left.eq(hops - 1)", "left.eq(hops)"),
], ids=["wrong rows load", "waits longer", "one row short"])
def test_broken_control_is_seen(edited, old, new):
    cfg = SystolicConfig(rows=ROWS, cols=1)
    dut = edited("hw.skew", old, new).Edge(cfg)
    assert prove(EdgeHarness(dut), mode="bmc").status == "fail"
