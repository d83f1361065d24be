"""One channel that computes in time: a queue of PIM commands, host requests, refresh, one bus.

The order of service is NeuPIMs' (arXiv 2403.00579): refresh, then the head of the PIM queue, then
the host between them while time is left before refresh. docs/timing.md has the rules.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from archsim.pim_device import PimDevice
from archsim.pim_host import HOST_CLASSES, HostRequest, host_reason
from archsim.pim_trace import PimCommand
from machine.config import require
from machine.dram import DramConfig
from machine.pim import PIM_COMMANDS, PimConfig
from machine.pim_macros import PimOp, gwrite_cycles, header_cycles

__all__ = ["CLASSES", "HOST_CLASSES", "NEVER", "HostRequest", "PimChannel", "PimRun"]

NEVER = 1 << 60
# What a cycle of the channel's units was for; the first that holds counts.
CLASSES = (
    "dot",  # a dot product begins or goes on
    "drain",  # adder tree and result read
    "gwrite",  # the vector is copied
    "refresh",  # a rank refreshes or is about to; nothing more is admitted before it
    "row_conflict",  # a row the host opened is in the way
    "gwrite_row",  # the row of the vector is opened, in the host's row buffer
    "turnaround",  # data of the host
    "activation",  # PIM's own rows are closed and opened, tFAW above all
    "idle",  # no command waits
)
_CAUSES = {"REF": "refresh", "host": "row_conflict", "RD": "turnaround", "WR": "turnaround"}


@dataclass(slots=True)
class PimRun:
    """What a run did: every command, cycles by class (they sum to `cycles`), commands by name."""

    trace: list[PimCommand]
    cycles: int
    classes: dict[str, int]
    counts: dict[str, int]
    host_done: list[int]  # cycle of each host request's RD or WR, in order of arrival
    ops_done: list[int]  # cycle of the command that ended each PIM entry
    refresh_late_cycles: int  # the most a REF came after it was due


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
    wake: int = NEVER
    late: int = 0
    stolen: set[int] = field(default_factory=set)  # banks whose PIM row the host closed
    due: list[int] = field(default_factory=list)


class PimChannel:
    """A channel of `dram` with `pim`; time passes when it is advanced. One command a cycle.

    Entries of the PIM queue (``offer``) and bursts of the host (``ask``) may be added as long as
    they are not in the past; what it does before them does not depend on them. Requests come by
    `ports`: one enters a cycle if one of ``host_entries`` is free, ports in turn, those of a port
    in their order.
    """

    def __init__(self, dram: DramConfig, pim: PimConfig, *, ports: int = 1) -> None:
        self.dram, self.pim = dram, pim
        self.device = PimDevice(dram, pim)
        self.now = 0
        self.classes = dict.fromkeys(CLASSES, 0)  # of the units' cycles up to now
        self.host_classes = dict.fromkeys(HOST_CLASSES, 0)  # of the host's data bus
        self.ops: list[PimOp] = []
        self.op_cycles: list[int] = []  # from when each entry is offered; NEVER: not yet known
        self.ops_done: list[int] = []  # cycle of the command that ended each entry
        self.requests: list[HostRequest] = []
        self.host_done: list[int] = []  # cycle of each request's RD or WR, -1 before
        self._x = _State(due=[dram.first_refresh_cycle(r) if dram.refresh != "off" else NEVER
                              for r in range(dram.ranks)])
        self._groups = dram.ranks * dram.bank_groups
        self._waiting: list[deque[int]] = [deque() for _ in range(ports)]
        self._turn = ports - 1  # the port that came last
        self._window: list[int] = []
        self._ends = (0, 0, 0)  # of dot products, drain and GWRITE
        self._host_end = 0  # of the last burst, seen from its command

    def run(self, ops: Sequence[PimOp], requests: Sequence[HostRequest] = (), *,
            op_cycles: Sequence[int] = (), until: int | None = None) -> PimRun:
        """Serve `ops`, entry j offered from ``op_cycles[j]`` (default now), and `requests`.

        Returns when all are served, with `until` at that cycle. Raises ``ValueError`` for a tile
        that cannot end between two refreshes.
        """
        for number, op in enumerate(ops):
            self.offer(op, op_cycles[number] if op_cycles else self.now)
        for request in requests:
            self.ask(request)
        limit = NEVER if until is None else until
        while self.now < limit and (until is not None or not self.idle):
            self._cycle(limit)
        return PimRun(self.device.trace, self.now, self.classes, self.counts(), self.host_done,
                      self.ops_done, self._x.late)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do but to refresh."""
        return self.served and self.now >= max(self._ends[1:])

    @property
    def served(self) -> bool:
        """Whether every entry and every request has had its last command."""
        return (len(self.ops_done) == len(self.ops) and not self._window
                and not any(self._waiting))

    def counts(self) -> dict[str, int]:
        """Return the commands so far by name."""
        counts = dict.fromkeys(PIM_COMMANDS, 0)
        for command in self.device.trace:
            counts[command.command] += 1
        return counts

    def offer(self, op: PimOp, cycle: int = NEVER) -> int:
        """Put `op` into the PIM queue, to be served from `cycle` on; return its number.

        Without a cycle it and all behind it wait for ``release``. Raises ``ValueError`` naming the
        numbers of one that cannot be served.
        """
        self._check(op)
        require(cycle >= self.now, "cycle", f"at least {self.now}, the channel's time", cycle)
        self.ops.append(op)
        self.op_cycles.append(cycle)
        return len(self.ops) - 1

    def release(self, number: int, cycle: int) -> None:
        """Let entry `number` be served from `cycle` on."""
        require(cycle >= self.now, "cycle", f"at least {self.now}, the channel's time", cycle)
        self.op_cycles[number] = cycle

    def ask(self, request: HostRequest, port: int = 0) -> int:
        """Ask for a burst of the host at `port`; return its number."""
        require(request.cycle >= self.now, "cycle", f"at least {self.now}, the channel's time",
                request.cycle)
        self._waiting[port].append(len(self.requests))
        self.requests.append(request)
        self.host_done.append(-1)
        return len(self.requests) - 1

    def advance(self, until: int) -> bool:
        """Go on to `until`, or past the first cycle in which a request or an entry had its last
        command; return whether one had."""
        while self.now < until:
            if self._cycle(until):
                return True
        return False

    def _cycle(self, limit: int) -> bool:
        """Do what is to be done now, and go on to when something may be again.

        Returns whether a request or an entry had its last command.
        """
        x, now, free = self._x, self.now, len(self._window) < self.pim.host_entries
        x.wake, x.reason = NEVER, "idle"
        number = len(self.ops_done)
        head = self.ops[number] if number < len(self.ops) else None
        if head is not None and self.op_cycles[number] > now:
            x.wake, head = self.op_cycles[number], None
        before = len(self.device.trace)
        served, ended = self._step(now, head, [(i, self.requests[i]) for i in self._window])
        if ended:
            self.ops_done.append(now)
        if served is not None:
            self.host_done[served] = now
            self._window.remove(served)
            self._host_end = max(self._host_end, now) + self.dram.burst_cycles
        issued = len(self.device.trace) > before
        waits_for = self._host_reason(now, issued)
        self._enter(now, free)
        for command in self.device.trace[before:]:
            self._ends = self._busy(command, *self._ends)
        ends = [e for e in (*self._ends, self._host_end, *x.due) if e > now]
        after = now + 1 if issued or ended else min([x.wake, limit, *ends])
        require(after < NEVER, "the PIM queue", "able to go on", head)
        self._account(now, after, *self._ends)
        self._account_host(after, waits_for)
        self.now = after
        return ended or served is not None

    def _host_reason(self, now: int, issued: bool) -> str:
        """Return the class of a cycle of the host's data bus without data."""
        x = self._x
        if not self._window:
            return "idle"
        return host_reason(self.device, self.requests[self._window[0]], now, issued=issued,
                           pending=x.pending, gwriting=x.gwriting, reserved=x.reserved)

    def _enter(self, now: int, free: bool) -> None:
        """Let a request enter the window if a place was free, and remember when one may."""
        x, ports = self._x, len(self._waiting)
        if free:
            for step in range(1, ports + 1):
                port = (self._turn + step) % ports
                waiting = self._waiting[port]
                if waiting and self.requests[waiting[0]].cycle <= now:
                    self._window.append(waiting.popleft())
                    self._turn, x.wake = port, now + 1
                    return
        if len(self._window) < self.pim.host_entries:
            for waiting in self._waiting:
                if waiting:
                    x.wake = min(x.wake, max(self.requests[waiting[0]].cycle, now + 1))

    def _check(self, op: PimOp) -> None:
        """Raise ``ValueError`` naming the numbers of an entry that cannot be served."""
        require(0 <= op.row < self.dram.rows, "row", f"from 0 to {self.dram.rows - 1}", op.row)
        columns = self.pim.row_columns(self.dram)
        last = op.column + max(op.dots, 1) - 1
        if op.kind in ("DOT", "GEMV"):
            require(last < columns, "last column", f"at most {columns - 1} of a row", last)
            most, end = self.pim.buffer_columns, op.slot + max(op.dots, 1)
            require(end <= most, "vector's columns", f"at most {most}, the global buffer", end)
        if self.dram.refresh != "off":
            least = self.dram.timing.refi_cycles // self.dram.ranks
            if op.kind == "HEADER":
                need = header_cycles(self.dram, self.pim, op, closed=self.dram.banks,
                                     groups=self._groups)
            elif op.kind == "GWRITE":
                need = gwrite_cycles(self.dram, self.pim, opened=False, other=True)
            else:
                return
            require(need < least, f"cycles of {op.kind}",
                    f"less than {least} from refresh to refresh", need)

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

    def _account(self, now: int, after: int, *ends: int) -> None:
        at = now
        for name, end in zip(("dot", "drain", "gwrite"), ends, strict=True):
            upto = max(at, min(after, end))
            self.classes[name] += upto - at
            at = upto
        self.classes[self._x.reason] += after - at

    def _account_host(self, after: int, reason: str) -> None:
        """Charge the cycles of the host's data bus, seen from the command, to `after`."""
        busy = max(0, min(after, self._host_end) - self.now)
        self.host_classes["busy"] += busy
        self.host_classes[reason] += after - self.now - busy

    def _step(self, now: int, head: PimOp | None,
              window: list[tuple[int, HostRequest]]) -> tuple[int | None, bool]:
        """Issue at most one command; return the request served and whether the entry is done."""
        x = self._x
        if x.pending < 0:
            x.pending = next((r for r, due in enumerate(x.due) if due <= now), -1)
        x.wake = min([x.wake, *(due for due in x.due if due > now)])
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
            self._x.wake = min(self._x.wake, ready)
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
        return _CAUSES.get(cause, "activation")

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
        if self.dram.refresh != "off":
            x.wake = min(x.wake, now + x.slack)  # when it would be too late
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
