# amaranth: UnusedElaboratable=no
"""Mutants of a netlist in one simulation: number 0 is the component, each other one bit away."""

import numpy as np
import pytest
from amaranth.hdl import Const, Module, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.cxxrtl import pack_beats
from hw.formal import prove
from hw.mutation import MutantSimulation, Twins, equivalent, survivors
from hw.stream import PairQueue

WIDTH = 8
DRAWN = 30


class Numbered(wiring.Component):
    """Sends each payload with its number, from a memory; the number is lost in a reset or kept.

    Members
    -------
    i : In(stream)
        Payloads.
    o : Out(stream)
        The payload, and above it its number modulo 16.
    """

    def __init__(self, *, reset_less: bool):
        self.reset_less = reset_less
        super().__init__({"i": In(stream.Signature(4)), "o": Out(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.rows = rows = memory.Memory(shape=4, depth=4, init=[])
        write, read = rows.write_port(), rows.read_port()
        full, late, number = Signal(), Signal(), Signal(4, reset_less=self.reset_less)
        m.d.comb += [
            self.i.ready.eq(~full & ~late), write.en.eq(self.i.valid & self.i.ready),
            write.addr.eq(number), write.data.eq(self.i.payload),
            read.addr.eq(number), read.en.eq(late),
            self.o.valid.eq(full), self.o.payload.eq((number << 4) | read.data),
        ]
        m.d.sync += late.eq(self.i.valid & self.i.ready)
        with m.If(late):
            m.d.sync += full.eq(1)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [full.eq(0), number.eq(number + 1)]
        return m


class LastRead(wiring.Component):
    """Offers in every cycle what was read last, at the start what was never read.

    Members
    -------
    i : In(stream)
        Stored at its own lower half, which is read before.
    o : Out(stream)
        What was read.
    """

    def __init__(self):
        super().__init__({"i": In(stream.Signature(4)), "o": Out(stream.Signature(4))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.rows = rows = memory.Memory(shape=4, depth=4, init=[])
        write, read = rows.write_port(), rows.read_port()
        m.d.comb += [
            self.i.ready.eq(1), write.en.eq(self.i.valid), read.en.eq(self.i.valid),
            write.addr.eq(self.i.payload[:2]), read.addr.eq(self.i.payload[:2]),
            write.data.eq(self.i.payload), self.o.valid.eq(1), self.o.payload.eq(read.data),
        ]
        return m


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


@pytest.mark.cxxrtl
@pytest.mark.parametrize("reset_less", [False, True])
def test_a_restart_resets_and_begins_again(reset_less):
    simulation = MutantSimulation(Numbered(reset_less=reset_less), 2)
    given = {"i": (pack_beats(np.array([[5], [6], [7]]), 4), np.zeros(3))}
    logs = []
    for cycle in (-1, 7):  # two of the three have been sent by then
        simulation.restart(cycle)
        logs.append(simulation.run(given, {"o": np.zeros(3)}, max_cycles=50)["o"])
    once, again = logs
    assert again.cycles.tolist() == once.cycles.tolist() == [2, 5, 8]
    assert once.words[:, 0].tolist() == [0x05, 0x16, 0x27]
    assert again.words[:, 0].tolist() == ([0x25, 0x36, 0x47] if reset_less else [5, 0x16, 0x27])


@pytest.mark.cxxrtl
def test_what_a_memory_reads_before_its_first_read_is_no_difference():
    simulation = MutantSimulation(LastRead(), 2)
    harness = Twins(simulation, 0, lambda _: Const(1))
    verdict = prove(harness, engine="abc scorr; pdr", modules=simulation.proved)
    assert verdict.status == "pass", verdict.reason
