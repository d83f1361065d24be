"""The compiled DRAM controller: what happens in each channel, command by command.

Every function here runs compiled, or as plain Python with ``NUMBA_DISABLE_JIT=1``: one source.
All of them live in this file and are given the machine's constants, because numba's cache does
not see an edit of another file. They work on three arrays of int64, whose places have names:

``k``, the machine's constants; ``x``, one channel's whole state, in one row; ``m``, the transfers.
Functions on the way of every burst are inlined: a call counts references of its arrays, which
costs more than most of them do.

A channel is simulated no further than an answer needs: `run` moves those whose bursts decide which
transfer ends next, the others stay behind, each with its own clock. Nothing is lost by that, as a
channel's commands depend on its own requests alone; but no channel passes the end of a transfer,
since a new one may start there.
"""

import numpy as np
from numba import boolean, config, int64, types, void
from numba.extending import intrinsic

from archsim.engine.compiled import part as njit

__all__ = ["catch_up", "issue", "launch", "ready_at", "run", "take_done"]

NEVER = 1 << 62
# Commands, in the order of machine.dram.COMMANDS; columns of a timer.
ACT, PRE, PREA, REF, RD, WR = range(6)
COMMANDS = 6
# Classes of commands that are legal in the same cycle, first come first.
BY_REFRESH, BY_COLUMN, BY_ROW = range(3)
# What an accepted request adds to the choice of commands: nothing, a hit, a row command, or the
# wish to have a row closed that others still hit.
NOTHING, NEW_HIT, NEW_ROW, NEW_RIVAL = range(4)

# Constants k. Bank >> RANK_BITS is its rank. AT_*: where a part of x begins. FIELDS is (lowest bit,
# mask) of row, rank, group, bank and column. RUN_STEP, for RD and for WR: the cycles between such
# commands to one row, or 0 if `_run_row` does not know the rules; RUN_WIDE: whether none to another
# bank may come sooner; RUN_DEAF: whether none of the other kind may come as soon. RULE_START: for
# each command where the rules that count from it begin. Of a rule on a bank, its group or its rank,
# the number of which is the bank's >> SHIFT, FLIP makes another rank of the rank; TIMER is the
# timer in x of the first of them, for the command before.
(
    CHANNELS, RANKS, BANKS, GROUPS, RANK_BITS, GROUP_BITS, PORTS, DEPTH, QUEUE, OVERTAKES,
    SHARED_BUS, SHORTCUTS, REFRESHES, BURST_CYCLES, BURST_BITS, CL, CWL, RFC, REFI,
    ACT_WINDOW, ACT_WINDOW_CYCLES, CHANNEL_LOW, CHANNEL_BITS,
    AT_TIMER, AT_ROW, AT_BANK, AT_HITTING, AT_WAITING, AT_LEFT, AT_RANK, AT_QUEUE, AT_LANE, WIDTH,
    FIELDS,
) = range(34)  # fmt: skip
RUN_STEP = FIELDS + 10
RUN_WIDE = RUN_STEP + 2
RUN_DEAF = RUN_WIDE + 2
RULE_START = RUN_DEAF + 2
CONSTANTS = RULE_START + COMMANDS + 1
RULE_SHIFT, RULE_FLIP, RULE_TIMER, RULE_CYCLES, RULE = range(5)

# State x of one channel. Requests, in any place of the queue, are in one list by age from HEAD to
# TAIL, and free places in another from FREE; place 0 is none. OFFERED: from when a port offers one.
# LEADER: the channel simulated in this one's place; MEMBERS: how many it stands for; AFTER: the
# next leader, or -1. OPEN_ROWS: a sum over the open rows: where it differs, so do they. HITTING:
# how many banks have a hit; WAITING: how many an oldest request that is none. PICK_*: the next
# command, chosen ahead and kept until it is issued; PLACE is its request or its rank. RUN: the pick
# is a hit and those that follow it in its row may be served ahead, as `_run_row` says. No row
# command comes before RUN_ROW, whether there is a run or not; no refresh comes before RUN_DUE; no
# hit of another bank has kept others waiting since before RUN_RIVAL, none is older than RUN_AGE.
# HIT_*: the first of the hits as it was found last, and whether a run may follow it.
(
    NOW, NEXT, ROW_BUS, COLUMN_BUS, ACCEPT, OFFERED, HEAD, TAIL, FREE, COUNT, AGE, PASSED, TURN,
    BUSY_SINCE, DATA_END, LAST_KIND, LAST_RANK, LEADER, MEMBERS, AFTER, OPEN_ROWS, HITTING, WAITING,
    PICK_KNOWN, PICK_TIME, PICK_CLASS, PICK_RIVAL, PICK_AGE, PICK_PLACE,
    RUN, RUN_ROW, RUN_DUE, RUN_RIVAL, RUN_AGE,
    HIT_KNOWN, HIT_TIME, HIT_RIVAL, HIT_AGE, HIT_PLACE, HIT_RUN,
) = range(40)  # fmt: skip
# Counters; those from BUSY on are classes of cycles and sum to the total.
(
    ACTIVATES, READS, WRITES, PRECHARGES, REFRESHED, HITS, MISSES, CONFLICTS, ACTIVE,
    BUSY, IDLE, REFRESH, ROW_MISS, TURNAROUND, LATE, SPACING,
) = range(40, 56)  # fmt: skip
# Then a timer for each bank, group, rank and the channel: the earliest cycle of each command.
# A row for each bank: the open one, or -1. The requests of each bank: the oldest and the youngest,
# the oldest RD and WR that hit the open row, and when the oldest to another row arrived, or NEVER;
# and its places, from 1, in the lists that follow: of the banks with hits, and of those whose
# oldest request waits for its row. Then how many bursts of each transfer are still to be issued
# here. A rank: the last activates are a ring behind it.
STATE = 56
B_HEAD, B_TAIL, B_READ, B_WRITE, B_RIVAL, B_HITTING, B_WAITING, B_WIDTH = range(8)
DUE, OPEN, OPEN_SINCE, REFRESH_END, ACT_HEAD, ACTS = range(6)
# A request. OPENED: 0 its row was open, 1 it opened it, 2 it closed another first. AFTER: the next
# of its bank.
(
    Q_BANK, Q_ROW, Q_COLUMN, Q_KIND, Q_MOVE, Q_ARRIVED, Q_OPENED, Q_AGE, Q_PREVIOUS, Q_NEXT,
    Q_AFTER, Q_WIDTH,
) = range(12)  # fmt: skip
# A lane, the place of one port in this channel, in the channel's own burst numbers; those to before
# SAME lie in ROW of BANK.
(
    L_SEQUENCE, L_PIECE, L_BURST, L_END, L_KIND, L_MOVE, L_SINCE, L_BANK, L_ROW, L_SAME, L_WIDTH,
) = range(11)  # fmt: skip

# A transfer m[i]. LISTED: where its pieces begin in the list, or -1; FIRST, LAST: cycles of data;
# LEFT: channels that have bursts to issue, or -1 when it is not under way; BOUND: it ends no
# earlier. BEFORE, AFTER: its neighbours among those under way, by age; the row behind the
# transfers begins and ends that list.
(
    M_BASE, M_BYTES, M_STRIDE, M_PIECES, M_KIND, M_LISTED, M_SINCE, M_LEFT, M_FIRST, M_LAST,
    M_BOUND, M_BEFORE, M_AFTER, MOVE,
) = range(14)  # fmt: skip

# Types of arguments. Functions not inlined are compiled once, for these: numba would compile each
# anew for every literal it is called with.
_ROW, _ROWS, _P = int64[::1], int64[:, ::1], types.CPointer(int64)
_TWO, _THREE, _FOUR = (types.UniTuple(int64, count) for count in (2, 3, 4))


if vars(config)["DISABLE_JIT"]:

    def _flat(array):
        return array.reshape(-1)

    def _at(flat, place):
        return flat[place:]

else:

    @intrinsic
    def _flat(_, array):
        """Return where the numbers of an array lie: like it, but in one row, unchecked, uncounted.

        Numba checks every index of an array for its sign, and counts who holds the array at every
        call; both cost more than most of what happens here. The caller keeps the array alive.
        """

        def lower(context, builder, signature, arguments):
            return context.make_array(signature.args[0])(context, builder, arguments[0]).data

        return _P(array), lower

    @intrinsic
    def _at(_, flat, place):
        """Return the numbers of `flat` from `place` on."""

        def lower(context, builder, signature, arguments):
            return builder.gep(arguments[0], [arguments[1]])

        return _P(flat, int64), lower


@njit(_P(_P, _P, int64), cache=True)
def _channel(k, s, channel):
    """Return the state of a channel."""
    return _at(s, channel * k[WIDTH])


@njit(_P(_P, int64), cache=True)
def _transfer(m, i):
    """Return a transfer."""
    return _at(m, i * MOVE)


@njit(int64(_P, _P, int64, int64), cache=True)
def _ready_at(k, x, command, bank):
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


@njit(void(_P, _P, int64, int64, int64), cache=True)
def _start_timers(k, x, command, bank, now):
    """Apply every rule that counts from `command`."""
    for i in range(k[RULE_START + command], k[RULE_START + command + 1], RULE):
        node = (bank >> k[i + RULE_SHIFT]) ^ k[i + RULE_FLIP]
        place = k[i + RULE_TIMER] + node * COMMANDS
        x[place] = max(x[place], now + k[i + RULE_CYCLES])


@njit(cache=True, inline="always")
def _hold_bus(k, x, command, now):
    """Occupy the command bus of `command` for its cycle."""
    if command >= RD or k[SHARED_BUS]:
        x[COLUMN_BUS] = max(x[COLUMN_BUS], now + 1)
    if command < RD or k[SHARED_BUS]:
        x[ROW_BUS] = max(x[ROW_BUS], now + 1)


@njit(cache=True, inline="always")
def _weight(bank, row):
    """Return what an open row adds to OPEN_ROWS."""
    return (row + 1) * (2 * bank + 1)


@njit(void(_P, _P, int64, int64, int64, int64), cache=True)
def _issue(k, x, command, bank, row, now):
    """Issue `command`; the caller has asked `ready_at`. Updates timers, buses, rows, counters."""
    _start_timers(k, x, command, bank, now)
    _hold_bus(k, x, command, now)
    rank = bank >> k[RANK_BITS]
    at = k[AT_RANK] + rank * (ACTS + k[ACT_WINDOW])
    if command == ACT:
        x[k[AT_ROW] + bank] = row
        x[OPEN_ROWS] += _weight(bank, row)
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
                x[OPEN_ROWS] -= _weight(place - k[AT_ROW], x[place])
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


@njit(cache=True, inline="always")
def _due(k, x, bank):
    """Return when the next refresh of the rank of `bank` is due, or NEVER."""
    if not k[REFRESHES]:
        return NEVER
    return x[k[AT_RANK] + (bank >> k[RANK_BITS]) * (ACTS + k[ACT_WINDOW]) + DUE]


@njit(cache=True, inline="always")
def _enlist(x, first, count, bank, own):
    """Put `bank`, whose place is to be in the cell `own`, into the list that begins at `first`."""
    x[first + x[count]] = bank
    x[count] += 1
    x[own] = x[count]


@njit(cache=True, inline="always")
def _delist(k, x, first, count, own, field):
    """Take the bank whose place is in the cell `own`, its `field`, out of the list at `first`."""
    x[count] -= 1
    last, place = x[first + x[count]], x[own]
    x[first + place - 1] = last
    x[k[AT_BANK] + last * B_WIDTH + field] = place
    x[own] = 0


@njit(void(_P, _P, int64), cache=True)
def _relist(k, x, bank):
    """Let the lists of banks that hit and that wait for a row have `bank`, if it belongs there."""
    at = k[AT_BANK] + bank * B_WIDTH
    head, read, write = x[at + B_HEAD], x[at + B_READ], x[at + B_WRITE]
    if (read | write != 0) != (x[at + B_HITTING] != 0):
        if x[at + B_HITTING]:
            _delist(k, x, k[AT_HITTING], HITTING, at + B_HITTING, B_HITTING)
        else:
            _enlist(x, k[AT_HITTING], HITTING, bank, at + B_HITTING)
    waits = head != 0 and head != read and head != write
    if waits != (x[at + B_WAITING] != 0):
        if waits:
            _enlist(x, k[AT_WAITING], WAITING, bank, at + B_WAITING)
            x[RUN_ROW] = 0
        else:
            _delist(k, x, k[AT_WAITING], WAITING, at + B_WAITING, B_WAITING)


@njit(void(_P, _P, int64, int64, int64, int64, int64), cache=True)
def _offer(k, x, command, bank, rival, place, time):
    """Keep the command that the request at `place` asks for, if it goes before the one picked.

    The earlier goes first, then the hit, then the hit whose row has kept another request waiting
    longest: when its hits are done the bank can change rows, hidden behind the other hits. Of
    equals the older request's goes. A rank that is due for refresh takes no new command.
    """
    group = BY_COLUMN if command >= RD else BY_ROW
    if time > x[PICK_TIME] or time >= _due(k, x, bank):
        return
    if time == x[PICK_TIME]:
        if group > x[PICK_CLASS]:
            return
        if group == x[PICK_CLASS]:
            if rival > x[PICK_RIVAL]:
                return
            if rival == x[PICK_RIVAL] and x[place + Q_AGE] > x[PICK_AGE]:
                return
    x[PICK_TIME], x[PICK_CLASS], x[PICK_RIVAL], x[PICK_PLACE] = time, group, rival, place
    x[PICK_AGE] = x[place + Q_AGE]


@njit(cache=True, inline="always")
def _legal(k, x, command, bank, floor):
    """Return what `ready_at` does, given that of the channel and its bus as `floor`."""
    timer = k[AT_TIMER] + command
    at_group = timer + (k[BANKS] + (bank >> k[GROUP_BITS])) * COMMANDS
    at_rank = timer + (k[BANKS] + k[GROUPS] + (bank >> k[RANK_BITS])) * COMMANDS
    return max(max(x[timer + bank * COMMANDS], x[at_group]), max(x[at_rank], floor))


@njit(cache=True, inline="always")
def _note_other(x, rival, age):
    """Note a hit of another bank than the pick's."""
    x[RUN_RIVAL], x[RUN_AGE] = min(x[RUN_RIVAL], rival), min(x[RUN_AGE], age)


@njit(cache=True, inline="always")
def _first(time, rival, age, its_time, its_rival, its_age):
    """Return whether a hit goes before another: sooner, rival waiting longer, older."""
    if time != its_time:
        return time < its_time
    return rival < its_rival or (rival == its_rival and age < its_age)


@njit(void(_P, _P), cache=True)
def _pick_hit(k, x):
    """Choose among the hits, and note what a run must know of those that were not chosen.

    A bank offers its oldest hit of either kind.
    """
    best, best_rival, best_age, chosen, kinds = NEVER, NEVER, NEVER, 0, 0
    x[HIT_KNOWN], x[HIT_RUN], x[RUN_RIVAL], x[RUN_AGE] = 1, 0, NEVER, NEVER
    barred, head, first = x[PASSED] >= k[OVERTAKES], x[HEAD], k[AT_HITTING]
    channel = k[AT_TIMER] + (k[BANKS] + k[GROUPS] + k[RANKS]) * COMMANDS
    bus = max(x[COLUMN_BUS], x[NOW])
    for kind in range(RD, WR + 1):
        mine, mine_rival, mine_age, its = NEVER, NEVER, NEVER, 0
        others_rival, others_age = NEVER, NEVER
        floor = max(bus, x[channel + kind])
        for n in range(first, first + x[HITTING]):
            bank = x[n]
            at = k[AT_BANK] + bank * B_WIDTH
            place = x[at + B_READ + kind - RD]
            if place == 0:
                continue
            kinds |= kind - RD + 1
            rival, age = x[at + B_RIVAL], x[place + Q_AGE]
            time = _legal(k, x, kind, bank, floor)
            late = (barred and place != head) or time >= _due(k, x, bank)
            if not late and _first(time, rival, age, mine, mine_rival, mine_age):
                time, mine = mine, time
                rival, mine_rival = mine_rival, rival
                age, mine_age = mine_age, age
                its = place
            others_rival, others_age = min(others_rival, rival), min(others_age, age)
        if its and _first(mine, mine_rival, mine_age, best, best_rival, best_age):
            best, best_rival, best_age, chosen = mine, mine_rival, mine_age, its
            x[RUN_RIVAL], x[RUN_AGE] = others_rival, others_age
    x[HIT_TIME], x[HIT_RIVAL], x[HIT_AGE], x[HIT_PLACE] = best, best_rival, best_age, chosen
    if k[SHORTCUTS] and chosen:
        step = RUN_STEP + x[chosen + Q_KIND] - RD
        if k[step] > 0 and (kinds < 3 or k[step + RUN_DEAF - RUN_STEP]):
            x[HIT_RUN] = k[step + RUN_WIDE - RUN_STEP] != 0 or x[RUN_AGE] == NEVER


@njit(void(_P, _P, int64), cache=True)
def _keep_hit(k, x, bank):
    """Keep what is known of the first of the hits, if it stays so, now that `bank` is opened."""
    first, at = x[HIT_PLACE], k[AT_BANK] + bank * B_WIDTH
    x[HIT_KNOWN] = x[HIT_KNOWN] and first > 0
    for kind in range(RD, WR + 1):
        place = x[at + B_READ + kind - RD]
        if not x[HIT_KNOWN] or place == 0:
            continue
        if _ready_at(k, x, kind, bank) <= x[HIT_TIME]:
            x[HIT_KNOWN] = 0
        elif kind != x[first + Q_KIND]:
            x[HIT_RUN] = x[HIT_RUN] and k[RUN_DEAF + WR - kind]
        else:
            _note_other(x, x[at + B_RIVAL], x[place + Q_AGE])
            x[HIT_RUN] = x[HIT_RUN] and k[RUN_WIDE + kind - RD]


@njit(void(_P, _P), cache=True)
def _pick_row(k, x):
    """Offer the row command of each bank whose oldest request is no hit; note the soonest."""
    soonest, near, limit, first = NEVER, -1, 0, k[AT_WAITING]
    channel = k[AT_TIMER] + (k[BANKS] + k[GROUPS] + k[RANKS]) * COMMANDS
    bus = max(x[ROW_BUS], x[NOW])
    for n in range(first, first + x[WAITING]):
        bank = x[n]
        if x[k[AT_ROW] + bank] < 0:
            command, rank = ACT, bank >> k[RANK_BITS]
            if rank != near:
                ring = k[AT_RANK] + rank * (ACTS + k[ACT_WINDOW])
                limit = x[ring + ACTS + x[ring + ACT_HEAD]] + k[ACT_WINDOW_CYCLES]
                limit = max(limit, max(bus, x[channel + ACT]))
                near = rank
            time = _legal(k, x, ACT, bank, limit)
        else:
            time, command = _legal(k, x, PRE, bank, max(bus, x[channel + PRE])), PRE
        soonest = min(soonest, time)
        if time <= x[PICK_TIME]:
            _offer(k, x, command, bank, NEVER, x[k[AT_BANK] + bank * B_WIDTH + B_HEAD], time)
    x[RUN_ROW] = soonest


@njit(void(_P, _P), cache=True)
def _pick_refresh(k, x):
    """Offer the refresh of each rank, or what closes its banks for it; note when one is due."""
    x[RUN_DUE] = NEVER
    for rank in range(k[RANKS]):
        at = k[AT_RANK] + rank * (ACTS + k[ACT_WINDOW])
        due = x[at + DUE]
        x[RUN_DUE] = min(x[RUN_DUE], due)
        if due > x[PICK_TIME]:
            continue
        legal = _ready_at(k, x, PREA if x[at + OPEN] > 0 else REF, rank << k[RANK_BITS])
        time = max(max(legal, due), x[NOW])
        if time < x[PICK_TIME] or (time == x[PICK_TIME] and x[PICK_CLASS] != BY_REFRESH):
            x[PICK_TIME], x[PICK_CLASS], x[PICK_PLACE] = time, BY_REFRESH, rank


@njit(void(_P, _P), cache=True)
def _pick(k, x):
    """Choose among refresh and all requests, and note whether a run may follow."""
    x[PICK_KNOWN], x[RUN_DUE] = 1, NEVER
    if not x[HIT_KNOWN]:
        _pick_hit(k, x)
    x[PICK_TIME], x[PICK_RIVAL], x[PICK_AGE] = x[HIT_TIME], x[HIT_RIVAL], x[HIT_AGE]
    x[PICK_PLACE], x[PICK_CLASS] = x[HIT_PLACE], BY_COLUMN if x[HIT_PLACE] else BY_ROW
    if x[RUN_ROW] < x[PICK_TIME] or not k[SHORTCUTS]:  # of equals the hit goes first
        _pick_row(k, x)
    if k[REFRESHES]:
        _pick_refresh(k, x)
    x[RUN] = x[HIT_RUN] and x[PICK_CLASS] == BY_COLUMN


@njit(int64(_P, int64, int64), cache=True)
def _below(k, channel, burst):
    """Return how many bursts with a smaller number than `burst` lie in `channel`."""
    span = k[CHANNEL_LOW] + k[CHANNEL_BITS]
    inside = (burst & ((1 << span) - 1)) - (channel << k[CHANNEL_LOW])
    inside = min(max(inside, 0), 1 << k[CHANNEL_LOW])
    return ((burst >> span) << k[CHANNEL_LOW]) + inside


@njit(_THREE(_P, _P, _P, int64), cache=True)
def _bounds(k, move, listed, piece):
    """Return the first burst of a piece, the one after its last, and its command."""
    base, kind = move[M_BASE] + piece * move[M_STRIDE], move[M_KIND]
    if move[M_LISTED] >= 0:
        place = (move[M_LISTED] + piece) * 2
        base, kind = listed[place], listed[place + 1]
    last = (base + move[M_BYTES] - 1) >> k[BURST_BITS]
    return base >> k[BURST_BITS], last + 1, kind


@njit(_FOUR(_P, _P, _P, int64, int64), cache=True)
def _next_part(k, move, listed, channel, piece):
    """Find the first piece from `piece` on with a burst in `channel`.

    Returns the number of the piece after it, its first burst in the channel's own numbers, the one
    after its last, and its command; an empty part when there is none.
    """
    low, others = k[CHANNEL_LOW], k[CHANNELS] - 1
    while piece < move[M_PIECES]:
        first, end, kind = _bounds(k, move, listed, piece)
        piece += 1
        chunk = first >> low
        if ((channel - chunk) & others) <= ((end - 1) >> low) - chunk:
            return piece, _below(k, channel, first), _below(k, channel, end), kind
    return piece, 0, 0, 0


@njit(void(_P, _P, _P, _P, _P, int64, int64), cache=True)
def _refill(k, x, m, listed, started, channel, port):
    """Move an empty lane on to the port's next piece with a burst in this channel, if any."""
    at = k[AT_LANE] + port * L_WIDTH
    while x[at + L_BURST] >= x[at + L_END] and x[at + L_SEQUENCE] < started[port]:
        i = port * k[DEPTH] + (x[at + L_SEQUENCE] & (k[DEPTH] - 1))
        move = _transfer(m, i)
        if x[at + L_PIECE] == move[M_PIECES]:
            x[at + L_SEQUENCE] += 1
            x[at + L_PIECE] = 0
            continue
        piece, low, high, kind = _next_part(k, move, listed, channel, x[at + L_PIECE])
        x[at + L_PIECE], x[at + L_BURST], x[at + L_END] = piece, low, high
        x[at + L_KIND], x[at + L_MOVE], x[at + L_SINCE] = kind, i, move[M_SINCE]
        x[at + L_SAME] = 0
    x[OFFERED] = NEVER
    for at in range(k[AT_LANE], k[AT_LANE] + k[PORTS] * L_WIDTH, L_WIDTH):
        if x[at + L_BURST] < x[at + L_END]:
            x[OFFERED] = min(x[OFFERED], x[at + L_SINCE])


@njit(cache=True, inline="always")
def _arrival(k, x):
    """Return when the next request enters the queue: one a cycle, while there is room."""
    return max(x[OFFERED], x[ACCEPT]) if x[COUNT] < k[QUEUE] else NEVER


@njit(cache=True, inline="always")
def _enqueue(k, x, place, bank, row, kind, now):
    """Append a request to the queue and to its bank; return what that adds to the choice."""
    at = k[AT_BANK] + bank * B_WIDTH
    x[place + Q_AGE], x[place + Q_AFTER], x[place + Q_NEXT] = x[AGE], 0, 0
    x[place + Q_PREVIOUS] = x[TAIL]
    x[AGE] += 1
    if x[COUNT] == 0:
        x[HEAD], x[BUSY_SINCE] = place, now
    else:
        x[x[TAIL] + Q_NEXT] = place
    x[TAIL] = place
    x[COUNT] += 1
    alone = x[at + B_HEAD] == 0
    if alone:
        x[at + B_HEAD] = place
    else:
        x[x[at + B_TAIL] + Q_AFTER] = place
    x[at + B_TAIL] = place
    if x[k[AT_ROW] + bank] == row:
        hit = at + B_READ + kind - RD
        if x[hit]:
            return NOTHING
        x[hit] = place
        if x[at + B_HITTING] == 0:
            _enlist(x, k[AT_HITTING], HITTING, bank, at + B_HITTING)
        return NEW_HIT
    if alone:
        _enlist(x, k[AT_WAITING], WAITING, bank, at + B_WAITING)
    if x[at + B_RIVAL] == NEVER:
        x[at + B_RIVAL] = now
        if x[at + B_HITTING]:
            return NEW_RIVAL
    return NEW_ROW if alone else NOTHING


@njit(int64(_P, _P, _P, _P, _P, int64), cache=True)
def _accept(k, x, m, listed, started, now):
    """Take one request from the ports, round-robin; return what it adds to the choice."""
    port = x[TURN]
    at = k[AT_LANE] + port * L_WIDTH
    while x[at + L_BURST] >= x[at + L_END] or x[at + L_SINCE] > now:
        port = port + 1 if port + 1 < k[PORTS] else 0
        at = k[AT_LANE] + port * L_WIDTH
    burst, place = x[at + L_BURST], x[FREE]
    if burst >= x[at + L_SAME]:
        bank = (burst >> k[FIELDS + 2] & k[FIELDS + 3]) << k[RANK_BITS]
        bank += (burst >> k[FIELDS + 4] & k[FIELDS + 5]) << k[GROUP_BITS]
        x[at + L_BANK] = bank + (burst >> k[FIELDS + 6] & k[FIELDS + 7])
        x[at + L_ROW] = burst >> k[FIELDS] & k[FIELDS + 1]
        x[at + L_SAME] = burst + 1 if k[FIELDS + 8] else (burst | k[FIELDS + 9]) + 1
    bank, row, kind = x[at + L_BANK], x[at + L_ROW], x[at + L_KIND]
    x[FREE] = x[place + Q_NEXT]
    x[place + Q_BANK], x[place + Q_ROW], x[place + Q_KIND] = bank, row, kind
    x[place + Q_COLUMN] = burst >> k[FIELDS + 8] & k[FIELDS + 9]
    x[place + Q_MOVE], x[place + Q_ARRIVED], x[place + Q_OPENED] = x[at + L_MOVE], now, 0
    x[ACCEPT] = now + 1
    x[TURN] = port + 1 if port + 1 < k[PORTS] else 0
    x[at + L_BURST] = burst + 1
    if burst + 1 >= x[at + L_END]:
        _refill(k, x, m, listed, started, x[LEADER], port)
    return _enqueue(k, x, place, bank, row, kind, now)


@njit(void(_P, _P, int64), cache=True)
def _reconsider(k, x, added):
    """Let the pick be again what `_pick` would choose, now that the youngest request came.

    A row command that came does not end a run, but may come in its way; a hit does not if it is
    one of those that `_pick` allows beside a run.
    """
    if added == NEW_HIT or added == NEW_RIVAL:
        x[HIT_KNOWN] = 0
    if not x[PICK_KNOWN] or added == NOTHING:
        return
    if added == NEW_RIVAL:
        x[PICK_KNOWN] = 0
        return
    place = x[TAIL]
    bank, command, rival = x[place + Q_BANK], x[place + Q_KIND], NEVER
    if added == NEW_ROW:
        command = ACT if x[k[AT_ROW] + bank] < 0 else PRE
    else:
        rival = x[k[AT_BANK] + bank * B_WIDTH + B_RIVAL]
        if x[RUN]:
            kind = x[x[PICK_PLACE] + Q_KIND]
            if command != kind:
                x[RUN] = k[RUN_DEAF + kind - RD]
            else:
                _note_other(x, rival, x[place + Q_AGE])
                x[RUN] = k[RUN_WIDE + kind - RD]
        if place != x[HEAD] and x[PASSED] >= k[OVERTAKES]:
            return
    time = max(_ready_at(k, x, command, bank), x[NOW])
    if added == NEW_ROW:
        x[RUN_ROW] = min(x[RUN_ROW], time)
    _offer(k, x, command, bank, rival, place, time)
    x[RUN] = x[RUN] and x[PICK_PLACE] != place


@njit(int64(_P, int64, int64, int64, int64), cache=True)
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
    x[LAST_KIND], x[LAST_RANK] = kind, rank


@njit(cache=True, inline="always")
def _leave(k, x, place, bank, row, kind):
    """Take the oldest request of `kind` that hits the open `row` of `bank` out of the queue."""
    at, after = k[AT_BANK] + bank * B_WIDTH, x[place + Q_AFTER]
    if x[at + B_HEAD] == place:
        x[at + B_HEAD] = after
        before = 0
    else:
        before = x[at + B_HEAD]
        while x[before + Q_AFTER] != place:
            before = x[before + Q_AFTER]
        x[before + Q_AFTER] = after
    if after == 0:
        x[at + B_TAIL] = before
    while after and (x[after + Q_ROW] != row or x[after + Q_KIND] != kind):
        after = x[after + Q_AFTER]
    x[at + B_READ + kind - RD] = after
    if after == 0 or x[at + B_HEAD] != after:
        _relist(k, x, bank)

    older, younger = x[place + Q_PREVIOUS], x[place + Q_NEXT]
    if x[HEAD] == place:
        x[HEAD], x[PASSED] = younger, 0
    else:
        x[older + Q_NEXT] = younger
        x[PASSED] += 1
    if x[TAIL] == place:
        x[TAIL] = older
    else:
        x[younger + Q_PREVIOUS] = older
    x[place + Q_NEXT] = x[FREE]
    x[FREE] = place
    x[COUNT] -= 1


@njit(cache=True, inline="always")
def _move_data(k, x, m, place, now, latency):
    """Count the burst whose command is issued now; return when its transfer's data end here.

    That is NEVER while this channel has more of its bursts to issue.
    """
    i, first, last = x[place + Q_MOVE], now + latency, now + latency + k[BURST_CYCLES]
    x[READS + x[place + Q_KIND] - RD] += 1
    x[HITS + x[place + Q_OPENED]] += 1
    x[BUSY] += k[BURST_CYCLES]
    x[DATA_END] = last
    x[ACCEPT] = max(x[ACCEPT], now + 1)
    x[k[AT_LEFT] + i] -= 1
    move = _transfer(m, i)
    move[M_FIRST] = min(move[M_FIRST], first)
    if x[k[AT_LEFT] + i] > 0:
        return NEVER
    move[M_LAST] = max(move[M_LAST], last)
    move[M_LEFT] -= x[MEMBERS]
    return last


@njit(int64(_P, _P, _P, int64, int64, boolean), cache=True)
def _serve(k, x, m, place, now, starts):
    """Issue the column command of a request and let it go; return as `_move_data` does.

    `starts` its timers, or leaves that to the last command of its run.
    """
    bank, kind = x[place + Q_BANK], x[place + Q_KIND]
    latency = k[CL] if kind == RD else k[CWL]
    _account(k, x, place, now, latency)
    if starts:
        _start_timers(k, x, kind, bank, now)
    _hold_bus(k, x, kind, now)
    end = _move_data(k, x, m, place, now, latency)
    _leave(k, x, place, bank, x[place + Q_ROW], kind)
    return end


@njit(void(_P, _P, int64, int64), cache=True)
def _find_hits(k, x, bank, row):
    """Note which requests of `bank` hit `row`, which is being opened, and since when not all do."""
    at = k[AT_BANK] + bank * B_WIDTH
    x[at + B_READ] = x[at + B_WRITE] = 0
    x[at + B_RIVAL], place = NEVER, x[at + B_HEAD]
    while place:
        hit = at + B_READ + x[place + Q_KIND] - RD
        if x[place + Q_ROW] != row:
            x[at + B_RIVAL] = min(x[at + B_RIVAL], x[place + Q_ARRIVED])
        elif x[hit] == 0:
            x[hit] = place
        place = x[place + Q_AFTER]
    _relist(k, x, bank)


@njit(void(_P, _P, int64, int64), cache=True)
def _forget_hits(k, x, first, last):
    """Note that nothing hits the banks from `first` to before `last`, which are being closed."""
    for bank in range(first, last):
        at = k[AT_BANK] + bank * B_WIDTH
        if x[at + B_HITTING]:
            x[at + B_READ] = x[at + B_WRITE] = 0
            _relist(k, x, bank)


@njit(int64(_P, _P, int64, int64), cache=True)
def _change_row(k, x, place, now):
    """Issue the row command that the request at `place` needs; return which it is."""
    bank, row = x[place + Q_BANK], x[place + Q_ROW]
    if x[k[AT_ROW] + bank] < 0:
        x[place + Q_OPENED] = max(x[place + Q_OPENED], 1)
        _issue(k, x, ACT, bank, row, now)
        _find_hits(k, x, bank, row)
        return ACT
    x[place + Q_OPENED] = 2
    _issue(k, x, PRE, bank, row, now)
    _forget_hits(k, x, bank, bank + 1)
    return PRE


@njit(boolean(_P, _P, int64, int64), cache=True)
def _stays_run(k, x, kind, bank):
    """Note what is new in another bank than the run's; return whether the run may go on."""
    at = k[AT_BANK] + bank * B_WIDTH
    place = x[at + B_READ + kind - RD]
    if x[at + B_READ + WR - kind] and not k[RUN_DEAF + kind - RD]:
        return False
    if place:
        _note_other(x, x[at + B_RIVAL], x[place + Q_AGE])
    return not place or k[RUN_WIDE + kind - RD] != 0


@njit(boolean(_P, _P, int64, int64, int64), cache=True)
def _open_ahead(k, x, kind, bank, now):
    """Issue, amid a run in `bank`, the row command of another bank that may go now, if any.

    Returns whether the run may go on.
    """
    best, best_age, place = NEVER, NEVER, 0
    for n in range(k[AT_WAITING], k[AT_WAITING] + x[WAITING]):
        if x[n] != bank:
            head = x[k[AT_BANK] + x[n] * B_WIDTH + B_HEAD]
            command = ACT if x[k[AT_ROW] + x[n]] < 0 else PRE
            time, age = max(_ready_at(k, x, command, x[n]), now), x[head + Q_AGE]
            if time < best or (time == best and age < best_age):
                best, best_age, place = time, age, head
    x[RUN_ROW] = best
    if best > now:
        return True
    x[NOW], x[RUN_ROW] = now, now + 1
    return _change_row(k, x, place, now) == PRE or _stays_run(k, x, kind, x[place + Q_BANK])


@njit(boolean(_P, _P, int64, int64, int64), cache=True)
def _accept_ahead(k, x, kind, bank, added):
    """Note what a request accepted amid a run in `bank` adds; return whether the run may go on."""
    if added == NOTHING:
        return True
    place = x[TAIL]
    other = x[place + Q_BANK]
    if added == NEW_ROW:
        command = ACT if x[k[AT_ROW] + other] < 0 else PRE
        time = max(_ready_at(k, x, command, other), x[NOW])
        x[RUN_ROW] = min(x[RUN_ROW], time)
        return True
    if other == bank:
        return x[place + Q_KIND] == kind or added == NEW_RIVAL or k[RUN_DEAF + kind - RD] != 0
    return _stays_run(k, x, kind, other)


@njit(int64(_P, _P, int64), cache=True)
def _quiet_lane(k, x, last):
    """Return the only lane with requests if the next of them add nothing to the choice.

    They are of one row of a bank that has others of their kind in front. Returns 0 if no lane has
    any, and -1 if it is not so.
    """
    only = 0
    for at in range(k[AT_LANE], k[AT_LANE] + k[PORTS] * L_WIDTH, L_WIDTH):
        if x[at + L_BURST] < x[at + L_END]:
            if only or x[at + L_SINCE] > last or x[at + L_BURST] >= x[at + L_SAME]:
                return -1
            only = at
    if only == 0:
        return 0
    bank = k[AT_BANK] + x[only + L_BANK] * B_WIDTH
    if x[bank + B_HEAD] == 0:
        return -1
    if x[k[AT_ROW] + x[only + L_BANK]] == x[only + L_ROW]:
        return only if x[bank + B_READ + x[only + L_KIND] - RD] else -1
    return only if x[bank + B_RIVAL] < NEVER else -1


@njit(int64(_P, _P, int64, int64, int64, int64), cache=True)
def _stream(k, x, place, at, last, most):
    """Serve hits of a run whose last command went at `last`, and let requests of a lane enter.

    It ends after `most` of them, or before one that ends its transfer, row, kind or run, and before
    a request enters that is not of the quiet lane `at`, or of none. The first is that at `place`,
    the oldest of its bank. Returns how many.
    """
    kind, row, move, of = x[place + Q_KIND], x[place + Q_ROW], x[place + Q_MOVE], x[place + Q_BANK]
    bank, step = k[AT_BANK] + of * B_WIDTH, k[RUN_STEP + kind - RD]
    hit, room, free, age = bank + B_READ + kind - RD, k[QUEUE] - x[COUNT], x[FREE], x[AGE]
    oldest = x[RUN_AGE] if x[bank + B_RIVAL] == x[RUN_RIVAL] else NEVER
    its_bank = its_row = its_kind = its_move = behind = burst = end = served = 0
    if at:
        its_bank, its_row, its_kind = x[at + L_BANK], x[at + L_ROW], x[at + L_KIND]
        its_move, behind = x[at + L_MOVE], x[k[AT_BANK] + its_bank * B_WIDTH + B_TAIL]
        burst, end = x[at + L_BURST], min(x[at + L_SAME], x[at + L_END] - 1)
    tail, arrival, following = x[TAIL], x[ACCEPT], last + step
    while served < most:
        while arrival <= following and room > 0 and burst < end:
            new, free = free, x[free + Q_NEXT]
            x[new + Q_BANK], x[new + Q_ROW] = its_bank, its_row
            x[new + Q_KIND], x[new + Q_MOVE] = its_kind, its_move
            x[new + Q_COLUMN] = burst >> k[FIELDS + 8] & k[FIELDS + 9]
            x[new + Q_ARRIVED], x[new + Q_OPENED], x[new + Q_AGE] = arrival, 0, age
            x[new + Q_PREVIOUS], x[new + Q_NEXT], x[new + Q_AFTER] = tail, 0, 0
            x[tail + Q_NEXT] = x[behind + Q_AFTER] = tail = behind = new
            age, arrival, room, burst = age + 1, arrival + 1, room - 1, burst + 1
        if at and room > 0 and arrival <= following:
            break
        after, younger = x[place + Q_AFTER], x[place + Q_NEXT]
        if after == 0 or x[after + Q_ROW] != row or x[after + Q_KIND] != kind:
            break
        if x[place + Q_AGE] > oldest or x[place + Q_MOVE] != move:
            break
        if x[HEAD] == place:
            x[HEAD], x[PASSED] = younger, 0
        else:
            if x[PASSED] >= k[OVERTAKES]:
                break
            x[x[place + Q_PREVIOUS] + Q_NEXT] = younger
            x[PASSED] += 1
        x[younger + Q_PREVIOUS] = x[place + Q_PREVIOUS]
        x[HITS + x[place + Q_OPENED]] += 1
        x[place + Q_NEXT], free, place = free, place, after
        arrival, following = max(arrival, following + 1), following + step
        served, room = served + 1, room + 1
    if at:
        x[at + L_BURST], x[TAIL], x[k[AT_BANK] + its_bank * B_WIDTH + B_TAIL] = burst, tail, behind
    x[bank + B_HEAD] = x[hit] = place
    x[FREE], x[COUNT], x[ACCEPT], x[AGE] = free, k[QUEUE] - room, arrival, age
    return served


@njit(int64(_P, _P, _P, int64, int64, int64), cache=True)
def _run_stream(k, x, m, place, last, limit):
    """Do what `_run_row` does, before `limit` and any row command, while it is all alike.

    The next is the request at `place`, the oldest of its bank. Returns the cycle of the run's last
    command; that was at `last`.
    """
    i, kind, step = x[place + Q_MOVE], x[place + Q_KIND], k[RUN_STEP + x[place + Q_KIND] - RD]
    most = min((min(limit - 1, x[RUN_ROW]) - last) // step, x[k[AT_LEFT] + i] - 1)
    if most < 2 or x[k[AT_BANK] + x[place + Q_BANK] * B_WIDTH + B_RIVAL] > x[RUN_RIVAL]:
        return last
    at = _quiet_lane(k, x, last)
    if at < 0:
        return last
    youngest = x[TAIL]
    count = _stream(k, x, place, at, last, most)
    if x[TAIL] != youngest:
        port = (at - k[AT_LANE]) // L_WIDTH
        x[TURN] = port + 1 if port + 1 < k[PORTS] else 0
    x[NOW] = max(x[NOW], x[ACCEPT] - 1)
    if count == 0:
        return last
    latency, move, end = (k[CL] if kind == RD else k[CWL]), _transfer(m, i), last + count * step
    x[READS + kind - RD] += count
    x[BUSY] += count * k[BURST_CYCLES]
    x[SPACING] += count * (step - k[BURST_CYCLES])
    x[DATA_END] = end + latency + k[BURST_CYCLES]
    x[k[AT_LEFT] + i] -= count
    move[M_FIRST] = min(move[M_FIRST], last + step + latency)
    return end


@njit(int64(_P, _P, _P, _P, _P, int64), cache=True)
def _run_row(k, x, m, listed, started, horizon):
    """Serve the picked hit and, at their fixed pace, those that follow it in its open row.

    Returns the horizon, or when the first transfer's data end here if that is earlier. Exact as
    long as the next command that `_pick` would choose is the next of the run:

    - it hits the row at which the last command went, with the same command: every timer but those
      that the last command started is past, so it is legal RUN_STEP cycles after it;
    - no hit of the other kind is legal as soon (RUN_DEAF) or there is none;
    - no hit of another bank is legal sooner (RUN_WIDE) or there is none; of those legal with it,
      none has a row that has kept others waiting longer, and none is older unless it has a row
      that has done so less long; the oldest request has not been overtaken too often;
    - requests that come on the way come when they would, and go into these conditions;
    - a row command to another bank goes when it would: its own rules do not know the run's column
      commands, nor theirs it (checked with RUN_STEP); it waits for a shared bus. One to the run's
      own bank may not go between two of them (checked too);
    - no refresh is due, no transfer ended here, and the horizon is not reached.

    Of the timers only those started by the last command count: the earlier ones' are all sooner.
    The data bus stands still RUN_STEP less the burst between two commands, held by that spacing:
    nothing else can be, as the later one was queued when the earlier went, and the row, the rank
    and the direction were the same.
    """
    last, place, due = x[PICK_TIME], x[PICK_PLACE], x[RUN_DUE]
    bank, row, kind = x[place + Q_BANK], x[place + Q_ROW], x[place + Q_KIND]
    latency, step = (k[CL] if kind == RD else k[CWL]), k[RUN_STEP + kind - RD]
    hit = k[AT_BANK] + bank * B_WIDTH + B_READ + kind - RD
    rival = k[AT_BANK] + bank * B_WIDTH + B_RIVAL
    x[PICK_KNOWN] = x[HIT_KNOWN] = 0
    horizon = min(horizon, _serve(k, x, m, place, last, False))
    while x[hit]:
        place = x[hit]
        if x[place + Q_AFTER] and x[k[AT_BANK] + bank * B_WIDTH + B_HEAD] == place:
            last = _run_stream(k, x, m, place, last, min(horizon, due))
        place, following = x[hit], last + step
        arrival = _arrival(k, x)
        row_time = max(x[RUN_ROW], max(x[ROW_BUS], last + 1) if k[SHARED_BUS] else x[ROW_BUS])
        soon = min(min(arrival, following), row_time)
        if soon >= horizon or soon >= due:
            break
        if arrival == soon:
            x[NOW] = arrival
            added = _accept(k, x, m, listed, started, arrival)
            if not _accept_ahead(k, x, kind, bank, added):
                break
            continue
        if x[rival] > x[RUN_RIVAL] or (x[rival] == x[RUN_RIVAL] and x[place + Q_AGE] > x[RUN_AGE]):
            break
        if place != x[HEAD] and x[PASSED] >= k[OVERTAKES]:
            break
        if following > soon:
            if not _open_ahead(k, x, kind, bank, row_time):
                break
            continue
        x[NOW] = last = following
        x[SPACING] += step - k[BURST_CYCLES]
        horizon = min(horizon, _move_data(k, x, m, place, last, latency))
        _leave(k, x, place, bank, row, kind)
    _start_timers(k, x, kind, bank, last)
    _hold_bus(k, x, kind, last)
    if x[rival] < NEVER:
        x[RUN_ROW] = 0  # the own bank's was not looked at
    return horizon


@njit(int64(_P, _P, _P, _P, int64), cache=True)
def _act(k, x, m, trace, now):
    """Issue the picked command; return when a transfer's data end here by it, or NEVER."""
    group, place = x[PICK_CLASS], x[PICK_PLACE]
    x[PICK_KNOWN] = 0
    # A row command leaves the hits of other banks as they are, under the rules that runs need.
    stays = k[SHORTCUTS] and k[RUN_STEP] > 0 and k[RUN_STEP + 1] > 0
    x[HIT_KNOWN] = x[HIT_KNOWN] and group == BY_ROW and stays
    done, row, column = NEVER, -1, -1
    if group == BY_REFRESH:
        at = k[AT_RANK] + place * (ACTS + k[ACT_WINDOW])
        command, bank = (PREA if x[at + OPEN] > 0 else REF), place << k[RANK_BITS]
        _issue(k, x, command, bank, row, now)
        _forget_hits(k, x, bank, (place + 1) << k[RANK_BITS])
        x[RUN_ROW] = 0
    else:
        bank, row = x[place + Q_BANK], x[place + Q_ROW]
        if group != BY_ROW:
            command, column = x[place + Q_KIND], x[place + Q_COLUMN]
            done = _serve(k, x, m, place, now, True)
        else:
            hits = x[k[AT_BANK] + bank * B_WIDTH + B_HITTING]
            command = _change_row(k, x, place, now)
            if command == ACT:
                _keep_hit(k, x, bank)
            else:
                row = -1
                x[HIT_KNOWN] = x[HIT_KNOWN] and hits == 0
    if trace[0] >= 0:  # the first row holds how many follow, or -1, and how many may
        trace[0] += 1
        entry = _at(trace, trace[0] * 6)
        entry[0], entry[1], entry[2] = now, x[LEADER], command
        entry[3], entry[4], entry[5] = bank, row, column
    return done


@njit(void(_P, _P, int64), cache=True)
def _skip_refreshes(k, x, horizon):
    """Let all refreshes of an idle channel before `horizon` but the last happen, if on time."""
    for rank in range(k[RANKS]):
        at = k[AT_RANK] + rank * (ACTS + k[ACT_WINDOW])
        if x[at + OPEN] > 0 or _ready_at(k, x, REF, rank << k[RANK_BITS]) > x[at + DUE]:
            return
    for rank in range(k[RANKS]):
        at = k[AT_RANK] + rank * (ACTS + k[ACT_WINDOW])
        skipped = (horizon - x[at + DUE] + k[REFI] - 1) // k[REFI] - 1
        if skipped > 0:
            x[at + DUE] += skipped * k[REFI]
            x[REFRESHED] += skipped
            x[ACTIVE] += skipped * k[RFC]


@njit(void(_P, _P, _P, _P, _P, _P, int64), cache=True)
def _advance(k, x, m, listed, started, trace, horizon):
    """Run one channel up to, not including, `horizon` or the end here of a transfer before it."""
    while True:
        if not x[PICK_KNOWN]:
            _pick(k, x)
            quiet = min(_arrival(k, x), horizon)
            idle = x[COUNT] == 0 and k[REFRESHES] and k[SHORTCUTS]
            if idle and quiet - x[PICK_TIME] > 2 * k[REFI]:
                _skip_refreshes(k, x, quiet)
                _pick(k, x)
        arrival = _arrival(k, x)
        now = min(arrival, x[PICK_TIME])
        x[NEXT] = now
        if now >= horizon or trace[0] == trace[1]:
            return
        x[NOW] = now
        if arrival == now:
            _reconsider(k, x, _accept(k, x, m, listed, started, now))
        elif x[RUN]:
            horizon = _run_row(k, x, m, listed, started, horizon)
        else:
            horizon = min(horizon, _act(k, x, m, trace, now))


@njit(cache=True, inline="always")
def _shares(k, move, listed):
    """Return the parts of a transfer, (first burst, end, command) a row, channel by channel.

    The parts of channel c are the rows from ``begin[c]`` to ``begin[c + 1]``, in their order.
    """
    channels, low, count = k[CHANNELS], k[CHANNEL_LOW], 0
    for piece in range(move[M_PIECES]):
        first, end, _ = _bounds(k, move, listed, piece)
        count += min(channels, ((end - 1) >> low) + 1 - (first >> low))
    begin, place = np.zeros(channels + 1, np.int64), np.zeros(channels + 1, np.int64)
    parts = np.empty((count, 3), np.int64)
    for fill in range(2):
        for piece in range(move[M_PIECES]):
            first, end, kind = _bounds(k, move, listed, piece)
            chunk, last = first >> low, (end - 1) >> low
            for near in range(chunk, min(chunk + channels, last + 1)):
                channel = near & (channels - 1)
                if fill:
                    at = place[channel]
                    parts[at, 0] = _below(k, channel, first)
                    whole = chunk == last
                    parts[at, 1] = parts[at, 0] + end - first if whole else _below(k, channel, end)
                    parts[at, 2] = kind
                    place[channel] += 1
                else:
                    begin[channel + 1] += 1
        if not fill:
            for channel in range(channels):
                begin[channel + 1] += begin[channel]
                place[channel] = begin[channel]
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


@njit(_TWO(_P, _P, _P, int64, int64, int64), cache=True)
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


@njit(void(_P, _P, _P, _P, int64, int64), cache=True)
def _lead(k, s, m, listed, old, new):
    """Let channel `new` go on from the state of its leader `old` as a leader of its own.

    Both have as many parts still to come in each lane, but not of the same pieces.
    """
    x, y = _channel(k, s, old), _channel(k, s, new)
    for place in range(k[WIDTH]):
        y[place] = x[place]
    y[MEMBERS] = 0
    for at in range(k[AT_LANE], k[AT_LANE] + k[PORTS] * L_WIDTH, L_WIDTH):
        if x[at + L_BURST] < x[at + L_END]:
            move = _transfer(m, x[at + L_MOVE])
            _, rest = _pass_parts(k, move, listed, old, x[at + L_PIECE], NEVER)
            _, all_parts = _pass_parts(k, move, listed, new, 0, NEVER)
            y[at + L_PIECE], _ = _pass_parts(k, move, listed, new, 0, all_parts - rest)


@njit(void(_P, _P, _P, _P, int64), cache=True)
def _part(k, s, m, listed, i):
    """Part the channels whose bursts of transfer `i` are not their leader's."""
    follows = False
    for channel in range(k[CHANNELS]):
        follows |= _channel(k, s, channel)[LEADER] != channel
    if not follows:
        return
    begin, parts = _shares(k, _transfer(m, i), listed)
    before = np.empty(k[CHANNELS], np.int64)
    for channel in range(k[CHANNELS]):
        before[channel] = old = _channel(k, s, channel)[LEADER]
        if old == channel:
            continue
        for leader in range(old, channel + 1):  # a leader is the first of those that follow it
            if before[leader] == old and leader < channel:
                leads = _channel(k, s, leader)[LEADER] == leader
                if leads and _same_share(begin, parts, leader, channel):
                    break
        if leader == channel:
            _lead(k, s, m, listed, old, channel)
        _channel(k, s, channel)[LEADER] = leader
        _channel(k, s, old)[MEMBERS] -= 1
        _channel(k, s, leader)[MEMBERS] += 1


@njit(boolean(_P, _P, _P, _P, int64, _P, _P, int64, int64), cache=True)
def _same_work(k, m, listed, started, port, lane, other_lane, one, other):
    """Return whether two channels whose lanes hold equal parts also have equal parts to come."""
    piece, other_piece = lane[L_PIECE], other_lane[L_PIECE]
    for sequence in range(lane[L_SEQUENCE], started[port]):
        move = _transfer(m, port * k[DEPTH] + (sequence & (k[DEPTH] - 1)))
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


@njit(boolean(_P, _P, _P, int64), cache=True)
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


@njit(boolean(_P, _P, _P, int64), cache=True)
def _same_queue(k, x, y, floor):
    """Compare the requests of two channels with as many of them, as `_alike` does."""
    mine, its = x[HEAD], y[HEAD]
    for _ in range(x[COUNT]):
        for field in (Q_BANK, Q_ROW, Q_COLUMN, Q_KIND, Q_MOVE, Q_OPENED):
            if x[mine + field] != y[its + field]:
                return False
        if max(x[mine + Q_ARRIVED], floor) != max(y[its + Q_ARRIVED], floor):
            return False
        mine, its = x[mine + Q_NEXT], y[its + Q_NEXT]
    return True


@njit(boolean(_P, _P, _P, _P, _P, _P, int64, int64, int64), cache=True)
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
        lane, its = _at(x, at), _at(y, at)
        if not _same_work(k, m, listed, started, port, lane, its, one, other):
            return False
    return True


@njit(boolean(_P, _P, _P, _P, _P, int64, int64, int64), cache=True)
def _alike(k, s, m, listed, started, one, other, now):
    """Return whether two channels have equal futures: all that can matter from `now` on is equal.

    Times before `floor` are all the same: no command goes earlier, and accounting looks back no
    further than to the last data. What the data bus did last matters only while a timer of a
    column command does.
    """
    x, y = _channel(k, s, one), _channel(k, s, other)
    if y[COUNT] != x[COUNT] or x[OPEN_ROWS] != y[OPEN_ROWS]:
        return False
    if x[PASSED] != y[PASSED] or x[TURN] != y[TURN]:
        return False
    floor = now
    if x[COUNT] > 0:
        if x[DATA_END] != y[DATA_END]:
            return False
        floor = min(now, x[DATA_END] - max(k[CL], k[CWL]))
    if max(x[DATA_END], now) != max(y[DATA_END], now):
        return False
    for at in (ROW_BUS, COLUMN_BUS, ACCEPT, BUSY_SINCE):
        if max(x[at], floor) != max(y[at], floor):
            return False
    for at in range(k[AT_ROW], k[AT_BANK]):
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


@njit(void(_P, _P, int64), cache=True)
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


@njit(void(_P, _P, _P, _P, _P, _P, int64), cache=True)
def _join(k, s, m, listed, started, credit, now):
    """Let leaders with equal futures become one; `credit` keeps each channel's own counts."""
    last, old = 0, _channel(k, s, 0)[AFTER]
    while old >= 0:
        leader, y = 0, _channel(k, s, old)
        while leader != old and not _alike(k, s, m, listed, started, leader, old, now):
            leader = _channel(k, s, leader)[AFTER]
        if leader == old:
            last = old
        else:
            x = _channel(k, s, leader)
            _settle(k, x, now)
            _settle(k, y, now)
            for channel in range(old, k[CHANNELS]):
                if _channel(k, s, channel)[LEADER] == old:
                    _channel(k, s, channel)[LEADER] = leader
                    own = _at(credit, channel * (STATE - ACTIVATES))
                    for place in range(ACTIVATES, STATE):
                        own[place - ACTIVATES] += y[place] - x[place]
            x[MEMBERS] += y[MEMBERS]
            x[NEXT] = min(x[NEXT], y[NEXT])
            _channel(k, s, last)[AFTER] = y[AFTER]
        old = y[AFTER]


@njit(void(_P, _P), cache=True)
def _link_leaders(k, s):
    """Make the list of leaders anew."""
    last = 0
    for channel in range(1, k[CHANNELS]):
        if _channel(k, s, channel)[LEADER] == channel:
            _channel(k, s, last)[AFTER] = channel
            last = channel
    _channel(k, s, last)[AFTER] = -1


@njit(int64(_P, _P, _P, int64), cache=True)
def _bound(k, s, m, i):
    """Return a cycle before which transfer `i` does not end.

    Each channel has yet to put its bursts on its data bus one by one, after those already there.
    """
    move, latency, channel = _transfer(m, i), min(k[CL], k[CWL]), 0
    bound = move[M_LAST]
    while channel >= 0:
        x = _channel(k, s, channel)
        left = x[k[AT_LEFT] + i]
        if left > 0:
            data = max(max(x[NEXT], move[M_SINCE]) + latency, x[DATA_END])
            bound = max(bound, data + left * k[BURST_CYCLES])
        channel = x[AFTER]
    return bound


@njit(_THREE(_P, _P), cache=True)
def _first_ends(k, m):
    """Return the first known end of a transfer, the least bound of the others, and whose it is."""
    anchor, end, bound, whose = k[PORTS] * k[DEPTH], NEVER, NEVER, -1
    i = _transfer(m, anchor)[M_AFTER]
    while i < anchor:
        move = _transfer(m, i)
        if move[M_LEFT] == 0:
            end = min(end, move[M_LAST])
        elif move[M_BOUND] < bound:
            bound, whose = move[M_BOUND], i
        i = move[M_AFTER]
    return end, bound, whose


@njit(int64(_P, _P, _P, int64), cache=True)
def _reach(k, x, m, limit):
    """Return how far a channel may go: to `limit`, or where a transfer may end that it has left."""
    anchor = k[PORTS] * k[DEPTH]
    i = _transfer(m, anchor)[M_AFTER]
    while i < anchor:
        move = _transfer(m, i)
        if x[k[AT_LEFT] + i] == 0:
            limit = min(limit, move[M_BOUND] if move[M_LEFT] > 0 else move[M_LAST])
        i = move[M_AFTER]
    return limit


@njit(void(_P, _P, _P, _P, _P, _P, int64), cache=True)
def _catch_up(k, s, m, listed, started, trace, time):
    """Bring all channels to `time`, which no transfer that is not known to end does before."""
    channel = 0
    while channel >= 0:
        x = _channel(k, s, channel)
        while x[NEXT] < time and trace[0] != trace[1]:
            _advance(k, x, m, listed, started, trace, time)
        channel = x[AFTER]


@njit(void(_P, _P, _P, _P, int64, boolean), cache=True)
def _count_bursts(k, s, m, listed, i, equal):
    """Note how many bursts of transfer `i` each channel has, and how many channels have any."""
    move, low, channels = _transfer(m, i), k[CHANNEL_LOW], k[CHANNELS]
    counts = np.zeros(channels, np.int64)
    for piece in range(move[M_PIECES]):
        first, end, _ = _bounds(k, move, listed, piece)
        chunk, last = first >> low, (end - 1) >> low
        if chunk == last:
            counts[chunk & (channels - 1)] += end - first
            continue
        for near in range(chunk, chunk + 1 if equal else min(chunk + channels, last + 1)):
            channel = near & (channels - 1)
            counts[channel] += _below(k, channel, end) - _below(k, channel, first)
    channel = move[M_LEFT] = 0
    while channel >= 0:
        x = _channel(k, s, channel)
        count = counts[0 if equal else channel]
        x[k[AT_LEFT] + i] = count
        if count > 0:
            move[M_LEFT] += x[MEMBERS]
        channel = x[AFTER]


@njit(void(_P, _P, int64), cache=True)
def _append(k, m, i):
    """Put transfer `i` at the end of the list of those under way."""
    anchor = k[PORTS] * k[DEPTH]
    ends, move = _transfer(m, anchor), _transfer(m, i)
    move[M_BEFORE], move[M_AFTER] = ends[M_BEFORE], anchor
    _transfer(m, ends[M_BEFORE])[M_AFTER] = i
    ends[M_BEFORE] = i


@njit(void(_P, _P, _P, _P, _P, int64, int64), cache=True)
def _fill_lanes(k, s, m, listed, started, port, i):
    """Let every channel know of transfer `i`, just started, the last one of `port`."""
    move, lane, channel = _transfer(m, i), k[AT_LANE] + port * L_WIDTH, 0
    while channel >= 0:
        x = _channel(k, s, channel)
        if x[k[AT_LEFT] + i] > 0:
            _refill(k, x, m, listed, started, channel, port)
            x[NEXT] = min(x[NEXT], move[M_SINCE])
        elif x[lane + L_BURST] >= x[lane + L_END]:
            x[lane + L_SEQUENCE] = started[port]  # an empty lane passes it by
        channel = x[AFTER]


@njit(int64(_ROW, _ROWS, _ROWS, _ROWS, _ROW, _ROWS, int64, int64, boolean), cache=True)
def launch(k, s, m, listed, started, credit, port, time, equal):
    """Put the next transfer of `port` under way; `time` is the memory's.

    With shortcuts, channels that do the same are simulated once. A channel follows a leader while
    its whole state and its work equal the leader's: channels with equal futures join here, and
    those that the transfer gives other work part. `equal` says it gives all channels the same.
    Returns a cycle no transfer ends before.
    """
    i = port * k[DEPTH] + (started[port] & (k[DEPTH] - 1))
    k_, s_, m_, listed_, started_ = _flat(k), _flat(s), _flat(m), _flat(listed), _flat(started)
    if k[SHORTCUTS]:
        if s[0, AFTER] >= 0:
            trace = np.empty(6, np.int64)
            trace[0], trace[1] = -1, 0  # shortcuts are off where commands are recorded
            _catch_up(k_, s_, m_, listed_, started_, _flat(trace), time)
            _join(k_, s_, m_, listed_, started_, _flat(credit), time)
        if not equal:
            _part(k_, s_, m_, listed_, i)
            _link_leaders(k_, s_)
    started[port] += 1
    m[i, M_FIRST], m[i, M_LAST] = NEVER, 0
    _count_bursts(k_, s_, m_, listed_, i, equal)
    _append(k_, m_, i)
    _fill_lanes(k_, s_, m_, listed_, started_, port, i)
    m[i, M_BOUND] = _bound(k_, s_, m_, i)
    end, bound, _ = _first_ends(k_, m_)
    return min(end, bound)


@njit(_TWO(_P, _P, _P, _P, _P, _P, int64), cache=True)
def _run(k, s, m, listed, started, trace, until):
    """Do the work of `run`."""
    while True:
        end, bound, i = _first_ends(k, m)
        limit = min(until, end)
        if bound > limit or trace[0] == trace[1]:
            return limit, min(end, bound)
        move = _transfer(m, i)
        move[M_BOUND] = max(bound, _bound(k, s, m, i))
        if move[M_BOUND] > bound:
            continue
        channel = 0
        while channel >= 0:
            x = _channel(k, s, channel)
            if x[k[AT_LEFT] + i] > 0:
                reach = _reach(k, x, m, limit)
                if x[NEXT] < reach:
                    _advance(k, x, m, listed, started, trace, reach)
            channel = x[AFTER]


@njit(_TWO(_ROW, _ROWS, _ROWS, _ROWS, _ROW, _ROWS, int64), cache=True)
def run(k, s, m, listed, started, trace, until):
    """Go on to `until`, or to the first end of a transfer.

    Returns that cycle, and one that no transfer ends before: the same if one ends there.
    Only channels move that have bursts of the transfer which may end first, and each no further
    than where one may end that it has no burst of, or to the end of its own share of another: a
    transfer ends no sooner than any share of it. `catch_up` moves the others.
    """
    trace[0, 1] = len(trace) - 1
    return _run(_flat(k), _flat(s), _flat(m), _flat(listed), _flat(started), _flat(trace), until)


@njit(void(_ROW, _ROWS, _ROWS, _ROWS, _ROW, _ROWS, int64), cache=True)
def catch_up(k, s, m, listed, started, trace, time):
    """Bring all channels to `time`, the memory's, as far as `trace` has room.

    Whoever reads the state of a channel asks for it first.
    """
    trace[0, 1] = len(trace) - 1
    _catch_up(_flat(k), _flat(s), _flat(m), _flat(listed), _flat(started), _flat(trace), time)


@njit(int64(_ROWS, _ROW, int64), cache=True)
def take_done(m, done, now):
    """Take the transfers that have ended by `now` off the list; return how many there are.

    Their rows in `m` are put into `done`, in the order in which the transfers started.
    """
    count, i = 0, m[-1, M_AFTER]
    while i < len(m) - 1:
        before, after = m[i, M_BEFORE], m[i, M_AFTER]
        if m[i, M_LEFT] == 0 and m[i, M_LAST] <= now:
            m[before, M_AFTER], m[after, M_BEFORE], m[i, M_LEFT] = after, before, -1
            done[count] = i
            count += 1
        i = after
    return count


@njit(int64(_ROW, _ROW, int64, int64), cache=True)
def ready_at(k, x, command, bank):
    """Return the first cycle at which `command` to `bank` breaks no rule; changes nothing."""
    return _ready_at(_flat(k), _flat(x), command, bank)


@njit(void(_ROW, _ROW, int64, int64, int64, int64), cache=True)
def issue(k, x, command, bank, row, now):
    """Issue `command`; the caller has asked `ready_at`."""
    _issue(_flat(k), _flat(x), command, bank, row, now)
