"""An emitted float unit under Icarus: golden is the model, the steps are counted.

A unit has no streams: its registers move in a cycle with ``en``. The driver steps it in random
cycles, the monitor notes what it shows after each. Run by ``test_float_unit.py``; ``$FLOAT_JSON``
names the JSON emitted beside the Verilog.
"""

import json
import os
from pathlib import Path

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly
from cocotb.types import LogicArray
from pydantic import TypeAdapter
from stream_agents import InOrderChecker

from golden import floats
from golden.formats import decode, encode
from machine.floats import FloatConfig

FACTS = json.loads(Path(os.environ["FLOAT_JSON"]).read_text())
CFG = TypeAdapter(FloatConfig).validate_json(json.dumps(FACTS["parameters"]))
OPERATIONS = 300


def model(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return golden's codes of the results; every operation of the benches is exact in float64."""
    out = CFG.format_of("out")
    x, y = (decode(codes, CFG.format_of(name)) for name, codes in (("a", a), ("b", b)))
    with np.errstate(all="ignore"):
        match CFG.operation:
            case "add" | "multiply" | "divide":
                return encode(getattr(floats, CFG.operation)(x, y, out), out)
            case "convert":
                return encode(x, out, saturate=CFG.saturate)
    raise ValueError(f"operation must be one of the benches', not {CFG.operation}")


class StepDriver:
    """Gives operands to the unit and steps it in the cycles of `steps`; they are x in others."""

    def __init__(self, dut):
        self.dut = dut
        self.ports = {name: dut[name] for name in CFG.operands}

    async def send(self, operands: dict[str, np.ndarray], steps: np.ndarray) -> None:
        taken = 0
        for step in steps:
            await FallingEdge(self.dut.clk)
            self.dut.en.value = int(step)
            for name, port in self.ports.items():
                port.value = (int(operands[name][min(taken, OPERATIONS - 1)]) if step
                              else LogicArray("X" * len(port)))
            taken += int(step)


class StepMonitor:
    """Notes what the unit shows in front of each step, and that a cycle without one changes it not.
    """

    def __init__(self, dut):
        self.dut = dut
        self.shown: list[int] = []

    async def receive(self, steps: np.ndarray) -> None:
        before = None
        for cycle, step in enumerate(steps):
            await FallingEdge(self.dut.clk)
            await ReadOnly()
            value = self.dut.o.value
            stepped = sum(steps[:cycle])
            if stepped >= CFG.latency_cycles:
                assert value.is_resolvable, f"cycle {cycle}: o is {value}"
                if before is not None and not steps[cycle - 1]:
                    assert value == before, f"cycle {cycle}: {value} without a step, was {before}"
                before = value
                if step:
                    self.shown.append(value.to_unsigned())


@cocotb.test()
@cocotb.parametrize(seed=range(2))
async def results_are_those_of_golden_after_their_steps(dut, seed):
    rng = np.random.default_rng(seed)
    operands = {name: rng.integers(0, 1 << CFG.format_of(name).bits, OPERATIONS)
                for name in ("a", "b")}
    operands["b"][::9] = operands["a"][::9]
    steps = rng.integers(0, 2, 4 * OPERATIONS)
    steps[np.cumsum(steps) > OPERATIONS + CFG.latency_cycles] = 0
    cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
    dut.en.value = 0
    dut.rst.value = 1
    for _ in range(3):
        await FallingEdge(dut.clk)
    dut.rst.value = 0
    monitor = StepMonitor(dut)
    task = cocotb.start_soon(monitor.receive(steps))
    await StepDriver(dut).send(operands, steps)
    await task
    wanted = model(operands["a"], operands["b"]).tolist()
    assert len(monitor.shown) >= OPERATIONS
    InOrderChecker(wanted).check(monitor.shown[:OPERATIONS], "results")
