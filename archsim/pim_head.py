"""The head of the PIM queue and refresh, compiled: which command goes next, and what it waits for.

Numbers of `trace`'s columns are those of `archsim.pim_trace.PimCommand`.
"""

from archsim import pim_timers as at
from archsim.engine.compiled import Flat, compiled
from archsim.pim_timers import bound, close_run, go_to, issue, look, ready, repeat_dot

__all__ = ["attempt", "explain", "refresh", "serve"]

# Classes of cycles that something is waited for, in the order of archsim.pim.CLASSES.
REFRESH, ROW_CONFLICT, GWRITE_ROW, TURNAROUND, ACTIVATION, IDLE = range(3, 9)
ISSUED, ENDED, AGAIN = 1, 2, 8  # what serving the head did; AGAIN: time has passed, look again


@compiled
def _class_of(k: Flat, command: int, cause: int) -> int:
    """Return the class of a cycle in which `command` waits for `cause`."""
    if cause == at.HOST:
        # Of two row buffers it is the distance of activations, not a row.
        two = command == at.GACT and k[at.TWO_BUFFERS] == 1
        return ACTIVATION if two else ROW_CONFLICT
    if cause == at.REF:
        return REFRESH
    return TURNAROUND if cause == at.RD or cause == at.WR else ACTIVATION


@compiled
def _for_host(k: Flat, x: Flat, command: int, bank: int) -> bool:
    """Return whether a row command of PIM is needed for a row the host opened or closed."""
    if command == at.PRE:
        return x[k[at.AT_OPENER] + bank] == at.HOST
    if command == at.GACT and x[at.STOLEN] > 0:
        width = k[at.WIDTH + command]
        for b in range(bank & -width, (bank & -width) + width):
            if x[k[at.AT_STOLEN] + b]:
                return True
    return False


@compiled
def give_back(k: Flat, x: Flat, first: int, width: int) -> None:
    """Forget that the host closed PIM rows of these banks."""
    if x[at.STOLEN] > 0:
        for bank in range(first, first + width):
            x[at.STOLEN] -= x[k[at.AT_STOLEN] + bank]
            x[k[at.AT_STOLEN] + bank] = 0


@compiled
def explain(k: Flat, x: Flat) -> None:
    """Note what the last command of the head that was tried in vain waits for."""
    command, bank = x[at.TRIED], x[at.TRIED_BANK]
    ready(k, x, command, bank)
    cause = at.HOST if _for_host(k, x, command, bank) else x[at.CAUSE]
    x[at.REASON], x[at.TRIED] = _class_of(k, command, cause), -1


@compiled
def attempt(
    k: Flat, x: Flat, t: Flat, command: int, bank: int, row: int, column: int, dots: int,
    owner: int, blame: bool,
) -> bool:  # fmt: skip
    """Issue `command` if it is legal now; if not, remember when it may be, and with `blame` why."""
    legal = bound(k, x, command, bank)
    if legal <= x[at.NOW]:
        legal = ready(k, x, command, bank)
    if legal > x[at.NOW]:
        x[at.WAKE] = min(x[at.WAKE], legal)
        if blame:
            x[at.TRIED], x[at.TRIED_BANK] = command, bank
        return False
    if x[at.TRIED] >= 0:
        explain(k, x)
    if owner == at.PIM and _for_host(k, x, command, bank):
        owner = at.HOST
    if blame and owner == at.HOST:
        x[at.REASON] = ROW_CONFLICT
    if command == at.GACT:
        give_back(k, x, bank & -k[at.WIDTH + command], k[at.WIDTH + command])
    issue(k, x, t, command, bank, row, column, dots, owner)
    return True


@compiled
def _attempt_only(k: Flat, x: Flat, t: Flat, command: int, column: int, dots: int) -> bool:
    """As `attempt` with the one command that the head waits for, of all banks.

    In quiet time it goes on to the cycle in which it is legal.
    """
    place = k[at.AT_TIMER] + (k[at.BANKS] + k[at.GROUPS] + k[at.RANKS]) * at.KINDS + command
    legal, rest = x[place], x[place] - x[at.NOW]
    if rest > 0 and legal < x[at.LIMIT] and (command != at.HEADER or rest < x[at.SLACK]):
        x[at.REASON] = _class_of(k, command, x[place + k[at.TO_CAUSE]])
        go_to(x, legal)
        x[at.REASON] = ACTIVATION
        if command == at.HEADER:
            x[at.SLACK] -= rest if k[at.REFRESHES] else 0
    elif rest > 0:
        x[at.WAKE] = min(x[at.WAKE], legal)
        x[at.TRIED], x[at.TRIED_BANK] = command, 0
        return False
    if x[at.BUS_FREE] > x[at.NOW]:
        x[at.WAKE] = min(x[at.WAKE], x[at.BUS_FREE])
        x[at.TRIED], x[at.TRIED_BANK] = command, 0
        return False
    if x[at.TRIED] >= 0:
        explain(k, x)
    issue(k, x, t, command, 0, x[at.H_ROW], column, dots, at.PIM)
    return True


@compiled
def refresh(k: Flat, x: Flat, t: Flat) -> bool:
    """Take the next step towards the refresh of the rank that is due: close its rows, REF."""
    width = 1 << k[at.RANK_BITS]
    first, opened = x[at.PENDING] * width, False
    for bank in range(first, first + width):
        if x[k[at.AT_ROW] + bank] >= 0:
            opened = True
            if attempt(k, x, t, at.PRE, bank, -1, -1, 0, at.REF, False):
                return True
        elif x[k[at.AT_PIM_ROW] + bank] >= 0:
            opened = True
            if attempt(k, x, t, at.PIMPRE, bank, -1, -1, 0, at.PIM, False):
                return True
    if opened or not attempt(k, x, t, at.REF, first, -1, -1, 0, at.REF, False):
        return False
    due = k[at.AT_DUE] + x[at.PENDING]
    x[at.LATE] = max(x[at.LATE], x[at.NOW] - x[due])
    x[due] += k[at.REFI]
    give_back(k, x, first, width)
    x[at.PENDING], x[at.SKIP], x[at.SLACK], x[at.GWRITING] = -1, 0, 0, -1
    return True


@compiled
def _left(k: Flat, x: Flat) -> int:
    """Return the cycles to the next refresh."""
    if k[at.REFRESHES] == 0:
        return 2 * k[at.REFI]
    due = x[k[at.AT_DUE]]
    for rank in range(1, k[at.RANKS]):
        due = min(due, x[k[at.AT_DUE] + rank])
    return due - x[at.NOW]


@compiled
def _gwrite(k: Flat, x: Flat, t: Flat) -> int:
    bank, wanted = x[at.H_BANK], x[at.H_ROW]
    row = x[k[at.AT_ROW] + bank]
    if x[at.GWRITING] < 0:
        need = k[at.OPEN_NEED]
        if row != wanted:
            need = k[at.CLOSED_NEED] if row < 0 else k[at.OTHER_NEED]
        left = _left(k, x)
        if left <= need:
            x[at.SKIP], x[at.SLACK] = 1, 0
            return 0
        x[at.GWRITING], x[at.SLACK] = bank, left - need
    x[at.REASON] = GWRITE_ROW
    if row == wanted:
        if attempt(k, x, t, at.GWRITE, bank, row, x[at.H_COLUMN], 0, at.PIM, True):
            x[at.GWRITING] = -1
            return ISSUED | ENDED
        return 0
    if row >= 0:
        issued = attempt(k, x, t, at.PRE, bank, -1, -1, 0, at.PIM, False)
    elif x[k[at.AT_PIM_ROW] + bank] == wanted:
        issued = attempt(k, x, t, at.PIMPRE, bank, -1, -1, 0, at.PIM, False)
    else:
        issued = attempt(k, x, t, at.ACT, bank, wanted, -1, 0, at.PIM, False)
    return ISSUED if issued else 0


@compiled
def _header_need(k: Flat, x: Flat) -> int:
    """Return the cycles that what follows the HEADER at the head is taken to need."""
    groups = k[at.GROUPS] - x[at.FULL]
    closed = x[at.WRONG]
    dots = max(x[at.H_DOTS], k[at.FLOOR] + k[at.FLOOR_PER_READ] * x[at.H_READS])
    tile = k[at.PER_DOT] * dots + k[at.PER_READ] * x[at.H_READS] + k[at.BASE]
    closing = k[at.CLOSING] + k[at.PER_CLOSED] * closed if closed > 0 else 0
    return k[k[at.AT_OPENING] + groups] + closing + max(k[at.LEAST], tile)


@compiled
def _header(k: Flat, x: Flat, t: Flat) -> int:
    look(k, x, x[at.H_ROW])
    x[at.SLACK] = _left(k, x) - _header_need(k, x)
    if x[at.SLACK] <= 0:
        x[at.SKIP], x[at.SLACK] = 1, 0
        return 0
    if k[at.REFRESHES]:
        x[at.WAKE] = min(x[at.WAKE], x[at.NOW] + x[at.SLACK])  # when it would be too late
    done = _close(k, x, t, x[at.H_ROW], False)
    if done != ENDED:
        return done & (ISSUED | AGAIN)
    if not _attempt_only(k, x, t, at.HEADER, x[at.H_READS], x[at.H_DOTS]):
        return 0
    x[at.RESERVED], x[at.RESULTS_LEFT], x[at.REASON] = x[at.H_ROW], x[at.H_READS], ACTIVATION
    return ISSUED | ENDED


@compiled
def _close(k: Flat, x: Flat, t: Flat, row: int, everything: bool) -> int:
    """Close PIM rows that are not `row`, and `row` in the host's buffers.

    ``ENDED`` says that nothing is left to close, after a command only with `everything`.
    """
    both = k[at.TWO_BUFFERS] == 1 and not everything
    close, in_group, left = at.PIMPRE if k[at.TWO_BUFFERS] else at.PRE, 1 << k[at.GROUP_BITS], False
    look(k, x, row)
    x[at.REASON], first = ACTIVATION, True
    for group in range(k[at.GROUPS]):
        if x[k[at.AT_WRONG] + group] == 0 and not (both and x[k[at.AT_HELD] + group] > 0):
            continue
        left = True
        for bank in range(group * in_group, (group + 1) * in_group):
            own = x[k[at.AT_PIM_ROW] + bank]
            if own >= 0 and own != row:
                if attempt(k, x, t, close, bank, -1, -1, 0, at.PIM, True):
                    if first and not everything and x[at.HELD] == 0 and x[at.LIMIT] > 0 and (
                            k[at.PER_CLOSED] > 0):
                        _close_on(k, x, close, bank + 1, row)
                    return ISSUED | ENDED if everything and x[at.WRONG] == 0 else ISSUED
                first = False
            elif both and x[k[at.AT_ROW] + bank] == row:
                if attempt(k, x, t, at.PRE, bank, -1, -1, 0, at.PIM, True):
                    return ISSUED
                first = False
    return 0 if left else ENDED


@compiled
def _close_on(k: Flat, x: Flat, close: int, bank: int, row: int) -> None:
    """Close the next banks' rows in quiet time, one a cycle, as long as the next one may at once.

    Each cycle is that of a HEADER: its estimate falls as fast as what is left, so it stays in time.
    """
    closed = close_run(k, x, close, bank, row, x[at.LIMIT])
    if closed > 0:
        go_to(x, x[at.NOW] + 1)
        x[at.REASON] = ACTIVATION
        go_to(x, x[at.NOW] + closed - 1)
        x[at.WRONG] += 1  # as the last cycle found it
        x[at.SLACK] = _left(k, x) - _header_need(k, x)
        x[at.WRONG] -= 1


@compiled
def _clear(k: Flat, x: Flat, t: Flat, first: int, width: int, row: int) -> bool:
    """Close what keeps `row` from being opened in all these banks; return whether one went."""
    close = at.PIMPRE if k[at.TWO_BUFFERS] else at.PRE
    for bank in range(first, first + width):
        if x[k[at.AT_PIM_ROW] + bank] >= 0:
            if attempt(k, x, t, close, bank, -1, -1, 0, at.PIM, True):
                return True
    if k[at.TWO_BUFFERS]:
        for bank in range(first, first + width):
            if x[k[at.AT_ROW] + bank] == row:
                if attempt(k, x, t, at.PRE, bank, -1, -1, 0, at.PIM, True):
                    return True
    return False


@compiled
def _open(k: Flat, x: Flat, t: Flat, row: int) -> int:
    """Open `row` in the first group that can; ``ENDED`` if it is open in all."""
    look(k, x, row)
    x[at.REASON], ended = ACTIVATION, ENDED
    if x[at.FULL] == k[at.GROUPS]:
        return ENDED
    width = k[at.WIDTH + at.GACT]
    for number in range(k[at.BANKS] // width):
        first = number * width
        if x[at.WRONG] + x[at.HELD] == 0 and width == 1 << k[at.GROUP_BITS]:
            # The common case: its rows are closed, or open as wanted.
            match = x[k[at.AT_MATCH] + (first >> k[at.GROUP_BITS])]
            if match == width:
                continue
            if match == 0 and bound(k, x, at.GACT, first) > x[at.NOW]:
                x[at.WAKE] = min(x[at.WAKE], bound(k, x, at.GACT, first))
                x[at.TRIED], x[at.TRIED_BANK], ended = at.GACT, first, 0
                continue
        match = wrong = held = 0
        for group in range(first >> k[at.GROUP_BITS], (first + width) >> k[at.GROUP_BITS]):
            match += x[k[at.AT_MATCH] + group]
            wrong += x[k[at.AT_WRONG] + group]
            held += x[k[at.AT_HELD] + group]
        if match == width:
            continue
        ended = 0
        if match + wrong + held > 0:
            if _clear(k, x, t, first, width, row):
                return ISSUED
        elif attempt(k, x, t, at.GACT, first, row, -1, 0, at.PIM, True):
            if x[at.LIMIT] > 0 and width == 1 << k[at.GROUP_BITS]:
                _open_on(k, x, t, row)
            return ISSUED
    return ended


@compiled
def _open_on(k: Flat, x: Flat, t: Flat, row: int) -> None:
    """Open `row` in the other groups in quiet time: always the first that may, in its cycle.

    All of them are closed, or open as wanted. Those that stand before it are tried in vain.
    """
    width = 1 << k[at.GROUP_BITS]
    while x[at.WRONG] + x[at.HELD] + x[at.STOLEN] == 0 and x[at.FULL] < k[at.GROUPS]:
        soonest, chosen, before, last, behind = x[at.LIMIT], -1, -1, -1, -1
        for group in range(k[at.GROUPS]):
            match = x[k[at.AT_MATCH] + group]
            if match == width:
                continue
            if match > 0:
                return
            behind, last = last, group * width
            if bound(k, x, at.GACT, last) < soonest:
                legal = ready(k, x, at.GACT, last)
                if legal < soonest:
                    soonest, chosen, before = legal, last, behind
        if chosen < 0:
            return
        go_to(x, x[at.NOW] + 1)
        if soonest > x[at.NOW]:
            x[at.TRIED], x[at.TRIED_BANK] = at.GACT, last
            explain(k, x)
            go_to(x, soonest)
        x[at.REASON] = ACTIVATION
        if before >= 0:
            x[at.TRIED], x[at.TRIED_BANK] = at.GACT, before
            explain(k, x)
        issue(k, x, t, at.GACT, chosen, row, -1, 0, at.PIM)


@compiled
def _dots_on(k: Flat, x: Flat) -> None:
    """Issue the next dot products of a tile's result in quiet time, after the one just issued.

    Nothing stands between two of them but their own distance, and the units are busy all along.
    """
    step, now = k[at.DOT_CYCLES], x[at.NOW]
    more = min(x[at.H_EACH] - 1 - x[at.WITHIN], (x[at.LIMIT] - 1 - now) // step)
    if more > 0:
        x[at.DOTS_END] = x[at.UNITS_END] = now + (more + 1) * step
        go_to(x, now + more * step)
        repeat_dot(k, x, more)
        x[at.PART] += more
        x[at.WITHIN] += more
        x[at.COLUMN] += more
        x[at.H_COLUMN] += more


@compiled
def serve(k: Flat, x: Flat, t: Flat) -> int:
    """Take the next step of the entry at the head: whether a command went, and ended it."""
    kind, row = x[at.H_KIND], x[at.H_ROW]
    if kind == at.GWRITE:
        return _gwrite(k, x, t)
    if kind == at.HEADER:
        return _header(k, x, t)
    if kind == at.PIMPRE:
        return _close(k, x, t, -1, True)
    opened = _open(k, x, t, row)
    if kind == at.GACT:
        return ISSUED | ENDED if opened & ISSUED and x[at.FULL] == k[at.GROUPS] else opened
    if opened != ENDED:
        return opened
    if not _attempt_only(k, x, t, kind, x[at.H_COLUMN], x[at.H_DOTS]):
        return 0
    if kind == at.DOT:
        _dots_on(k, x)
    else:
        x[at.RESULTS_LEFT] -= 1
        if x[at.RESULTS_LEFT] <= 0:
            x[at.RESERVED] = -1
    return ISSUED | ENDED
