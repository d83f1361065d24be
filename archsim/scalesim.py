"""SCALE-Sim's compute cycles: the timing option ``peer:scale-sim``.

Method: A. Samajdar et al., "SCALE-Sim: Systolic CNN Accelerator Simulator", arXiv:1811.02883; the
forms here are those the package ``scalesim`` 3.0.0 prints. Folds are serial: skew-in, compute and
drain of each never overlap the next, an edge fold costs a whole one, and the last cycle is counted
from 0. The array of ``hw.systolic`` overlaps them: compare ``machine.systolic.matmul_cycles``.
"""

from typing import Literal

from machine.config import require
from machine.errors import unknown

__all__ = ["SCALE_SIM_DATAFLOWS", "ScaleSimDataflow", "compute_cycles", "utilisation_percent"]

ScaleSimDataflow = Literal["os", "ws", "is"]
SCALE_SIM_DATAFLOWS: tuple[ScaleSimDataflow, ...] = ("os", "ws", "is")


def _folds(length: int, size: int) -> int:
    return -(-length // size)


def compute_cycles(rows: int, cols: int, m: int, n: int, k: int, dataflow: str) -> int:
    """Return SCALE-Sim's compute cycles of an [m, k] by [k, n] matmul on a `rows` x `cols` array.

    `dataflow` is ``os``, ``ws`` or ``is`` (output-, weight-, input-stationary). Raises
    ``UserError`` for another dataflow, ``ValueError`` for a size below 1.
    """
    sizes = {"rows": rows, "cols": cols, "m": m, "n": n, "k": k}
    for name, value in sizes.items():
        require(value >= 1, name, "at least 1", value)
    if dataflow == "os":
        return _folds(m, rows) * _folds(n, cols) * (k + rows + cols - 2) - 1
    if dataflow == "ws":
        return _folds(k, rows) * _folds(n, cols) * (2 * rows + cols + m - 2) - 1
    if dataflow == "is":
        return _folds(k, rows) * _folds(m, cols) * (2 * rows + cols + n - 2) - 1
    raise unknown("dataflow", dataflow, SCALE_SIM_DATAFLOWS)


def utilisation_percent(rows: int, cols: int, m: int, n: int, k: int, dataflow: str) -> float:
    """Return SCALE-Sim's overall utilisation: multiply-accumulates of all that fit the cycles.

    Raises as `compute_cycles` does, and ``ValueError`` for the one matmul that it counts as 0
    cycles: a single product on a 1 x 1 array, output-stationary.
    """
    cycles = compute_cycles(rows, cols, m, n, k, dataflow)
    require(cycles > 0, "cycles", "above 0 for a utilisation", cycles)
    return 100 * m * n * k / (cycles * rows * cols)
