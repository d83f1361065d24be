# amaranth: UnusedElaboratable=no
"""Mutants of the netlists of memory that computes: killed by the blocks' own checks, or equal.

As ``test_mutation.py``, whose draw, proofs and list of argued survivors these tests share. What a
channel says of illegal commands is not looked at where none is illegal: of the channel's mutants,
those inside its check count with the array's, whose check drives illegal commands.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from amaranth.hdl import Const
from amaranth.lib import wiring

from hw.mutation import Mutant, MutantSimulation, survivors
from hw.pim import PimController
from hw.pim_channel import PimChannel
from hw.pim_unit import BankUnit, column_layout
from machine.pim import BankUnitConfig

HERE = Path(__file__).parent
DRAWN = 110  # mutants of a block
SAMPLE = 11  # every so many in CI
UNIT = BankUnitConfig(lanes=4, format="int8")


def loaded(name: str) -> ModuleType:
    """Return a module of tests, which are no package that could be imported."""
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mutation, units, controllers, arrays, channels = map(loaded, (
    "test_mutation", "test_pim_unit", "test_pim", "test_pim_banks", "test_pim_channel"))

# Narrow banks and few: a channel of two, an array of two ranks of two groups of two.
CHANNEL = replace(channels.SMALL, bank_groups=2, banks_per_group=1, bus_bits=8, rows=4)
PIM = replace(channels.CONFIGS["dual"], buffer_bytes=16,
              unit=BankUnitConfig(lanes=2, format="int8"))


@dataclass(frozen=True)
class Block:
    """A block: what it is, and the check that raises if it is not as it should be."""

    component: Callable[[], wiring.Component]
    check: Callable[[MutantSimulation], None]
    open: int  # survivors that are neither proved equal nor argued to be: known holes


def check_unit(simulation: MutantSimulation) -> None:
    width = column_layout(UNIT).size
    for seed in range(30):
        rng, count = np.random.default_rng(seed), 60
        matrix, vector = (units.codes("int8", (count, UNIT.lanes), rng) for _ in range(2))
        first, last = units.ends(count, rng)
        offered = np.cumsum(rng.integers(0, 4, count) * (rng.random(count) < 0.4))
        ready = np.cumsum(rng.integers(0, 24, last.sum()) * (rng.random(last.sum()) < 0.6))
        log = simulation.run(
            {"i": (units.words(units.beats(UNIT, matrix, vector, first, last), width), offered)},
            {"o": ready}, max_cycles=5000)
        assert log["o"].words[:, 0].tolist() == units.golden("int8", matrix, vector, first, last)
        ins, outs = units.expected_cycles(UNIT, last, offered, ready)
        assert log["i"].cycles.tolist() == ins and log["o"].cycles.tolist() == outs


def check_controller(simulation: MutantSimulation) -> None:
    for seed in range(40):
        controllers.check(simulation, controllers.DUAL, seed)


def check_array(simulation: MutantSimulation) -> None:
    run = arrays.runner(simulation, arrays.CONFIGS["dual"])
    for name in ("every_rule_from_both_sides_in_every_place",
                 "a_gap_counts_from_the_last_command_and_long_ago_is_legal",
                 "each_kind_of_fault_is_told_with_its_command_and_bank",
                 "a_fault_stays_and_a_refresh_that_does_not_come_is_one",
                 "the_flag_and_the_checker_find_the_same_in_changed_traces"):
        getattr(arrays, f"test_{name}")(lambda _: run, "dual")
    arrays.test_data_moves_in_the_cycles_of_the_bus_and_a_write_without_it_is_a_fault(
        lambda _: run)


def check_channel(simulation: MutantSimulation) -> None:
    channels.run_gemv(simulation, CHANNEL, PIM, 9, 60)
    for seed in range(8):
        channels.check(simulation, CHANNEL, PIM, *channels.mix(CHANNEL, PIM, seed))
    for seed in range(3):
        channels.check_waits(simulation, CHANNEL, PIM, seed)


BLOCKS = {
    "pim_unit": Block(lambda: BankUnit(UNIT), check_unit, 0),
    "pim_controller": Block(lambda: PimController(controllers.SMALL, controllers.DUAL),
                            check_controller, 0),
    "pim_banks": Block(lambda: arrays.Driven(arrays.CONFIGS["dual"], library=None),
                       check_array, 0),
    "pim_channel": Block(lambda: PimChannel(CHANNEL, PIM), check_channel, 0),
}


def found_alive(block: Block, every: int) -> tuple[MutantSimulation, list[Mutant]]:
    """Return the simulation of mutants of `block`, and those that its check does not kill."""
    simulation = MutantSimulation(block.component(), DRAWN, seed=1, every=every)

    def holds(simulation: MutantSimulation) -> bool:
        try:
            block.check(simulation)
        except (AssertionError, TimeoutError, ValueError, IndexError, KeyError,
                pytest.fail.Exception):
            return False
        return True

    return simulation, survivors(simulation, holds)


def unexplained(name: str, simulation: MutantSimulation, alive: list[Mutant], timeout_s: int):
    """Return those `alive` that are not listed, in the check, or proved equal to the block."""
    listed = mutation.LISTED.get(name, {})
    return [mutant.change for mutant in alive if mutant.change not in listed
            and not (name == "pim_channel" and "array.check" in mutant.change)
            and not mutation.equivalent(simulation, mutant.number, lambda ports: Const(1),
                                        timeout_s)]


@pytest.mark.cxxrtl
def test_a_sample_of_the_bank_units_mutants_is_killed_or_equal():
    simulation, alive = found_alive(BLOCKS["pim_unit"], SAMPLE)
    assert len(simulation.mutants) == DRAWN // SAMPLE
    left = unexplained("pim_unit", simulation, alive, timeout_s=5)
    assert not left, left


@pytest.mark.slow
@pytest.mark.cxxrtl
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("name", BLOCKS)
def test_mutants_are_killed_or_equal(name):
    simulation, alive = found_alive(BLOCKS[name], 1)
    assert len(simulation.mutants) >= 100
    print(f"{name}: {len(simulation.mutants)} mutants, {len(alive)} alive")
    left = unexplained(name, simulation, alive, timeout_s=20)
    print("\n".join(left))
    assert len(left) <= BLOCKS[name].open, left
