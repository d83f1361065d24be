"""Runs of row hits in order, compiled: no choice is to be made, so none is.

All that waits hits open rows and goes in one direction, and the oldest may go as soon as the data
bus allows any. Each command is issued at its own cycle; only rules between column commands of the
run are kept at once, the others follow when it ends. Nothing else changes.
"""

from archsim.dram import queue_device as at
from archsim.dram.queue_device import set_timers
from archsim.dram.queue_pick import (
    CLAIMED,
    CLOSE,
    OPEN,
    Q_BANK,
    Q_KIND,
    Q_ROW,
    Q_SINCE,
    Q_WIDTH,
    S_AGE,
    empty,
    forget,
    put,
    refile,
    sort_bank,
)  # fmt: skip
from archsim.engine.compiled import Flat, compiled

__all__ = ["run"]

SHORT, REST = 16, 64  # after a run of fewer commands, so many events pass before the next try


@compiled
def _first(k: Flat, x: Flat) -> int:
    """Return the oldest request if all that wait hit and go one way, none left out; or -1."""
    others = x[at.READS_IN] if x[at.WRITING] else x[at.WRITES_IN]
    sizes = x[at.KEPT + CLAIMED * at.C_WIDTH] + x[at.KEPT + OPEN * at.C_WIDTH]
    if others + sizes + x[at.KEPT + CLOSE * at.C_WIDTH] > 0:
        return -1
    oldest, each = at.NEVER, at.B_FIRST_WR - at.B_FIRST
    for bank in range(k[at.BANKS]):
        slot = x[k[at.AT_BANK] + bank * at.B_WIDTH + at.B_FIRST + each * x[at.WRITING]]
        if slot >= 0:
            oldest = min(oldest, x[slot + S_AGE])
    count = x[at.READS_IN] + x[at.WRITES_IN]
    return oldest if count == x[at.NEXT] - oldest else -1


@compiled
def _refill(k: Flat, x: Flat, r: Flat, first: int, end: int) -> None:
    """Let requests `first` to `end` be what waits."""
    empty(k, x)
    for i in range(first, end):
        put(k, x, r, i)
    for bank in range(k[at.BANKS]):
        sort_bank(k, x, bank)
        refile(k, x, r, bank)
    forget(x)


@compiled
def _begin(k: Flat, x: Flat, r: Flat, first: int) -> None:
    """Note what a run from request `first` on starts with.

    ``U_APART`` is the youngest that waits in another group than the one before it, ``U_SHARED``
    what all must wait for; of one rank, its timer is among it.
    """
    bits, end = k[at.GROUP_BITS], x[at.NEXT] * Q_WIDTH
    x[at.U_HEAD], x[at.U_LAST], x[at.U_APART] = first, -1, first
    for i in range((first + 1) * Q_WIDTH, end, Q_WIDTH):
        if r[i + Q_BANK] >> bits != r[i - Q_WIDTH + Q_BANK] >> bits:
            x[at.U_APART] = i // Q_WIDTH
    x[at.U_BEHIND] = r[end - Q_WIDTH + Q_BANK] >> bits
    for bank in range(k[at.BANKS]):
        x[k[at.AT_BANK] + bank * at.B_WIDTH + at.B_RUN] = -1
    ranks = k[at.AT_TIMER] + (k[at.BANKS] + k[at.GROUPS]) * at.KINDS
    ranks += at.WR if x[at.WRITING] else at.RD
    x[at.U_SHARED] = max(x[ranks + k[at.RANKS] * at.KINDS], max(x[at.NOW], x[at.COLUMN_BUS]))
    if k[at.RANKS] == 1:
        x[at.U_SHARED] = max(x[at.U_SHARED], x[ranks])


@compiled
def _come(k: Flat, x: Flat, r: Flat, kind: int, room: int, cycle: int) -> bool:
    """Let in what comes up to `cycle`, in which the oldest goes; return whether that ends the run.

    It does if one does not hit, goes the other way, or may be sooner than the oldest.
    """
    tail, tried = x[at.NEXT], x[at.TRIED]
    ends, places = False, k[at.AT_BANK] + at.B_ROW
    while tail < x[at.REQUESTS] and not ends:
        i = tail * Q_WIDTH
        turns = r[i + Q_KIND] != kind
        comes = max(tried + 1, r[i + Q_SINCE])
        if comes > cycle or (tail - x[at.U_HEAD] >= room and not turns):
            break
        ends = turns or x[places + r[i + Q_BANK] * at.B_WIDTH] != r[i + Q_ROW]
        if not ends:
            group = r[i + Q_BANK] >> k[at.GROUP_BITS]
            if group != x[at.U_BEHIND]:
                x[at.U_APART], x[at.U_BEHIND] = tail, group
            tail, tried = tail + 1, comes
            ends = cycle > x[at.U_SHARED] and x[at.U_APART] > x[at.U_HEAD]
    x[at.NEXT], x[at.TRIED] = tail, tried
    return ends


@compiled
def _space_ranks(k: Flat, x: Flat, steps: int, timers: int, rank: int, cycle: int) -> None:
    """Make the ranks wait for each other after a column command to one of them."""
    for other in range(k[at.RANKS]):
        gap = k[steps + 1] if other == rank else k[steps + 3]
        place = timers + other * at.KINDS
        x[place] = max(x[place], cycle + gap)


@compiled
def _serve_hits(k: Flat, x: Flat, r: Flat, done: Flat, until: int) -> None:
    """Serve the oldest, and again, as long as none is to be chosen."""
    kind, steps, room, data = at.RD, at.READ_STEPS, k[at.READ_ROOM], k[at.READ_DATA]
    if x[at.WRITING]:
        kind, steps, room, data = at.WR, at.WRITE_STEPS, k[at.WRITE_ROOM], k[at.WRITE_DATA]
    in_group, step, one_rank = k[steps], max(k[steps + 2], 1), k[at.RANKS] == 1
    if one_rank:
        step = max(step, k[steps + 1])
    group_bits, places, timers = k[at.GROUP_BITS], k[at.AT_BANK] + at.B_RUN, k[at.AT_TIMER] + kind
    groups = timers + k[at.BANKS] * at.KINDS
    ranks, head = groups + k[at.GROUPS] * at.KINDS, x[at.U_HEAD]
    while head < x[at.NEXT]:
        bank = r[head * Q_WIDTH + Q_BANK]
        of_group, rank = groups + (bank >> group_bits) * at.KINDS, bank >> k[at.RANK_BITS]
        cycle = max(x[at.U_SHARED], x[of_group])
        if not one_rank:
            cycle = max(cycle, x[ranks + rank * at.KINDS])
        # Sooner than the oldest is none: none may be, or none that is not of its group.
        if cycle >= until or x[timers + bank * at.KINDS] > cycle or (
            cycle > x[at.U_SHARED] and x[at.U_APART] > head
        ):  # fmt: skip
            break
        if _come(k, x, r, kind, room, cycle):
            break
        done[head] = cycle + data
        x[places + bank * at.B_WIDTH] = cycle
        x[at.U_LAST] = x[at.TRIED] = cycle
        x[at.U_SHARED] = cycle + step
        x[of_group] = max(x[of_group], cycle + in_group)
        if not one_rank:
            _space_ranks(k, x, steps, ranks, rank, cycle)
        head += 1
        x[at.U_HEAD] = head


@compiled
def run(k: Flat, x: Flat, r: Flat, done: Flat, until: int) -> bool:
    """Serve a run up to cycle `until`, before which no refresh is due; return whether it did.

    It ends before a request that has to wait for its row or goes the other way, and when the queue
    is empty.
    """
    first, end = _first(k, x), x[at.NEXT]
    if first < 0:
        return False
    _begin(k, x, r, first)
    _serve_hits(k, x, r, done, until)
    served, last = x[at.U_HEAD] - first, x[at.U_LAST]
    x[at.PAUSE] = 0 if served >= SHORT else REST
    if served == 0 and x[at.NEXT] == end:
        return False
    if served > 0:
        kind = at.WR if x[at.WRITING] else at.RD
        x[at.COLUMN_BUS] = last + 1
        if k[at.SHARED_BUS]:
            x[at.ROW_BUS] = last + 1
        x[at.ROW_HITS] += served
        x[at.WRITES if kind == at.WR else at.READS] += served
        data = k[at.WRITE_DATA] if kind == at.WR else k[at.READ_DATA]
        x[at.DATA_END] = max(x[at.DATA_END], last + data)
        for bank in range(k[at.BANKS]):
            cycle = x[k[at.AT_BANK] + bank * at.B_WIDTH + at.B_RUN]
            if cycle >= 0:
                set_timers(k, x, kind, bank, cycle)
    x[at.NOW] = x[at.TRIED]
    _refill(k, x, r, x[at.U_HEAD], x[at.NEXT])
    return True
