# amaranth: UnusedElaboratable=no
"""The array's streams: latency, what it accepts when, the stream rules, reset."""

import numpy as np
import pytest
from amaranth.hdl import ResetInserter, Signal
from amaranth.sim import Simulator

from golden.systolic import run
from hw.stream import collect, drive
from hw.systolic import Systolic
from machine.pe import PeConfig
from machine.systolic import SystolicConfig, Tile, pack_tile

CFG = SystolicConfig(rows=2, cols=3, acc_rows=4)


def simulate(design, *benches) -> None:
    """Run `benches` on `design`, clocked, until they end."""
    simulator = Simulator(design)
    simulator.add_clock(1e-6)
    for bench in benches:
        simulator.add_testbench(bench)
    simulator.run()


def packed(beat, bits: int) -> int:
    """Return the payload whose lane j, at bit ``j * bits``, is integer `beat[j]`."""
    return sum((int(value) & ((1 << bits) - 1)) << lane * bits for lane, value in enumerate(beat))


def sources(dut: Systolic, tiles: list[Tile], acts: np.ndarray, weights: np.ndarray, log=None):
    """Return one bench for each stream that enters, always offering; cycles go into `log`."""
    log = {} if log is None else log
    payloads = {
        "i_commands": [pack_tile(tile) for tile in tiles],
        "i_acts": [packed(beat, dut.cfg.a_bits) for beat in acts],
        "i_weights": [packed(beat, dut.cfg.w_bits) for beat in weights],
    }

    def source(name: str):
        async def bench(ctx):
            values = payloads[name]
            log[name] = await drive(ctx, getattr(dut, name), values, [0] * len(values))
        return bench

    return [source(name) for name in payloads]


@pytest.mark.parametrize("rows, cols, depth", [(1, 1, 1), (2, 5, 1), (5, 2, 2), (4, 4, 2)])
@pytest.mark.parametrize("dataflow", ["ws", "os"])
def test_latency_is_the_configurations(rows, cols, depth, dataflow):
    cfg = SystolicConfig(rows=rows, cols=cols, acc_rows=0, pe=PeConfig(depth_cycles=depth))
    dut = Systolic(cfg)
    log, offered = {}, []

    async def watch(ctx):
        ctx.set(dut.o_sums.ready, 1)
        for cycle in range(40):
            *_, valid = await ctx.tick().sample(dut.o_sums.valid)
            if valid:
                offered.append(cycle)

    tile = Tile(dataflow=dataflow, m=1, k=1)
    one = np.ones((1, rows), int), np.ones((1, cols), int)
    simulate(dut, watch, *sources(dut, [tile], *one, log))
    assert offered == [log["i_acts"][0] + cfg.latency_cycles]


def test_nothing_but_a_command_is_accepted_first():
    dut = Systolic(CFG)
    seen = []

    async def bench(ctx):
        for port in (dut.i_acts, dut.i_weights, dut.o_sums):
            ctx.set(port.valid if port is not dut.o_sums else port.ready, 1)
        for _ in range(30):
            *_, acts, weights, sums = await ctx.tick().sample(
                dut.i_acts.ready, dut.i_weights.ready, dut.o_sums.valid)
            seen.append((acts, weights, sums))

    simulate(dut, bench)
    assert set(seen) == {(0, 0, 0)}


def test_offered_sums_stay_until_they_are_taken():
    tiles = [Tile(dataflow="ws", m=4, k=2)]
    rng = np.random.default_rng(1)
    acts, weights = rng.integers(-128, 128, (4, 2)), rng.integers(-128, 128, (2, 3))
    dut = Systolic(CFG)
    seen, taken = [], []

    async def watch(ctx):
        for _ in range(40):
            *_, valid, payload = await ctx.tick().sample(dut.o_sums.valid, dut.o_sums.payload)
            if valid:
                seen.append(payload)
        taken.extend((await collect(ctx, dut.o_sums, [0] * 4))[0])

    simulate(dut, watch, *sources(dut, tiles, acts, weights))
    want = [packed(row, 32) for row in run(CFG, tiles, acts, weights)]
    assert len(seen) > 20 and set(seen) == {want[0]}
    assert taken == want


@pytest.mark.parametrize("dataflow", ["ws", "os"])
def test_reset_abandons_the_commands_in_work(dataflow):
    tile = Tile(dataflow=dataflow, m=2, k=2)
    rng = np.random.default_rng(2)
    old, new = rng.integers(-128, 128, (2, 4, 2)), rng.integers(-128, 128, (2, 2, 3))
    reset = Signal()
    dut = Systolic(CFG)
    design = ResetInserter(reset)(dut)
    result = {}

    async def bench(ctx):
        # Fill every part of the array, then reset in a cycle in which nothing is offered.
        ctx.set(dut.i_commands.payload, pack_tile(tile))
        ctx.set(dut.i_acts.payload, packed(old[0, 0], 8))
        ctx.set(dut.i_weights.payload, packed(new[0, 0], 8))
        for port in (dut.i_commands, dut.i_acts, dut.i_weights):
            ctx.set(port.valid, 1)
        await ctx.tick().repeat(25)
        for port in (dut.i_commands, dut.i_acts, dut.i_weights):
            ctx.set(port.valid, 0)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        assert ctx.get(dut.o_sums.valid) == 0 and ctx.get(dut.o_sums.payload) == 0
        result["ready"] = True
        result["sums"], _ = await collect(ctx, dut.o_sums, [0] * 2)
        ctx.set(dut.o_sums.ready, 1)
        *_, result["more"] = await ctx.tick().sample(dut.o_sums.valid).repeat(30)

    def later(source):
        async def started(ctx):
            while not result.get("ready"):
                await ctx.tick()
            await source(ctx)
        return started

    acts, weights = old[1, :2], new[1]
    simulate(design, bench, *[later(source) for source in sources(dut, [tile], acts, weights)])
    assert result["sums"] == [packed(row, 32) for row in run(CFG, [tile], acts, weights)]
    assert result["more"] == 0
