"""The one door from the simulator's side to the RTL: emits a block's Verilog."""

import tempfile
from pathlib import Path

from machine.chip import Machine
from machine.errors import UserError, unknown

__all__ = ["BLOCKS", "emit_block"]

BLOCKS = ("systolic",)  # blocks of a machine that have RTL


def emit_block(machine: Machine, block: str, directory: Path, *, wrap: str | None = None
               ) -> list[Path]:
    """Write Verilog and a JSON of ports and parameters of `block` into `directory`.

    `wrap` is None or ``"axi"``: AXI4-Lite control and AXI4-Stream data around it. Returns the
    files written; nothing half-written is left. Raises `UserError` for a block without RTL, where
    Amaranth is missing, and where nothing can be written.
    """
    if block not in BLOCKS:
        raise unknown("--block", block, BLOCKS)
    if wrap not in (None, "axi"):
        raise unknown("--wrap", str(wrap), ["axi"])
    try:
        from hw.verilog import emit_systolic
    except ImportError as error:
        raise UserError(f"rtl needs the extra 'rtl' (pip install archsim[rtl]): {error}") from None
    directory = directory.absolute()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".rtl-", dir=directory) as temporary:
            made = emit_systolic(machine.systolic_of(0), temporary, wrap=wrap)
            return [path.replace(directory / path.name) for path in made]
    except OSError as error:
        raise UserError(f"{directory}: --output must be a directory that can be written: "
                        f"{error.strerror}") from None
