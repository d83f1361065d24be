# amaranth: UnusedElaboratable=no
"""The lookup array's streams: latency, what it accepts when, the stream rules, reset, Verilog."""

import json
import re
import subprocess

import numpy as np
import pytest
from amaranth.hdl import ResetInserter, Signal
from amaranth.sim import Simulator

from golden.lut_array import run
from hw.lut import Lut
from hw.lut_table import TablePrecompute
from hw.lut_unit import LutUnit, ShiftAdd
from hw.stream import collect, drive
from hw.verilog import emit_lut
from machine.lut import LutConfig, LutTile, TableConfig, pack_lut_tile
from machine.lut_table import TableUnitConfig

CFG = LutConfig(m=2, n=2, k=2, w_bits=3, tables=TableConfig(format="int6"))
INPUTS = ("i_commands", "i_tables", "i_weights")


def simulate(design, *benches) -> None:
    """Run `benches` on `design`, clocked, until they end."""
    simulator = Simulator(design)
    simulator.add_clock(1e-6)
    for bench in benches:
        simulator.add_testbench(bench)
    simulator.run()


def packed(beat, bits: int) -> int:
    """Return the payload whose lane j, at bit ``j * bits``, is integer `beat[j]`."""
    return sum((int(value) & ((1 << bits) - 1)) << lane * bits
               for lane, value in enumerate(np.ravel(beat)))


def beats(tiles: list[LutTile], seed: int):
    """Return random beats of tables and of codes for `tiles` on `CFG`."""
    rng = np.random.default_rng(seed)
    tables = rng.integers(-32, 32, (sum(t.tables for t in tiles), 2, 2))
    return tables, rng.integers(0, 4, (sum(t.weight_beats(CFG) for t in tiles), 2))


def sources(dut: Lut, tiles: list[LutTile], tables: np.ndarray, codes: np.ndarray, log=None):
    """Return one bench for each stream that enters, always offering; cycles go into `log`."""
    log = {} if log is None else log
    payloads = {
        "i_commands": [pack_lut_tile(tile) for tile in tiles],
        "i_tables": [packed(beat, 6) for beat in tables],
        "i_weights": [packed(beat, 2) for beat in codes],
    }

    def source(name: str):
        async def bench(ctx):
            log[name] = await drive(ctx, getattr(dut, name), payloads[name],
                                    [0] * len(payloads[name]))
        return bench

    return [source(name) for name in payloads]


@pytest.mark.parametrize("unit", ["lut", "add", "mac"])
@pytest.mark.parametrize("rows, depth", [(1, 1), (3, 1), (2, 2)])
def test_latency_is_the_configurations(rows, depth, unit):
    cfg = LutConfig(m=rows, n=1, k=2, unit=unit, depth_cycles=depth)
    dut = Lut(cfg)
    log, offered = {}, []

    async def watch(ctx):
        ctx.set(dut.o_sums.ready, 1)
        for cycle in range(30):
            *_, valid = await ctx.tick().sample(dut.o_sums.valid)
            if valid:
                offered.append(cycle)

    tile = LutTile(rows=rows, tables=2, planes=3)
    ones = np.ones((2, 1)), np.ones((tile.weight_beats(cfg), 1))
    simulate(dut, watch, *sources(dut, [tile], *ones, log))
    last = log["i_weights"][-1]
    assert offered == [last + cfg.latency_cycles + row for row in range(rows)]


def test_a_table_is_accepted_before_a_command_and_nothing_else_is():
    dut = Lut(CFG)
    seen = []

    async def bench(ctx):
        for port in (dut.i_tables, dut.i_weights):
            ctx.set(port.valid, 1)
        ctx.set(dut.o_sums.ready, 1)
        for _ in range(20):
            *_, tables, weights, sums = await ctx.tick().sample(
                dut.i_tables.ready, dut.i_weights.ready, dut.o_sums.valid)
            seen.append((tables, weights, sums))

    simulate(dut, bench)
    assert seen == [(1, 0, 0)] + [(0, 0, 0)] * 19


def test_offered_sums_stay_until_they_are_taken():
    tiles = [LutTile(rows=2, tables=2, planes=2)] * 4
    tables, codes = beats(tiles, 1)
    dut = Lut(CFG)
    seen, taken = [], []

    async def watch(ctx):
        for _ in range(60):
            *_, valid, payload = await ctx.tick().sample(dut.o_sums.valid, dut.o_sums.payload)
            if valid:
                seen.append(payload)
        taken.extend((await collect(ctx, dut.o_sums, [0] * 8))[0])

    simulate(dut, watch, *sources(dut, tiles, tables, codes))
    want = [packed(row, 32) for row in run(CFG, tiles, tables, codes)]
    assert len(seen) > 40 and set(seen) == {want[0]}
    assert taken == want


def test_reset_abandons_the_commands_in_work():
    tile = LutTile(rows=2, tables=2, planes=2)
    going_on = LutTile(rows=2, tables=1, planes=1, accumulate=True)  # from sums reset cleared
    tables, codes = beats([tile, going_on], 2)
    reset = Signal()
    dut = Lut(CFG)
    design = ResetInserter(reset)(dut)
    result = {}

    async def bench(ctx):
        # Fill every part of the array, then reset in a cycle in which nothing is offered.
        ctx.set(dut.i_commands.payload, pack_lut_tile(tile))
        ctx.set(dut.i_tables.payload, 0x5A5A5A)
        ctx.set(dut.i_weights.payload, 5)
        for name in INPUTS:
            ctx.set(getattr(dut, name).valid, 1)
        await ctx.tick().repeat(25)
        for name in INPUTS:
            ctx.set(getattr(dut, name).valid, 0)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        assert ctx.get(dut.o_sums.valid) == 0 and ctx.get(dut.o_sums.payload) == 0
        result["ready"] = True
        result["sums"], _ = await collect(ctx, dut.o_sums, [0] * 4)
        ctx.set(dut.o_sums.ready, 1)
        *_, result["more"] = await ctx.tick().sample(dut.o_sums.valid).repeat(30)

    def later(source):
        async def started(ctx):
            while not result.get("ready"):
                await ctx.tick()
            await source(ctx)
        return started

    # The command that goes on comes first: it finds sums of zero.
    order = [going_on, tile]
    simulate(design, bench, *[later(s) for s in sources(dut, order, tables, codes)])
    assert result["sums"] == [packed(row, 32) for row in run(CFG, order, tables, codes)]
    assert result["more"] == 0


def test_reset_drops_the_tables_under_way():
    dut = TablePrecompute(TableUnitConfig(k=2, a_format="int4", format="int6"))
    reset, seen = Signal(), []

    async def bench(ctx):
        ctx.set(dut.i.payload, 0x77)
        ctx.set(dut.i.valid, 1)
        await ctx.tick().repeat(4)
        ctx.set(dut.i.valid, 0)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        seen.append((ctx.get(dut.o.valid), ctx.get(dut.o.payload), ctx.get(dut.i.ready)))

    simulate(ResetInserter(reset)(dut), bench)
    assert seen == [(0, 0, 1)]


@pytest.mark.parametrize("depth", [1, 2])
def test_shifted_values_are_added_subtracted_and_wrap(depth):
    dut = ShiftAdd(LutConfig(k=2, acc_bits=16, depth_cycles=depth), 8)
    steps = [  # value, negate, plane, first: the sum after it
        (-128, 1, 7, 1, 16384), (-128, 1, 7, 0, -32768), (1, 1, 0, 0, 32767), (5, 0, 3, 0, -32729),
        (0, 1, 0, 1, 0), (127, 0, 7, 0, 16256),
    ]
    seen = []

    async def bench(ctx):
        for value, negate, plane, first, _ in steps:
            for name, given in (("value", value), ("negate", negate), ("plane", plane)):
                ctx.set(getattr(dut, name), given)
            for names in ((("look", "add") if depth == 1 else ("look",)), ("add",))[:depth]:
                for name in ("look", "add"):
                    ctx.set(getattr(dut, name), int(name in names))
                ctx.set(dut.first, first)
                await ctx.tick()
            seen.append(ctx.get(dut.sum) - (ctx.get(dut.sum) >> 15 << 16))

    simulate(dut, bench)
    assert seen == [want for *_, want in steps]


@pytest.mark.parametrize("remapped", [False, True])
def test_the_unit_looks_up_and_negates_as_equations_5_and_6_say(remapped):
    cfg = LutConfig(m=1, n=1, w_bits=1, tables=TableConfig(remapped=remapped))
    dut = LutUnit(cfg)
    table, found = [3, -7, 11, -128, 19, 127, 29, -31], []

    async def bench(ctx):
        ctx.set(dut.row, packed(table, 8))
        ctx.set(dut.first, 1)
        ctx.set(dut.look, 1)
        ctx.set(dut.add, 1)
        for code in range(16):
            ctx.set(dut.group, code)
            await ctx.tick()
            found.append(ctx.get(dut.sum) - (ctx.get(dut.sum) >> 31 << 32))

    simulate(dut, bench)
    if remapped:  # equation 6: the index as it stands
        want = [*table, *(-entry for entry in table)]
    else:  # equation 5: the index inverted where the sign is set
        want = [*table, *(-entry for entry in reversed(table))]
    assert found == want


@pytest.mark.parametrize("unit", ["lut", "add", "mac"])
def test_the_unit_is_emitted_once_and_instantiated(tmp_path, unit):
    cfg = LutConfig(m=2, n=3, unit=unit)
    verilog, record = emit_lut(cfg, tmp_path)
    text = verilog.read_text()
    assert len(re.findall(r"^module lut_unit\(", text, re.MULTILINE)) == 1
    assert len(re.findall(r"^  lut_unit ", text, re.MULTILINE)) == cfg.m * cfg.n
    facts = json.loads(record.read_text())
    assert facts["latency_cycles"] == cfg.latency_cycles
    assert {port["name"] for port in facts["ports"]} >= {"clk", "rst", "i_tables__payload"}


@pytest.mark.cocotb
@pytest.mark.parametrize("cfg", [
    CFG, LutConfig(m=1, n=1, unit="mac", depth_cycles=2), LutConfig(m=3, n=1, unit="add", w_bits=1),
    LutConfig(m=1, n=2, k=3, tables=TableConfig(format="int12", precomputed=False, remapped=False)),
], ids=["lut", "mac", "add", "in-array"])
def test_icarus_compiles_it_without_a_warning(tmp_path, cfg):
    verilog, _ = emit_lut(cfg, tmp_path)
    done = subprocess.run(["iverilog", "-g2005", "-Wall", "-o", tmp_path / "out", verilog],
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
