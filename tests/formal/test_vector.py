# amaranth: UnusedElaboratable=no
"""The vector unit's streams: nothing is lost, made up, reordered or changed while it waits.

Its lanes are cut out: in their place stands `Wires`, which hands bit 0 of x, inverted where that of
y is 1, through as many registers as a lane has. All else is the unit: programs, sequencer, control,
queue, the count of what is under way.

Of programs of one step, every beat of x leaves, in order, and one of y goes with it where the
program reads y. Mode `prove` (slow) by property-directed reachability: for any number of cycles,
any waits on every side and a reset at any time. Mode `bmc`: the first `DEPTH` cycles. Of any
program, what is offered is kept and what is pushed fits: mode `bmc`. The broken designs fail within
`DEPTH` cycles.
"""

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

import hw.vector
from hw.formal import prove
from hw.properties import Carried, Kept
from hw.vector_control import COMMAND
from hw.vector_lane import Lane
from machine.vector_core import COMMAND_BITS, VectorCoreConfig
from machine.vector_programs import Code

CFG = VectorCoreConfig(lanes=2, row_elements=4, unit_cycles=1)
ONE_STEP = (Code.COPY, Code.ADD, Code.MULTIPLY, Code.SCALE, Code.RELU)
OF_Y = (Code.ADD, Code.MULTIPLY)  # of these
DEPTH = 14  # a command, then room for 8 beats that wait


class Wires(wiring.Component):
    """What stands for a lane: registers, no arithmetic; all other outputs are 0."""

    def __init__(self):
        super().__init__(Lane.ports(CFG))

    def elaborate(self, platform):
        m = Module()
        bit = self.x[0] ^ (self.y[0] & self.prepare.b_place[0] & self.prepare.b_place[1])
        for stage in range(CFG.latency_cycles):
            later = Signal(name=f"bit_{stage}")
            m.d.sync += later.eq(bit)
            bit = later
        m.d.comb += self.o.eq(bit)
        return m


def modules() -> str:
    """Return RTLIL of what stands for a lane."""
    return rtlil.convert(Wires(), name="cut_lane").replace("attribute \\top 1\n", "")


class UnitHarness(wiring.Component):
    """The unit between free ends, and the beats inside it while it runs a one-step program."""

    def __init__(self, dut):
        self.dut = dut
        super().__init__({
            "choose": In(1), "commands": In(stream.Signature(COMMAND_BITS)),
            "x": In(stream.Signature(CFG.beat_bits)), "y": In(stream.Signature(CFG.beat_bits)),
            "o": Out(stream.Signature(CFG.beat_bits))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        for name, inner in (("commands", dut.i_commands), ("x", dut.i_x), ("y", dut.i_y)):
            wiring.connect(m, wiring.flipped(getattr(self, name)), inner)
        wiring.connect(m, dut.o, wiring.flipped(self.o))
        command = data.View(COMMAND, dut.i_commands.payload)
        one_step, of_y = (Cat(command.code == code for code in codes).any()
                          for codes in (ONE_STEP, OF_Y))
        m.d.comb += Assume(one_step & (command.rows_last < 2) & (command.width_last < 4))
        reads_y = Signal()
        with m.If(dut.i_commands.valid & dut.i_commands.ready):
            m.d.sync += reads_y.eq(of_y)

        moves = {name: port.valid & port.ready
                 for name, port in (("x", dut.i_x), ("y", dut.i_y), ("o", dut.o))}
        m.d.comb += Assert(moves["y"] == (moves["x"] & reads_y))
        m.submodules.kept = kept = Kept(1)
        m.submodules.carried = carried = Carried(1, CFG.output_depth)
        m.d.comb += [
            kept.valid.eq(dut.o.valid), kept.ready.eq(dut.o.ready),
            kept.payload.eq(dut.o.payload[0]),
            carried.choose.eq(self.choose), carried.entered.eq(moves["x"]),
            carried.expected.eq(dut.i_x.payload[0] ^ (dut.i_y.payload[0] & reads_y)),
            carried.left.eq(moves["o"]), carried.payload.eq(dut.o.payload[0]),
        ]
        return m


class Watched(hw.vector.OutputQueue):
    """The queue of the unit; asserts that what is pushed fits."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        inside = Signal(range(self.depth + 2))
        m.d.sync += inside.eq(inside + self.push - (self.o.valid & self.o.ready))
        m.d.comb += Assert(~self.push | (inside < self.depth))
        return m


class AnyProgram(wiring.Component):
    """The unit between free ends, any command."""

    def __init__(self, dut):
        self.dut = dut
        super().__init__({
            "commands": In(stream.Signature(COMMAND_BITS)),
            "x": In(stream.Signature(CFG.beat_bits)), "y": In(stream.Signature(CFG.beat_bits)),
            "o": Out(stream.Signature(CFG.beat_bits))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        for name, inner in (("commands", dut.i_commands), ("x", dut.i_x), ("y", dut.i_y)):
            wiring.connect(m, wiring.flipped(getattr(self, name)), inner)
        wiring.connect(m, dut.o, wiring.flipped(self.o))
        m.submodules.kept = kept = Kept(1)
        m.d.comb += [kept.valid.eq(dut.o.valid), kept.ready.eq(dut.o.ready),
                     kept.payload.eq(dut.o.payload[0])]
        return m


@pytest.mark.parametrize("mode, engine", [
    ("bmc", "abc bmc3"), pytest.param("prove", "abc pdr", marks=pytest.mark.slow)])
def test_every_beat_of_a_one_step_program_leaves_in_order(mode, engine):
    dut = hw.vector.Vector(CFG, library="cut")
    verdict = prove(UnitHarness(dut), mode=mode, depth=DEPTH, engine=engine, modules=modules(),
                    timeout_s=1200)
    assert verdict.status == "pass", verdict.reason


def test_what_any_program_pushes_fits_and_what_it_offers_is_kept(monkeypatch):
    monkeypatch.setattr(hw.vector, "OutputQueue", Watched)
    dut = hw.vector.Vector(CFG, library="cut")
    verdict = prove(AnyProgram(dut), mode="bmc", depth=DEPTH, engine="abc bmc3", modules=modules())
    assert verdict.status == "pass", verdict.reason


def test_a_push_that_does_not_fit_is_seen(edited):
    broken = edited("hw.vector", "sequencer.room.eq(used != cfg.output_depth)",
                    "sequencer.room.eq(1)")
    broken.OutputQueue = Watched
    verdict = prove(AnyProgram(broken.Vector(CFG, library="cut")), mode="bmc", depth=DEPTH,
                    engine="abc bmc3", modules=modules())
    assert verdict.status == "fail"


@pytest.mark.parametrize("old, new", [
    ("sequencer.room.eq(used != cfg.output_depth)", "sequencer.room.eq(1)"),
    ("self.i_y.ready.eq(sequencer.issue & sequencer.takes_y)",
     "self.i_y.ready.eq(sequencer.issue)"),
    ("sequencer.x_valid.eq(self.i_x.valid)", "sequencer.x_valid.eq(1)"),
], ids=["no room", "y taken in vain", "x not waited for"])
def test_a_broken_unit_is_seen(edited, old, new):
    dut = edited("hw.vector", old, new).Vector(CFG, library="cut")
    verdict = prove(UnitHarness(dut), mode="bmc", depth=DEPTH, engine="abc bmc3",
                    modules=modules())
    assert verdict.status == "fail"
