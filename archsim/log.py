"""The instruction log: what every executor can write, and the form in which two are compared."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, overload

import numpy as np

__all__ = ["Column", "Entry", "Indices", "InstructionLog"]

Column = Sequence[int] | np.ndarray


class Entry(NamedTuple):
    """One dynamic instruction; times in ticks, -1 where the executor has none."""

    queue: str
    sequence: int  # counts the entries of its queue from 0
    pc: int
    indices: tuple[int, ...]  # of the loops around it, outermost first
    layer: int
    op: int  # into Program.ops
    mask: int  # units, a bit each
    issue: int  # tokens taken, predicate read
    start: int  # every unit of the mask has accepted it
    completion: int  # its last effect is visible


class Indices(Sequence[tuple[int, ...]]):
    """Loop indices as arrays: int64 [n, levels], of which row i has `depth[i]`."""

    def __init__(self, depth: np.ndarray, levels: np.ndarray):
        self._depth, self._levels = depth, levels

    def __len__(self) -> int:
        return len(self._depth)

    @overload
    def __getitem__(self, row: int) -> tuple[int, ...]: ...

    @overload
    def __getitem__(self, row: slice) -> "Indices": ...

    def __getitem__(self, row: int | slice) -> "tuple[int, ...] | Indices":
        if isinstance(row, slice):
            return Indices(self._depth[row], self._levels[row])
        return tuple(self._levels[row, : self._depth[row]].tolist())


@dataclass(slots=True)
class InstructionLog:
    """The entries of a run, those of each queue in its order; a list or an array a column.

    An executor may take a queue ahead of the others, so that rows of different queues are in no
    order. SCALAR, LOOP and END are not instructions of the log: every executor unrolls them.
    """

    queues: Sequence[str]
    queue: Column = field(default_factory=list)  # into `queues`
    pc: Column = field(default_factory=list)
    indices: Sequence[tuple[int, ...]] = field(default_factory=list)
    layer: Column = field(default_factory=list)
    op: Column = field(default_factory=list)
    mask: Column = field(default_factory=list)
    issue: Column = field(default_factory=list)
    start: Column = field(default_factory=list)
    completion: Column = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pc)

    def entries(self) -> Iterator[Entry]:
        """Yield the entries, each queue's in its order."""
        seen = [0] * len(self.queues)
        columns = (self.queue, self.pc, self.layer, self.op, self.mask, self.issue, self.start,
                   self.completion)
        plain = [column.tolist() if isinstance(column, np.ndarray) else column
                 for column in columns]
        rows = zip(*plain, strict=True)
        for row, (queue, pc, layer, op, mask, issue, start, completion) in enumerate(rows):
            yield Entry(self.queues[queue], seen[queue], pc, self.indices[row], layer, op, mask,
                        issue, start, completion)
            seen[queue] += 1

    def of(self, queue: str) -> list[Entry]:
        """Return the entries of one queue, in its order."""
        return [entry for entry in self.entries() if entry.queue == queue]
