# amaranth: UnusedElaboratable=no
"""The emitted Verilog of float units does what golden says, a step at a time."""

import dataclasses
from pathlib import Path

import pytest

from hw.float_unit import FloatUnit
from hw.verilog import emit
from machine.floats import FloatConfig

pytestmark = pytest.mark.cocotb

HALF = {"a": "float16", "b": "float16", "out": "float16"}
UNITS = {
    "add": FloatConfig(operation="add", depth_cycles=2, **HALF),
    "multiply": FloatConfig(operation="multiply", depth_cycles=1, **HALF),
    "divide": FloatConfig(operation="divide", depth_cycles=4, **HALF),
    "convert": FloatConfig(operation="convert", a="float16", out="float8_e4m3fn", saturate=True,
                           depth_cycles=1),
}


@pytest.mark.parametrize("name", [
    "add", "divide", *(pytest.param(n, marks=pytest.mark.slow) for n in ("multiply", "convert"))])
def test_emitted_unit_agrees_under_icarus(tmp_path, monkeypatch, name):
    from cocotb_tools.runner import get_results, get_runner

    cfg = UNITS[name]
    verilog, record = emit(FloatUnit(cfg), "float_unit", tmp_path,
                           facts={"parameters": dataclasses.asdict(cfg)})
    monkeypatch.syspath_prepend(Path(__file__).parent)
    runner = get_runner("icarus")
    runner.build(sources=[verilog], hdl_toplevel="float_unit", build_dir=tmp_path / "build",
                 timescale=("1ns", "1ps"), always=True)
    results = runner.test(hdl_toplevel="float_unit", test_module="float_bench",
                          build_dir=tmp_path / "build", test_dir=tmp_path,
                          extra_env={"FLOAT_JSON": str(record)})
    assert get_results(results) == (2, 0)
