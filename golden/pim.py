"""What memory that computes does: vectors broadcast to channels, dot products, results out."""

import numpy as np

from golden.exact import wrap
from golden.memory import Memory
from machine.errors import UserError
from machine.formats import Format

__all__ = ["LANES", "Channels", "bank_sum", "bank_sum_integers", "gemv", "members"]

LANES = 16  # of a bank unit, where a program names none


def members(mask: int) -> list[int]:
    """Return the channels whose bit is set in `mask`, ascending."""
    return [channel for channel in range(mask.bit_length()) if mask >> channel & 1]


class Channels:
    """The global buffer and the result latches of every channel, each a memory of its own."""

    def __init__(self) -> None:
        self._of: dict[tuple[int, int, int], Memory] = {}

    def of(self, chip: int, unit: int, mask: int) -> list[Memory]:
        """Return the memories of the channels in `mask` of PIM unit `unit` on `chip`.

        Raises `UserError` for an empty mask.
        """
        chosen = members(mask)
        if not chosen:
            raise UserError("channels must name at least one channel, not 0x0")
        return [self._of.setdefault((chip, unit, channel), Memory()) for channel in chosen]


def gemv(
    w: np.ndarray, a: np.ndarray, start: np.ndarray, w_format: Format, a_format: Format,
    lanes: int = LANES,
) -> np.ndarray:
    """Return float32 `start` [rows] + `w` [rows, K] @ `a` [K], as a bank unit adds.

    Columns of `lanes` in ascending k, the last one filled with zeros; `w_format` and `a_format`
    must be of at most 53 significant bits together.
    """
    return bank_sum(_columns(w, lanes), _columns(a, lanes), start)


def bank_sum(w: np.ndarray, a: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return float32 `start` [...] + the products of `w` [..., columns, lanes] and `a`, as added.

    Each product is rounded to float32. A column's products are added as a tree, neighbours
    (0, 1), (2, 3), ... first; then the column's sum is added to the total, columns ascending.
    """
    total = np.asarray(start, np.float32)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        terms = (w.astype(np.float64) * a.astype(np.float64)).astype(np.float32)
        while terms.shape[-1] > 1:
            terms = terms[..., ::2] + terms[..., 1::2]
        for column in range(terms.shape[-2]):
            total = total + terms[..., column, 0]
    return total


def bank_sum_integers(w: np.ndarray, a: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return `start` [...] + the exact products of integers, in 32-bit two's complement."""
    products = w.astype(np.int64) * a.astype(np.int64)
    return wrap(np.asarray(start, np.int64) + products.sum(axis=(-1, -2)), 32)


def _columns(x: np.ndarray, lanes: int) -> np.ndarray:
    """Return `x` [..., K] as [..., columns, lanes], filled with zeros."""
    fill = [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % lanes)]
    return np.pad(x, fill).reshape(*x.shape[:-1], -1, lanes)
