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
    both = np.concatenate([covered, added[added[:, 1] > added[:, 0]]])
    if len(both) == 0:
        return 0, both
    both = both[np.argsort(both[:, 0], kind="stable")]
    ends = np.maximum.accumulate(both[:, 1])
    opens = np.ones(len(both), bool)
    opens[1:] = both[1:, 0] > ends[:-1]
    first = np.flatnonzero(opens)
    last = np.append(first[1:], len(both)) - 1
    union = np.stack([both[first, 0], ends[last]], axis=1)
    return int((union[:, 1] - union[:, 0]).sum()) - before, union


def classify(
    parts: np.ndarray, marks: np.ndarray, total: int
) -> dict[str, int]:
    """Return the ticks of each class of one unit; they sum to `total`.

    `parts` is int64 [n, 9], the boundaries of each execution on the unit as `PARTS` has them.
    `marks` are the states of its queue, int64 [n, 2]: the tick from which it holds and the number
    of the class, ascending from 0.
    """
    intervals: dict[str, list[np.ndarray]] = {name: [] for name in CLASSES}
    for place, name in enumerate(PARTS):
        intervals[name].append(parts[:, place : place + 2])
    edges = np.append(marks[:, 0], total)
    spans = np.stack([edges[:-1], edges[1:]], axis=1)
    for number in set(marks[:, 1].tolist()):
        intervals[CLASSES[number]].append(spans[marks[:, 1] == number])
    counts, covered = {}, np.zeros((0, 2), np.int64)
    for name in CLASSES:
        added = np.minimum(np.concatenate([covered[:0], *intervals[name]]), total)
        added = added[added[:, 1] > added[:, 0]]
        counts[name] = 0
        if len(added):
            counts[name], covered = uncovered(covered, added)
    return counts


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
    charges: list[int] = []
    lows: list[int] = []  # the union of those before, disjoint and ascending
    highs: list[int] = []
    for low, high in zip(start[order].tolist(), completion[order].tolist(), strict=True):
        charge = high - low
        while highs and highs[-1] >= low:
            other = lows.pop()
            charge -= highs.pop() - (other if other > low else low)
            if other <= low:
                low = other
                break
        charges.append(charge)
        lows.append(low)
        highs.append(high)
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
