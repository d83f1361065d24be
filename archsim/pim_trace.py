"""The form of a recorded command of a channel that computes."""

from typing import NamedTuple

__all__ = ["PimCommand"]


class PimCommand(NamedTuple):
    """One command as it was issued; numbers it does not have are -1, `dots` 0.

    `bank` is flat, the first one of what the command reaches: ``(rank * bank_groups + group) *
    banks_per_group + bank``. `column` of RD and WR counts bursts, of DOT and GEMV the unit's
    columns; of HEADER it holds the results, and `dots` all dot products of the tile.
    """

    cycle: int
    command: str
    bank: int
    row: int
    column: int
    dots: int
