"""One channel that computes in time: a queue of PIM commands, host requests, refresh, one bus.

The order of service is NeuPIMs' (arXiv 2403.00579): refresh, then the head of the PIM queue, then
the host between them while time is left before refresh. docs/timing.md has the rules,
`archsim.pim_head`, `archsim.pim_host` and `archsim.pim_loop` follow them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from archsim import pim_host, pim_loop
from archsim import pim_timers as at
from archsim.pim_device import NUMBER, PimDevice
from archsim.pim_trace import PimCommand
from machine.config import require
from machine.dram import DramConfig
from machine.pim import PIM_COMMANDS, PimConfig
from machine.pim_macros import PimOp, gwrite_cycles, header_cycles

__all__ = ["CLASSES", "HOST_CLASSES", "NEVER", "HostRequest", "PimChannel", "PimRun"]

NEVER = at.NEVER
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
# What a cycle of the host's data bus was for, seen from the commands; the first that holds counts.
HOST_CLASSES = (
    "busy",  # a burst
    "refresh",  # the oldest request's rank refreshes or is about to
    "pim_conflict",  # its bank, its row or the command bus is PIM's
    "turnaround",  # the bus changes direction or rank
    "bus_conflict",  # commands of other requests stand too close
    "row_miss",  # its row is not open yet
    "idle",  # no request
)
KINDS = {**NUMBER, "TILE": at.TILE}


class HostRequest(NamedTuple):
    """A burst the host asks for, offered from `cycle`; `bank` is flat, `column` counts bursts."""

    cycle: int
    write: bool
    bank: int
    row: int
    column: int


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


class _Cycles(Sequence[int]):
    """A column of a table as a sequence of integers, equal to a list of the same ones."""

    def __init__(self, column: np.ndarray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, index: Any) -> Any:
        return self._column[index].tolist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._column.tolist() == list(other)

    def __hash__(self) -> int:
        return hash(tuple(self._column.tolist()))


class PimChannel:
    """A channel of `dram` with `pim`; time passes when it is advanced. One command a cycle.

    Entries of the PIM queue (``offer``) and bursts of the host (``ask``) may be added as long as
    they are not in the past; what it does before them does not depend on them. Requests come by
    `ports`: one enters a cycle if one of ``host_entries`` is free, ports in turn, those of a port
    in their order. Without `record` no trace is kept; nothing else changes.
    """

    def __init__(
        self, dram: DramConfig, pim: PimConfig, *, ports: int = 1, record: bool = True
    ) -> None:
        self.dram, self.pim = dram, pim
        self.device = PimDevice(dram, pim, ports=ports, record=record)
        self._x = self.device.x
        self._ports = ports
        self._ops = np.zeros((16, pim_loop.O_WIDTH), np.int64)
        self._requests = np.zeros((16, pim_host.N_WIDTH), np.int64)
        self.ops: list[PimOp] = []  # those of ``offer``
        self.requests: list[HostRequest] = []  # those of ``ask``, and the port of each
        self.ports: list[int] = []
        self._checked: set[int] = set()  # kinds of tiles that are good
        self._asked = 0
        self._last = [-1] * ports  # request of each port

    def run(self, ops: Sequence[PimOp], requests: Sequence[HostRequest] = (), *,
            op_cycles: Sequence[int] = (), until: int | None = None) -> PimRun:
        """Serve `ops`, entry j from ``op_cycles[j]`` (default now), and `requests`, in order.

        Returns when all are served, with `until` at that cycle. Raises ``ValueError`` for a tile
        that cannot end between two refreshes.
        """
        for number, op in enumerate(ops):
            self.offer(op, op_cycles[number] if op_cycles else self.now)
        for request in requests:
            self.ask(request)
        if until is None:
            self._go(NEVER, pim_loop.TO_END)
        else:
            self._go(until, pim_loop.TO_TIME)
        return PimRun(self.device.trace, self.now, self.classes, self.counts(),
                      list(self.host_done), list(self.ops_done), self.refresh_late_cycles)

    def finish(self) -> int:
        """Go on until everything is served; return the cycle at which it is."""
        self._go(NEVER, pim_loop.TO_END)
        return self.now

    @property
    def now(self) -> int:
        """The cycle up to which the channel has gone."""
        return int(self._x[at.NOW])

    @property
    def classes(self) -> dict[str, int]:
        """Cycles of the units by class."""
        return dict(zip(CLASSES, self._x[at.CLASSES : at.HOST_CLASSES].tolist(), strict=True))

    @property
    def host_classes(self) -> dict[str, int]:
        """Cycles of the host's data bus by class."""
        return dict(zip(HOST_CLASSES, self._x[at.HOST_CLASSES : at.STATE].tolist(), strict=True))

    def counts(self) -> dict[str, int]:
        """Return the commands so far by name."""
        return dict(zip(PIM_COMMANDS, self._x[at.COUNTS : at.CLASSES].tolist(), strict=True))

    @property
    def refresh_late_cycles(self) -> int:
        """The most a REF came after it was due."""
        return int(self._x[at.LATE])

    @property
    def op_cycles(self) -> Sequence[int]:
        """From when each entry is offered; NEVER: not yet known."""
        return _Cycles(self._ops[: self._x[at.OPS], pim_loop.O_SINCE])

    @property
    def ops_done(self) -> Sequence[int]:
        """The cycle of the command that ended each entry, of those that have ended."""
        return _Cycles(self._ops[: self._x[at.NEXT], pim_loop.O_DONE])

    @property
    def host_done(self) -> Sequence[int]:
        """The cycle of each request's RD or WR, -1 before."""
        return _Cycles(self._requests[: self._asked, pim_host.N_DONE])

    @property
    def last_served(self) -> int:
        """The request whose burst went in the last cycle something happened in, or -1."""
        return int(self._x[at.SERVED])

    @property
    def served(self) -> bool:
        """Whether every entry and every request has had its last command."""
        x = self._x
        return bool(x[at.NEXT] == x[at.OPS] and x[at.ASKED] == x[at.WAITING] == 0)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do but to refresh."""
        return self.served and self.now >= max(self._x[[at.DRAIN_END, at.GWRITE_END]].tolist())

    def offer(self, op: PimOp, cycle: int = NEVER) -> int:
        """Put `op` into the PIM queue, to be served from `cycle` on; return its number.

        Without a cycle it and all behind it wait for ``release``. Raises ``ValueError`` naming the
        numbers of one that cannot be served.
        """
        self._check(op)
        number = int(self._x[at.OPS])
        fields = [[cycle, KINDS[op.kind], op.row, op.bank, op.column, op.dots, op.reads]]
        self._offer(np.array(fields, np.int64))
        self.ops.append(op)
        return number

    def offer_tiles(self, tiles: np.ndarray, cycle: int = NEVER) -> None:
        """Put vectors and tiles into the PIM queue: int [N, 4] of bank, row, reads, dots a read.

        With `reads` 0 it is the GWRITE of a row of `bank`; else a HEADER and the results behind it,
        each a composite, with one row buffer dot products and a result read.
        """
        row = int(tiles[:, 1].max(initial=0))
        require(row < self.dram.rows, "row", f"from 0 to {self.dram.rows - 1}", row)
        for kind in set((tiles[:, 2] << 32 | tiles[:, 3]).tolist()) - self._checked:
            reads, dots = kind >> 32, kind & 0xFFFFFFFF
            if reads:
                self._check(PimOp("GEMV", dots=dots * reads))
                self._check(PimOp("HEADER", dots=dots * reads, reads=reads))
            else:
                self._check(PimOp("GWRITE"))
            self._checked.add(kind)
        least = int(tiles[:, :2].min(initial=0))
        require(least >= 0, "bank and row", "at least 0", least)
        fields = np.zeros((len(tiles), pim_loop.O_DONE), np.int64)
        fields[:, pim_loop.O_SINCE] = cycle
        fields[:, pim_loop.O_KIND] = np.where(tiles[:, 2] == 0, at.GWRITE, at.TILE)
        fields[:, pim_loop.O_BANK], fields[:, pim_loop.O_ROW] = tiles[:, 0], tiles[:, 1]
        fields[:, pim_loop.O_READS], fields[:, pim_loop.O_DOTS] = tiles[:, 2], tiles[:, 3]
        self._offer(fields)

    def release(self, number: int, cycle: int) -> None:
        """Let entry `number` be served from `cycle` on."""
        require(cycle >= self.now, "cycle", f"at least {self.now}, the channel's time", cycle)
        self._ops[number, pim_loop.O_SINCE] = cycle

    def ask(self, request: HostRequest, port: int = 0) -> int:
        """Ask for a burst of the host at `port`; return its number."""
        self.ask_all(np.array([request], np.int64), port)
        self.requests.append(request)
        self.ports.append(port)
        return self._asked - 1

    def ask_all(self, requests: np.ndarray, port: int = 0) -> None:
        """Ask for bursts of the host at `port`, int [N, 5] of the fields of `HostRequest`."""
        count = len(requests)
        if not count:
            return
        first = int(requests[:, 0].min())
        require(first >= self.now, "cycle", f"at least {self.now}, the channel's time", first)
        begin, end = self._asked, self._asked + count
        self._requests = _longer(self._requests, end)
        new = self._requests[begin:end]
        new[:, : pim_host.N_PORT], new[:, pim_host.N_DONE] = requests, -1
        new[:, pim_host.N_PORT] = port
        new[:, pim_host.N_NEXT] = [*range(begin + 1, end), -1]
        place = int(self.device.k[at.AT_PORT]) + port
        if self._x[place] < 0:
            self._x[place] = begin
        else:
            self._requests[self._last[port], pim_host.N_NEXT] = begin
        self._last[port], self._asked = end - 1, end
        self._x[at.WAITING] += count

    def clear(self) -> None:
        """Forget the entries and requests if all are served: their numbers begin anew."""
        require(self.served, "entries and requests", "served", "some that wait")
        self._x[[at.NEXT, at.OPS]] = self._asked = 0
        self.ops, self.requests, self.ports = [], [], []

    def advance(self, until: int) -> bool:
        """Go on to `until`, or past the first cycle in which something had its last command.

        Returns whether a request or an entry had.
        """
        return self._go(until, pim_loop.TO_EVENT)

    def _go(self, until: int, goal: int) -> bool:
        device = self.device
        while True:
            ended = pim_loop.advance(
                device.k, device.x, device.lines, self._ops.ravel(), self._requests.ravel(),
                until, goal)
            if ended != pim_loop.FULL:
                break
            device.fetch()
        require(ended != pim_loop.STUCK, "the PIM queue", "able to go on", self._head())
        return bool(ended == pim_loop.STOPPED)

    def _head(self) -> str:
        number = int(self._x[at.NEXT])
        return f"entry {number}" if number < self._x[at.OPS] else "no entry"

    def _offer(self, fields: np.ndarray) -> None:
        if len(fields):
            first = int(fields[:, pim_loop.O_SINCE].min())
            require(first >= self.now, "cycle", f"at least {self.now}, the channel's time", first)
        begin = int(self._x[at.OPS])
        self._ops = _longer(self._ops, begin + len(fields))
        self._ops[begin : begin + len(fields), : pim_loop.O_DONE] = fields
        self._x[at.OPS] += len(fields)

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
                groups = self.dram.ranks * self.dram.bank_groups
                need = header_cycles(self.dram, self.pim, op, closed=self.dram.banks,
                                     groups=groups)
            elif op.kind == "GWRITE":
                need = gwrite_cycles(self.dram, self.pim, opened=False, other=True)
            else:
                return
            require(need < least, f"cycles of {op.kind}",
                    f"less than {least} from refresh to refresh", need)


def _longer(table: np.ndarray, rows: int) -> np.ndarray:
    """Return `table` with room for `rows`."""
    if rows <= len(table):
        return table
    longer = np.zeros((max(rows, 2 * len(table)), table.shape[1]), np.int64)
    longer[: len(table)] = table
    return longer
