"""The compiled device of a channel that computes: rows, timers of every place, the command bus.

All of a channel lies in two arrays: `k`, constants and rules, which `archsim.pim_device` makes, and
`x`, the state. Places are nodes: banks, then bank groups, then ranks, then the channel. `t` is the
trace.
"""

from archsim.engine.compiled import Flat, compiled, entry

__all__ = ["account", "account_host", "bound", "close_run", "go_to", "issue", "issue_by_hand",
           "look", "ready", "ready_by_hand", "repeat_dot"]

NEVER = 1 << 60
# In the order of machine.pim.PIM_COMMANDS; what a command waits for is one of them, or of the rest.
(
    ACT, PRE, PREA, REF, RD, WR, GWRITE, GACT, DOT, READRES, HEADER, GEMV, PIMPRE,
    HOST, PIM, BUS, NOBODY,
) = range(17)  # fmt: skip
KINDS = 13
TILE = KINDS  # an entry of the queue only: HEADER and all that follows it

# Constants: the channel, its policy, the terms of estimates, where parts of the state begin.
(
    BANKS, RANKS, GROUPS, GROUP_BITS, RANK_BITS, TWO_BUFFERS, BLOCKED, ENTRIES, SLACK_MIN,
    WINDOW_CYCLES, DOT_CYCLES, FILL_DOTS, LATENCY, GWRITE_CYCLES, HOLDS, BURST_CYCLES,
    REFI, REFRESHES, RP, RCD_WR, PORTS,
    OPEN_NEED, CLOSED_NEED, OTHER_NEED,  # of a GWRITE: its row is open, none is, another is
    CLOSING, PER_CLOSED, PER_DOT, FLOOR, FLOOR_PER_READ, PER_READ, BASE, LEAST,  # of a HEADER
    AT_ROW, AT_PIM_ROW, AT_OPENER, AT_STOLEN, AT_SEEN, AT_MATCH, AT_WRONG, AT_HELD, AT_DUE,
    AT_ACTS, AT_WINDOW, AT_PORT, AT_TIMER, TO_CAUSE, AT_OPENING,
    WIDTH,  # for each command the banks it reaches, then the scopes of the rules before it
) = range(48)  # fmt: skip
SCOPES = WIDTH + KINDS
RULE_START = SCOPES + KINDS
RULES = RULE_START + KINDS + 1
BY_BANK, BY_GROUP, BY_RANK, BY_CHANNEL = 1, 2, 4, 8  # scopes
# A rule: banks of its places (as a shift), number to flip, first timer, cycles, what is added.
R_SHIFT, R_FLIP, R_TIMER, R_GAP, R_PLUS, R_WIDTH = range(6)
COMPOSITE, HELD_DOTS = 1, 2  # what is added

# State: the device, the controller, the entry under way, the ends of what is under way, counters.
(
    NOW, BUS_FREE, OWNER, LAST, CAUSE, ABOUT, WRONG, HELD, FULL, STOLEN, STAMP,
    PENDING, SKIP, SLACK, RESERVED, RESULTS_LEFT, GWRITING, REASON, WAKE, LATE, TRIED, TRIED_BANK,
    LIMIT, LEGAL, HEAD_WAKE, HEAD_SINCE, HEAD_REASON, HEAD_TRIED, HEAD_BANK, HEAD_STALE,
    HOST_WAKE, HOST_KEY,
    NEXT, PART, H_KIND, H_ROW, H_BANK, H_COLUMN, H_DOTS, H_READS, H_PARTS, H_EACH, WITHIN, COLUMN,
    OPS,
    DOTS_END, DRAIN_END, GWRITE_END, UNITS_END, HOST_END, WAITING, ASKED, TURN, SERVED,
    ROOM, RECORDED, COUNTS,
) = range(57)  # fmt: skip
CLASSES = COUNTS + KINDS
HOST_CLASSES = CLASSES + 9
STATE = HOST_CLASSES + 7
HOST_BUSY, HOST_PIM_CONFLICT, HOST_IDLE = HOST_CLASSES, HOST_CLASSES + 2, HOST_CLASSES + 6
ACTS_KEPT = 4
T_WIDTH = 6  # of a recorded command; there are x[RECORDED] of them, and room for x[ROOM] in all


@compiled
def ready(k: Flat, x: Flat, command: int, bank: int) -> int:
    """Return the first cycle at which `command` is legal; what it waits for is in ``x[CAUSE]``."""
    scopes, width = k[SCOPES + command], k[WIDTH + command]
    first, best, found = bank & -width, x[BUS_FREE], -1
    timers = k[AT_TIMER] + command
    if scopes & BY_CHANNEL:
        at = timers + (k[BANKS] + k[GROUPS] + k[RANKS]) * KINDS
        if x[at] > best:
            best, found = x[at], at
    if scopes & BY_BANK:
        for place in range(first, first + width):
            at = timers + place * KINDS
            if x[at] > best:
                best, found = x[at], at
    if scopes & BY_GROUP:
        low, high = first >> k[GROUP_BITS], (first + width - 1) >> k[GROUP_BITS]
        for place in range(low, high + 1):
            at = timers + (k[BANKS] + place) * KINDS
            if x[at] > best:
                best, found = x[at], at
    if scopes & BY_RANK:
        low, high = first >> k[RANK_BITS], (first + width - 1) >> k[RANK_BITS]
        for place in range(low, high + 1):
            at = timers + (k[BANKS] + k[GROUPS] + place) * KINDS
            if x[at] > best:
                best, found = x[at], at
    cause = x[found + k[TO_CAUSE]] if found >= 0 else BUS
    if command == ACT:
        window = x[k[AT_ACTS] + (bank >> k[RANK_BITS]) * ACTS_KEPT] + k[WINDOW_CYCLES]
        if window > best:
            best, cause = window, ACT
    x[CAUSE] = cause
    return best


@compiled
def bound(k: Flat, x: Flat, command: int, bank: int) -> int:
    """Return a cycle before which `command` is not legal: what ranks and the channel allow."""
    scopes, best = k[SCOPES + command], x[BUS_FREE]
    timers = k[AT_TIMER] + (k[BANKS] + k[GROUPS]) * KINDS + command
    if scopes & BY_CHANNEL:
        best = max(best, x[timers + k[RANKS] * KINDS])
    if scopes & BY_RANK:
        best = max(best, x[timers + (bank >> k[RANK_BITS]) * KINDS])
    return best


@compiled
def _count(k: Flat, x: Flat, at: int, group: int, row: int, banks: int) -> None:
    """Add `banks` (or take them out) that hold `row` to what their group counts.

    Closed ones count for nothing, nor do rows of the host's own buffer but ``x[ABOUT]``.
    """
    if row != x[ABOUT]:
        if row >= 0 and at == k[AT_PIM_ROW]:
            x[k[AT_WRONG] + group] += banks
            x[WRONG] += banks
    elif row >= 0:
        if at == k[AT_PIM_ROW]:
            x[FULL] -= x[k[AT_MATCH] + group] >> k[GROUP_BITS]
            x[k[AT_MATCH] + group] += banks
            x[FULL] += x[k[AT_MATCH] + group] >> k[GROUP_BITS]
        else:
            x[k[AT_HELD] + group] += banks
            x[HELD] += banks


@compiled
def look(k: Flat, x: Flat, row: int) -> None:
    """Count in each group the banks whose PIM buffer, or host buffer, holds `row` or another."""
    if x[ABOUT] == row:
        return
    x[ABOUT], x[WRONG], x[HELD], x[FULL] = row, 0, 0, 0
    for group in range(k[GROUPS]):
        x[k[AT_MATCH] + group] = x[k[AT_WRONG] + group] = x[k[AT_HELD] + group] = 0
    for bank in range(k[BANKS]):
        group = bank >> k[GROUP_BITS]
        _count(k, x, k[AT_PIM_ROW], group, x[k[AT_PIM_ROW] + bank], 1)
        if k[TWO_BUFFERS]:
            _count(k, x, k[AT_ROW], group, x[k[AT_ROW] + bank], 1)


@compiled
def _close_rows(k: Flat, x: Flat, at: int, first: int, width: int) -> None:
    for bank in range(first, first + width):
        _count(k, x, at, bank >> k[GROUP_BITS], x[at + bank], -1)
        x[at + bank] = -1


@compiled
def _open_rows(k: Flat, x: Flat, first: int, width: int, row: int) -> None:
    """Open `row` in the PIM buffers of whole groups that are closed."""
    for bank in range(first, first + width):
        x[k[AT_PIM_ROW] + bank], x[k[AT_OPENER] + bank] = row, PIM
    for group in range(first >> k[GROUP_BITS], (first + width) >> k[GROUP_BITS]):
        _count(k, x, k[AT_PIM_ROW], group, row, 1 << k[GROUP_BITS])


@compiled
def _set_timers(k: Flat, x: Flat, command: int, bank: int, dots: int, cause: int) -> None:
    now, to_cause = x[NOW], k[TO_CAUSE]
    if command == GEMV:  # its rules are of the channel, some with what its dots take
        after_last = now + k[DOT_CYCLES] * (dots - 1) if k[HOLDS] else now
        after_all = now + k[DOT_CYCLES] * (max(dots, k[FILL_DOTS]) + 1)
        for i in range(k[RULE_START + command], k[RULE_START + command + 1], R_WIDTH):
            plus, at = k[i + R_PLUS], k[i + R_TIMER]
            legal = k[i + R_GAP] + (
                after_all if plus == COMPOSITE else after_last if plus == HELD_DOTS else now)
            if legal > x[at]:
                x[at], x[at + to_cause] = legal, cause
        return
    for i in range(k[RULE_START + command], k[RULE_START + command + 1], R_WIDTH):
        at = k[i + R_TIMER] + ((bank >> k[i + R_SHIFT]) ^ k[i + R_FLIP]) * KINDS
        legal = now + k[i + R_GAP]
        if legal > x[at]:
            x[at], x[at + to_cause] = legal, cause


@compiled
def issue(
    k: Flat, x: Flat, t: Flat, command: int, bank: int, row: int, column: int, dots: int,
    owner: int,
) -> None:  # fmt: skip
    """Issue `command` now for `owner`; the caller has asked `ready` and knows the rows."""
    width = k[WIDTH + command]
    first = bank & -width
    if command == ACT:
        x[k[AT_OPENER] + bank] = owner
        x[k[AT_ROW] + bank] = row
        _count(k, x, k[AT_ROW], bank >> k[GROUP_BITS], row, 1)
        acts = k[AT_ACTS] + (bank >> k[RANK_BITS]) * ACTS_KEPT
        for n in range(ACTS_KEPT - 1):
            x[acts + n] = x[acts + n + 1]
        x[acts + ACTS_KEPT - 1] = x[NOW]
    elif command == PRE or command == PREA:
        _close_rows(k, x, k[AT_ROW], first, width)
    elif command == GACT:
        _open_rows(k, x, first, width, row)
    elif command == PIMPRE:
        _close_rows(k, x, k[AT_PIM_ROW], first, width)
    owned = command <= PREA or command == GACT
    _set_timers(k, x, command, bank, dots, owner if owned else command)
    x[BUS_FREE], x[OWNER], x[LAST] = x[NOW] + 1, owner, command
    x[COUNTS + command] += 1
    # What was tried in vain may be legal later than thought by now; with other rows, sooner too.
    x[HOST_WAKE], x[HEAD_STALE] = 0, 1
    if command != RD and command != WR:
        x[HEAD_WAKE] = 0
    if x[ROOM] > 0:
        at = x[RECORDED] * T_WIDTH
        t[at], t[at + 1], t[at + 2] = x[NOW], command, bank
        t[at + 3], t[at + 4], t[at + 5] = row, column, dots
        x[RECORDED] += 1


@compiled
def close_run(k: Flat, x: Flat, command: int, bank: int, row: int, limit: int) -> int:
    """Close PIM rows that are not `row` from `bank` on, one a cycle, from the next cycle on.

    As many as each can in its turn, before cycle `limit`, and none that the host opened. Returns
    how many; the time is the caller's.
    """
    cycle, group_bits, cause = x[BUS_FREE], k[GROUP_BITS], PIM if command == PRE else command
    timers, scopes = k[AT_TIMER] + command, k[SCOPES + command]
    groups = timers + k[BANKS] * KINDS
    ranks = groups + k[GROUPS] * KINDS
    if scopes & BY_CHANNEL and x[ranks + k[RANKS] * KINDS] > cycle:
        return 0
    begin, end = k[RULE_START + command], k[RULE_START + command + 1]
    while bank < k[BANKS] and cycle < limit:
        group, own = bank >> group_bits, x[k[AT_PIM_ROW] + bank]
        if x[k[AT_WRONG] + group] == 0:
            bank = (group + 1) << group_bits
            continue
        if own >= 0 and own != row:
            legal = x[groups + group * KINDS]
            if scopes & BY_BANK:
                legal = max(legal, x[timers + bank * KINDS])
            if scopes & BY_RANK:
                legal = max(legal, x[ranks + (bank >> k[RANK_BITS]) * KINDS])
            if legal > cycle or (command == PRE and x[k[AT_OPENER] + bank] == HOST):
                break
            x[k[AT_PIM_ROW] + bank] = -1
            x[k[AT_WRONG] + group] -= 1
            for i in range(begin, end, R_WIDTH):
                at = k[i + R_TIMER] + ((bank >> k[i + R_SHIFT]) ^ k[i + R_FLIP]) * KINDS
                if cycle + k[i + R_GAP] > x[at]:
                    x[at], x[at + k[TO_CAUSE]] = cycle + k[i + R_GAP], cause
            cycle += 1
        bank += 1
    closed = cycle - x[BUS_FREE]
    if closed > 0:
        x[WRONG] -= closed
        x[COUNTS + command] += closed
        x[BUS_FREE], x[OWNER], x[LAST] = cycle, PIM, command
    return closed


@compiled
def repeat_dot(k: Flat, x: Flat, count: int) -> None:
    """Leave behind what `count` dot products do of which the last is issued now."""
    _set_timers(k, x, DOT, 0, 1, DOT)
    x[BUS_FREE] = x[NOW] + 1
    x[COUNTS + DOT] += count


@compiled
def account(x: Flat, after: int) -> None:
    """Charge the units' cycles up to `after`."""
    start = x[NOW]
    if start >= x[UNITS_END]:
        x[CLASSES + x[REASON]] += after - start
        return
    for n in range(3):  # dot products, drain, vector copy
        end = max(start, min(after, x[DOTS_END + n]))
        x[CLASSES + n] += end - start
        start = end
    x[CLASSES + x[REASON]] += after - start


@compiled
def account_host(x: Flat, after: int, reason: int) -> None:
    """Charge the cycles of the host's data bus, seen from the command, up to `after`.

    From ``x[LEGAL]`` on only PIM holds the oldest request up.
    """
    busy = max(x[NOW], min(after, x[HOST_END]))
    x[HOST_BUSY] += busy - x[NOW]
    held = max(busy, min(after, x[LEGAL]))
    x[reason] += held - busy
    x[HOST_PIM_CONFLICT] += after - held


@compiled
def go_to(x: Flat, after: int) -> None:
    """Let time pass in which nothing of the host waits."""
    account(x, after)
    busy = max(x[NOW], min(after, x[HOST_END]))
    x[HOST_BUSY] += busy - x[NOW]
    x[HOST_IDLE] += after - busy
    x[NOW] = after


@entry
def ready_by_hand(k: Flat, x: Flat, command: int, bank: int) -> int:
    """As `ready`, for Python."""
    return ready(k, x, command, bank)


@entry
def issue_by_hand(
    k: Flat, x: Flat, t: Flat, command: int, bank: int, row: int, column: int, dots: int,
    owner: int,
) -> None:  # fmt: skip
    """As `issue`, for Python."""
    issue(k, x, t, command, bank, row, column, dots, owner)
