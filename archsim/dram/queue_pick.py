"""What waits in a channel's queues, compiled: by bank, with the best command of each kind kept.

A bank is in up to three ways to be served at once; the best of each way is kept until its time
changes. Others' times only grow, so it stays the best till then.
"""

from archsim.dram import queue_device as at
from archsim.dram.queue_device import ready, timer
from archsim.engine.compiled import Flat, compiled

__all__ = ["best", "empty", "follow", "forget", "put", "refile", "sort_bank", "take",
           "wait_in_bank"]

# Ways to be served: the column command of the request a row was opened for, of another that hits;
# the ACT and the PRE for the oldest request that does not.
CLAIMED, HIT, OPEN, CLOSE = range(at.WAYS)
S_AGE, S_ROW, S_COLUMN, S_BANK, S_BEFORE, S_NEXT, S_WIDTH = range(7)  # a place in a queue
EACH = at.B_FIRST_WR - at.B_FIRST  # between a bank's fields for reads and those for writes
# The fields of `r`, a request.
Q_KIND, Q_BANK, Q_ROW, Q_COLUMN, Q_SINCE, Q_WIDTH = range(6)


@compiled
def _time(k: Flat, x: Flat, r: Flat, way: int, bank: int) -> int:
    """Return when the command of `bank` in this way may go; NEVER while its rank is to refresh."""
    place = k[at.AT_BANK] + bank * at.B_WIDTH
    if way == CLAIMED:
        kind = r[x[place + at.B_CLAIM] * Q_WIDTH + Q_KIND]
        return max(x[at.NOW], max(x[at.COLUMN_BUS], timer(k, x, kind, bank)))
    rank = k[at.AT_RANK] + (bank >> k[at.RANK_BITS]) * k[at.RANK_WIDTH]
    if x[rank + at.N_BLOCKED]:
        return at.NEVER
    if way == HIT:
        kind = at.WR if x[at.WRITING] else at.RD
        return max(x[at.NOW], max(x[at.COLUMN_BUS], timer(k, x, kind, bank)))
    return max(x[at.NOW], ready(k, x, at.ACT if way == OPEN else at.PRE, bank))


@compiled
def _age(x: Flat, way: int, place: int) -> int:
    """Return the request that the bank at `place` would serve in this way."""
    if way == CLAIMED:
        return x[place + at.B_CLAIM]
    field = at.B_HIT if way == HIT else at.B_MISS
    return x[x[place + field + EACH * x[at.WRITING]] + S_AGE]


@compiled
def _consider(k: Flat, x: Flat, r: Flat, way: int, bank: int) -> None:
    """Keep `bank` as the best of this way if it is."""
    kept = at.KEPT + way * at.C_WIDTH
    time = _time(k, x, r, way, bank)
    if time > x[kept + at.C_TIME]:
        return
    age = _age(x, way, k[at.AT_BANK] + bank * at.B_WIDTH)
    if time < x[kept + at.C_TIME] or age < x[kept + at.C_AGE]:
        x[kept + at.C_TIME], x[kept + at.C_AGE], x[kept + at.C_BANK] = time, age, bank


@compiled
def best(k: Flat, x: Flat, r: Flat, way: int) -> bool:
    """Find the best bank of this way, by time and then age; return whether there is one."""
    kept = at.KEPT + way * at.C_WIDTH
    if x[kept + at.C_SIZE] == 0:
        return False
    if x[kept + at.C_STALE] == 0 and x[kept + at.C_BANK] >= 0:
        if _time(k, x, r, way, x[kept + at.C_BANK]) == x[kept + at.C_TIME]:
            return True
    x[kept + at.C_TIME], x[kept + at.C_AGE] = at.NEVER, at.NEVER
    x[kept + at.C_BANK], x[kept + at.C_STALE] = -1, 0
    first = k[at.AT_LIST] + way * k[at.BANKS]
    if way == CLAIMED:
        for n in range(first, first + x[kept + at.C_SIZE]):
            _consider(k, x, r, way, x[n])
    else:
        _look_through(k, x, way, first, first + x[kept + at.C_SIZE])
    return x[kept + at.C_TIME] < at.NEVER


@compiled
def _look_through(k: Flat, x: Flat, way: int, first: int, end: int) -> None:
    """As `_consider` for all banks of a way; what they share is looked up once."""
    command = at.ACT if way == OPEN else at.PRE
    if way == HIT:
        command = at.WR if x[at.WRITING] else at.RD
    timers, groups = k[at.AT_TIMER] + command, k[at.BANKS] * at.KINDS
    ranks = timers + groups + k[at.GROUPS] * at.KINDS
    for number in range(k[at.RANKS]):
        rank = k[at.AT_RANK] + number * k[at.RANK_WIDTH]
        wide = max(x[at.COLUMN_BUS] if way == HIT else x[at.ROW_BUS], x[at.NOW])
        wide = max(wide, max(x[ranks + number * at.KINDS], x[ranks + k[at.RANKS] * at.KINDS]))
        if way == OPEN:
            wide = max(wide, x[rank + at.N_ACTS + x[rank + at.N_HEAD]] + k[at.WINDOW_CYCLES])
        x[rank + at.N_WIDE] = at.NEVER if x[rank + at.N_BLOCKED] else wide
    best_time = best_age = at.NEVER
    best_bank = -1
    field = (at.B_HIT if way == HIT else at.B_MISS) + EACH * x[at.WRITING]
    for n in range(first, end):
        bank = x[n]
        time = max(x[timers + bank * at.KINDS],
                   x[timers + groups + (bank >> k[at.GROUP_BITS]) * at.KINDS])
        rank = k[at.AT_RANK] + (bank >> k[at.RANK_BITS]) * k[at.RANK_WIDTH]
        time = max(time, x[rank + at.N_WIDE])
        if time <= best_time and time < at.NEVER:
            age = x[x[k[at.AT_BANK] + bank * at.B_WIDTH + field] + S_AGE]
            if time < best_time or age < best_age:
                best_time, best_age, best_bank = time, age, bank
    kept = at.KEPT + way * at.C_WIDTH
    x[kept + at.C_TIME], x[kept + at.C_AGE], x[kept + at.C_BANK] = best_time, best_age, best_bank


@compiled
def forget(x: Flat) -> None:
    """Drop what is kept: a rank stops or starts to take new work, or the direction changes."""
    x[at.MOVED] = 1
    for way in range(at.WAYS):
        x[at.KEPT + way * at.C_WIDTH + at.C_STALE] = 1


@compiled
def _file(k: Flat, x: Flat, r: Flat, way: int, bank: int, wanted: bool) -> None:
    """Put `bank` among those of this way, or take it out; what it would serve may be another."""
    kept, first = at.KEPT + way * at.C_WIDTH, k[at.AT_LIST] + way * k[at.BANKS]
    mine = k[at.AT_BANK] + bank * at.B_WIDTH + at.B_PLACE + way
    if wanted:
        if x[mine] < 0:
            x[mine] = x[kept + at.C_SIZE]
            x[first + x[mine]] = bank
            x[kept + at.C_SIZE] += 1
        if x[kept + at.C_BANK] == bank:
            x[kept + at.C_STALE] = 1
        elif x[kept + at.C_STALE] == 0:
            _consider(k, x, r, way, bank)
    elif x[mine] >= 0:
        x[kept + at.C_SIZE] -= 1
        other = x[first + x[kept + at.C_SIZE]]
        x[first + x[mine]] = other
        x[k[at.AT_BANK] + other * at.B_WIDTH + at.B_PLACE + way] = x[mine]
        x[mine] = -1
        if x[kept + at.C_BANK] == bank:
            x[kept + at.C_STALE] = 1


@compiled
def refile(k: Flat, x: Flat, r: Flat, bank: int) -> None:
    """Bring `bank` in order after a change of its row, its claim or its queue."""
    place = k[at.AT_BANK] + bank * at.B_WIDTH
    claimed, opened = x[place + at.B_CLAIM] >= 0, x[place + at.B_ROW] >= 0
    each = EACH * x[at.WRITING]
    misses = x[place + at.B_MISS + each] >= 0 and not claimed
    _file(k, x, r, CLAIMED, bank, claimed)
    _file(k, x, r, HIT, bank, x[place + at.B_HIT + each] >= 0)
    _file(k, x, r, OPEN, bank, misses and not opened)
    _file(k, x, r, CLOSE, bank, misses and opened)


@compiled
def follow(k: Flat, x: Flat, r: Flat, command: int, bank: int, claimed: bool) -> None:
    """Bring `bank` in order after `command`, of a request with a claim or not; as `refile`, sooner.
    """
    place = k[at.AT_BANK] + bank * at.B_WIDTH
    each = EACH * x[at.WRITING]
    if command >= at.RD and claimed:
        _file(k, x, r, CLAIMED, bank, False)
        _file(k, x, r, CLOSE, bank, x[place + at.B_MISS + each] >= 0)
        return
    sort_bank(k, x, bank)
    _file(k, x, r, HIT, bank, x[place + at.B_HIT + each] >= 0)
    if command == at.ACT:
        _file(k, x, r, OPEN, bank, False)
        _file(k, x, r, CLAIMED, bank, True)
    elif command == at.PRE:
        _file(k, x, r, CLOSE, bank, False)
        _file(k, x, r, OPEN, bank, x[place + at.B_MISS + each] >= 0)


@compiled
def sort_bank(k: Flat, x: Flat, bank: int) -> None:
    """Find the oldest read and write of `bank` that hit its open row, and that do not."""
    place = k[at.AT_BANK] + bank * at.B_WIDTH
    for each in range(0, 2 * EACH, EACH):
        hit = miss = -1
        slot = x[place + at.B_FIRST + each]
        while slot >= 0 and (hit < 0 or miss < 0):
            if x[slot + S_ROW] == x[place + at.B_ROW]:
                hit = slot if hit < 0 else hit
            elif miss < 0:
                miss = slot
            slot = x[slot + S_NEXT]
        x[place + at.B_HIT + each], x[place + at.B_MISS + each] = hit, miss


@compiled
def put(k: Flat, x: Flat, r: Flat, i: int) -> bool:
    """Put request `i`, the youngest, into its queue; return whether it is the first of its kind."""
    slot, field = x[at.FREE], i * Q_WIDTH
    bank, row, writes = r[field + Q_BANK], r[field + Q_ROW], r[field + Q_KIND] == at.WR
    place = k[at.AT_BANK] + bank * at.B_WIDTH
    mine = place + EACH if writes else place
    x[at.FREE] = x[slot + S_NEXT]
    x[slot + S_AGE], x[slot + S_ROW], x[slot + S_BANK] = i, row, bank
    x[slot + S_COLUMN], x[slot + S_NEXT] = r[field + Q_COLUMN], -1
    last = x[mine + at.B_LAST]
    x[slot + S_BEFORE], x[mine + at.B_LAST] = last, slot
    if last >= 0:
        x[last + S_NEXT] = slot
    else:
        x[mine + at.B_FIRST] = slot
    x[at.WRITES_IN if writes else at.READS_IN] += 1
    field = at.B_HIT if row == x[place + at.B_ROW] else at.B_MISS
    if x[mine + field] >= 0:
        return False
    x[mine + field] = slot
    return True


@compiled
def take(k: Flat, x: Flat, slot: int, writes: bool) -> None:
    """Take a request out of its queue; the caller sorts its bank."""
    mine = k[at.AT_BANK] + x[slot + S_BANK] * at.B_WIDTH + (EACH if writes else 0)
    before, after = x[slot + S_BEFORE], x[slot + S_NEXT]
    if before >= 0:
        x[before + S_NEXT] = after
    else:
        x[mine + at.B_FIRST] = after
    if after >= 0:
        x[after + S_BEFORE] = before
    else:
        x[mine + at.B_LAST] = before
    x[slot + S_NEXT] = x[at.FREE]
    x[at.FREE] = slot
    x[at.WRITES_IN if writes else at.READS_IN] -= 1


@compiled
def empty(k: Flat, x: Flat) -> None:
    """Take everything out of the queues."""
    for bank in range(k[at.BANKS]):
        place = k[at.AT_BANK] + bank * at.B_WIDTH
        for each in range(0, 2 * EACH, EACH):
            slot = x[place + at.B_FIRST + each]
            while slot >= 0:
                after = x[slot + S_NEXT]
                x[slot + S_NEXT] = x[at.FREE]
                x[at.FREE] = slot
                slot = after
            for field in range(at.B_FIRST, at.B_MISS + 1):
                x[place + each + field] = -1
    x[at.READS_IN] = x[at.WRITES_IN] = 0


@compiled
def wait_in_bank(k: Flat, x: Flat, r: Flat, i: int) -> bool:
    """Return whether a queued write is about to write what request `i` reads."""
    field = i * Q_WIDTH
    slot = x[k[at.AT_BANK] + r[field + Q_BANK] * at.B_WIDTH + at.B_FIRST_WR]
    while slot >= 0:
        if x[slot + S_ROW] == r[field + Q_ROW] and x[slot + S_COLUMN] == r[field + Q_COLUMN]:
            return True
        slot = x[slot + S_NEXT]
    return False
