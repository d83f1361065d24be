"""What each lane of an instruction's units is asked: demands by size, and where units part.

A demand depends on the instruction, the block that describes the unit and the sizes that the edge
rules give. Python works each out once (`archsim.engine.demand`); here they are found again, by
hash.
"""

from archsim.engine import cells as c
from archsim.engine.compiled import Flat, compiled, entry
from archsim.engine.lanes import split, units_in
from machine.program import UNIT_LEVEL

__all__ = ["base_of", "find_shares", "hash_place", "part_lanes", "rank_of", "share_out", "unit_of"]

LEVEL_OF_UNITS = int(UNIT_LEVEL)
UNITS = 32  # bits of a mask
BITS = (1 << 40) - 1  # of a hash


@compiled
def unit_of(mask: int) -> int:
    """Return the first unit of a mask."""
    return units_in((mask & -mask) - 1)


@compiled
def rank_of(mask: int, unit: int) -> int:
    """Return how many units of a mask come before `unit`."""
    return units_in(mask & ((1 << unit) - 1))


@compiled
def index_of(e: Flat, stream: int, level: int, rank: int) -> int:
    """Return a loop's index, or the rank for the level of units."""
    if level == LEVEL_OF_UNITS:
        return rank
    return e[stream + c.S_LOOPS + 3 * level + c.INDEX] if level < e[stream + c.S_DEPTH] else 0


@compiled
def size_of(e: Flat, stream: int, limit: int, rank: int) -> int:
    """Return the size that an edge rule gives now."""
    left = e[limit + c.Z_BOUND]
    if e[limit + c.Z_REGISTER] != c.NONE:
        left = e[stream + c.S_REGISTERS + e[limit + c.Z_REGISTER]]
    step = e[limit + c.Z_STEPS]
    for place in range(step, step + 2 * e[limit + c.Z_STEP_COUNT], 2):
        left -= index_of(e, stream, e[place], rank) * e[place + 1]
    return min(e[limit + c.Z_SIZE], max(left, 0))


@compiled
def base_of(e: Flat, stream: int, tile: int, rank: int) -> int:
    """Return the address of the first element of the operand in DRAM."""
    address = e[tile + c.T_ADDRESS]
    if e[tile + c.T_REGISTER] != c.NONE:
        address += e[stream + c.S_REGISTERS + e[tile + c.T_REGISTER]]
    offset, stride = 0, e[tile + c.T_STRIDES]
    for place in range(stride, stride + 2 * e[tile + c.T_STRIDE_COUNT], 2):
        offset += index_of(e, stream, e[place], rank) * e[place + 1]
    return address + offset * e[tile + c.T_BITS] // 8


@entry
def hash_place(e: Flat, plan: int, block: int) -> int:
    """Return the cell of the table that holds a demand of these sizes, or that is free for it.

    `plan` is a number; the sizes lie at the end of the first row of demands.
    """
    count, sizes = e[c.DEMAND_WIDTH] - c.D_SIZES, c.row(e, c.DEMAND, 0) + c.D_SIZES
    key = plan * UNITS + block
    for size in range(sizes, sizes + count):
        key = (key * 1000003 ^ e[size]) & BITS
        key ^= key >> 17
    while True:
        key &= e[c.HASH + c.ROOM] - 1
        place = c.row(e, c.HASH, key)
        number = e[place]
        if number == 0:
            return place
        demand = c.row(e, c.DEMAND, number)
        if e[demand + c.D_PLAN] == plan and e[demand + c.D_BLOCK] == block:
            same = True
            for size in range(count):
                if e[demand + c.D_SIZES + size] != e[sizes + size]:
                    same = False
            if same:
                return place
        key += 1


@compiled
def demand_of(e: Flat, stream: int, plan: int, unit: int) -> int:
    """Return the number of the demand of one unit: 0 for an empty tile, NONE if it is not known.

    Leaves its sizes at the end of the first row of demands.
    """
    rank = rank_of(e[plan + c.P_MASK], unit) if e[plan + c.P_BY_RANK] else 0
    sizes, count = c.row(e, c.DEMAND, 0) + c.D_SIZES, e[c.DEMAND_WIDTH] - c.D_SIZES
    for number in range(count):
        e[sizes + number] = 0
        if number < e[plan + c.P_LIMIT_COUNT]:
            limit = e[plan + c.P_LIMITS] + number * c.LIMIT
            e[sizes + number] = size_of(e, stream, limit, rank)
    block = e[e[c.AT_BLOCK] + e[stream + c.S_KIND] * UNITS + unit]
    number = e[hash_place(e, e[plan + c.P_NUMBER], block)]
    if number == 0:
        e[c.ASKED], e[c.ASKED_UNIT] = stream, unit
        return c.NONE
    return 0 if e[c.row(e, c.DEMAND, number) + c.D_EMPTY] else number


@compiled
def list_share(e: Flat, lane: int, mask: int, inside: int, demand: int) -> None:
    """Put the part `mask` of a lane on the list."""
    share = e[c.AT_SHARE] + e[c.SHARES] * c.SHARE
    e[share + c.H_LANE], e[share + c.H_MASK] = lane, mask
    e[share + c.H_INSIDE], e[share + c.H_DEMAND] = inside, demand
    e[c.SHARES] += 1


@compiled
def share_each(e: Flat, stream: int, plan: int, lane: int, inside: int) -> bool:
    """As `share_out`, units with one demand together; those of the first unit come last."""
    left, first_mask, first_demand = inside, 0, c.NONE
    while left:
        demand = demand_of(e, stream, plan, unit_of(left))
        if demand == c.NONE:
            return False
        members, rest = 0, left
        while rest:
            unit = unit_of(rest)
            rest &= rest - 1
            other = demand_of(e, stream, plan, unit)
            if other == c.NONE:
                return False
            if other == demand:
                members |= 1 << unit
        left &= ~members
        if first_mask == 0:
            first_mask, first_demand = members, demand
        else:
            list_share(e, lane, members, inside, demand)
    list_share(e, lane, first_mask, inside, first_demand)
    return True


@compiled
def share_out(e: Flat, stream: int, plan: int, lane: int, inside: int) -> bool:
    """List what the units `inside` a lane are asked; return whether every demand is known.

    A tile's size falls or rises with the rank, so equal units of one block stay equal if the
    first and the last are.
    """
    first = unit_of(inside)
    demand = demand_of(e, stream, plan, first)
    if demand == c.NONE:
        return False
    if inside & (inside - 1) and not (e[plan + c.P_UNIFORM] and not e[plan + c.P_BY_RANK]):
        below = inside
        for shift in (1, 2, 4, 8, 16):
            below |= below >> shift
        last = units_in(below) - 1
        blocks = e[c.AT_BLOCK] + e[stream + c.S_KIND] * UNITS
        alike = e[blocks + first] == e[blocks + last]
        if alike and e[plan + c.P_BY_RANK]:
            other = demand_of(e, stream, plan, last)
            if other == c.NONE:
                return False
            alike = other == demand
        if not alike:
            return share_each(e, stream, plan, lane, inside)
    list_share(e, lane, inside, inside, demand)
    return True


@compiled
def find_shares(e: Flat, stream: int, plan: int) -> bool:
    """List what each lane of the head's units is asked; return whether every demand is known."""
    e[c.SHARES] = 0
    lanes = e[stream + c.S_LANES]
    for place in range(lanes, lanes + e[stream + c.S_LANE_COUNT]):
        inside = e[e[place] + c.L_MASK] & e[plan + c.P_MASK]
        if inside and not share_out(e, stream, plan, e[place], inside):
            return False
    return True


@compiled
def part_lanes(e: Flat, stream: int) -> None:
    """Part the lanes that the listed shares drive in part, then those whose units differ."""
    first = e[c.AT_SHARE]
    end = first + e[c.SHARES] * c.SHARE
    for share in range(first, end, c.SHARE):
        lane, inside = e[share + c.H_LANE], e[share + c.H_INSIDE]
        if inside != e[lane + c.L_MASK]:
            other = split(e, stream, lane, inside)
            for same in range(share, end, c.SHARE):
                if e[same + c.H_LANE] == lane:
                    e[same + c.H_LANE] = other
    for share in range(first, end, c.SHARE):
        if e[share + c.H_MASK] != e[e[share + c.H_LANE] + c.L_MASK]:
            e[share + c.H_LANE] = split(e, stream, e[share + c.H_LANE], e[share + c.H_MASK])
