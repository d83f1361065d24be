"""The steps of the vector unit in RTL: what one does, its word in the ROM, how long it takes.

A step is one operation on all beats of a row: operands from row registers, row-wide numbers, a
stream or the step itself, one result. The lanes of a beat work alike. Steps follow each other so
that beat b of a step is written before beat b of the next one is read (`gap_cycles`).
"""

from enum import IntEnum
from typing import NamedTuple

__all__ = [
    "FIELDS", "ITERATIVE", "STEP_BITS", "Count", "Given", "Op", "Operand", "Place", "Step",
    "Table", "gap_cycles", "interval_cycles", "pack_step",
]


class Op(IntEnum):
    """What a step does with its operands a and b, lane by lane; all is float32."""

    ADD = 0
    MULTIPLY = 1
    DIVIDE = 2
    ROOT = 3  # of a
    PASS = 4  # a
    MAX = 5  # NaN if either is; -0 is below +0
    MIN = 6
    SIGN = 7  # b with the sign of a
    PAIR = 8  # a in lane 0, b in the others
    NOTHING_IS_0 = 9  # 0 where a is minus infinity, else b
    ZERO_IS_0 = 10  # 0 where a is 0, else b
    TINY_IS_0 = 11  # 0 where a is at most 2**-100, else b
    TINY_IS_1 = 12
    RISING_IS_1 = 13  # 1 where a is not below 0, else b
    ODD_IS_0 = 14  # 0 where the quadrant of phase word a is odd, else b
    EVEN_IS_0 = 15
    COSINE_SIGN = 16  # b, negated in the quadrants 1 and 2 of phase word a
    SINE_SIGN = 17  # b, negated in the quadrants 2 and 3
    PHASE_HIGH = 18  # row's position times step (a: low 24 bits, b: high): quadrant, step, rest
    PHASE_LOW = 19  # the low 19 bits of the rest
    SAME = 20  # minus infinity where a equals b (zeros do, NaNs do not), else infinity
    NOTHING_STAYS = 21  # minus infinity where a is minus infinity, else b


class Place(IntEnum):
    """Where an operand comes from or a result goes."""

    ROW = 0  # a register of a row, `number` from 0 to 7
    ALL = 1  # a number all lanes see: eight, from 2 on, and the command's (`Given`)
    X = 2  # operand: the next beat of a stream
    Y = 3
    TOTAL = 4  # the lane's running total; as an operand b of the first beat it is neutral
    ACROSS = 5  # operand b: the total of the lane 1, 2, 4 ... further on
    IMMEDIATE = 6  # operand: the word in the step, which has one
    OUT = 7  # result: the stream, in the command's format
    OUT_WORD = 8  # result: the stream, as float32
    ALL_SECOND = 9  # result: a number all lanes see, taken from lane 1 and not 0


class Given(IntEnum):
    """The numbers of `Place.ALL` that come with the command, and are never results."""

    VALUE = 0
    WIDTH = 1  # an integer
    LARGEST = 10  # number of the output's format that a quantiser makes
    LEAST = 11
    ROUNDER = 12  # rounds to an integer, left in the low bits, if the output's format is one


class Table(IntEnum):
    """What becomes of the bits of operand a before its sign."""

    NONE = 0
    EXP_HIGH = 1  # 2**(j / 32), j the low five bits
    EXP_LOW = 2
    TWO_FIRST = 3  # 2**(k >> 1), k bits 5 to 13 signed: half of a scaling by 2**k
    TWO_SECOND = 4  # 2**(k - (k >> 1))
    LOW_HALF = 5  # 2**23 + the low 16 bits
    HIGH_HALF = 6  # 2**23 + 2**15 + the signed high 16 bits
    HEAD = 7  # rounded to 12 leading bits
    VISIBLE = 8  # itself where the row's query sees the element, else minus infinity
    SINE = 9  # of the step in a phase word
    COSINE = 10
    REST_HIGH = 11  # 2**23 + the high 20 bits of the rest in a phase word
    ELEMENT = 12  # 2**23 + the element's place in its row
    LOW_BITS = 13  # the low 23 bits: an integer that was added to 2**23


class Count(IntEnum):
    """How many beats a step has."""

    ROW = 0  # all of a row
    ONE = 1
    ELEMENTS = 2  # a total: all of a row, or in sequential order a beat an element
    LANES = 3  # the tree: one a halving


class Operand(NamedTuple):
    """One operand: a place, its number or word, and what happens to it on the way."""

    place: Place
    number: int = 0
    table: Table = Table.NONE
    negated: bool = False
    magnitude: bool = False  # sign dropped, before it is negated

    def __neg__(self) -> "Operand":
        """The operand negated."""
        return self._replace(negated=not self.negated)

    def __abs__(self) -> "Operand":
        """The operand's magnitude."""
        return self._replace(magnitude=True, negated=False)


class Step(NamedTuple):
    """One step; `b` is ignored where the operation has one operand."""

    op: Op
    to: Operand
    a: Operand
    b: Operand
    length: Count = Count.ROW
    again: bool = False  # the last of a loop: back to its first, as often as the command says
    drain: bool = False  # the next step may not start before this one's last result
    last: bool = False  # of the program's part for a command, or for a row

    @property
    def adds(self) -> bool:
        """Whether a total of this step is a sum, in the order that the command names."""
        return self.op is Op.ADD


# The word of a step in the ROM: field, lowest bit, width.
FIELDS = {
    "op": (0, 5), "length": (5, 2), "again": (7, 1), "drain": (8, 1), "last": (9, 1),
    "to_place": (10, 4), "to_index": (14, 4),
    "a_place": (18, 4), "a_index": (22, 4), "a_table": (26, 4), "a_negated": (30, 1),
    "a_magnitude": (31, 1),
    "b_place": (32, 4), "b_index": (36, 4), "b_negated": (40, 1), "b_magnitude": (41, 1),
    "immediate": (42, 32),
}
STEP_BITS = 74
ITERATIVE = (Op.DIVIDE, Op.ROOT, Op.PHASE_HIGH, Op.PHASE_LOW)


def pack_step(step: Step) -> int:
    """Return the ROM word of `step`."""
    values = {
        "op": step.op, "length": step.length, "again": step.again, "drain": step.drain,
        "last": step.last, "to_place": step.to.place, "to_index": step.to.number,
        "immediate": next((operand.number for operand in (step.a, step.b)
                           if operand.place is Place.IMMEDIATE), 0),
    }
    for name, operand in (("a", step.a), ("b", step.b)):
        values |= {
            f"{name}_place": operand.place, f"{name}_negated": operand.negated,
            f"{name}_magnitude": operand.magnitude,
            f"{name}_index": 0 if operand.place is Place.IMMEDIATE else operand.number,
        }
    values["a_table"] = step.a.table
    return sum(int(values[name]) << low for name, (low, _) in FIELDS.items())


def interval_cycles(step: Step, latency: int, iterative: int) -> int:
    """Return the cycles between two beats of `step`.

    One; `latency` + 1 where a beat needs the total of the one before; `iterative` for a division,
    a root and a phase, whose unit takes one at a time.
    """
    if step.op in ITERATIVE:
        return iterative
    return latency + 1 if step.to.place is Place.TOTAL or step.a.place is Place.TOTAL else 1


def gap_cycles(step: Step, beats: int, latency: int, iterative: int) -> int:
    """Return the cycles in which nothing is issued after the last of `beats` beats of `step`.

    A result is there `latency` + 1 cycles after its beat was issued. The next step's beats are as
    many and one cycle apart, so fewer beats than that leave a gap; `drain` waits for the last.
    Nothing waits for a result that is sent.
    """
    interval = interval_cycles(step, latency, iterative)
    if interval > 1:
        return interval - 1
    if step.to.place in (Place.OUT, Place.OUT_WORD):
        return 0
    return latency if step.drain else max(0, latency + 1 - beats)
