"""What a queue does in all, compiled: its instructions walked without time."""

from archsim.engine import cells as c
from archsim.engine.compiled import Flat, entry
from archsim.engine.control import STARTED, WAITS, has_room, next_instruction, take_value
from archsim.engine.lanes import units_in
from archsim.engine.shares import share_out
from machine.opcodes import Opcode

__all__ = ["count_work"]

NOP, FENCE, READ = int(Opcode.NOP), int(Opcode.FENCE), int(Opcode.READ)


@entry
def count_work(e: Flat, stream: int) -> int:
    """Walk `stream` without time and count what its units are asked; return why it stopped."""
    while True:
        if not has_room(e):
            return c.NEEDS_ROOM
        if e[stream + c.S_HEAD_PC] == c.NONE:
            became = next_instruction(e, stream)
            if became != STARTED:
                return c.ENDED if became == WAITS else became
        plan = e[stream + c.S_PLANS] + e[stream + c.S_HEAD_PC] * c.PLAN
        opcode = e[plan + c.P_OPCODE]
        if e[stream + c.S_ACTIVE] and opcode == READ:
            if not e[stream + c.S_ANSWERED]:
                e[c.ASKED] = stream
                return c.NEEDS_VALUE
            take_value(e, stream, plan)
        elif e[stream + c.S_ACTIVE] and e[plan + c.P_MASK] and opcode != NOP and opcode != FENCE:
            e[c.SHARES] = 0
            if not share_out(e, stream, plan, c.NONE, e[plan + c.P_MASK]):
                return c.NEEDS_DEMAND
            for share in range(e[c.AT_SHARE], e[c.AT_SHARE] + e[c.SHARES] * c.SHARE, c.SHARE):
                if e[share + c.H_DEMAND] != 0:
                    units = units_in(e[share + c.H_MASK])
                    e[c.row(e, c.DEMAND, e[share + c.H_DEMAND]) + c.D_RUNS] += units
        e[stream + c.S_HEAD_PC] = c.NONE
