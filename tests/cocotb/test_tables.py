# amaranth: UnusedElaboratable=no
"""The emitted Verilog of the blocks that make tables and quantise them: golden and simulator."""

import dataclasses
from pathlib import Path

import pytest

from hw.lut_quantise import TableQuantiser
from hw.lut_table import TablePrecompute
from hw.verilog import emit
from machine.lut_table import TableQuantiserConfig, TableUnitConfig
from machine.vector import ScaleRule

pytestmark = pytest.mark.cocotb

BLOCKS = {
    "integers": TableUnitConfig(),
    "floats": TableUnitConfig(k=2, a_format="float16", format="float8_e5m2"),
    "table": TableQuantiserConfig(rule=ScaleRule.TABLE, block=1, k=2, divider_cycles=3),
    "block": TableQuantiserConfig(rule=ScaleRule.BLOCK, block=3, k=3, format="int9",
                                  out_format="int4", divider_cycles=0),
}


@pytest.mark.parametrize("name", [
    "integers", "table", *(pytest.param(n, marks=pytest.mark.slow) for n in ("floats", "block"))])
def test_emitted_block_agrees_under_icarus(tmp_path, monkeypatch, name):
    from cocotb_tools.runner import get_results, get_runner

    cfg = BLOCKS[name]
    quantises = isinstance(cfg, TableQuantiserConfig)
    component = TableQuantiser(cfg) if quantises else TablePrecompute(cfg)
    top = "table_quantiser" if quantises else "table_precompute"
    verilog, record = emit(component, top, tmp_path, facts={"parameters": dataclasses.asdict(cfg)})
    monkeypatch.syspath_prepend(Path(__file__).parent)
    runner = get_runner("icarus")
    runner.build(sources=[verilog], hdl_toplevel=top, build_dir=tmp_path / "build",
                 timescale=("1ns", "1ps"), always=True)
    results = runner.test(hdl_toplevel=top, test_module="table_bench",
                          build_dir=tmp_path / "build", test_dir=tmp_path,
                          extra_env={"TABLE_JSON": str(record)})
    assert get_results(results) == (6, 0)  # three of them are the other block's, and skipped
