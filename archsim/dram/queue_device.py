"""The compiled device behind a channel's queues: rows, timers of every place, buses, refresh.

All of it lies in two arrays: `k`, constants and rules, which `archsim.dram.controller` makes, and
`x`, the state. Places are nodes: banks, then bank groups, then ranks, then the channel.
"""

from archsim.engine.compiled import Flat, compiled, entry

__all__ = ["issue", "issue_by_hand", "ready", "ready_by_hand", "set_timers", "timer"]

NEVER = 1 << 60
ACT, PRE, PREA, REF, RD, WR = range(6)  # in the order of machine.dram.COMMANDS
KINDS = 6
BY_BANK, BY_GROUP, BY_RANK, BY_CHANNEL = 1, 2, 4, 8  # scopes

# Constants k; then for each command the scopes of the rules before it, and where those after it
# begin; then the rules.
(
    BANKS, GROUPS, RANKS, RANK_BITS, GROUP_BITS, SHARED_BUS, CLOSED_PAGE, WINDOW, WINDOW_CYCLES,
    REFI, POSTPONED, READ_ROOM, WRITE_ROOM, WRITE_HIGH, WRITE_LOW, READ_DATA, WRITE_DATA,
    AT_BANK, AT_RANK, RANK_WIDTH, AT_LIST, AT_SLOT, AT_TIMER,
    READ_STEPS,  # RD to RD: in the group, rank, channel, other ranks; then WR to WR
) = range(24)  # fmt: skip
WRITE_STEPS = READ_STEPS + 4
SCOPES = WRITE_STEPS + 4
RULE_START = SCOPES + KINDS
RULES = RULE_START + KINDS + 1
R_SHIFT, R_FLIP, R_TIMER, R_GAP, R_WIDTH = range(5)  # banks a node, other node, timer, cycles

# State x. Those from ACTIVATES on count, and are the results.
(
    NOW, NEXT, WRITING, ROW_BUS, COLUMN_BUS, READS_IN, WRITES_IN, CLAIMED, ACTIVATES, PRECHARGES,
    REFRESHES, READS, WRITES, FORWARDED, ROW_HITS, DATA_END, TRIED, REQUESTS, SOON, FREE, ROOM,
    RECORDED, PAUSE, MOVED,
    U_HEAD, U_LAST, U_APART, U_BEHIND, U_SHARED,  # a run of hits: see queue_run
    P_TIME, P_CLASS, P_AGE, P_COMMAND, P_BANK,  # what is offered: the first, then class, then age
    KEPT,  # for each way to be served what is kept of it
) = range(35)  # fmt: skip
C_SIZE, C_STALE, C_TIME, C_AGE, C_BANK, C_WIDTH = range(6)  # banks in it; the best of them
WAYS = 4
STATE = KEPT + WAYS * C_WIDTH

# A bank: its open row or -1, the request it was opened for or -1; then for reads and for writes
# the first and last of its queue, the oldest that hits its row and that does not; then its place
# among the banks of each way to be served, and the last column command of a run.
(
    B_ROW, B_CLAIM, B_FIRST, B_LAST, B_HIT, B_MISS, B_FIRST_WR, B_LAST_WR, B_HIT_WR, B_MISS_WR,
    B_PLACE, B_PLACE_1, B_PLACE_2, B_PLACE_3, B_RUN,
) = range(15)  # fmt: skip
B_WIDTH = 16  # a power of two: places are found by shifts
# A rank: next refresh, open banks, claims, whether it takes no new work, what it allows the way
# looked at, the ring of activates.
N_DUE, N_OPEN, N_CLAIMS, N_BLOCKED, N_WIDE, N_HEAD, N_ACTS = range(7)
T_WIDTH = 6  # of a recorded command


@compiled
def timer(k: Flat, x: Flat, command: int, bank: int) -> int:
    """Return when the timers of all places over `bank` let `command` go."""
    scopes, at = k[SCOPES + command], k[AT_TIMER] + command
    time = 0
    if scopes & BY_BANK:
        time = x[at + bank * KINDS]
    at += k[BANKS] * KINDS
    if scopes & BY_GROUP:
        time = max(time, x[at + (bank >> k[GROUP_BITS]) * KINDS])
    at += k[GROUPS] * KINDS
    if scopes & BY_RANK:
        time = max(time, x[at + (bank >> k[RANK_BITS]) * KINDS])
    if scopes & BY_CHANNEL:
        time = max(time, x[at + k[RANKS] * KINDS])
    return time


@compiled
def ready(k: Flat, x: Flat, command: int, bank: int) -> int:
    """Return the first cycle at which `command` to `bank` breaks no rule."""
    time = max(timer(k, x, command, bank), x[COLUMN_BUS] if command >= RD else x[ROW_BUS])
    if command == ACT:
        rank = k[AT_RANK] + (bank >> k[RANK_BITS]) * k[RANK_WIDTH]
        time = max(time, x[rank + N_ACTS + x[rank + N_HEAD]] + k[WINDOW_CYCLES])
    return time


@compiled
def set_timers(k: Flat, x: Flat, command: int, bank: int, now: int) -> None:
    """Make what the rules after `command` name wait."""
    for i in range(k[RULE_START + command], k[RULE_START + command + 1], R_WIDTH):
        at = k[i + R_TIMER] + ((bank >> k[i + R_SHIFT]) ^ k[i + R_FLIP]) * KINDS
        x[at] = max(x[at], now + k[i + R_GAP])


@compiled
def _close(k: Flat, x: Flat, rank: int, first: int, last: int) -> None:
    for bank in range(first, last):
        at = k[AT_BANK] + bank * B_WIDTH
        if x[at + B_ROW] >= 0:
            x[at + B_ROW] = -1
            x[rank + N_OPEN] -= 1
            x[PRECHARGES] += 1


@compiled
def issue(k: Flat, x: Flat, command: int, bank: int, row: int, now: int) -> None:
    """Issue `command`; the caller has asked `ready` and knows the rows."""
    set_timers(k, x, command, bank, now)
    if command >= RD or k[SHARED_BUS]:
        x[COLUMN_BUS] = now + 1
    if command < RD or k[SHARED_BUS]:
        x[ROW_BUS] = now + 1
    number = bank >> k[RANK_BITS]
    rank = k[AT_RANK] + number * k[RANK_WIDTH]
    if command == ACT:
        head = x[rank + N_HEAD]
        x[rank + N_ACTS + head] = now
        x[rank + N_HEAD] = head + 1 if head + 1 < k[WINDOW] else 0
        x[rank + N_OPEN] += 1
        x[k[AT_BANK] + bank * B_WIDTH + B_ROW] = row
        x[ACTIVATES] += 1
    elif command == PRE:
        _close(k, x, rank, bank, bank + 1)
    elif command == PREA:
        _close(k, x, rank, number << k[RANK_BITS], (number + 1) << k[RANK_BITS])
    elif command == REF:
        x[rank + N_DUE] += k[REFI]
        x[REFRESHES] += 1
    elif command == RD:
        x[READS] += 1
        x[DATA_END] = max(x[DATA_END], now + k[READ_DATA])
    else:
        x[WRITES] += 1
        x[DATA_END] = max(x[DATA_END], now + k[WRITE_DATA])


@entry
def ready_by_hand(k: Flat, x: Flat, command: int, bank: int) -> int:
    """As `ready`, for Python."""
    return ready(k, x, command, bank)


@entry
def issue_by_hand(k: Flat, x: Flat, command: int, bank: int, row: int, now: int) -> None:
    """As `issue`, for Python."""
    issue(k, x, command, bank, row, now)
