"""Links between chips in time: messages matched by tag.

A SEND holds its direction of the link for ``bytes / bytes_per_cycle`` cycles, or as long as its
buffer port makes it wait, and completes with its last byte sent. The last byte arrives
``latency_cycles`` later. A RECV takes its chip's oldest message of the sender and tag, writes it
to the buffer as it comes, and completes one cycle after the last byte or with the last word
written. A message that comes before its RECV waits in the link; that store is not modelled. The
two directions of a link do not hinder each other; a queue starts a SEND while a RECV of it waits.
"""

from archsim.engine import cells as c
from archsim.engine.compiled import Flat, compiled
from archsim.engine.ends import arrive, came
from archsim.engine.events import at
from archsim.engine.ports import ask

__all__ = ["receive", "send"]


@compiled
def match(e: Flat, part: int, message: int, now: int) -> None:
    """Let a RECV take a message."""
    place = c.row(e, c.MESSAGE, message)
    e[place + c.M_PART] = part
    first = max(now, e[place + c.M_FIRST])
    e[part + c.A_FILLED] = e[part + c.A_FIRST] = first
    cycles = e[c.row(e, c.DEMAND, e[part + c.A_DEMAND]) + c.D_CYCLES]
    e[part + c.A_WORK_END] = first + cycles * e[c.LINK_PERIOD]
    at(e, first, c.WRITE, part)
    if e[place + c.M_LAST] != c.NONE:
        arrive(e, part, message)


@compiled
def send(e: Flat, part: int, now: int) -> None:
    """Start to send at `now`."""
    e[e[part + c.A_LANE] + c.L_PENDING] = 1
    moved = e[c.row(e, c.DEMAND, e[part + c.A_DEMAND]) + c.D_MOVED]
    e[part + c.A_WORK_END] = now + -(-moved // e[c.LINK_BYTES]) * e[c.LINK_PERIOD]
    message = e[c.MESSAGE + c.USED]
    e[c.MESSAGE + c.USED] = message + 1
    place = c.row(e, c.MESSAGE, message)
    e[place + c.M_FIRST] = now + e[c.LINK_TICKS] + e[c.LINK_PERIOD]
    e[place + c.M_LAST] = e[place + c.M_PART] = e[place + c.M_NEXT] = c.NONE
    e[part + c.A_MESSAGE] = message
    e[part + c.A_PENDING] = 2  # the last byte, and the ports
    ask(e, part, now)
    at(e, e[part + c.A_WORK_END], c.CAME, part)
    came(e, part, now)
    channel = e[e[part + c.A_PLAN] + c.P_CHANNEL]
    wanted = e[channel + c.N_WANTED]
    if wanted != c.NONE:
        e[channel + c.N_WANTED] = e[wanted + c.A_NEXT]
        match(e, wanted, message, now)
    elif e[channel + c.N_SENT] == c.NONE:
        e[channel + c.N_SENT] = e[channel + c.N_SENT_LAST] = message
    else:
        e[c.row(e, c.MESSAGE, e[channel + c.N_SENT_LAST]) + c.M_NEXT] = message
        e[channel + c.N_SENT_LAST] = message


@compiled
def receive(e: Flat, part: int, now: int) -> None:
    """Start to wait for a message at `now`."""
    e[e[part + c.A_LANE] + c.L_IN_FLIGHT] += 1
    e[part + c.A_PENDING] = 2  # the last byte, and the ports
    channel = e[e[part + c.A_PLAN] + c.P_CHANNEL]
    message = e[channel + c.N_SENT]
    if message != c.NONE:
        e[channel + c.N_SENT] = e[c.row(e, c.MESSAGE, message) + c.M_NEXT]
        match(e, part, message, now)
        return
    if e[channel + c.N_SINCE] == c.NONE:
        e[channel + c.N_SINCE] = e[c.EVENT_NUMBER]
    if e[channel + c.N_WANTED] == c.NONE:
        e[channel + c.N_WANTED] = part
    else:
        e[e[channel + c.N_WANTED_LAST] + c.A_NEXT] = part
    e[channel + c.N_WANTED_LAST] = part
