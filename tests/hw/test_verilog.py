# amaranth: UnusedElaboratable=no
"""The emitted Verilog and the JSON beside it."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from hw.pe import Element
from hw.pe_integer import IntAdd
from hw.verilog import emit, emit_systolic, members
from machine.errors import UserError
from machine.pe import PeConfig
from machine.systolic import SystolicConfig

CFG = SystolicConfig(rows=3, cols=2, acc_rows=4)


def test_the_element_is_emitted_once_and_instantiated(tmp_path):
    text = emit_systolic(CFG, tmp_path)[0].read_text()
    assert len(re.findall(r"^module systolic_element\(", text, re.MULTILINE)) == 1
    assert len(re.findall(r"^  systolic_element ", text, re.MULTILINE)) == CFG.rows
    assert len(re.findall(r"^  systolic_column ", text, re.MULTILINE)) == CFG.cols


def test_short_paths_have_a_register_of_the_step_for_each_part(tmp_path):
    cfg = dataclasses.replace(CFG, short_paths=True)
    text = emit_systolic(cfg, tmp_path)[0].read_text()
    counts = Counter()
    for module in re.split("^module ", text, flags=re.M):
        name = re.match(r"[\\\w.]*", module)[0]
        counts[name] += len(re.findall("^  systolic_step ", module, re.M))
    # A row of elements, a column of sums, and sequencer, input registers, edge, two skews and
    # collector beside what decides.
    assert +counts == {
        "systolic_column": cfg.rows, r"\systolic.sums": cfg.cols, r"\systolic.steps": 7}
    assert len(re.findall(r"^  systolic_sumqueue ", text, re.MULTILINE)) == cfg.cols
    assert "systolic_step" not in emit_systolic(CFG, tmp_path)[0].read_text()


EMIT = """
import sys
from hw.verilog import emit_systolic
from machine.pe import PeConfig
from machine.systolic import SystolicConfig
emit_systolic(SystolicConfig(rows=3, cols=2, acc_rows=4), "b/c", wrap=sys.argv[1] or None)
"""


@pytest.mark.parametrize("wrap", [None, "axi"])
def test_the_bytes_depend_on_neither_folder_nor_hash_seed(tmp_path, wrap):
    first = [path.read_bytes() for path in emit_systolic(CFG, tmp_path / "a", wrap=wrap)]
    subprocess.run([sys.executable, "-c", EMIT, wrap or ""], cwd=tmp_path, check=True,
                   env={**os.environ, "PYTHONHASHSEED": "12345"})
    second = [(tmp_path / "b" / "c" / name).read_bytes()
              for name in ("systolic.v", "systolic.json")]
    assert first == second
    assert str(tmp_path).encode() not in b"".join(first)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("wrap", [None, "axi"])
def test_the_json_lists_the_ports_of_the_verilog(tmp_path, wrap):
    verilog, record = emit_systolic(CFG, tmp_path, wrap=wrap, name="array")
    text, facts = verilog.read_text(), json.loads(record.read_text())
    top = text[text.index("\nmodule array("):].split("endmodule")[0]
    declared = {
        (name, direction, int(high or 0) + 1)
        for direction, high, name in re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\w+);", top,
                                                re.MULTILINE)
    }
    listed = {(port["name"], port["direction"], port["width"]) for port in facts["ports"]}
    assert listed == declared
    assert all(port["meaning"].endswith(".") for port in facts["ports"])


def test_the_json_holds_parameters_latency_and_command(tmp_path):
    facts = json.loads(emit_systolic(CFG, tmp_path)[1].read_text())
    parameters = {**facts["parameters"], "pe": CFG.pe, "dataflows": CFG.dataflows}
    assert SystolicConfig(**parameters) == CFG
    assert facts["parameters"]["pe"] == dataclasses.asdict(PeConfig())
    assert facts["latency_cycles"] == 3 + 2 + 1
    assert {"name": "m_last", "lowest_bit": 32, "width": 16} in facts["command_fields"]


def test_an_array_of_decoded_weights_has_their_streams_and_no_wrap(tmp_path):
    cfg = SystolicConfig(rows=2, cols=2, pe=PeConfig(kind="qoq"))
    facts = json.loads(emit_systolic(cfg, tmp_path)[1].read_text())
    assert {"i_codes__payload", "i_groups__payload"} <= {port["name"] for port in facts["ports"]}
    with pytest.raises(UserError, match="^wrap must be None for elements of kind qoq, not 'axi'$"):
        emit_systolic(cfg, tmp_path, wrap="axi")


@pytest.mark.cocotb
@pytest.mark.parametrize("kind, a_bits, w_bits", [
    ("mixpe", 8, 4), ("bit_serial", 8, 4), ("shift", 8, 4), ("ternary", 8, 2), ("bipolar", 3, 2),
    ("qoq", 8, 8),
])
def test_icarus_compiles_every_kind_without_a_warning(tmp_path, kind, a_bits, w_bits):
    cfg = SystolicConfig(rows=2, cols=2, a_bits=a_bits, w_bits=w_bits, pe=PeConfig(kind=kind))
    verilog, _ = emit_systolic(cfg, tmp_path)
    done = subprocess.run(["iverilog", "-g2005", "-Wall", "-o", tmp_path / "out", verilog],
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.cocotb
@pytest.mark.parametrize("wrap", [None, "axi"])
@pytest.mark.parametrize("cfg", [
    CFG, SystolicConfig(rows=1, cols=1, acc_rows=0), SystolicConfig(rows=2, cols=2, acc_rows=1),
])
def test_icarus_compiles_it_without_a_warning(tmp_path, wrap, cfg):
    verilog, _ = emit_systolic(cfg, tmp_path, wrap=wrap)
    done = subprocess.run(["iverilog", "-g2005", "-Wall", "-o", tmp_path / "out", verilog],
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_members_are_those_the_docstring_names():
    assert members(Element)["en"] == "Step: registers change only in a cycle with ``en``."
    assert list(members(Element)) == list(Element.ports(CFG).members)


def test_rejects_an_unknown_wrap(tmp_path):
    with pytest.raises(UserError, match="^wrap must be one of axi, not 'axo'; did you mean 'axi'"):
        emit_systolic(CFG, tmp_path, wrap="axo")
    assert not list(tmp_path.iterdir())


def test_a_single_component_is_emitted_alone(tmp_path):
    verilog, record = emit(IntAdd(CFG, 1), "add", tmp_path, facts={"cycles": 1})
    assert verilog.name == "add.v" and verilog.read_text().count("endmodule") == 1
    assert json.loads(record.read_text())["cycles"] == 1
