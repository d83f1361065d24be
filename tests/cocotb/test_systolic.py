# amaranth: UnusedElaboratable=no
"""The array's emitted Verilog does what golden and the simulator say."""

from pathlib import Path

import pytest

from hw.verilog import emit_systolic
from machine.pe import PeConfig
from machine.systolic import SystolicConfig

pytestmark = pytest.mark.cocotb

CONFIGS = [
    SystolicConfig(rows=3, cols=2, acc_rows=5),
    SystolicConfig(rows=4, cols=4, acc_rows=8, pe=PeConfig(depth_cycles=2)),
    SystolicConfig(rows=3, cols=2, acc_rows=4, w_bits=4, pe=PeConfig(kind="bit_serial")),
    SystolicConfig(rows=2, cols=3, acc_rows=4, a_bits=2, w_bits=2,
                   pe=PeConfig(kind="bipolar", k_lanes=4)),
    SystolicConfig(rows=2, cols=2, acc_rows=4, short_paths=True, pe=PeConfig(depth_cycles=3)),
]


@pytest.mark.parametrize("cfg", CONFIGS, ids=lambda cfg: f"{cfg.rows}x{cfg.cols}-{cfg.pe.kind}")
def test_emitted_array_agrees_under_icarus(tmp_path, monkeypatch, cfg):
    from cocotb_tools.runner import get_results, get_runner

    verilog, record = emit_systolic(cfg, tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    runner = get_runner("icarus")
    runner.build(sources=[verilog], hdl_toplevel="systolic", build_dir=tmp_path / "build",
                 timescale=("1ns", "1ps"), always=True)
    results = runner.test(hdl_toplevel="systolic", test_module="systolic_bench",
                          build_dir=tmp_path / "build", test_dir=tmp_path,
                          extra_env={"SYSTOLIC_JSON": str(record)})
    assert get_results(results) == (8, 0)
