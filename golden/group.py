"""What taking the zero points off a group's sums gives."""

from collections.abc import Sequence

import numpy as np

from golden.exact import wrap
from machine.group import GroupConfig

__all__ = ["without_zeros"]


def without_zeros(
    cfg: GroupConfig, sums: np.ndarray, act_sums: np.ndarray, rows: Sequence[int],
    zeros: np.ndarray,
) -> np.ndarray:
    """Return `sums` [beats, cols] - zero * `act_sums` [beats], int64, in ``acc_bits`` bits.

    Group g serves ``rows[g]`` rows with `zeros` [groups, cols].
    """
    group = np.repeat(np.arange(len(rows)), rows)
    off = zeros.astype(np.int64)[group] * act_sums.astype(np.int64)[:, None]
    return wrap(sums.astype(object) - off, cfg.acc_bits)
