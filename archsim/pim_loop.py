"""The compiled loop of a channel that computes: what happens in a cycle, and when the next one is.

It runs as plain Python with ``NUMBA_DISABLE_JIT=1``. Time jumps to the next cycle in which
something may happen; the commands of a tile are made here, from one entry.
"""

from archsim import pim_timers as at
from archsim.engine.compiled import Flat, Rows, compiled, entry
from archsim.pim_head import IDLE, REFRESH, ENDED, ISSUED, refresh, serve
from archsim.pim_host import account_host, enter, host_reason, serve_host

__all__ = ["advance"]

# An entry of the PIM queue; O_DOTS of a TILE is of one result. Then when it ended.
O_SINCE, O_KIND, O_ROW, O_BANK, O_COLUMN, O_DOTS, O_READS, O_DONE, O_WIDTH = range(9)
REACHED, STOPPED, FULL, STUCK = range(4)  # why the loop ended
TO_TIME, TO_END, TO_EVENT = range(3)  # where it goes to


@compiled
def _take_head(k: Flat, x: Flat, ops: Rows) -> None:
    """Find what the entry at the head of the queue asks for next."""
    i, part = x[at.NEXT], x[at.PART]
    kind, dots, reads = ops[i, O_KIND], ops[i, O_DOTS], ops[i, O_READS]
    x[at.H_ROW], x[at.H_BANK], x[at.H_PARTS] = ops[i, O_ROW], ops[i, O_BANK], 1
    x[at.H_COLUMN], x[at.H_DOTS], x[at.H_READS] = ops[i, O_COLUMN], dots, reads
    if kind == at.TILE:
        each = 1 if k[at.TWO_BUFFERS] else dots + 1  # commands of a result
        x[at.H_PARTS] = 1 + reads * each
        if part == 0:
            kind, x[at.H_DOTS] = at.HEADER, dots * reads
        elif k[at.TWO_BUFFERS]:
            kind, x[at.H_COLUMN] = at.GEMV, (part - 1) * dots
        else:
            read, within = (part - 1) // each, (part - 1) % each
            kind, x[at.H_COLUMN], x[at.H_DOTS] = at.DOT, read * dots + within, 1
            if within == dots:
                kind, x[at.H_COLUMN], x[at.H_DOTS] = at.READRES, 0, 0
    x[at.H_KIND] = kind


@compiled
def _end_part(k: Flat, x: Flat, ops: Rows) -> bool:
    """Leave what has ended; return whether it was the entry's last."""
    x[at.PART] += 1
    last = x[at.PART] >= x[at.H_PARTS]
    if last:
        ops[x[at.NEXT], O_DONE] = x[at.NOW]
        x[at.NEXT] += 1
        x[at.PART] = 0
    if x[at.NEXT] < x[at.OPS]:
        _take_head(k, x, ops)
    return last


@compiled
def _step(k: Flat, x: Flat, trace: Rows, requests: Rows, head: bool) -> int:
    """Issue at most one command: refresh, the head of the PIM queue, the host.

    Returns what serving the head did, or ``4`` if a burst of the host went.
    """
    now = x[at.NOW]
    for rank in range(k[at.RANKS]):
        due = x[k[at.AT_DUE] + rank]
        if due > now:
            x[at.WAKE] = min(x[at.WAKE], due)
        elif x[at.PENDING] < 0:
            x[at.PENDING] = rank
    # Refresh first: close the rank's rows, then refresh it.
    if x[at.PENDING] >= 0:
        x[at.REASON] = REFRESH
        if refresh(k, x, trace):
            return 0
    # The head of the PIM queue, or nothing if little time is left before refresh.
    limited = False
    if head:
        if x[at.PENDING] < 0 and x[at.SKIP] == 0:
            done = serve(k, x, trace)
            if done:
                return done
            limited = x[at.SKIP] == 0
            if limited and (k[at.BLOCKED] or x[at.SLACK] < k[at.SLACK_MIN]):
                return 0
        if x[at.SKIP] or x[at.PENDING] >= 0:
            x[at.REASON] = REFRESH
        if k[at.BLOCKED] and x[at.PENDING] < 0 and x[at.SKIP] == 0:
            return 0
    return 4 if serve_host(k, x, trace, requests, limited) else 0


@compiled
def _note_busy(k: Flat, x: Flat, dots: int) -> None:
    """Note until when what the last command began lasts."""
    command, now = x[at.LAST], x[at.NOW]
    if command == at.DOT:
        x[at.DOTS_END] = now + k[at.DOT_CYCLES]
        x[at.DRAIN_END] = max(x[at.DRAIN_END], now + k[at.LATENCY])
    elif command == at.GEMV:
        x[at.DOTS_END] = now + k[at.DOT_CYCLES] * dots
        x[at.DRAIN_END] = now + k[at.DOT_CYCLES] * (max(dots, k[at.FILL_DOTS]) + 1)
    elif command == at.READRES:
        x[at.DRAIN_END] = max(x[at.DRAIN_END], now + k[at.DOT_CYCLES])
    elif command == at.GWRITE:
        x[at.GWRITE_END] = now + k[at.GWRITE_CYCLES]


@compiled
def _next_event(k: Flat, x: Flat, until: int) -> int:
    now, after = x[at.NOW], min(x[at.WAKE], until)
    for end in range(at.DOTS_END, at.HOST_END + 1):
        if x[end] > now:
            after = min(after, x[end])
    for rank in range(k[at.RANKS]):
        due = x[k[at.AT_DUE] + rank]
        if due > now:
            after = min(after, due)
    return after


@compiled
def _account(x: Flat, after: int) -> None:
    """Charge the units' cycles up to `after`."""
    start = x[at.NOW]
    for n in range(3):  # dot products, drain, vector copy
        end = max(start, min(after, x[at.DOTS_END + n]))
        x[at.CLASSES + n] += end - start
        start = end
    x[at.CLASSES + x[at.REASON]] += after - start


@compiled
def _served(x: Flat) -> bool:
    """Return whether every entry and every request has had its last command."""
    return x[at.NEXT] == x[at.OPS] and x[at.ASKED] == 0 and x[at.WAITING] == 0


@compiled
def _cycle(k: Flat, x: Flat, trace: Rows, ops: Rows, requests: Rows, until: int) -> int:
    """Do what is to be done now, and go on to when something may be again.

    Returns 1 if an entry or a request had its last command, 2 if nothing will ever happen.
    """
    now, free = x[at.NOW], x[at.ASKED] < k[at.ENTRIES]
    x[at.SERVED] = -1
    x[at.WAKE], x[at.REASON] = at.NEVER, IDLE
    head = x[at.NEXT] < x[at.OPS]
    if head and ops[x[at.NEXT], O_SINCE] > now:
        head, x[at.WAKE] = False, ops[x[at.NEXT], O_SINCE]
    bus, dots = x[at.BUS_FREE], x[at.H_DOTS]
    done = _step(k, x, trace, requests, head)
    issued, last = x[at.BUS_FREE] != bus, 0
    if issued:
        _note_busy(k, x, dots)
    if done & ENDED:
        last = 1 if _end_part(k, x, ops) else 0
    elif done == 4:
        last, x[at.HOST_END] = 1, max(x[at.HOST_END], now) + k[at.BURST_CYCLES]
    reason = host_reason(k, x, requests, issued)
    enter(k, x, requests, free)
    after = now + 1 if issued or done & ENDED else _next_event(k, x, until)
    if after == at.NEVER:
        return 2
    _account(x, after)
    account_host(x, after, reason)
    x[at.NOW] = after
    return last


@entry
def advance(
    k: Flat, x: Flat, trace: Rows, ops: Rows, requests: Rows, until: int, goal: int
) -> int:
    """Go on to cycle `until`; with `goal` to when all is served, or past the next event of a user.

    Returns why it ended; a full `trace` ends it too.
    """
    x[at.ABOUT] = -2  # rows may have been set by hand
    if x[at.NEXT] < x[at.OPS]:
        _take_head(k, x, ops)
    while x[at.NOW] < until:
        if goal == TO_END and _served(x) and (
            x[at.NOW] >= max(x[at.DRAIN_END], x[at.GWRITE_END])
        ):  # fmt: skip
            return STOPPED
        if len(trace) > 1 and trace[0, 0] == len(trace) - 1:
            return FULL
        done = _cycle(k, x, trace, ops, requests, until)
        if done == 2:
            return STUCK
        if done and goal == TO_EVENT:
            return STOPPED
    return REACHED
