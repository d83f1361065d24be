"""The compiled loop of a DRAM channel with a read and a write queue, first ready first come.

It runs as plain Python with ``NUMBA_DISABLE_JIT=1``. Time jumps from one cycle in which a command
or a request moves to the next; which those are is decided anew in each, from the timers alone.
"""

from archsim.engine.compiled import Flat, Rows, compiled, entry

__all__ = ["advance", "issue", "ready_at"]

NEVER = 1 << 60
ACT, PRE, PREA, REF, RD, WR = range(6)  # in the order of machine.dram.COMMANDS
KINDS = 6

# Constants k, then for each command where its rules begin, then the rules.
(
    BANKS, RANK_BITS, GROUP_BITS, AT_GROUP, AT_RANK, AT_CHANNEL, RANKS, SHARED_BUS, CLOSED_PAGE,
    WINDOW, WINDOW_CYCLES, REFI, POSTPONED, READ_ROOM, WRITE_ROOM, WRITE_HIGH, WRITE_LOW,
    READ_DATA, WRITE_DATA, RULE_START,
) = range(20)  # fmt: skip
RULES = RULE_START + KINDS + 1
R_SHIFT, R_FLIP, R_TIMER, R_GAP, R_WIDTH = range(5)  # banks a node, other node, timer, cycles

# State x, then the timers: the first legal cycle of a command, for each node and command. Those
# from ACTIVATES on count, and are the results.
(
    NOW, NEXT, WRITING, ROW_BUS, COLUMN_BUS, READS_IN, WRITES_IN, CLAIMED, ACTIVATES, PRECHARGES,
    REFRESHES, READS, WRITES, FORWARDED, ROW_HITS, DATA_END, TRIED, TIMERS,
) = range(18)  # fmt: skip

B_ROW, B_CLAIM, B_WIDTH = range(3)  # the open row or -1; the request it was opened for or -1
N_DUE, N_OPEN, N_HEAD, N_ACTS = range(4)  # a rank: next refresh, open banks, ring of activates
Q_KIND, Q_BANK, Q_ROW, Q_COLUMN, Q_SINCE, Q_DONE, Q_WIDTH = range(7)  # a request
# What is offered: the first to be legal, then the class, then the age.
P_TIME, P_CLASS, P_AGE, P_COMMAND, P_BANK, P_PLACE, P_WIDTH = range(7)


@compiled
def _timer(k: Flat, x: Flat, command: int, bank: int) -> int:
    """Return when the timers of all nodes over `bank` let `command` go."""
    at = TIMERS + command
    group = k[AT_GROUP] + (bank >> k[GROUP_BITS])
    rank = k[AT_RANK] + (bank >> k[RANK_BITS])
    near = max(x[at + bank * KINDS], x[at + group * KINDS])
    return max(near, max(x[at + rank * KINDS], x[at + k[AT_CHANNEL] * KINDS]))


@compiled
def _ready_at(k: Flat, x: Flat, ranks: Rows, command: int, bank: int) -> int:
    time = max(_timer(k, x, command, bank), x[COLUMN_BUS] if command >= RD else x[ROW_BUS])
    if command == ACT:
        rank = bank >> k[RANK_BITS]
        time = max(time, ranks[rank, N_ACTS + ranks[rank, N_HEAD]] + k[WINDOW_CYCLES])
    return time


@compiled
def _close(x: Flat, banks: Rows, ranks: Rows, first: int, last: int, rank: int) -> None:
    for bank in range(first, last):
        if banks[bank, B_ROW] >= 0:
            banks[bank, B_ROW] = -1
            ranks[rank, N_OPEN] -= 1
            x[PRECHARGES] += 1


@compiled
def _issue(
    k: Flat, x: Flat, banks: Rows, ranks: Rows, command: int, bank: int, row: int, now: int
) -> None:
    for i in range(k[RULE_START + command], k[RULE_START + command + 1], R_WIDTH):
        node = (bank >> k[i + R_SHIFT]) ^ k[i + R_FLIP]
        place = k[i + R_TIMER] + node * KINDS
        x[place] = max(x[place], now + k[i + R_GAP])
    if command >= RD or k[SHARED_BUS]:
        x[COLUMN_BUS] = now + 1
    if command < RD or k[SHARED_BUS]:
        x[ROW_BUS] = now + 1
    rank = bank >> k[RANK_BITS]
    if command == ACT:
        head = ranks[rank, N_HEAD]
        ranks[rank, N_ACTS + head] = now
        ranks[rank, N_HEAD] = (head + 1) % k[WINDOW]
        ranks[rank, N_OPEN] += 1
        banks[bank, B_ROW] = row
        x[ACTIVATES] += 1
    elif command == PRE:
        _close(x, banks, ranks, bank, bank + 1, rank)
    elif command == PREA:
        _close(x, banks, ranks, rank << k[RANK_BITS], (rank + 1) << k[RANK_BITS], rank)
    elif command == REF:
        ranks[rank, N_DUE] += k[REFI]
        x[REFRESHES] += 1
    elif command == RD:
        x[READS] += 1
        x[DATA_END] = max(x[DATA_END], now + k[READ_DATA])
    else:
        x[WRITES] += 1
        x[DATA_END] = max(x[DATA_END], now + k[WRITE_DATA])


@compiled
def _arrival(k: Flat, x: Flat, requests: Rows) -> int:
    """Return when the next request may come if nothing leaves its queue before; NEVER if not."""
    i = x[NEXT]
    if i == len(requests):
        return NEVER
    writes = requests[i, Q_KIND] == WR
    full = x[WRITES_IN] == k[WRITE_ROOM] if writes else x[READS_IN] == k[READ_ROOM]
    return NEVER if full else max(x[TRIED] + 1, max(requests[i, Q_SINCE], x[NOW]))


@compiled
def _queued(x: Flat, requests: Rows, writes: Flat, i: int) -> bool:
    for n in range(x[WRITES_IN]):
        j = writes[n]
        if (
            requests[j, Q_ROW] == requests[i, Q_ROW]
            and requests[j, Q_BANK] == requests[i, Q_BANK]
            and requests[j, Q_COLUMN] == requests[i, Q_COLUMN]
        ):
            return True
    return False


@compiled
def _accept(x: Flat, requests: Rows, reads: Flat, writes: Flat) -> None:
    """Let the next request in.

    A read of what a queued write is about to write is served by the queue in the next cycle.
    """
    i = x[NEXT]
    x[NEXT] += 1
    if requests[i, Q_KIND] == WR:
        writes[x[WRITES_IN]] = i
        x[WRITES_IN] += 1
    elif _queued(x, requests, writes, i):
        requests[i, Q_DONE] = x[NOW] + 1
        x[FORWARDED] += 1
    else:
        reads[x[READS_IN]] = i
        x[READS_IN] += 1


@compiled
def _turn(k: Flat, x: Flat) -> None:
    """Change between reads and writes at the watermarks, or when the others are all that wait."""
    if x[WRITING] == 0:
        if x[WRITES_IN] >= k[WRITE_HIGH] or x[READS_IN] == 0:
            x[WRITING] = 1
    elif x[WRITES_IN] <= k[WRITE_LOW] and x[READS_IN] > 0:
        x[WRITING] = 0


@compiled
def _due(k: Flat, x: Flat, ranks: Rows, rank: int) -> bool:
    """Return whether `rank` takes no new work for a refresh: it is due and not to be postponed."""
    if x[NOW] < ranks[rank, N_DUE]:
        return False
    waiting = x[READS_IN] + x[WRITES_IN] + x[CLAIMED] > 0
    return not waiting or x[NOW] >= ranks[rank, N_DUE] + k[POSTPONED] * k[REFI]


@compiled
def _offer(
    x: Flat, p: Flat, time: int, order: int, age: int, command: int, bank: int, place: int
) -> None:
    time = max(time, x[NOW])
    if time != p[P_TIME]:
        if time > p[P_TIME]:
            return
    elif order > p[P_CLASS] or (order == p[P_CLASS] and age >= p[P_AGE]):
        return
    p[P_TIME], p[P_CLASS], p[P_AGE] = time, order, age
    p[P_COMMAND], p[P_BANK], p[P_PLACE] = command, bank, place


@compiled
def _serve_claimed(k: Flat, x: Flat, banks: Rows, ranks: Rows, requests: Rows, p: Flat) -> None:
    """Offer the column commands of requests whose row was opened for them, the oldest ready."""
    for bank in range(k[BANKS]):
        i = banks[bank, B_CLAIM]
        if i >= 0:
            time = _ready_at(k, x, ranks, requests[i, Q_KIND], bank)
            _offer(x, p, time, 0, i, requests[i, Q_KIND], bank, -1)


@compiled
def _refresh(k: Flat, x: Flat, banks: Rows, ranks: Rows, p: Flat) -> int:
    """Offer what refreshes need; return when the next one is due, past those due now."""
    next_due = NEVER
    for rank in range(k[RANKS]):
        if _due(k, x, ranks, rank):
            first, claims = rank << k[RANK_BITS], 0
            for bank in range(first, (rank + 1) << k[RANK_BITS]):
                claims += banks[bank, B_CLAIM] >= 0
            if claims == 0:
                command = PREA if ranks[rank, N_OPEN] > 0 else REF
                time = _ready_at(k, x, ranks, command, first)
                _offer(x, p, time, 1, rank, command, first, -1)
        else:
            due = ranks[rank, N_DUE]
            next_due = min(next_due, due if due > x[NOW] else due + k[POSTPONED] * k[REFI])
    return next_due


@compiled
def _next_times(k: Flat, x: Flat, banks: Rows, ranks: Rows, kind: int, times: Rows) -> None:
    """Note when each bank could go on, with its open row and with another one; NEVER if it may not.

    What the banks of a group share is looked up once.
    """
    in_group = 1 << k[GROUP_BITS]
    whole = TIMERS + k[AT_CHANNEL] * KINDS
    for group in range(k[BANKS] >> k[GROUP_BITS]):
        first = group << k[GROUP_BITS]
        rank = first >> k[RANK_BITS]
        wide, near = TIMERS + (k[AT_RANK] + rank) * KINDS, TIMERS + (k[AT_GROUP] + group) * KINDS
        due = _due(k, x, ranks, rank)
        window = ranks[rank, N_ACTS + ranks[rank, N_HEAD]] + k[WINDOW_CYCLES]
        act = max(max(x[whole + ACT], x[wide + ACT]), max(x[near + ACT], max(window, x[ROW_BUS])))
        pre = max(max(x[whole + PRE], x[wide + PRE]), max(x[near + PRE], x[ROW_BUS]))
        column = max(max(x[whole + kind], x[wide + kind]), max(x[near + kind], x[COLUMN_BUS]))
        for bank in range(first, first + in_group):
            at = TIMERS + bank * KINDS
            times[bank, 0] = NEVER if due else max(column, x[at + kind])
            other = max(act, x[at + ACT]) if banks[bank, B_ROW] < 0 else max(pre, x[at + PRE])
            times[bank, 1] = NEVER if due or banks[bank, B_CLAIM] >= 0 else other


@compiled
def _serve_queue(
    k: Flat, x: Flat, banks: Rows, ranks: Rows, requests: Rows, queue: Flat, count: int, kind: int,
    times: Rows, p: Flat,
) -> None:  # fmt: skip
    """Offer the next command of every request of `queue`, of equals the oldest request's."""
    _next_times(k, x, banks, ranks, kind, times)
    first, chosen = p[P_TIME], -1
    for place in range(count):  # in order of arrival: a later one must be sooner
        i = queue[place]
        bank = requests[i, Q_BANK]
        hit = banks[bank, B_ROW] == requests[i, Q_ROW]
        time = max(times[bank, 0] if hit else times[bank, 1], x[NOW])
        if time < first:
            first, chosen = time, place
    if chosen >= 0:
        i = queue[chosen]
        bank = requests[i, Q_BANK]
        row, command = banks[bank, B_ROW], kind
        if row != requests[i, Q_ROW]:
            command = PRE if row >= 0 else ACT
        _offer(x, p, first, 2, i, command, bank, chosen)


@compiled
def _close_unwanted(
    k: Flat, x: Flat, banks: Rows, ranks: Rows, requests: Rows, reads: Flat, writes: Flat, p: Flat
) -> None:
    """Offer to close the open rows that no queued request wants."""
    wanted = 0
    for place in range(x[READS_IN]):
        i = reads[place]
        if banks[requests[i, Q_BANK], B_ROW] == requests[i, Q_ROW]:
            wanted |= 1 << requests[i, Q_BANK]
    for place in range(x[WRITES_IN]):
        i = writes[place]
        if banks[requests[i, Q_BANK], B_ROW] == requests[i, Q_ROW]:
            wanted |= 1 << requests[i, Q_BANK]
    for bank in range(k[BANKS]):
        unwanted = banks[bank, B_CLAIM] < 0 and (wanted >> bank) & 1 == 0
        if banks[bank, B_ROW] >= 0 and unwanted:
            _offer(x, p, _ready_at(k, x, ranks, PRE, bank), 3, bank, PRE, bank, -1)


@compiled
def _take(x: Flat, queue: Flat, place: int, counter: int) -> None:
    """Take the request at `place` out of its queue; the others stay in order of arrival."""
    x[counter] -= 1
    for n in range(place, x[counter]):
        queue[n] = queue[n + 1]


@compiled
def _act(
    k: Flat, x: Flat, banks: Rows, ranks: Rows, requests: Rows, reads: Flat, writes: Flat, p: Flat,
    trace: Rows,
) -> None:  # fmt: skip
    """Issue what was chosen, and move its request on."""
    command, bank, place, now, i = p[P_COMMAND], p[P_BANK], p[P_PLACE], p[P_TIME], p[P_AGE]
    row = column = -1
    if p[P_CLASS] == 0 or p[P_CLASS] == 2:
        row = requests[i, Q_ROW] if command != PRE else -1
        column = requests[i, Q_COLUMN] if command >= RD else -1
    _issue(k, x, banks, ranks, command, bank, row, now)
    if command >= RD:
        data = k[READ_DATA] if command == RD else k[WRITE_DATA]
        requests[i, Q_DONE] = now + data
        x[ROW_HITS] += p[P_CLASS] == 2
        if p[P_CLASS] == 0:
            banks[bank, B_CLAIM] = -1
            x[CLAIMED] -= 1
    elif command == ACT:
        banks[bank, B_CLAIM] = i
        x[CLAIMED] += 1
    if place >= 0 and command != PRE:
        if requests[i, Q_KIND] == WR:
            _take(x, writes, place, WRITES_IN)
        else:
            _take(x, reads, place, READS_IN)
    if len(trace) > 1:
        trace[0, 0] += 1
        at = trace[0, 0]
        trace[at, 0], trace[at, 2], trace[at, 3] = now, command, bank
        trace[at, 4], trace[at, 5] = row, column


@entry
def advance(
    k: Flat, x: Flat, banks: Rows, ranks: Rows, requests: Rows, reads: Flat, writes: Flat, p: Flat,
    times: Rows, trace: Rows, until: int,
) -> bool:  # fmt: skip
    """Go on to cycle `until`, or until all requests are served if that is NEVER.

    Returns whether a full `trace` stopped it before.
    """
    while x[NOW] < until:
        if len(trace) > 1 and trace[0, 0] == len(trace) - 1:
            return True
        if _arrival(k, x, requests) == x[NOW]:
            _accept(x, requests, reads, writes)
        x[TRIED] = x[NOW]  # a place that frees in a cycle is taken in the next
        waiting = x[READS_IN] + x[WRITES_IN] + x[CLAIMED]
        if until == NEVER and x[NEXT] == len(requests) and waiting == 0:
            return False
        p[P_TIME], p[P_CLASS], p[P_AGE] = NEVER, KINDS, NEVER
        _serve_claimed(k, x, banks, ranks, requests, p)
        due = _refresh(k, x, banks, ranks, p)
        _turn(k, x)
        if x[WRITING]:
            _serve_queue(k, x, banks, ranks, requests, writes, x[WRITES_IN], WR, times, p)
        else:
            _serve_queue(k, x, banks, ranks, requests, reads, x[READS_IN], RD, times, p)
        if k[CLOSED_PAGE]:
            _close_unwanted(k, x, banks, ranks, requests, reads, writes, p)
        event = min(min(_arrival(k, x, requests), due), until)
        if p[P_TIME] == x[NOW] or p[P_TIME] < event:
            x[NOW] = x[TRIED] = p[P_TIME]  # nothing else happens before
            _act(k, x, banks, ranks, requests, reads, writes, p, trace)
        else:
            x[NOW] = min(p[P_TIME], event)
    return False


@entry
def ready_at(k: Flat, x: Flat, ranks: Rows, command: int, bank: int) -> int:
    """Return the first cycle at which `command` to `bank` breaks no rule; changes nothing."""
    return _ready_at(k, x, ranks, command, bank)


@entry
def issue(
    k: Flat, x: Flat, banks: Rows, ranks: Rows, command: int, bank: int, row: int, now: int
) -> None:
    """Issue `command`; the caller has asked `ready_at`."""
    _issue(k, x, banks, ranks, command, bank, row, now)
