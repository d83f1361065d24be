"""The one door from the simulator's side to the RTL: emits a block's Verilog, synthesises it."""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from archsim.vector import core_of
from machine.area import AreaRow
from machine.chip import Machine
from machine.errors import UserError, must_be, unknown
from machine.lut import LutConfig

__all__ = ["BLOCKS", "emit_block", "synthesise_block"]

BLOCKS = ("lut", "pim", "systolic", "vector")  # blocks of a machine that have RTL
WRAPPED = ("systolic",)  # those with an AXI shell


def emit_block(machine: Machine, block: str, directory: Path, *, wrap: str | None = None
               ) -> list[Path]:
    """Write Verilog and a JSON of ports and parameters of `block` into `directory`.

    `wrap` is None or, of the array, ``"axi"``: AXI4-Lite control and AXI4-Stream data around it.
    Returns the files written; nothing half-written is left. Raises `UserError` for a block without
    RTL or of sizes it does not come in, where Amaranth is missing, and where nothing can be
    written.
    """
    if block not in BLOCKS:
        raise unknown("--block", block, BLOCKS)
    if wrap not in (None, "axi"):
        raise unknown("--wrap", str(wrap), ["axi"])
    if wrap and block not in WRAPPED:
        raise must_be("--block with --wrap axi", f"one of {', '.join(WRAPPED)}", block)
    try:
        emit = _emitter(machine, block, wrap)
    except ImportError as error:
        raise UserError(f"rtl needs the extra 'rtl' (pip install archsim[rtl]): {error}") from None
    except ValueError as error:
        raise UserError(f"{block}: {error}") from None
    directory = directory.absolute()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".rtl-", dir=directory) as temporary:
            return [path.replace(directory / path.name) for path in emit(directory=temporary)]
    except OSError as error:
        raise UserError(f"{directory}: --output must be a directory that can be written: "
                        f"{error.strerror}") from None


def _emitter(machine: Machine, block: str, wrap: str | None) -> Callable[..., tuple[Path, ...]]:
    """Return what writes `block` of `machine` into a `directory`."""
    from hw.pim_device import check_device
    from hw.verilog import emit_lut, emit_pim, emit_systolic, emit_vector

    match block:
        case "lut":
            arrays = [array for array in machine.arrays if isinstance(array, LutConfig)]
            if not arrays:
                kinds = ", ".join(array.kind for array in machine.arrays)
                raise must_be(f"arrays of {machine.name}", "of kind lut, one at least", kinds)
            return partial(emit_lut, arrays[0])
        case "pim":
            channel = getattr(machine, "pim", None)
            if channel is None:
                raise must_be(f"pim of {machine.name}", "given: memory that computes", channel)
            check_device(machine.dram, channel)
            return partial(emit_pim, machine.dram, channel)
        case "vector":
            return partial(emit_vector, core_of(machine.vectors[0]))
        case _:
            return partial(emit_systolic, machine.systolic_of(0), wrap=wrap)


def synthesise_block(block: str, target: str, overrides: Sequence[str] = (), *,
                     output: Path | None = None) -> AreaRow:
    """Return what `block` with ``key=value`` `overrides` comes to on `target`.

    `output` gets what the tools read and wrote. Raises `UserError` for an unknown block, target or
    override, where a tool or a liberty is missing, where a tool fails, and where nothing can be
    written.
    """
    try:
        from hw.designs import DESIGNS
        from hw.synth import TARGETS
        from hw.synth_table import synthesised
    except ImportError as error:
        raise UserError(f"synth needs the extra 'rtl' (pip install archsim[rtl]): {error}"
                        ) from None
    for option, name, known in (("--block", block, DESIGNS), ("--target", target, TARGETS)):
        if name not in known:
            raise unknown(option, name, known)
    row = AreaRow(design=block, parameters=" ".join(sorted(overrides)), target=target)
    try:
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
        return synthesised(row, keep=output)
    except ImportError as error:
        raise UserError(f"synth needs the extra 'synth' (pip install archsim[synth]): {error}"
                        ) from None
    except FileNotFoundError as error:
        raise UserError(f"--target {error}") from None
    except RuntimeError as error:
        raise UserError(f"--block {block} could not be synthesised: {error}") from None
    except OSError as error:
        raise UserError(f"{output}: --output must be a directory that can be written: "
                        f"{error.strerror}") from None
