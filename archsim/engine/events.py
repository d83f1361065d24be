"""Events in the order in which they happen: by tick, completions before issues, then first made.

Issues of one tick go in the order of the queues.
"""

from archsim.engine import cells as c
from archsim.engine.compiled import Flat, compiled, entry

__all__ = ["at", "mark", "pop", "push", "resume"]

CELLS = 4  # of an event


@compiled
def push(e: Flat, tick: int, order: int, what: int, who: int) -> None:
    """Put an event into the heap."""
    first = e[c.EVENT + c.PLACE]
    hole = e[c.EVENT + c.USED]
    e[c.EVENT + c.USED] = hole + 1
    while hole > 0:
        above = first + ((hole - 1) >> 1) * CELLS
        if e[above] < tick or (e[above] == tick and e[above + 1] <= order):
            break
        place = first + hole * CELLS
        for cell in range(CELLS):
            e[place + cell] = e[above + cell]
        hole = (hole - 1) >> 1
    place = first + hole * CELLS
    e[place], e[place + 1], e[place + 2], e[place + 3] = tick, order, what, who


@entry
def pop(e: Flat) -> None:
    """Take the first event, at the place of the table, out of the heap."""
    first = e[c.EVENT + c.PLACE]
    count = e[c.EVENT + c.USED] - 1
    e[c.EVENT + c.USED] = count
    moved = first + count * CELLS
    tick, order = e[moved + c.E_TICK], e[moved + c.E_ORDER]
    hole, below = 0, 1
    while below < count:
        place = first + below * CELLS
        if below + 1 < count:
            other = place + CELLS
            if e[other] < e[place] or (e[other] == e[place] and e[other + 1] < e[place + 1]):
                below, place = below + 1, other
        if tick < e[place] or (tick == e[place] and order <= e[place + 1]):
            break
        above = first + hole * CELLS
        for cell in range(CELLS):
            e[above + cell] = e[place + cell]
        hole, below = below, 2 * below + 1
    place = first + hole * CELLS
    for cell in range(CELLS):
        e[place + cell] = e[moved + cell]


@entry
def at(e: Flat, tick: int, what: int, who: int) -> None:
    """Let `what` happen to `who` at `tick`, before anything issues there."""
    number = e[c.EVENT_NUMBER]
    e[c.EVENT_NUMBER] = number + 1
    push(e, tick, number, what, who)


@entry
def resume(e: Flat, stream: int, tick: int) -> None:
    """Go on with `stream` at `tick`, after the completions there; an earlier tick holds."""
    if 0 <= e[stream + c.S_RESUMES] <= tick:
        return
    e[stream + c.S_RESUMES] = tick
    push(e, tick, c.ISSUES + e[stream + c.S_NUMBER], c.WALK, stream)


@entry
def mark(e: Flat, stream: int, tick: int, name: int) -> None:
    """Note that the sequencer of `stream` is in the class `name` from `tick` on, for the books."""
    last = e[stream + c.S_MARKED]
    if last != c.NONE:
        place = c.row(e, c.MARK, last)
        if e[place + c.V_CLASS] == name:
            return
        if e[place + c.V_TICK] == tick:
            e[place + c.V_CLASS] = c.NONE
            last = e[stream + c.S_MARKED] = e[place + c.V_BEFORE]
            if last != c.NONE and e[c.row(e, c.MARK, last) + c.V_CLASS] == name:
                return
    number = e[c.MARK + c.USED]
    e[c.MARK + c.USED] = number + 1
    e[stream + c.S_MARKED] = number
    place = c.row(e, c.MARK, number)
    e[place + c.V_STREAM], e[place + c.V_TICK] = e[stream + c.S_NUMBER], tick
    e[place + c.V_CLASS], e[place + c.V_BEFORE] = name, last
