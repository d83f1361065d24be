"""What memory that computes does: vectors broadcast to channels, dot products, results out."""

import numpy as np

from golden.matmul import accumulate_float
from golden.memory import Memory
from machine.errors import UserError
from machine.formats import Format

__all__ = ["Channels", "gemv", "members"]


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
    w: np.ndarray, a: np.ndarray, start: np.ndarray, w_format: Format, a_format: Format
) -> np.ndarray:
    """Return float32 `start` [rows] + `w` [rows, K] @ `a` [K], as ``golden.matmul`` adds floats."""
    column = accumulate_float(start[:, None].astype(np.float32), w, a[:, None], w_format, a_format)
    return column[:, 0]
