"""What energy needs of a liberty: each cell's functions, capacitances and internal energies."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["LibertyCell", "Pin", "compile_function", "read_cells", "supply_volts"]

SLEW_NS = 0.2  # assumed transition of every input, where the energies depend on it

Table = tuple[list[list[float]], list[float]]  # the axes, the values row by row


@dataclass(frozen=True)
class Pin:
    """A pin: an input's load, or what an output computes; its energies in pJ a transition."""

    is_output: bool
    capacitance_pf: float
    function: str
    powers: tuple[Table, ...]  # of rise and fall, for each input that causes it

    def internal_pj(self, load_pf: float) -> float:
        """Return the mean energy of a transition inside the cell, behind a `load_pf`."""
        values = [_at(axes, table, load_pf) for axes, table in self.powers]
        return sum(values) / len(values) if values else 0.0


@dataclass(frozen=True)
class LibertyCell:
    """A cell; a flip-flop has the expression of its next state."""

    pins: dict[str, Pin] = field(default_factory=dict)
    next_state: str = ""
    clock: str = ""
    state: str = ""  # what an output's function calls the state


def _at(axes: list[list[float]], values: list[float], load_pf: float) -> float:
    """Return the table's value at the load and `SLEW_NS`, linear between its points."""
    if len(axes) == 1:
        return float(np.interp(SLEW_NS, axes[0], values))
    width = len(axes[1])
    rows = [values[start:start + width] for start in range(0, len(values), width)]
    return float(np.interp(load_pf, axes[0], [np.interp(SLEW_NS, axes[1], row) for row in rows]))


def read_cells(text: str) -> dict[str, LibertyCell]:
    """Return the cells of the liberty `text` by name."""
    library = _parse(text)
    cells = {}
    for kind, name, body in library["groups"]:
        if kind != "cell":
            continue
        flops = [group for group in body["groups"] if group[0] == "ff"]
        pins = {pin: _pin(inner) for of, pin, inner in body["groups"] if of == "pin"}
        if flops:
            _, states, flop = flops[0]
            cells[name] = LibertyCell(pins, flop["next_state"], flop["clocked_on"],
                                      states.partition(",")[0].strip())
        else:
            cells[name] = LibertyCell(pins)
    return cells


def supply_volts(text: str) -> float:
    """Return the nominal supply voltage of the liberty `text`."""
    return float(_parse(text)["nom_voltage"])


def _pin(body: dict[str, Any]) -> Pin:
    powers = []
    for kind, _, inner in body["groups"]:
        for edge, _, table in inner["groups"] if kind == "internal_power" else []:
            if edge in ("rise_power", "fall_power"):
                axes = [_numbers(table[name]) for name in ("index_1", "index_2") if name in table]
                powers.append((axes, _numbers(table["values"])))
    return Pin(body.get("direction") == "output", float(body.get("capacitance", 0)),
               body.get("function", ""), tuple(powers))


def _numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"[-+.\deE]+", text)]


_TOKEN = re.compile(r'"[^"]*"|[{}();:]|[^\s{}();:"]+')


def _parse(text: str) -> dict[str, Any]:
    """Return the one group of `text`: attributes by name, and ``groups`` as (kind, name, body)."""
    tokens = _TOKEN.findall(re.sub(r"/\*.*?\*/|\\\n", " ", text, flags=re.DOTALL))
    top: dict[str, Any] = {"groups": []}
    stack = [top]
    line: list[str] = []
    for token in tokens:
        if token == "{":
            body: dict[str, Any] = {"groups": []}
            inside = line[line.index("(") + 1:line.index(")")]
            stack[-1]["groups"].append((line[0], " ".join(inside).replace('"', ""), body))
            stack.append(body)
            line = []
        elif token == "}":
            stack.pop()
            line = []
        elif token == ";":
            if len(line) > 1:
                values = [part for part in line[1:] if part not in ":()"]
                stack[-1][line[0]] = " ".join(values).replace('"', "")
            line = []
        else:
            line.append(token)
    return top["groups"][0][2]


def compile_function(function: str) -> tuple[list[str], Callable[..., np.ndarray]]:
    """Return the inputs of a liberty's `function` and a Python function of them, bit by bit.

    Not is ``!``, and is ``*``, ``&`` or nothing between, or is ``+`` or ``|``,
    exclusive or is ``^``. Raises ``ValueError`` for anything else.
    """
    tokens = re.findall(r"\w+|\S", function)
    names = list(dict.fromkeys(token for token in tokens if token[0].isalpha()))
    python, after_operand = [], False
    for token in tokens:
        operand = token[0].isalpha()
        if after_operand and (operand or token in "(!"):
            python.append("&")
        if not operand and token not in {"(", ")", "!", "*", "&", "+", "|", "^"}:
            raise ValueError(f"function must be of ! * + ^ and names, not {function!r}")
        python.append({"!": "~", "*": "&", "+": "|"}.get(token, token))
        after_operand = operand or token == ")"
    if "^" in tokens and any(token in "*&" for token in python):
        raise ValueError(f"function must not mix ^ and and, not {function!r}")
    scope: dict[str, Any] = {}
    source = f"lambda {', '.join(names)}: {' '.join(python)}"
    return names, eval(compile(source, "liberty", "eval"), {"__builtins__": {}}, scope)
