"""The host's requests to a channel that computes, compiled: how they enter, and which goes next."""

from archsim import pim_timers as at
from archsim.engine.compiled import Flat, compiled
from archsim.pim_head import attempt
from archsim.pim_timers import ready

__all__ = ["enter", "host_reason", "serve_host"]

# A request; N_NEXT: the one behind it at its port, -1 if none is known yet.
N_SINCE, N_WRITE, N_BANK, N_ROW, N_COLUMN, N_PORT, N_NEXT, N_DONE, N_WIDTH = range(9)
# Classes of the host's cycles, in the order of archsim.pim.HOST_CLASSES.
BUSY, REFRESH, PIM_CONFLICT, TURNAROUND, BUS_CONFLICT, ROW_MISS, IDLE = range(
    at.HOST_CLASSES, at.HOST_CLASSES + 7)


@compiled
def _next_port(k: Flat, x: Flat, r: Flat, cycle: int) -> int:
    """Return the next port, in turn, whose first request is offered by `cycle`; -1 for none."""
    for step in range(1, k[at.PORTS] + 1):
        port = (x[at.TURN] + step) % k[at.PORTS]
        i = x[k[at.AT_PORT] + port]
        if i >= 0 and r[i * N_WIDTH + N_SINCE] <= cycle:
            return port
    return -1


@compiled
def enter(k: Flat, x: Flat, r: Flat, free: bool, until: int) -> None:
    """Let a request enter the window if a place was `free`, and remember when one may.

    Those behind it enter too, one a cycle, up to the next event or `until`, as long as each stands
    behind one of its bank that was tried in vain: it changes nothing.
    """
    if x[at.WAITING] == 0:
        return
    cycle = x[at.NOW]
    while free:
        port = _next_port(k, x, r, cycle)
        if port < 0:
            break
        i = x[k[at.AT_PORT] + port]
        bank = r[i * N_WIDTH + N_BANK]
        behind = x[at.ASKED] > 0 and x[k[at.AT_SEEN] + bank] == x[at.STAMP]
        x[k[at.AT_WINDOW] + x[at.ASKED]] = i
        x[k[at.AT_PORT] + port] = r[i * N_WIDTH + N_NEXT]
        x[at.ASKED] += 1
        x[at.WAITING] -= 1
        x[at.TURN], cycle = port, cycle + 1
        if not behind:
            x[at.HOST_WAKE] = 0
        if not behind or x[at.HOST_WAKE] < cycle:
            x[at.WAKE] = min(x[at.WAKE], cycle)
            return
        free = x[at.ASKED] < k[at.ENTRIES] and cycle < x[at.WAKE] and cycle < until
    if x[at.ASKED] < k[at.ENTRIES]:
        for port in range(k[at.PORTS]):
            i = x[k[at.AT_PORT] + port]
            if i >= 0:
                later = max(x[at.NOW] + 1, cycle)
                x[at.WAKE] = min(x[at.WAKE], max(r[i * N_WIDTH + N_SINCE], later))


@compiled
def _leave(k: Flat, x: Flat, place: int) -> None:
    x[at.ASKED] -= 1
    for n in range(k[at.AT_WINDOW] + place, k[at.AT_WINDOW] + x[at.ASKED]):
        x[n] = x[n + 1]


@compiled
def _open_for_host(
    k: Flat, x: Flat, t: Flat, bank: int, wanted: int, limited: bool
) -> bool:
    """Take the next step to open row `wanted` for the host, if the time it costs is left."""
    row, two = x[k[at.AT_ROW] + bank], k[at.TWO_BUFFERS] == 1
    spend = k[at.RP] if row >= 0 else k[at.RCD_WR]
    need = k[at.RCD_WR] + (k[at.RP] if row >= 0 else 0)
    if limited and x[at.SLACK] <= need:
        return False
    command = at.PRE if row >= 0 else at.ACT
    if two and row < 0 and x[k[at.AT_PIM_ROW] + bank] == wanted:
        command = at.PIMPRE
    opened = wanted if command == at.ACT else -1
    if not attempt(k, x, t, command, bank, opened, -1, 0, at.HOST, False):
        return False
    if command != at.ACT and not two and x[k[at.AT_OPENER] + bank] == at.PIM:
        x[at.STOLEN] += 1 - x[k[at.AT_STOLEN] + bank]
        x[k[at.AT_STOLEN] + bank] = 1
    if limited:
        x[at.SLACK] -= spend
    return True


@compiled
def serve_host(k: Flat, x: Flat, t: Flat, r: Flat, limited: bool) -> bool:
    """Issue a command of the oldest request that can go; return whether a burst was among it."""
    two = k[at.TWO_BUFFERS] == 1
    x[at.STAMP] += 1
    before = -1
    for place in range(x[at.ASKED]):
        i = x[k[at.AT_WINDOW] + place]
        bank, wanted = r[i * N_WIDTH + N_BANK], r[i * N_WIDTH + N_ROW]
        if bank == before or x[k[at.AT_SEEN] + bank] == x[at.STAMP]:
            continue
        before = bank
        x[k[at.AT_SEEN] + bank] = x[at.STAMP]
        if bank >> k[at.RANK_BITS] == x[at.PENDING] or bank == x[at.GWRITING]:
            continue
        if two and wanted == x[at.RESERVED]:
            continue
        if x[k[at.AT_ROW] + bank] == wanted:
            command = at.WR if r[i * N_WIDTH + N_WRITE] else at.RD
            if attempt(k, x, t, command, bank, wanted, r[i * N_WIDTH + N_COLUMN], 0, at.HOST,
                       False):  # fmt: skip
                r[i * N_WIDTH + N_DONE], x[at.SERVED] = x[at.NOW], i
                _leave(k, x, place)
                return True
        elif two or x[at.RESERVED] < 0:
            if _open_for_host(k, x, t, bank, wanted, limited):
                return False
    return False


@compiled
def host_reason(k: Flat, x: Flat, r: Flat, issued: bool) -> int:
    """Return the class of a cycle of the host's data bus without data; `issued`: a command went."""
    x[at.LEGAL] = at.NEVER
    if x[at.ASKED] == 0:
        return IDLE
    i, two = x[k[at.AT_WINDOW]], k[at.TWO_BUFFERS] == 1
    bank, wanted = r[i * N_WIDTH + N_BANK], r[i * N_WIDTH + N_ROW]
    row = x[k[at.AT_ROW] + bank]
    if bank >> k[at.RANK_BITS] == x[at.PENDING]:
        return REFRESH
    if bank == x[at.GWRITING] or (wanted == x[at.RESERVED] if two else (
            row != wanted and x[at.RESERVED] >= 0)):
        return PIM_CONFLICT
    command = at.PRE if row >= 0 else at.ACT
    if row == wanted:
        command = at.WR if r[i * N_WIDTH + N_WRITE] else at.RD
    legal, last = ready(k, x, command, bank), x[at.LAST]
    cause = x[at.CAUSE]
    if legal <= x[at.NOW] or (cause == at.BUS and issued):
        # Legal, but the bus was another's, or PIM goes first.
        hosts = last == at.RD or last == at.WR or last == at.ACT or last == at.PRE
        ours = issued and x[at.OWNER] == at.HOST and hosts
        return BUS_CONFLICT if ours else PIM_CONFLICT
    x[at.LEGAL] = legal
    if cause == at.RD or cause == at.WR:
        return BUS_CONFLICT if cause == command or row != wanted else TURNAROUND
    if cause == at.REF:
        return REFRESH
    if cause == at.HOST:
        return ROW_MISS
    return BUS_CONFLICT if cause == at.BUS else PIM_CONFLICT
