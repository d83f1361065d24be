# amaranth: UnusedElaboratable=no
"""The whole array: right sums, in order, none lost, for every data and every schedule.

The commands are `tiles`; each stream offers or takes in whatever cycles it likes; there is no reset
in between.

- Mode `bmc`, depth as listed in `BOUNDED`: the first cycles after reset, long enough for the sums
  of the last tile and so many cycles of waits, anywhere. Data are free, or fixed where too many.
- Mode `prove`, by property-directed reachability: any number of cycles, fixed data.
- Mode `prove`, by induction over 2 cycles: what is offered is kept while it waits, whatever enters.
- Mode `prove`, equal registers merged first: an array of short paths beside one without, whatever
  enters, resets among it.
"""

import random
from dataclasses import replace

import pytest
from amaranth.hdl import Assert, Cat, Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from archsim.systolic import transfers
from hw.formal import prove
from hw.properties import AnySchedule, KeptOutputs, Work
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


def work_of(cfg: SystolicConfig, work: list[Tile], fixed: int | None = None) -> tuple[int, Work]:
    """Return the bits of the data of `work`, and its beats as functions of them or of `fixed`."""
    acts = cfg.act_beat_bits * sum(tile.act_beats for tile in work)
    bits = acts + cfg.weight_beat_bits * sum(tile.weight_beats for tile in work)

    def beats(data):
        data = data if fixed is None else Const(fixed % (1 << bits), bits)
        sums = sums_of(cfg, work, data[:acts], data[acts:])
        enter = {
            "i_commands": [Const(pack_tile(tile), COMMAND_BITS) for tile in work],
            "i_acts": split(data[:acts], cfg.act_beat_bits),
            "i_weights": split(data[acts:], cfg.weight_beat_bits),
        }
        return enter, {"o_sums": [Cat(total[:cfg.acc_bits] for total in row) for row in sums]}

    return bits, beats


def split(beats: Value, bits: int) -> list[Value]:
    """Return `beats` cut into those of `bits`."""
    return [beats[low : low + bits] for low in range(0, len(beats), bits)]


def harness(cfg: SystolicConfig, dut: Systolic, fixed: int | None = None) -> AnySchedule:
    return AnySchedule(dut, *work_of(cfg, tiles(cfg.rows), fixed), cfg.latency_cycles + cfg.rows)


SOME = random.Random(1).getrandbits(200)  # different numbers in every beat


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
    assert depth - 1 - last_cycle(cfg) == waits
    any_schedule = harness(cfg, Systolic(cfg), None if free else SOME)
    verdict = prove(any_schedule, mode="bmc", depth=depth, engine="abc bmc3")
    assert verdict.status == "pass", verdict.reason


@pytest.mark.slow
@pytest.mark.parametrize("cfg", [config(1, 1), config(2, 2)], ids=["1x1", "2x2"])
def test_every_schedule_of_any_length_gives_the_sums_of_some_data(cfg):
    verdict = prove(harness(cfg, Systolic(cfg), SOME), engine="abc pdr")
    assert verdict.status == "pass", verdict.reason


def test_offered_sums_are_kept_while_they_wait():
    verdict = prove(KeptOutputs(Systolic(config(2, 2))), depth=2)
    assert verdict.status == "pass", verdict.reason


class SameOutputs(wiring.Component):
    """Two arrays side by side, anything at the inputs of both; asserts that their outputs agree."""

    def __init__(self, one: Systolic, other: Systolic):
        self.one, self.other = one, other
        super().__init__(one.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.one, m.submodules.other = self.one, self.other
        for name, member in self.one.signature.members.items():
            outer, one, other = (getattr(ports, name) for ports in (self, self.one, self.other))
            if member.flow is In:
                m.d.comb += [inner.valid.eq(outer.valid) for inner in (one, other)]
                m.d.comb += [inner.payload.eq(outer.payload) for inner in (one, other)]
                m.d.comb += [outer.ready.eq(one.ready), Assert(one.ready == other.ready)]
            else:
                m.d.comb += [inner.ready.eq(outer.ready) for inner in (one, other)]
                m.d.comb += [outer.valid.eq(one.valid), outer.payload.eq(one.payload)]
                m.d.comb += Assert((one.valid == other.valid) & (one.payload == other.payload))
        return m


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("cfg", [
    pytest.param(config(1, 1), id="1x1"),
    pytest.param(config(2, 2, 3), id="2x2", marks=pytest.mark.slow),
])
def test_short_paths_change_no_output_in_any_cycle(cfg):
    same = SameOutputs(Systolic(cfg), Systolic(replace(cfg, short_paths=True)))
    verdict = prove(same, engine="abc scorr; pdr", timeout_s=1500)
    assert verdict.status == "pass", verdict.reason


BROKEN_STEPS = [
    ('own"] & ~line.o', 'own"] | ~line.o'),
    ("self.free | (", "self.free & ("),
    ("latency_cycles - 2,", "latency_cycles - 3,"),
    ("Out(1, init=1)", "Out(1)"),
]


@pytest.mark.parametrize("old, new", BROKEN_STEPS, ids=["or", "and", "a step early", "reset"])
def test_broken_copies_of_the_step_are_seen(edited, monkeypatch, old, new):
    broken = edited("hw.step", old, new)
    for name in ("Step", "Steps"):
        monkeypatch.setattr(f"hw.systolic.{name}", getattr(broken, name))
    cfg = config(1, 1)
    same = SameOutputs(Systolic(cfg), Systolic(replace(cfg, short_paths=True)))
    assert prove(same, mode="bmc", depth=14, engine="abc bmc3").status == "fail"


BROKEN = [
    ("hw.systolic", 'collector.step.eq(step["collector"])', "collector.step.eq(1)"),
    ("hw.systolic", "m.d.comb += write.addr.eq(slot.row)", "m.d.comb += write.addr.eq(0)"),
    ("hw.systolic", '"sums"), queue.i.ready)', '"sums"), Const(1))'),
    ("hw.systolic", "Mux(slot.accumulate, total.o", "Mux(slot.emit, total.o"),
]


@pytest.mark.parametrize("module, old, new", BROKEN, ids=["moves on", "row 0", "waits not", "adds"])
def test_a_broken_array_is_seen(edited, module, old, new):
    cfg = config(2, 1)
    any_schedule = harness(cfg, edited(module, old, new).Systolic(cfg), SOME)
    assert prove(any_schedule, mode="bmc", depth=18, engine="abc bmc3").status == "fail"


def test_an_array_whose_queue_drops_is_seen(edited, monkeypatch):
    broken = edited("hw.stream", "with m.If(self.o.ready | ~self.o.valid):", "with m.If(1):")
    monkeypatch.setattr("hw.systolic.PairQueue", broken.PairQueue)
    kept = KeptOutputs(Systolic(config(2, 2)))
    assert prove(kept, mode="bmc", depth=14, engine="abc bmc3").status == "fail"
