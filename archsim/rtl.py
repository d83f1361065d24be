"""The one door from the simulator's side to the RTL: emits a block's Verilog."""

from pathlib import Path

from machine.chip import Machine
from machine.errors import UserError, unknown

__all__ = ["BLOCKS", "emit_block"]

BLOCKS = ("systolic",)  # blocks of a machine that have RTL


def emit_block(machine: Machine, block: str, directory: Path, *, wrap: str | None = None
               ) -> list[Path]:
    """Write Verilog and a JSON of ports and parameters of `block` into `directory`.

    `wrap` is None or ``"axi"``: AXI4-Lite control and AXI4-Stream data around it. Returns the
    files written. Raises `UserError` for a block without RTL or where Amaranth is missing.
    """
    if block not in BLOCKS:
        raise unknown("--block", block, BLOCKS)
    if wrap not in (None, "axi"):
        raise unknown("--wrap", str(wrap), ["axi"])
    try:
        from hw.verilog import emit_systolic
    except ImportError as error:
        raise UserError(f"rtl needs the extra 'rtl' (pip install archsim[rtl]): {error}") from None
    return list(emit_systolic(machine.arrays[0], directory, wrap=wrap))
