"""The instruction log: what every executor can write, and the form in which two are compared."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Entry", "InstructionLog"]


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


@dataclass(slots=True)
class InstructionLog:
    """The entries of a run, those of each queue in its order; a list a column.

    An executor may take a queue ahead of the others, so that rows of different queues are in no
    order. SCALAR, LOOP and END are not instructions of the log: every executor unrolls them.
    """

    queues: Sequence[str]
    queue: list[int] = field(default_factory=list)  # into `queues`
    pc: list[int] = field(default_factory=list)
    indices: list[tuple[int, ...]] = field(default_factory=list)
    layer: list[int] = field(default_factory=list)
    op: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    issue: list[int] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    completion: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pc)

    def entries(self) -> Iterator[Entry]:
        """Yield the entries, each queue's in its order."""
        seen = [0] * len(self.queues)
        for row in range(len(self.pc)):
            queue = self.queue[row]
            yield Entry(
                self.queues[queue], seen[queue], self.pc[row], self.indices[row],
                self.layer[row], self.op[row], self.mask[row],
                self.issue[row], self.start[row], self.completion[row],
            )
            seen[queue] += 1

    def of(self, queue: str) -> list[Entry]:
        """Return the entries of one queue, in its order."""
        return [entry for entry in self.entries() if entry.queue == queue]
