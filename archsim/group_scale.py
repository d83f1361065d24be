"""When the stage that scales and adds up groups moves each row: its recurrence, and the chain's."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from archsim.group import group_transfers
from archsim.systolic import Transfers, transfers
from machine.group_scale import GroupScaleConfig
from machine.systolic import SystolicConfig, Tile

__all__ = ["GroupedTransfers", "ScaleTransfers", "grouped_transfers", "scale_transfers"]


class ScaleTransfers(NamedTuple):
    """The cycle of every transfer, one int64 array a stream."""

    sums: np.ndarray
    scales: np.ndarray
    o: np.ndarray


class GroupedTransfers(NamedTuple):
    """The cycle of every transfer of an array with both stages of groups behind it."""

    array: Transfers  # its sums go to the first stage
    act_sums: np.ndarray
    zeros: np.ndarray
    scales: np.ndarray
    o: np.ndarray


@njit(cache=True)
def _rows(delay, valid, emits, ready):
    """Return when each row enters, and when each row of totals is taken.

    A cycle is a step of the stage unless two rows of totals wait; a row that emits is pushed into
    the queue `delay` steps after it entered.
    """
    count = len(valid)
    steps, entered, taken = np.zeros_like(valid), np.zeros_like(valid), np.zeros_like(ready)
    late = 0  # cycle less step, behind the pushes so far
    front = sent = 0  # rows that have left the stage, rows of totals pushed
    before = -1  # the cycle in which the totals in front are taken
    step = -1
    for row in range(count + 1):
        # Steps go on to the row's entry; behind the last row, until all have left.
        step += 1
        while True:
            if front < row and (row == count or step > steps[front] + delay):
                if emits[front]:
                    cycle = steps[front] + delay + late
                    late += max(0, before - cycle)
                    before = max(max(cycle, before) + 1, ready[sent])
                    taken[sent] = before
                    sent += 1
                front += 1
            elif row == count or step + late >= valid[row]:
                break
            else:
                step = valid[row] - late
                if front < row:
                    step = min(step, steps[front] + delay + 1)
        if row < count:
            steps[row], entered[row] = step, step + late
    return entered, taken


def scale_transfers(
    cfg: GroupScaleConfig,
    rows: Sequence[int],
    last: Sequence[bool],
    *,
    sums_valid: np.ndarray,
    scales_valid: np.ndarray,
    ready: np.ndarray,
) -> ScaleTransfers:
    """Return the transfers of groups of `rows` rows, whose totals leave if `last`, from reset on.

    Beat j of a stream is offered from cycle ``valid[j]``, or taken from cycle ``ready[j]`` on.
    """
    valid = np.maximum(sums_valid, np.repeat(scales_valid, rows)).astype(np.int64)
    emits = np.repeat(np.asarray(last, np.bool_), rows)
    entered, taken = _rows(cfg.add_cycles, valid, emits, np.asarray(ready, np.int64))
    return ScaleTransfers(entered, entered[np.cumsum(rows) - 1], taken)


def grouped_transfers(
    array: SystolicConfig,
    scales: GroupScaleConfig,
    tiles: Sequence[Tile],
    rows: Sequence[int],
    last: Sequence[bool],
    *,
    act_sums_valid: np.ndarray,
    zeros_valid: np.ndarray,
    scales_valid: np.ndarray,
    ready: np.ndarray,
    **times: np.ndarray,
) -> GroupedTransfers:
    """Return the transfers of an array, the zero points and the scales in a row.

    Groups are of `rows` rows of the sums that `tiles` send; `times` are those of
    ``archsim.systolic.transfers`` for what enters the array. A block waits for the one behind it
    only ever longer, so the first schedule that repeats is the hardware's.
    """
    count = sum(rows)
    takes = scaled = np.zeros(count, np.int64)
    while True:
        moved = transfers(array, tiles, sums_ready=takes, **times)
        zeroed = group_transfers(rows, sums_valid=moved.sums_offered, zeros_valid=zeros_valid,
                                 act_sums_valid=act_sums_valid, ready=scaled)
        done = scale_transfers(scales, rows, last, sums_valid=zeroed.offered,
                               scales_valid=scales_valid, ready=ready)
        if np.array_equal(zeroed.rows, takes) and np.array_equal(done.sums, scaled):
            return GroupedTransfers(moved, zeroed.rows, zeroed.zeros, done.scales, done.o)
        takes, scaled = zeroed.rows, done.sums
