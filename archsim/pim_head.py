"""The head of the PIM queue and refresh, compiled: which command goes next, and what it waits for.

Numbers of `trace`'s columns are those of `archsim.pim_trace.PimCommand`.
"""

from archsim import pim_timers as at
from archsim.engine.compiled import Flat, Rows, compiled
from archsim.pim_timers import issue, look, ready

__all__ = ["attempt", "refresh", "serve"]

# Classes of cycles that something is waited for, in the order of archsim.pim.CLASSES.
REFRESH, ROW_CONFLICT, GWRITE_ROW, TURNAROUND, ACTIVATION, IDLE = range(3, 9)
ISSUED, ENDED = 1, 2  # what serving the head did


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
def attempt(
    k: Flat, x: Flat, trace: Rows, command: int, bank: int, row: int, column: int, dots: int,
    owner: int, blame: bool,
) -> bool:  # fmt: skip
    """Issue `command` if it is legal now; if not, remember when it is and what for it waits."""
    legal = ready(k, x, command, bank)
    cause = x[at.CAUSE]
    if owner == at.PIM and _for_host(k, x, command, bank):
        owner = cause = at.HOST
    if legal > x[at.NOW]:
        x[at.WAKE] = min(x[at.WAKE], legal)
        if blame:
            x[at.REASON] = _class_of(k, command, cause)
        return False
    if blame and owner == at.HOST:
        x[at.REASON] = ROW_CONFLICT
    if command == at.GACT:
        give_back(k, x, bank & -k[at.WIDTH + command], k[at.WIDTH + command])
    issue(k, x, trace, command, bank, row, column, dots, owner)
    return True


@compiled
def refresh(k: Flat, x: Flat, trace: Rows) -> bool:
    """Take the next step towards the refresh of the rank that is due: close its rows, REF."""
    width = 1 << k[at.RANK_BITS]
    first, opened = x[at.PENDING] * width, False
    for bank in range(first, first + width):
        if x[k[at.AT_ROW] + bank] >= 0:
            opened = True
            if attempt(k, x, trace, at.PRE, bank, -1, -1, 0, at.REF, False):
                return True
        elif x[k[at.AT_PIM_ROW] + bank] >= 0:
            opened = True
            if attempt(k, x, trace, at.PIMPRE, bank, -1, -1, 0, at.PIM, False):
                return True
    if opened or not attempt(k, x, trace, at.REF, first, -1, -1, 0, at.REF, False):
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
def _gwrite(k: Flat, x: Flat, trace: Rows) -> int:
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
        if attempt(k, x, trace, at.GWRITE, bank, row, x[at.H_COLUMN], 0, at.PIM, True):
            x[at.GWRITING] = -1
            return ISSUED | ENDED
        return 0
    if row >= 0:
        issued = attempt(k, x, trace, at.PRE, bank, -1, -1, 0, at.PIM, False)
    elif x[k[at.AT_PIM_ROW] + bank] == wanted:
        issued = attempt(k, x, trace, at.PIMPRE, bank, -1, -1, 0, at.PIM, False)
    else:
        issued = attempt(k, x, trace, at.ACT, bank, wanted, -1, 0, at.PIM, False)
    return ISSUED if issued else 0


@compiled
def _header_need(k: Flat, x: Flat) -> int:
    """Return the cycles that what follows the HEADER at the head is taken to need."""
    in_group, groups = 1 << k[at.GROUP_BITS], 0
    for group in range(k[at.GROUPS]):
        groups += x[k[at.AT_MATCH] + group] < in_group
    closed = x[at.WRONG]
    dots = max(x[at.H_DOTS], k[at.FLOOR] + k[at.FLOOR_PER_READ] * x[at.H_READS])
    tile = k[at.PER_DOT] * dots + k[at.PER_READ] * x[at.H_READS] + k[at.BASE]
    closing = k[at.CLOSING] + k[at.PER_CLOSED] * closed if closed > 0 else 0
    return k[k[at.AT_OPENING] + groups] + closing + max(k[at.LEAST], tile)


@compiled
def _header(k: Flat, x: Flat, trace: Rows) -> int:
    look(k, x, x[at.H_ROW])
    x[at.SLACK] = _left(k, x) - _header_need(k, x)
    if x[at.SLACK] <= 0:
        x[at.SKIP], x[at.SLACK] = 1, 0
        return 0
    if k[at.REFRESHES]:
        x[at.WAKE] = min(x[at.WAKE], x[at.NOW] + x[at.SLACK])  # when it would be too late
    done = _close(k, x, trace, x[at.H_ROW], False)
    if done != ENDED:
        return ISSUED if done & ISSUED else 0
    if not attempt(k, x, trace, at.HEADER, 0, x[at.H_ROW], x[at.H_READS], x[at.H_DOTS], at.PIM,
                   True):  # fmt: skip
        return 0
    x[at.RESERVED], x[at.RESULTS_LEFT], x[at.REASON] = x[at.H_ROW], x[at.H_READS], ACTIVATION
    return ISSUED | ENDED


@compiled
def _close(k: Flat, x: Flat, trace: Rows, row: int, everything: bool) -> int:
    """Close PIM rows that are not `row`, and `row` in the host's buffers.

    ``ENDED`` says that nothing is left to close, after a command only with `everything`.
    """
    both = k[at.TWO_BUFFERS] == 1 and not everything
    close, in_group, left = at.PIMPRE if k[at.TWO_BUFFERS] else at.PRE, 1 << k[at.GROUP_BITS], False
    look(k, x, row)
    x[at.REASON] = ACTIVATION
    for group in range(k[at.GROUPS]):
        if x[k[at.AT_WRONG] + group] == 0 and not (both and x[k[at.AT_HELD] + group] > 0):
            continue
        left = True
        for bank in range(group * in_group, (group + 1) * in_group):
            own = x[k[at.AT_PIM_ROW] + bank]
            if own >= 0 and own != row:
                if attempt(k, x, trace, close, bank, -1, -1, 0, at.PIM, True):
                    return ISSUED | ENDED if everything and x[at.WRONG] == 0 else ISSUED
            elif both and x[k[at.AT_ROW] + bank] == row:
                if attempt(k, x, trace, at.PRE, bank, -1, -1, 0, at.PIM, True):
                    return ISSUED
    return 0 if left else ENDED


@compiled
def _clear(k: Flat, x: Flat, trace: Rows, first: int, width: int, row: int) -> bool:
    """Close what keeps `row` from being opened in all these banks; return whether one went."""
    close = at.PIMPRE if k[at.TWO_BUFFERS] else at.PRE
    for bank in range(first, first + width):
        if x[k[at.AT_PIM_ROW] + bank] >= 0:
            if attempt(k, x, trace, close, bank, -1, -1, 0, at.PIM, True):
                return True
    if k[at.TWO_BUFFERS]:
        for bank in range(first, first + width):
            if x[k[at.AT_ROW] + bank] == row:
                if attempt(k, x, trace, at.PRE, bank, -1, -1, 0, at.PIM, True):
                    return True
    return False


@compiled
def _open(k: Flat, x: Flat, trace: Rows, row: int) -> int:
    """Open `row` in the first group that can; ``ENDED`` if it is open in all."""
    look(k, x, row)
    x[at.REASON], ended = ACTIVATION, ENDED
    width = k[at.WIDTH + at.GACT]
    for first in range(0, k[at.BANKS], width):
        match = wrong = held = 0
        for group in range(first >> k[at.GROUP_BITS], (first + width) >> k[at.GROUP_BITS]):
            match += x[k[at.AT_MATCH] + group]
            wrong += x[k[at.AT_WRONG] + group]
            held += x[k[at.AT_HELD] + group]
        if match == width:
            continue
        ended = 0
        if match + wrong + held > 0:
            if _clear(k, x, trace, first, width, row):
                return ISSUED
        elif attempt(k, x, trace, at.GACT, first, row, -1, 0, at.PIM, True):
            return ISSUED
    return ended


@compiled
def _all_open(k: Flat, x: Flat) -> bool:
    for group in range(k[at.GROUPS]):
        if x[k[at.AT_MATCH] + group] < 1 << k[at.GROUP_BITS]:
            return False
    return True


@compiled
def serve(k: Flat, x: Flat, trace: Rows) -> int:
    """Take the next step of the entry at the head: whether a command went, and ended it."""
    kind, row = x[at.H_KIND], x[at.H_ROW]
    if kind == at.GWRITE:
        return _gwrite(k, x, trace)
    if kind == at.HEADER:
        return _header(k, x, trace)
    if kind == at.PIMPRE:
        return _close(k, x, trace, -1, True)
    opened = _open(k, x, trace, row)
    if kind == at.GACT:
        return ISSUED | ENDED if opened & ISSUED and _all_open(k, x) else opened
    if opened != ENDED:
        return opened
    if not attempt(k, x, trace, kind, 0, row, x[at.H_COLUMN], x[at.H_DOTS], at.PIM, True):
        return 0
    if kind != at.DOT:
        x[at.RESULTS_LEFT] -= 1
        if x[at.RESULTS_LEFT] <= 0:
            x[at.RESERVED] = -1
    return ISSUED | ENDED
