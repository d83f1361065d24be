"""What the decoder of two-level 4-bit weights makes of their codes."""

from collections.abc import Sequence

import numpy as np

from golden.exact import wrap
from machine.systolic import SystolicConfig

__all__ = ["decode", "decode_beats"]


def decode(codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray) -> np.ndarray:
    """Return s * (q - z) modulo 256 as int8 numbers, int64 [...]; unsigned operands broadcast.

    Nothing wraps for weights quantised to ``qoq_w4``.
    """
    difference = codes.astype(np.int64) - zeros.astype(np.int64)
    return wrap(scales.astype(np.int64) * difference, 8)


def decode_beats(
    cfg: SystolicConfig,
    codes: np.ndarray,
    beats: Sequence[int],
    scales: np.ndarray,
    zeros: np.ndarray,
) -> np.ndarray:
    """Return the beats of weights [n, cols * lanes] that beats of `codes` of that shape make.

    Group g serves ``beats[g]`` beats with `scales` and `zeros` [groups, cols].
    """
    group = np.repeat(np.arange(len(beats)), beats)
    lanes = cfg.pe.k_lanes
    wide = [np.repeat(part[group], lanes, axis=1) for part in (scales, zeros)]
    return decode(codes, *wide)
