"""The DMA engines in time: transfers between DRAM and the buffers.

A LOAD asks for its bursts ``setup_cycles`` after it starts. Its data crosses the crossbar and is
written to the buffer as it comes; the crossbar and the port are asked for from when the first data
of an unloaded memory could have crossed, ``bytes_per_cycle`` and one word a cycle. It completes
when the memory's last data has crossed and was written, one cycle, and both gave their last word.
A STORE asks for port and crossbar first and for its bursts once the first word has crossed; it
completes when its write is visible in DRAM and its last word has crossed. An engine holds at most
``outstanding`` transfers, starts one a cycle, and completes them in order.
"""

from archsim.engine import cells as c
from archsim.engine.compiled import Flat, compiled
from archsim.engine.ends import LOAD, came
from archsim.engine.events import at
from archsim.engine.flight import line_up
from archsim.engine.ports import ask, ask_group

__all__ = ["move", "start"]


@compiled
def start(e: Flat, part: int, unit: int, now: int) -> None:
    """Start a transfer on engine `unit` at `now`; its pieces in DRAM and their base are known."""
    lane = e[part + c.A_LANE]
    line_up(e, part, now)
    e[part + c.A_PENDING] = 3  # the memory, the crossbar, and the ports until they are asked
    e[part + c.A_UNIT] = unit
    asks = data = now + e[c.SETUP_TICKS]
    if e[e[part + c.A_PLAN] + c.P_OPCODE] == LOAD:
        data += e[c.UNLOADED_TICKS] + e[c.CROSS_TICKS]
    else:
        asks += e[c.BUFFER_TICKS] + e[c.CROSS_TICKS]
    # A word of the port and one of the crossbar is what a cycle moves, alone.
    words = e[c.row(e, c.DEMAND, e[part + c.A_DEMAND]) + c.D_CYCLES]
    e[part + c.A_FIRST] = data
    e[part + c.A_WORK_END] = max(data, e[lane + c.L_BEATS_END]) + words * e[c.CROSS_PERIOD]
    e[lane + c.L_BEATS_END] = e[part + c.A_WORK_END]
    at(e, asks, c.ASK_MEMORY, part)
    at(e, data, c.ASK_PORTS, part)


@compiled
def move(e: Flat, part: int, now: int) -> None:
    """Ask for the crossbar and the ports."""
    moved = e[c.row(e, c.DEMAND, e[part + c.A_DEMAND]) + c.D_MOVED]
    chip = e[e[part + c.A_STREAM] + c.S_CHIP]
    route = e[c.AT_CROSSBAR] + chip * c.ROUTE
    e[route + c.R_CLIENT] = e[part + c.A_UNIT]
    ask_group(e, route, -(-moved // e[c.CROSS_BYTES]), now, part)
    ask(e, part, now)
    came(e, part, now)
