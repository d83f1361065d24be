"""Registers beside a multiplier block of ECP5 moved into the block, in the netlist of Yosys.

MULT18X18D has registers at its operands and at its product; Yosys leaves them unused. A register is
moved where the block is all it serves, so that the netlist does the same in every cycle. What the
block's registers do (one clock, enable and synchronous reset to zero, which wins over the enable)
is as Lattice's simulation model has it; its reset of the sign inputs does not show, because the
operand is zero as well.
"""

import re
from collections import defaultdict
from typing import Any

__all__ = ["BLOCK", "move_registers"]

BLOCK = "MULT18X18D"
_MODE = {"CEMUX": "CE", "CLKMUX": "CLK", "LSRMUX": "LSR", "REGSET": "RESET",
         "SRMODE": "LSR_OVER_CE"}  # a register that the block's own can stand for

Bit = int | str  # a net, or a constant
Pin = tuple[str, str]  # a cell and its port; ``("", name)`` is a port of the module


def move_registers(module: dict[str, Any]) -> int:
    """Move registers of a flat `module` of a JSON netlist into its blocks; return how many.

    The registers of both operands move, or none of them: nextpnr has no delays of a block with one
    operand registered. Those of the product move if they take all of it that is used.
    """
    cells, before = module["cells"], len(module["cells"])
    driver, readers = _nets(module)
    for name, block in list(cells.items()):
        if block["type"] != BLOCK:
            continue
        pins = block["connections"]
        sides = [{pin: bits[0] for pin, bits in pins.items()
                  if re.fullmatch(rf"{side}\d+", pin) and isinstance(bits[0], int)}
                 for side in "AB"]
        in_front = [{bit: driver.get(bit, ("", ""))[0] for bit in side.values()} for side in sides]
        product = {pin: bits[0] for pin, bits in pins.items()
                   if re.fullmatch(r"P\d+", pin) and readers[bits[0]]}
        behind = {bit: readers[bit][0][0] for bit in product.values()}

        # Operands: the block alone reads them, the A side on A, the B side on B.
        used = all(reader == name and pin[0] == letter
                   for letter, side in zip("AB", sides, strict=True)
                   for bit in side.values() for reader, pin in readers[bit])
        wires = _wires(cells, [cell for side in in_front for cell in side.values()])
        if used and wires is not None:
            for letter, side, made in zip("AB", sides, in_front, strict=True):
                _use(block, f"INPUT{letter}", wires)
                for pin, bit in side.items():
                    pins[pin] = cells[made[bit]]["connections"]["DI"]
            for made in in_front:
                for cell in set(made.values()):
                    del cells[cell]

        # The product: each bit of it goes to one register and nowhere else.
        single = all(len(readers[bit]) == 1 and readers[bit][0][1] == "DI" for bit in behind)
        taken = _wires(cells, list(behind.values()))
        clash = wires is not None and used and taken != wires
        if single and taken is not None and not clash:
            _use(block, "OUTPUT", taken)
            for pin, bit in product.items():
                pins[pin] = cells[behind[bit]]["connections"]["Q"]
            for cell in behind.values():
                del cells[cell]
    return before - len(cells)


def _nets(module: dict[str, Any]) -> tuple[dict[Bit, Pin], dict[Bit, list[Pin]]]:
    """Return what drives each net, and what reads it."""
    driver: dict[Bit, Pin] = {}
    readers: dict[Bit, list[Pin]] = defaultdict(list)
    for name, port in module["ports"].items():
        for bit in port["bits"]:
            if port["direction"] == "output":
                readers[bit].append(("", name))
            else:
                driver[bit] = "", name
    for name, cell in module["cells"].items():
        for pin, bits in cell["connections"].items():
            for bit in bits:
                if cell["port_directions"][pin] == "output":
                    driver[bit] = name, pin
                else:
                    readers[bit].append((name, pin))
    return driver, readers


def _wires(cells: dict[str, Any], names: list[str]) -> list[Bit] | None:
    """Return clock, enable and reset of the registers `names`; None unless all have the same."""
    found = []
    for name in names:
        cell = cells.get(name)
        if cell is None or cell["type"] != "TRELLIS_FF":
            return None
        if any(cell["parameters"].get(key) != value for key, value in _MODE.items()):
            return None
        found.append([cell["connections"][pin][0] for pin in ("CLK", "CE", "LSR")])
    return found[0] if found and all(one == found[0] for one in found) else None


def _use(block: dict[str, Any], place: str, wires: list[Bit]) -> None:
    """Turn on the registers of a `block` at a `place`, with clock, enable and reset `wires`."""
    for kind, pin, bit in zip(("CLK", "CE", "RST"), ("CLK0", "CE0", "RST0"), wires, strict=True):
        block["connections"][pin] = [bit]
        block["port_directions"][pin] = "input"
        block["parameters"][f"REG_{place}_{kind}"] = pin
    block["parameters"].update(RESETMODE="SYNC", GSR="DISABLED")
