# amaranth: UnusedElaboratable=no
"""The lookup array on float tables: RTL, simulator and golden agree, code by code."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from archsim.lut import lut_transfers, precompute_transfers
from golden.formats import decode, encode
from golden.lut_array import run
from golden.vector import table_precompute
from hw.cxxrtl import StreamSimulation, pack_beats, unpack_beats
from hw.lut import Lut
from hw.lut_table import FloatTableAdders, TablePrecompute
from machine.lut import LutConfig, LutTile, TableConfig, pack_lut_tile
from machine.lut_table import TableUnitConfig

CONFIGS = {
    f"{entry}-in-float{acc}": LutConfig(m=2, n=1, k=2, w_bits=8, acc_bits=acc, tables=TableConfig(
        format=entry, remapped=entry != "float8_e5m2"))
    for entry, acc in (("float16", 32), ("float16", 16), ("float8_e4m3fn", 32),
                       ("float8_e5m2", 16))
}


def codes_of(rng: np.random.Generator, cfg: LutConfig, shape) -> np.ndarray:
    """Return random codes: any; near each other, so that they cancel; zeros, NaN and infinity."""
    bits = cfg.tables.entry.bits
    mantissa = cfg.tables.entry.mantissa_bits
    special = np.array([0, 1, (1 << mantissa) - 1, 1 << mantissa, (1 << bits - 1) - 1,
                        ((1 << bits - 1) - 1) >> mantissa << mantissa])
    near = rng.integers(0, 1 << mantissa + 2, shape) + (cfg.tables.entry.bias << mantissa)
    kind = rng.choice(3, shape, p=[0.3, 0.65, 0.05])
    made = np.select([kind == 0, kind == 1],
                     [rng.integers(0, 1 << bits - 1, shape), near], rng.choice(special, shape))
    return made | rng.integers(0, 2, shape) << bits - 1


def tiles_of(rng: np.random.Generator, cfg: LutConfig, count: int) -> list[LutTile]:
    """Return `count` commands, some of which go on from the sums in front."""
    return [LutTile(rows=cfg.m, tables=int(rng.integers(1, 4)), planes=int(rng.integers(1, 9)),
                    accumulate=bool(rng.random() < 0.3)) for _ in range(count)]


def check(cfg: LutConfig, simulation: StreamSimulation, seed: int, count: int) -> int:
    """Run random commands under random stalls; hold the RTL to golden; return the lookups."""
    rng = np.random.default_rng(seed)
    tiles = tiles_of(rng, cfg, count)
    data = codes_of(rng, cfg, (sum(t.tables for t in tiles), cfg.m, cfg.entries))
    weights = rng.integers(0, 1 << cfg.k, (sum(t.weight_beats(cfg) for t in tiles), cfg.n))
    times = {name: np.cumsum(rng.integers(0, 4, beats) * (rng.random(beats) < 0.3))
             for name, beats in (("commands_valid", len(tiles)), ("tables_valid", len(data)),
                                 ("weights_valid", len(weights)),
                                 ("sums_ready", cfg.m * len(tiles)))}
    commands = np.array([[pack_lut_tile(tile)] for tile in tiles], np.uint32)
    log = simulation.run({
        "i_commands": (commands, times["commands_valid"]),
        "i_tables": (pack_beats(data.reshape(len(data), -1), cfg.tables.entry.bits),
                     times["tables_valid"]),
        "i_weights": (pack_beats(weights, cfg.k), times["weights_valid"]),
    }, {"o_sums": times["sums_ready"]})
    mask = (1 << cfg.acc_bits) - 1
    sums = unpack_beats(log["o_sums"].words, cfg.n, cfg.acc_bits) & mask
    want = run(cfg, tiles, data, weights)
    for at in np.argwhere(sums != want)[:1]:
        pytest.fail(f"sum {at}: RTL {sums[tuple(at)]:#x}, want {want[tuple(at)]:#x}")
    expected = lut_transfers(cfg, tiles, **times)
    assert log["o_sums"].cycles.tolist() == expected.sums.tolist()
    assert log["i_weights"].cycles.tolist() == expected.weights.tolist()
    return weights.size * cfg.m


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", CONFIGS)
def test_float_tables_on_ten_thousand_lookups(name):
    simulation = StreamSimulation(Lut(CONFIGS[name]))
    assert sum(check(CONFIGS[name], simulation, seed, 160) for seed in range(5)) >= 10_000


def expected_tables(cfg: TableUnitConfig, half: np.ndarray) -> np.ndarray:
    """Return the codes of the tables of float16 codes `half` [beats, k], added in float32 from the
    last activation to the first; of four they are golden's."""
    acts = decode(half, cfg.activation).astype(np.float32)
    total = -acts[:, -1:]
    with np.errstate(over="ignore", invalid="ignore"):
        for j in reversed(range(cfg.k - 1)):
            pair = np.stack([-acts[:, j : j + 1], acts[:, j : j + 1]], axis=-1)
            total = (total[..., None] + pair).reshape(len(half), -1)
        if cfg.k == 4:
            np.testing.assert_array_equal(total, table_precompute(acts)[:, 0])
        return encode(total, cfg.entry)


@pytest.mark.cxxrtl
def test_tables_of_two_floats_are_made_as_golden_makes_them():
    cfg = TableUnitConfig(k=2, a_format="float16", format="float16")
    rng = np.random.default_rng(2)
    half = codes_of(rng, CONFIGS["float16-in-float32"], (10_000, 2))
    times = [np.cumsum(rng.integers(0, 3, len(half)) * (rng.random(len(half)) < 0.3))
             for _ in range(2)]
    log = StreamSimulation(TablePrecompute(cfg)).run(
        {"i": (pack_beats(half, 16), times[0])}, {"o": times[1]})
    made = unpack_beats(log["o"].words, cfg.entries, 16) & 0xFFFF
    want = expected_tables(cfg, half)
    for at in np.argwhere(made != want)[:1]:
        pytest.fail(f"entry {at} of {half[at[0]]}: RTL {made[tuple(at)]:#x}, "
                    f"want {want[tuple(at)]:#x}")
    expected = precompute_transfers(len(half), valid=times[0], ready=times[1])
    assert log["o"].cycles.tolist() == expected.o.tolist()


@pytest.mark.parametrize("entry", ["float16", "float8_e4m3fn"])
def test_tables_of_four_floats_in_amaranths_simulator(entry):
    cfg = TableUnitConfig(a_format="float16", format=entry)
    half = codes_of(np.random.default_rng(4), CONFIGS["float16-in-float32"], (60, 4))
    adders, made = FloatTableAdders(cfg), []

    async def bench(ctx):
        for acts in half:
            ctx.set(adders.acts, sum(int(act) << 16 * j for j, act in enumerate(acts)))
            table, bits = ctx.get(adders.table), cfg.entry.bits
            made.append([table >> e * bits & (1 << bits) - 1 for e in range(8)])

    simulator = Simulator(adders)
    simulator.add_testbench(bench)
    simulator.run()
    assert made == expected_tables(cfg, half).tolist()


@pytest.mark.slow
@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", CONFIGS)
def test_float_tables_on_many_more(name):
    simulation = StreamSimulation(Lut(CONFIGS[name]))
    for seed in range(10, 60):
        check(CONFIGS[name], simulation, seed, 300)
