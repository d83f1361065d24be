"""The emitted vector unit under a Verilog simulator: golden is the model, the simulator the clock.

Run by ``test_vector.py``; ``$VECTOR_JSON`` names the JSON emitted beside the Verilog.
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

from archsim.vector_core import transfers
from golden.vector_core import beats_of, results
from machine.vector import Mask
from machine.vector_core import VectorCommand, VectorCoreConfig, pack_command
from machine.vector_programs import Code

FACTS = json.loads(Path(os.environ["VECTOR_JSON"]).read_text())
CFG = TypeAdapter(VectorCoreConfig).validate_json(json.dumps(FACTS["parameters"]))
INPUTS = ("i_commands", "i_x", "i_y")
ONE = int(np.float32(1).view(np.uint32))


def pack(beat) -> int:
    """Return the payload whose lane j, at bit ``32 * j``, is `beat[j]`."""
    return sum(int(value) << 32 * lane for lane, value in enumerate(beat))


def halves(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Return codes of random float16 of moderate size."""
    return rng.normal(size=shape).astype(np.float16).view(np.uint16).astype(np.uint32)


def work(rng: np.random.Generator, code: Code):
    """Return a command of `code`, its parts of x and y, and what y brings once."""
    rows, width = int(rng.integers(1, 3)), int(rng.integers(1, CFG.row_elements + 1))
    command = VectorCommand(
        code=code, rows=rows, width=width, x_format="float16", y_format="float16", value=ONE,
        o_format="int8" if code is Code.QUANTISE_ROWS else "bfloat16",
        mask=Mask.CAUSAL if code is Code.SOFTMAX else Mask.NONE, position=2)
    sizes = [2, width] if code is Code.MERGE else [width]
    x = [halves(rng, (rows, size)) for size in sizes]
    y = [halves(rng, (rows, size)) for size in sizes] if code in (Code.ADD, Code.MERGE) else []
    once = [halves(rng, (1, width))] if code is Code.RMSNORM else []
    return command, x, y, once


def waits(rng: np.random.Generator, beats: int) -> list[int]:
    return np.cumsum(rng.integers(0, 5, beats) * rng.integers(0, 2, beats)).tolist()


async def reset(dut) -> None:
    """Start the clock and reset for two cycles, with nothing offered."""
    cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
    for name in INPUTS:
        dut[f"{name}__valid"].value = 0
        dut[f"{name}__payload"].value = 0
    dut.o__ready.value = 0
    dut.rst.value = 1
    for _ in range(3):
        await FallingEdge(dut.clk)
    dut.rst.value = 0


@cocotb.test()
@cocotb.parametrize(codes=[
    (Code.ADD, Code.SILU, Code.RMSNORM), (Code.SOFTMAX, Code.QUANTISE_ROWS),
    (Code.MERGE, Code.RELU, Code.REDUCE_SUM), (Code.GELU,)])
async def results_and_cycles_are_those_of_golden_and_simulator(dut, codes):
    rng = np.random.default_rng(int(codes[0]))
    works = [work(rng, code) for code in codes]
    commands = [command for command, *_ in works]
    payloads = {
        "i_commands": [pack_command(command) for command in commands],
        "i_x": [pack(beat) for _, x, _, _ in works for beat in beats_of(x, CFG.lanes)],
        "i_y": [pack(beat) for _, _, y, once in works for beat in beats_of(y, CFG.lanes, once)],
    }
    wanted = [pack(beat) for command, x, y, once in works
              for beat in beats_of(results(command, CFG.lanes, x, y, once), CFG.lanes)]
    times = {name: waits(rng, len(payloads[name])) for name in INPUTS}
    ready = waits(rng, len(wanted))

    await reset(dut)
    drivers = {name: Driver(dut, name) for name in INPUTS}
    monitor = Monitor(dut, "o")
    tasks = [cocotb.start_soon(driver.send(payloads[name], times[name]))
             for name, driver in drivers.items()]
    await Combine(*tasks, cocotb.start_soon(monitor.receive(ready)))

    InOrderChecker(wanted).check(monitor.payloads, "results")
    cycles = transfers(CFG, commands, commands_valid=times["i_commands"], x_valid=times["i_x"],
                       y_valid=times["i_y"], o_ready=ready)
    for name, expected in (("i_commands", cycles.commands), ("i_x", cycles.x),
                           ("i_y", cycles.y)):
        InOrderChecker(expected.tolist()).check(drivers[name].cycles, f"cycles of {name}")
    InOrderChecker(cycles.o.tolist()).check(monitor.cycles, "cycles of o")
