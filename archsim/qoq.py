"""When the array behind the decoder of two-level weights moves each beat.

The decoder joins two streams and adds no cycle: a beat of codes is offered to the array once it and
the word of its group are there, and the word leaves with the last beat it serves.
"""

from collections.abc import Sequence

import numpy as np

from archsim.systolic import Transfers, transfers
from machine.systolic import SystolicConfig, Tile

__all__ = ["qoq_transfers"]


def qoq_transfers(
    cfg: SystolicConfig,
    tiles: Sequence[Tile],
    beats: Sequence[int],
    *,
    codes_valid: np.ndarray,
    groups_valid: np.ndarray,
    **times: np.ndarray,
) -> tuple[Transfers, np.ndarray]:
    """Return the array's transfers, codes as weights, and the cycle in which each group leaves.

    Group g serves ``beats[g]`` beats of codes. `times` are those of `archsim.systolic.transfers`
    for the other streams. Raises ``ValueError`` as it does.
    """
    offered = np.maximum(codes_valid, np.repeat(groups_valid, beats))
    moved = transfers(cfg, tiles, weights_valid=offered, **times)
    return moved, moved.weights[np.cumsum(beats) - 1]
