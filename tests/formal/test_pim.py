# amaranth: UnusedElaboratable=no
"""Streams of memory that computes keep what they offer while it waits, and lose nothing.

- Mode `prove`, by property-directed reachability, so for any number of cycles and with a reset at
  any of them: the host's window, the bursts on their way to a write and from a read, the credits
  that bound them.
- Mode `bmc`, depth 14: the bank unit under every schedule, on the columns of `COLUMNS`; and by
  induction over 2 cycles: it keeps its result.

The broken designs fail within the depth of each test. The channel as a whole is not proved: its
ends are these blocks.
"""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.hdl import Assert, Assume, Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from pydantic import TypeAdapter

import machine.dram as dram
from hw.formal import prove
from hw.pim_channel import BurstReader, BurstWriter, Credits
from hw.pim_queue import HostWindow
from hw.pim_unit import BankUnit, column_layout
from hw.properties import AnySchedule, Carried, Kept, KeptOutputs
from machine.pim import BankUnitConfig, PimConfig

HBM2 = TypeAdapter(dram.DramConfig).validate_json(json.dumps(tomllib.loads(
    (Path(dram.__file__).parent / "presets/dram/hbm2-neupims.toml").read_text())))
# Bursts of 16 bits in two beats, and in one; a window of two.
TWO = replace(HBM2, ranks=1, bank_groups=1, banks_per_group=2, rows=2, columns=8, bus_bits=8,
              burst_length=2, columns_per_cycle=1,
              timing=replace(HBM2.timing, cwl_cycles=1, cl_cycles=4))
ONE = replace(TWO, columns_per_cycle=2)
PIM = PimConfig(unit=BankUnitConfig(lanes=2, format="int8"), buffer_bytes=8, gwrite_cycles=24,
                dot_cycles=2, host_entries=2)
DEPTH = 2
COLUMNS = [(0x7F80, 0x8081, 1, 0), (0x1234, 0x0FF1, 0, 1), (0x8080, 0x8080, 1, 1),
           (0x0102, 0x0304, 1, 1)]


class WindowHarness(wiring.Component):
    """The window, any of whose requests may be served; one, chosen freely, is followed."""

    def __init__(self, dut):
        self.dut = dut
        super().__init__({"choose": In(1), "i": In(stream.Signature(dut.width)),
                          "served": In(1), "place": In(2)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        wiring.connect(m, wiring.flipped(self.i), dut.i)
        count = Signal(range(dut.depth + 1))
        m.d.comb += [Assume(~self.served | (self.place < count)), dut.served.eq(self.served),
                     dut.place.eq(self.place), Assert(dut.i.ready == (count < dut.depth)),
                     Assert(dut.valid == (1 << count) - 1)]
        enters = self.i.valid & dut.i.ready
        m.d.sync += count.eq(count + enters - self.served)

        # The one that is followed stays, one place nearer for each older one that leaves.
        following, value, at = Signal(), Signal(dut.width), Signal(2)
        nearer = self.served & (self.place < at)
        with m.If(following):
            m.d.comb += Assert((dut.requests.word_select(at, dut.width) == value) & (at < count))
            m.d.sync += [at.eq(at - nearer), following.eq(~(self.served & (self.place == at)))]
        with m.Elif(self.choose & enters):
            m.d.sync += [following.eq(1), value.eq(self.i.payload), at.eq(count - self.served)]
        return m


def test_the_hosts_window_loses_no_request_whichever_is_served():
    verdict = prove(WindowHarness(HostWindow(3, 2)), engine="abc pdr")
    assert verdict.status == "pass", verdict.reason


@pytest.mark.parametrize("old, new", [
    ("moves = self.served & (self.place <= k)", "moves = self.served & (self.place < k)"),
    ("self.i.ready.eq(~self.valid[-1])", "self.i.ready.eq(1)"),
    ("& ~valid[k] & (valid[k - 1] if k else 1)", "& ~self.valid[k] & (valid[k - 1] if k else 1)"),
], ids=["the wrong one moves", "takes without room", "gap"])
def test_a_broken_window_is_seen(edited, old, new):
    dut = edited("hw.pim_queue", old, new).HostWindow(3, 2)
    assert prove(WindowHarness(dut), mode="bmc").status == "fail"


class WriterHarness(wiring.Component):
    """Bursts of one bank to WRs: none goes before its burst is there, none more than fit."""

    def __init__(self, dut):
        self.dut = dut
        super().__init__({"choose": In(1), "wr": In(1), "i": In(stream.Signature(16)),
                          "o": Out(stream.Signature(16))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        wiring.connect(m, wiring.flipped(self.i), dut.i)
        wiring.connect(m, dut.o, wiring.flipped(self.o))
        waiting, sent = Signal(range(3)), Signal(range(DEPTH + 1))
        entered, left = self.i.valid & dut.i.ready, dut.o.valid & self.o.ready
        m.d.comb += [Assume(~self.wr | (waiting > 0) & (sent < DEPTH)), dut.wr.eq(self.wr)]
        m.d.sync += [waiting.eq(waiting + entered - self.wr), sent.eq(sent + self.wr - left)]
        m.submodules.kept = kept = Kept(16)
        m.submodules.carried = carried = Carried(16, DEPTH + 2)
        m.d.comb += [
            kept.valid.eq(dut.o.valid), kept.ready.eq(self.o.ready),
            kept.payload.eq(dut.o.payload), carried.choose.eq(self.choose),
            carried.entered.eq(entered), carried.expected.eq(self.i.payload),
            carried.left.eq(left), carried.payload.eq(dut.o.payload),
            Assert(dut.i.ready == (waiting < 2)), Assert(dut.o.valid == (sent > 0))]
        return m


def test_a_burst_to_write_is_kept_until_its_beat():
    verdict = prove(WriterHarness(BurstWriter(ONE, PIM)), engine="abc pdr")
    assert verdict.status == "pass", verdict.reason


class ReaderHarness(wiring.Component):
    """RDs, as many as there are credits, beats of them in any later cycles, bursts to a free end.

    Beats and places are followed apart: of two payloads that leave together, each is the one that
    entered in its turn.
    """

    def __init__(self, dut, credits):
        self.dut, self.credits = dut, credits
        super().__init__({"choose": In(2), "rd": In(1), "where": In(len(dut.where)),
                          "i": In(stream.Signature(8)),
                          "o": Out(stream.Signature(len(dut.o.payload)))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut, m.submodules.credits = dut, credits = self.dut, self.credits
        wiring.connect(m, wiring.flipped(self.i), dut.i)
        wiring.connect(m, dut.o, wiring.flipped(self.o))
        owed, odd, early = Signal(range(2 * DEPTH + 2)), Signal(), Signal(8)
        left = dut.o.valid & self.o.ready
        m.d.comb += [
            Assume(~self.rd | ~credits.full), Assume(~self.i.valid | (owed > 0)),
            dut.rd.eq(self.rd), dut.where.eq(self.where), credits.sent.eq(self.rd),
            credits.taken.eq(left)]
        m.d.sync += owed.eq(owed + Mux(self.rd, 2, 0) - self.i.valid)
        with m.If(self.i.valid):
            m.d.sync += [odd.eq(~odd), early.eq(self.i.payload)]
        m.submodules.kept = kept = Kept(len(dut.o.payload))
        m.d.comb += [kept.valid.eq(dut.o.valid), kept.ready.eq(self.o.ready),
                     kept.payload.eq(dut.o.payload)]
        for name, chosen, entered, expected, payload in (
                ("bursts", self.choose[0], self.i.valid & odd, Cat(early, self.i.payload),
                 dut.o.payload[:16]),
                ("places", self.choose[1], self.rd, self.where, dut.o.payload[16:])):
            m.submodules[name] = carried = Carried(len(payload), DEPTH)
            m.d.comb += [carried.choose.eq(chosen), carried.entered.eq(entered),
                         carried.expected.eq(expected), carried.left.eq(left),
                         carried.payload.eq(payload)]
            if name == "bursts":
                m.d.comb += Assert(dut.o.valid == (carried.inside > 0))
        return m


def reader_harness(reader=BurstReader, credits=Credits):
    return ReaderHarness(reader(TWO, PIM, DEPTH), credits(DEPTH))


def test_bursts_that_are_read_wait_whole_and_in_order_and_never_overflow():
    verdict = prove(reader_harness(), engine="abc pdr")
    assert verdict.status == "pass", verdict.reason


@pytest.mark.parametrize("old, new", [
    ("inside.eq(inside + self.sent - self.taken)", "inside.eq(Mux(self.taken, 0, inside + 1))"),
    ("self.full.eq(inside == self.depth)", "self.full.eq(0)"),
    ("places.r_en.eq(bursts.r_rdy & self.o.ready)", "places.r_en.eq(self.o.ready)"),
    ("bursts.w_en.eq(self.i.valid & last)", "bursts.w_en.eq(self.i.valid)"),
    ("sent.r_en.eq(self.o.ready & last)", "sent.r_en.eq(1)"),
    ("sent.w_en.eq(self.wr)", "sent.w_en.eq(self.wr & self.o.ready)"),
], ids=["forgets", "no limit", "place goes early", "half a burst", "waits not", "drops"])
def test_a_broken_end_of_the_channel_is_seen(edited, old, new):
    module = edited("hw.pim_channel", old, new)
    harness = (WriterHarness(module.BurstWriter(ONE, PIM)) if "sent." in old
               else reader_harness(module.BurstReader, module.Credits))
    assert prove(harness, mode="bmc", depth=20, engine="abc bmc3").status == "fail"


def unit_harness(unit=BankUnit):
    """Return a bank unit with `COLUMNS` to add, in any schedule."""
    cfg = PIM.unit

    def signed(code):
        return code - 256 if code >> 7 else code

    def work(data):
        columns, sums, total = [], [], 0
        for matrix, vector, first, last in COLUMNS:
            layout = column_layout(cfg)
            columns.append(Const(
                matrix << layout["matrix"].offset | vector << layout["vector"].offset
                | first << layout["first"].offset | last << layout["last"].offset, layout.size))
            total = (0 if first else total) + sum(
                signed(matrix >> k & 0xFF) * signed(vector >> k & 0xFF) for k in (0, 8))
            sums += [Const(total & 0xFFFFFFFF, 32)] if last else []
        return {"i": columns}, {"o": sums}

    return AnySchedule(unit(cfg), 1, work, cfg.latency_cycles + len(COLUMNS) + 1)


def test_the_bank_unit_gives_its_results_in_order_under_every_schedule():
    verdict = prove(unit_harness(), mode="bmc", depth=14, engine="abc bmc3")
    assert verdict.status == "pass", verdict.reason
    verdict = prove(KeptOutputs(BankUnit(PIM.unit)), depth=2)
    assert verdict.status == "pass", verdict.reason


@pytest.mark.parametrize("old, new", [
    ("step.eq(~self.o.valid | self.o.ready)", "step.eq(1)"),
    ("self.o.valid.eq(valid[-1] & last[-1])", "self.o.valid.eq(valid[-1])"),
    ("step & valid[-1]", "valid[-1]"),
], ids=["waits not", "too many", "adds twice"])
def test_a_broken_bank_unit_is_seen(edited, old, new):
    unit = edited("hw.pim_unit", old, new).BankUnit
    assert prove(unit_harness(unit), mode="bmc", depth=14, engine="abc bmc3").status == "fail"
