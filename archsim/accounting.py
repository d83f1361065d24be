"""Where the cycles went: every tick of every resource in exactly one class.

The classes in order of priority; a tick that several describe belongs to the first of them.

busy           a unit takes a beat of input (array), computes (vector), moves a word (dma, link,
               pim); a port moves a word; a DRAM channel's data bus carries data; the units in
               memory of a channel multiply
bank_conflict  the unit's port was served by no bank
port_conflict  the unit's port, or the crossbar, served another client
port_bound     the unit's port moves the unit's words, more cycles than the unit has work for
bus_conflict   DRAM: commands of different bursts stood too close
row_conflict   units in memory: a row the host opened or closed is in their way
row_miss       DRAM: the row was not open yet; units in memory: their own, or the vector's
pim_conflict   DRAM that computes: the bank, the row or the command bus was PIM's
turnaround     DRAM: the data bus changed direction or rank
refresh        DRAM: the rank was in refresh
mode_switch    DRAM that computes: a change between memory and compute mode
memory_wait    a DMA engine waits for the memory, a receiver for its message, a PIM queue for its
               channels
fill           before the first beat: weights load, a first burst is on its way; units in memory:
               the vector is copied to their buffer
drain          after the last beat: sums leave, a last word crosses
control        the unit's queue issues, or runs LOOP, END, SCALAR, READ
token_wait     the head of the queue waits for a token or, a fence, for earlier instructions
unused         no work was offered: the head of the queue is for other units, or waits for them;
               a port or channel has no request, or none that can go
halted         the queue has ended, or the program has no queue for the unit
"""

import numpy as np

from archsim.log import InstructionLog

__all__ = ["CLASSES", "PARTS", "OpCycles", "by_operation", "classify", "uncovered"]

CLASSES = (
    "busy", "bank_conflict", "port_conflict", "port_bound", "bus_conflict", "row_conflict",
    "row_miss", "pim_conflict", "turnaround", "refresh", "mode_switch", "memory_wait", "fill",
    "drain", "control", "token_wait", "unused", "halted",
)
FIRST_STATE = CLASSES.index("control")  # from here on they are states of the unit's queue
# The classes between the boundaries of a part; a receiver waits first, the others last.
PARTS = (
    "memory_wait", "fill", "busy", "bank_conflict", "port_conflict", "port_bound", "memory_wait",
    "drain",
)


def uncovered(covered: np.ndarray, added: np.ndarray) -> tuple[int, np.ndarray]:
    """Return how many ticks `added` holds that `covered` does not, and the union of both.

    Both are int64 [n, 2] of half-open intervals, in any order and overlapping; the union is
    disjoint and ascending.
    """
    before = int((covered[:, 1] - covered[:, 0]).sum()) if len(covered) else 0
    added = added[added[:, 1] > added[:, 0]]
    low = np.concatenate([covered[:, 0], added[:, 0]])
    high = np.concatenate([covered[:, 1], added[:, 1]])
    if len(low) == 0:
        return 0, covered[:0]
    order = np.argsort(low, kind="stable")
    low, ends = low[order], np.maximum.accumulate(high[order])
    opens = np.ones(len(low), bool)
    np.greater(low[1:], ends[:-1], out=opens[1:])
    first = np.flatnonzero(opens)
    union = np.empty((len(first), 2), np.int64)
    union[:, 0] = low[first]
    union[:-1, 1] = ends[first[1:] - 1]
    union[-1, 1] = ends[-1]
    return int((union[:, 1] - union[:, 0]).sum()) - before, union


def classify(
    parts: np.ndarray, marks: np.ndarray, total: int
) -> dict[str, int]:
    """Return the ticks of each class of one unit; they sum to `total`.

    `parts` is int64 [n, 9], the boundaries of each execution on the unit as `PARTS` has them.
    `marks` are the states of its queue, int64 [n, 2]: the tick from which it holds and the number
    of the class, one behind those of `PARTS`; ascending from 0.
    """
    bounds = np.minimum(parts.T, total)
    counts, covered = dict.fromkeys(CLASSES, 0), np.zeros((0, 2), np.int64)
    for name in CLASSES[:FIRST_STATE]:
        added = [bounds[place : place + 2] for place, part in enumerate(PARTS) if part == name]
        if added:
            counts[name], covered = uncovered(covered, np.concatenate(added, axis=1).T)
    # The queue is in one state at a time: of each span counts what no part covers.
    edges = np.minimum(np.append(marks[:, 0], total), total)
    spans = np.diff(edges - _covered_before(covered, edges))
    state = marks[:, 1].copy()
    for number in range(FIRST_STATE, len(CLASSES)):
        counts[CLASSES[number]] = int(spans[state == number].sum())
    return counts


def _covered_before(covered: np.ndarray, ticks: np.ndarray) -> np.ndarray:
    """Return how many ticks before each of `ticks` lie in `covered`, disjoint and ascending."""
    lengths = np.append(0, np.cumsum(covered[:, 1] - covered[:, 0]))
    begun = np.searchsorted(covered[:, 0].copy(), ticks, side="right")
    ends = np.append(np.iinfo(np.int64).min, covered[:, 1])
    return lengths[begun] - np.maximum(ends[begun] - ticks, 0) * (begun > 0)


class OpCycles:
    """What the log says of one operation in one layer; ticks."""

    __slots__ = ("busy", "charged", "instructions", "last", "layer", "op", "start")

    def __init__(self, layer: int, op: int, instructions: int, start: int, last: int, busy: int,
                 charged: int):
        self.layer, self.op = layer, op
        self.instructions = instructions
        self.start, self.last = start, last  # its first start and its last completion
        self.busy = busy  # ticks in which at least one of its instructions was under way
        self.charged = charged  # its share of the run, see `by_operation`

    @property
    def span(self) -> int:
        """Ticks from its first start to its last completion."""
        return self.last - self.start


def _charges(start: np.ndarray, completion: np.ndarray) -> np.ndarray:
    """Return of each interval the ticks that no interval which ends before it holds."""
    order = np.lexsort((start, completion))
    low, high = start[order], completion[order]
    # In the order of their ends, all before an interval lie in front of the end of the last one:
    # what is behind that is its own, and what is in front only where they left a gap.
    before = np.append(low.min(), high[:-1])
    charges = high - np.maximum(low, before)
    opens = low > before
    last_gap = np.maximum.accumulate(np.append(-1, np.where(opens, low, -1)[:-1]))
    gaps: list[tuple[int, int]] = []
    for number in np.flatnonzero(opens | (low < last_gap)).tolist():
        begin = int(low[number])
        if opens[number]:
            gaps.append((int(before[number]), begin))
            continue
        while gaps and gaps[-1][1] > begin:
            first, end = gaps.pop()
            charges[number] += end - max(first, begin)
            if first < begin:
                gaps.append((first, begin))
    found = np.zeros(len(order), np.int64)
    found[order] = charges
    return found


def by_operation(log: InstructionLog) -> list[OpCycles]:
    """Return the cycles of every (layer, op), in order of first start.

    A tick in which instructions are under way is charged to the one of them that completes first.
    So the shares sum to the ticks in which anything was under way.
    """
    if not len(log):
        return []
    start = np.asarray(log.start, np.int64)
    completion = np.asarray(log.completion, np.int64)
    charged = _charges(start, completion)
    layer, op = np.asarray(log.layer, np.int64), np.asarray(log.op, np.int64)
    order = np.lexsort((op, layer))
    edges = (np.diff(layer[order]) != 0) | (np.diff(op[order]) != 0)
    found = []
    for rows in np.split(order, np.flatnonzero(edges) + 1):
        spans = np.stack([start[rows], completion[rows]], axis=1)
        busy, _ = uncovered(spans[:0], spans)
        found.append(OpCycles(int(layer[rows[0]]), int(op[rows[0]]), len(rows),
                              int(spans[:, 0].min()), int(spans[:, 1].max()), busy,
                              int(charged[rows].sum())))
    return sorted(found, key=lambda one: (one.start, one.layer, one.op))
