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
def run(k: Flat, x: Flat, r: Flat, done: Flat, until: int) -> bool:
    """Serve a run up to cycle `until`, before which no refresh is due; return whether it did.

    It ends before a request that has to wait for its row or goes the other way, and when the queue
    is empty.
    """
    first = _first(k, x)
    if first < 0:
        return False
    kind = at.WR if x[at.WRITING] else at.RD
    steps = at.WRITE_STEPS if x[at.WRITING] else at.READ_STEPS
    room = k[at.WRITE_ROOM] if x[at.WRITING] else k[at.READ_ROOM]
    data = k[at.WRITE_DATA] if x[at.WRITING] else k[at.READ_DATA]
    in_group, in_rank, in_channel, elsewhere = k[steps], k[steps + 1], k[steps + 2], k[steps + 3]
    rank_bits, group_bits, ranks = k[at.RANK_BITS], k[at.GROUP_BITS], k[at.RANKS]
    places, timers = k[at.AT_BANK], k[at.AT_TIMER] + kind
    groups = timers + k[at.BANKS] * at.KINDS
    of_ranks = groups + k[at.GROUPS] * at.KINDS
    whole = of_ranks + ranks * at.KINDS
    requests, head, tail, tried = x[at.REQUESTS], first, x[at.NEXT], x[at.TRIED]
    apart = first  # the youngest that waits in another group than the one before it
    for i in range(first + 1, tail):
        if r[i * Q_WIDTH + Q_BANK] >> group_bits != r[(i - 1) * Q_WIDTH + Q_BANK] >> group_bits:
            apart = i
    for bank in range(k[at.BANKS]):
        x[places + bank * at.B_WIDTH + at.B_RUN] = -1
    # What all must wait for; of one rank, its timer is among it.
    one_rank, shared = ranks == 1, max(x[whole], max(x[at.NOW], x[at.COLUMN_BUS]))
    if one_rank:
        shared, in_channel = max(shared, x[of_ranks]), max(in_channel, in_rank)
    step, last, behind = max(in_channel, 1), -1, r[(tail - 1) * Q_WIDTH + Q_BANK] >> group_bits
    while head < tail:
        bank = r[head * Q_WIDTH + Q_BANK]
        of_group, of_rank = groups + (bank >> group_bits) * at.KINDS, bank >> rank_bits
        cycle = max(shared, x[of_group])
        if not one_rank:
            cycle = max(cycle, x[of_ranks + of_rank * at.KINDS])
        # Sooner than the oldest is none: none may be, or none that is not of its group.
        if cycle >= until or x[timers + bank * at.KINDS] > cycle or (
            cycle > shared and apart > head
        ):  # fmt: skip
            break
        # What comes up to then: it must hit too, and go the same way.
        other = False
        while tail < requests:
            i = tail * Q_WIDTH
            turns = r[i + Q_KIND] != kind
            comes = max(tried + 1, r[i + Q_SINCE])
            if comes > cycle or (tail - head >= room and not turns):
                break
            if turns or x[places + r[i + Q_BANK] * at.B_WIDTH + at.B_ROW] != r[i + Q_ROW]:
                other = True
                break
            group = r[i + Q_BANK] >> group_bits
            if group != behind:
                apart = tail
            tail, tried, behind = tail + 1, comes, group
            if cycle > shared and apart > head:  # it may be sooner
                other = True
                break
        if other:
            break
        done[head] = cycle + data
        x[places + bank * at.B_WIDTH + at.B_RUN] = cycle
        last = tried = cycle
        shared = cycle + step
        x[of_group] = max(x[of_group], cycle + in_group)
        if not one_rank:
            for rank in range(ranks):
                place = of_ranks + rank * at.KINDS
                x[place] = max(x[place], cycle + (in_rank if rank == of_rank else elsewhere))
        head += 1
    served = head - first
    x[at.PAUSE] = 0 if served >= SHORT else REST
    if served == 0 and tail == x[at.NEXT]:
        return False
    if served > 0:
        x[at.COLUMN_BUS] = last + 1
        if k[at.SHARED_BUS]:
            x[at.ROW_BUS] = last + 1
        x[at.ROW_HITS] += served
        x[at.WRITES if kind == at.WR else at.READS] += served
        x[at.DATA_END] = max(x[at.DATA_END], last + data)
        for bank in range(k[at.BANKS]):
            if x[places + bank * at.B_WIDTH + at.B_RUN] >= 0:
                set_timers(k, x, kind, bank, x[places + bank * at.B_WIDTH + at.B_RUN])
    x[at.NOW] = x[at.TRIED] = tried
    x[at.NEXT] = tail
    _refill(k, x, r, head, tail)
    return True
