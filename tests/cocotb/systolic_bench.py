"""The emitted array under a Verilog simulator: golden is the model, the simulator gives the cycles.

Run by ``test_systolic.py``; ``$SYSTOLIC_JSON`` names the JSON emitted beside the Verilog.
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

from archsim.systolic import transfers
from golden.systolic import run
from machine.formats import Format, Kind
from machine.systolic import SystolicConfig, Tile, pack_tile

FACTS = json.loads(Path(os.environ["SYSTOLIC_JSON"]).read_text())
CFG = TypeAdapter(SystolicConfig).validate_json(json.dumps(FACTS["parameters"]))
INPUTS = ("i_commands", "i_acts", "i_weights")


def pack(beat, bits: int) -> int:
    """Return the payload whose lane j, at bit ``j * bits``, is integer `beat[j]`."""
    return sum((int(value) & ((1 << bits) - 1)) << lane * bits for lane, value in enumerate(beat))


def random_tiles(rng: np.random.Generator) -> list[Tile]:
    """Return a few random commands of both dataflows that set, add, flush and send.

    The first sets all stored rows, which keep their contents over a reset.
    """
    tiles = [Tile(dataflow="ws", m=CFG.acc_rows, k=1, emit=False)]
    for _ in range(6):
        dataflow = str(rng.choice(CFG.dataflows))
        m, k = int(rng.integers(1, CFG.rows + 1)), int(rng.integers(1, CFG.rows + 1))
        row = int(rng.integers(0, CFG.acc_rows - m + 1))
        tiles.append(Tile(dataflow=dataflow, m=m, k=k, accumulate=bool(rng.integers(2)),
                          emit=bool(rng.integers(2)), acc_row=row))
    return [*tiles, Tile(dataflow=CFG.dataflows[0], m=1, k=1)]


def codes(rng: np.random.Generator, fmt: Format, beats: int, lanes: int) -> np.ndarray:
    """Return random beats of codes of `fmt`, which stand for a number each."""
    legal = [0, 1, 3] if fmt.kind is Kind.TERNARY else range(1 << fmt.bits)
    return rng.choice(legal, (beats, lanes))


def waits(rng: np.random.Generator, beats: int) -> list[int]:
    return np.cumsum(rng.integers(0, 5, beats) * rng.integers(0, 2, beats)).tolist()


async def reset(dut) -> None:
    """Start the clock and reset for two cycles, with nothing offered."""
    cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
    for name in INPUTS:
        dut[f"{name}__valid"].value = 0
        dut[f"{name}__payload"].value = 0
    dut.o_sums__ready.value = 0
    dut.rst.value = 1
    for _ in range(3):
        await FallingEdge(dut.clk)
    dut.rst.value = 0


@cocotb.test()
@cocotb.parametrize(seed=range(8))
async def sums_and_cycles_are_those_of_golden_and_simulator(dut, seed):
    rng = np.random.default_rng(seed)
    tiles = random_tiles(rng)
    lanes = CFG.pe.k_lanes
    acts = codes(rng, CFG.act_format, sum(tile.act_beats for tile in tiles), CFG.rows * lanes)
    weights = codes(rng, CFG.operand_format, sum(tile.weight_beats for tile in tiles),
                    CFG.cols * lanes)
    payloads = {
        "i_commands": [pack_tile(tile) for tile in tiles],
        "i_acts": [pack(beat, CFG.a_bits) for beat in acts],
        "i_weights": [pack(beat, CFG.w_bits) for beat in weights],
    }
    times = {f"{name[2:]}_valid": waits(rng, len(payloads[name])) for name in INPUTS}
    ready = waits(rng, sum(tile.sum_beats for tile in tiles))

    await reset(dut)
    drivers = {name: Driver(dut, name) for name in INPUTS}
    monitor = Monitor(dut, "o_sums")
    tasks = [cocotb.start_soon(driver.send(payloads[name], times[f"{name[2:]}_valid"]))
             for name, driver in drivers.items()]
    await Combine(*tasks, cocotb.start_soon(monitor.receive(ready)))

    model = InOrderChecker([pack(beat, CFG.acc_bits) for beat in run(CFG, tiles, acts, weights)])
    model.check(monitor.payloads, "sums")
    cycles = transfers(CFG, tiles, sums_ready=ready, **times)
    for name, expected in (("i_commands", cycles.commands), ("i_acts", cycles.acts),
                           ("i_weights", cycles.weights)):
        InOrderChecker(expected.tolist()).check(drivers[name].cycles, f"cycles of {name}")
    InOrderChecker(cycles.sums.tolist()).check(monitor.cycles, "cycles of o_sums")
