"""The memories of the chips in the engine's time, and who waits for each transfer.

Each has a port for every DMA engine and a last one for READs. `s`, `m`, `started` and `credit` are
those of `archsim.dram.kernel`, a memory each; `k`, `listed`, `trace` and
`done`, room for the transfers that a call finds done, are common to all.
"""

from archsim.dram import kernel as dram
from archsim.engine import cells as c
from archsim.engine.compiled import Cube, Flat, Row, Rows, compiled
from archsim.engine.events import at

__all__ = [
    "advance_memories", "ask_memory", "catch_up", "lists_fit", "memory_of", "outside_first",
]

FOREVER = 1 << 60


@compiled
def memory_of(e: Flat, chip: int) -> int:
    """Return the place of a chip's memory."""
    transfers = e[c.MEMORY_PORTS] * e[c.MEMORY_DEPTH]
    return e[c.AT_MEMORY] + chip * (c.MEMORY + transfers * c.TRANSFER)


@compiled
def lists_fit(e: Flat, first: int, count: int, listed: Rows) -> bool:
    """Return whether the addresses of `count` lists have room; how many rows they need, if not."""
    under_way, needed = 0, 0
    for chip in range(e[c.CHIPS]):
        under_way += e[memory_of(e, chip) + c.Y_UNDER_WAY]
    if under_way == 0:
        e[c.LISTED] = 0
    for number in range(first, first + count):
        if e[c.row(e, c.LIST, number) + c.Q_FIRST] != c.NONE:
            needed += e[c.row(e, c.LIST, number) + c.Q_ROWS]
    e[c.LISTED_END] = e[c.LISTED] + needed
    return e[c.LISTED_END] <= len(listed)


@compiled
def in_memory(e: Flat, low: int, high: int) -> int:
    """Return why bytes from `low` to `high` are not in the memory, if they are not."""
    if low < 0:
        e[c.FAULT_VALUE] = low
        return c.BELOW_MEMORY
    e[c.FAULT_VALUE] = high
    return c.BEYOND_MEMORY if high > e[c.MEMORY_BYTES] else c.GOES_ON


@compiled
def describe_piece(e: Flat, piece: int, base: int, move: Row) -> int:
    """Write a strided piece as a transfer; return why it cannot be one, if so."""
    address = base + e[piece + c.Q_OFFSET]
    size, stride, rows = e[piece + c.Q_BYTES], e[piece + c.Q_STRIDE], e[piece + c.Q_ROWS]
    if stride == size:
        size, rows = size * rows, 1
    last = address + (rows - 1) * stride
    move[dram.M_BASE], move[dram.M_BYTES], move[dram.M_STRIDE] = address, size, stride
    move[dram.M_PIECES], move[dram.M_LISTED] = rows, c.NONE
    return in_memory(e, min(address, last), max(address, last) + size)


@compiled
def describe_list(e: Flat, piece: int, base: int, kind: int, move: Row, listed: Rows) -> int:
    """Write runs at listed addresses as a transfer; return why they cannot be one, if so."""
    first, rows, size = e[c.LISTED], e[piece + c.Q_ROWS], e[piece + c.Q_BYTES]
    low, high = c.NEVER, -c.NEVER
    for number in range(rows):
        address = base + e[c.row(e, c.ADDRESS, e[piece + c.Q_FIRST] + number)]
        listed[first + number, 0], listed[first + number, 1] = address, kind
        low, high = min(low, address), max(high, address)
    e[c.LISTED] = first + rows
    move[dram.M_BASE], move[dram.M_BYTES], move[dram.M_STRIDE] = 0, size, 0
    move[dram.M_PIECES], move[dram.M_LISTED] = rows, first
    return in_memory(e, low, high + size)


@compiled
def ask_memory(
    e: Flat, k: Row, s: Rows, m: Rows, listed: Rows, started: Row, credit: Rows,
    memory: int, port: int, kind: int, base: int, first: int, count: int,
    stream: int, part: int, now: int,
) -> int:
    """Start the transfer of `count` lists of pieces; return why the kernel must stop, if so.

    It is of `part`, or without one of the READ of `stream`.
    """
    cycle = max(-(-now // e[c.MEMORY_PERIOD]), e[memory + c.Y_NOW])
    for number in range(first, first + count):
        piece = c.row(e, c.LIST, number)
        place = port * e[c.MEMORY_DEPTH] + started[port] % e[c.MEMORY_DEPTH]
        move = m[place]
        if move[dram.M_LEFT] != c.NONE:
            return c.PORT_FULL
        if e[piece + c.Q_FIRST] == c.NONE:
            fault = describe_piece(e, piece, base, move)
            every = base + e[piece + c.Q_OFFSET] | move[dram.M_BYTES] | move[dram.M_STRIDE]
            equal = every & (e[c.STRIPE_BYTES] - 1) == 0
        else:
            fault, equal = describe_list(e, piece, base, kind, move, listed), False
        if fault != c.GOES_ON:
            return fault
        move[dram.M_KIND], move[dram.M_SINCE] = kind, cycle
        e[memory + c.Y_SOONEST] = dram.launch(
            k, s, m, listed, started, credit, port, e[memory + c.Y_NOW], equal)
        transfer = memory + c.MEMORY + place * c.TRANSFER
        e[transfer + c.X_STREAM], e[transfer + c.X_PART] = stream, part
        e[memory + c.Y_UNDER_WAY] += 1
    return c.GOES_ON


@compiled
def take_done(e: Flat, memory: int, m: Rows, done: Row) -> bool:
    """Tell who waits for the transfers that are done by now; return whether any is."""
    count = dram.take_done(m, done, e[memory + c.Y_NOW])
    for number in range(count):
        place = done[number]
        transfer = memory + c.MEMORY + place * c.TRANSFER
        part, tick = e[transfer + c.X_PART], m[place, dram.M_LAST] * e[c.MEMORY_PERIOD]
        e[memory + c.Y_UNDER_WAY] -= 1
        if part == c.NONE:
            at(e, tick, c.READ_DONE, e[transfer + c.X_STREAM])
        else:
            e[part + c.A_LISTS_LEFT] -= 1
            if e[part + c.A_LISTS_LEFT] == 0:
                at(e, tick, c.MEMORY_DONE, part)
    return count > 0


@compiled
def advance(
    e: Flat, k: Row, s: Rows, m: Rows, listed: Rows, started: Row, trace: Rows,
    done: Row, memory: int, until: int,
) -> bool:
    """Go on to `until`, or to the first transfer that ends; return whether one did."""
    cycle = max(e[memory + c.Y_NOW], until // e[c.MEMORY_PERIOD])
    now, soonest = dram.run(k, s, m, listed, started, trace, cycle)
    e[memory + c.Y_NOW], e[memory + c.Y_SOONEST] = now, soonest
    return soonest <= now and take_done(e, memory, m, done)


@compiled
def soonest_end(e: Flat) -> int:
    """Return a tick before which no transfer ends; NEVER if none is under way."""
    soonest = c.NEVER
    for chip in range(e[c.CHIPS]):
        memory = memory_of(e, chip)
        if e[memory + c.Y_UNDER_WAY] > 0:
            soonest = min(soonest, e[memory + c.Y_SOONEST] * e[c.MEMORY_PERIOD])
    return soonest


@compiled
def outside_first(e: Flat, until: int) -> bool:
    """Return whether the memory that Python has may have done something up to `until`."""
    e[c.OUTSIDE_UNTIL] = until
    soonest = soonest_end(e)
    return soonest != c.NEVER and (until == c.NONE or soonest <= until)


@compiled
def advance_memories(
    e: Flat, k: Row, s: Cube, m: Cube, listed: Rows, started: Rows, trace: Rows, done: Row,
    until: int,
) -> bool:
    """Go on to `until`; return whether a transfer ended on the way, or more is to be done.

    NONE is no limit. No chip passes the end of another chip's transfer.
    """
    soonest = soonest_end(e)
    if soonest == c.NEVER or (until != c.NONE and soonest > until):
        return False
    limit = FOREVER if until == c.NONE else until
    if e[c.CHIPS] > 1:
        # No transfer ends before `soonest`; one cycle at least is gained.
        now = c.NEVER
        for chip in range(e[c.CHIPS]):
            now = min(now, e[memory_of(e, chip) + c.Y_NOW] * e[c.MEMORY_PERIOD])
        limit = min(limit, max(soonest, now + e[c.MEMORY_PERIOD]))
    ended = False
    for chip in range(e[c.CHIPS]):
        memory = memory_of(e, chip)
        if advance(e, k, s[chip], m[chip], listed, started[chip], trace, done, memory, limit):
            ended = True
    return ended or (e[c.CHIPS] > 1 and (until == c.NONE or limit < until))


@compiled
def catch_up(
    e: Flat, k: Row, s: Cube, m: Cube, listed: Rows, started: Rows, trace: Rows
) -> None:
    """Bring all channels to their memory's time: whoever reads their state needs no call for it."""
    for chip in range(e[c.CHIPS]):
        now = e[memory_of(e, chip) + c.Y_NOW]
        dram.catch_up(k, s[chip], m[chip], listed, started[chip], trace, now)
