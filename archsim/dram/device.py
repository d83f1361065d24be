"""One DRAM channel driven by hand: it says when a command is legal, and refuses what is not."""

import numpy as np

from archsim.dram import kernel as at
from archsim.dram.state import constants, fresh_state, ranks_of
from machine.dram import COMMANDS, PRECONDITIONS, DramConfig

__all__ = ["Device"]


class Device:
    """The banks and buses of one channel, under the same rules as `archsim.dram.channels.Memory`.

    ``ready_at`` and ``refusal`` only ask; ``issue`` changes state, and refuses what is not legal.
    It has no queue and no clock: refresh, too, is the caller's.
    """

    def __init__(self, cfg: DramConfig) -> None:
        self.cfg = cfg
        self._k = constants(cfg, ports=1, depth=1, shortcuts=False)
        self._x = fresh_state(cfg, self._k)[0]

    def ready_at(self, command: str, *, rank: int = 0, group: int = 0, bank: int = 0) -> int:
        """Return the first cycle at which timing and command bus allow `command`."""
        flat = self._flat(rank, group, bank)
        return int(at.ready_at(self._k, self._x, COMMANDS.index(command), flat))

    def refusal(
        self, command: str, *, rank: int = 0, group: int = 0, bank: int = 0, row: int = 0, now: int
    ) -> str | None:
        """Return why `command` may not be issued at cycle `now`, or None if it may."""
        legal = self.ready_at(command, rank=rank, group=group, bank=bank)
        if now < legal:
            return f"{command} issued at cycle {now}, legal from {legal}"
        found = int(self._x[self._k[at.AT_ROW] + self._flat(rank, group, bank)])
        held = {
            "any": True,
            "bank closed": found < 0,
            "row open": found == row,
            "rank closed": int(ranks_of(self._k, self._x)[rank, at.OPEN]) == 0,
        }
        if not held[PRECONDITIONS[command]]:
            state = "no row" if found < 0 else f"row {found}"
            return f"{command} issued at cycle {now} needs {PRECONDITIONS[command]}, found {state}"
        return None

    def issue(
        self, command: str, *, rank: int = 0, group: int = 0, bank: int = 0, row: int = 0, now: int
    ) -> None:
        """Issue `command` at cycle `now`; raises `ValueError` with the refusal if it is illegal."""
        refusal = self.refusal(command, rank=rank, group=group, bank=bank, row=row, now=now)
        if refusal is not None:
            raise ValueError(refusal)
        flat = self._flat(rank, group, bank)
        at.issue(self._k, self._x, COMMANDS.index(command), flat, row, now)

    def open_row(self, *, rank: int = 0, group: int = 0, bank: int = 0) -> int | None:
        """Return the open row of a bank, or None."""
        row = int(self._x[self._k[at.AT_ROW] + self._flat(rank, group, bank)])
        return None if row < 0 else row

    def _flat(self, rank: int, group: int, bank: int) -> np.int64:
        cfg = self.cfg
        return np.int64((rank * cfg.bank_groups + group) * cfg.banks_per_group + bank)
