"""The PIM queue in time: what its instructions ask of the channels, the crossbar and the ports.

An instruction starts when fewer than ``outstanding`` are under way, one a cycle of the memory; its
entries are offered to the channels then. They complete in order. PIM_GWRITE from a buffer reads it
as a STORE does, and its bursts go to a row of each channel first; PIM_READRES moves results, once
they are in the controllers, to the buffer as a LOAD does.
"""

from archsim.engine import cells as c
from archsim.engine.compiled import Flat, compiled
from archsim.engine.ends import READRES, came
from archsim.engine.events import at
from archsim.engine.flight import line_up

__all__ = ["results", "start"]


@compiled
def crossing_ends(e: Flat, part: int, data: int) -> None:
    """Note when the words of a part would be through, alone, if the first crosses at `data`."""
    lane, words = e[part + c.A_LANE], e[c.row(e, c.DEMAND, e[part + c.A_DEMAND]) + c.D_CYCLES]
    e[part + c.A_FIRST] = data
    e[part + c.A_WORK_END] = max(data, e[lane + c.L_BEATS_END]) + words * e[c.CROSS_PERIOD]
    e[lane + c.L_BEATS_END] = e[part + c.A_WORK_END]


@compiled
def start(e: Flat, part: int, unit: int, opcode: int, now: int) -> None:
    """Start an instruction at `now`; what it asks of the channels is known to Python."""
    line_up(e, part, now)
    e[part + c.A_UNIT] = e[c.MEMORY_PORTS] - 1 + unit  # behind the DMA engines on the crossbar
    asks = now
    e[part + c.A_PENDING] = 1  # the channels
    if e[c.row(e, c.DEMAND, e[part + c.A_DEMAND]) + c.D_USES] > 0:
        e[part + c.A_PENDING] = 3  # and the crossbar, and the ports until they are asked
        if opcode != READRES:
            crossing_ends(e, part, now)
            asks += e[c.BUFFER_TICKS] + e[c.CROSS_TICKS]
            at(e, now, c.ASK_PORTS, part)
    at(e, asks, c.ASK_PIM, part)


@compiled
def results(e: Flat, part: int, now: int) -> None:
    """The results that a PIM_READRES moves are in the controllers."""
    data = now + e[c.CROSS_TICKS]
    e[part + c.A_FILLED] = e[part + c.A_LAST] = now
    crossing_ends(e, part, data)
    at(e, data, c.ASK_PORTS, part)
    came(e, part, now)
