"""A second opinion on a DRAM command trace: shares only the rule table with the controller."""

from collections import defaultdict, deque
from collections.abc import Iterable
from typing import NamedTuple

from archsim.dram.trace import Command
from machine.dram import BUS, PRECONDITIONS, DramConfig, Rule, deadlines, rules

__all__ = ["Violation", "first_violation"]

Place = tuple[int, ...]


class Violation(NamedTuple):
    """The first command of a trace that is not legal, and why; `place` counts from 0."""

    place: int
    command: Command
    reason: str


def first_violation(
    cfg: DramConfig, trace: Iterable[Command], *, until: int = 0
) -> Violation | None:
    """Return the first command that breaks a rule, a state, a bus or a deadline; None if none does.

    The trace is in order of issue in each channel. `until` is where it ends: deadlines that pass
    before it are missed, reported with the last command.
    """
    channels: defaultdict[int, _Channel] = defaultdict(lambda: _Channel(cfg))
    place, command = -1, None
    for place, command in enumerate(trace):
        reason = channels[command.channel].refuse(command)
        if reason:
            return Violation(place, command, reason)
        channels[command.channel].take(command)
    for channel in channels.values():
        missed = channel.missed(until)
        if missed and command is not None:
            return Violation(place, command, missed)
    return None


class _Channel:
    """What the commands so far leave behind in one channel."""

    def __init__(self, cfg: DramConfig) -> None:
        self.cfg = cfg
        self.rules: defaultdict[str, list[Rule]] = defaultdict(list)
        for rule in rules(cfg):
            self.rules[rule.before].append(rule)
        self.history: defaultdict[tuple[str, str, Place], deque[int]] = defaultdict(
            lambda: deque(maxlen=8)
        )
        self.rows: dict[Place, tuple[int, int]] = {}  # open banks: row, cycle of its ACT
        self.refreshed = dict.fromkeys(range(cfg.ranks), 0)
        self.bus_free: defaultdict[str, int] = defaultdict(int)
        self.data_free = 0

    def refuse(self, c: Command) -> str | None:
        """Return why `c` may not come next, or None."""
        return (
            self._bus(c) or self._timing(c) or self._state(c) or self._data(c) or self._deadline(c)
        )

    def take(self, c: Command) -> None:
        """Change state as `c` does."""
        for bus in self._buses(c):
            self.bus_free[bus] = c.cycle + self.cfg.slots(c.command)
        for scope, place in _scopes(c):
            self.history[c.command, scope, place].append(c.cycle)
        bank = (c.rank, c.bank_group, c.bank)
        if c.command == "ACT":
            self.rows[bank] = (c.row, c.cycle)
        elif c.command == "PRE":
            self.rows.pop(bank, None)
        elif c.command == "PREA":
            self.rows = {b: row for b, row in self.rows.items() if b[0] != c.rank}
        elif c.command == "REF":
            self.refreshed[c.rank] = c.cycle
        else:
            self.data_free = self._data_starts(c) + self.cfg.burst_cycles

    def missed(self, until: int) -> str | None:
        """Return the deadline that passed before `until`, or None."""
        for deadline in deadlines(self.cfg):
            starts = (
                self.refreshed.values()
                if deadline.start == "REF"
                else [opened for _, opened in self.rows.values()]
            )
            for start in starts:
                if until > start + deadline.cycles:
                    return f"{deadline.name}: no {deadline.end} by {start + deadline.cycles}"
        return None

    def _buses(self, c: Command) -> tuple[str, ...]:
        return (BUS[c.command],) if self.cfg.command_bus == "row+column" else ("row", "column")

    def _bus(self, c: Command) -> str | None:
        free = max(self.bus_free[bus] for bus in self._buses(c))
        return f"command bus: free from {free}" if c.cycle < free else None

    def _timing(self, c: Command) -> str | None:
        places = dict(_scopes(c))
        where: list[Place]
        for rule in self.rules[c.command]:
            if rule.scope == "other_ranks":
                where = [(r,) for r in range(self.cfg.ranks) if r != c.rank]
            elif rule.scope in places:
                where = [places[rule.scope]]
            else:
                continue
            scope = "rank" if rule.scope == "other_ranks" else rule.scope
            for place in where:
                past = self.history[rule.after, scope, place]
                if len(past) >= rule.nth:
                    legal = past[-rule.nth] + rule.gap_cycles(self.cfg)
                    if c.cycle < legal:
                        return f"{rule.name}: {c.command} legal from {legal}"
        return None

    def _state(self, c: Command) -> str | None:
        row = self.rows.get((c.rank, c.bank_group, c.bank), (None, 0))[0]
        open_banks = [bank for bank in self.rows if bank[0] == c.rank]
        held = {
            "any": True,
            "bank closed": row is None,
            "row open": row == c.row,
            "rank closed": not open_banks,
        }
        wanted = PRECONDITIONS[c.command]
        return None if held[wanted] else f"state: {c.command} needs {wanted}"

    def _data_starts(self, c: Command) -> int:
        timing, sent = self.cfg.timing, c.cycle + self.cfg.slots(c.command) - 1
        return sent + (timing.cl_cycles if c.command == "RD" else timing.cwl_cycles)

    def _data(self, c: Command) -> str | None:
        if c.command not in ("RD", "WR") or self._data_starts(c) >= self.data_free:
            return None
        return f"data bus: busy until {self.data_free}"

    def _deadline(self, c: Command) -> str | None:
        for deadline in deadlines(self.cfg):
            if c.command == "REF" == deadline.end:
                starts = [self.refreshed[c.rank]]
            elif c.command in ("PRE", "PREA") and deadline.end == "PRE":
                closed = [b for b in self.rows if b[0] == c.rank and c.command == "PREA"]
                closed += [b for b in self.rows if b == (c.rank, c.bank_group, c.bank)]
                starts = [self.rows[b][1] for b in closed]
            else:
                continue
            for start in starts:
                if c.cycle > start + deadline.cycles:
                    return f"{deadline.name}: {c.command} due by {start + deadline.cycles}"
        return None


def _scopes(c: Command) -> list[tuple[str, Place]]:
    """Return the scopes a command lies in, each with the place; a rank's command is in no bank."""
    wide: list[tuple[str, Place]] = [("rank", (c.rank,)), ("channel", ())]
    if c.bank < 0:
        return wide
    group = (c.rank, c.bank_group)
    return [("bank", (*group, c.bank)), ("bank_group", group), *wide]
