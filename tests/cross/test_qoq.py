# amaranth: UnusedElaboratable=no
"""4-bit weights: the decoder in front of an array, the zero points behind one. RTL, golden, cycles.
"""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from archsim.group import group_transfers
from archsim.qoq import qoq_transfers
from golden.group import without_zeros
from golden.qoq import decode, decode_beats
from golden.systolic import run
from hw.cxxrtl import StreamSimulation, pack_beats, unpack_beats
from hw.group import GroupZero
from hw.qoq import QoqDecoder, QoqSystolic
from hw.stream import PairQueue, collect, drive
from machine.group import GroupConfig
from machine.pe import PeConfig
from machine.qoq import CODE_BITS, GROUP_BITS, pack_group
from machine.systolic import SystolicConfig, Tile, pack_tile

ARRAYS = [
    SystolicConfig(rows=3, cols=2, acc_rows=9, pe=PeConfig(kind="qoq")),
    SystolicConfig(rows=2, cols=2, acc_rows=9, pe=PeConfig(kind="qoq", k_lanes=2, depth_cycles=2)),
]
STAGES = [GroupConfig(cols=3, group=20, acc_bits=17), GroupConfig(cols=1, a_bits=16, w_bits=8)]
ROUNDS = 25


def stalls(rng: np.random.Generator, beats: int) -> np.ndarray:
    """Return random times for the beats of one stream: none, few, many or long waits."""
    most, chance = [(1, 0.0), (2, 0.3), (4, 0.8), (25, 0.2)][rng.integers(4)]
    return np.cumsum(rng.integers(0, most, beats) * (rng.random(beats) < chance))


def split(rng: np.random.Generator, beats: int) -> list[int]:
    """Return random sizes of groups that `beats` make."""
    cuts = np.flatnonzero(rng.random(beats - 1) < 0.3) + 1
    return np.diff([0, *cuts, beats]).tolist()


def words(values: list[int], bits: int) -> np.ndarray:
    """Return Python integers of `bits` as words, uint32 [n, words]."""
    count = -(-bits // 32)
    return np.array([list(value.to_bytes(4 * count, "little")) for value in values],
                    np.uint8).reshape(len(values), 4 * count).view("<u4")


def assert_same(what: str, got: np.ndarray, want: np.ndarray) -> None:
    """Fail with the first difference between the RTL and what it should be."""
    assert got.shape == want.shape, f"{what}: shape {got.shape}, want {want.shape}"
    for index in np.argwhere(got != want)[:1]:
        at = tuple(int(i) for i in index)
        pytest.fail(f"{what}{list(at)}: RTL {got[at]}, want {want[at]}")


class Decoders(wiring.Component):
    """A decoder between streams.

    Members
    -------
    i : In(stream)
        Two codes in bits 0 to 7, then scale and zero point of the one column.
    o : Out(stream)
        Two weights.
    """

    def __init__(self):
        super().__init__({"i": In(stream.Signature(20)), "o": Out(stream.Signature(16))})

    def elaborate(self, platform):
        m = Module()
        cfg = SystolicConfig(rows=1, cols=1, pe=PeConfig(kind="qoq", k_lanes=2))
        m.submodules.decoder = decoder = QoqDecoder(cfg)
        m.submodules.queue = queue = PairQueue(16)
        m.d.comb += [
            decoder.codes.eq(self.i.payload[:8]), decoder.groups.eq(self.i.payload[8:]),
            queue.i.payload.eq(decoder.weights), queue.i.valid.eq(self.i.valid),
            self.i.ready.eq(queue.i.ready),
        ]
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        return m


@pytest.mark.cxxrtl
def test_decoder_of_every_input():
    simulation, every = StreamSimulation(Decoders()), np.arange(1 << 20)
    log = simulation.run({"i": (every.astype(np.uint32)[:, None], np.zeros(len(every)))},
                         {"o": np.zeros(len(every))}, max_cycles=1 << 21)
    codes = np.stack([every & 15, every >> 4 & 15], axis=1)
    want = decode(codes, (every >> 8 & 255)[:, None], (every >> 16)[:, None])
    assert_same("weights", unpack_beats(log["o"].words, 2, 8), want)


def random_tiles(rng: np.random.Generator, cfg: SystolicConfig) -> list[Tile]:
    """Return random commands that `cfg` can execute, dataflows mixed."""
    tiles = []
    for _ in range(6):
        dataflow = str(rng.choice(cfg.dataflows))
        m, k = (int(size) for size in rng.integers(1, 10, 2))
        short = int(rng.integers(1, cfg.rows + 1))
        m, k = (m, short) if dataflow == "ws" else (short, k)
        tiles.append(Tile(dataflow=dataflow, m=m, k=k, accumulate=bool(rng.integers(2)),
                          emit=bool(rng.integers(2)),
                          acc_row=int(rng.integers(0, cfg.acc_rows - m + 1))))
    return tiles


def random_job(rng: np.random.Generator, cfg: SystolicConfig):
    """Return the streams of random tiles, the times of all and the sums that golden makes."""
    tiles, lanes = random_tiles(rng, cfg), cfg.pe.k_lanes
    acts = rng.integers(-128, 128, (sum(t.act_beats for t in tiles), cfg.rows * lanes))
    codes = rng.integers(0, 16, (sum(t.weight_beats for t in tiles), cfg.cols * lanes))
    beats = split(rng, len(codes))
    scales = rng.choice([0, 1, 8, 15, 17, 255], (len(beats), cfg.cols))
    zeros = rng.integers(0, 16, (len(beats), cfg.cols))
    groups = [pack_group(count, s, z) for count, s, z in
              zip(beats, scales.tolist(), zeros.tolist(), strict=True)]
    streams = {
        "i_commands": np.array([pack_tile(t) for t in tiles], "<u8").view("<u4").reshape(-1, 2),
        "i_acts": pack_beats(acts, cfg.a_bits),
        "i_codes": pack_beats(codes, CODE_BITS),
        "i_groups": words(groups, 16 + cfg.cols * GROUP_BITS),
    }
    times = {f"{name[2:]}_valid": stalls(rng, len(words)) for name, words in streams.items()}
    sums = run(cfg, tiles, acts, decode_beats(cfg, codes, beats, scales, zeros))
    return tiles, streams, beats, times, stalls(rng, len(sums)), sums


def expected_cycles(cfg, tiles, beats, times, ready) -> dict[str, np.ndarray]:
    moved, groups = qoq_transfers(cfg, tiles, beats, sums_ready=ready, **times)
    return {"i_commands": moved.commands, "i_acts": moved.acts, "i_codes": moved.weights,
            "i_groups": groups, "o_sums": moved.sums}


@pytest.mark.cxxrtl
@pytest.mark.parametrize("cfg", ARRAYS, ids=lambda cfg: f"lanes{cfg.pe.k_lanes}")
def test_array_behind_the_decoder_with_random_stalls(cfg):
    simulation, rng = StreamSimulation(QoqSystolic(cfg)), np.random.default_rng(cfg.rows)
    for _ in range(ROUNDS):
        tiles, streams, beats, times, ready, sums = random_job(rng, cfg)
        log = simulation.run({name: (words, times[f"{name[2:]}_valid"])
                              for name, words in streams.items()}, {"o_sums": ready})
        assert_same("sums", unpack_beats(log["o_sums"].words, cfg.cols, cfg.acc_bits), sums)
        for name, cycles in expected_cycles(cfg, tiles, beats, times, ready).items():
            assert_same(f"cycles of {name}", log[name].cycles, cycles)


def random_rows(rng: np.random.Generator, cfg: GroupConfig):
    """Return the streams of random rows of groups, the times of all and golden's results."""
    count = int(rng.integers(1, 30))
    rows = split(rng, count)
    largest, low = cfg.largest, -(1 << cfg.act_sum_bits - 1)
    sums = np.where(rng.random((count, cfg.cols)) < 0.2, rng.choice([-largest, largest]),
                    rng.integers(-largest, largest + 1, (count, cfg.cols)))
    act_sums = np.where(rng.random(count) < 0.2, low, rng.integers(low, -low, count))
    zeros = rng.choice([0, 1, 5, (1 << cfg.w_bits) - 1], (len(rows), cfg.cols))
    heads = [size - 1 | sum(zero << 16 + col * cfg.w_bits for col, zero in enumerate(line))
             for size, line in zip(rows, zeros.tolist(), strict=True)]
    streams = {"i_sums": pack_beats(sums, cfg.acc_bits),
               "i_act_sums": pack_beats(act_sums[:, None], cfg.act_sum_bits),
               "i_zeros": words(heads, cfg.zero_word_bits)}
    times = {f"{name[2:]}_valid": stalls(rng, len(payload)) for name, payload in streams.items()}
    return rows, streams, times, stalls(rng, count), without_zeros(cfg, sums, act_sums, rows, zeros)


@pytest.mark.cxxrtl
@pytest.mark.parametrize("cfg", STAGES, ids=lambda cfg: f"cols{cfg.cols}")
def test_zero_points_come_off_with_random_stalls(cfg):
    simulation, rng = StreamSimulation(GroupZero(cfg)), np.random.default_rng(cfg.cols)
    vectors = 0
    while vectors < 10_000:
        rows, streams, times, ready, results = random_rows(rng, cfg)
        log = simulation.run({name: (payload, times[f"{name[2:]}_valid"])
                              for name, payload in streams.items()}, {"o": ready})
        assert_same("results", unpack_beats(log["o"].words, cfg.cols, cfg.acc_bits), results)
        moved = group_transfers(rows, ready=ready, **times)
        for name, cycles in (("i_sums", moved.rows), ("i_act_sums", moved.rows),
                             ("i_zeros", moved.zeros), ("o", moved.o)):
            assert_same(f"cycles of {name}", log[name].cycles, cycles)
        vectors += results.size


def in_amaranth(dut, streams: dict[str, np.ndarray], times, output: str, ready):
    """Run `dut` in Amaranth's simulator; return the cycles of each stream and what left."""
    cycles: dict[str, list[int]] = {}
    got: list[int] = []

    def source(name: str):
        payloads = [int.from_bytes(word.tobytes(), "little") for word in streams[name]]

        async def bench(ctx):
            cycles[name] = await drive(ctx, getattr(dut, name), payloads,
                                       times[f"{name[2:]}_valid"])
        return bench

    async def sink(ctx):
        payloads, cycles[output] = await collect(ctx, getattr(dut, output), ready)
        got.extend(payloads)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for name in streams:
        simulator.add_testbench(source(name))
    simulator.add_testbench(sink)
    simulator.run()
    return cycles, got


def beats_of(values: np.ndarray, bits: int) -> list[int]:
    mask = (1 << bits) - 1
    return [sum((int(value) & mask) << lane * bits for lane, value in enumerate(row))
            for row in values]


@pytest.mark.parametrize("seed", range(2))
def test_amaranths_simulator_agrees_as_well(seed):
    rng = np.random.default_rng(seed)
    cfg = ARRAYS[seed]
    tiles, streams, beats, times, ready, sums = random_job(rng, cfg)
    cycles, got = in_amaranth(QoqSystolic(cfg), streams, times, "o_sums", ready)
    assert got == beats_of(sums, cfg.acc_bits)
    expected = expected_cycles(cfg, tiles, beats, times, ready)
    assert cycles == {name: value.tolist() for name, value in expected.items()}

    stage = STAGES[seed]
    rows, streams, times, ready, results = random_rows(rng, stage)
    cycles, got = in_amaranth(GroupZero(stage), streams, times, "o", ready)
    assert got == beats_of(results, stage.acc_bits)
    assert cycles["o"] == group_transfers(rows, ready=ready, **times).o.tolist()


def test_a_row_leaves_the_stage_after_its_latency():
    cfg = GroupConfig(cols=1)
    zero = np.zeros(3, np.int64)
    moved = group_transfers([3], sums_valid=zero, act_sums_valid=zero,
                            zeros_valid=np.array([4]), ready=zero)
    assert moved.rows.tolist() == [4, 5, 6] and moved.zeros.tolist() == [6]
    assert (moved.o - moved.rows).tolist() == [cfg.latency_cycles] * 3
