"""The compiled loop of a DRAM channel with a read and a write queue, first ready first come.

It runs as plain Python with ``NUMBA_DISABLE_JIT=1``. Time jumps from one cycle in which a command
or a request moves to the next; which those are is decided anew in each, from the timers alone.
"""

from archsim.dram import queue_device as at
from archsim.dram.queue_device import issue, ready
from archsim.dram.queue_pick import (
    CLAIMED,
    HIT,
    OPEN,
    Q_BANK,
    Q_COLUMN,
    Q_KIND,
    Q_ROW,
    Q_SINCE,
    Q_WIDTH,
    best,
    follow,
    forget,
    put,
    refile,
    sort_bank,
    take,
    wait_in_bank,
)  # fmt: skip
from archsim.dram.queue_run import run
from archsim.engine.compiled import Flat, compiled, entry

__all__ = ["advance"]

EACH = at.B_FIRST_WR - at.B_FIRST


@compiled
def _arrival(k: Flat, x: Flat, r: Flat) -> int:
    """Return when the next request may come if nothing leaves its queue before; NEVER if not."""
    i = x[at.NEXT]
    if i == x[at.REQUESTS]:
        return at.NEVER
    if r[i * Q_WIDTH + Q_KIND] == at.WR:
        full = x[at.WRITES_IN] == k[at.WRITE_ROOM]
    else:
        full = x[at.READS_IN] == k[at.READ_ROOM]
    if full:
        return at.NEVER
    return max(x[at.TRIED] + 1, max(r[i * Q_WIDTH + Q_SINCE], x[at.NOW]))


@compiled
def _accept(k: Flat, x: Flat, r: Flat, done: Flat) -> None:
    """Let the next request in.

    A read of what a queued write is about to write is served by the queue in the next cycle.
    """
    i = x[at.NEXT]
    x[at.NEXT] += 1
    writes = r[i * Q_WIDTH + Q_KIND] == at.WR
    if not writes and x[at.WRITES_IN] > 0 and wait_in_bank(k, x, r, i):
        done[i] = x[at.NOW] + 1
        x[at.FORWARDED] += 1
        return
    if put(k, x, r, i) and writes == (x[at.WRITING] == 1):
        refile(k, x, r, r[i * Q_WIDTH + Q_BANK])
        x[at.MOVED] = 1


@compiled
def _turn(k: Flat, x: Flat, r: Flat) -> None:
    """Change between reads and writes at the watermarks, or when the others are all that wait."""
    before = x[at.WRITING]
    if before == 0:
        if x[at.WRITES_IN] >= k[at.WRITE_HIGH] or x[at.READS_IN] == 0:
            x[at.WRITING] = 1
    elif x[at.WRITES_IN] <= k[at.WRITE_LOW] and x[at.READS_IN] > 0:
        x[at.WRITING] = 0
    if x[at.WRITING] != before:
        forget(x)
        for bank in range(k[at.BANKS]):
            refile(k, x, r, bank)


@compiled
def _offer(x: Flat, time: int, order: int, age: int, command: int, bank: int) -> None:
    if time != x[at.P_TIME]:
        if time > x[at.P_TIME]:
            return
    elif order > x[at.P_CLASS] or (order == x[at.P_CLASS] and age >= x[at.P_AGE]):
        return
    x[at.P_TIME], x[at.P_CLASS], x[at.P_AGE] = time, order, age
    x[at.P_COMMAND], x[at.P_BANK] = command, bank


@compiled
def _offer_best(k: Flat, x: Flat, r: Flat) -> None:
    """Offer what the requests whose row was opened for them need, then the other queued ones."""
    for way in range(at.WAYS):
        kept = at.KEPT + way * at.C_WIDTH
        if x[kept + at.C_STALE] == 0 and x[kept + at.C_TIME] > x[at.P_TIME]:
            continue  # what is kept may have to wait longer by now, not shorter
        if best(k, x, r, way):
            command = at.ACT if way == OPEN else at.PRE
            if way == CLAIMED:
                command = r[x[kept + at.C_AGE] * Q_WIDTH + Q_KIND]
            elif way == HIT:
                command = at.WR if x[at.WRITING] else at.RD
            _offer(x, x[kept + at.C_TIME], 0 if way == CLAIMED else 2, x[kept + at.C_AGE], command,
                   x[kept + at.C_BANK])  # fmt: skip


@compiled
def _see_ranks(k: Flat, x: Flat) -> int:
    """Note which ranks take no new work for a refresh: it is due and not to be postponed.

    Returns when the next one is due, past those due now.
    """
    if x[at.NOW] < x[at.SOON]:
        return x[at.SOON]
    next_due = soon = at.NEVER
    waiting = x[at.READS_IN] + x[at.WRITES_IN] + x[at.CLAIMED] > 0
    for number in range(k[at.RANKS]):
        rank = k[at.AT_RANK] + number * k[at.RANK_WIDTH]
        due, latest = x[rank + at.N_DUE], x[rank + at.N_DUE] + k[at.POSTPONED] * k[at.REFI]
        blocked = x[at.NOW] >= due and (not waiting or x[at.NOW] >= latest)
        if x[rank + at.N_BLOCKED] != blocked:
            x[rank + at.N_BLOCKED] = 1 if blocked else 0
            forget(x)
        if not blocked:
            next_due = min(next_due, due if due > x[at.NOW] else latest)
        soon = min(soon, due)
    x[at.SOON] = soon
    return next_due


@compiled
def _offer_refresh(k: Flat, x: Flat) -> None:
    """Offer what refreshes of ranks that take no new work need, when their claims are served."""
    if x[at.NOW] < x[at.SOON]:
        return
    for number in range(k[at.RANKS]):
        rank = k[at.AT_RANK] + number * k[at.RANK_WIDTH]
        if x[rank + at.N_BLOCKED] and x[rank + at.N_CLAIMS] == 0:
            command = at.PREA if x[rank + at.N_OPEN] > 0 else at.REF
            bank = number << k[at.RANK_BITS]
            time = max(x[at.NOW], ready(k, x, command, bank))
            _offer(x, time, 1, number, command, bank)


@compiled
def _close_unwanted(k: Flat, x: Flat) -> None:
    """Offer to close the open rows that no queued request wants."""
    for bank in range(k[at.BANKS]):
        place = k[at.AT_BANK] + bank * at.B_WIDTH
        if x[place + at.B_ROW] >= 0 and x[place + at.B_CLAIM] < 0 and (
            x[place + at.B_HIT] < 0 and x[place + at.B_HIT_WR] < 0
        ):  # fmt: skip
            _offer(x, max(x[at.NOW], ready(k, x, at.PRE, bank)), 3, bank, at.PRE, bank)


@compiled
def _choose(k: Flat, x: Flat, r: Flat) -> None:
    """Find the command that is legal first, of equals of the first class, of those the oldest."""
    x[at.P_TIME], x[at.P_CLASS], x[at.P_AGE] = at.NEVER, at.KINDS, at.NEVER
    _offer_best(k, x, r)
    _offer_refresh(k, x)
    if k[at.CLOSED_PAGE]:
        _close_unwanted(k, x)
    x[at.MOVED] = 0


@compiled
def _settle(k: Flat, x: Flat, r: Flat, command: int, bank: int, claimed: bool) -> None:
    """Bring in order what `command` changed for the queues' banks."""
    x[at.MOVED] = 1
    if command == at.PREA:
        for other in range(bank, bank + (1 << k[at.RANK_BITS])):
            sort_bank(k, x, other)
            refile(k, x, r, other)
    elif command == at.REF:
        x[at.SOON] = 0
    else:
        follow(k, x, r, command, bank, claimed)


@compiled
def _act(k: Flat, x: Flat, r: Flat, done: Flat, t: Flat) -> None:
    """Issue what was chosen, and move its request on."""
    command, bank, now, i = x[at.P_COMMAND], x[at.P_BANK], x[at.P_TIME], x[at.P_AGE]
    place = k[at.AT_BANK] + bank * at.B_WIDTH
    rank = k[at.AT_RANK] + (bank >> k[at.RANK_BITS]) * k[at.RANK_WIDTH]
    row = column = -1
    if command == at.ACT or command >= at.RD:
        row = r[i * Q_WIDTH + Q_ROW]
        column = r[i * Q_WIDTH + Q_COLUMN] if command >= at.RD else -1
    issue(k, x, command, bank, row, now)
    each = EACH * x[at.WRITING]
    if command >= at.RD:
        done[i] = now + (k[at.READ_DATA] if command == at.RD else k[at.WRITE_DATA])
        if x[at.P_CLASS] == 0:
            x[place + at.B_CLAIM] = -1
            x[at.CLAIMED] -= 1
            x[rank + at.N_CLAIMS] -= 1
        else:
            x[at.ROW_HITS] += 1
            take(k, x, x[place + at.B_HIT + each], x[at.WRITING] == 1)
    elif command == at.ACT:
        take(k, x, x[place + at.B_MISS + each], x[at.WRITING] == 1)
        x[place + at.B_CLAIM] = i
        x[at.CLAIMED] += 1
        x[rank + at.N_CLAIMS] += 1
    _settle(k, x, r, command, bank, x[at.P_CLASS] == 0)
    if x[at.ROOM] > 0:
        at_ = x[at.RECORDED] * at.T_WIDTH
        t[at_], t[at_ + 1], t[at_ + 2], t[at_ + 3] = now, 0, command, bank
        t[at_ + 4], t[at_ + 5] = row, column
        x[at.RECORDED] += 1


@compiled
def _event(k: Flat, x: Flat, r: Flat, done: Flat, t: Flat, until: int) -> bool:
    """Do what happens now, or the next command if nothing else comes before, or go on in time.

    Returns whether all is done.
    """
    if _arrival(k, x, r) == x[at.NOW]:
        _accept(k, x, r, done)
    x[at.TRIED] = x[at.NOW]  # a place that frees in a cycle is taken in the next
    waiting = x[at.READS_IN] + x[at.WRITES_IN] + x[at.CLAIMED]
    if until == at.NEVER and x[at.NEXT] == x[at.REQUESTS] and waiting == 0:
        return True
    _turn(k, x, r)
    due = _see_ranks(k, x)
    quiet = x[at.NOW] < x[at.SOON] and k[at.CLOSED_PAGE] == 0
    if x[at.MOVED] or not quiet:  # else what was chosen before is still the first
        if x[at.PAUSE] > 0:
            x[at.PAUSE] -= 1
        elif quiet and x[at.ROOM] == 0 and run(k, x, r, done, min(until, due)):
            return False
        _choose(k, x, r)
    event = min(min(_arrival(k, x, r), due), until)
    if x[at.P_TIME] == x[at.NOW] or x[at.P_TIME] < event:
        x[at.NOW] = x[at.TRIED] = x[at.P_TIME]  # nothing else happens before
        _act(k, x, r, done, t)
    else:
        x[at.NOW] = min(x[at.P_TIME], event)
    return False


@entry
def advance(k: Flat, x: Flat, r: Flat, done: Flat, t: Flat, until: int) -> bool:
    """Go on to cycle `until`, or until all requests are served if that is NEVER.

    Returns whether a full `trace` stopped it before.
    """
    forget(x)  # rows may have been opened by hand
    while x[at.NOW] < until:
        if x[at.ROOM] > 0 and x[at.RECORDED] == x[at.ROOM]:
            return True
        if _event(k, x, r, done, t, until):
            break
    return False
