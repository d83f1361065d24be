"""The engine's memory as Python makes it: single records first, then the tables that grow."""

from collections.abc import Sequence

import numpy as np

from archsim.engine import cells as c
from machine.program import LOOP_LEVELS

__all__ = ["Layout", "grow", "rows_of"]

TABLES = [c.HEAD_OF_TABLES + 4 * table for table in range(c.TABLES)]
WIDTHS = {
    c.EVENT: 4, c.LOG: c.I_INDICES + LOOP_LEVELS, c.BOOK: 12, c.MARK: 4, c.MESSAGE: 4,
    c.LIST: 5, c.ADDRESS: 1, c.HASH: 1,
}
ROOM = 1 << 10  # rows of a table at first


class Layout:
    """A memory being laid out; a place is an index of `cells`."""

    def __init__(self) -> None:
        self.cells = [0] * c.HEAD

    def place(self, values: Sequence[int]) -> int:
        """Put cells of these values at the end; return their place."""
        place = len(self.cells)
        self.cells += values
        return place

    def pool(self, size: int, count: int, next_cell: int) -> int:
        """Put `count` free records of `size` cells at the end, chained; return the first."""
        first = len(self.cells)
        for number in range(count):
            record = [0] * size
            record[next_cell] = first + (number + 1) * size if number + 1 < count else c.NONE
            self.cells += record
        return first

    def set(self, place: int, **values: int) -> None:
        """Set fields of the record at `place`, by their names in `archsim.engine.cells`."""
        for name, value in values.items():
            self.cells[place + getattr(c, name)] = value

    def finish(self, demand_width: int, slack: int) -> np.ndarray:
        """Return the memory with its tables behind, empty and with room for `slack` rows more."""
        self.set(0, DEMAND_WIDTH=demand_width, SLACK=slack)
        place = len(self.cells)
        for table in TABLES:
            room, width = ROOM, WIDTHS.get(table, demand_width)
            while table != c.HASH and room < 2 * slack:
                room *= 2
            self.cells[table : table + 4] = [place, 0, room, width]
            place += room * width
        memory = np.zeros(place, np.int64)
        memory[: len(self.cells)] = self.cells
        return memory


def grow(memory: np.ndarray, rooms: dict[int, int]) -> np.ndarray:
    """Return `memory` with room for as many rows in each of the tables as `rooms` says."""
    tables = [(t, *memory[t : t + 4].tolist()) for t in TABLES]
    begins = place = tables[0][1]
    places = []
    for table, _, _, room, width in tables:
        places.append(place)
        place += rooms.get(table, room) * width
    grown = np.zeros(place, np.int64)  # what is never written takes no memory
    grown[:begins] = memory[:begins]
    for at, (table, old, used, room, width) in zip(places, tables, strict=True):
        filled = (room if table == c.HASH else used) * width
        grown[at : at + filled] = memory[old : old + filled]
        grown[table], grown[table + c.ROOM] = at, rooms.get(table, room)
    return grown


def rows_of(memory: np.ndarray, table: int) -> np.ndarray:
    """Return the used rows of a table, a view int64 [n, cells]."""
    place, used, _, width = memory[table : table + 4].tolist()
    return memory[place : place + used * width].reshape(used, width)
