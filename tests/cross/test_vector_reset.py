# amaranth: UnusedElaboratable=no
"""A reset in the middle of a command of the vector unit abandons it and leaves nothing behind."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import ClockDomain, ClockSignal, DomainRenamer, Module, ResetSignal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In

from archsim.vector_core import transfers
from golden.vector_core import beats_of, results
from hw.cxxrtl import StreamSimulation
from hw.vector import Vector
from hw.vector_lane import Lane
from machine.vector_core import VectorCoreConfig
from machine.vector_programs import Code

spec = importlib.util.spec_from_file_location(
    "vector_tests", Path(__file__).parent / "test_vector.py")
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)

SMALL = VectorCoreConfig(lanes=2, row_elements=8, unit_cycles=1)
NAMES = ("i_commands", "i_x", "i_y")


class Resettable(wiring.Component):
    """The unit, and a stream that resets it in the cycle in which something is offered.

    Members
    -------
    i_resets : In(stream)
        Offered: the unit is reset in this cycle.
    """

    def __init__(self):
        super().__init__({**Vector(SMALL).signature.members,
                          "i_resets": In(stream.Signature(1))})

    def elaborate(self, platform):
        m = Module()
        m.domains.inner = ClockDomain(local=True)
        m.d.comb += [ClockSignal("inner").eq(ClockSignal()),
                     ResetSignal("inner").eq(ResetSignal() | self.i_resets.valid),
                     self.i_resets.ready.eq(1)]
        m.submodules.unit = unit = DomainRenamer("inner")(Vector(SMALL, library="vector"))
        for name in NAMES:
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(unit, name))
        wiring.connect(m, unit.o, wiring.flipped(self.o))
        return m


@pytest.fixture(scope="module")
def compiled() -> StreamSimulation:
    return StreamSimulation(Resettable(), merge_wires=False,
                            parts=[("vector_lane", Lane(SMALL))])


def scheduled(rng: np.random.Generator, works: list):
    """Return the words of each stream, the times of all, golden's beats and the recurrence."""
    words = tests.streams(works, SMALL)
    sent = np.concatenate([
        beats_of(results(w.command, SMALL.lanes, w.x, w.y, w.once), SMALL.lanes) for w in works])
    sizes = {name: len(word) for name, word in words.items()} | {"o": len(sent)}
    times = {name: tests.stalls(rng, size) for name, size in sizes.items()}
    moved = transfers(SMALL, [w.command for w in works], commands_valid=times["i_commands"],
                      x_valid=times["i_x"], y_valid=times["i_y"], o_ready=times["o"])
    cycles = dict(zip((*NAMES, "o"), (moved.commands, moved.x, moved.y, moved.o), strict=True))
    return words | {"o": sent}, times, cycles


@pytest.mark.cxxrtl
@pytest.mark.parametrize("code", Code, ids=lambda code: code.name)
def test_a_reset_in_the_middle_of_a_command_leaves_nothing_behind(code, compiled):
    rng = np.random.default_rng([code, 77])
    cut_short = 0
    for _ in range(4):
        before = [tests.make(rng, SMALL, code, 2, 8), tests.make(rng, SMALL, Code.ADD, 1, 4)]
        after = [tests.make(rng, SMALL, Code(int(rng.integers(len(Code)))), 2, 5),
                 tests.make(rng, SMALL, code, 1, 7)]
        first, second = scheduled(rng, before), scheduled(rng, after)
        last = max(int(cycles[-1]) for cycles in first[2].values() if len(cycles))
        reset = int(rng.integers(1, last + 1))
        given, expected, sent = {}, {}, {}
        for name in (*NAMES, "o"):
            kept = int((first[2][name] <= reset).sum())
            cut_short += kept < len(first[2][name])
            sent[name] = np.concatenate([first[0][name][:kept], second[0][name]])
            given[name] = np.concatenate(
                [first[1][name][:kept], second[1][name] + reset + 1]).astype(np.int64)
            expected[name] = np.concatenate(
                [first[2][name][:kept], second[2][name] + reset + 1])
        log = compiled.run(
            {**{name: (sent[name], given[name]) for name in NAMES},
             "i_resets": (np.zeros((1, 1), np.uint32), np.array([reset]))},
            {"o": given["o"]}, max_cycles=100_000)
        for name in (*NAMES, "o"):
            assert log[name].cycles.tolist() == expected[name].tolist(), (name, reset)
        assert (log["o"].words == sent["o"]).all(), reset
    assert cut_short
