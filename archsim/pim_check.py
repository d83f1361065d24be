"""A second opinion on a command trace of a channel that computes; shares only the rule table."""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from archsim.pim_trace import PimCommand
from machine.dram import DramConfig, Rule, deadlines
from machine.pim import PimConfig, pim_rules

__all__ = ["PimViolation", "first_violation"]

Place = tuple[str, int]
_ALL = ("DOT", "GEMV", "READRES", "HEADER")


class PimViolation(NamedTuple):
    """The first command of a trace that is not legal, and why; `place` counts from 0."""

    place: int
    command: PimCommand
    reason: str


def first_violation(dram: DramConfig, pim: PimConfig, trace: Iterable[PimCommand], *,
                    until: int = 0) -> PimViolation | None:
    """Return the first command that breaks a rule, a state, the bus, a limit or a deadline.

    `until` is where the trace ends: a deadline that passes before it is reported with the last
    command.
    """
    channel = _Channel(dram, pim)
    place, command = -1, None
    for place, command in enumerate(trace):
        reason = (channel.bus(command) or channel.timing(command) or channel.state(command)
                  or channel.limits(command) or channel.deadline(command.cycle))
        if reason:
            return PimViolation(place, command, reason)
        channel.take(command)
    missed = channel.deadline(until)
    return PimViolation(place, command, missed) if missed and command is not None else None


class _Channel:
    """What the commands so far leave behind."""

    def __init__(self, dram: DramConfig, pim: PimConfig) -> None:
        self.dram, self.pim = dram, pim
        self.in_group = dram.banks_per_group
        self.in_rank = dram.bank_groups * dram.banks_per_group
        self.before: defaultdict[str, list[Rule]] = defaultdict(list)
        for rule in pim_rules(dram, pim):
            self.before[rule.before].append(rule)
        self.past: defaultdict[tuple[str, Place], deque[PimCommand]] = defaultdict(
            lambda: deque(maxlen=8))
        self.open: list[dict[int, int]] = [{}, {}]  # of the host and of PIM: bank, its row
        if pim.row_buffers == 1:
            self.open[1] = self.open[0]
        self.last = -1
        self.refreshed = dict.fromkeys(range(dram.ranks), 0)

    def banks(self, c: PimCommand) -> range:
        """Return the banks the command changes or reads."""
        pim = self.pim
        if c.command in _ALL or (c.command == "GACT" and pim.activate == "all") or (
                c.command == "PIMPRE" and pim.precharge == "all"):
            return range(self.dram.banks)
        wide = {"GACT": self.in_group, "PREA": self.in_rank, "REF": self.in_rank}.get(c.command, 1)
        return range(c.bank - c.bank % wide, c.bank - c.bank % wide + wide)

    def places(self, banks: Iterable[int]) -> Iterator[Place]:
        """Return every place, of any scope, that one of `banks` lies in."""
        yield "channel", 0
        for scope, wide in (("bank", 1), ("bank_group", self.in_group), ("rank", self.in_rank)):
            yield from {(scope, bank // wide) for bank in banks}

    def bus(self, c: PimCommand) -> str | None:
        """Return that another command goes in the same cycle, or None."""
        return None if c.cycle > self.last else f"command bus: free from {self.last + 1}"

    def timing(self, c: PimCommand) -> str | None:
        """Return the rule broken, or None."""
        banks = self.banks(c)
        for rule in self.before[c.command]:
            for place in self._where(rule.scope, banks):
                events = self.past.get((rule.after, place), ())
                for event in list(events)[: max(0, len(events) - rule.nth + 1)]:
                    legal = event.cycle + self._gap(rule, event)
                    if c.cycle < legal:
                        return f"{rule.name}: {c.command} legal from {legal}"
        return None

    def _where(self, scope: str, banks: range) -> Iterator[Place]:
        """Return the places of a rule's scope that concern a command to `banks`."""
        wide = {"bank": 1, "bank_group": self.in_group, "channel": self.dram.banks}.get(
            scope, self.in_rank)
        held = range(banks[0] // wide, banks[-1] // wide + 1)
        if scope == "other_ranks":
            return (("rank", r) for r in range(self.dram.ranks) if r not in held)
        return ((scope, place) for place in held)

    def _gap(self, rule: Rule, event: PimCommand) -> int:
        gap = rule.gap_cycles(self.dram)
        if rule.condition == "composite":
            gap += self.pim.dot_cycles * (max(event.dots, self.pim.fill_dots) + 1)
        if rule.condition == "held" and self.pim.hold == "last_dot":
            gap += self.pim.dot_cycles * (event.dots - 1)
        return gap

    def state(self, c: PimCommand) -> str | None:
        """Return the state the command lacks, or None."""
        host, own, banks = *self.open, self.banks(c)
        good = {
            "ACT": lambda b: b not in host and (host is own or own.get(b) != c.row),
            "RD": lambda b: host.get(b) == c.row,
            "WR": lambda b: host.get(b) == c.row,
            "GWRITE": lambda b: host.get(b) == c.row,
            "GACT": lambda b: b not in own and (host is own or host.get(b) != c.row),
            "DOT": lambda b: own.get(b) == c.row,
            "GEMV": lambda b: own.get(b) == c.row,
            "READRES": lambda b: own.get(b) == c.row,
            "REF": lambda b: b not in host and b not in own,
            "PIMPRE": lambda b: host is not own,
        }.get(c.command, lambda b: True)
        bad = [bank for bank in banks if not good(bank)]
        return f"state: {c.command} in bank {bad[0]}" if bad else None

    def limits(self, c: PimCommand) -> str | None:
        """Return the end of the row or of the banks that is passed, or None."""
        columns = self.dram.row_bytes // self.pim.unit.column_bytes
        if c.command in ("DOT", "GEMV") and c.column + c.dots > columns:
            return f"column: {c.column + c.dots - 1} of {columns}"
        bursts = self.dram.columns // self.dram.burst_length
        if c.command in ("RD", "WR") and not 0 <= c.column < bursts:
            return f"column: {c.column} of {bursts}"
        return None if 0 <= c.bank < self.dram.banks else f"bank: {c.bank} of {self.dram.banks}"

    def deadline(self, cycle: int) -> str | None:
        """Return the refresh that did not come in time, or None."""
        for limit in deadlines(self.dram):
            if limit.end == "REF":
                for rank, last in self.refreshed.items():
                    if cycle > last + limit.cycles:
                        return f"{limit.name}: no REF of rank {rank} by {last + limit.cycles}"
        return None

    def take(self, c: PimCommand) -> None:
        """Change state as the command does."""
        self.last = c.cycle
        host, own = self.open
        for place in self.places(self.banks(c)):
            self.past[c.command, place].append(c)
        for bank in self.banks(c):
            if c.command == "ACT":
                host[bank] = c.row
            elif c.command == "GACT":
                own[bank] = c.row
            elif c.command in ("PRE", "PREA"):
                host.pop(bank, None)
            elif c.command == "PIMPRE":
                own.pop(bank, None)
        if c.command == "REF":
            self.refreshed[c.bank // self.in_rank] = c.cycle
