"""The channels of memory that computes in a run: the host's bursts and PIM's entries together.

A channel depends on another only through the program: an effect that it brings about is seen at
least ``least_cycles`` after its command. So no channel goes further ahead of the others than that,
and none past an effect that the program has not seen yet.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from archsim.pim import NEVER, HostRequest, PimChannel
from archsim.pim_expand import Macro
from machine.dram import DramConfig
from machine.errors import UserError
from machine.pim import PimConfig

__all__ = ["Effect", "PimMemory"]

Effect = tuple[int, int]  # the cycle in which it is seen, and whose it is
STUCK_REFRESHES = 64  # a channel that does nothing else for so long never will


@dataclass(slots=True)
class _Pending:
    """What is under way for one tag: commands still to come, and when the last effect is seen."""

    left: int
    last: int


class _Lane:
    """A channel, and whose its requests and entries are."""

    def __init__(self, channel: PimChannel) -> None:
        self.channel = channel
        self.unserved: dict[int, int] = {}  # whose each request is
        self.of_op: dict[int, int] = {}
        self.staged: dict[int, list[int]] = {}  # by request: how many are left, and the entry
        self.results: int = 0  # when the last result asked for is there, if that is known
        self.waits: dict[int, list[int]] = {}  # by entry: who waits for the results up to it


class PimMemory:
    """The channels of all `chips`; time is the memory's cycles. Ports are those of `PimChannel`.

    What ends is told by the tag it was started with.
    """

    def __init__(self, dram: DramConfig, pim: PimConfig, *, chips: int, ports: int) -> None:
        self.dram, self.pim = dram, pim
        self._lanes = [[_Lane(PimChannel(dram, pim, ports=ports)) for _ in range(dram.channels)]
                       for _ in range(chips)]
        self._busy: dict[int, _Lane] = {}
        self._pending: dict[int, _Pending] = {}
        self._known: list[Effect] = []  # a heap
        effects = [pim.effect_cycles(dram, name, 1)
                   for name in ("GACT", "PIMPRE", "GWRITE", "GEMV", "READRES")]
        self.least_cycles = min([*effects, self._seen(write=False), self._seen(write=True)])

    def channels(self, chip: int) -> list[PimChannel]:
        """Return the channels of one chip."""
        return [lane.channel for lane in self._lanes[chip]]

    @property
    def under_way(self) -> bool:
        """Whether something has been started whose effect was not told yet."""
        return bool(self._pending or self._known)

    def soonest(self) -> int:
        """Return a cycle before which no effect is seen; NEVER without any to come."""
        known = self._known[0][0] if self._known else NEVER
        times = [lane.channel.now for lane in self._busy.values()]
        return min(known, min(times) + self.least_cycles if times else NEVER)

    def transfer(self, chip: int, tag: int, port: int, *, write: bool,
                 pieces: Iterable[tuple[int, int]], now: int) -> None:
        """Move the bursts that each of `pieces` (first byte, bytes) touches, from cycle `now`."""
        size = self.dram.burst_bytes
        bursts = [np.arange(low // size, -(-(low + count) // size)) for low, count in pieces]
        burst = np.concatenate(bursts)
        at = {name: (burst >> low & ((1 << bits) - 1)).tolist()
              for name, (low, bits) in self.dram.fields.items()}
        self._pending[tag] = _Pending(len(burst), now)
        d = self.dram
        for ch, ra, bg, ba, ro, co in zip(*(at[n] for n in ("ch", "ra", "bg", "ba", "ro", "co")),
                                          strict=True):
            bank = (ra * d.bank_groups + bg) * d.banks_per_group + ba
            lane = self._at(chip, ch, now)
            lane.unserved[lane.channel.ask(HostRequest(now, write, bank, ro, co), port)] = tag

    def macro(self, chip: int, tag: int, port: int, macro: Macro, now: int) -> None:
        """Put what an instruction of the PIM queue asks into its channels, from cycle `now`."""
        pending = self._pending[tag] = _Pending(0, now)
        bursts = -(-macro.staged_bytes // self.dram.burst_bytes)
        for number, ops in macro.ops.items():
            if not ops and not macro.reads_latch:
                continue
            lane = self._at(chip, number, now)
            channel = lane.channel
            if macro.reads_latch:
                self._wait_for_results(lane, tag, pending)
                continue
            last = [channel.offer(op, NEVER if bursts else now) for op in ops][-1]
            lane.of_op[last] = tag
            pending.left += 1
            left = [bursts, last]
            for column in range(bursts):
                request = HostRequest(now, True, macro.slot, self.dram.rows - 1, column)
                asked = channel.ask(request, port)
                lane.staged[asked], lane.unserved[asked] = left, tag
        if pending.left == 0:
            self._end(tag)

    def _wait_for_results(self, lane: _Lane, tag: int, pending: _Pending) -> None:
        """Let `tag` wait for all results asked for in front of it."""
        asked = [n for n in range(len(lane.channel.ops_done), len(lane.channel.ops))
                 if lane.channel.ops[n].kind in ("GEMV", "READRES")]
        if asked:
            lane.waits.setdefault(asked[-1], []).append(tag)
            pending.left += 1
        pending.last = max(pending.last, lane.results)

    def advance(self, until: int) -> list[Effect]:
        """Go on to `until`, or to the first effect if that is earlier; return those seen then."""
        while True:
            limit = min(until, self._known[0][0] if self._known else NEVER)
            behind = sorted((lane.channel.now, key) for key, lane in self._busy.items()
                            if lane.channel.now < limit)
            if not behind:
                break
            if len(behind) > 1:
                limit = min(limit, behind[1][0] + self.least_cycles)
            self._move(behind[0][1], self._busy[behind[0][1]], limit)
        seen: list[Effect] = []
        while self._known and self._known[0][0] <= until:
            if seen and self._known[0][0] > seen[0][0]:
                break
            seen.append(heapq.heappop(self._known))
        assert seen or until < NEVER or not self._pending, "something is under way in no channel"
        return seen

    def finish(self, now: int) -> None:
        """Let all channels reach cycle `now` with nothing under way; refresh goes on."""
        for lanes in self._lanes:
            for lane in lanes:
                while lane.channel.now < now:
                    lane.channel.advance(now)

    def _at(self, chip: int, number: int, now: int) -> _Lane:
        """Return a channel that has come to cycle `now` and is asked for something."""
        lane, key = self._lanes[chip][number], chip * self.dram.channels + number
        while lane.channel.now < now:
            self._move(key, lane, now)
        self._busy[key] = lane
        return lane

    def _seen(self, *, write: bool) -> int:
        """Return the cycles from a column command to the end of its data."""
        t = self.dram.timing
        return (t.cwl_cycles if write else t.cl_cycles) + self.dram.burst_cycles

    def _move(self, key: int, lane: _Lane, limit: int) -> None:
        """Advance one channel to `limit`, or past the next request or entry that ends."""
        channel, ops = lane.channel, len(lane.channel.ops_done)
        stuck = channel.now + STUCK_REFRESHES * self.dram.timing.refi_cycles
        ended = channel.advance(min(limit, stuck))
        if not ended and channel.now >= stuck and not channel.served:
            raise self._stuck(key)
        if not ended:
            return
        if len(channel.ops_done) > ops:
            self._op_ended(lane, ops)
        if channel.last_served in lane.unserved:
            self._request_ended(lane, channel.last_served)
        if channel.served:
            self._busy.pop(key, None)

    def _op_ended(self, lane: _Lane, number: int) -> None:
        op, cycle = lane.channel.ops[number], lane.channel.ops_done[number]
        seen = cycle + self.pim.effect_cycles(self.dram, op.kind, op.dots)
        if op.kind in ("GEMV", "READRES"):
            lane.results = seen
            for tag in lane.waits.pop(number, []):
                self._came(tag, lane.results)
        if number in lane.of_op:
            self._came(lane.of_op.pop(number), seen)

    def _request_ended(self, lane: _Lane, number: int) -> None:
        tag, cycle = lane.unserved.pop(number), lane.channel.host_done[number]
        seen = cycle + self._seen(write=lane.channel.requests[number].write)
        left = lane.staged.pop(number, None)
        if left is not None:
            left[0] -= 1
            if left[0] == 0:
                lane.channel.release(left[1], seen)
            return
        self._came(tag, seen)

    def _came(self, tag: int, cycle: int) -> None:
        pending = self._pending[tag]
        pending.left, pending.last = pending.left - 1, max(pending.last, cycle)
        if pending.left == 0:
            self._end(tag)

    def _end(self, tag: int) -> None:
        heapq.heappush(self._known, (self._pending.pop(tag).last, tag))

    def _stuck(self, key: int) -> UserError:
        chip, number = divmod(key, self.dram.channels)
        channel = self._busy[key].channel
        waits: Sequence[str] = [str(op) for op in channel.ops[len(channel.ops_done):][:1]]
        return UserError(
            f"program must not deadlock: channel {number} of chip {chip} serves nothing more from "
            f"cycle {channel.now} on; first of its PIM queue: {', '.join(waits) or 'nothing'}, "
            f"requests of the host: {len(channel.requests) - channel.host_done.count(-1)} of "
            f"{len(channel.requests)} served")
