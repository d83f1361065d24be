# amaranth: UnusedElaboratable=no
"""The vector unit's emitted Verilog, and the parts that no stream shows."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from amaranth.sim import Simulator

from hw.recurrence import Phase, Recurrence
from hw.vector import OutputQueue
from hw.verilog import emit_vector
from machine.floats import FloatConfig
from machine.vector_core import COMMAND_FIELDS, VectorCoreConfig

CFG = VectorCoreConfig(lanes=4, row_elements=16)

EMIT = """
from hw.verilog import emit_vector
from machine.vector_core import VectorCoreConfig
emit_vector(VectorCoreConfig(lanes=4, row_elements=16), "b/c")
"""


def test_verilog_has_one_lane_and_the_same_bytes_everywhere(tmp_path):
    verilog, record = emit_vector(CFG, tmp_path / "a")
    text = verilog.read_text()
    assert len(re.findall(r"^module vector_lane\(", text, re.MULTILINE)) == 1
    assert len(re.findall(r"^  vector_lane ", text, re.MULTILINE)) == CFG.lanes
    subprocess.run([sys.executable, "-c", EMIT], cwd=tmp_path, check=True,
                   env={**os.environ, "PYTHONHASHSEED": "12345"})
    for path in (verilog, record):
        assert (tmp_path / "b" / "c" / path.name).read_bytes() == path.read_bytes()
    facts = json.loads(record.read_text())
    assert facts["parameters"] == {"lanes": 4, "row_elements": 16, "unit_cycles": 3}
    assert [(f["name"], f["lowest_bit"], f["width"]) for f in facts["command_fields"]] == list(
        COMMAND_FIELDS)
    assert facts["codes"]["softmax"] == 14


@pytest.mark.cocotb
def test_icarus_compiles_it_without_a_warning(tmp_path):
    verilog, _ = emit_vector(CFG, tmp_path)
    done = subprocess.run(["iverilog", "-g2005", "-Wall", "-o", tmp_path / "out", verilog],
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def simulate(dut, bench) -> None:
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_a_quotient_is_there_after_its_digits_and_stays():
    dut = Recurrence(FloatConfig(operation="divide"))

    async def bench(ctx):
        for a, b in ((1.0, 3.0), (-7.5, 0.1)):
            words = [int(np.float32(x).view(np.uint32)) for x in (a, b)]
            ctx.set(dut.start, 1)
            ctx.set(dut.a, words[0])
            ctx.set(dut.b, words[1])
            await ctx.tick()
            ctx.set(dut.start, 0)
            want = int((np.float32(a) / np.float32(b)).view(np.uint32))
            await ctx.tick().repeat(dut.cfg.digits)
            assert ctx.get(dut.o) != want
            for _ in range(3):
                await ctx.tick()
                assert ctx.get(dut.o) == want
    simulate(dut, bench)


def test_a_phase_is_a_product_modulo_a_turn_after_17_cycles():
    dut = Phase()

    async def bench(ctx):
        for position, step in ((0, 5), (3, 1 << 47), (0xFFFFFFFF, 0xFEDCBA987654)):
            ctx.set(dut.start, 1)
            ctx.set(dut.position, position)
            ctx.set(dut.step, step)
            await ctx.tick()
            ctx.set(dut.start, 0)
            await ctx.tick().repeat(16)
            want = (position * step + (1 << 38)) % (1 << 48)
            assert ctx.get(dut.o) == want
            await ctx.tick()
            assert ctx.get(dut.o) == want
    simulate(dut, bench)


def test_the_queue_holds_its_depth_in_order_and_shows_no_payload_when_empty():
    dut = OutputQueue(8, 3)

    async def bench(ctx):
        assert (ctx.get(dut.o.valid), ctx.get(dut.o.payload)) == (0, 0)
        for round_ in range(3):
            for beat in range(3):
                ctx.set(dut.push, 1)
                ctx.set(dut.beat, 10 * round_ + beat + 1)
                await ctx.tick()
                assert ctx.get(dut.o.valid)
            ctx.set(dut.push, 0)
            ctx.set(dut.o.ready, 1)
            for beat in range(3):
                assert (ctx.get(dut.o.valid), ctx.get(dut.o.payload)) == (
                    1, 10 * round_ + beat + 1)
                await ctx.tick()
            assert (ctx.get(dut.o.valid), ctx.get(dut.o.payload)) == (0, 0)
            ctx.set(dut.o.ready, 0)
    simulate(dut, bench)
