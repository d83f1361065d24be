# amaranth: UnusedElaboratable=no
"""The table quantiser's RTL, simulator and golden agree: codes, scales and the cycle of each."""

from itertools import product as product_of

import numpy as np
import pytest
from amaranth.sim import Simulator

from archsim.lut import quantise_transfers
from golden.lut import quantise_tables, tables
from hw.cxxrtl import StreamSimulation, pack_beats, unpack_beats
from hw.lut_quantise import TableQuantiser
from hw.stream import collect, drive
from machine.lut_table import TableQuantiserConfig
from machine.vector import ScaleRule

TABLE, BLOCK = ScaleRule.TABLE, ScaleRule.BLOCK
# The whole tables of four compile for half a minute each: `make test-all` runs them.
WHOLE = {
    "table of 8": TableQuantiserConfig(rule=TABLE, block=1),
    "block of 4 tables of 8": TableQuantiserConfig(rule=BLOCK, block=4, divider_cycles=5),
}
CONFIGS = {
    "table": TableQuantiserConfig(rule=TABLE, block=1, k=2),
    "two entries to int4": TableQuantiserConfig(rule=BLOCK, block=3, k=2, format="int9",
                                                out_format="int4", divider_cycles=0),
    "wide entries": TableQuantiserConfig(rule=TABLE, block=1, k=2, format="int24"),
    **WHOLE,
}


def stalls(rng: np.random.Generator, beats: int, most: int) -> np.ndarray:
    """Return random times for the beats of one stream: none, few or long waits."""
    chance = [0.0, 0.3, 0.8][rng.integers(3)]
    return np.cumsum(rng.integers(0, most, beats) * (rng.random(beats) < chance))


def random_tables(rng: np.random.Generator, cfg: TableQuantiserConfig, count: int) -> np.ndarray:
    """Return tables [count, entries]: any entries, small ones, equal ones, all zero, extremes."""
    half = 1 << cfg.entry.bits - 1
    made = rng.integers(-half, half, (count, cfg.entries))
    kind = np.repeat(rng.integers(0, 6, -(-count // cfg.block)), cfg.block)[:count, None]
    small = rng.integers(-3, 4, made.shape)
    sums = tables(rng.integers(-128, 128, (count, cfg.k)), cfg.k)[:, 0].clip(-half, half - 1)
    return np.select([kind == 0, kind == 1, kind == 2, kind == 3],
                     [small, 0 * made, np.where(made < 0, -half, half - 1), sums], made)


def check(cfg: TableQuantiserConfig, simulation: StreamSimulation, given: np.ndarray, seed: int):
    """Run the tables `given` under random stalls; hold the RTL to golden and the simulator."""
    rng = np.random.default_rng(seed)
    blocks = len(given) // cfg.block
    times = {"valid": stalls(rng, len(given), 6), "ready": stalls(rng, len(given), 12),
             "scales_ready": stalls(rng, blocks, 60)}
    log = simulation.run({"i": (pack_beats(given, cfg.entry.bits), times["valid"])},
                         {"o": times["ready"], "o_scales": times["scales_ready"]},
                         max_cycles=10_000_000)
    codes, scales = quantise_tables(given, cfg.rule, cfg.block, cfg.code)
    made = unpack_beats(log["o"].words, cfg.entries, cfg.code.bits)
    for at in np.argwhere(made != codes)[:1]:
        pytest.fail(f"code {at}: RTL {made[tuple(at)]}, want {codes[tuple(at)]} of {given[at[0]]}")
    assert log["o_scales"].words[:, 0].view(np.float32).tolist() == scales.tolist()
    expected = quantise_transfers(cfg, blocks, **times)
    for stream in ("i", "o", "o_scales"):
        assert log[stream].cycles.tolist() == getattr(expected, stream).tolist(), stream


@pytest.fixture(scope="module")
def compiled():
    """Return a function that compiles the quantiser of a configuration, once a module."""
    known: dict[str, StreamSimulation] = {}

    def get(name: str) -> StreamSimulation:
        if name not in known:
            known[name] = StreamSimulation(TableQuantiser(CONFIGS[name]))
        return known[name]

    return get


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", [
    "table", "two entries to int4",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("wide entries", *WHOLE))])
def test_codes_scales_and_cycles_of_random_tables(name, compiled):
    cfg = CONFIGS[name]
    for seed in range(12):
        rng = np.random.default_rng([seed, cfg.block])
        check(cfg, compiled(name), random_tables(rng, cfg, 240), seed)


@pytest.mark.cxxrtl
def test_every_pair_of_entries_of_nine_bits(compiled):
    # 2**18 tables: every entry under every largest magnitude.
    cfg = CONFIGS["two entries to int4"]
    pairs = np.array(list(product_of(range(-256, 256), repeat=2)))
    given = np.repeat(pairs, cfg.block, axis=0)[: len(pairs) // 8 * cfg.block]
    check(cfg, compiled("two entries to int4"), given, 1)


@pytest.mark.slow
@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", CONFIGS)
def test_many_more_tables(name, compiled):
    cfg = CONFIGS[name]
    for seed in range(100, 140):
        rng = np.random.default_rng([seed, cfg.block])
        check(cfg, compiled(name), random_tables(rng, cfg, 1200), seed)


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", ["table", "two entries to int4"])
def test_unstalled_blocks_take_the_cycles_of_the_formulas(name, compiled):
    cfg = CONFIGS[name]
    given = random_tables(np.random.default_rng(2), cfg, 6 * cfg.block)
    log = compiled(name).run(
        {"i": (pack_beats(given, cfg.entry.bits), np.zeros(len(given)))},
        {"o": np.zeros(len(given)), "o_scales": np.zeros(6)})
    first, last = log["i"].cycles[:: cfg.block], log["i"].cycles[cfg.block - 1 :: cfg.block]
    assert np.diff(first).tolist() == [cfg.block_cycles] * 5
    assert (log["o_scales"].cycles - last).tolist() == [cfg.scale_latency_cycles] * 6
    assert (log["o"].cycles[:: cfg.block] - last).tolist() == [cfg.latency_cycles] * 6


def test_amaranths_simulator_agrees_as_well():
    cfg = TableQuantiserConfig(rule=BLOCK, block=2, k=2, format="int6", divider_cycles=2)
    rng = np.random.default_rng(3)
    given = random_tables(rng, cfg, 8)
    times = {"valid": stalls(rng, 8, 6), "ready": stalls(rng, 8, 12),
             "scales_ready": stalls(rng, 4, 60)}
    dut, seen = TableQuantiser(cfg), {}

    async def source(ctx):
        words = [int.from_bytes(word.tobytes(), "little") for word in pack_beats(given, 6)]
        seen["i"] = await drive(ctx, dut.i, words, times["valid"])

    async def sink(ctx):
        seen["codes"], seen["o"] = await collect(ctx, dut.o, times["ready"])

    async def scale_sink(ctx):
        seen["scales"], seen["o_scales"] = await collect(ctx, dut.o_scales, times["scales_ready"])

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for bench in (source, sink, scale_sink):
        simulator.add_testbench(bench)
    simulator.run()
    codes, scales = quantise_tables(given, cfg.rule, cfg.block)
    made = np.array([[beat & 255, beat >> 8] for beat in seen["codes"]], np.uint8).view(np.int8)
    assert made.tolist() == codes.tolist()
    assert np.array(seen["scales"], np.uint32).view(np.float32).tolist() == scales.tolist()
    expected = quantise_transfers(cfg, 4, **times)
    for stream in ("i", "o", "o_scales"):
        assert seen[stream] == getattr(expected, stream).tolist(), stream
