"""The one door to the RTL: whole files, or a sentence."""

import builtins
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from archsim.rtl import BLOCKS, emit_block
from machine.errors import UserError
from machine.load import read_machine
from machine.pim import BankUnitConfig, PimConfig

TINY = read_machine("tiny")


@pytest.mark.parametrize("machine, block, wrap", [
    ("tiny", "systolic", None), ("tiny", "systolic", "axi"), ("tiny", "vector", None),
    ("tiny-lut", "lut", None),
])
def test_block_is_verilog_and_a_json_of_its_ports(tmp_path, machine, block, wrap):
    verilog, record = emit_block(read_machine(machine), block, tmp_path / "v", wrap=wrap)
    assert [verilog.name, record.name] == [f"{block}.v", f"{block}.json"]
    assert sorted((tmp_path / "v").iterdir()) == [record, verilog]
    described = json.loads(record.read_text())
    text = verilog.read_text()
    head = text[text.index(f"module {described['module']}("):]
    head = head[: head.index(");")]
    listed = head.split("(", 1)[1].replace(",", " ").split()
    assert sorted(listed) == sorted(port["name"] for port in described["ports"])


def test_a_channel_of_a_memory_that_computes_is_emitted_and_its_limits_are_told(tmp_path):
    unit = BankUnitConfig(lanes=4, format="int8")
    machine = SimpleNamespace(name="small", dram=replace(
        TINY.dram, ranks=1, bank_groups=1, banks_per_group=2, rows=2, columns=16, bus_bits=32),
        pim=PimConfig(unit=unit, buffer_bytes=64, gwrite_cycles=24, dot_cycles=4))
    verilog, record = emit_block(machine, "pim", tmp_path)
    facts = json.loads(record.read_text())
    assert verilog.read_text().count("module pim_unit(") == 1
    assert {p["name"] for p in facts["ports"]} >= {
        f"{s}__payload" for s in ("i", "i_host", "i_writes", "o_reads", "o_results", "o_fault")}
    assert facts["parameters"]["pim"]["unit"]["format"] == "int8"
    assert len(facts["codes"]["rules"]) == facts["payloads"]["o_fault"][-1]["width"]

    with pytest.raises(UserError, match="^pim: pim of tiny must be given: memory that computes, "
                                        "not None$"):
        emit_block(TINY, "pim", tmp_path)
    for change, told in (({"hold": "issue"}, "hold must be last_dot: what is read stays open"),
                         ({"bundle_banks": 2}, "bundle_banks must be 1, a unit in each bank"),
                         ({"gwrite_cycles": 16}, "gwrite_cycles must be more than 16, ")):
        machine.pim = replace(machine.pim, **{"hold": "last_dot", "bundle_banks": 1, **change})
        with pytest.raises(UserError, match=f"^pim: {told}"):
            emit_block(machine, "pim", tmp_path)


def test_other_files_of_the_directory_stay(tmp_path):
    (tmp_path / "mine.v").write_text("mine")
    emit_block(TINY, "systolic", tmp_path)
    assert (tmp_path / "mine.v").read_text() == "mine"


def test_interrupt_leaves_no_file(tmp_path, monkeypatch):
    def interrupted(cfg, directory, **_):
        with open(f"{directory}/systolic.v", "w") as file:
            file.write("module half")
        raise KeyboardInterrupt

    monkeypatch.setattr("hw.verilog.emit_systolic", interrupted)
    with pytest.raises(KeyboardInterrupt):
        emit_block(TINY, "systolic", tmp_path / "v")
    assert list((tmp_path / "v").iterdir()) == []


def test_block_without_rtl_and_unknown_wrap_are_refused(tmp_path):
    assert BLOCKS == ("lut", "pim", "systolic", "vector")
    with pytest.raises(UserError,
                       match="^--block must be one of lut, pim, systolic, vector, not 'dram'$"):
        emit_block(TINY, "dram", tmp_path / "v")
    with pytest.raises(UserError,
                       match="^--block with --wrap axi must be one of systolic, not 'vector'$"):
        emit_block(TINY, "vector", tmp_path / "v", wrap="axi")
    with pytest.raises(UserError, match="^lut: arrays of tiny must be of kind lut, one at least, "
                                        "not 'systolic'$"):
        emit_block(TINY, "lut", tmp_path / "v")
    odd = replace(TINY, vectors=(replace(TINY.vectors[0], lanes=6, fidelity="analytic"),))
    with pytest.raises(UserError,
                       match="^vector: lanes must be a power of two from 2 to 128, not 6$"):
        emit_block(odd, "vector", tmp_path / "v")
    with pytest.raises(UserError, match="^--wrap must be one of axi, not 'ahb'$"):
        emit_block(TINY, "systolic", tmp_path / "v", wrap="ahb")
    assert not (tmp_path / "v").exists()


def test_missing_amaranth_names_the_extra(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "hw.verilog":
            raise ImportError("No module named 'amaranth'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"^rtl needs the extra 'rtl' \(pip install archsim\[rtl\]"):
        emit_block(TINY, "systolic", tmp_path / "v")
