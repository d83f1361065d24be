"""The emitted bank unit and channel under Icarus: golden is the model, archsim has the cycles.

Run by ``test_pim.py``; ``$PIM_JSON`` names the JSON emitted beside the Verilog. Data, model and
expected cycles are those of the tests of the same blocks in ``tests/cross``.
"""

import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType

import cocotb
import numpy as np
from cocotb.triggers import Combine
from pydantic import TypeAdapter
from stream_agents import Driver, InOrderChecker, Monitor, start

from archsim.pim import PimChannel
from machine.dram import DramConfig
from machine.pim import BankUnitConfig, PimConfig

FACTS = json.loads(Path(os.environ["PIM_JSON"]).read_text())


def cases(name: str) -> ModuleType:
    """Return the tests of a block."""
    path = Path(__file__).parents[1] / "cross" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def configured(kind: type, parameters: dict):
    return TypeAdapter(kind).validate_json(json.dumps(parameters))


@cocotb.test(skip=FACTS["module"] != "pim_unit")
@cocotb.parametrize(seed=range(3))
async def results_and_cycles_are_those_of_a_row_of_registers(dut, seed):
    unit, rng = cases("test_pim_unit"), np.random.default_rng(seed)
    cfg, count = configured(BankUnitConfig, FACTS["parameters"]), 150
    matrix, vector = (unit.codes(cfg.format, (count, cfg.lanes), rng) for _ in range(2))
    first, last = unit.ends(count, rng)
    offered = np.cumsum(rng.integers(0, 4, count) * (rng.random(count) < 0.4))
    ready = np.cumsum(rng.integers(0, 24, last.sum()) * (rng.random(last.sum()) < 0.6))
    await start(dut, ["i"], ["o"])
    driver, monitor = Driver(dut, "i"), Monitor(dut, "o")
    await Combine(
        cocotb.start_soon(driver.send(unit.beats(cfg, matrix, vector, first, last), offered)),
        cocotb.start_soon(monitor.receive(ready)))
    ins, outs = unit.expected_cycles(cfg, last, offered, ready)
    InOrderChecker(unit.golden(cfg.format, matrix, vector, first, last)).check(
        monitor.payloads, "results")
    InOrderChecker(ins).check(driver.cycles, "cycles of i")
    InOrderChecker(outs).check(monitor.cycles, "cycles of o")


@cocotb.test(skip=FACTS["module"] != "pim")
async def a_gemv_from_host_writes_to_result_reads(dut):
    channel = cases("test_pim_channel")
    dram = configured(DramConfig, FACTS["parameters"]["dram"])
    pim = configured(PimConfig, FACTS["parameters"]["pim"])
    w, x, place, requests, writes, ops = channel.gemv(dram, pim, 5)
    begin = max(PimChannel(dram, pim).run([], requests).host_done) + 1
    requests += [r._replace(cycle=begin, write=False) for r in requests[:6]]
    run = PimChannel(dram, pim).run(ops, requests, op_cycles=[begin] * len(ops))

    def packed(layout: str, values: list[dict]) -> list[int]:
        at = {field["name"]: field["lowest_bit"] for field in FACTS["payloads"][layout]}
        return [sum(int(row[name]) << low for name, low in at.items()) for row in values]

    kinds = FACTS["codes"]["entries"]
    send = {
        "i": (packed("i", [{**op._asdict(), "kind": kinds[op.kind]} for op in ops]),
              [begin] * len(ops)),
        "i_host": (packed("i_host", [r._asdict() for r in requests]),
                   [r.cycle for r in requests]),
        "i_writes": (writes, [0] * len(writes)),
    }
    take = {"o_reads": 6, "o_results": run.counts["GEMV"] + run.counts["READRES"],
            "o": len(run.trace)}
    await start(dut, list(send), [*take, "o_fault"])
    drivers = {name: Driver(dut, name) for name in send}
    monitors = {name: Monitor(dut, name) for name in take}
    await Combine(
        *(cocotb.start_soon(drivers[name].send(*beats)) for name, beats in send.items()),
        *(cocotb.start_soon(monitors[name].receive([0] * take[name])) for name in take))

    # Results are golden's, reads what was written, commands and cycles the simulator's.
    results = [sum(code << 32 * bank for bank, code in enumerate(row))
               for row in channel.partial_sums(dram, pim, w, x, place)]
    InOrderChecker(results).check(monitors["o_results"].payloads, "results")
    burst = (1 << 8 * dram.burst_bytes) - 1
    order = sorted(range(6), key=lambda k: run.host_done[len(writes) + k])
    InOrderChecker([writes[k] for k in order]).check(
        [payload & burst for payload in monitors["o_reads"].payloads], "reads")
    codes = FACTS["codes"]["commands"]
    InOrderChecker([codes[c.command] for c in run.trace]).check(
        [payload & 15 for payload in monitors["o"].payloads], "commands")
    InOrderChecker([c.cycle for c in run.trace]).check(monitors["o"].cycles, "cycles of o")
    assert not dut.o_fault__valid.value
