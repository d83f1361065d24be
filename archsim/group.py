"""When the stage that takes zero points off moves each row: its recurrence."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

__all__ = ["GroupTransfers", "group_transfers"]


class GroupTransfers(NamedTuple):
    """The cycle of every transfer, one int64 array a stream."""

    rows: np.ndarray  # of i_sums and i_act_sums
    zeros: np.ndarray
    offered: np.ndarray  # o.valid rises for this row, or stays for it
    o: np.ndarray


@njit(cache=True)
def _rows(valid, ready):
    """Return when each row enters a queue of two, is offered and is taken."""
    entered, offered, taken = np.zeros_like(valid), np.zeros_like(valid), np.zeros_like(valid)
    for row in range(len(valid)):
        enters = valid[row]
        before = -1
        if row > 0:
            before = taken[row - 1]
            enters = max(enters, entered[row - 1] + 1)
        if row > 1:  # two wait: room once the first is gone
            enters = max(enters, taken[row - 2] + 1)
        entered[row] = enters
        offered[row] = max(enters, before) + 1
        taken[row] = max(offered[row], ready[row])
    return entered, offered, taken


def group_transfers(
    rows: Sequence[int],
    *,
    sums_valid: np.ndarray,
    act_sums_valid: np.ndarray,
    zeros_valid: np.ndarray,
    ready: np.ndarray,
) -> GroupTransfers:
    """Return the transfers of groups of `rows` rows, from cycle 0, reset.

    Beat j of a stream is offered from cycle ``valid[j]``, or taken from cycle ``ready[j]`` on.
    """
    valid = np.maximum(sums_valid, act_sums_valid)
    valid = np.maximum(valid, np.repeat(zeros_valid, rows)).astype(np.int64)
    entered, offered, taken = _rows(valid, np.asarray(ready, np.int64))
    return GroupTransfers(entered, entered[np.cumsum(rows) - 1], offered, taken)
