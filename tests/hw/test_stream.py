"""The queue that ends a block, and the two ends of a stream."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from hw.stream import PairQueue, collect, drive


def through(valid_from, ready_from):
    """Send one payload per entry through a queue; return payloads, cycles in and cycles out."""
    dut = PairQueue(8)
    result = {}

    async def source(ctx):
        result["in"] = await drive(ctx, dut.i, range(len(valid_from)), valid_from)

    async def sink(ctx):
        result["payloads"], result["out"] = await collect(ctx, dut.o, ready_from)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(source)
    simulator.add_testbench(sink)
    simulator.run()
    return result["payloads"], result["in"], result["out"]


def test_passes_one_a_cycle_one_cycle_later():
    payloads, sent, taken = through([0] * 6, [0] * 6)
    assert payloads == list(range(6))
    assert sent == [0, 1, 2, 3, 4, 5] and taken == [1, 2, 3, 4, 5, 6]


def test_accepts_two_while_nothing_is_taken_and_not_a_third():
    _, sent, taken = through([0] * 4, [20, 21, 22, 23])
    assert sent == [0, 1, 21, 22] and taken == [20, 21, 22, 23]


@pytest.mark.parametrize("seed", range(5))
def test_keeps_every_payload_in_order_under_random_waits(seed):
    rng = np.random.default_rng(seed)
    waits = rng.integers(0, 4, (2, 40)) * rng.integers(0, 2, (2, 40))
    payloads, sent, taken = through(*np.cumsum(waits, axis=1).tolist())
    assert payloads == list(range(40))
    assert all(out > at for at, out in zip(sent, taken, strict=True))
