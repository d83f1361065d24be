"""One channel that computes, command by command: asks when one is legal, and does it."""

from archsim.pim_trace import PimCommand
from machine.dram import DramConfig, Rule
from machine.pim import PIM_COMMANDS, PimConfig, pim_rules

__all__ = ["PimDevice"]

OWNED = ("ACT", "PRE", "PREA", "GACT")  # what waits for them waits for their owner
NUMBER = {name: place for place, name in enumerate(PIM_COMMANDS)}


class PimDevice:
    """Rows, timers and the command bus of one channel.

    ``ready_at`` and ``refusal`` only ask; ``issue`` changes state and refuses what is not legal.
    A place of a command is its first bank. With one row buffer ``pim_rows`` is ``rows``.
    """

    def __init__(self, dram: DramConfig, pim: PimConfig) -> None:
        pim.check(dram)
        self.dram, self.pim = dram, pim
        self.per_group = dram.banks_per_group
        self.per_rank = dram.bank_groups * dram.banks_per_group
        self.rows = [-1] * dram.banks
        self.pim_rows = self.rows if pim.row_buffers == 1 else [-1] * dram.banks
        self.openers = [""] * dram.banks  # who opened the row in `rows` last
        self.owner = "host"  # of the last command
        self.trace: list[PimCommand] = []
        groups = dram.ranks * dram.bank_groups
        self._first = {"bank": 0, "bank_group": dram.banks, "rank": dram.banks + groups,
                       "channel": dram.banks + groups + dram.ranks}
        nodes = self._first["channel"] + 1
        self._timers = [[0] * len(PIM_COMMANDS) for _ in range(nodes)]
        self._causes = [[""] * len(PIM_COMMANDS) for _ in range(nodes)]
        self._after: dict[str, list[Rule]] = {name: [] for name in PIM_COMMANDS}
        self._acts = [[-(10**9)] * 4 for _ in range(dram.ranks)]
        for rule in pim_rules(dram, pim):
            if rule.nth == 1:
                self._after[rule.after].append(rule)
        self._bus = 0
        self._nodes = {(name, bank): self._find_nodes(name, bank)
                       for name in PIM_COMMANDS for bank in range(dram.banks)}

    def reach(self, command: str, bank: int) -> range:
        """Return the banks a command at `bank` goes to."""
        if command in ("DOT", "READRES", "GEMV", "HEADER"):
            return range(self.dram.banks)
        if command == "GACT":
            wide = self.dram.banks if self.pim.activate == "all" else self.per_group
        elif command == "PIMPRE":
            wide = self.dram.banks if self.pim.precharge == "all" else 1
        else:
            wide = self.per_rank if command in ("PREA", "REF") else 1
        first = bank // wide * wide
        return range(first, first + wide)

    def ready_at(self, command: str, bank: int) -> int:
        """Return the first cycle at which timing and the command bus allow `command` at `bank`."""
        return self.ready(command, bank)[0]

    def ready(self, command: str, bank: int) -> tuple[int, str]:
        """Return the cycle of `ready_at`, and the command that it waits for."""
        number, best, cause = NUMBER[command], self._bus, "bus"
        for node in self._nodes[command, bank]:
            if self._timers[node][number] > best:
                best, cause = self._timers[node][number], self._causes[node][number]
        if command == "ACT":
            window = self._acts[bank // self.per_rank][0] + self.dram.timing.faw_cycles
            if window > best:
                best, cause = window, "ACT"
        return best, cause

    def refusal(self, command: str, bank: int, row: int = -1, *, now: int) -> str | None:
        """Return why `command` may not be issued at cycle `now`, or None."""
        legal = self.ready_at(command, bank)
        if now < legal:
            return f"{command} issued at cycle {now}, legal from {legal}"
        state = self._state(command, bank, row)
        return f"{command} issued at cycle {now} needs {state}" if state else None

    def issue(self, command: str, bank: int, row: int = -1, column: int = -1, dots: int = 0, *,
              now: int, owner: str = "host") -> None:
        """Issue `command`; raises ``ValueError`` with the refusal if it is not legal.

        `owner` is remembered as the cause of what waits for it.
        """
        refusal = self.refusal(command, bank, row, now=now)
        if refusal:
            raise ValueError(refusal)
        if command in ("ACT", "GACT"):
            for b in self.reach(command, bank):
                self.openers[b] = "pim" if command == "GACT" else owner
        self._change_rows(command, bank, row)
        self.owner, self._bus = owner, now + 1
        cause = owner if command in OWNED else command
        for rule in self._after[command]:
            gap = self._gap(rule, dots)
            number = NUMBER[rule.before]
            for node in self._scope(rule.scope, bank):
                if now + gap > self._timers[node][number]:
                    self._timers[node][number], self._causes[node][number] = now + gap, cause
        if command == "ACT":
            self._acts[bank // self.per_rank] = [*self._acts[bank // self.per_rank][1:], now]
        self.trace.append(PimCommand(now, command, bank, row, column, dots))

    def _gap(self, rule: Rule, dots: int) -> int:
        gap = rule.gap_cycles(self.dram)
        if rule.condition == "composite":
            gap += self.pim.composite_cycles(dots)
        elif rule.condition == "held":
            gap += self.pim.held_cycles(dots)
        return gap

    def _scope(self, scope: str, bank: int) -> list[int]:
        rank = bank // self.per_rank
        if scope == "other_ranks":
            return [self._first["rank"] + r for r in range(self.dram.ranks) if r != rank]
        place = {"bank": bank, "bank_group": bank // self.per_group, "rank": rank, "channel": 0}
        return [self._first[scope] + place[scope]]

    def _find_nodes(self, command: str, bank: int) -> list[int]:
        """Return the timers of all places that overlap what the command reaches."""
        banks, found = self.reach(command, bank), [self._first["channel"]]
        for scope, wide in (("bank", 1), ("bank_group", self.per_group), ("rank", self.per_rank)):
            found += sorted({self._first[scope] + b // wide for b in banks})
        return found

    def _state(self, command: str, bank: int, row: int) -> str | None:
        """Return what state `command` lacks, or None."""
        banks, two = self.reach(command, bank), self.pim.row_buffers == 2
        match command:
            case "ACT":
                if self.rows[bank] >= 0:
                    return f"bank {bank} closed, found row {self.rows[bank]}"
                if two and self.pim_rows[bank] == row:
                    return f"row {row} not in the other row buffer of bank {bank}"
            case "RD" | "WR" | "GWRITE":
                if self.rows[bank] != row:
                    return f"row {row} open in bank {bank}, found {self.rows[bank]}"
            case "GACT":
                for b in banks:
                    if self.pim_rows[b] >= 0:
                        return f"bank {b} closed, found row {self.pim_rows[b]}"
                    if two and self.rows[b] == row:
                        return f"row {row} not in the other row buffer of bank {b}"
            case "DOT" | "GEMV" | "READRES":
                for b in banks:
                    if self.pim_rows[b] != row:
                        return f"row {row} open in bank {b}, found {self.pim_rows[b]}"
            case "REF":
                for b in banks:
                    if self.rows[b] >= 0 or self.pim_rows[b] >= 0:
                        return f"bank {b} closed, found row {max(self.rows[b], self.pim_rows[b])}"
            case "PIMPRE":
                return None if two else "a row buffer of PIM's own"
        return None

    def _change_rows(self, command: str, bank: int, row: int) -> None:
        if command == "ACT":
            self.rows[bank] = row
        elif command in ("PRE", "PREA"):
            for b in self.reach(command, bank):
                self.rows[b] = -1
        elif command == "GACT":
            for b in self.reach(command, bank):
                self.pim_rows[b] = row
        elif command == "PIMPRE":
            for b in self.reach(command, bank):
                self.pim_rows[b] = -1
