"""One channel that computes, command by command: asks when one is legal, and does it."""

import numpy as np

from archsim import pim_timers as at
from archsim.pim_trace import PimCommand
from machine.config import require
from machine.dram import DramConfig
from machine.pim import PIM_COMMANDS, PimConfig, pim_rules
from machine.pim_macros import gwrite_cycles, header_terms

__all__ = ["PimDevice"]

NUMBER = {name: place for place, name in enumerate(PIM_COMMANDS)}
CAUSES = (*PIM_COMMANDS, "host", "pim", "bus", "")  # what a command waits for, as the loop has it
WIDE = ("DOT", "READRES", "GEMV", "HEADER")  # go to all banks of the channel
TRACE_ROWS = 1 << 14  # commands the compiled loop records before they are fetched


class PimDevice:
    """Rows, timers and the command bus of one channel.

    ``ready_at`` and ``refusal`` only ask; ``issue`` changes state and refuses what is not legal.
    A place of a command is its first bank. With one row buffer ``pim_rows`` is ``rows``; both are
    views, -1 for a closed bank. With `record` every command is kept in ``trace``.
    """

    def __init__(
        self, dram: DramConfig, pim: PimConfig, *, ports: int = 1, record: bool = True
    ) -> None:
        pim.check(dram)
        self.dram, self.pim = dram, pim
        self.per_group = dram.banks_per_group
        self.per_rank = dram.bank_groups * dram.banks_per_group
        self.k, self.x = _constants(dram, pim, ports)
        self.rows = self.x[self.k[at.AT_ROW] :][: dram.banks]
        self.pim_rows = self.x[self.k[at.AT_PIM_ROW] :][: dram.banks]
        self.lines = np.zeros(TRACE_ROWS * at.T_WIDTH if record else 1, np.int64)
        self.x[at.ROOM] = TRACE_ROWS if record else 0
        self._trace: list[PimCommand] = []

    @property
    def trace(self) -> list[PimCommand]:
        """The commands so far, if they are recorded."""
        self.fetch()
        return self._trace

    def fetch(self) -> None:
        """Take over what the compiled loop has recorded."""
        used = self.lines[: self.x[at.RECORDED] * at.T_WIDTH].reshape(-1, at.T_WIDTH)
        self._trace += [PimCommand(line[0], PIM_COMMANDS[line[1]], *line[2:])
                        for line in used.tolist()]
        self.x[at.RECORDED] = 0

    def reach(self, command: str, bank: int) -> range:
        """Return the banks a command at `bank` goes to."""
        wide = int(self.k[at.WIDTH + NUMBER[command]])
        first = bank // wide * wide
        return range(first, first + wide)

    def ready_at(self, command: str, bank: int) -> int:
        """Return the first cycle at which timing and the command bus allow `command` at `bank`."""
        return self.ready(command, bank)[0]

    def ready(self, command: str, bank: int) -> tuple[int, str]:
        """Return the cycle of `ready_at`, and the command, or its owner, that it waits for."""
        legal = at.ready_by_hand(self.k, self.x, NUMBER[command], bank)
        return int(legal), CAUSES[self.x[at.CAUSE]]

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

        `owner`, ``host`` or ``pim``, is remembered as the cause of what waits for it.
        """
        refusal = self.refusal(command, bank, row, now=now)
        if refusal:
            raise ValueError(refusal)
        self.x[at.NOW], self.x[at.ABOUT] = now, -2
        at.issue_by_hand(self.k, self.x, self.lines, NUMBER[command], bank, row, column, dots,
                         CAUSES.index(owner))
        self.fetch()

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


def _layout(dram: DramConfig, pim: PimConfig, ports: int) -> tuple[dict[int, int], np.ndarray]:
    """Return where the parts of the state begin, by their constant, and the state at cycle 0."""
    groups, two = dram.ranks * dram.bank_groups, pim.row_buffers == 2
    timers = (dram.banks + groups + dram.ranks + 1) * at.KINDS
    parts = {  # how many numbers, and their value at first
        at.AT_ROW: (dram.banks, -1), at.AT_PIM_ROW: (dram.banks if two else 0, -1),
        at.AT_OPENER: (dram.banks, at.NOBODY), at.AT_STOLEN: (dram.banks, 0),
        at.AT_SEEN: (dram.banks, 0), at.AT_MATCH: (groups, 0), at.AT_WRONG: (groups, 0),
        at.AT_HELD: (groups, 0), at.AT_DUE: (dram.ranks, at.NEVER),
        at.AT_ACTS: (dram.ranks * at.ACTS_KEPT, -(10**9)), at.AT_WINDOW: (pim.host_entries, 0),
        at.AT_PORT: (ports, -1), at.AT_TIMER: (timers, 0), at.TO_CAUSE: (timers, at.NOBODY),
    }
    begins, pieces = dict[int, int](), [np.zeros(at.STATE, np.int64)]
    for name, (count, value) in parts.items():
        begins[name] = sum(map(len, pieces))
        pieces.append(np.full(count, value, np.int64))
    if not two:
        begins[at.AT_PIM_ROW] = begins[at.AT_ROW]
    begins[at.TO_CAUSE] = timers  # from a timer to what it waits for
    x = np.concatenate(pieces)
    if dram.refresh != "off":
        first = [dram.first_refresh_cycle(rank) for rank in range(dram.ranks)]
        x[begins[at.AT_DUE] :][: dram.ranks] = first
    x[[at.PENDING, at.RESERVED, at.GWRITING]] = -1
    x[at.ABOUT], x[at.TURN] = -2, ports - 1
    return begins, x


def _constants(dram: DramConfig, pim: PimConfig, ports: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers and rules the compiled loop is given, and the state at cycle 0."""
    begins, x = _layout(dram, pim, ports)
    t, terms = dram.timing, header_terms(dram, pim)
    named = begins | {
        at.BANKS: dram.banks, at.RANKS: dram.ranks, at.GROUPS: dram.ranks * dram.bank_groups,
        at.GROUP_BITS: dram.banks_per_group.bit_length() - 1,
        at.RANK_BITS: (dram.bank_groups * dram.banks_per_group).bit_length() - 1,
        at.TWO_BUFFERS: pim.row_buffers == 2, at.BLOCKED: pim.host == "blocked",
        at.ENTRIES: pim.host_entries, at.SLACK_MIN: pim.slack_min_cycles,
        at.WINDOW_CYCLES: t.faw_cycles, at.DOT_CYCLES: pim.dot_cycles,
        at.FILL_DOTS: pim.fill_dots, at.LATENCY: pim.unit.latency_cycles,
        at.GWRITE_CYCLES: pim.gwrite_cycles, at.HOLDS: pim.hold == "last_dot",
        at.BURST_CYCLES: dram.burst_cycles, at.REFI: t.refi_cycles,
        at.REFRESHES: dram.refresh != "off", at.RP: t.rp_cycles, at.RCD_WR: t.rcd_wr_cycles,
        at.PORTS: ports,
        at.OPEN_NEED: gwrite_cycles(dram, pim, opened=True, other=False),
        at.CLOSED_NEED: gwrite_cycles(dram, pim, opened=False, other=False),
        at.OTHER_NEED: gwrite_cycles(dram, pim, opened=False, other=True),
        at.CLOSING: terms.closing, at.PER_CLOSED: terms.per_closed, at.PER_DOT: terms.per_dot,
        at.FLOOR: terms.floor, at.FLOOR_PER_READ: terms.floor_per_read,
        at.PER_READ: terms.per_read, at.BASE: terms.base, at.LEAST: terms.least,
    }
    after, before = _rules_by_command(dram, pim, begins[at.AT_TIMER])
    named[at.AT_OPENING] = at.RULES + len(after) - len(PIM_COMMANDS) - 1
    assert sorted(named) == list(range(at.WIDTH))
    wide = {**dict.fromkeys(WIDE, dram.banks), "PREA": 1 << named[at.RANK_BITS],
            "REF": 1 << named[at.RANK_BITS],
            "GACT": dram.banks if pim.activate == "all" else dram.banks_per_group,
            "PIMPRE": dram.banks if pim.precharge == "all" else 1}
    k = [int(named[place]) for place in range(at.WIDTH)]
    k += [*(wide.get(name, 1) for name in PIM_COMMANDS), *before, *after, *terms.opening]
    return np.array(k, np.int64), x


def _rules_by_command(
    dram: DramConfig, pim: PimConfig, timers: int
) -> tuple[list[int], list[int]]:
    """Return where the rules after each command begin with the rules, and the scopes before each.

    Timers lie from `timers` on. A rule of one cycle is left out: the command bus keeps it. So is
    the rule on an earlier command than the last (tFAW): the loop keeps a ring.
    """
    groups, in_group = dram.ranks * dram.bank_groups, dram.banks_per_group
    in_rank = in_group * dram.bank_groups
    scopes: dict[str, tuple[int, int, range]] = {  # banks, first node, numbers to flip
        "bank": (1, 0, range(1)),
        "bank_group": (in_group, dram.banks, range(1)),
        "rank": (in_rank, dram.banks + groups, range(1)),
        "other_ranks": (in_rank, dram.banks + groups, range(1, dram.ranks)),
        "channel": (dram.banks, dram.banks + groups + dram.ranks, range(1)),
    }
    bits = {"bank": at.BY_BANK, "bank_group": at.BY_GROUP, "rank": at.BY_RANK,
            "other_ranks": at.BY_RANK, "channel": at.BY_CHANNEL}
    added = {"": 0, "composite": at.COMPOSITE, "held": at.HELD_DOTS}
    table = [r for r in pim_rules(dram, pim)
             if r.nth == 1 and (r.condition or r.gap_cycles(dram) > 1)]
    before = [0] * len(PIM_COMMANDS)
    starts, packed, begin = list[int](), list[int](), at.RULES
    for command in PIM_COMMANDS:
        starts.append(begin + len(packed))
        for rule in table:
            if rule.after == command:
                if command == "GEMV":
                    require(rule.scope == "channel", "scope of GEMV", "channel", rule.scope)
                banks, node, flips = scopes[rule.scope]
                timer = timers + node * at.KINDS + NUMBER[rule.before]
                before[NUMBER[rule.before]] |= bits[rule.scope]
                for flip in flips:
                    packed += [banks.bit_length() - 1, flip, timer, rule.gap_cycles(dram),
                               added[rule.condition]]
    return [*starts, begin + len(packed), *packed], before
