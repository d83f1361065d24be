# amaranth: UnusedElaboratable=no
"""The whole array: right sums, in order, none lost, for every data and every schedule.

The commands are `tiles`; each stream offers or takes in whatever cycles it likes; there is no reset
in between.

- Mode `bmc`, depth as listed in `BOUNDED`: the first cycles after reset, long enough for the sums
  of the last tile and so many cycles of waits, anywhere. Data are free, or fixed where too many.
- Mode `prove`, by property-directed reachability: any number of cycles, fixed data.
- Mode `prove`, by induction over 2 cycles: what is offered is kept while it waits, whatever enters.
"""

import math
import random

import pytest
from amaranth.hdl import Array, Assert, Assume, Cat, Const, Module, Mux, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from archsim.systolic import transfers
from hw.formal import prove
from hw.properties import Kept
from hw.systolic import Systolic
from machine.pe import PeConfig
from machine.systolic import COMMAND_BITS, SystolicConfig, Tile, pack_tile


def config(rows: int, cols: int, depth_cycles: int = 1) -> SystolicConfig:
    return SystolicConfig(rows=rows, cols=cols, a_bits=2, w_bits=2, acc_bits=5, acc_rows=2,
                          pe=PeConfig(depth_cycles=depth_cycles))


def tiles(rows: int) -> list[Tile]:
    """Return commands of both dataflows that store, accumulate, send and overlap."""
    return [
        Tile(dataflow="ws", m=2, k=rows, emit=False),
        Tile(dataflow="os", m=rows, k=2, accumulate=True),
        Tile(dataflow="ws", m=1, k=1),
    ]


def element(beats: Signal, lanes: int, bits: int, beat: int, lane: int):
    """Return the signed number of `lane` in `beat` of all `beats`."""
    return beats.word_select(beat * lanes + lane, bits).as_signed()


def sums_of(cfg: SystolicConfig, work: list[Tile], acts: Signal, weights: Signal) -> list[list]:
    """Return the rows of sums that `work` sends, by multiplying and adding alone."""
    stored = {row: [0] * cfg.cols for row in range(cfg.acc_rows)}
    sent, act, weight = [], 0, 0
    for tile in work:
        for row in range(tile.m):
            sums = list(stored[tile.acc_row + row]) if tile.accumulate else [0] * cfg.cols
            for col in range(cfg.cols):
                for k in range(tile.k):
                    beat, lane = (act + row, k) if tile.dataflow == "ws" else (act + k, row)
                    sums[col] += (element(acts, cfg.rows, cfg.a_bits, beat, lane)
                                  * element(weights, cfg.cols, cfg.w_bits, weight + k, col))
            if tile.emit:
                sent.append(sums)
            else:
                stored[tile.acc_row + row] = [total[:cfg.acc_bits].as_signed() for total in sums]
        act, weight = act + tile.act_beats, weight + tile.weight_beats
    return sent


class ArrayHarness(wiring.Component):
    """The array with `work` to do, any data and any schedule."""

    def __init__(self, dut: Systolic, work: list[Tile], fixed: dict[str, int] | None = None):
        self.fixed = fixed
        self.dut = dut
        self.cfg = dut.cfg
        self.work = work
        self.beats = {
            "i_commands": (len(work), COMMAND_BITS),
            "i_acts": (sum(tile.act_beats for tile in work), self.cfg.act_beat_bits),
            "i_weights": (sum(tile.weight_beats for tile in work), self.cfg.weight_beat_bits),
        }
        data = {name[2:]: In(math.prod(self.beats[name])) for name in ("i_acts", "i_weights")}
        super().__init__({
            **data,
            "offer": In(len(self.beats)),
            "noise": In(64),
            "take": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        m.d.comb += Assume(~ResetSignal())

        # The data are what they are in the first cycle; the commands are the tiles.
        started = Signal()
        m.d.sync += started.eq(1)
        every = {"i_commands": Cat(Const(pack_tile(tile), COMMAND_BITS) for tile in self.work)}
        for name, port in (("i_acts", self.acts), ("i_weights", self.weights)):
            if self.fixed:
                every[name] = Const(self.fixed[name], len(port))
                continue
            held = Signal(len(port), name=f"held_{name}")
            every[name] = Signal(len(port), name=f"every_{name}")
            m.d.comb += every[name].eq(Mux(started, held, port))
            m.d.sync += held.eq(every[name])

        # Each stream offers its next beat whenever it likes, and anything while it offers none.
        moved = {}
        for side, (name, (count, bits)) in enumerate(self.beats.items()):
            port = getattr(dut, name)
            moved[name] = at = Signal(range(count + 1), name=f"{name}_moved")
            beats = Array(every[name].word_select(beat, bits) for beat in range(count))
            m.d.comb += [
                port.valid.eq(self.offer[side] & (at < count)),
                port.payload.eq(Mux(port.valid, beats[at], self.noise)),
            ]
            m.d.sync += at.eq(at + (port.valid & port.ready))

        # The sums are those of the data, in order; after the last beat they are all there.
        want = sums_of(self.cfg, self.work, every["i_acts"], every["i_weights"])
        taken, quiet = Signal(range(len(want) + 1)), Signal(range(32))
        m.d.comb += dut.o_sums.ready.eq(self.take)
        with m.If(dut.o_sums.valid):
            m.d.comb += Assert(taken < len(want))
            for row, sums in enumerate(want):
                with m.If(taken == row):
                    for col, total in enumerate(sums):
                        got = dut.o_sums.payload.word_select(col, self.cfg.acc_bits)
                        m.d.comb += Assert(got == total[:self.cfg.acc_bits])
        m.d.sync += taken.eq(taken + (dut.o_sums.valid & dut.o_sums.ready))
        entered = (moved["i_acts"] == self.beats["i_acts"][0])
        with m.If(entered & self.take):
            m.d.sync += quiet.eq(quiet + (quiet != 31))
        with m.If(quiet > self.cfg.latency_cycles + self.cfg.rows):
            m.d.comb += Assert(taken == len(want))
        return m


def some_data(cfg: SystolicConfig, work: list[Tile]) -> dict[str, int]:
    """Return numbers for every beat, any but different ones."""
    draw = random.Random(cfg.rows * 10 + cfg.cols)
    return {"i_acts": draw.getrandbits(cfg.act_beat_bits * sum(t.act_beats for t in work)),
            "i_weights": draw.getrandbits(cfg.weight_beat_bits * sum(t.weight_beats for t in work))}


def last_cycle(cfg: SystolicConfig) -> int:
    """Return the cycle in which the last row of sums leaves if nothing waits."""
    return int(transfers(cfg, tiles(cfg.rows)).sums[-1])


# Which array, whether the data are free, cycles, cycles of waits among them.
BOUNDED = [
    pytest.param(config(1, 1), True, 12, 1, id="1x1"),
    pytest.param(config(2, 1), False, 14, 1, id="2x1"),
    pytest.param(config(1, 1), True, 16, 5, id="1x1-longer", marks=pytest.mark.slow),
    pytest.param(config(1, 2, 2), True, 14, 1, id="1x2-deep", marks=pytest.mark.slow),
    pytest.param(config(2, 2), False, 18, 4, id="2x2", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("cfg, free, depth, waits", BOUNDED)
def test_every_schedule_gives_the_sums_in_order(cfg, free, depth, waits):
    work = tiles(cfg.rows)
    assert depth - 1 - last_cycle(cfg) == waits
    harness = ArrayHarness(Systolic(cfg), work, None if free else some_data(cfg, work))
    verdict = prove(harness, mode="bmc", depth=depth, engine="abc bmc3")
    assert verdict.status == "pass", verdict.reason


@pytest.mark.slow
@pytest.mark.parametrize("cfg", [config(1, 1), config(2, 2)], ids=["1x1", "2x2"])
def test_every_schedule_of_any_length_gives_the_sums_of_some_data(cfg):
    work = tiles(cfg.rows)
    harness = ArrayHarness(Systolic(cfg), work, some_data(cfg, work))
    verdict = prove(harness, engine="abc pdr")
    assert verdict.status == "pass", verdict.reason


class KeptHarness(wiring.Component):
    """The array with anything at its inputs."""

    def __init__(self, dut: Systolic):
        self.dut = dut
        super().__init__(dut.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        wiring.connect(m, wiring.flipped(self), dut)
        m.submodules.kept = kept = Kept(dut.cfg.sum_beat_bits)
        m.d.comb += [
            kept.valid.eq(dut.o_sums.valid),
            kept.ready.eq(dut.o_sums.ready),
            kept.payload.eq(dut.o_sums.payload),
        ]
        return m


def test_offered_sums_are_kept_while_they_wait():
    verdict = prove(KeptHarness(Systolic(config(2, 2))), depth=2)
    assert verdict.status == "pass", verdict.reason


BROKEN = [
    ("hw.systolic", "part.step.eq(step) for part in (edge, acts, weights, sums, collector)",
     "part.step.eq(1) for part in (edge, acts, weights, sums, collector)"),
    ("hw.systolic", "m.d.comb += write.addr.eq(slot.row)", "m.d.comb += write.addr.eq(0)"),
    ("hw.systolic", "step = queue.i.ready", "step = 1"),
    ("hw.systolic", "added = Mux(slot.accumulate,", "added = Mux(slot.emit,"),
]


@pytest.mark.parametrize("module, old, new", BROKEN, ids=["moves on", "row 0", "waits not", "adds"])
def test_a_broken_array_is_seen(edited, module, old, new):
    cfg = config(2, 1)
    work = tiles(cfg.rows)
    dut = edited(module, old, new).Systolic(cfg)
    harness = ArrayHarness(dut, work, some_data(cfg, work))
    assert prove(harness, mode="bmc", depth=18, engine="abc bmc3").status == "fail"


def test_an_array_whose_queue_drops_is_seen(edited, monkeypatch):
    broken = edited("hw.stream", "with m.If(self.o.ready | ~self.o.valid):", "with m.If(1):")
    monkeypatch.setattr("hw.systolic.PairQueue", broken.PairQueue)
    harness = KeptHarness(Systolic(config(2, 2)))
    assert prove(harness, mode="bmc", depth=14, engine="abc bmc3").status == "fail"
