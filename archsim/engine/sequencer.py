"""A queue's sequencer in time: when what is at its head issues, and when it starts."""

from archsim import dma, link, pim_queue
from archsim.accounting import CLASSES
from archsim.engine import cells as c
from archsim.engine.compiled import Flat, compiled
from archsim.engine.control import STARTED, WAITS, has_room, next_instruction, take_value
from archsim.engine.ends import came
from archsim.engine.events import at, mark, resume
from archsim.engine.flight import complete, finish, new_part
from archsim.engine.lanes import accepts, first_beat
from archsim.engine.ports import ask
from archsim.engine.shares import base_of, find_shares, part_lanes, rank_of, unit_of
from archsim.engine.tokens import take
from machine.opcodes import Opcode
from machine.program import NO_LEVEL, QueueKind

__all__ = ["read_done", "walk"]

NOP, FENCE, READ = int(Opcode.NOP), int(Opcode.FENCE), int(Opcode.READ)
SEND, RECV = int(Opcode.SEND), int(Opcode.RECV)
DMA, LINK, PIM = int(QueueKind.DMA), int(QueueKind.LINK), int(QueueKind.PIM)
LEVEL_OF_NONE = int(NO_LEVEL)
CONTROL, TOKEN_WAIT, UNUSED = (CLASSES.index(n) for n in ("control", "token_wait", "unused"))


@compiled
def runs_ahead(e: Flat, stream: int, plan: int) -> bool:
    """Return whether `plan`, once issued, may be started now for a later tick.

    Units with ports of their own are seen by no other queue, and a DMA engine only by events it
    makes itself.
    """
    opcode = e[plan + c.P_OPCODE]
    if opcode == READ:
        return False
    return e[stream + c.S_PRIVATE] != 0 or e[stream + c.S_KIND] == DMA or opcode == NOP


@compiled
def layer_of(e: Flat, stream: int, plan: int) -> int:
    """Return the layer that the head is accounted for."""
    level = e[plan + c.P_LAYER_LEVEL]
    if level != LEVEL_OF_NONE and level < e[stream + c.S_DEPTH]:
        return e[plan + c.P_LAYER] + e[stream + c.S_LOOPS + 3 * level + c.INDEX]
    return e[plan + c.P_LAYER]


@compiled
def issue(e: Flat, stream: int, plan: int, now: int) -> bool:
    """Take the tokens of the head and log its issue; return whether they were there."""
    tick = max(e[stream + c.S_TIME], now)
    if e[plan + c.P_WAIT_COUNT] > 0 and not take(e, stream, plan):
        e[stream + c.S_WAITS_FOR] = c.FOR_TOKENS
        mark(e, stream, tick, TOKEN_WAIT)
        return False
    e[stream + c.S_ISSUED] = tick
    mark(e, stream, tick, CONTROL)
    number = e[c.LOG + c.USED]
    e[c.LOG + c.USED] = number + 1
    e[stream + c.S_ROW] = number
    place = c.row(e, c.LOG, number)
    e[place + c.I_STREAM], e[place + c.I_PC] = e[stream + c.S_NUMBER], e[plan + c.P_PC]
    e[place + c.I_LAYER] = layer_of(e, stream, plan)
    e[place + c.I_OP], e[place + c.I_MASK] = e[plan + c.P_OP], e[plan + c.P_MASK]
    e[place + c.I_ISSUE], e[place + c.I_START] = tick, tick + e[c.ISSUE_TICKS]
    e[place + c.I_COMPLETION], e[place + c.I_DEPTH] = c.NONE, e[stream + c.S_DEPTH]
    for level in range(e[stream + c.S_DEPTH]):
        e[place + c.I_INDICES + level] = e[stream + c.S_LOOPS + 3 * level + c.INDEX]
    return True


@compiled
def fence(e: Flat, stream: int, plan: int, start: int) -> int:
    """Start a FENCE once everything in front of it has ended."""
    mark(e, stream, start, TOKEN_WAIT)
    if e[stream + c.S_OPEN] > 0:
        e[stream + c.S_WAITS_FOR] = c.FOR_EARLIER
        return WAITS
    start = max(start, e[stream + c.S_DONE])
    complete(e, stream, plan, e[stream + c.S_ROW], start)
    e[stream + c.S_TIME] = start
    return STARTED


@compiled
def read(e: Flat, stream: int, plan: int, start: int) -> int:
    """Answer a READ once its word has come; the sequencer waits for it.

    A word of a buffer takes the buffer's latency and a cycle, and no port. One of DRAM is a
    transfer of its own and crosses the crossbar's latency.
    """
    if e[stream + c.S_READING]:
        return WAITS
    if not e[stream + c.S_ANSWERED]:
        e[c.ASKED] = stream
        return c.NEEDS_VALUE
    if e[plan + c.P_IN_DRAM]:
        e[stream + c.S_READING], e[stream + c.S_WAITS_FOR] = 1, c.FOR_MEMORY
        at(e, start, c.READ_MEMORY, stream)
        return WAITS
    e[stream + c.S_TIME] = start + e[c.READ_TICKS]
    take_value(e, stream, plan)
    complete(e, stream, plan, e[stream + c.S_ROW], e[stream + c.S_TIME])
    return STARTED


@compiled
def read_done(e: Flat, stream: int, now: int) -> None:
    """The word of a READ has come from the memory."""
    e[stream + c.S_READING] = 0
    e[stream + c.S_TIME] = now + e[c.CROSS_TICKS]
    plan = e[stream + c.S_PLANS] + e[stream + c.S_HEAD_PC] * c.PLAN
    take_value(e, stream, plan)
    complete(e, stream, plan, e[stream + c.S_ROW], e[stream + c.S_TIME])
    e[stream + c.S_HEAD_PC] = e[stream + c.S_ISSUED] = c.NONE
    resume(e, stream, e[stream + c.S_TIME])


@compiled
def free_at(e: Flat, stream: int, plan: int, lane: int) -> int:
    """Return when `lane` accepts the head; NONE if that is not known yet."""
    opcode = e[plan + c.P_OPCODE]
    if e[stream + c.S_KIND] == DMA:
        if e[lane + c.L_IN_FLIGHT] >= e[c.OUTSTANDING]:
            return c.NONE
        last = e[lane + c.L_LAST_START]
        return last + e[c.DMA_PERIOD] if last >= 0 else 0
    if e[stream + c.S_KIND] == PIM:
        if e[lane + c.L_IN_FLIGHT] >= e[c.PIM_OUTSTANDING]:
            return c.NONE
        last = e[lane + c.L_LAST_START]
        return last + e[c.MEMORY_PERIOD] if last >= 0 else 0
    if opcode == RECV:
        return c.NONE if e[lane + c.L_IN_FLIGHT] > 0 else 0
    return c.NONE if e[lane + c.L_PENDING] else accepts(e, lane, opcode)


@compiled
def start_transfer(e: Flat, stream: int, plan: int, part: int, start: int) -> None:
    """Start a DMA engine's part: where its tile lies in DRAM is known now."""
    unit = unit_of(e[e[part + c.A_LANE] + c.L_MASK])
    demand = c.row(e, c.DEMAND, e[part + c.A_DEMAND])
    e[part + c.A_LIST], e[part + c.A_LIST_COUNT] = e[demand + c.D_LIST], e[demand + c.D_LIST_COUNT]
    if e[plan + c.P_GATHERS]:
        lists = e[c.AT_GATHERED] + 2 * unit
        e[part + c.A_LIST], e[part + c.A_LIST_COUNT] = e[lists], e[lists + 1]
    e[part + c.A_LISTS_LEFT], e[part + c.A_BASE] = e[part + c.A_LIST_COUNT], 0
    if e[plan + c.P_BASE] != c.NONE:
        rank = rank_of(e[plan + c.P_MASK], unit)
        e[part + c.A_BASE] = base_of(e, stream, e[plan + c.P_BASE], rank)
    dma.start(e, part, unit, start)


@compiled
def start_part(e: Flat, stream: int, plan: int, lane: int, number: int, start: int) -> None:
    """Start one lane's share at `start`; that is now, unless the queue runs ahead."""
    demand, opcode = c.row(e, c.DEMAND, number), e[plan + c.P_OPCODE]
    part = new_part(e, stream, plan, lane, number, start)
    e[demand + c.D_RUNS] += e[lane + c.L_COUNT]
    if e[stream + c.S_KIND] == DMA:
        start_transfer(e, stream, plan, part, start)
    elif e[stream + c.S_KIND] == PIM:
        pim_queue.start(e, part, unit_of(e[lane + c.L_MASK]), opcode, start)
    elif opcode == SEND:
        link.send(e, part, start)
    elif opcode == RECV:
        link.receive(e, part, start)
    else:
        e[part + c.A_FIRST] = first_beat(e, lane, opcode, demand, start) + e[demand + c.D_WAIT]
        e[part + c.A_WORK_END] = e[part + c.A_FIRST] + e[demand + c.D_BUSY]
        e[lane + c.L_PENDING] = e[part + c.A_PENDING] = 1
        ask(e, part, start)
        came(e, part, start)


@compiled
def start_all(e: Flat, stream: int, plan: int, start: int, now: int) -> None:
    """Start the shares that are listed, all at `start`."""
    number, work = e[stream + c.S_ROW], 0
    first, end = e[c.AT_SHARE], e[c.AT_SHARE] + e[c.SHARES] * c.SHARE
    for share in range(first, end, c.SHARE):
        work += e[share + c.H_DEMAND] != 0
    e[c.row(e, c.LOG, number) + c.I_START], e[c.row(e, c.LOG, number) + c.I_LEFT] = start, work
    e[stream + c.S_TIME] = start
    e[stream + c.S_OPEN] += 1
    e[stream + c.S_ISSUED], e[stream + c.S_ANSWERED] = c.NONE, 0
    if work == 0:
        finish(e, stream, plan, number, start, now)
    for share in range(first, end, c.SHARE):
        if e[share + c.H_DEMAND] != 0:
            start_part(e, stream, plan, e[share + c.H_LANE], e[share + c.H_DEMAND], start)


@compiled
def start_head(e: Flat, stream: int, plan: int, now: int) -> int:
    """Start an instruction of the units, if all of them accept it."""
    if not find_shares(e, stream, plan):
        return c.NEEDS_DEMAND
    part_lanes(e, stream)
    issued = e[stream + c.S_ISSUED] + e[c.ISSUE_TICKS]
    start, first = issued, e[c.AT_SHARE]
    for share in range(first, first + e[c.SHARES] * c.SHARE, c.SHARE):
        free = 0
        if e[share + c.H_DEMAND] != 0:
            free = free_at(e, stream, plan, e[share + c.H_LANE])
        if free == c.NONE:
            mark(e, stream, start, UNUSED)
            e[stream + c.S_WAITS_FOR] = c.FOR_UNITS
            return WAITS
        start = max(start, free)
    mark(e, stream, issued, UNUSED)
    if start > now and not runs_ahead(e, stream, plan):
        resume(e, stream, start)
        return WAITS
    asks = e[plan + c.P_GATHERS] or e[stream + c.S_KIND] == PIM
    if asks and not e[stream + c.S_ANSWERED]:
        e[c.ASKED] = stream
        return c.NEEDS_LISTS
    start_all(e, stream, plan, max(start, now), now)
    return STARTED


@compiled
def execute(e: Flat, stream: int, plan: int, now: int) -> int:
    """Start the head if its units accept it."""
    start, opcode = e[stream + c.S_ISSUED] + e[c.ISSUE_TICKS], e[plan + c.P_OPCODE]
    if not e[stream + c.S_ACTIVE] or opcode == NOP:
        complete(e, stream, plan, e[stream + c.S_ROW], start)
        e[stream + c.S_TIME] = start
        return STARTED
    if opcode == FENCE:
        return fence(e, stream, plan, start)
    if opcode == READ:
        return read(e, stream, plan, start)
    return start_head(e, stream, plan, now)


@compiled
def walk(e: Flat, stream: int, now: int) -> int:
    """Take `stream` as far as it gets without waiting for an event.

    Returns why the kernel must stop, if so; another call then goes on.
    """
    while not e[stream + c.S_HALTED]:
        if not has_room(e):
            return c.NEEDS_ROOM
        if e[stream + c.S_HEAD_PC] == c.NONE:
            became = next_instruction(e, stream)
            if became != STARTED:
                return became
        plan = e[stream + c.S_PLANS] + e[stream + c.S_HEAD_PC] * c.PLAN
        if e[stream + c.S_TIME] > now and (
            e[plan + c.P_WAIT_COUNT] > 0 or not runs_ahead(e, stream, plan)
        ):
            resume(e, stream, e[stream + c.S_TIME])
            return WAITS
        if e[stream + c.S_ISSUED] < 0 and not issue(e, stream, plan, now):
            return WAITS
        became = execute(e, stream, plan, now)
        if became != STARTED:
            return became
        e[stream + c.S_HEAD_PC] = e[stream + c.S_ISSUED] = c.NONE
    return WAITS
