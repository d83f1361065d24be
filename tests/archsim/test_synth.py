"""``archsim synth``, ``area`` and ``reproduce``: what they print, and mistakes in one line."""

import builtins
import json

import pytest

from archsim.cli import main
from machine.area import area_table


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    out, err = capsys.readouterr()
    return left.value.code, out, err


@pytest.mark.synth
def test_synth_prints_what_it_measured_and_keeps_the_files(capsys, tmp_path):
    arguments = ("synth", "--block", "pe", "--target", "sky130", "--set", "w_bits=4")
    code, out, _ = run(capsys, *arguments, "--json", "-o", str(tmp_path / "kept"))
    row = json.loads(out)
    assert code == 0
    stored = area_table()["pe", "w_bits=4", "sky130"]
    assert (row["area_um2"], row["rtlil"]) == (stored.area_um2, stored.rtlil)
    assert "lut" not in row
    assert {"run.ys", "netlist.json"} <= {path.name for path in (tmp_path / "kept").iterdir()}


@pytest.mark.parametrize("arguments, sentence", [
    (("--block", "pee", "--target", "ecp5"), "--block must be one of "),
    (("--block", "pe", "--target", "ecp6"), "--target must be one of "),
    (("--block", "pe", "--target", "ecp5", "--set", "a_bits=99"), "pe: a_bits must be from 1 to"),
    (("--block", "pe", "--target", "ecp5", "--set", "a_bots=9"), "pe: a_bots must be a known key"),
    (("--block", "pe", "--target", "ecp5", "--set", "a_bits"), "--set must be key=value"),
])
def test_a_mistake_is_one_line_and_exit_code_2(capsys, arguments, sentence):
    code, out, err = run(capsys, "synth", *arguments)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"archsim: {sentence}")


def test_a_missing_tool_names_the_extra(capsys, monkeypatch):
    def missing(package):
        raise ModuleNotFoundError(f"No package metadata was found for {package}")

    monkeypatch.setattr("hw.synth.version", missing)
    code, _, err = run(capsys, "synth", "--block", "pe", "--target", "ecp5")
    assert code == 2
    assert err.splitlines()[-1].startswith(
        "archsim: synth needs the extra 'synth' (pip install archsim[synth]): ")


def test_missing_amaranth_names_the_extra(capsys, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("hw."):
            raise ImportError("No module named 'amaranth'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    code, _, err = run(capsys, "synth", "--block", "pe", "--target", "ecp5")
    assert code == 2
    assert "synth needs the extra 'rtl'" in err.splitlines()[-1]


@pytest.mark.synth
def test_a_missing_liberty_names_its_package(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("hw.cells._OSU018", "no/such/file.lib")
    code, _, err = run(capsys, "synth", "--block", "pe", "--target", "osu018")
    assert code == 2
    assert "--target osu018 needs the liberty of Debian's qflow-tech-osu018" in err.splitlines()[-1]


@pytest.mark.synth
def test_an_output_that_cannot_be_written_is_a_mistake(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run(capsys, "synth", "--block", "pe", "--target", "sky130", "-o",
                       str(tmp_path / "file" / "x"))
    assert code == 2
    assert "--output must be a directory that can be written" in err.splitlines()[-1]


def test_area_says_what_is_not_modelled(capsys):
    code, out, _ = run(capsys, "area", "--machine", "tiny", "--json")
    rows = json.loads(out)
    assert code == 0
    assert {"not modelled"} < {str(row["area_um2"]) for row in rows}
    code, out, _ = run(capsys, "area", "--machine", "tiny")
    assert code == 0 and "not modelled" in out and "scaled by Stillmaker and Baas" in out
    assert run(capsys, "area", "--node", "3")[0] == 2


def test_reproduce_prints_ours_beside_the_published(capsys):
    code, out, _ = run(capsys, "reproduce", "lut-tensor-core", "--table", "2")
    assert code == 0
    assert "1.317" in out and "order of the densities" in out
    code, out, _ = run(capsys, "reproduce", "lut-tensor-core", "--json")
    assert code == 0 and json.loads(out)[0]["rows"][1]["published"] == 1.317
    assert run(capsys, "reproduce", "lut-tensor", "--table", "2")[0] == 2
