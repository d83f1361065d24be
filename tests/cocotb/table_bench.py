"""The blocks that make tables and quantise them, emitted, under Icarus.

Golden is the model, the simulator gives the cycles. Run by ``test_tables.py``; ``$TABLE_JSON``
names the JSON emitted beside the Verilog, whose module says which block it is.
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

from archsim.lut import precompute_transfers, quantise_transfers
from golden.convert import codes_of
from golden.floats import add
from golden.lut import quantise_tables, tables
from machine.lut_table import TableQuantiserConfig, TableUnitConfig
from machine.vector import ScaleRule

FACTS = json.loads(Path(os.environ["TABLE_JSON"]).read_text())
QUANTISES = FACTS["module"] == "table_quantiser"
GROUPS = 24


def pack(codes, bits: int) -> int:
    """Return the payload whose lane j, at bit ``j * bits``, is ``codes[j]``."""
    return sum((int(code) & (1 << bits) - 1) << j * bits for j, code in enumerate(codes))


def waits(rng: np.random.Generator, beats: int, most: int = 5) -> list[int]:
    return np.cumsum(rng.integers(0, most, beats) * rng.integers(0, 2, beats)).tolist()


async def reset(dut, outputs: list[str]) -> None:
    """Start the clock and reset for two cycles, with nothing offered."""
    cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
    dut.i__valid.value = 0
    dut.i__payload.value = 0
    for name in outputs:
        dut[f"{name}__ready"].value = 0
    dut.rst.value = 1
    for _ in range(3):
        await FallingEdge(dut.clk)
    dut.rst.value = 0


async def moved(dut, payloads: list[int], valid_from: list[int], ready: dict[str, list[int]]):
    """Return the driver and the monitors, when all has moved."""
    await reset(dut, list(ready))
    driver, monitors = Driver(dut, "i"), {name: Monitor(dut, name) for name in ready}
    tasks = [cocotb.start_soon(monitors[name].receive(ready[name])) for name in ready]
    await Combine(cocotb.start_soon(driver.send(payloads, valid_from)), *tasks)
    return driver, monitors


@cocotb.test(skip=QUANTISES)
@cocotb.parametrize(seed=range(3))
async def tables_and_cycles_are_those_of_golden_and_simulator(dut, seed):
    cfg = TypeAdapter(TableUnitConfig).validate_json(json.dumps(FACTS["parameters"]))
    rng = np.random.default_rng(seed)
    bits = cfg.activation.bits
    if cfg.activation.is_float:
        given = (rng.normal(size=(GROUPS, cfg.k)) * np.exp2(rng.integers(-8, 8))).astype(np.float16)
        given[:3] = np.array([[0, -0.0], [65504, -65504], [6e-8, 65504]])
        groups = [pack(group, bits) for group in given.view(np.uint16)]
        low, high = given.astype(np.float32).T
        made = codes_of(np.stack([add(-high, -low), add(-high, low)], axis=-1), cfg.entry,
                        saturate=False)
    else:
        half = 1 << bits - 1
        given = rng.integers(-half, half, (GROUPS, cfg.k))
        given[0] = -half
        groups = [pack(group, bits) for group in given]
        made = tables(given, cfg.k)[:, 0]
    valid, ready = waits(rng, GROUPS), waits(rng, GROUPS)
    driver, monitors = await moved(dut, groups, valid, {"o": ready})
    InOrderChecker([pack(table, cfg.entry.bits) for table in made]).check(
        monitors["o"].payloads, "tables")
    cycles = precompute_transfers(GROUPS, valid=valid, ready=ready)
    InOrderChecker(cycles.i.tolist()).check(driver.cycles, "cycles of i")
    InOrderChecker(cycles.o.tolist()).check(monitors["o"].cycles, "cycles of o")


@cocotb.test(skip=not QUANTISES)
@cocotb.parametrize(seed=range(3))
async def codes_scales_and_cycles_are_those_of_golden_and_simulator(dut, seed):
    rule = ScaleRule(FACTS["parameters"]["rule"])
    cfg = TableQuantiserConfig(**FACTS["parameters"] | {"rule": rule})
    rng = np.random.default_rng(seed)
    half, blocks = 1 << cfg.entry.bits - 1, 4
    given = rng.integers(-half, half, (blocks * cfg.block, cfg.entries))
    given[: cfg.block] = 0
    given[cfg.block : 2 * cfg.block] //= half // 2
    times = {"valid": waits(rng, len(given)), "ready": waits(rng, len(given)),
             "scales_ready": waits(rng, blocks, 60)}
    driver, monitors = await moved(
        dut, [pack(table, cfg.entry.bits) for table in given], times["valid"],
        {"o": times["ready"], "o_scales": times["scales_ready"]})
    codes, scales = quantise_tables(given, cfg.rule, cfg.block, cfg.code)
    InOrderChecker([pack(table, cfg.code.bits) for table in codes]).check(
        monitors["o"].payloads, "codes")
    InOrderChecker(scales.astype(np.float32).view(np.uint32).tolist()).check(
        monitors["o_scales"].payloads, "scales")
    cycles = quantise_transfers(cfg, blocks, **times)
    InOrderChecker(cycles.i.tolist()).check(driver.cycles, "cycles of i")
    for name in ("o", "o_scales"):
        InOrderChecker(getattr(cycles, name).tolist()).check(
            monitors[name].cycles, f"cycles of {name}")
