"""Lanes: units that do the same at the same time, kept as one, and when each accepts work.

An array accepts a MATMUL one cycle before the last tile in front starts (its command is fetched
ahead); the first activation enters when the weights are loaded and the tile in front is through.
Weights load from the first activation of the tile in front on: the second weight registers. A
PRELOAD is those weights as an instruction of its own. A FLUSH, and every operation of a vector
unit, waits for the completion of the one in front and overlaps with nothing.

A unit that shares no port with another one depends on nothing but its instructions. Such units of
one queue start as one lane, and part only when an instruction drives some of them or gives them
tiles of different sizes: an exact shortcut.

Of a lane: BEATS_END is the cycle after the last beat in front; NEXT_COMMAND, when the next command
can be accepted; WEIGHTS_OPEN, when the next weights may begin to load; WEIGHTS_COMMAND, when a
PRELOAD of them can be accepted; WEIGHTS_AT, when preloaded weights are complete; SUM_BEATS, rows
of sums still to leave in front; DONE, the completion of the work in front; PENDING, that the end
of the work in front is not known yet; IN_FLIGHT, transfers under way.
"""

from archsim.engine import cells as c
from archsim.engine.compiled import Flat, compiled
from machine.opcodes import Opcode

__all__ = ["accepts", "finish", "first_beat", "own_ports", "split", "units_in"]

MATMUL, PRELOAD = int(Opcode.MATMUL), int(Opcode.PRELOAD)


@compiled
def units_in(mask: int) -> int:
    """Return how many units a mask of 32 bits has: the sums of ever wider fields, side by side."""
    pairs = mask - (mask >> 1 & 0x55555555)
    fours = (pairs & 0x33333333) + (pairs >> 2 & 0x33333333)
    return ((fours + (fours >> 4) & 0x0F0F0F0F) * 0x01010101 >> 24) & 0xFF


@compiled
def split(e: Flat, stream: int, lane: int, mask: int) -> int:
    """Part a lane of `stream`: return a new one for the units of `mask`, keep the others."""
    other = e[c.FREE_LANE]
    e[c.FREE_LANE] = e[other + c.L_NEXT]
    for cell in range(c.LANE):
        e[other + cell] = e[lane + cell]
    e[other + c.L_PENDING] = e[other + c.L_IN_FLIGHT] = 0
    e[other + c.L_MASK], e[other + c.L_COUNT] = mask, units_in(mask)
    e[lane + c.L_MASK] &= ~mask
    e[lane + c.L_COUNT] -= e[other + c.L_COUNT]
    e[e[stream + c.S_LANES] + e[stream + c.S_LANE_COUNT]] = other
    e[stream + c.S_LANE_COUNT] += 1
    return other


@compiled
def accepts(e: Flat, lane: int, opcode: int) -> int:
    """Return the earliest start of the next instruction, once nothing is pending."""
    if opcode == MATMUL:
        return e[lane + c.L_NEXT_COMMAND]
    if opcode == PRELOAD:
        return e[lane + c.L_WEIGHTS_COMMAND]
    return e[lane + c.L_DONE]


@compiled
def own_ports(e: Flat, lane: int, demand: int, start: int) -> int:
    """Move the words of `demand` through ports of the units' own; return their end."""
    end = start
    for use in range(demand + c.D_USE, demand + c.D_USE + 2 * e[demand + c.D_USES], 2):
        route = e[lane + c.L_ROUTES] + e[use] * c.ROUTE
        slot = e[route + c.R_SLOT]
        if e[route + c.R_GROUP] == c.NONE:
            e[lane + c.L_WORDS + slot] += e[use + 1]
            moved = max(e[lane + c.L_FREE + slot], start) + e[use + 1] * e[route + c.R_PERIOD]
            e[lane + c.L_FREE + slot] = moved
            end = max(end, moved)
    return end


@compiled
def first_beat(e: Flat, lane: int, opcode: int, demand: int, start: int) -> int:
    """Return when the first beat of an instruction started at `start` enters."""
    filled = start + e[demand + c.D_FILL]
    loaded = e[lane + c.L_WEIGHTS_OPEN] + e[demand + c.D_LOADS]
    if opcode == PRELOAD:
        return max(filled, loaded)
    if opcode != MATMUL:
        return filled
    beats_end = e[lane + c.L_BEATS_END]
    sums_end = beats_end + e[lane + c.L_SUM_BEATS] - e[demand + c.D_HEAD]
    return max(max(filled, e[lane + c.L_WEIGHTS_AT]), max(loaded, max(beats_end, sums_end)))


@compiled
def finish(e: Flat, lane: int, opcode: int, demand: int, first: int, end: int) -> int:
    """Note that the last beat of the work in front is in at `end`; return its completion."""
    e[lane + c.L_PENDING] = 0
    if opcode == PRELOAD:
        e[lane + c.L_WEIGHTS_AT] = e[lane + c.L_WEIGHTS_OPEN] = e[lane + c.L_WEIGHTS_COMMAND] = end
        return end
    completion = end + e[demand + c.D_DRAIN]
    e[lane + c.L_DONE] = completion
    if opcode == MATMUL:
        e[lane + c.L_BEATS_END] = end
        e[lane + c.L_NEXT_COMMAND] = max(end - e[demand + c.D_TAIL], first - e[demand + c.D_PERIOD])
        e[lane + c.L_WEIGHTS_OPEN] = max(end - e[demand + c.D_HELD], first)
        e[lane + c.L_WEIGHTS_AT] = 0
        e[lane + c.L_SUM_BEATS] = e[demand + c.D_SUMS]
    else:
        e[lane + c.L_BEATS_END] = e[lane + c.L_NEXT_COMMAND] = completion
        e[lane + c.L_WEIGHTS_OPEN] = completion
    e[lane + c.L_WEIGHTS_COMMAND] = max(0, e[lane + c.L_WEIGHTS_OPEN] - e[demand + c.D_PERIOD])
    return completion
