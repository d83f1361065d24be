"""The emitted lookup array under Icarus: golden is the model, the simulator gives the cycles.

Run by ``test_lut.py``; ``$LUT_JSON`` names the JSON emitted beside the Verilog.
"""

import json
import os
from pathlib import Path

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import Combine, FallingEdge
from pydantic import TypeAdapter
from stream_agents import Driver, InOrderChecker, Monitor

from archsim.lut import lut_transfers
from golden.lut_array import run
from machine.lut import LutConfig, LutTile, pack_lut_tile

FACTS = json.loads(Path(os.environ["LUT_JSON"]).read_text())
CFG = TypeAdapter(LutConfig).validate_json(json.dumps(FACTS["parameters"]))
INPUTS = {"commands": "i_commands", "tables": "i_tables", "weights": "i_weights"}


def pack(beat, bits: int) -> int:
    """Return the payload whose lane j, at bit ``j * bits``, is integer ``beat[j]``."""
    return sum((int(value) & ((1 << bits) - 1)) << lane * bits
               for lane, value in enumerate(np.ravel(beat)))


def random_tiles(rng: np.random.Generator) -> list[LutTile]:
    """Return a few random commands that set, go on, stay and send."""
    tiles = [LutTile(rows=int(rng.integers(1, CFG.m + 1)), tables=int(rng.integers(1, 4)),
                     planes=int(rng.integers(1, CFG.w_bits + 1)),
                     accumulate=bool(rng.integers(2)), emit=bool(rng.integers(2)))
             for _ in range(8)]
    return [*tiles, LutTile(rows=CFG.m, tables=1, planes=1)]


def random_beats(rng: np.random.Generator, tiles: list[LutTile]):
    """Return random beats of tables or activations, and of weights, for `tiles`."""
    bits = CFG.tables.entry.bits if CFG.takes_tables else CFG.a_bits
    half = 1 << bits - 1
    count = sum(tile.tables for tile in tiles)
    data = rng.integers(-half, half, (count, CFG.m, CFG.row_bits // bits))
    beats = sum(tile.weight_beats(CFG) for tile in tiles)
    if CFG.unit == "mac":
        half = 1 << CFG.w_bits - 1
        return data, rng.integers(-half, half, (beats, CFG.n, CFG.k))
    return data, rng.integers(0, 1 << CFG.k, (beats, CFG.n))


def waits(rng: np.random.Generator, beats: int) -> list[int]:
    return np.cumsum(rng.integers(0, 5, beats) * rng.integers(0, 2, beats)).tolist()


async def reset(dut) -> None:
    """Start the clock and reset for two cycles, with nothing offered."""
    cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
    for name in INPUTS.values():
        dut[f"{name}__valid"].value = 0
        dut[f"{name}__payload"].value = 0
    dut.o_sums__ready.value = 0
    dut.rst.value = 1
    for _ in range(3):
        await FallingEdge(dut.clk)
    dut.rst.value = 0


@cocotb.test()
@cocotb.parametrize(seed=range(4))
async def sums_and_cycles_are_those_of_golden_and_simulator(dut, seed):
    rng = np.random.default_rng(seed)
    tiles = random_tiles(rng)
    data, weights = random_beats(rng, tiles)
    entry = CFG.tables.entry.bits if CFG.takes_tables else CFG.a_bits
    payloads = {
        "commands": [pack_lut_tile(tile) for tile in tiles],
        "tables": [pack(beat, entry) for beat in data],
        "weights": [pack(beat, CFG.w_bits if CFG.unit == "mac" else CFG.k) for beat in weights],
    }
    times = {f"{name}_valid": waits(rng, len(payloads[name])) for name in INPUTS}
    ready = waits(rng, sum(tile.sum_beats for tile in tiles))

    await reset(dut)
    drivers = {name: Driver(dut, stream) for name, stream in INPUTS.items()}
    monitor = Monitor(dut, "o_sums")
    tasks = [cocotb.start_soon(driver.send(payloads[name], times[f"{name}_valid"]))
             for name, driver in drivers.items()]
    await Combine(*tasks, cocotb.start_soon(monitor.receive(ready)))

    model = InOrderChecker([pack(beat, CFG.acc_bits) for beat in run(CFG, tiles, data, weights)])
    model.check(monitor.payloads, "sums")
    cycles = lut_transfers(CFG, tiles, sums_ready=ready, **times)
    for name in INPUTS:
        InOrderChecker(getattr(cycles, name).tolist()).check(
            drivers[name].cycles, f"cycles of {INPUTS[name]}")
    InOrderChecker(cycles.sums.tolist()).check(monitor.cycles, "cycles of o_sums")
