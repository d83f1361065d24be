"""The policy of a DRAM controller with a read and a write queue: first ready, first come."""

from typing import Literal

from machine.config import config, require

__all__ = ["QueuePolicy"]


@config
class QueuePolicy:
    """What the controller of one channel may choose among, and when it changes its mind.

    The defaults are those of Ramulator 2.1's generic controller (CMU-SAFARI/ramulator2 @ 0aba192,
    src/ramulator/controller/controller_base.cpp), its shares of the queue in whole entries.
    """

    read_entries: int = 32
    write_entries: int = 32
    write_high_entries: int = 26  # so many writes waiting: writes go first (0.8 of the queue)
    write_low_entries: int = 6  # so few: reads go first again (0.2)
    page_policy: Literal["open", "closed"] = "open"  # closed: a row no queued request wants closes
    postponed_max: int = 0  # refreshes a rank with requests may owe; the standard allows 8

    def __post_init__(self) -> None:
        require(self.read_entries >= 1, "read_entries", "at least 1", self.read_entries)
        require(self.write_entries >= 1, "write_entries", "at least 1", self.write_entries)
        high, low = self.write_high_entries, self.write_low_entries
        fits = f"from 1 to write_entries {self.write_entries}"
        require(1 <= high <= self.write_entries, "write_high_entries", fits, high)
        require(0 <= low < high, "write_low_entries", f"from 0 to below {high}, the high one", low)
        owed = self.postponed_max
        fits = "from 0 to 7, one less than the standard's 8"
        require(0 <= owed <= 7, "postponed_max", fits, owed)
