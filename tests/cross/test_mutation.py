# amaranth: UnusedElaboratable=no
"""Mutants of each block's netlist are killed by the block's own check, or equal to the block.

The check of a block is that of its test in this folder: RTL equal to golden, and every cycle equal
to the simulator's recurrence. A mutant that passes must be proved equal to the block for legal
commands, or be listed in ``equal_mutants.toml`` with the argument why it is.
"""

import importlib.util
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Mux
from amaranth.lib import data, wiring

from hw.lut import COMMAND as LUT_COMMAND
from hw.lut import Lut
from hw.mutation import MutantSimulation, equivalent, survivors
from hw.sequencer import COMMAND
from hw.systolic import Systolic
from machine.lut import MAX_TABLES, LutConfig, LutTile, TableConfig
from machine.pe import PeConfig
from machine.systolic import MAX_LENGTH, SystolicConfig, Tile

HERE = Path(__file__).parent
LISTED = tomllib.loads((HERE / "equal_mutants.toml").read_text())
DRAWN = 110  # mutants of a block
SAMPLE = 11  # every so many in CI
# Most that may survive, all of them equal: one in twenty, or as many as are in the draw.
MOST = {"systolic": 7, "shift": 9, "bit_serial": 9}


@dataclass(frozen=True)
class Block:
    """A block and what is known of it."""

    tests: str  # the file that holds its check
    component: Callable[[ModuleType], wiring.Component]
    check: Callable[[ModuleType, MutantSimulation], None]  # raises if the block is not as it should
    legal: Callable[[Any], Any]  # of its members: whether the command offered is legal


ARRAY = SystolicConfig(rows=3, cols=2, a_bits=4, w_bits=3, acc_bits=9, acc_rows=8,
                       pe=PeConfig(depth_cycles=2))
TABLES = LutConfig(m=2, n=2, k=3, a_bits=4, w_bits=3, acc_bits=12,
                   tables=TableConfig(format="int7", remapped=False, precomputed=False))

LONGEST = [
    Tile(dataflow="os", m=2, k=MAX_LENGTH),
    Tile(dataflow="ws", m=MAX_LENGTH, k=2),
    Tile(dataflow="os", m=1, k=0xA5A6),
    Tile(dataflow="ws", m=0x5A5B, k=1),
    *(Tile(dataflow="os", m=1, k=(1 << bit) + 1) for bit in range(16)),
]


def legal_tile(cfg: SystolicConfig, command: Any) -> Any:
    """Return whether `command` is one of `cfg`: ``Tile.check``, as an expression."""
    command = data.View(COMMAND, command)
    short = Mux(command.dataflow, command.m_last, command.k_last)
    stays = ~command.accumulate & command.emit
    return (short < cfg.rows) & (stays | (command.acc_row + command.m_last < cfg.acc_rows))


def legal_lookup(cfg: LutConfig, command: Any) -> Any:
    """Return whether `command` is one of `cfg`: ``LutTile.check``, as an expression."""
    command = data.View(LUT_COMMAND, command)
    return (command.rows_last < cfg.m) & (command.planes_last < cfg.w_bits)


def check_array(tests: ModuleType, simulation: MutantSimulation) -> None:
    tests.check_random_cases(ARRAY, simulation, seed=0)
    tests.check_slow_sums(ARRAY, simulation, 40)
    tests.check_tiles(ARRAY, simulation, tests.LONGEST)

    def once(rng: np.random.Generator) -> None:
        tiles = [replace(tile, emit=True) for tile in tests.random_tiles(rng, ARRAY, 10)]
        tests.check_tiles(ARRAY, simulation, tiles, seed=int(rng.integers(1 << 30)))

    check_restarts(simulation, 40, once)


def check_tables(tests: ModuleType, simulation: MutantSimulation) -> None:
    tests.check_random_cases(TABLES, simulation, seed=0)
    rng = np.random.default_rng(0)
    for tables in (MAX_TABLES, 0xA5A6):
        tiles = [LutTile(rows=1, tables=tables, planes=1)]
        tests.check(TABLES, simulation, rng, tiles, *tests.random_beats(rng, TABLES, tiles))

    def once(rng: np.random.Generator) -> None:
        tiles = tests.random_tiles(rng, TABLES, 12)
        tests.check(TABLES, simulation, rng, tiles, *tests.random_beats(rng, TABLES, tiles))

    check_restarts(simulation, 40, once)


def check_restarts(simulation: MutantSimulation, seeds: int,
                   once: Callable[[np.random.Generator], None]) -> None:
    """Check work that is abandoned by a reset and begun again; it must not store."""
    for seed in range(seeds):
        rng = np.random.default_rng([seed, seeds])
        simulation.restart(int(rng.integers(1, 40)))
        try:
            once(rng)
        finally:
            simulation.restart(-1)


def check_tiles(tests: ModuleType, cfg: SystolicConfig, simulation: MutantSimulation,
                tiles: list[Tile], seed: int, slow: str = "") -> None:
    """Hold `tiles` to golden and the simulator; `slow`: the one stream that waits, or all do."""
    rng = np.random.default_rng(seed)
    acts = tests.codes(rng, cfg.act_format, (sum(tile.act_beats for tile in tiles),
                                             cfg.rows * cfg.pe.k_lanes))
    weights = tests.codes(rng, cfg.operand_format, (sum(tile.weight_beats for tile in tiles),
                                                    cfg.cols * cfg.pe.k_lanes))
    times = tests.schedule(rng, tiles)
    if slow:
        times = {name: np.zeros_like(cycles) for name, cycles in times.items()}
        times[slow] = np.cumsum(rng.integers(0, 9, len(times[slow])))
    [(cycles, sums)] = tests.simulate(simulation, [(cfg, tiles, acts, weights, times)])
    tests.assert_same("sums", sums, tests.run(cfg, tiles, acts, weights))
    tests.assert_cycles("cycles", cycles, tests.transfers(cfg, tiles, **times))


def short_tiles(cfg: SystolicConfig, seed: int) -> list[Tile]:
    """Return random commands of a few beats each: sums leave in every part of the next tiles."""
    rng = np.random.default_rng([seed, cfg.rows])
    sizes = rng.integers(1, cfg.rows + 1, (16, 2))
    return [Tile(dataflow=str(rng.choice(cfg.dataflows)), m=int(m), k=int(k),
                 accumulate=bool(rng.random() < 0.3), emit=bool(rng.random() < 0.8),
                 acc_row=int(rng.integers(0, cfg.acc_rows - m + 1))) for m, k in sizes]


def element(kind: str, a_bits: int, w_bits: int, **pe: int) -> Block:
    """Return the block of an array of one kind of element."""
    cfg = SystolicConfig(rows=3, cols=2, a_bits=a_bits, w_bits=w_bits, acc_bits=12, acc_rows=16,
                         pe=PeConfig(kind=kind, **pe))

    def check(tests: ModuleType, simulation: MutantSimulation) -> None:
        for seed in range(60):
            tests.check(([cfg], simulation), seed)
            tiles = tests.random_tiles(np.random.default_rng(seed), cfg) * 2
            for slow in ("sums_ready", "acts_valid"):
                check_tiles(tests, cfg, simulation, tiles, seed, slow)
            check_tiles(tests, cfg, simulation, short_tiles(cfg, seed), seed, "sums_ready")
        check_tiles(tests, cfg, simulation, LONGEST, 0)

        def once(rng: np.random.Generator) -> None:
            tiles = [replace(tile, emit=True) for tile in tests.random_tiles(rng, cfg)]
            check_tiles(tests, cfg, simulation, tiles, int(rng.integers(1 << 30)))

        check_restarts(simulation, 40, once)

    return Block("test_pe.py", lambda tests: tests.Arrays([cfg]), check,
                 lambda ports: legal_tile(cfg, ports.i_commands_0.payload))


BLOCKS = {
    "systolic": Block("test_systolic.py", lambda _: Systolic(ARRAY), check_array,
                      lambda ports: legal_tile(ARRAY, ports.i_commands.payload)),
    "mixpe": element("mixpe", 4, 3),
    "bit_serial": element("bit_serial", 3, 3),
    "shift": element("shift", 3, 3),
    "ternary": element("ternary", 4, 2, k_lanes=2),
    "bipolar": element("bipolar", 2, 2, k_lanes=2),
    "lut": Block("test_lut.py", lambda _: Lut(TABLES), check_tables,
                 lambda ports: legal_lookup(TABLES, ports.i_commands.payload)),
}


def module_of(block: Block) -> ModuleType:
    """Return the module of the tests of `block`, which are no package that could be imported."""
    spec = importlib.util.spec_from_file_location("block_tests", HERE / block.tests)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def found_alive(block: Block, drawn: int, every: int):
    """Return the simulation of mutants of `block`, and those that its check does not kill."""
    tests = module_of(block)
    simulation = MutantSimulation(block.component(tests), drawn, seed=1, every=every)

    def holds(simulation: MutantSimulation) -> bool:
        try:
            block.check(tests, simulation)
        except (AssertionError, TimeoutError, pytest.fail.Exception):
            return False
        return True

    return simulation, survivors(simulation, holds)


def unexplained(name: str, simulation: MutantSimulation, alive: list, timeout_s: int) -> list[str]:
    """Return those `alive` that are not listed and not proved to be equal to the block."""
    listed = LISTED.get(name, {})
    return [mutant.change for mutant in alive if mutant.change not in listed
            and not equivalent(simulation, mutant.number, BLOCKS[name].legal, timeout_s)]


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", BLOCKS)
def test_a_sample_of_mutants_is_killed_or_equal(name):
    simulation, alive = found_alive(BLOCKS[name], DRAWN, SAMPLE)
    assert len(simulation.mutants) == DRAWN // SAMPLE
    # One may be equal without a quick proof: every change of the RTL draws other mutants.
    left = unexplained(name, simulation, alive, timeout_s=5)
    assert len(left) <= 1, left


@pytest.mark.slow
@pytest.mark.cxxrtl
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", BLOCKS)
def test_mutants_are_killed_or_equal(name):
    simulation, alive = found_alive(BLOCKS[name], DRAWN, 1)
    assert len(simulation.mutants) >= 100
    print(f"{name}: {len(simulation.mutants)} mutants, {len(alive)} alive")
    left = unexplained(name, simulation, alive, timeout_s=60)
    assert not left, left
    assert len(alive) <= MOST.get(name, 0.05 * len(simulation.mutants))
