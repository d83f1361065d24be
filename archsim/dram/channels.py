"""The external memory in time: transfers in, the cycles their data moves out."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from archsim.dram import kernel as at
from archsim.dram.state import constants, fresh_state, fresh_transfers, ranks_of
from archsim.dram.trace import Command
from machine.config import require
from machine.dram import COMMANDS, DramConfig

__all__ = ["Completion", "DramCounters", "DramEnergy", "Memory"]

DEPTH = 16  # transfers one port may have under way; a power of two
TRACE_ROWS = 1 << 16  # commands the compiled loop records before they are fetched


class Completion(NamedTuple):
    """A transfer that is done: its first data began, and its last data ended, at these cycles."""

    tag: int
    first_data_cycle: int
    done_cycle: int


@dataclass(frozen=True, slots=True)
class DramCounters:
    """What one channel did up to now; the classes of cycles sum to `cycles` exactly.

    A cycle belongs to the data bus. One without data belongs to the first class that holds for
    the burst that comes next, seen as many cycles earlier as its data follow its command: nothing
    was queued (idle); its rank was in refresh; its row was not open yet; the bus changed direction
    or rank; it had not arrived, and what was queued could not go (late); else commands stood too
    close (bus conflict). With requests still queued, `cycles` ends with the last data instead.
    """

    activates: int
    reads: int
    writes: int
    precharges: int  # banks closed, by PRE or PREA
    refreshes: int
    row_hits: int
    row_misses: int  # the bank was closed
    row_conflicts: int  # another row was open
    active_rank_cycles: int  # with a row open or in refresh, summed over ranks
    busy_cycles: int
    idle_cycles: int
    refresh_cycles: int
    row_miss_cycles: int
    turnaround_cycles: int
    late_cycles: int
    bus_conflict_cycles: int
    precharged_rank_cycles: int  # the other cycles of all ranks
    cycles: int


@dataclass(frozen=True, slots=True)
class DramEnergy:
    """Energy of all channels in picojoule; None where the machine gives no currents."""

    activate_pj: float | None
    read_pj: float | None
    write_pj: float | None
    refresh_pj: float | None
    standby_pj: float | None


class Memory:
    """All channels of the external memory, advanced on request; time is its clock's cycles.

    Ports (DMA queues) start transfers; each issues its own in order, burst by burst, and each
    channel takes at most one request a cycle from the ports in turn. Data of writes are at hand.
    Channels that do the same are simulated once. `record` keeps every command in `trace`, and
    `shortcuts=False` simulates every channel and every refresh by itself; both change nothing else.
    """

    def __init__(
        self, cfg: DramConfig, *, ports: int = 4, record: bool = False, shortcuts: bool = True
    ) -> None:
        require(ports >= 1, "ports", "at least 1", ports)
        self.cfg = cfg
        self.now = 0
        self.trace: list[Command] = []
        self._records = record
        self._k = constants(cfg, ports=ports, depth=DEPTH, shortcuts=shortcuts and not record)
        self._s = fresh_state(cfg, self._k)
        self._moves = fresh_transfers(self._k)
        self._listed = np.zeros((1, 2), np.int64)
        self._started = np.zeros(ports, np.int64)
        self._trace = np.full((TRACE_ROWS if record else 1, 6), 0 if record else -1, np.int64)
        self._credit = np.zeros((cfg.channels, at.STATE - at.ACTIVATES), np.int64)
        low, bits = cfg.fields["ch"]
        self._stripe_bytes = cfg.burst_bytes << (low + bits)
        self._tags: dict[int, int] = {}  # of the transfers under way, by their row of `_moves`
        self._soonest = at.NEVER  # no transfer ends before
        self._done = np.zeros(ports * DEPTH, np.int64)

    def start(
        self,
        tag: int,
        port: int,
        *,
        write: bool,
        address_bytes: int,
        row_bytes: int,
        rows: int = 1,
        stride_bytes: int = 0,
        now: int,
    ) -> None:
        """Start a transfer of `rows` pieces of `row_bytes`, `stride_bytes` apart, from cycle `now`.

        Every burst a piece touches is moved whole; pieces without a gap are one piece. Raises
        `ValueError` for what lies outside the memory, the past, and a port with `DEPTH` transfers.
        """
        require(row_bytes >= 1, "row_bytes", "at least 1", row_bytes)
        require(rows >= 1, "rows", "at least 1", rows)
        if stride_bytes == row_bytes:
            row_bytes, rows = row_bytes * rows, 1
        last = address_bytes + (rows - 1) * stride_bytes
        self._check_span(min(address_bytes, last), max(address_bytes, last) + row_bytes)
        kind = at.WR if write else at.RD
        move = (address_bytes, row_bytes, stride_bytes, rows, kind, -1)
        equal = not (address_bytes | row_bytes | stride_bytes) & (self._stripe_bytes - 1)
        self._launch(tag, port, move, now, equal)

    def start_list(
        self,
        tag: int,
        port: int,
        *,
        write: bool | Sequence[bool],
        addresses_bytes: Sequence[int],
        row_bytes: int,
        now: int,
    ) -> None:
        """Start a transfer of pieces at the given addresses, in their order (gather or scatter).

        `write` may say for each piece whether it is written. Raises as `start` does.
        """
        listed = np.zeros((len(addresses_bytes), 2), np.int64)
        require(len(listed) >= 1, "addresses_bytes", "at least one address", addresses_bytes)
        require(row_bytes >= 1, "row_bytes", "at least 1", row_bytes)
        listed[:, 0] = addresses_bytes
        listed[:, 1] = np.where(write, at.WR, at.RD)
        self._check_span(int(listed[:, 0].min()), int(listed[:, 0].max()) + row_bytes)
        place = len(self._listed) if self._tags else 0
        self._listed = np.concatenate([self._listed[:place], listed])
        self._launch(tag, port, (0, row_bytes, 0, len(listed), at.RD, place), now, False)

    @staticmethod
    def stacked(memories: "Sequence[Memory]") -> tuple[np.ndarray, ...]:
        """Return the arrays of equal memories for one compiled caller that drives them itself.

        `k`, the trace and room for what is done are those of the first; state, transfers, started
        and credit are stacked and from now on each memory's own. The caller sets `now` at its end.
        """
        first = memories[0]
        stacks = [np.stack([getattr(one, name) for one in memories])
                  for name in ("_s", "_moves", "_started", "_credit")]
        for number, one in enumerate(memories):
            one._s, one._moves, one._started, one._credit = (stack[number] for stack in stacks)
        return first._k, first._trace, first._done, *stacks

    def advance(self, until: int) -> list[Completion]:
        """Move to the first end of a transfer, or to `until` if that is earlier.

        Returns the transfers that end there, in the order they started; call again to go on.
        """
        if until < self.now:
            require(False, "until", f"at least {self.now}, the memory's time", until)
        if until < self._soonest and not self._records:
            self.now = until  # the channels follow when something depends on them
            return []
        while True:
            now, soonest = at.run(*self._arrays, self._trace, until)
            self.now, self._soonest = int(now), int(soonest)
            if not self._records:
                break
            at.catch_up(*self._arrays, self._trace, self.now)
            if not self._fetch_trace():
                break
        return self._take_done() if self._soonest <= self.now else []

    def next_event(self) -> int | None:
        """Return a cycle no transfer ends before; None when no transfer is under way."""
        return self._soonest if self._tags else None

    def idle_until(self, now: int) -> None:
        """Let time pass with no transfer under way; refresh goes on."""
        require(not self._tags, "transfers under way", "none", len(self._tags))
        self.advance(now)

    def counters(self, channel: int) -> DramCounters:
        """Return what `channel` did up to now."""
        own = self._s[:, at.LEADER] == np.arange(self.cfg.channels)
        if (self._s[own, at.NEXT] < self.now).any():
            at.catch_up(*self._arrays, self._trace, self.now)
        state = self._s[self._s[channel, at.LEADER]].copy()
        state[at.ACTIVATES : at.STATE] += self._credit[channel]
        for rank in ranks_of(self._k, state):
            if rank[at.OPEN]:
                state[at.ACTIVE] += self.now - rank[at.OPEN_SINCE]
            state[at.ACTIVE] -= max(0, rank[at.REFRESH_END] - self.now)
        cycles = int(state[at.DATA_END])
        if state[at.COUNT] == 0 and cycles < self.now:
            state[at.IDLE] += self.now - cycles
            cycles = self.now
        precharged = self.now * self.cfg.ranks - int(state[at.ACTIVE])
        return DramCounters(*[*state[at.ACTIVATES : at.STATE].tolist(), precharged, cycles])

    def total(self) -> DramCounters:
        """Return the sum over all channels."""
        each = [self.counters(channel) for channel in range(self.cfg.channels)]
        return DramCounters(*(sum(getattr(c, f.name) for c in each) for f in fields(DramCounters)))

    def energy(self) -> DramEnergy:
        """Return the energy of all channels up to now, by the currents of the machine."""
        count, cfg = self.total(), self.cfg
        active = _times(count.active_rank_cycles, cfg.active_standby_pj_per_cycle)
        closed = _times(count.precharged_rank_cycles, cfg.precharge_standby_pj_per_cycle)
        return DramEnergy(
            activate_pj=_times(count.activates, cfg.activate_pj),
            read_pj=_times(count.reads, cfg.read_pj),
            write_pj=_times(count.writes, cfg.write_pj),
            refresh_pj=_times(count.refreshes, cfg.refresh_pj),
            standby_pj=None if active is None or closed is None else active + closed,
        )

    @property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return self._k, self._s, self._moves, self._listed, self._started

    def _check_span(self, low: int, high: int) -> None:
        size = self.cfg.capacity_bytes
        require(low >= 0, "address_bytes", "at least 0", low)
        require(high <= size, "end of the transfer", f"at most {size}, the memory's size", high)

    def _launch(self, tag: int, port: int, move: tuple[int, ...], now: int, equal: bool) -> None:
        """Put a transfer under way; `equal` says that all channels get the same share of it."""
        require(now >= self.now, "now", f"at least {self.now}, the memory's time", now)
        require(0 <= port < self._k[at.PORTS], "port", f"from 0 to {self._k[at.PORTS] - 1}", port)
        row = port * DEPTH + int(self._started[port]) % DEPTH
        require(row not in self._tags, "transfers of a port", f"fewer than {DEPTH}", DEPTH)
        self._moves[row, : len(move)], self._moves[row, at.M_SINCE] = move, now
        self._soonest = int(at.launch(*self._arrays, self._credit, port, self.now, equal))
        self._tags[row] = tag

    def _take_done(self) -> list[Completion]:
        """Take off the list what is done by now."""
        done = []
        for row in self._done[: at.take_done(self._moves, self._done, self.now)].tolist():
            first, last = self._moves[row, [at.M_FIRST, at.M_LAST]].tolist()
            done.append(Completion(self._tags.pop(row), first, last))
        return done

    def _fetch_trace(self) -> bool:
        """Move recorded commands into `trace`; return whether the buffer was full."""
        used, cfg = int(self._trace[0, 0]), self.cfg
        for cycle, channel, command, bank, row, column in self._trace[1 : used + 1].tolist():
            group, inner = divmod(bank, cfg.banks_per_group)
            rank, group = divmod(group, cfg.bank_groups)
            name = COMMANDS[command]
            if name in ("PREA", "REF"):
                group = inner = -1
            self.trace.append(Command(cycle, channel, name, rank, group, inner, row, column))
        self._trace[0, 0] = 0
        return used == len(self._trace) - 1


def _times(count: int, each: float | None) -> float | None:
    return None if each is None else count * each
