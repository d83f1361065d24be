# amaranth: UnusedElaboratable=no
"""The lookup array's RTL, simulator and golden agree: every sum and the cycle of every beat."""

from dataclasses import replace
from itertools import product as product_of

import numpy as np
import pytest
from amaranth.sim import Simulator

from archsim.lut import lut_transfers, precompute_transfers
from golden.lut import tables
from golden.lut_array import assemble, lay_out, product, run
from hw.cxxrtl import StreamSimulation, pack_beats, unpack_beats
from hw.lut import Lut
from hw.lut_table import TablePrecompute
from hw.stream import collect, drive
from machine.lut import (
    LutConfig,
    LutTile,
    LutWork,
    TableConfig,
    lut_matmul_cycles,
    lut_matmul_tiles,
    pack_lut_tile,
    sum_bits,
)
from machine.lut_table import TableUnitConfig

CONVENTIONAL = TableConfig(format="int10", symmetric=False, remapped=False, precomputed=False)
SYMMETRIC = TableConfig(format="int11", remapped=False, precomputed=False)
REMAPPED = TableConfig(format="int11", precomputed=False)
SMALL = {"m": 2, "n": 3}
# The steps of the ablation, then other shapes, widths and depths, then what they are held against.
CONFIGS = {
    "conventional": LutConfig(**SMALL, tables=CONVENTIONAL),
    "symmetric": LutConfig(**SMALL, tables=SYMMETRIC),
    "remapped": LutConfig(**SMALL, tables=REMAPPED),
    "precomputed": LutConfig(**SMALL, tables=TableConfig(format="int11")),
    "int8-w2": LutConfig(m=3, n=2, w_bits=2, acc_bits=10, depth_cycles=2),
    "int16-one-unit": LutConfig(m=1, n=1, w_bits=5, tables=TableConfig(format="int16")),
    "k2": LutConfig(m=2, n=2, k=2, w_bits=3, acc_bits=64, tables=TableConfig(format="int9")),
    "k5-deep": LutConfig(m=1, n=2, k=5, w_bits=1, depth_cycles=2,
                         tables=TableConfig(format="int12", precomputed=False)),
    "whole-tables-enter": LutConfig(m=2, n=1, k=3, w_bits=4, tables=TableConfig(
        format="int12", symmetric=False, remapped=False)),
    "mac": LutConfig(**SMALL, unit="mac", a_bits=8, w_bits=4),
    "mac-deep": LutConfig(m=1, n=2, k=3, unit="mac", a_bits=16, w_bits=8, depth_cycles=2),
    "add": LutConfig(**SMALL, unit="add", a_bits=8, w_bits=8),
    "add-deep": LutConfig(m=3, n=1, k=5, unit="add", a_bits=6, w_bits=3, depth_cycles=2),
}
MATMULS = 16  # random products on each configuration
MIXES = 8  # random sequences of commands on each configuration
STREAMS = {"commands": "i_commands", "tables": "i_tables", "weights": "i_weights"}


def stalls(rng: np.random.Generator, beats: int) -> np.ndarray:
    """Return random times for the beats of one stream: none, few, many or long waits."""
    most, chance = [(1, 0.0), (2, 0.3), (4, 0.8), (25, 0.2)][rng.integers(4)]
    return np.cumsum(rng.integers(0, most, beats) * (rng.random(beats) < chance))


def schedule(rng: np.random.Generator, cfg: LutConfig, tiles: list[LutTile]):
    """Return random times for all four streams, as `lut_transfers` takes them."""
    return {
        "commands_valid": stalls(rng, len(tiles)),
        "tables_valid": stalls(rng, sum(tile.tables for tile in tiles)),
        "weights_valid": stalls(rng, sum(tile.weight_beats(cfg) for tile in tiles)),
        "sums_ready": stalls(rng, sum(tile.sum_beats for tile in tiles)),
    }


def integers(rng: np.random.Generator, bits: int, shape) -> np.ndarray:
    """Return random signed integers of `bits`, often extreme; at times all lowest: sums wrap."""
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    if rng.random() < 0.3:
        return np.full(shape, low)
    values = rng.integers(low, high + 1, shape)
    return np.where(rng.random(shape) < 0.2, rng.choice([low, high], shape), values)


def activation_bits(cfg: LutConfig) -> int:
    """Return the widest activations whose sums are entries, or those the array takes."""
    if not cfg.takes_tables:
        return cfg.a_bits
    fits = [bits for bits in range(1, 17)
            if sum_bits(cfg.k, bits, symmetric=cfg.tables.symmetric) <= cfg.tables.entry.bits]
    return max(fits)


def random_tiles(rng: np.random.Generator, cfg: LutConfig, count: int) -> list[LutTile]:
    """Return `count` random commands that `cfg` can execute."""
    return [LutTile(rows=int(rng.integers(1, cfg.m + 1)), tables=int(rng.integers(1, 5)),
                    planes=int(rng.integers(1, cfg.w_bits + 1)),
                    accumulate=bool(rng.integers(2)), emit=bool(rng.integers(2)))
            for _ in range(count - 1)] + [LutTile(rows=cfg.m, tables=1, planes=1)]


def random_beats(rng: np.random.Generator, cfg: LutConfig, tiles: list[LutTile]):
    """Return random beats for `tiles`: any entry, any code."""
    bits = cfg.tables.entry.bits if cfg.takes_tables else cfg.a_bits
    row = cfg.row_bits // bits
    data = integers(rng, bits, (sum(t.tables for t in tiles), cfg.m, row))
    beats = sum(tile.weight_beats(cfg) for tile in tiles)
    if cfg.unit == "mac":
        return data, integers(rng, cfg.w_bits, (beats, cfg.n, cfg.k))
    return data, rng.integers(0, 1 << cfg.k, (beats, cfg.n))


def payloads(cfg: LutConfig, tiles: list[LutTile], data: np.ndarray, weights: np.ndarray):
    """Return the words of the three streams that enter."""
    commands = np.array([[pack_lut_tile(tile)] for tile in tiles], np.uint32)
    entry = cfg.tables.entry.bits if cfg.takes_tables else cfg.a_bits
    lanes = weights.reshape(len(weights), int(np.prod(weights.shape[1:])))
    return {
        "i_commands": commands,
        "i_tables": pack_beats(data.reshape(len(data), -1), entry),
        "i_weights": pack_beats(lanes, cfg.w_bits if cfg.unit == "mac" else cfg.k),
    }


def assert_same(what: str, got: np.ndarray, want: np.ndarray) -> None:
    """Fail with the first difference between the RTL and what it should be."""
    assert got.shape == want.shape, f"{what}: shape {got.shape}, want {want.shape}"
    for index in np.argwhere(got != want)[:1]:
        at = tuple(int(i) for i in index)
        pytest.fail(f"{what}{list(at)}: RTL {got[at]}, want {want[at]}")


def check(cfg, simulation, rng, tiles, data, weights) -> np.ndarray:
    """Run `tiles` under a random schedule; hold RTL to golden and simulator; return the sums."""
    times = schedule(rng, cfg, tiles)
    words = payloads(cfg, tiles, data, weights)
    log = simulation.run(
        {stream: (words[stream], times[f"{name}_valid"]) for name, stream in STREAMS.items()},
        {"o_sums": times["sums_ready"]},
    )
    sums = unpack_beats(log["o_sums"].words, cfg.n, cfg.acc_bits)
    assert_same("sums", sums, run(cfg, tiles, data, weights))
    expected = lut_transfers(cfg, tiles, **times)
    for name, stream in {**STREAMS, "sums": "o_sums"}.items():
        assert_same(f"cycles of {stream}", log[stream].cycles, getattr(expected, name))
    return sums


@pytest.fixture(scope="module")
def compiled():
    """Return a function that compiles the array of a configuration, once a module."""
    known: dict[str, StreamSimulation] = {}

    def get(cfg: LutConfig) -> StreamSimulation:
        if repr(cfg) not in known:
            known[repr(cfg)] = StreamSimulation(Lut(cfg))
        return known[repr(cfg)]

    return get


def random_product(rng: np.random.Generator, cfg: LutConfig):
    """Return random activations, weights of random planes, and the commands of their product."""
    planes = int(rng.integers(1, cfg.w_bits + 1))
    m, n = int(rng.integers(1, 3 * cfg.m + 1)), int(rng.integers(1, 2 * cfg.n + 1))
    k = int(rng.integers(1, 6 * cfg.k))
    a = integers(rng, activation_bits(cfg), (m, k))
    w = integers(rng, planes, (n, k))
    return a, w, planes, list(lut_matmul_tiles(cfg, m, n, k, planes))


def check_random_cases(cfg: LutConfig, simulation: StreamSimulation, seed: int) -> None:
    """Check random products, whole, and then random sequences of commands with random beats."""
    rng = np.random.default_rng([cfg.m, cfg.n, cfg.k, seed])
    for _ in range(MATMULS):
        a, w, planes, works = random_product(rng, cfg)
        tiles = [work.tile for work in works]
        sums = check(cfg, simulation, rng, tiles, *lay_out(cfg, works, a, w, planes))
        assert_same("product", assemble(works, sums, len(a), len(w)), product(cfg, a, w))
    for _ in range(MIXES):
        tiles = random_tiles(rng, cfg, 12)
        check(cfg, simulation, rng, tiles, *random_beats(rng, cfg, tiles))


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", CONFIGS)
def test_products_and_mixed_commands_with_random_stalls_on_all_streams(name, compiled):
    check_random_cases(CONFIGS[name], compiled(CONFIGS[name]), seed=0)


@pytest.mark.slow
@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", CONFIGS)
def test_many_more_cases(name, compiled):
    for seed in range(1, 41):
        check_random_cases(CONFIGS[name], compiled(CONFIGS[name]), seed)


def test_at_least_two_hundred_random_products_are_compared():
    assert MATMULS * len(CONFIGS) >= 200


STEPS = ("conventional", "symmetric", "remapped", "precomputed", "mac", "add")


def one_unit(name: str) -> LutConfig:
    """Return an array of one unit like `CONFIGS[name]`, of 2 bits by 2: 2**16 inputs a step."""
    of = CONFIGS[name]
    entry = {"conventional": "int4"}.get(name, "int5")
    return replace(of, m=1, n=1, a_bits=2, w_bits=2, tables=replace(of.tables, format=entry))


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", STEPS)
def test_every_input_of_a_small_unit(name, compiled):
    cfg = one_unit(name)
    row = np.array(list(product_of(range(-2, 2), repeat=4)))
    a, w = np.repeat(row, len(row), axis=0), np.tile(row, (len(row), 1))
    tiles = [LutTile(rows=1, tables=1, planes=2)] * len(a)
    rows = tables(row)[:, 0] if cfg.takes_tables else row
    data = np.repeat(rows, len(row), axis=0)[:, None]
    alone = [LutWork(tiles[0], 0, 0, 0)]
    beats = np.concatenate([lay_out(cfg, alone, row[:1], one[None], 2)[1] for one in row])
    codes = np.tile(beats, (len(row), *[1] * (beats.ndim - 1)))
    words = payloads(cfg, tiles, data, codes)
    log = compiled(cfg).run(
        {stream: (words[stream], np.zeros(len(words[stream]))) for stream in STREAMS.values()},
        {"o_sums": np.zeros(len(a))})
    sums = unpack_beats(log["o_sums"].words, 1, cfg.acc_bits)[:, 0]
    factor = 2 * w + 1 if name in ("symmetric", "remapped", "precomputed") else w
    assert_same("sums", sums, (a * factor).sum(axis=1))
    steps = 1 if cfg.unit == "mac" else 2
    assert log["o_sums"].cycles[-1] == steps * len(a) + cfg.latency_cycles


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", CONFIGS)
def test_unstalled_product_takes_the_cycles_of_the_closed_form(name, compiled):
    cfg = CONFIGS[name]
    rng = np.random.default_rng(7)
    for _ in range(5):
        a, w, planes, works = random_product(rng, cfg)
        tiles = [work.tile for work in works]
        words = payloads(cfg, tiles, *lay_out(cfg, works, a, w, planes))
        log = compiled(cfg).run(
            {stream: (words[stream], np.zeros(len(words[stream]))) for stream in STREAMS.values()},
            {"o_sums": np.zeros(sum(tile.sum_beats for tile in tiles))})
        total = lut_matmul_cycles(cfg, len(a), len(w), a.shape[1], planes).total_cycles
        assert log["o_sums"].cycles[-1] + 1 == total, (a.shape, w.shape, planes)


@pytest.mark.cxxrtl
def test_the_steps_of_the_ablation_give_the_same_product(compiled):
    # An array with whole tables multiplies by w, one with half tables by 2 w + 1.
    rng = np.random.default_rng(8)
    a, w = rng.integers(-128, 128, (4, 20)), rng.integers(-8, 8, (5, 20))
    found = {}
    for name in STEPS:
        cfg = CONFIGS[name]
        works = list(lut_matmul_tiles(cfg, 4, 5, 20, 4))
        tiles = [work.tile for work in works]
        sums = check(cfg, compiled(cfg), rng, tiles, *lay_out(cfg, works, a, w, 4))
        made = assemble(works, sums, 4, 5)
        found[name] = made if cfg.reinterpreted else 2 * made + a.sum(axis=1)[:, None]
    for name in STEPS:
        assert_same(name, found[name], a @ (2 * w + 1).T)


DEFAULT = LutConfig(w_bits=2)  # M2 N64 K4, INT8 tables


@pytest.mark.slow
@pytest.mark.cxxrtl
def test_the_default_array_on_many_lookups_and_a_product(compiled):
    rng = np.random.default_rng(9)
    tiles = random_tiles(rng, DEFAULT, 400)
    check(DEFAULT, compiled(DEFAULT), rng, tiles, *random_beats(rng, DEFAULT, tiles))
    works = list(lut_matmul_tiles(DEFAULT, 5, 130, 61, 2))
    a, w = rng.integers(-16, 16, (5, 61)), rng.integers(-2, 2, (130, 61))
    sums = check(DEFAULT, compiled(DEFAULT), rng, [work.tile for work in works],
                 *lay_out(DEFAULT, works, a, w, 2))
    assert_same("product", assemble(works, sums, 5, 130), a @ (2 * w + 1).T)


def in_amaranth(dut, words: dict[str, np.ndarray], times: dict[str, np.ndarray], out: str):
    """Run `dut` in Amaranth's simulator; return the cycles of each stream and the payloads."""
    result: dict[str, list[int]] = {}

    def source(name: str):
        port = getattr(dut, name)
        values = [int.from_bytes(word.tobytes(), "little") for word in words[name]]

        async def bench(ctx):
            result[name] = await drive(ctx, port, values, times[name])
        return bench

    async def sink(ctx):
        result["payloads"], result[out] = await collect(ctx, getattr(dut, out), times[out])

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for name in words:
        simulator.add_testbench(source(name))
    simulator.add_testbench(sink)
    simulator.run()
    return result


def check_in_amaranth(cfg: LutConfig, rng: np.random.Generator, tiles: list[LutTile]) -> int:
    """Hold the array in Amaranth's simulator to golden and simulator; return its lookups."""
    data, weights = random_beats(rng, cfg, tiles)
    times = schedule(rng, cfg, tiles)
    streams = {**STREAMS, "sums": "o_sums"}
    of = {"sums": "sums_ready"}
    found = in_amaranth(Lut(cfg), payloads(cfg, tiles, data, weights),
                        {streams[n]: times[of.get(n, f"{n}_valid")] for n in streams}, "o_sums")
    mask = (1 << cfg.acc_bits) - 1
    sums = [[beat >> col * cfg.acc_bits & mask for col in range(cfg.n)]
            for beat in found["payloads"]]
    want = run(cfg, tiles, data, weights).astype(np.uint64) & np.uint64(mask)
    assert_same("sums", np.array(sums, np.uint64).reshape(-1, cfg.n), want)
    expected = lut_transfers(cfg, tiles, **times)
    for field, stream in streams.items():
        assert_same(f"cycles of {stream}", np.array(found[stream], np.int64),
                    getattr(expected, field))
    return weights.size * cfg.m


@pytest.mark.parametrize("name", CONFIGS)
def test_amaranths_simulator_agrees_as_well(name):
    rng = np.random.default_rng(10)
    check_in_amaranth(CONFIGS[name], rng, random_tiles(rng, CONFIGS[name], 6))


def test_the_default_array_on_ten_thousand_lookups():
    rng = np.random.default_rng(12)
    assert check_in_amaranth(DEFAULT, rng, random_tiles(rng, DEFAULT, 24)) >= 10_000


TABLE_UNITS = {
    "every group of four bits": TableUnitConfig(a_format="int4", format="int7"),
    "int8": TableUnitConfig(),
    "five of int5": TableUnitConfig(k=5, a_format="int5", format="int9"),
}


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", TABLE_UNITS)
def test_tables_made_apart_are_goldens_and_leave_when_they_should(name):
    cfg = TABLE_UNITS[name]
    rng = np.random.default_rng(11)
    bits = cfg.activation.bits
    if name.startswith("every"):
        acts = np.array(list(product_of(range(-8, 8), repeat=4)))
    else:
        acts = integers(rng, bits, (10_000, cfg.k))
        acts[:2] = [[-(1 << bits - 1)] * cfg.k, [(1 << bits - 1) - 1] * cfg.k]
    simulation = StreamSimulation(TablePrecompute(cfg))
    for seed in range(1 if name.startswith("every") else 5):
        rng = np.random.default_rng(seed)
        times = stalls(rng, len(acts)), stalls(rng, len(acts))
        log = simulation.run(
            {"i": (pack_beats(acts, bits), times[0])}, {"o": times[1]})
        made = unpack_beats(log["o"].words, cfg.entries, cfg.entry.bits)
        assert_same("tables", made, tables(acts, cfg.k)[:, 0])
        expected = precompute_transfers(len(acts), valid=times[0], ready=times[1])
        assert_same("cycles of i", log["i"].cycles, expected.i)
        assert_same("cycles of o", log["o"].cycles, expected.o)
