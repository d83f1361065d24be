# amaranth: UnusedElaboratable=no
"""Mutants of a netlist in one simulation: number 0 is the component, each other one bit away."""

import numpy as np
import pytest
from amaranth.hdl import Const

from hw.cxxrtl import pack_beats
from hw.mutation import MutantSimulation, equivalent, survivors
from hw.stream import PairQueue

WIDTH = 8
DRAWN = 30


@pytest.fixture(scope="module")
def simulation():
    return MutantSimulation(PairQueue(WIDTH), DRAWN, seed=1)


def carries(simulation: MutantSimulation, times: list[list[int]]) -> bool:
    """Tell whether all payloads come through in order, at the times a queue of two has."""
    values = np.arange(len(times[0])) * 73 % 256
    try:
        log = simulation.run({"i": (pack_beats(values[:, None], WIDTH), np.array(times[0]))},
                             {"o": np.array(times[1])}, max_cycles=200)
    except TimeoutError:
        return False
    return log["o"].words[:, 0].tolist() == values.tolist()


@pytest.mark.cxxrtl
def test_the_component_itself_is_number_0_and_mutants_differ_from_it(simulation):
    assert [mutant.number for mutant in simulation.mutants] == list(range(1, DRAWN + 1))
    assert len({mutant.change for mutant in simulation.mutants}) == DRAWN
    assert not any("CLK" in mutant.change for mutant in simulation.mutants)
    times = [[0] * 8, [5, 5, 6, 6, 20, 20, 20, 20]]
    assert carries(simulation, times)
    alive = survivors(simulation, lambda s: carries(s, times))
    assert len(alive) < 0.3 * DRAWN
    # A check that never lets two payloads wait kills fewer.
    assert len(survivors(simulation, lambda s: carries(s, [[0] * 8, [0] * 8]))) > len(alive)


@pytest.mark.cxxrtl
def test_a_component_that_fails_its_own_check_is_an_error(simulation):
    with pytest.raises(ValueError, match="^the component itself must pass"):
        survivors(simulation, lambda _: False)


@pytest.mark.cxxrtl
def test_only_what_is_alive_can_be_proved_equal(simulation):
    rng = np.random.default_rng(0)
    schedules = [np.cumsum(rng.integers(0, 4, (2, 30)), axis=1).tolist() for _ in range(20)]
    alive = survivors(simulation, lambda s: all(carries(s, times) for times in schedules))
    dead = next(mutant for mutant in simulation.mutants if mutant not in alive)
    assert equivalent(simulation, dead.number, lambda _: Const(1), timeout_s=10) == ""


@pytest.mark.cxxrtl
def test_a_sample_is_part_of_all(simulation):
    sample = MutantSimulation(PairQueue(WIDTH), DRAWN, seed=1, every=10)
    assert [m.change for m in sample.mutants] == [m.change for m in simulation.mutants[::10]]
