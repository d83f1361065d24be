"""The doctor tells what is there, what is missing, and for what."""

import platform
import shutil

import pytest

from archsim import doctor
from archsim.doctor import diagnose, doctor_table


def finding(name):
    (found,) = [f for f in diagnose() if f.name == name]
    return found


def test_what_is_installed_is_found_with_its_version():
    import numpy

    assert finding("python").detail == platform.python_version()
    assert (finding("numpy").present, finding("numpy").detail) == (True, numpy.__version__)


def test_missing_package_is_told_with_its_purpose(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    found = finding("tokenizers")
    assert (found.present, found.detail) == (False, "not installed")
    assert found.purpose == "real text (extra: model)"


@pytest.mark.parametrize("name", ["g++", "iverilog", "verilator"])
def test_missing_program_is_told(monkeypatch, name):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert (finding(name).present, finding(name).detail) == (False, "not on PATH")


def test_program_that_fails_to_say_its_version_is_no_error(monkeypatch, tmp_path):
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexit 1\n")
    silent.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(silent))
    assert (finding("g++").present, finding("g++").detail) == (True, "version unknown")


def test_table_has_a_row_a_finding():
    found = diagnose()
    assert doctor_table(found).row_count == len(found)
