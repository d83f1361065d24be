# amaranth: UnusedElaboratable=no
"""The ends of other blocks: the vector unit's queue, and the zero points of groups.

The queue: mode `prove` by property-directed reachability, for any number of cycles and a reset at
any of them. The zero points: mode `bmc`, depth 14, under every schedule, for the rows of `ROWS` on
some data. The broken designs fail within the depth of each test.
"""

import random

import pytest
from amaranth.hdl import Assert, Assume, Cat, Const, Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.formal import prove
from hw.group import GroupZero
from hw.properties import AnySchedule, Carried, Kept
from hw.vector import OutputQueue
from machine.group import GroupConfig

WIDTH, DEPTH = 2, 3
ROWS = (2, 1, 3)  # of each group


class QueueHarness(wiring.Component):
    """The queue, into which no more is pushed than fits."""

    def __init__(self, dut):
        self.dut = dut
        super().__init__({"choose": In(1), "push": In(1), "beat": In(WIDTH),
                          "o": Out(stream.Signature(WIDTH))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        wiring.connect(m, dut.o, wiring.flipped(self.o))
        m.submodules.kept = kept = Kept(WIDTH)
        m.submodules.carried = carried = Carried(WIDTH, DEPTH)
        m.d.comb += [
            Assume(~self.push | (carried.inside < DEPTH)),
            dut.push.eq(self.push),
            dut.beat.eq(self.beat),
            kept.valid.eq(dut.o.valid),
            kept.ready.eq(dut.o.ready),
            kept.payload.eq(dut.o.payload),
            carried.choose.eq(self.choose),
            carried.entered.eq(self.push),
            carried.expected.eq(self.beat),
            carried.left.eq(dut.o.valid & dut.o.ready),
            carried.payload.eq(dut.o.payload),
            Assert(dut.o.valid == (carried.inside > 0)),
        ]
        return m


def test_the_vector_units_queue_keeps_every_beat_in_order():
    verdict = prove(QueueHarness(OutputQueue(WIDTH, DEPTH)), engine="abc pdr")
    assert verdict.status == "pass", verdict.reason


@pytest.mark.parametrize("old, new", [
    ("(first, taken), (end, self.push)", "(first, self.o.valid), (end, self.push)"),
    ("level.eq(level + self.push - taken)", "level.eq(level + (self.push & ~taken) - taken)"),
    ("Mux(pointer == self.depth - 1, 0, pointer + 1)", "pointer + 1"),
], ids=["does not wait", "one is forgotten", "beyond the end"])
def test_a_broken_queue_is_seen(edited, old, new):
    dut = edited("hw.vector", old, new).OutputQueue(WIDTH, DEPTH)
    verdict = prove(QueueHarness(dut), mode="bmc", depth=10, engine="abc bmc3")
    assert verdict.status == "fail"


def zero_points(dut: GroupZero) -> AnySchedule:
    """Return the stage with groups of `ROWS` to do: each row less its zero points."""
    cfg, draw = dut.cfg, random.Random(3)
    sums, act_sums, zeros, results = [], [], [], []
    for rows in ROWS:
        zero = [draw.getrandbits(cfg.w_bits) for _ in range(cfg.cols)]
        zeros.append(Cat(Const(rows - 1, 16), *(Const(z, cfg.w_bits) for z in zero)))
        for _ in range(rows):
            added = draw.getrandbits(cfg.act_sum_bits) - (1 << cfg.act_sum_bits - 1)
            row = [draw.getrandbits(cfg.acc_bits) for _ in range(cfg.cols)]
            sums.append(Cat(Const(s, cfg.acc_bits) for s in row))
            act_sums.append(Const(added % (1 << cfg.act_sum_bits), cfg.act_sum_bits))
            results.append(Cat(Const((s - z * added) % (1 << cfg.acc_bits), cfg.acc_bits)
                               for s, z in zip(row, zero, strict=True)))
    enter = {"i_sums": sums, "i_act_sums": act_sums, "i_zeros": zeros}
    return AnySchedule(dut, 1, lambda _: (enter, {"o": results}), cfg.latency_cycles + 2)


def test_every_schedule_takes_the_zero_points_of_its_group_off_each_row():
    harness = zero_points(GroupZero(GroupConfig(cols=2)))
    verdict = prove(harness, mode="bmc", depth=14, engine="abc bmc3")
    assert verdict.status == "pass", verdict.reason


@pytest.mark.parametrize("old, new", [
    ("move & last if port is self.i_zeros else move", "move"),
    ("total - zero * added", "total + zero * added"),
    ("self.i_sums.valid & self.i_act_sums.valid &", "self.i_sums.valid &"),
], ids=["word goes early", "added", "does not wait"])
def test_broken_zero_points_are_seen(edited, old, new):
    dut = edited("hw.group", old, new).GroupZero(GroupConfig(cols=2))
    verdict = prove(zero_points(dut), mode="bmc", depth=12, engine="abc bmc3")
    assert verdict.status == "fail"
