"""The first difference between two executions of a program, from their instruction logs."""

from dataclasses import dataclass
from typing import Any

from archsim.log import Entry, InstructionLog

__all__ = ["Difference", "first_difference"]

_FIELDS = ("pc", "indices", "layer", "op", "mask", "issue", "start", "completion")
_TIMES = ("issue", "start", "completion")


@dataclass(frozen=True)
class Difference:
    """Where two logs part: the instruction, the field and its two values.

    Field ``entry`` says that one log has the instruction and the other has ended.
    """

    queue: str
    sequence: int
    field: str
    left: Any
    right: Any
    entry: Entry  # of the log that has it, the left one if both have

    def __str__(self) -> str:
        at = f"{self.queue}[{self.sequence}], pc {self.entry.pc}, indices {self.entry.indices}"
        if self.field == "entry":
            has, lacks = ("left", "right") if self.left is not None else ("right", "left")
            return f"{at}: in the {has} log, not in the {lacks}"
        return f"{at}: {self.field} {self.left} != {self.right}"


def first_difference(
    left: InstructionLog, right: InstructionLog, *, times: bool = True
) -> Difference | None:
    """Return the difference that comes first in time, or None if the logs agree.

    Each queue is compared in its own order, so that executions that interleave queues differently
    agree. The earliest difference is that of the least issue time, then of the least queue name. A
    time of -1 is unknown and equal to any; without `times` no time is compared.
    """
    found = []
    for queue in sorted({*left.queues, *right.queues}):
        difference = _of_queue(left.of(queue), right.of(queue), times)
        if difference is not None:
            found.append(difference)
    return min(found, key=lambda d: (d.entry.issue, d.queue), default=None)


def _of_queue(left: list[Entry], right: list[Entry], times: bool) -> Difference | None:
    for one, other in zip(left, right, strict=False):
        for field in _FIELDS:
            mine, its = getattr(one, field), getattr(other, field)
            if field in _TIMES and (not times or -1 in (mine, its)):
                continue
            if mine != its:
                return Difference(one.queue, one.sequence, field, mine, its, one)
    if len(left) == len(right):
        return None
    at = min(len(left), len(right))
    if len(left) > at:
        return Difference(left[at].queue, at, "entry", left[at], None, left[at])
    return Difference(right[at].queue, at, "entry", None, right[at], right[at])
