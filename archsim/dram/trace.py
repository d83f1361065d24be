"""The form of a recorded DRAM command."""

from typing import NamedTuple

__all__ = ["Command"]


class Command(NamedTuple):
    """One command as it was issued; group, bank, row and column are -1 where it has none."""

    cycle: int
    channel: int
    command: str
    rank: int
    bank_group: int
    bank: int
    row: int
    column: int
