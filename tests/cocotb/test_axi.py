# amaranth: UnusedElaboratable=no
"""The array's emitted AXI wrapper keeps AXI's rules and computes what golden says."""

from pathlib import Path

import pytest

from hw.verilog import emit_systolic
from machine.systolic import SystolicConfig

pytestmark = pytest.mark.cocotb


def test_wrapped_array_agrees_under_icarus(tmp_path, monkeypatch):
    from cocotb_tools.runner import get_results, get_runner

    verilog, record = emit_systolic(SystolicConfig(rows=3, cols=2, acc_rows=8), tmp_path,
                                    wrap="axi")
    monkeypatch.syspath_prepend(Path(__file__).parent)
    runner = get_runner("icarus")
    runner.build(sources=[verilog], hdl_toplevel="systolic", build_dir=tmp_path / "build",
                 timescale=("1ns", "1ps"), always=True)
    results = runner.test(hdl_toplevel="systolic", test_module="axi_bench",
                          build_dir=tmp_path / "build", test_dir=tmp_path,
                          extra_env={"SYSTOLIC_JSON": str(record)})
    assert get_results(results) == (9, 0)
