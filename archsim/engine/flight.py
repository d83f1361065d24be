"""An instruction under way, and the share, a part, that each lane of units has in it.

An instruction is known by its row of the log. A part's FILLED is until when it waits for a
message; FIRST, when the first beat or byte moves; WORK_END, when the last would be in, were it
alone; PORT_END, when the last word was granted; LAST, when the last byte of memory or message
came. PENDING counts what has not ended: ports, memory, message.
"""

from archsim.engine import cells as c
from archsim.engine.compiled import Flat, compiled
from archsim.engine.events import at, resume

__all__ = ["complete", "finish", "line_up", "new_part", "record", "retire"]


@compiled
def complete(e: Flat, stream: int, plan: int, number: int, tick: int) -> None:
    """Log the completion of row `number` of the log, and send its signals."""
    e[c.row(e, c.LOG, number) + c.I_COMPLETION] = tick
    e[stream + c.S_DONE] = max(e[stream + c.S_DONE], tick)
    if e[plan + c.P_SIGNAL_COUNT] > 0:
        at(e, tick + e[c.TOKEN_TICKS], c.GIVE, plan)


@compiled
def finish(e: Flat, stream: int, plan: int, number: int, tick: int, now: int) -> None:
    """At `now` it is known that the last part of an instruction ends at `tick`."""
    e[stream + c.S_OPEN] -= 1
    complete(e, stream, plan, number, tick)
    if e[stream + c.S_ISSUED] >= 0:
        resume(e, stream, now)


@compiled
def new_part(e: Flat, stream: int, plan: int, lane: int, demand: int, start: int) -> int:
    """Return a part, of the row of the log that `stream` is at, that starts at `start`."""
    part = e[c.FREE_PART]
    e[c.FREE_PART] = e[part + c.A_NEXT]
    for cell in (c.A_FILLED, c.A_FIRST, c.A_WORK_END, c.A_PORT_END, c.A_LAST, c.A_START):
        e[part + cell] = start
    for cell in (c.A_PORT_LOST, c.A_BANK_LOST, c.A_PENDING, c.A_READY, c.A_LOSSES):
        e[part + cell] = 0
    e[part + c.A_STREAM], e[part + c.A_PLAN], e[part + c.A_ROW] = stream, plan, e[stream + c.S_ROW]
    e[part + c.A_LANE], e[part + c.A_DEMAND], e[part + c.A_NEXT] = lane, demand, c.NONE
    return part


@compiled
def line_up(e: Flat, part: int, now: int) -> None:
    """Put a part that starts now behind those under way in its lane, which end in their order."""
    lane = e[part + c.A_LANE]
    if e[lane + c.L_IN_FLIGHT] == 0:
        e[lane + c.L_OLDEST] = part
    else:
        e[e[lane + c.L_NEWEST] + c.A_NEXT] = part
    e[lane + c.L_NEWEST] = part
    e[lane + c.L_IN_FLIGHT] += 1
    e[lane + c.L_LAST_START] = now


@compiled
def record(e: Flat, part: int, end: int, completion: int) -> None:
    """Put a part in the books, with the boundaries of its classes: `archsim.accounting.PARTS`.

    A delay by ports is split as the words lost their turns: to banks, then to other clients; what
    is left is the port's own width.
    """
    work_end = e[part + c.A_WORK_END]
    late = max(0, min(e[part + c.A_PORT_END], end) - work_end)
    bank = min(late, e[part + c.A_BANK_LOST])
    port = min(late - bank, e[part + c.A_PORT_LOST])
    number = e[c.BOOK + c.USED]
    e[c.BOOK + c.USED] = number + 1
    book = c.row(e, c.BOOK, number)
    e[book + c.B_STREAM] = e[e[part + c.A_STREAM] + c.S_NUMBER]
    e[book + c.B_ROW], e[book + c.B_MASK] = e[part + c.A_ROW], e[e[part + c.A_LANE] + c.L_MASK]
    first = book + c.B_MASK + 1
    e[first], e[first + 1] = e[part + c.A_START], e[part + c.A_FILLED]
    e[first + 2] = e[part + c.A_FIRST]
    e[first + 3], e[first + 4], e[first + 5] = work_end, work_end + bank, work_end + bank + port
    e[first + 6], e[first + 7] = work_end + late, max(end, work_end + late)
    e[first + 8] = completion


@compiled
def retire(e: Flat, part: int, completion: int, now: int) -> None:
    """At `now` it is known that a part ends at `completion`; the last part decides. It is gone."""
    stream, number = e[part + c.A_STREAM], e[part + c.A_ROW]
    place = c.row(e, c.LOG, number)
    e[part + c.A_NEXT] = e[c.FREE_PART]
    e[c.FREE_PART] = part
    e[place + c.I_LEFT] -= 1
    e[place + c.I_COMPLETION] = max(e[place + c.I_COMPLETION], completion)
    if e[place + c.I_LEFT] == 0:
        finish(e, stream, e[part + c.A_PLAN], number, e[place + c.I_COMPLETION], now)
    elif e[stream + c.S_ISSUED] >= 0:
        resume(e, stream, now)
