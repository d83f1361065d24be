# amaranth: UnusedElaboratable=no
"""The channel's controller and the bank unit become Verilog; what their parts keep and forget."""

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.sim import Simulator
from pydantic import TypeAdapter

import machine.dram as dram
from hw import yosys
from hw.pim import PimController
from hw.pim_banks import BankCells
from hw.pim_queue import HostWindow
from hw.pim_timers import NUMBER, ActivateWindow, Deadlines, Timers
from hw.pim_unit import BankUnit
from hw.verilog import emit
from machine.pim import BankUnitConfig, PimConfig

PRESETS = Path(dram.__file__).parent / "presets"


def read(kind, name):
    table = tomllib.loads((PRESETS / f"{name}.toml").read_text())
    return TypeAdapter(kind).validate_json(json.dumps(table))


HBM2 = read(dram.DramConfig, "dram/hbm2-neupims")
TINY = replace(HBM2, channels=1, ranks=2, bank_groups=1, banks_per_group=2, rows=16, columns=16)
PIM = replace(read(PimConfig, "pim/neupims"), buffer_bytes=256, gwrite_cycles=24, host_entries=2)


def simulate(dut, bench):
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("make, name", [
    (lambda: PimController(TINY, PIM), "pim_controller"),
    (lambda: BankUnit(BankUnitConfig(format="int8", lanes=4)), "pim_unit")])
def test_verilog_is_emitted_with_its_ports(tmp_path, make, name):
    texts = []
    for folder in ("one", "two"):
        verilog, facts = emit(make(), name, tmp_path / folder)
        texts.append(verilog.read_text())
        ports = {port["name"] for port in json.loads(facts.read_text())["ports"]}
        assert {"clk", "rst", "i__payload", "i__valid", "i__ready", "o__payload"} <= ports
    assert texts[0] == texts[1]
    assert f"module {name}(" in texts[0]
    assert "attribute" not in texts[0] and "src =" not in texts[0]


@pytest.mark.synth
@pytest.mark.parametrize("lanes", [4, 16])  # columns narrower than a beat, and wider
def test_the_cells_of_a_bank_are_block_ram(tmp_path, lanes):
    pim = replace(PIM, unit=BankUnitConfig(format="int8", lanes=lanes))
    emit(BankCells(replace(TINY, rows=256, bus_bits=32), pim), "pim_cells", tmp_path)
    script = "read_verilog pim_cells.v\nsynth_ecp5 -top pim_cells\nstat\n"
    cells = set(re.findall(r"^ +\d+ +([A-Z0-9_]+)$", yosys.run(script, tmp_path), re.MULTILINE))
    assert "DP16KD" in cells and "TRELLIS_DPR16X4" not in cells


def test_the_fifth_activate_waits_for_the_window_of_the_first():
    dut, seen = ActivateWindow(HBM2), []

    async def bench(ctx):
        for cycle in range(50):
            ctx.set(dut.act, cycle in (0, 4, 8, 12))
            seen.append(ctx.get(dut.ready))
            await ctx.tick()

    simulate(dut, bench)
    # After the fourth, at 12, until tFAW 30 after the first.
    assert [cycle for cycle, ready in enumerate(seen) if not ready] == list(range(13, 30))


def test_a_timer_blocks_to_the_last_cycle_of_its_rule():
    dut, seen = Timers(HBM2, PIM), {}

    async def bench(ctx):
        for cycle in range(60):
            ctx.set(dut.en, cycle == 5)
            ctx.set(dut.command, NUMBER["GACT"])
            ctx.set(dut.bank, 4)
            ready = ctx.get(dut.ready)
            for name, bank in (("GEMV", 0), ("GACT", 4), ("GACT", 0), ("GACT", 16), ("ACT", 5)):
                if ready >> (NUMBER[name] * 32 + bank) & 1:
                    seen.setdefault((name, bank), []).append(cycle)
            await ctx.tick()

    simulate(dut, bench)
    # tRCD 14, tRC 48, tFAW 30, none in the other rank; two row buffers.
    blocked = {key: sorted(set(range(60)) - set(cycles)) for key, cycles in seen.items()}
    assert blocked == {
        ("GEMV", 0): list(range(6, 19)), ("GACT", 4): list(range(6, 53)),
        ("GACT", 0): list(range(6, 35)), ("GACT", 16): [], ("ACT", 5): list(range(6, 35))}


def test_a_rank_stays_due_until_it_is_refreshed_and_keeps_its_interval():
    dut, seen = Deadlines(TINY), []

    async def bench(ctx):
        for cycle in range(6000):
            ctx.set(dut.refreshed, cycle in (1960, 3905, 5851))
            if ctx.get(dut.due):
                seen.append((cycle, ctx.get(dut.rank)))
            await ctx.tick()

    simulate(dut, bench)
    assert seen == [*((c, 0) for c in range(1950, 1961)), *((c, 1) for c in range(3900, 3906)),
                    *((c, 0) for c in range(5850, 5852))]


def test_the_window_keeps_order_and_makes_room_for_the_next():
    dut, seen = HostWindow(2, 8), []

    async def bench(ctx):
        width = dut.width
        for cycle, (payload, served, place) in enumerate([
                (5, 0, 0), (6, 0, 0), (7, 0, 0), (7, 1, 0), (7, 0, 0), (8, 1, 1), (8, 0, 0),
                (0, 0, 0)]):
            ctx.set(dut.i.payload, payload)
            ctx.set(dut.i.valid, cycle < 7)
            ctx.set(dut.served, served)
            ctx.set(dut.place, place)
            held, valid = ctx.get(dut.requests), ctx.get(dut.valid)
            seen.append([held >> k * width & (1 << width) - 1 for k in range(2) if valid >> k & 1])
            await ctx.tick()

    simulate(dut, bench)
    assert seen == [[], [5], [5, 6], [5, 6], [6], [6, 7], [6], [6, 8]]
