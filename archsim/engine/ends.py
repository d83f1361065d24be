"""When a part ends: what its kind of unit makes of it once nothing of it is pending."""

from archsim.engine import cells as c
from archsim.engine import lanes
from archsim.engine.compiled import Flat, compiled
from archsim.engine.events import at
from archsim.engine.flight import record, retire
from machine.opcodes import Opcode
from machine.program import QueueKind

__all__ = ["arrive", "came", "ready"]

LOAD, STORE = int(Opcode.LOAD), int(Opcode.STORE)
SEND, RECV = int(Opcode.SEND), int(Opcode.RECV)
READRES = int(Opcode.PIM_READRES)
PIM = int(QueueKind.PIM)


@compiled
def unit_through(e: Flat, part: int, opcode: int, now: int) -> None:
    """The ports of an array or a vector unit are through: its end is known."""
    demand = c.row(e, c.DEMAND, e[part + c.A_DEMAND])
    end = max(e[part + c.A_WORK_END], e[part + c.A_PORT_END])
    first = e[part + c.A_FIRST] - e[demand + c.D_WAIT]
    completion = lanes.finish(e, e[part + c.A_LANE], opcode, demand, first, end)
    record(e, part, end, completion)
    retire(e, part, completion, now)


@compiled
def transfer_through(e: Flat, part: int, opcode: int) -> None:
    """Memory, crossbar and ports are through; what moved them may end when its last word is."""
    last, port_end = e[part + c.A_LAST], e[part + c.A_PORT_END]
    if opcode == LOAD or opcode == READRES:
        end = max(last + e[c.CROSS_TICKS] + e[c.CROSS_PERIOD], port_end)
    else:
        end = max(last, port_end + e[c.CROSS_TICKS])
    at(e, end, c.READY, part)


@compiled
def ready(e: Flat, part: int, now: int) -> None:
    """Let a transfer end, and those behind it that are ready, but none before one in front."""
    e[part + c.A_READY] = 1
    lane = e[part + c.A_LANE]
    while e[lane + c.L_IN_FLIGHT] > 0 and e[e[lane + c.L_OLDEST] + c.A_READY]:
        front = e[lane + c.L_OLDEST]
        e[lane + c.L_OLDEST] = e[front + c.A_NEXT]
        e[lane + c.L_IN_FLIGHT] -= 1
        record(e, front, max(e[front + c.A_PORT_END], e[front + c.A_LAST]), now)
        retire(e, front, now, now)


@compiled
def arrive(e: Flat, part: int, message: int) -> None:
    """The end of the message that a RECV takes is known."""
    last = e[c.row(e, c.MESSAGE, message) + c.M_LAST] + e[c.LINK_PERIOD]
    e[part + c.A_LAST] = last
    at(e, max(last, e[part + c.A_FIRST]), c.CAME, part)


@compiled
def sent(e: Flat, part: int, now: int) -> None:
    """A SEND is through: its last byte is on its way."""
    message, lane = e[part + c.A_MESSAGE], e[part + c.A_LANE]
    end = max(e[part + c.A_WORK_END], e[part + c.A_PORT_END])
    e[c.row(e, c.MESSAGE, message) + c.M_LAST] = end + e[c.LINK_TICKS]
    e[lane + c.L_PENDING] = 0
    e[lane + c.L_DONE] = end
    record(e, part, end, end)
    retire(e, part, end, now)
    receiver = e[c.row(e, c.MESSAGE, message) + c.M_PART]
    if receiver != c.NONE:
        arrive(e, receiver, message)


@compiled
def received(e: Flat, part: int, now: int) -> None:
    """A RECV has its last byte and its ports are through."""
    end = max(max(e[part + c.A_LAST], e[part + c.A_PORT_END]), now)
    e[e[part + c.A_LANE] + c.L_IN_FLIGHT] -= 1
    record(e, part, end, end)
    at(e, end, c.RETIRE, part)


@compiled
def came(e: Flat, part: int, now: int) -> None:
    """One of the things that a part waited for is there; with the last one it ends."""
    e[part + c.A_PENDING] -= 1
    if e[part + c.A_PENDING] > 0:
        return
    opcode = e[e[part + c.A_PLAN] + c.P_OPCODE]
    if opcode == LOAD or opcode == STORE:
        transfer_through(e, part, opcode)
    elif e[e[part + c.A_STREAM] + c.S_KIND] == PIM:
        if e[c.row(e, c.DEMAND, e[part + c.A_DEMAND]) + c.D_USES] > 0:
            transfer_through(e, part, opcode)
        else:
            at(e, e[part + c.A_LAST], c.READY, part)
    elif opcode == SEND:
        sent(e, part, now)
    elif opcode == RECV:
        received(e, part, now)
    else:
        unit_through(e, part, opcode, now)
