# amaranth: UnusedElaboratable=no
"""The whole array: right sums, in order, none lost, for every data and every schedule.

Mode: `bmc`. From reset, for `DEPTH` cycles, each stream offers or takes in any cycles it likes, and
activations and weights are any numbers; the commands are `TILES`. Without a wait the sums of the
last tile leave in the cycle before `DEPTH` or earlier, as each case's test measures; so many cycles
of waits are covered, anywhere. That what is offered is kept while it waits is proved for any number of
cycles (mode `prove`).
"""

import pytest
from amaranth.hdl import Array, Assert, Assume, Module, Mux, ResetSignal, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from archsim.systolic import transfers
from hw.formal import prove
from hw.properties import Kept
from hw.systolic import Systolic
from machine.pe import PeConfig
from machine.systolic import COMMAND_BITS, SystolicConfig, Tile, pack_tile

ROWS = {"row": 0, "accumulate": True}


def config(rows: int, cols: int, depth_cycles: int = 1) -> SystolicConfig:
    return SystolicConfig(rows=rows, cols=cols, a_bits=2, w_bits=2, acc_bits=5, acc_rows=2,
                          pe=PeConfig(depth_cycles=depth_cycles))


def tiles(rows: int) -> list[Tile]:
    """Return commands of both dataflows that store, accumulate, send and overlap."""
    return [
        Tile(dataflow="ws", m=2, k=rows, emit=False),
        Tile(dataflow="os", m=rows, k=2, accumulate=True),
        Tile(dataflow="ws", m=1, k=1, accumulate=True, acc_row=1),
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

    def __init__(self, dut: Systolic, work: list[Tile]):
        self.dut = dut
        self.cfg = dut.cfg
        self.work = work
        self.beats = {
            "i_commands": (len(work), COMMAND_BITS),
            "i_acts": (sum(tile.act_beats for tile in work), self.cfg.act_beat_bits),
            "i_weights": (sum(tile.weight_beats for tile in work), self.cfg.weight_beat_bits),
        }
        data = {name: In(count * bits) for name, (count, bits) in self.beats.items()}
        super().__init__({
            **data,
            "offer": In(len(data)),
            "noise": In(64),
            "take": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        m.d.comb += Assume(~ResetSignal())

        # The data stay as they are; the commands are the tiles.
        started = Signal()
        m.d.sync += started.eq(1)
        for name in self.beats:
            port = getattr(self, name)
            before = Signal.like(port, name=f"{name}_before")
            m.d.sync += before.eq(port)
            m.d.comb += Assume(~started | (port == before))
        for index, tile in enumerate(self.work):
            word = self.i_commands.word_select(index, COMMAND_BITS)
            m.d.comb += Assume(word == pack_tile(tile))

        # Each stream offers its next beat whenever it likes, and anything while it offers none.
        moved = {}
        for side, (name, (count, bits)) in enumerate(self.beats.items()):
            port = getattr(dut, name)
            moved[name] = at = Signal(range(count + 1), name=f"{name}_moved")
            beats = Array(getattr(self, name).word_select(beat, bits) for beat in range(count))
            m.d.comb += [
                port.valid.eq(self.offer[side] & (at < count)),
                port.payload.eq(Mux(port.valid, beats[at], self.noise)),
            ]
            m.d.sync += at.eq(at + (port.valid & port.ready))

        # The sums are those of the data, in order; after the last beat they are all there.
        want = sums_of(self.cfg, self.work, self.i_acts, self.i_weights)
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


@pytest.mark.parametrize("cfg, depth", [(config(1, 1), 16)], ids=["1x1"])
def test_every_schedule_gives_the_sums_in_order(cfg, depth):
    work = tiles(cfg.rows)
    assert transfers(cfg, work).sums[-1] < depth
    verdict = prove(ArrayHarness(Systolic(cfg), work), mode="bmc", depth=depth, engine="abc bmc3")
    assert verdict.status == "pass", verdict.reason
