"""Control, compiled: how a stream's loops, registers and predicates unfold, and what it costs.

The meaning is that of `machine.control.Cursor`, which every executor in Python walks.
"""

from archsim.accounting import CLASSES
from archsim.engine import cells as c
from archsim.engine.compiled import Flat, compiled
from archsim.engine.events import mark
from machine.opcodes import Alu, Opcode

__all__ = ["STARTED", "WAITS", "has_room", "next_instruction", "take_value"]

LOOP, END = int(Opcode.LOOP), int(Opcode.END)
SCALAR, HALT = int(Opcode.SCALAR), int(Opcode.HALT)
SET, LAUNCH_ENTRY, ADD, SUB, MUL = (int(Alu[n]) for n in ("SET", "LAUNCH", "ADD", "SUB", "MUL"))
MIN, MAX, CEILDIV = int(Alu.MIN), int(Alu.MAX), int(Alu.CEILDIV)
LT, EQ, WRAP = int(Alu.LT), int(Alu.EQ), int(Alu.WRAP)
CONTROL, HALTED = CLASSES.index("control"), CLASSES.index("halted")
# What became of the head: it waits for an event, or the queue goes on; else why the kernel stops.
WAITS, STARTED = -3, -2


@compiled
def ceil_div(a: int, b: int) -> int:
    """Return a / b, rounded up; 0 for b = 0."""
    if b == 0:
        return 0
    if b == -1:
        return -a
    return a // b + (a % b != 0)


@compiled
def alu(e: Flat, stream: int, plan: int, a: int, b: int) -> int:
    """Return what a SCALAR puts into its register; 64 bits, more wrap around."""
    what = e[plan + c.P_ALU]
    if what == SET:
        return b
    if what == LAUNCH_ENTRY:
        return e[e[c.AT_LAUNCH] + b]
    if what == ADD:
        return a + b
    if what == SUB:
        return a - b
    if what == MUL:
        return a * b
    if what == MIN:
        return min(a, b)
    if what == MAX:
        return max(a, b)
    if what == CEILDIV:
        return ceil_div(a, b)
    if what == LT:
        return int(a < b)
    if what == EQ:
        return int(a == b)
    if what == WRAP:
        return a - b if a >= b else a
    return e[stream + c.S_LOOPS + 3 * b + c.INDEX] if 0 <= b < e[stream + c.S_DEPTH] else 0


@compiled
def scalar(e: Flat, stream: int, plan: int) -> bool:
    """Run a SCALAR; return whether the launch table has the entry that it asks for, if any."""
    registers = stream + c.S_REGISTERS
    b = e[plan + c.P_B]
    if e[plan + c.P_B_REGISTER]:
        b = e[registers + b]
    if e[plan + c.P_ALU] == LAUNCH_ENTRY and not 0 <= b < e[c.LAUNCHES]:
        e[c.FAULT], e[c.FAULT_VALUE] = stream, b
        return False
    e[registers + e[plan + c.P_RD]] = alu(e, stream, plan, e[registers + e[plan + c.P_RA]], b)
    return True


@compiled
def enter(e: Flat, stream: int, plan: int, active: bool) -> None:
    """Enter a loop, or go behind its end."""
    count = e[plan + c.P_COUNT]
    if e[plan + c.P_COUNT_REGISTER]:
        count = e[stream + c.S_REGISTERS + count]
    if not active or count <= 0:
        e[stream + c.S_PC] = e[plan + c.P_END] + 1
        return
    loop = stream + c.S_LOOPS + 3 * e[stream + c.S_DEPTH]
    e[loop + c.BODY], e[loop + c.INDEX], e[loop + c.COUNT] = e[stream + c.S_PC], 0, count
    e[stream + c.S_DEPTH] += 1


@compiled
def again(e: Flat, stream: int) -> None:
    """At the end of a loop's body: go back, or leave it."""
    loop = stream + c.S_LOOPS + 3 * (e[stream + c.S_DEPTH] - 1)
    e[loop + c.INDEX] += 1
    if e[loop + c.INDEX] < e[loop + c.COUNT]:
        e[stream + c.S_PC] = e[loop + c.BODY]
    else:
        e[stream + c.S_DEPTH] -= 1


@compiled
def next_instruction(e: Flat, stream: int) -> int:
    """Bring the next instruction to the head, past those of control; WAITS at the end.

    Returns why the kernel must stop, if so.
    """
    while True:
        pc = e[stream + c.S_PC]
        plan = e[stream + c.S_PLANS] + pc * c.PLAN
        active, opcode = True, e[plan + c.P_OPCODE]
        if e[plan + c.P_PREDICATE] != c.NONE:
            is_zero = e[stream + c.S_REGISTERS + e[plan + c.P_PREDICATE]] == 0
            active = is_zero == (e[plan + c.P_NEGATE] != 0)
        if opcode == HALT:
            e[stream + c.S_HALTED] = 1
            mark(e, stream, e[stream + c.S_TIME], HALTED)
            return WAITS
        e[stream + c.S_PC] = pc + 1
        if opcode == LOOP:
            enter(e, stream, plan, active)
        elif opcode == END:
            again(e, stream)
        elif opcode == SCALAR:
            if active and not scalar(e, stream, plan):
                return c.NO_LAUNCH_ENTRY
        else:
            e[stream + c.S_HEAD_PC], e[stream + c.S_ACTIVE] = pc, active
            if active and e[plan + c.P_HEAD_TICKS] > 0:
                mark(e, stream, e[stream + c.S_TIME], CONTROL)
                e[stream + c.S_TIME] += e[plan + c.P_HEAD_TICKS]
            return STARTED
        mark(e, stream, e[stream + c.S_TIME], CONTROL)
        ticks = e[plan + c.P_HEAD_TICKS] if active else e[c.CONTROL_TICKS]
        e[stream + c.S_TIME] += ticks


@compiled
def has_room(e: Flat) -> bool:
    """Return whether every table has room for all that one step can add."""
    for table in (c.EVENT, c.LOG, c.BOOK, c.MARK, c.MESSAGE):
        if e[table + c.USED] + e[c.SLACK] > e[table + c.ROOM]:
            return False
    return True


@compiled
def take_value(e: Flat, stream: int, plan: int) -> None:
    """Let the register of a READ become the value that was answered."""
    e[stream + c.S_REGISTERS + e[plan + c.P_RD]] = e[stream + c.S_VALUE]
    e[stream + c.S_ANSWERED] = 0
