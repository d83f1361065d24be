# amaranth: UnusedElaboratable=no
"""The lookup array on float tables: RTL, simulator and golden agree, code by code."""

import numpy as np
import pytest

from archsim.lut import lut_transfers
from golden.lut_array import run
from hw.cxxrtl import StreamSimulation, pack_beats, unpack_beats
from hw.lut import Lut
from machine.lut import LutConfig, LutTile, TableConfig, pack_lut_tile

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


@pytest.mark.slow
@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", CONFIGS)
def test_float_tables_on_many_more(name):
    simulation = StreamSimulation(Lut(CONFIGS[name]))
    for seed in range(10, 60):
        check(CONFIGS[name], simulation, seed, 300)
