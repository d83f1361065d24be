"""A channel that computes, in plain Python and cycle by cycle: what the compiled loop must do.

It shares the rule table and the estimates with `archsim.pim`, and nothing else: no compiled code,
no time that is passed over, nothing kept from one cycle for the next but what a controller keeps.
"""

from dataclasses import dataclass, field

from archsim.pim import CLASSES, HOST_CLASSES, HostRequest
from archsim.pim_trace import PimCommand
from machine.dram import DramConfig, Rule
from machine.pim import PIM_COMMANDS, PimConfig, pim_rules
from machine.pim_macros import PimOp, gwrite_cycles, header_cycles

NEVER = 1 << 60
OWNED = ("ACT", "PRE", "PREA", "GACT")  # what waits for them waits for their owner
NUMBER = {name: place for place, name in enumerate(PIM_COMMANDS)}
CAUSES = {"REF": "refresh", "host": "row_conflict", "RD": "turnaround", "WR": "turnaround"}
HOST_CAUSES = {"REF": "refresh", "host": "row_miss", "bus": "bus_conflict"}


@dataclass(slots=True)
class _State:
    """What the controller remembers beside the device."""

    pending: int = -1  # rank that is due
    skip: bool = False  # nothing of PIM before the next refresh
    slack: int = 0  # cycles the host may take from PIM
    reserved: int = -1  # row of the tile under way
    results_left: int = 0  # of that tile
    gwriting: int = -1  # bank of a GWRITE that was admitted
    reason: str = "idle"  # class of the cycles until the next event
    late: int = 0
    stolen: set[int] = field(default_factory=set)  # banks whose PIM row the host closed
    due: list[int] = field(default_factory=list)


class PlainDevice:
    """Rows, timers and the command bus of one channel."""

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

    def issue(self, command: str, bank: int, row: int = -1, column: int = -1, dots: int = 0, *,
              now: int, owner: str = "host") -> None:
        """Issue `command`; `owner` is remembered as the cause of what waits for it."""
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


class PlainChannel:
    """As `archsim.pim.PimChannel`, for one run."""

    def __init__(self, dram: DramConfig, pim: PimConfig) -> None:
        self.dram, self.pim = dram, pim
        self.device = PlainDevice(dram, pim)
        self.now = 0
        self.classes = dict.fromkeys(CLASSES, 0)
        self.host_classes = dict.fromkeys(HOST_CLASSES, 0)
        self.ops_done: list[int] = []
        self.host_done: list[int] = []
        self._x = _State(due=[dram.first_refresh_cycle(r) if dram.refresh != "off" else NEVER
                              for r in range(dram.ranks)])
        self._groups = dram.ranks * dram.bank_groups
        self._window: list[int] = []
        self._ends = (0, 0, 0)  # of dot products, drain and GWRITE
        self._host_end = 0  # of the last burst, seen from its command

    @property
    def late(self) -> int:
        return self._x.late

    def run(self, ops, requests, op_cycles) -> None:
        """Serve `ops` and `requests`, and let the last of them end."""
        self.host_done = [-1] * len(requests)
        arrived = 0
        while True:
            x, now, free = self._x, self.now, len(self._window) < self.pim.host_entries
            number = len(self.ops_done)
            waits = number < len(ops) or arrived < len(requests) or self._window
            if not waits and now >= max(self._ends[1:]):
                return
            x.reason = "idle"
            head = ops[number] if number < len(ops) and op_cycles[number] <= now else None
            before = len(self.device.trace)
            served, ended = self._step(now, head, [(i, requests[i]) for i in self._window])
            if ended:
                self.ops_done.append(now)
            if served is not None:
                self.host_done[served] = now
                self._window.remove(served)
                self._host_end = max(self._host_end, now) + self.dram.burst_cycles
            reason = self._host_reason(requests, len(self.device.trace) > before)
            if free and arrived < len(requests) and requests[arrived].cycle <= now:
                self._window.append(arrived)
                arrived += 1
            for command in self.device.trace[before:]:
                self._ends = self._busy(command, *self._ends)
            busy = [name for name, end in zip(CLASSES, self._ends, strict=False) if end > now]
            self.classes[busy[0] if busy else x.reason] += 1
            self.host_classes["busy" if self._host_end > now else reason] += 1
            self.now += 1

    def _host_reason(self, requests: list[HostRequest], issued: bool) -> str:
        """Return the class of a cycle of the host's data bus without data."""
        if not self._window:
            return "idle"
        x, dev, request = self._x, self.device, requests[self._window[0]]
        two, bank, opened = self.pim.row_buffers == 2, request.bank, dev.rows[request.bank]
        if bank // dev.per_rank == x.pending:
            return "refresh"
        hit = opened == request.row
        if bank == x.gwriting or (request.row == x.reserved if two else
                                  not hit and x.reserved >= 0):
            return "pim_conflict"
        command = ("WR" if request.write else "RD") if hit else "PRE" if opened >= 0 else "ACT"
        ready, cause = dev.ready(command, bank)
        if ready <= self.now or (cause == "bus" and issued):
            last = dev.trace[-1].command if issued else ""
            ours = last in ("RD", "WR") or (last in ("ACT", "PRE") and dev.owner == "host")
            return "bus_conflict" if ours else "pim_conflict"
        if cause in ("RD", "WR"):
            return "bus_conflict" if cause == command or not hit else "turnaround"
        return HOST_CAUSES.get(cause, "pim_conflict")

    def _busy(self, c: PimCommand, dots: int, drain: int, gwrite: int) -> tuple[int, int, int]:
        """Return until when dot products, drain and GWRITE last after command `c`."""
        pim = self.pim
        if c.command == "DOT":
            return c.cycle + pim.dot_cycles, max(drain, c.cycle + pim.unit.latency_cycles), gwrite
        if c.command == "GEMV":
            return (c.cycle + pim.dot_cycles * c.dots, c.cycle + pim.composite_cycles(c.dots),
                    gwrite)
        if c.command == "READRES":
            return dots, max(drain, c.cycle + pim.dot_cycles), gwrite
        return dots, drain, c.cycle + pim.gwrite_cycles if c.command == "GWRITE" else gwrite

    def _step(self, now: int, head: PimOp | None,
              window: list[tuple[int, HostRequest]]) -> tuple[int | None, bool]:
        """Issue at most one command; return the request served and whether the entry is done."""
        x = self._x
        if x.pending < 0:
            x.pending = next((r for r, due in enumerate(x.due) if due <= now), -1)
        # Refresh first: close the rank's rows, then refresh it.
        if x.pending >= 0:
            x.reason = "refresh"
            if self._refresh(now):
                return None, False
        # The head of the PIM queue, or nothing if little time is left before refresh.
        limited = False
        if head is not None:
            if x.pending < 0 and not x.skip:
                issued, ended = self._serve(now, head)
                if issued or ended:
                    return None, ended
                limited = not x.skip
                if limited and (self.pim.host == "blocked" or x.slack < self.pim.slack_min_cycles):
                    return None, False
            if x.skip or x.pending >= 0:
                x.reason = "refresh"
            if self.pim.host == "blocked" and x.pending < 0 and not x.skip:
                return None, False
        return self._host(now, window, limited), False

    def _try(self, now: int, command: str, bank: int, row: int = -1, column: int = -1,
             dots: int = 0, *, owner: str = "pim", blame: bool = True) -> bool:
        """Issue `command` if it is legal now; if not, remember when it is and what for it waits."""
        ready, cause = self.device.ready(command, bank)
        if owner == "pim" and self._for_host(command, bank):
            owner = cause = "host"
        if ready > now:
            if blame:
                self._x.reason = self._class_of(command, cause)
            return False
        if blame and owner == "host":
            self._x.reason = "row_conflict"
        self._x.stolen -= set(self.device.reach(command, bank)) if command == "GACT" else set()
        self.device.issue(command, bank, row, column, dots, now=now, owner=owner)
        return True

    def _for_host(self, command: str, bank: int) -> bool:
        """Return whether a row command of PIM is needed for a row the host opened or closed."""
        if command == "PRE":
            return self.device.openers[bank] == "host"
        reach = self.device.reach(command, bank) if command == "GACT" else ()
        return not self._x.stolen.isdisjoint(reach)

    def _class_of(self, command: str, cause: str) -> str:
        """Return the class of a cycle in which `command` waits for `cause`."""
        if command == "GACT" and self.pim.row_buffers == 2 and cause == "host":
            return "activation"  # the distance of activations, not a row
        return CAUSES.get(cause, "activation")

    def _refresh(self, now: int) -> bool:
        """Take the next step towards the refresh of the rank that is due."""
        x, dev = self._x, self.device
        first = x.pending * dev.per_rank
        open_rows = False
        for bank in range(first, first + dev.per_rank):
            if dev.rows[bank] >= 0:
                open_rows = True
                if self._try(now, "PRE", bank, owner="REF", blame=False):
                    return True
            elif dev.pim_rows[bank] >= 0:
                open_rows = True
                if self._try(now, "PIMPRE", bank, blame=False):
                    return True
        if not open_rows and self._try(now, "REF", first, owner="REF", blame=False):
            x.late = max(x.late, now - x.due[x.pending])
            x.due[x.pending] += self.dram.timing.refi_cycles
            x.stolen -= set(range(first, first + dev.per_rank))
            x.pending, x.skip, x.slack, x.gwriting = -1, False, 0, -1
            return True
        return False

    def _left(self, now: int) -> int:
        if self.dram.refresh == "off":
            return 2 * self.dram.timing.refi_cycles
        return min(self._x.due) - now

    def _serve(self, now: int, op: PimOp) -> tuple[bool, bool]:
        """Take the next step of the PIM queue's head: whether a command went, and ended it."""
        match op.kind:
            case "GWRITE":
                return self._gwrite(now, op)
            case "HEADER":
                return self._header(now, op)
            case "PIMPRE":
                return self._close(now, -1, everything=True)
        opened = self._open(now, op.row)
        if opened is not None:
            done = opened and op.kind == "GACT" and all(
                row == op.row for row in self.device.pim_rows)
            return opened, done
        if op.kind == "GACT":
            return False, True
        if not self._try(now, op.kind, 0, op.row, op.column, op.dots):
            return False, False
        if op.kind in ("GEMV", "READRES"):
            self._x.results_left -= 1
            if self._x.results_left <= 0:
                self._x.reserved = -1
        return True, True

    def _gwrite(self, now: int, op: PimOp) -> tuple[bool, bool]:
        x, dev = self._x, self.device
        row = dev.rows[op.bank]
        if x.gwriting < 0:
            need = gwrite_cycles(self.dram, self.pim, opened=row == op.row,
                                 other=0 <= row != op.row)
            if self._left(now) <= need:
                x.skip, x.slack = True, 0
                return False, False
            x.gwriting, x.slack = op.bank, self._left(now) - need
        x.reason = "gwrite_row"
        if row == op.row:
            issued = self._try(now, "GWRITE", op.bank, op.row, op.column)
            if issued:
                x.gwriting = -1
            return issued, issued
        if row >= 0:
            issued = self._try(now, "PRE", op.bank, blame=False)
        elif dev.pim_rows[op.bank] == op.row:
            issued = self._try(now, "PIMPRE", op.bank, blame=False)
        else:
            issued = self._try(now, "ACT", op.bank, op.row, blame=False)
        return issued, False

    def _header(self, now: int, op: PimOp) -> tuple[bool, bool]:
        x, dev = self._x, self.device
        others = sum(row >= 0 and row != op.row for row in dev.pim_rows)
        groups = sum(any(row != op.row for row in dev.pim_rows[g : g + dev.per_group])
                     for g in range(0, self.dram.banks, dev.per_group))
        need = header_cycles(self.dram, self.pim, op, closed=others, groups=groups)
        if self._left(now) <= need:
            x.skip, x.slack = True, 0
            return False, False
        x.slack = self._left(now) - need
        issued, closed = self._close(now, op.row)
        if not closed or issued:
            return issued, False
        if not self._try(now, "HEADER", 0, op.row, op.reads, op.dots):
            return False, False
        x.reserved, x.results_left, x.reason = op.row, op.reads, "activation"
        return True, True

    def _close(self, now: int, row: int, *, everything: bool = False) -> tuple[bool, bool]:
        """Close PIM rows that are not `row`, and `row` in the host's buffers.

        Returns whether a command went, and whether nothing is left to close.
        """
        dev, two, left = self.device, self.pim.row_buffers == 2, False
        self._x.reason = "activation"
        for bank in range(self.dram.banks):
            if 0 <= dev.pim_rows[bank] != row:
                left = True
                if self._try(now, "PIMPRE" if two else "PRE", bank):
                    rest = any(0 <= r != row for r in dev.pim_rows)
                    return True, everything and not rest
            elif two and not everything and 0 <= dev.rows[bank] == row:
                left = True
                if self._try(now, "PRE", bank):
                    return True, False
        return False, not left

    def _open(self, now: int, row: int) -> bool | None:
        """Open `row` in the first group that can; None if it is open in all, else if it went."""
        dev, missing = self.device, False
        step = self.dram.banks if self.pim.activate == "all" else dev.per_group
        close = "PIMPRE" if self.pim.row_buffers == 2 else "PRE"
        self._x.reason = "activation"
        for first in range(0, self.dram.banks, step):
            banks = range(first, first + step)
            if all(dev.pim_rows[b] == row for b in banks):
                continue
            missing = True
            wrong = [b for b in banks if dev.pim_rows[b] >= 0]
            held = [b for b in banks if self.pim.row_buffers == 2 and dev.rows[b] == row]
            if wrong or held:
                pairs = [(close, b) for b in wrong] + [("PRE", b) for b in held]
                if any(self._try(now, command, b) for command, b in pairs):
                    return True
            elif self._try(now, "GACT", first, row):
                return True
        return False if missing else None

    def _host(self, now: int, window: list[tuple[int, HostRequest]], limited: bool) -> int | None:
        """Issue a command of the oldest request that can go; return the request it served."""
        x, dev, t = self._x, self.device, self.dram.timing
        two, seen = self.pim.row_buffers == 2, set()
        for index, request in window:
            bank, row = request.bank, dev.rows[request.bank]
            if bank in seen:
                continue
            seen.add(bank)
            if bank // dev.per_rank == x.pending or bank == x.gwriting:
                continue
            if two and request.row == x.reserved:
                continue
            if row == request.row:
                name = "WR" if request.write else "RD"
                if self._try(now, name, bank, row, request.column, blame=False):
                    return index
                continue
            if not two and x.reserved >= 0:
                continue
            spend = t.rp_cycles if row >= 0 else t.rcd_wr_cycles
            need = t.rcd_wr_cycles + (t.rp_cycles if row >= 0 else 0)
            if limited and x.slack <= need:
                continue
            if two and row < 0 and dev.pim_rows[bank] == request.row:
                command = "PIMPRE"
            else:
                command = "PRE" if row >= 0 else "ACT"
            if self._try(now, command, bank, request.row if command == "ACT" else -1,
                         owner="host", blame=False):
                if command != "ACT" and dev.openers[bank] == "pim" and not two:
                    x.stolen.add(bank)
                if limited:
                    x.slack -= spend
                return None
        return None
