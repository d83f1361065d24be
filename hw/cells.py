"""Standard cells: where the open liberty is, and files for Yosys from a table of cell sizes."""

import csv
import os
import re
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

__all__ = ["SKY130_PREFIX", "Cell", "genlib", "liberty", "osu018_liberty", "sky130_cells"]

SKY130_PREFIX = "sky130_fd_sc_hd__"
_OSU018 = "usr/share/qflow/tech/osu018/osu018_stdcells.lib"  # in Debian's qflow-tech-osu018


class Cell(NamedTuple):
    """One standard cell of one output."""

    name: str
    area_um2: float
    output: str
    function: str  # of the output: ! not, * and, + or; for a flip-flop ``data@clock``

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs, in the order they are first read."""
        return list(dict.fromkeys(re.findall(r"\w+", self.function)))

    @property
    def is_flop(self) -> bool:
        """Whether the cell is a flip-flop of the rising edge."""
        return "@" in self.function


def osu018_liberty() -> Path:
    """Return the liberty of the OSU 180 nm library: of ``.tools``, or of the system.

    Raises ``FileNotFoundError`` with what to do where it is in neither.
    """
    tools = os.environ.get("ARCHSIM_TOOLS") or Path(__file__).parents[1] / ".tools"
    for root in (Path(tools) / "debian", Path("/")):
        path = root / _OSU018
        if path.exists():
            return path.resolve()
    raise FileNotFoundError("osu018 needs the liberty of Debian's qflow-tech-osu018 "
                            "(setup/cells.sh unpacks it under .tools)")


def sky130_cells() -> list[Cell]:
    """Return the cells of ``machine/tables/sky130_cells.csv``; their sizes are those of the LEF."""
    text = files("machine").joinpath("tables/sky130_cells.csv").read_text(encoding="utf-8")
    cells = []
    for row in csv.DictReader(text.splitlines()):
        output, _, function = row["function"].partition("=")
        area = float(row["width_um"]) * float(row["height_um"])
        cells.append(Cell(SKY130_PREFIX + row["cell"], area, output, function))
    return cells


def liberty(name: str, cells: list[Cell]) -> str:
    """Return a liberty of areas and functions, without any timing, of `cells`."""
    lines = [f"library({name}) {{"]
    for cell in cells:
        lines.append(f"  cell({cell.name}) {{ area : {cell.area_um2:.4f};")
        lines += [f"    pin({pin}) {{ direction : input; }}" for pin in cell.inputs]
        function = cell.function
        if cell.is_flop:
            data, _, clock = function.partition("@")
            lines.append(f'    ff(IQ, IQN) {{ clocked_on : "{clock}"; next_state : "{data}"; }}')
            function = "IQ"
        lines.append(f'    pin({cell.output}) {{ direction : output; function : "{function}"; }}')
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def genlib(cells: list[Cell]) -> str:
    """Return the gates of `cells` in ABC's genlib form, all of one unit of delay."""
    lines = ["GATE ZERO 0 Y=CONST0;", "GATE ONE 0 Y=CONST1;"]
    lines += [f"GATE {cell.name} {cell.area_um2:.4f} {cell.output}={cell.function}; "
              "PIN * UNKNOWN 1 999 1 0 1 0" for cell in cells if not cell.is_flop]
    return "\n".join([*lines, ""])
