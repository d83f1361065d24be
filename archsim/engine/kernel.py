"""The engine's compiled loop: what happens next, until nothing does or Python must answer."""

from archsim.dma import move
from archsim.dram import kernel as dram
from archsim.engine import cells as c
from archsim.engine.compiled import Cube, Flat, Row, Rows, compiled, entry
from archsim.engine.control import WAITS, has_room
from archsim.engine.ends import LOAD, came, ready
from archsim.engine.events import pop
from archsim.engine.flight import retire
from archsim.engine.memory import (
    advance_memories,
    ask_memory,
    catch_up,
    lists_fit,
    memory_of,
    outside_first,
)
from archsim.engine.ports import ask, group_event
from archsim.engine.sequencer import read_done, walk
from archsim.engine.tokens import give
from archsim.pim_queue import results

__all__ = ["run"]

PATIENCE = 1 << 18  # events between two pauses


@compiled
def happen(e: Flat, what: int, who: int, now: int) -> int:
    """Let an event happen that no memory is asked for; return why the kernel must stop, if so."""
    if what == c.GIVE:
        return give(e, who, now)
    if what == c.GRANTED:
        group_event(e, who, now)
    elif what == c.ASK_PORTS:
        move(e, who, now)
    elif what == c.MEMORY_DONE:
        e[who + c.A_LAST] = now
        came(e, who, now)
    elif what == c.RESULTS:
        results(e, who, now)
    elif what == c.READY:
        ready(e, who, now)
    elif what == c.CAME:
        came(e, who, now)
    elif what == c.WRITE:
        ask(e, who, now)
        came(e, who, now)
    elif what == c.RETIRE:
        retire(e, who, now, now)
    elif what == c.READ_DONE:
        read_done(e, who, now)
    elif e[who + c.S_RESUMES] == now:  # WALK
        e[who + c.S_RESUMES] = c.NONE
        e[c.WALKING], e[c.WALK_NOW] = who, now
    return c.GOES_ON


@compiled
def ask_for_event(
    e: Flat, k: Row, s: Cube, m: Cube, listed: Rows, started: Rows, credit: Cube,
    what: int, who: int, now: int,
) -> int:
    """Let a transfer or a READ ask the memory; return why the kernel must stop, if so."""
    if what == c.ASK_MEMORY:
        stream, plan, part, port = e[who + c.A_STREAM], e[who + c.A_PLAN], who, e[who + c.A_UNIT]
        base, first, count = e[who + c.A_BASE], e[who + c.A_LIST], e[who + c.A_LIST_COUNT]
        kind = dram.RD if e[plan + c.P_OPCODE] == LOAD else dram.WR
    else:
        plan = e[who + c.S_PLANS] + e[who + c.S_HEAD_PC] * c.PLAN
        part, port = c.NONE, e[c.MEMORY_PORTS] - 1
        stream, base, first, count, kind = who, e[who + c.S_BASE], e[plan + c.P_LIST], 1, dram.RD
    if not lists_fit(e, first, count, listed):
        return c.NEEDS_ROOM
    chip = e[stream + c.S_CHIP]
    return ask_memory(
        e, k, s[chip], m[chip], listed, started[chip], credit[chip], memory_of(e, chip),
        port, kind, base, first, count, stream, part, now,
    )


@entry
def run(
    e: Flat, k: Row, s: Cube, m: Cube, listed: Rows, started: Rows, trace: Rows, done: Row,
    credit: Cube,
) -> int:
    """Simulate until nothing is left or Python must answer; return why: `archsim.engine.cells`."""
    patience = PATIENCE
    while True:
        if e[c.WALKING] != c.NONE:
            why = walk(e, e[c.WALKING], e[c.WALK_NOW])
            if why != WAITS:
                return why
            e[c.WALKING] = c.NONE
        if not has_room(e):
            return c.NEEDS_ROOM
        until = e[e[c.EVENT + c.PLACE] + c.E_TICK] if e[c.EVENT + c.USED] > 0 else c.NONE
        if e[c.OUTSIDE]:
            if outside_first(e, until):
                return c.NEEDS_MEMORY
        elif advance_memories(e, k, s, m, listed, started, trace, done, until):
            continue
        if until == c.NONE:
            if not e[c.OUTSIDE]:
                catch_up(e, k, s, m, listed, started, trace)
            return c.ENDED
        patience -= 1
        if patience == 0:
            return c.PAUSED
        first = e[c.EVENT + c.PLACE]
        what, who = e[first + c.E_WHAT], e[first + c.E_WHO]
        if e[c.OUTSIDE] and (
            what == c.ASK_MEMORY or what == c.READ_MEMORY or what == c.ASK_PIM
        ):
            return c.NEEDS_TRANSFER
        if what == c.ASK_MEMORY or what == c.READ_MEMORY:
            why = ask_for_event(e, k, s, m, listed, started, credit, what, who, until)
            if why != c.GOES_ON:
                return why
            pop(e)
        else:
            pop(e)
            why = happen(e, what, who, until)
            if why != c.GOES_ON:
                return why
