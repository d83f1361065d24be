# amaranth: UnusedElaboratable=no
"""The lookup array's emitted Verilog does what golden and the simulator say."""

from pathlib import Path

import pytest

from hw.verilog import emit_lut
from machine.lut import LutConfig, TableConfig

pytestmark = pytest.mark.cocotb

CONFIGS = {
    "tables": LutConfig(m=2, n=3, w_bits=3, depth_cycles=2, tables=TableConfig(format="int11")),
    "in-array": LutConfig(m=2, n=2, w_bits=2, tables=TableConfig(
        format="int10", symmetric=False, remapped=False, precomputed=False)),
    "mac": LutConfig(m=2, n=2, unit="mac", w_bits=4),
}


@pytest.mark.parametrize("name", [
    "tables", pytest.param("in-array", marks=pytest.mark.slow), "mac"])
def test_emitted_array_agrees_under_icarus(tmp_path, monkeypatch, name):
    from cocotb_tools.runner import get_results, get_runner

    verilog, record = emit_lut(CONFIGS[name], tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    runner = get_runner("icarus")
    runner.build(sources=[verilog], hdl_toplevel="lut", build_dir=tmp_path / "build",
                 timescale=("1ns", "1ps"), always=True)
    results = runner.test(hdl_toplevel="lut", test_module="lut_bench",
                          build_dir=tmp_path / "build", test_dir=tmp_path,
                          extra_env={"LUT_JSON": str(record)})
    assert get_results(results) == (4, 0)
