"""One DRAM channel behind a read and a write queue: first ready, first come, first served."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from archsim.dram import queue_device as at
from archsim.dram import queue_pick, queues
from archsim.dram.trace import Command
from machine.config import require
from machine.dram import COMMANDS, DramConfig, rules
from machine.dram_queues import QueuePolicy

__all__ = ["Controller", "QueueCounters", "Request"]

TRACE_ROWS = 1 << 16  # commands the compiled loop records before they are fetched
FIELDS = ("kind", "bank", "row", "column", "since")


class Request(NamedTuple):
    """One burst, offered from cycle `since` on, after those before it, at most one a cycle."""

    write: bool
    rank: int
    bank_group: int
    bank: int
    row: int
    column: int  # in bursts
    since: int = 0


@dataclass(frozen=True, slots=True)
class QueueCounters:
    """What the channel did up to now."""

    activates: int
    precharges: int  # banks closed, by PRE or PREA
    refreshes: int
    reads: int
    writes: int
    forwarded: int  # reads that a queued write served
    row_hits: int  # bursts from a row that another request opened
    data_end_cycle: int


class Controller:
    """A channel's queues, banks and buses; ``ready_at`` only asks, ``issue`` and ``run`` act.

    The next command is, of those legal in the earliest cycle: the column command of a request whose
    row was opened for it (it has left its queue, and the row stays open for it); what a refresh
    needs; the next command of the oldest queued request of the direction under way; with the closed
    page policy, a precharge. A rank whose refresh is due takes no other new command. `record` keeps
    every command in `trace`.
    """

    def __init__(
        self, cfg: DramConfig, policy: QueuePolicy | None = None, *, record: bool = False
    ) -> None:
        policy = policy or QueuePolicy()
        self.cfg = cfg
        self.trace: list[Command] = []
        self._k = _constants(cfg, policy)
        self._x = _fresh_state(cfg, policy, self._k)
        self._x[at.ROOM] = TRACE_ROWS if record else 0
        self._trace = np.zeros(TRACE_ROWS * at.T_WIDTH if record else 1, np.int64)

    def run(self, requests: Sequence[Request], *, until: int | None = None) -> list[int]:
        """Serve `requests`; return the cycle at which the data of each ended.

        Goes on to cycle `until`, refreshing, if one is given; a request not served by then is
        refused, as are fields outside the memory.
        """
        table = np.array([self._packed(i, r) for i, r in enumerate(requests)], np.int64)
        return self.run_packed(table.reshape(len(requests), len(FIELDS)), until=until).tolist()

    def run_packed(self, fields: np.ndarray, *, until: int | None = None) -> np.ndarray:
        """Serve requests [N, 5] of (command, bank of the channel, row, column, since) unchecked."""
        table = np.ascontiguousarray(fields, np.int64).ravel()
        done = np.zeros(len(fields), np.int64)
        self._x[[at.NEXT, at.REQUESTS]] = 0, len(fields)
        end = at.NEVER if until is None else until
        while queues.advance(self._k, self._x, table, done, self._trace, end):
            self._fetch_trace()
        self._fetch_trace()
        waiting = int(len(fields) - self._x[at.NEXT])
        waiting += int(self._x[[at.READS_IN, at.WRITES_IN, at.CLAIMED]].sum())
        require(waiting == 0, "until", f"later: {waiting} requests wait", until)
        return done

    @property
    def now(self) -> int:
        """The cycle up to which the channel has gone."""
        return int(self._x[at.NOW])

    def counters(self) -> QueueCounters:
        """Return what the channel did up to now."""
        return QueueCounters(*self._x[at.ACTIVATES : at.DATA_END + 1].tolist())

    def ready_at(self, command: str, *, rank: int = 0, group: int = 0, bank: int = 0) -> int:
        """Return the first cycle at which timing and command bus allow `command`."""
        flat = self._flat(rank, group, bank)
        return int(at.ready_by_hand(self._k, self._x, COMMANDS.index(command), flat))

    def issue(
        self, command: str, *, rank: int = 0, group: int = 0, bank: int = 0, row: int = 0, now: int
    ) -> None:
        """Issue `command` by hand at cycle `now`; raises `ValueError` if it comes too early."""
        legal = self.ready_at(command, rank=rank, group=group, bank=bank)
        if now < legal:
            raise ValueError(f"{command} issued at cycle {now}, legal from {legal}")
        flat = self._flat(rank, group, bank)
        at.issue_by_hand(self._k, self._x, COMMANDS.index(command), flat, row, now)

    def _flat(self, rank: int, group: int, bank: int) -> int:
        cfg = self.cfg
        return (rank * cfg.bank_groups + group) * cfg.banks_per_group + bank

    def _packed(self, number: int, r: Request) -> tuple[int, int, int, int, int]:
        cfg = self.cfg
        sizes = {"rank": cfg.ranks, "bank_group": cfg.bank_groups, "bank": cfg.banks_per_group,
                 "row": cfg.rows, "column": cfg.columns // cfg.burst_length}  # fmt: skip
        for name, size in sizes.items():
            value = getattr(r, name)
            if not 0 <= value < size:
                require(False, f"{name} of request {number}", f"from 0 to {size - 1}", value)
        kind = at.WR if r.write else at.RD
        return kind, self._flat(r.rank, r.bank_group, r.bank), r.row, r.column, r.since

    def _fetch_trace(self) -> None:
        cfg = self.cfg
        used = self._trace[: self._x[at.RECORDED] * at.T_WIDTH].reshape(-1, at.T_WIDTH)
        for cycle, channel, command, bank, row, column in used.tolist():
            group, inner = divmod(bank, cfg.banks_per_group)
            rank, group = divmod(group, cfg.bank_groups)
            name = COMMANDS[command]
            if name in ("PREA", "REF"):
                group = inner = -1
            self.trace.append(Command(cycle, channel, name, rank, group, inner, row, column))
        self._x[at.RECORDED] = 0


def _constants(cfg: DramConfig, policy: QueuePolicy) -> np.ndarray:
    """Return the numbers of `cfg` and `policy` the compiled loop is given, and the rules."""
    t, groups = cfg.timing, cfg.ranks * cfg.bank_groups
    (window,) = (rule for rule in rules(cfg) if rule.nth > 1)
    at_rank = at.STATE + cfg.banks * at.B_WIDTH
    at_list = at_rank + cfg.ranks * (at.N_ACTS + window.nth)
    at_slot = at_list + at.WAYS * cfg.banks
    at_timer = at_slot + (policy.read_entries + policy.write_entries) * queue_pick.S_WIDTH
    named = {
        at.BANKS: cfg.banks, at.GROUPS: groups, at.RANKS: cfg.ranks,
        at.RANK_BITS: (cfg.bank_groups * cfg.banks_per_group).bit_length() - 1,
        at.GROUP_BITS: cfg.banks_per_group.bit_length() - 1,
        at.SHARED_BUS: cfg.command_bus == "shared",
        at.CLOSED_PAGE: policy.page_policy == "closed",
        at.WINDOW: window.nth, at.WINDOW_CYCLES: window.gap_cycles(cfg), at.REFI: t.refi_cycles,
        at.POSTPONED: policy.postponed_max, at.READ_ROOM: policy.read_entries,
        at.WRITE_ROOM: policy.write_entries, at.WRITE_HIGH: policy.write_high_entries,
        at.WRITE_LOW: policy.write_low_entries,
        at.READ_DATA: cfg.slots("RD") - 1 + t.cl_cycles + cfg.burst_cycles,
        at.WRITE_DATA: cfg.slots("WR") - 1 + t.cwl_cycles + cfg.burst_cycles,
        at.AT_BANK: at.STATE, at.AT_RANK: at_rank, at.RANK_WIDTH: at.N_ACTS + window.nth,
        at.AT_LIST: at_list, at.AT_SLOT: at_slot, at.AT_TIMER: at_timer,
    }
    for first, kind in ((at.READ_STEPS, "RD"), (at.WRITE_STEPS, "WR")):
        for n, scope in enumerate(("bank_group", "rank", "channel", "other_ranks")):
            named[first + n] = max([-at.NEVER, *(r.gap_cycles(cfg) for r in rules(cfg) if (
                (r.after, r.before, r.scope, r.nth) == (kind, kind, scope, 1)))])
    assert sorted(named) == list(range(at.SCOPES))
    after, before = _rules_by_command(cfg, at_timer)
    return np.array([*(int(named[n]) for n in range(at.SCOPES)), *before, *after], np.int64)


def _fresh_state(cfg: DramConfig, policy: QueuePolicy, k: np.ndarray) -> np.ndarray:
    """Return the state at cycle 0: all banks closed, nothing queued, no command ever issued."""
    nodes = cfg.banks + cfg.ranks * cfg.bank_groups + cfg.ranks + 1
    x = np.zeros(k[at.AT_TIMER] + nodes * at.KINDS, np.int64)
    x[at.TRIED] = -1
    x[at.STATE : k[at.AT_RANK]] = -1
    ranks = x[k[at.AT_RANK] : k[at.AT_LIST]].reshape(cfg.ranks, -1)
    ranks[:, at.N_ACTS :] = -at.NEVER
    off = cfg.refresh == "off"
    ranks[:, at.N_DUE] = [at.NEVER if off else cfg.first_refresh_cycle(r) for r in range(cfg.ranks)]
    slots = np.arange(k[at.AT_SLOT], k[at.AT_TIMER], queue_pick.S_WIDTH)
    x[at.FREE] = slots[0]
    x[slots + queue_pick.S_NEXT] = [*slots[1:], -1]
    ways = x[at.KEPT : at.STATE].reshape(at.WAYS, -1)
    ways[:, at.C_STALE], ways[:, at.C_BANK] = 1, -1
    return x


def _rules_by_command(cfg: DramConfig, timers: int) -> tuple[list[int], list[int]]:
    """Return where the rules after each command begin with the rules, and the scopes before each.

    Timers lie from `timers` on. The rule on an earlier command than the last (tFAW) is not among
    them: a ring of the last activates holds it.
    """
    groups, in_group = cfg.ranks * cfg.bank_groups, cfg.banks_per_group
    in_rank = in_group * cfg.bank_groups
    scopes: dict[str, tuple[int, int, Sequence[int], int]] = {  # banks, first node, to flip, bit
        "bank": (1, 0, [0], at.BY_BANK),
        "bank_group": (in_group, cfg.banks, [0], at.BY_GROUP),
        "rank": (in_rank, cfg.banks + groups, [0], at.BY_RANK),
        "other_ranks": (in_rank, cfg.banks + groups, range(1, cfg.ranks), at.BY_RANK),
        "channel": (cfg.banks, cfg.banks + groups + cfg.ranks, [0], at.BY_CHANNEL),
    }
    before = [0] * len(COMMANDS)
    starts, packed = list[int](), list[int]()
    for command in COMMANDS:
        starts.append(at.RULES + len(packed))
        for rule in rules(cfg):
            gap = rule.gap_cycles(cfg)
            if rule.after == command and rule.nth == 1 and gap > 0:
                banks, node, flips, bit = scopes[rule.scope]
                timer = timers + node * at.KINDS + COMMANDS.index(rule.before)
                before[COMMANDS.index(rule.before)] |= bit
                for flip in flips:
                    packed += [banks.bit_length() - 1, flip, timer, gap]
    return [*starts, at.RULES + len(packed), *packed], before
