# amaranth: UnusedElaboratable=no
"""The vector unit's emitted Verilog does what golden and the simulator say."""

from pathlib import Path

import pytest

from hw.verilog import emit_vector
from machine.vector_core import VectorCoreConfig

pytestmark = pytest.mark.cocotb


def test_emitted_unit_agrees_under_icarus(tmp_path, monkeypatch):
    from cocotb_tools.runner import get_results, get_runner

    verilog, record = emit_vector(VectorCoreConfig(lanes=2, row_elements=8), tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    runner = get_runner("icarus")
    runner.build(sources=[verilog], hdl_toplevel="vector", build_dir=tmp_path / "build",
                 timescale=("1ns", "1ps"), always=True)
    results = runner.test(hdl_toplevel="vector", test_module="vector_bench",
                          build_dir=tmp_path / "build", test_dir=tmp_path,
                          extra_env={"VECTOR_JSON": str(record)})
    assert get_results(results) == (4, 0)
