"""The compiled loop of a channel that computes: what happens in a cycle, and when the next one is.

It runs as plain Python with ``NUMBA_DISABLE_JIT=1``. Time jumps to the next cycle in which
something may happen; the commands of a tile are made here, from one entry.
"""

from archsim import pim_timers as at
from archsim.engine.compiled import Flat, compiled, entry
from archsim.pim_head import AGAIN, ENDED, IDLE, REFRESH, explain, refresh, serve
from archsim.pim_host import N_SINCE, N_WIDTH, enter, host_reason, serve_host
from archsim.pim_timers import account, account_host, go_to

__all__ = ["advance"]

# An entry of the PIM queue; O_DOTS of a TILE is of one result. Then when it ended.
O_SINCE, O_KIND, O_ROW, O_BANK, O_COLUMN, O_DOTS, O_READS, O_DONE, O_WIDTH = range(9)
REACHED, STOPPED, FULL, STUCK = range(4)  # why the loop ended
TO_TIME, TO_END, TO_EVENT = range(3)  # where it goes to


@compiled
def _take_head(k: Flat, x: Flat, o: Flat) -> None:
    """Find what the entry at the head of the queue asks for next."""
    i, part = x[at.NEXT] * O_WIDTH, x[at.PART]
    kind, dots, reads = o[i + O_KIND], o[i + O_DOTS], o[i + O_READS]
    x[at.H_ROW], x[at.H_BANK], x[at.H_PARTS] = o[i + O_ROW], o[i + O_BANK], 1
    x[at.H_COLUMN], x[at.H_DOTS], x[at.H_READS] = o[i + O_COLUMN], dots, reads
    x[at.H_KIND], x[at.H_EACH] = kind, 0
    if kind == at.TILE:
        x[at.H_EACH] = dots
        each = 1 if k[at.TWO_BUFFERS] else dots + 1  # commands of a result
        x[at.H_PARTS] = 1 + reads * each
        x[at.H_KIND], x[at.H_DOTS] = at.HEADER, dots * reads
        x[at.WITHIN], x[at.COLUMN] = -1, 0
        for _ in range(part):
            _next_part(k, x, dots)


@compiled
def _next_part(k: Flat, x: Flat, dots: int) -> None:
    """Go on to the next command of a tile whose results take `dots` each."""
    if k[at.TWO_BUFFERS]:
        x[at.H_COLUMN] = x[at.H_COLUMN] + dots if x[at.H_KIND] == at.GEMV else 0
        x[at.H_KIND], x[at.H_DOTS] = at.GEMV, dots
        return
    x[at.WITHIN] += 1
    if x[at.WITHIN] == dots:
        x[at.H_KIND], x[at.H_DOTS], x[at.H_COLUMN], x[at.WITHIN] = at.READRES, 0, 0, -1
        return
    x[at.H_KIND], x[at.H_DOTS] = at.DOT, 1
    x[at.H_COLUMN], x[at.COLUMN] = x[at.COLUMN], x[at.COLUMN] + 1


@compiled
def _end_part(k: Flat, x: Flat, o: Flat) -> bool:
    """Leave what has ended; return whether it was the entry's last."""
    x[at.PART] += 1
    if x[at.PART] < x[at.H_PARTS]:
        _next_part(k, x, o[x[at.NEXT] * O_WIDTH + O_DOTS])
        return False
    o[x[at.NEXT] * O_WIDTH + O_DONE] = x[at.NOW]
    x[at.NEXT] += 1
    x[at.PART] = 0
    if x[at.NEXT] < x[at.OPS]:
        _take_head(k, x, o)
    return True


@compiled
def _serve_head(k: Flat, x: Flat, t: Flat) -> int:
    """As `serve`; what was tried in vain is not tried again before it may be legal."""
    now, wake = x[at.NOW], x[at.WAKE]
    if now < x[at.HEAD_WAKE]:
        x[at.WAKE] = min(wake, x[at.HEAD_WAKE])
        if x[at.H_KIND] == at.HEADER and k[at.REFRESHES]:
            x[at.SLACK] -= now - x[at.HEAD_SINCE]
        x[at.HEAD_SINCE], x[at.REASON] = now, x[at.HEAD_REASON]
        if x[at.HEAD_STALE] and x[at.HEAD_TRIED] >= 0:
            x[at.TRIED], x[at.TRIED_BANK] = x[at.HEAD_TRIED], x[at.HEAD_BANK]
            explain(k, x)
            x[at.HEAD_REASON], x[at.HEAD_STALE] = x[at.REASON], 0
        return 0
    x[at.WAKE] = at.NEVER
    done = serve(k, x, t)
    x[at.HEAD_TRIED], x[at.HEAD_BANK] = x[at.TRIED], x[at.TRIED_BANK]
    if x[at.TRIED] >= 0:
        explain(k, x)
    x[at.HEAD_WAKE] = 0 if done or x[at.SKIP] else x[at.WAKE]
    x[at.HEAD_SINCE], x[at.HEAD_REASON], x[at.HEAD_STALE] = now, x[at.REASON], 0
    if done:
        x[at.HOST_WAKE] = 0
    x[at.WAKE] = min(wake, x[at.WAKE])
    return done


@compiled
def _try_host(k: Flat, x: Flat, t: Flat, r: Flat, limited: bool, key: int) -> bool:
    """As `serve_host`; what was tried in vain is not tried again before it may be legal.

    `key` is what else decides which request may go.
    """
    wake = x[at.WAKE]
    if x[at.NOW] < x[at.HOST_WAKE] and key == x[at.HOST_KEY]:
        x[at.WAKE] = min(wake, x[at.HOST_WAKE])
        return False
    x[at.WAKE], x[at.HOST_KEY] = at.NEVER, key
    bus = x[at.BUS_FREE]
    served = serve_host(k, x, t, r, limited)
    x[at.HOST_WAKE] = x[at.WAKE] if x[at.BUS_FREE] == bus else 0
    x[at.WAKE] = min(wake, x[at.WAKE])
    return served


@compiled
def _step(k: Flat, x: Flat, t: Flat, r: Flat, head: bool) -> int:
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
        if refresh(k, x, t):
            return 0
    # The head of the PIM queue, or nothing if little time is left before refresh.
    limited = False
    if head:
        if x[at.PENDING] < 0 and x[at.SKIP] == 0:
            done = _serve_head(k, x, t)
            if done:
                return done
            limited = x[at.SKIP] == 0
            if limited and (k[at.BLOCKED] or x[at.SLACK] < k[at.SLACK_MIN]):
                return 0
        if x[at.SKIP] or x[at.PENDING] >= 0:
            x[at.REASON] = REFRESH
        if k[at.BLOCKED] and x[at.PENDING] < 0 and x[at.SKIP] == 0:
            return 0
    key = x[at.PENDING] * 8 + x[at.SKIP] * 4 + limited * 2 + head
    return 4 if _try_host(k, x, t, r, limited, key) else 0


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
    else:
        return
    x[at.UNITS_END] = max(x[at.DOTS_END], max(x[at.DRAIN_END], x[at.GWRITE_END]))


@compiled
def _served(x: Flat) -> bool:
    """Return whether every entry and every request has had its last command."""
    return x[at.NEXT] == x[at.OPS] and x[at.ASKED] == 0 and x[at.WAITING] == 0


@compiled
def _next_event(k: Flat, x: Flat, until: int) -> int:
    now, after = x[at.NOW], min(x[at.WAKE], until)
    if _served(x):  # it may be at an end
        for end in (x[at.DRAIN_END], x[at.GWRITE_END]):
            if end > now:
                after = min(after, end)
    for rank in range(k[at.RANKS]):
        due = x[k[at.AT_DUE] + rank]
        if due > now:
            after = min(after, due)
    return after


@compiled
def _cycle(k: Flat, x: Flat, t: Flat, o: Flat, r: Flat, until: int) -> int:
    """Do what is to be done now, and go on to when something may be again.

    Returns 1 if an entry or a request had its last command, 2 if nothing will ever happen.
    """
    now, free = x[at.NOW], x[at.ASKED] < k[at.ENTRIES]
    x[at.SERVED] = -1
    x[at.WAKE], x[at.REASON], x[at.TRIED] = at.NEVER, IDLE, -1
    head = x[at.NEXT] < x[at.OPS]
    if head and o[x[at.NEXT] * O_WIDTH + O_SINCE] > now:
        head, x[at.WAKE] = False, o[x[at.NEXT] * O_WIDTH + O_SINCE]
    bus, dots = x[at.BUS_FREE], x[at.H_DOTS]
    done = _step(k, x, t, r, head)
    issued, last = x[at.BUS_FREE] != bus, 0
    if issued:
        _note_busy(k, x, dots)
    if done & ENDED:
        last = 1 if _end_part(k, x, o) else 0
    elif done == 4:
        last, x[at.HOST_END] = 1, max(x[at.HOST_END], now) + k[at.BURST_CYCLES]
    reason = host_reason(k, x, r, issued)
    enter(k, x, r, free, now + 1 if issued or done & ENDED else until)
    after = now + 1 if issued or done & ENDED else _next_event(k, x, until)
    if after == at.NEVER:
        return 2
    account(x, after)
    account_host(x, after, reason)
    x[at.NOW] = after
    return last


@compiled
def _quiet_until(k: Flat, x: Flat, r: Flat, until: int) -> int:
    """Return the cycle up to which nothing but the head can go; 0 if something else may now."""
    if x[at.PENDING] >= 0 or x[at.SKIP] or x[at.ASKED] > 0:
        return 0
    for rank in range(k[at.RANKS]):
        until = min(until, x[k[at.AT_DUE] + rank])
    if x[at.WAITING] > 0:
        for port in range(k[at.PORTS]):
            i = x[k[at.AT_PORT] + port]
            if i >= 0:
                until = min(until, r[i * N_WIDTH + N_SINCE])
    return until


@compiled
def _rush(k: Flat, x: Flat, t: Flat, o: Flat, limit: int, goal: int) -> bool:
    """Serve the head up to cycle `limit`, before which nothing else can go.

    Returns whether an entry had its last command, if that is the `goal`.
    """
    last = 0
    while x[at.NOW] < limit and x[at.NEXT] < x[at.OPS] and not (last and goal == TO_EVENT) and (
            x[at.RECORDED] < x[at.ROOM] or x[at.ROOM] == 0):
        if o[x[at.NEXT] * O_WIDTH + O_SINCE] > x[at.NOW]:
            break
        x[at.WAKE], x[at.REASON], x[at.TRIED] = at.NEVER, IDLE, -1
        x[at.LIMIT] = 0 if x[at.ROOM] > 0 or goal == TO_EVENT else limit
        done = serve(k, x, t)
        if done == AGAIN:
            continue
        if x[at.TRIED] >= 0:
            explain(k, x)
        if x[at.SKIP]:
            break
        after = min(x[at.WAKE], limit)
        if done:
            after = x[at.NOW] + 1
            if x[at.BUS_FREE] == after:
                _note_busy(k, x, x[at.H_DOTS])
            if done & ENDED:
                last = 1 if _end_part(k, x, o) else 0
        go_to(x, after)
    x[at.LIMIT] = x[at.HEAD_WAKE] = x[at.HOST_WAKE] = 0
    return last == 1 and goal == TO_EVENT


@entry
def advance(
    k: Flat, x: Flat, t: Flat, o: Flat, r: Flat, until: int, goal: int
) -> int:
    """Go on to cycle `until`; with `goal` to when all is served, or past the next event of a user.

    Returns why it ended; a full `trace` ends it too.
    """
    x[at.ABOUT] = -2  # rows may have been set by hand
    x[at.HEAD_WAKE] = x[at.HOST_WAKE] = 0
    if x[at.NEXT] < x[at.OPS]:
        _take_head(k, x, o)
    while x[at.NOW] < until:
        if goal == TO_END and _served(x) and (
            x[at.NOW] >= max(x[at.DRAIN_END], x[at.GWRITE_END])
        ):  # fmt: skip
            return STOPPED
        if x[at.RECORDED] == x[at.ROOM] and x[at.ROOM] > 0:
            return FULL
        limit = _quiet_until(k, x, r, until)
        if limit > x[at.NOW] and x[at.NEXT] < x[at.OPS]:
            start = x[at.NOW]
            if _rush(k, x, t, o, limit, goal):
                return STOPPED
            if x[at.NOW] > start:
                continue
        done = _cycle(k, x, t, o, r, until)
        if done == 2:
            return STUCK
        if done and goal == TO_EVENT:
            return STOPPED
    return REACHED
