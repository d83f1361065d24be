"""The ports of a chip in time: what parts ask of them, and arbiters whose jobs end in events.

A port of one client in a buffer with a bank for every port grants a word a cycle to it: nothing
needs arbitration. All other ports belong to an arbiter, and so does the crossbar. Times are ticks,
rounded up to the arbiter's clock.
"""

from archsim.buffer import advance, next_finish, request
from archsim.engine import cells as c
from archsim.engine.compiled import Flat, compiled
from archsim.engine.ends import came
from archsim.engine.events import at
from archsim.engine.lanes import own_ports

__all__ = ["ask", "ask_group", "group_event"]


@compiled
def granted(e: Flat, grant: int, period: int, now: int) -> None:
    """A job of a part is through its port; those of one port follow each other."""
    part, port = e[grant + c.GR_JOB], e[grant + c.GR_PORT]
    loss, end = part + c.A_LOSS, part + c.A_LOSS + e[part + c.A_LOSSES] * c.LOSS
    while loss < end and e[loss] != port:
        loss += c.LOSS
    if loss == end:
        e[part + c.A_LOSSES] += 1
        e[loss], e[loss + 1], e[loss + 2] = port, 0, 0
    e[loss + 1] += e[grant + c.GR_PORT_LOST] * period
    e[loss + 2] += e[grant + c.GR_BANK_LOST] * period
    if now >= e[part + c.A_PORT_END]:
        e[part + c.A_PORT_END] = now
        e[part + c.A_PORT_LOST], e[part + c.A_BANK_LOST] = e[loss + 1], e[loss + 2]
    came(e, part, now)


@compiled
def take_grants(e: Flat, group: int, cycle: int) -> None:
    """Tell every part whose job ends at or before `cycle`."""
    period = e[group + c.G_PERIOD]
    finish = next_finish(e, group)
    while finish <= cycle:
        for ended in range(advance(e, group, finish)):
            granted(e, e[c.AT_ENDED] + ended * c.GRANT, period, finish * period)
        finish = next_finish(e, group)


@compiled
def plan_event(e: Flat, group: int) -> None:
    """Let the end of the next job be an event, unless it is one."""
    finish = next_finish(e, group)
    if finish != c.NEVER and finish != e[group + c.G_PLANNED]:
        e[group + c.G_PLANNED] = finish
        at(e, finish * e[group + c.G_PERIOD], c.GRANTED, group)


@compiled
def group_event(e: Flat, group: int, now: int) -> None:
    """Jobs of an arbiter end now, if they still do."""
    planned = e[group + c.G_PLANNED]
    if now == planned * e[group + c.G_PERIOD]:
        take_grants(e, group, planned)
        e[group + c.G_PLANNED] = c.NONE
        plan_event(e, group)


@compiled
def ask_group(e: Flat, route: int, asked: int, now: int, part: int) -> None:
    """Ask the arbiter of `route` for words of `part` from `now` on."""
    group = e[route + c.R_GROUP]
    cycle = -(-now // e[group + c.G_PERIOD])
    take_grants(e, group, cycle)
    request(e, group, e[route + c.R_INDEX], e[route + c.R_CLIENT], asked, part, cycle)
    plan_event(e, group)


@compiled
def ask(e: Flat, part: int, now: int) -> None:
    """Move the words of a part through its ports, from `now` on."""
    lane = e[part + c.A_LANE]
    demand = c.row(e, c.DEMAND, e[part + c.A_DEMAND])
    e[part + c.A_PORT_END] = max(e[part + c.A_PORT_END], own_ports(e, lane, demand, now))
    if e[lane + c.L_PRIVATE]:
        return
    for use in range(demand + c.D_USE, demand + c.D_USE + 2 * e[demand + c.D_USES], 2):
        route = e[lane + c.L_ROUTES] + e[use] * c.ROUTE
        if e[route + c.R_GROUP] != c.NONE:
            e[part + c.A_PENDING] += 1
            ask_group(e, route, e[use + 1], now, part)
