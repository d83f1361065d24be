"""Numbers of one process node at another: Stillmaker and Baas, Integration 58 (2017), 74-81.

Read in the transcription wromaszkan/nodeScale @ a912c60 (its high-performance rows below 65 nm);
its areas from 130 nm on equal a second transcription, its energies at 65 and 32 nm the correction
on the authors' page. Between two nodes of the tables numbers are interpolated geometrically over
the logarithm of the node, which is ours and not the paper's.
"""

import csv
import math
from functools import cache
from importlib.resources import files

from machine.config import require

__all__ = ["SOURCE", "area_factor", "delay_factor", "energy_factor"]

SOURCE = "scaled by Stillmaker and Baas 2017"


@cache
def _table(name: str) -> list[dict[str, float]]:
    text = files("machine").joinpath(f"tables/{name}.csv").read_text(encoding="utf-8")
    return [{key: float(value) for key, value in row.items()}
            for row in csv.DictReader(text.splitlines())]


def _between(points: dict[float, float], node_nm: float) -> float:
    """Return the value of `points` at `node_nm`, interpolated; raises ``ValueError`` outside."""
    nodes = sorted(points)
    require(nodes[0] <= node_nm <= nodes[-1], "node_nm",
            f"from {nodes[0]:g} to {nodes[-1]:g}", node_nm)
    above = next(node for node in nodes if node >= node_nm)
    if above == node_nm:
        return points[above]
    below = nodes[nodes.index(above) - 1]
    part = math.log(node_nm / below) / math.log(above / below)
    return points[below] ** (1 - part) * points[above] ** part


def area_factor(from_nm: int, to_nm: float) -> float:
    """Return what an area at `from_nm`, 180 or 130, is multiplied by; ``ValueError`` for others."""
    rows = {int(row["from_nm"]): row for row in _table("scaling_area")}
    require(from_nm in rows, "from_nm", f"one of {', '.join(map(str, rows))}", from_nm)
    factors = {float(node): value for node, value in rows[from_nm].items() if node != "from_nm"}
    return _between(factors, to_nm)


def energy_factor(from_nm: float, from_v: float, to_nm: float, to_v: float) -> float:
    """Return what an energy at `from_nm` and `from_v` volts is multiplied by."""
    return _at("e", to_nm, to_v) / _at("e", from_nm, from_v)


def delay_factor(from_nm: float, from_v: float, to_nm: float, to_v: float) -> float:
    """Return what a delay at `from_nm` and `from_v` volts is multiplied by."""
    return _at("d", to_nm, to_v) / _at("d", from_nm, from_v)


def _at(letter: str, node_nm: float, volts: float) -> float:
    """Return the polynomial d (delay) or e (energy) of a node at a supply of `volts`."""
    points = {}
    for row in _table("scaling_voltage"):
        terms = [row[name] * volts ** int(name[1]) for name in row if name[0] == letter]
        points[row["node_nm"]] = sum(terms)
    return _between(points, node_nm)
