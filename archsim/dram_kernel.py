"""The compiled DRAM controller: what happens in each channel, command by command.

Every function here runs compiled, or as plain Python with ``NUMBA_DISABLE_JIT=1``: one source.
All of them live in this file and are given the machine's constants, because numba's cache does
not see an edit of another file. They work on three arrays of int64, whose places have names:

``k``, the machine's constants; ``x``, one channel's whole state, in one row; ``m``, the transfers.
Functions on the way of every burst are inlined: a call counts references of its arrays, which
costs more than most of them do.
"""

import numpy as np
from numba import boolean, int64, njit, types, void

__all__ = ["issue", "launch", "ready_at", "run"]

NEVER = 1 << 62
# Commands, in the order of machine.dram.COMMANDS; columns of a timer.
ACT, PRE, PREA, REF, RD, WR = range(6)
COMMANDS = 6
# Scopes of a rule.
BANK, GROUP, RANK, OTHER_RANKS, CHANNEL = range(5)
# Classes of commands that are legal in the same cycle, first come first.
BY_REFRESH, BY_COLUMN, BY_ROW = range(3)

# Constants k. Bank >> RANK_BITS is its rank. AT_*: where a part of x begins. RULE_START is the
# first of the places where the rules after each command begin, three numbers a rule: scope,
# command before, cycles. FIELDS is (lowest bit, mask) of row, rank, group, bank and column.
(
    CHANNELS, RANKS, BANKS, GROUPS, RANK_BITS, GROUP_BITS, PORTS, DEPTH, QUEUE, OVERTAKES,
    SHARED_BUS, SHORTCUTS, REFRESHES, BURST_CYCLES, BURST_BITS, CL, CWL, RFC, REFI,
    ACT_WINDOW, ACT_WINDOW_CYCLES, CHANNEL_LOW, CHANNEL_BITS,
    AT_TIMER, AT_ROW, AT_SEEN, AT_RANK, AT_QUEUE, AT_LANE, FIELDS,
) = range(30)  # fmt: skip
RULE_START = FIELDS + 10
CONSTANTS = RULE_START + COMMANDS + 1

# State x of one channel. PICK_*: the next command, chosen ahead and kept until it is issued.
# LEADER: the channel simulated in this one's place; MEMBERS: how many it stands for.
# STEADY, if not 0: what the last full scan found still holds, and the pick is its (SCANNED) or is
# the oldest hit, than which no other can be earlier (UNSCANNED). That is: all requests are of
# STEADY_KIND and hit rows nobody else waits to see closed, but those to MISS_BANK, the oldest at
# MISS_INDEX (-1: none), whose row command is legal from MISS_TIME; STEADY_DUE is when the next
# refresh is due.
(
    NOW, NEXT, ROW_BUS, COLUMN_BUS, ACCEPT, HEAD, COUNT, PASSED, TURN,
    BUSY_SINCE, DATA_END, LAST_KIND, LAST_RANK, LEADER, MEMBERS,
    PICK_KNOWN, PICK_TIME, PICK_CLASS, PICK_RIVAL, PICK_INDEX, SCAN,
    STEADY, STEADY_KIND, STEADY_DUE, MISS_INDEX, MISS_BANK, MISS_TIME,
) = range(27)  # fmt: skip
# Counters; those from BUSY on are classes of cycles and sum to the total.
(
    ACTIVATES, READS, WRITES, PRECHARGES, REFRESHED, HITS, MISSES, CONFLICTS, ACTIVE,
    BUSY, IDLE, REFRESH, ROW_MISS, TURNAROUND, LATE, SPACING,
) = range(27, 43)  # fmt: skip
# Then a timer for each bank, group, rank and the channel: the earliest cycle of each command.
# A row for each bank: the open one, or -1. SEEN for each bank: the last scan to meet it, and a
# RD, a WR that hits it; then when the oldest queued request to another row than the open one
# arrived, or NEVER. A rank: the last activates are a ring behind it.
STATE = 43
SCANNED, UNSCANNED = 1, 2
RIVAL, SEEN_WIDTH = 3, 4
DUE, OPEN, OPEN_SINCE, REFRESH_END, ACT_HEAD, ACTS = range(6)
# A request; the queue is a ring from HEAD, by age. OPENED: 0 its row was open, 1 it opened it,
# 2 it closed another first.
Q_BANK, Q_ROW, Q_COLUMN, Q_KIND, Q_MOVE, Q_ARRIVED, Q_OPENED, Q_WIDTH = range(8)
# A lane, the place of one port in this channel, in the channel's own burst numbers.
L_SEQUENCE, L_PIECE, L_BURST, L_END, L_KIND, L_MOVE, L_SINCE, L_WIDTH = range(8)

# A transfer m[i]. LISTED: where its pieces begin in the list, or -1; FIRST, LAST: cycles of data.
M_BASE, M_BYTES, M_STRIDE, M_PIECES, M_KIND, M_LISTED, M_SINCE, M_LEFT, M_FIRST, M_LAST = range(10)
MOVE = 10

# Types of arguments. Functions not inlined are compiled once, for these: numba would compile each
# anew for every literal it is called with.
_ROW, _ROWS = int64[::1], int64[:, ::1]
_TWO, _THREE, _FOUR = (types.UniTuple(int64, count) for count in (2, 3, 4))
_SHARES = types.Tuple((_ROW, _ROWS))


@njit(int64(_ROW, _ROW, int64, int64), cache=True)
def ready_at(k, x, command, bank):
    """Return the first cycle at which `command` to `bank` breaks no rule; changes nothing."""
    rank = bank >> k[RANK_BITS]
    timer = k[AT_TIMER] + command
    at_group = timer + (k[BANKS] + (bank >> k[GROUP_BITS])) * COMMANDS
    at_rank = timer + (k[BANKS] + k[GROUPS] + rank) * COMMANDS
    at_channel = timer + (k[BANKS] + k[GROUPS] + k[RANKS]) * COMMANDS
    t = max(max(x[timer + bank * COMMANDS], x[at_group]), max(x[at_rank], x[at_channel]))
    if command == ACT:
        at = k[AT_RANK] + rank * (ACTS + k[ACT_WINDOW])
        t = max(t, x[at + ACTS + x[at + ACT_HEAD]] + k[ACT_WINDOW_CYCLES])
    return max(t, x[COLUMN_BUS] if command >= RD else x[ROW_BUS])


@njit(cache=True, inline="always")
def _start_timers(k, x, command, bank, now):
    """Apply every rule that counts from `command`."""
    rank = bank >> k[RANK_BITS]
    for i in range(k[RULE_START + command], k[RULE_START + command + 1], 3):
        scope, at = k[i], now + k[i + 2]
        timer = k[AT_TIMER] + k[i + 1]
        if scope == BANK:
            timer += bank * COMMANDS
        elif scope == GROUP:
            timer += (k[BANKS] + (bank >> k[GROUP_BITS])) * COMMANDS
        elif scope == RANK:
            timer += (k[BANKS] + k[GROUPS] + rank) * COMMANDS
        elif scope == CHANNEL:
            timer += (k[BANKS] + k[GROUPS] + k[RANKS]) * COMMANDS
        else:
            for r in range(k[RANKS]):
                other = timer + (k[BANKS] + k[GROUPS] + r) * COMMANDS
                if r != rank:
                    x[other] = max(x[other], at)
            continue
        x[timer] = max(x[timer], at)


@njit(void(_ROW, _ROW, int64, int64, int64, int64), cache=True)
def issue(k, x, command, bank, row, now):
    """Issue `command`; the caller has asked `ready_at`. Updates timers, buses, rows, counters."""
    _start_timers(k, x, command, bank, now)
    if command >= RD or k[SHARED_BUS]:
        x[COLUMN_BUS] = now + 1
    if command < RD or k[SHARED_BUS]:
        x[ROW_BUS] = now + 1
    rank = bank >> k[RANK_BITS]
    at = k[AT_RANK] + rank * (ACTS + k[ACT_WINDOW])
    if command == ACT:
        x[k[AT_ROW] + bank] = row
        head = x[at + ACT_HEAD]
        x[at + ACTS + head] = now
        x[at + ACT_HEAD] = head + 1 if head + 1 < k[ACT_WINDOW] else 0
        if x[at + OPEN] == 0:
            x[at + OPEN_SINCE] = now
        x[at + OPEN] += 1
        x[ACTIVATES] += 1
    elif command == PRE or command == PREA:
        first, last = bank, bank + 1
        if command == PREA:
            first, last = rank << k[RANK_BITS], (rank + 1) << k[RANK_BITS]
        for place in range(k[AT_ROW] + first, k[AT_ROW] + last):
            if x[place] >= 0:
                x[place] = -1
                x[at + OPEN] -= 1
                x[PRECHARGES] += 1
                if x[at + OPEN] == 0:
                    x[ACTIVE] += now - x[at + OPEN_SINCE]
    elif command == REF:
        x[at + DUE] += k[REFI]
        x[at + REFRESH_END] = now + k[RFC]
        x[REFRESHED] += 1
        x[ACTIVE] += k[RFC]


@njit(int64(_ROW, _ROW, int64), cache=True)
def _place(k, x, index):
    """Return where in the state the request of age `index` (0 the oldest) lies."""
    place = x[HEAD] + index
    if place >= k[QUEUE]:
        place -= k[QUEUE]
    return k[AT_QUEUE] + place * Q_WIDTH


@njit(void(_ROW, int64, int64, int64, int64), cache=True)
def _offer(x, time, group, rival, index):
    """Keep the command if it comes before the one picked so far; of equals the first stays."""
    if time > x[PICK_TIME]:
        return
    if time == x[PICK_TIME]:
        if group > x[PICK_CLASS] or (group == x[PICK_CLASS] and rival >= x[PICK_RIVAL]):
            return
    x[PICK_TIME], x[PICK_CLASS], x[PICK_RIVAL], x[PICK_INDEX] = time, group, rival, index


@njit(void(_ROW, _ROW, int64, int64), cache=True)
def _consider(k, x, index, place):
    """Offer the command that the request of age `index` at `place` needs next, if it may have one.

    Called in order of age. A bank's row commands belong to its oldest request. Of the hits those
    go first whose row has kept another request waiting longest: when they are done the bank can
    change rows, hidden behind the other hits. A rank that is due for refresh takes no new command.
    """
    scan = x[SCAN]
    bank, kind = x[place + Q_BANK], x[place + Q_KIND]
    row, seen = x[k[AT_ROW] + bank], k[AT_SEEN] + bank * SEEN_WIDTH
    if row == x[place + Q_ROW]:
        x[seen] = scan
        seen += kind - RD + 1
        if x[seen] == scan:
            return  # an older request of the same kind hits this row
        x[seen] = scan
        if index > 0 and x[PASSED] >= k[OVERTAKES]:
            return
        command, group = kind, BY_COLUMN
        rival = x[k[AT_SEEN] + bank * SEEN_WIDTH + RIVAL]
    elif x[seen] == scan:
        return
    else:
        x[seen] = scan
        command, group, rival = (ACT if row < 0 else PRE), BY_ROW, NEVER
    time = max(ready_at(k, x, command, bank), x[NOW])
    rank = bank >> k[RANK_BITS]
    if k[REFRESHES] and time >= x[k[AT_RANK] + rank * (ACTS + k[ACT_WINDOW]) + DUE]:
        return
    _offer(x, time, group, rival, index)


@njit(cache=True, inline="always")
def _pick_steady(k, x):
    """Choose as `_pick_among_all` does where the oldest request is the best hit; else return 0."""
    if not x[STEADY] or x[COUNT] == 0 or x[MISS_INDEX] == 0:
        return False
    kind = x[STEADY_KIND]
    time = max(ready_at(k, x, kind, x[_place(k, x, 0) + Q_BANK]), x[NOW])
    timer = k[AT_TIMER] + (k[BANKS] + k[GROUPS] + k[RANKS]) * COMMANDS + kind
    if time > max(max(x[COLUMN_BUS], x[NOW]), x[timer]) or time >= x[STEADY_DUE]:
        return False  # another hit may come before this one, or a refresh
    x[PICK_KNOWN] = 1
    x[PICK_TIME], x[PICK_CLASS], x[PICK_RIVAL], x[PICK_INDEX] = time, BY_COLUMN, NEVER, 0
    x[STEADY] = UNSCANNED
    if x[MISS_INDEX] > 0:
        miss = max(x[MISS_TIME], max(x[ROW_BUS], x[NOW]))
        _offer(x, miss, BY_ROW, NEVER, x[MISS_INDEX])
    return True


@njit(void(_ROW, _ROW), cache=True)
def _pick_among_all(k, x):
    """Choose among refresh and all requests, and note whether they are steady."""
    x[PICK_TIME], x[PICK_CLASS], x[PICK_RIVAL], x[PICK_KNOWN] = NEVER, BY_ROW, NEVER, 1
    x[SCAN] += 1
    scan, due, miss, miss_bank = x[SCAN], NEVER, -1, -1
    if k[REFRESHES]:
        for rank in range(k[RANKS]):
            at = k[AT_RANK] + rank * (ACTS + k[ACT_WINDOW])
            due = min(due, x[at + DUE])
            time = max(x[at + DUE], x[NOW])
            legal = ready_at(k, x, PREA if x[at + OPEN] > 0 else REF, rank << k[RANK_BITS])
            _offer(x, max(legal, time), BY_REFRESH, NEVER, rank)
    place = k[AT_QUEUE] + x[HEAD] * Q_WIDTH
    kind, steady = x[place + Q_KIND], SCANNED if k[SHORTCUTS] else 0
    for index in range(x[COUNT]):
        bank = x[place + Q_BANK]
        seen = k[AT_SEEN] + bank * SEEN_WIDTH
        if x[k[AT_ROW] + bank] == x[place + Q_ROW]:
            if x[place + Q_KIND] != kind or x[seen + RIVAL] != NEVER:
                steady = 0
            follows = x[seen] == scan and x[seen + x[place + Q_KIND] - RD + 1] == scan
        else:
            if miss < 0:
                miss, miss_bank = index, bank
            elif bank != miss_bank:
                steady = 0
            follows = x[seen] == scan
        if not follows:  # most requests follow an older one to the same bank: nothing to offer
            _consider(k, x, index, place)
        place += Q_WIDTH
        if place == k[AT_LANE]:
            place = k[AT_QUEUE]
    x[STEADY], x[STEADY_KIND], x[STEADY_DUE] = steady, kind, due
    x[MISS_INDEX], x[MISS_BANK] = miss, miss_bank
    if steady and miss >= 0:
        x[MISS_TIME] = ready_at(k, x, ACT if x[k[AT_ROW] + miss_bank] < 0 else PRE, miss_bank)


@njit(int64(_ROW, int64, int64), cache=True)
def _below(k, channel, burst):
    """Return how many bursts with a smaller number than `burst` lie in `channel`."""
    span = k[CHANNEL_LOW] + k[CHANNEL_BITS]
    inside = (burst & ((1 << span) - 1)) - (channel << k[CHANNEL_LOW])
    inside = min(max(inside, 0), 1 << k[CHANNEL_LOW])
    return ((burst >> span) << k[CHANNEL_LOW]) + inside


@njit(_THREE(_ROW, _ROW, _ROWS, int64), cache=True)
def _bounds(k, move, listed, piece):
    """Return the first burst of a piece, the one after its last, and its command."""
    base, kind = move[M_BASE] + piece * move[M_STRIDE], move[M_KIND]
    if move[M_LISTED] >= 0:
        base, kind = listed[move[M_LISTED] + piece, 0], listed[move[M_LISTED] + piece, 1]
    last = (base + move[M_BYTES] - 1) >> k[BURST_BITS]
    return base >> k[BURST_BITS], last + 1, kind


@njit(_FOUR(_ROW, _ROW, _ROWS, int64, int64), cache=True)
def _next_part(k, move, listed, channel, piece):
    """Find the first piece from `piece` on with a burst in `channel`.

    Returns the number of the piece after it, its first burst in the channel's own numbers, the one
    after its last, and its command; an empty part when there is none.
    """
    low = high = kind = 0
    while piece < move[M_PIECES] and low >= high:
        first, end, kind = _bounds(k, move, listed, piece)
        low, high = _below(k, channel, first), _below(k, channel, end)
        piece += 1
    return piece, low, high, kind


@njit(void(_ROW, _ROW, _ROWS, _ROWS, _ROW, int64, int64), cache=True)
def _refill(k, x, m, listed, started, channel, port):
    """Move an empty lane on to the port's next piece with a burst in this channel, if any."""
    at = k[AT_LANE] + port * L_WIDTH
    while x[at + L_BURST] >= x[at + L_END] and x[at + L_SEQUENCE] < started[port]:
        i = port * k[DEPTH] + (x[at + L_SEQUENCE] & (k[DEPTH] - 1))
        if x[at + L_PIECE] == m[i, M_PIECES]:
            x[at + L_SEQUENCE] += 1
            x[at + L_PIECE] = 0
            continue
        piece, low, high, kind = _next_part(k, m[i], listed, channel, x[at + L_PIECE])
        x[at + L_PIECE], x[at + L_BURST], x[at + L_END] = piece, low, high
        x[at + L_KIND], x[at + L_MOVE], x[at + L_SINCE] = kind, i, m[i, M_SINCE]


@njit(cache=True, inline="always")
def _arrival(k, x):
    """Return when the next request enters the queue: one a cycle, while there is room."""
    best = NEVER
    if x[COUNT] < k[QUEUE]:
        for at in range(k[AT_LANE], k[AT_LANE] + k[PORTS] * L_WIDTH, L_WIDTH):
            if x[at + L_BURST] < x[at + L_END]:
                best = min(best, max(x[at + L_SINCE], x[ACCEPT]))
    return best


@njit(cache=True, inline="always")
def _accept(k, x, now):
    """Take one request from the ports, round-robin; return the port it came from."""
    port = x[TURN]
    at = k[AT_LANE] + port * L_WIDTH
    while x[at + L_BURST] >= x[at + L_END] or x[at + L_SINCE] > now:
        port = port + 1 if port + 1 < k[PORTS] else 0
        at = k[AT_LANE] + port * L_WIDTH
    burst, place = x[at + L_BURST], _place(k, x, x[COUNT])
    bank = (burst >> k[FIELDS + 2] & k[FIELDS + 3]) << k[RANK_BITS]
    bank += (burst >> k[FIELDS + 4] & k[FIELDS + 5]) << k[GROUP_BITS]
    bank += burst >> k[FIELDS + 6] & k[FIELDS + 7]
    x[place + Q_BANK] = bank
    x[place + Q_ROW] = burst >> k[FIELDS] & k[FIELDS + 1]
    x[place + Q_COLUMN] = burst >> k[FIELDS + 8] & k[FIELDS + 9]
    x[place + Q_KIND], x[place + Q_MOVE] = x[at + L_KIND], x[at + L_MOVE]
    x[place + Q_ARRIVED], x[place + Q_OPENED] = now, 0
    rival = k[AT_SEEN] + bank * SEEN_WIDTH + RIVAL
    hits = x[k[AT_ROW] + bank] == x[place + Q_ROW]
    if x[STEADY]:
        alike = hits and x[place + Q_KIND] == x[STEADY_KIND] and x[rival] == NEVER
        if x[COUNT] == 0 or not (alike or (not hits and bank == x[MISS_BANK])):
            x[PICK_KNOWN] = x[PICK_KNOWN] and x[STEADY] == SCANNED
            x[STEADY] = 0
    if not hits and x[rival] == NEVER:
        x[rival] = now
        x[PICK_KNOWN] = 0  # the hits of its bank may now go first
    if x[COUNT] == 0:
        x[BUSY_SINCE] = now
    x[COUNT] += 1
    x[ACCEPT] = now + 1
    x[TURN] = port + 1 if port + 1 < k[PORTS] else 0
    x[at + L_BURST] = burst + 1
    if x[PICK_KNOWN] and x[STEADY] != UNSCANNED:
        _consider(k, x, x[COUNT] - 1, place)
    return port


@njit(int64(_ROW, int64, int64, int64, int64), cache=True)
def _until(x, place, at, bound, kind):
    """Give the cycles from `place` to `bound`, but none from `at` on, to the class `kind`."""
    cycles = min(bound, at) - place
    if cycles <= 0:
        return place
    x[kind] += cycles
    return place + cycles


@njit(cache=True, inline="always")
def _account(k, x, place, now, latency):
    """Give every cycle the data bus stood still before this burst to a class.

    Seen `latency` earlier, where the burst's command waited: idle while nothing was queued, then
    what the burst waited for, the earlier of these classes first.
    """
    bank, kind = x[place + Q_BANK], x[place + Q_KIND]
    rank = bank >> k[RANK_BITS]
    at = x[DATA_END] - latency
    if at < now:
        timer = k[AT_TIMER] + kind
        refreshed = x[k[AT_RANK] + rank * (ACTS + k[ACT_WINDOW]) + REFRESH_END]
        at = _until(x, at, now, x[BUSY_SINCE], IDLE)
        at = _until(x, at, now, refreshed, REFRESH)
        at = _until(x, at, now, x[timer + bank * COMMANDS], ROW_MISS)
        if x[LAST_KIND] != kind or x[LAST_RANK] != rank:
            for node in (bank >> k[GROUP_BITS], k[GROUPS] + rank, k[GROUPS] + k[RANKS]):
                at = _until(x, at, now, x[timer + (k[BANKS] + node) * COMMANDS], TURNAROUND)
        at = _until(x, at, now, x[place + Q_ARRIVED], LATE)
        _until(x, at, now, now, SPACING)
    x[BUSY] += k[BURST_CYCLES]
    x[DATA_END] = now + latency + k[BURST_CYCLES]
    x[LAST_KIND], x[LAST_RANK] = kind, rank


@njit(cache=True, inline="always")
def _serve(k, x, m, index, now):
    """Issue the column command of a request and let it go; return when its transfer is done."""
    place = _place(k, x, index)
    kind, i = x[place + Q_KIND], x[place + Q_MOVE]
    latency = k[CL] if kind == RD else k[CWL]
    _account(k, x, place, now, latency)
    issue(k, x, kind, x[place + Q_BANK], -1, now)
    x[READS + kind - RD] += 1
    x[HITS + x[place + Q_OPENED]] += 1
    # Close the gap from the older side: the oldest request is the usual one.
    for age in range(index, 0, -1):
        younger, older = _place(k, x, age), _place(k, x, age - 1)
        for field in range(Q_WIDTH):
            x[younger + field] = x[older + field]
    x[HEAD] = x[HEAD] + 1 if x[HEAD] + 1 < k[QUEUE] else 0
    x[COUNT] -= 1
    x[MISS_INDEX] -= index < x[MISS_INDEX]
    x[PASSED] = x[PASSED] + 1 if index else 0
    x[ACCEPT] = max(x[ACCEPT], now + 1)
    m[i, M_FIRST] = min(m[i, M_FIRST], now + latency)
    m[i, M_LAST] = max(m[i, M_LAST], now + latency + k[BURST_CYCLES])
    m[i, M_LEFT] -= x[MEMBERS]
    return m[i, M_LAST] if m[i, M_LEFT] == 0 else NEVER


@njit(void(_ROW, _ROW, int64, int64), cache=True)
def _find_rival(k, x, bank, row):
    """Note the oldest queued request to another row of `bank` than `row`, which is being opened."""
    rival = NEVER
    for index in range(x[COUNT]):
        place = _place(k, x, index)
        if x[place + Q_BANK] == bank and x[place + Q_ROW] != row:
            rival = x[place + Q_ARRIVED]
            break
    x[k[AT_SEEN] + bank * SEEN_WIDTH + RIVAL] = rival


@njit(cache=True, inline="always")
def _act(k, x, m, trace, now):
    """Issue the picked command; return when a transfer that ends with it is done, or NEVER."""
    group, index = x[PICK_CLASS], x[PICK_INDEX]
    x[PICK_KNOWN] = 0
    done, row, column = NEVER, -1, -1
    if group == BY_REFRESH:
        at = k[AT_RANK] + index * (ACTS + k[ACT_WINDOW])
        command, bank = (PREA if x[at + OPEN] > 0 else REF), index << k[RANK_BITS]
        issue(k, x, command, bank, row, now)
        x[STEADY] = 0
    else:
        place = _place(k, x, index)
        bank, row = x[place + Q_BANK], x[place + Q_ROW]
        if group != BY_ROW:
            command, column = x[place + Q_KIND], x[place + Q_COLUMN]
            done = _serve(k, x, m, index, now)
        else:
            if x[k[AT_ROW] + bank] < 0:
                command = ACT
                x[place + Q_OPENED] = max(x[place + Q_OPENED], 1)
                _find_rival(k, x, bank, row)
            else:
                command, row = PRE, -1
                x[place + Q_OPENED] = 2
            issue(k, x, command, bank, row, now)
            x[STEADY] = 0
    if trace[0, 0] >= 0:  # the first row holds how many follow, or -1
        n = trace[0, 0] + 1
        trace[0, 0] = n
        trace[n, 0], trace[n, 1], trace[n, 2] = now, x[LEADER], command
        trace[n, 3], trace[n, 4], trace[n, 5] = bank, row, column
    return done


@njit(void(_ROW, _ROW, int64), cache=True)
def _skip_refreshes(k, x, horizon):
    """Let all refreshes of an idle channel before `horizon` but the last happen, if on time."""
    for rank in range(k[RANKS]):
        at = k[AT_RANK] + rank * (ACTS + k[ACT_WINDOW])
        if x[at + OPEN] > 0 or ready_at(k, x, REF, rank << k[RANK_BITS]) > x[at + DUE]:
            return
    for rank in range(k[RANKS]):
        at = k[AT_RANK] + rank * (ACTS + k[ACT_WINDOW])
        skipped = (horizon - x[at + DUE] + k[REFI] - 1) // k[REFI] - 1
        if skipped > 0:
            x[at + DUE] += skipped * k[REFI]
            x[REFRESHED] += skipped
            x[ACTIVE] += skipped * k[RFC]


@njit(int64(_ROW, _ROW, _ROWS, _ROWS, _ROW, _ROWS, int64), cache=True)
def _advance(k, x, m, listed, started, trace, horizon):
    """Run one channel up to, not including, `horizon` or the end of a transfer before it.

    Returns when the first transfer ends that a command of this run brought to its end, or NEVER.
    """
    done = NEVER
    while True:
        arrival = _arrival(k, x)
        if not x[PICK_KNOWN] and not _pick_steady(k, x):
            _pick_among_all(k, x)
            quiet = min(arrival, horizon)
            idle = x[COUNT] == 0 and k[REFRESHES] and k[SHORTCUTS]
            if idle and quiet - x[PICK_TIME] > 2 * k[REFI]:
                _skip_refreshes(k, x, quiet)
                _pick_among_all(k, x)
        now = min(arrival, x[PICK_TIME])
        x[NEXT] = now
        if now >= min(horizon, done) or trace[0, 0] == len(trace) - 1:
            return done
        x[NOW] = now
        if arrival == now:
            port = _accept(k, x, now)
            _refill(k, x, m, listed, started, x[LEADER], port)
        else:
            done = min(done, _act(k, x, m, trace, now))


@njit(_SHARES(_ROW, _ROW, _ROWS), cache=True)
def _shares(k, move, listed):
    """Return the parts of a transfer, (first burst, end, command) a row, channel by channel.

    The parts of channel c are the rows from ``begin[c]`` to ``begin[c + 1]``, in their order.
    """
    channels, low = k[CHANNELS], k[CHANNEL_LOW]
    begin = np.zeros(channels + 1, np.int64)
    parts = np.empty((0, 3), np.int64)
    for fill in range(2):
        place = begin.copy()
        for piece in range(move[M_PIECES]):
            first, end, kind = _bounds(k, move, listed, piece)
            chunk = first >> low
            for near in range(chunk, min(chunk + channels, ((end - 1) >> low) + 1)):
                channel = near & (channels - 1)
                if fill:
                    at = place[channel]
                    parts[at, 0], parts[at, 1] = _below(k, channel, first), _below(k, channel, end)
                    parts[at, 2] = kind
                    place[channel] += 1
                else:
                    begin[channel + 1] += 1
        if not fill:
            for channel in range(channels):
                begin[channel + 1] += begin[channel]
            parts = np.empty((begin[channels], 3), np.int64)
    return begin, parts


@njit(boolean(_ROW, _ROWS, int64, int64), cache=True)
def _same_share(begin, parts, one, other):
    """Return whether two channels have the same bursts, of `_shares`, in the same order."""
    count = begin[one + 1] - begin[one]
    if begin[other + 1] - begin[other] != count:
        return False
    for n in range(count):
        for field in range(3):
            if parts[begin[one] + n, field] != parts[begin[other] + n, field]:
                return False
    return True


@njit(_TWO(_ROW, _ROW, _ROWS, int64, int64, int64), cache=True)
def _pass_parts(k, move, listed, channel, piece, count):
    """Return the number of the piece after `count` parts from `piece` on, and how many there were.

    There are fewer only when the transfer ends.
    """
    found = 0
    while found < count:
        piece, low, high, _ = _next_part(k, move, listed, channel, piece)
        if low >= high:
            break
        found += 1
    return piece, found


@njit(void(_ROW, _ROWS, _ROWS, _ROWS, int64, int64), cache=True)
def _lead(k, s, m, listed, old, new):
    """Let channel `new` go on from the state of its leader `old` as a leader of its own.

    Both have as many parts still to come in each lane, but not of the same pieces.
    """
    for place in range(s.shape[1]):  # assigning a whole row takes seconds to compile
        s[new, place] = s[old, place]
    s[new, MEMBERS] = 0
    for at in range(k[AT_LANE], k[AT_LANE] + k[PORTS] * L_WIDTH, L_WIDTH):
        if s[old, at + L_BURST] < s[old, at + L_END]:
            move = m[s[old, at + L_MOVE]]
            _, rest = _pass_parts(k, move, listed, old, s[old, at + L_PIECE], NEVER)
            _, all_parts = _pass_parts(k, move, listed, new, 0, NEVER)
            s[new, at + L_PIECE], _ = _pass_parts(k, move, listed, new, 0, all_parts - rest)


@njit(void(_ROW, _ROWS, _ROWS, _ROWS, int64), cache=True)
def _part(k, s, m, listed, i):
    """Part the channels whose bursts of transfer `i` are not their leader's."""
    begin, parts = _shares(k, m[i], listed)
    before = np.empty(k[CHANNELS], np.int64)
    for channel in range(k[CHANNELS]):
        before[channel] = old = s[channel, LEADER]
        if old == channel:
            continue
        for leader in range(old, channel + 1):  # a leader is the first of those that follow it
            if before[leader] == old and s[leader, LEADER] == leader and leader < channel:
                if _same_share(begin, parts, leader, channel):
                    break
        if leader == channel:
            _lead(k, s, m, listed, old, channel)
        s[channel, LEADER] = leader
        s[old, MEMBERS] -= 1
        s[leader, MEMBERS] += 1


@njit(boolean(_ROW, _ROWS, _ROWS, _ROW, int64, _ROW, _ROW, int64, int64), cache=True)
def _same_work(k, m, listed, started, port, lane, other_lane, one, other):
    """Return whether two channels whose lanes hold equal parts also have equal parts to come."""
    piece, other_piece = lane[L_PIECE], other_lane[L_PIECE]
    for sequence in range(lane[L_SEQUENCE], started[port]):
        move = m[port * k[DEPTH] + (sequence & (k[DEPTH] - 1))]
        while piece < move[M_PIECES] or other_piece < move[M_PIECES]:
            piece, low, high, kind = _next_part(k, move, listed, one, piece)
            other_piece, its_low, its_high, its_kind = _next_part(
                k, move, listed, other, other_piece
            )
            same = low == its_low and high == its_high and kind == its_kind
            if not same and (low < high or its_low < its_high):
                return False
        piece = other_piece = 0
    return True


@njit(boolean(_ROW, _ROW, _ROW, int64), cache=True)
def _same_ranks(k, x, y, floor):
    """Compare the ranks of two channels, as `_alike` does."""
    window = k[ACT_WINDOW]
    for rank in range(k[RANKS]):
        at = k[AT_RANK] + rank * (ACTS + window)
        if x[at + DUE] != y[at + DUE] or x[at + OPEN] != y[at + OPEN]:
            return False
        if max(x[at + REFRESH_END], floor) != max(y[at + REFRESH_END], floor):
            return False
        for n in range(window):
            mine = x[at + ACTS + (x[at + ACT_HEAD] + n) % window] + k[ACT_WINDOW_CYCLES]
            its = y[at + ACTS + (y[at + ACT_HEAD] + n) % window] + k[ACT_WINDOW_CYCLES]
            if max(mine, floor) != max(its, floor):
                return False
    return True


@njit(boolean(_ROW, _ROW, _ROW, int64), cache=True)
def _same_queue(k, x, y, floor):
    """Compare the requests of two channels with as many of them, as `_alike` does."""
    for index in range(x[COUNT]):
        mine, its = _place(k, x, index), _place(k, y, index)
        for field in (Q_BANK, Q_ROW, Q_COLUMN, Q_KIND, Q_MOVE, Q_OPENED):
            if x[mine + field] != y[its + field]:
                return False
        if max(x[mine + Q_ARRIVED], floor) != max(y[its + Q_ARRIVED], floor):
            return False
    return True


@njit(boolean(_ROW, _ROWS, _ROWS, _ROW, _ROW, _ROW, int64, int64, int64), cache=True)
def _same_lanes(k, m, listed, started, x, y, one, other, floor):
    """Compare the lanes of two channels and what is to come in them, as `_alike` does."""
    for port in range(k[PORTS]):
        at = k[AT_LANE] + port * L_WIDTH
        busy = x[at + L_BURST] < x[at + L_END]
        if busy != (y[at + L_BURST] < y[at + L_END]):
            return False
        if not busy:
            continue  # nothing of this port is to come
        for field in (L_BURST, L_END, L_KIND, L_MOVE):
            if x[at + field] != y[at + field]:
                return False
        if max(x[at + L_SINCE], floor) != max(y[at + L_SINCE], floor):
            return False
        lane, its = x[at : at + L_WIDTH], y[at : at + L_WIDTH]
        if not _same_work(k, m, listed, started, port, lane, its, one, other):
            return False
    return True


@njit(boolean(_ROW, _ROWS, _ROWS, _ROWS, _ROW, int64, int64, int64), cache=True)
def _alike(k, s, m, listed, started, one, other, now):
    """Return whether two channels have equal futures: all that can matter from `now` on is equal.

    Times before `floor` are all the same: no command goes earlier, and accounting looks back no
    further than to the last data. What the data bus did last matters only while a timer of a
    column command does.
    """
    x, y, count = s[one], s[other], s[one, COUNT]
    if y[COUNT] != count or x[PASSED] != y[PASSED] or x[TURN] != y[TURN]:
        return False
    floor = now
    if count > 0:
        if x[DATA_END] != y[DATA_END]:
            return False
        floor = min(now, x[DATA_END] - max(k[CL], k[CWL]))
    if max(x[DATA_END], now) != max(y[DATA_END], now):
        return False
    for at in (ROW_BUS, COLUMN_BUS, ACCEPT, BUSY_SINCE):
        if max(x[at], floor) != max(y[at], floor):
            return False
    for at in range(k[AT_ROW], k[AT_SEEN]):
        if x[at] != y[at]:
            return False
    column = False
    for at in range(k[AT_TIMER], k[AT_ROW]):
        if max(x[at], floor) != max(y[at], floor):
            return False
        column |= x[at] > floor and (at - k[AT_TIMER]) % COMMANDS >= RD
    if column and (x[LAST_KIND] != y[LAST_KIND] or x[LAST_RANK] != y[LAST_RANK]):
        return False
    return (
        _same_ranks(k, x, y, floor)
        and _same_queue(k, x, y, floor)
        and _same_lanes(k, m, listed, started, x, y, one, other, floor)
    )


@njit(void(_ROW, _ROW, int64), cache=True)
def _settle(k, x, now):
    """Count what is certain up to `now`, so that the past leaves no trace in the state."""
    if x[COUNT] == 0 and x[DATA_END] < now:
        x[IDLE] += now - x[DATA_END]
        x[DATA_END] = now
    for rank in range(k[RANKS]):
        at = k[AT_RANK] + rank * (ACTS + k[ACT_WINDOW])
        if x[at + OPEN] > 0:
            x[ACTIVE] += now - x[at + OPEN_SINCE]
            x[at + OPEN_SINCE] = now


@njit(void(_ROW, _ROWS, _ROWS, _ROWS, _ROW, _ROWS, int64), cache=True)
def _join(k, s, m, listed, started, credit, now):
    """Let leaders with equal futures become one; `credit` keeps each channel's own counts."""
    for old in range(1, k[CHANNELS]):
        if s[old, LEADER] != old:
            continue
        for leader in range(old):
            if s[leader, LEADER] == leader:
                if _alike(k, s, m, listed, started, leader, old, now):
                    break
        else:
            continue
        _settle(k, s[leader], now)
        _settle(k, s[old], now)
        for channel in range(old, k[CHANNELS]):
            if s[channel, LEADER] == old:
                s[channel, LEADER] = leader
                for place in range(ACTIVATES, STATE):
                    credit[channel, place - ACTIVATES] += s[old, place] - s[leader, place]
        s[leader, MEMBERS] += s[old, MEMBERS]
        s[leader, NEXT] = min(s[leader, NEXT], s[old, NEXT])


@njit(int64(_ROW, _ROWS, int64), cache=True)
def _none_ends_before(k, m, now):
    """Return a cycle no transfer ends before, seen from `now`.

    Of the bursts a transfer still lacks some channel has a fair share at least, and its data bus
    takes them one by one.
    """
    soonest, latency = NEVER, min(k[CL], k[CWL])
    for i in range(k[PORTS] * k[DEPTH]):
        left = m[i, M_LEFT]
        if left == 0:
            soonest = min(soonest, m[i, M_LAST])
        elif left > 0:
            bursts = (left + k[CHANNELS] - 1) // k[CHANNELS]
            data = max(now, m[i, M_SINCE]) + latency
            soonest = min(soonest, data + bursts * k[BURST_CYCLES])
    return soonest


@njit(int64(_ROW, _ROWS, _ROWS, _ROWS, _ROW, _ROWS, int64, int64, boolean), cache=True)
def launch(k, s, m, listed, started, credit, port, time, equal):
    """Put the next transfer of `port` under way; `time` is the memory's.

    With shortcuts, channels that do the same are simulated once. A channel follows a leader while
    its whole state and its work equal the leader's: channels with equal futures join here, and
    those that the transfer gives other work part. `equal` says it gives all channels the same.
    Returns a cycle no transfer ends before.
    """
    i = port * k[DEPTH] + (started[port] & (k[DEPTH] - 1))
    left = 0
    for piece in range(m[i, M_PIECES]):
        first, end, _ = _bounds(k, m[i], listed, piece)
        left += end - first
    m[i, M_LEFT], m[i, M_FIRST], m[i, M_LAST] = left, NEVER, 0
    if k[SHORTCUTS]:
        _join(k, s, m, listed, started, credit, time)
        if not equal:
            _part(k, s, m, listed, i)
    started[port] += 1
    for channel in range(k[CHANNELS]):
        if s[channel, LEADER] == channel:
            _refill(k, s[channel], m, listed, started, channel, port)
            s[channel, NEXT] = min(s[channel, NEXT], m[i, M_SINCE])
    return _none_ends_before(k, m, time)


@njit(_TWO(_ROW, _ROWS, _ROWS, _ROWS, _ROW, _ROWS, int64), cache=True)
def run(k, s, m, listed, started, trace, until):
    """Run all channels to `until`, or to the first end of a transfer.

    Returns that cycle, and one that no transfer ends before: the same if one ends there.
    No channel passes the end of a transfer that another channel brings about: all move within a
    window in which none can end.
    """
    leaders = 0
    for c in range(k[CHANNELS]):
        leaders += s[c, LEADER] == c
    for i in range(k[PORTS] * k[DEPTH]):
        if m[i, M_LEFT] == 0:
            until = min(until, m[i, M_LAST])
    while True:
        now = NEVER
        for c in range(k[CHANNELS]):
            if s[c, LEADER] == c:
                now = min(now, s[c, NEXT])
        if now >= until or trace[0, 0] == len(trace) - 1:
            return until, _none_ends_before(k, m, min(now, until))
        horizon = until
        if leaders > 1:
            horizon = min(until, _none_ends_before(k, m, now))
        for c in range(k[CHANNELS]):
            if s[c, LEADER] == c and s[c, NEXT] < horizon:
                until = min(until, _advance(k, s[c], m, listed, started, trace, horizon))
