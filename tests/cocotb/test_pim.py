# amaranth: UnusedElaboratable=no
"""The emitted Verilog of memory that computes does what golden and the simulator say."""

import dataclasses
import importlib.util
import subprocess
from pathlib import Path

import pytest

from hw import yosys
from hw.pim_unit import BankUnit, parts_of
from hw.verilog import emit, emit_pim
from machine.pim import BankUnitConfig

pytestmark = pytest.mark.cocotb

spec = importlib.util.spec_from_file_location(
    "channel_cases", Path(__file__).parents[1] / "cross" / "test_pim_channel.py")
assert spec and spec.loader
CASES = importlib.util.module_from_spec(spec)
spec.loader.exec_module(CASES)


def bench(tmp_path, monkeypatch, verilog, record, top):
    """Return how many tests of the bench ran on a module, and how many failed."""
    from cocotb_tools.runner import get_results, get_runner

    monkeypatch.syspath_prepend(Path(__file__).parent)
    runner = get_runner("icarus")
    runner.build(sources=[verilog], hdl_toplevel=top, build_dir=tmp_path / "build",
                 timescale=("1ns", "1ps"), always=True)
    return get_results(runner.test(
        hdl_toplevel=top, test_module="pim_bench", build_dir=tmp_path / "build",
        test_dir=tmp_path, extra_env={"PIM_JSON": str(record)}))


@pytest.mark.parametrize("fmt", [
    "bfloat16", *(pytest.param(f, marks=pytest.mark.slow) for f in ("float16", "int8"))])
def test_the_emitted_bank_unit_agrees_under_icarus(tmp_path, monkeypatch, fmt):
    cfg = BankUnitConfig(format=fmt, lanes=4)
    files = emit(BankUnit(cfg, library="pim"), "pim_unit", tmp_path, parts=parts_of(cfg, "pim"),
                 facts={"parameters": dataclasses.asdict(cfg)})
    assert bench(tmp_path, monkeypatch, *files, "pim_unit") == (4, 0)


@pytest.mark.parametrize("name", ["single bfloat16", pytest.param(
    "dual", marks=pytest.mark.slow), pytest.param("single", marks=pytest.mark.slow)])
def test_the_emitted_channel_agrees_under_icarus(tmp_path, monkeypatch, name):
    verilog, record = emit_pim(CASES.SMALL, CASES.CONFIGS[name], tmp_path)
    assert bench(tmp_path, monkeypatch, verilog, record, "pim") == (4, 0)

    # Nor do Icarus and Yosys find anything to warn of.
    done = subprocess.run(["iverilog", "-g2005", "-Wall", "-o", tmp_path / "out", verilog],
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    log = yosys.run("read_verilog pim.v\nhierarchy -check -top pim\nproc\ncheck -assert\n",
                    tmp_path)
    assert "Warning" not in log
    assert "Found and reported 0 problems" in log
