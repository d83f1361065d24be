"""Machines and programs of the simulator's tests."""

from dataclasses import replace

import pytest

from archsim.engine.simulate import simulate
from machine.assembly import parse
from machine.buffer import PortConfig
from machine.load import read_machine

# A port of its own for every unit and a bank for every port: only the rules of the units are left.
PORTS = (
    PortConfig(name="array", clients=("array",), count=4),
    PortConfig(name="vector", clients=("vector",), count=4),
    PortConfig(name="dma", clients=("dma",), count=4),
    PortConfig(name="link", clients=("link",), count=1),
)


@pytest.fixture(scope="session")
def machine():
    """Make `tiny` with ports of their own for all units and without refresh, changed as asked."""

    def make(arrays=1, vectors=1, **changes):
        tiny = read_machine("tiny")
        buffers = {
            name: replace(getattr(tiny, name), ports=PORTS, banks=16, word_bytes=64)
            for name in ("scratchpad", "accumulator")
        }
        return replace(
            tiny,
            arrays=(replace(tiny.arrays[0], count=arrays),),
            vectors=(replace(tiny.vectors[0], count=vectors),),
            dram=replace(tiny.dram, refresh="off"),
            **(buffers | changes),
        )

    return make


@pytest.fixture(scope="session")
def run(machine):
    """Simulate a text program, on the machine above unless another is given."""

    def simulated(text, on=None, launch=None, values=None):
        return simulate(parse(text), on or machine(), launch, values)

    return simulated


@pytest.fixture(scope="session")
def times():
    """Return (issue, start, completion) of the instructions of a queue."""

    def of(result, queue):
        return [(e.issue, e.start, e.completion) for e in result.log.of(queue)]

    return of
