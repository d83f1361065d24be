"""The operators of the vector unit as programs of steps: golden.vector's arithmetic.

A program has steps for a command, taken once, and steps for each of its rows. What it takes from
the streams and sends, in that order, is its docstring's business: *x row* means the beats of a row.
"""

from enum import IntEnum
from functools import cache
from itertools import zip_longest
from typing import NamedTuple

from machine import vector_curves as curves
from machine.approx import EXP_SERIES, PHASE_UNIT
from machine.vector_curves import ONE, RESULT, ZERO, X, immediate, row, shared, step
from machine.vector_microcode import Count, Given, Op, Operand, Place, Step, Table

__all__ = ["PROGRAMS", "Code", "Program", "rom"]

STREAM_X, STREAM_Y = Operand(Place.X), Operand(Place.Y)
OUT, OUT_WORD = Operand(Place.OUT), Operand(Place.OUT_WORD)
VALUE, WIDTH, LARGEST, LEAST, ROUNDS = (shared(number) for number in Given)  # the command's
TOTAL, ACROSS = Operand(Place.TOTAL), Operand(Place.ACROSS)
GAIN, BIAS = row(7), row(6)  # kept from row to row
MINUS_ZERO = 0x80000000
TWO_23, TWO_23_15, TWO_16 = 0x4B000000, 0x4B008000, 0x47800000
TWO_23_19, TWO_19 = 0x4B080000, 0x49000000


class Code(IntEnum):
    """The number of a program in a command."""

    COPY = 0  # x row; o row. Also CONVERT between floats
    FROM_INTEGER = 1  # x row of int32; o row
    ADD = 2  # x row, y row; o row
    MULTIPLY = 3
    SCALE = 4  # x row, times `value`
    RELU = 5
    EXP = 6
    SIGMOID = 7
    SILU = 8
    GELU = 9
    GELU_TANH = 10
    TANH = 11
    REDUCE_SUM = 12  # x row; o one beat, the sum in lane 0
    REDUCE_MAX = 13
    SOFTMAX = 14  # x row, scale `value`, masked; o row
    SOFTMAX_STATE = 15  # o row of weights, not divided, and a beat of float32 (m, l)
    RMSNORM = 16  # once a command: y row of gains. x row, epsilon `value`; o row
    LAYERNORM = 17  # once: y row of gains, y row of biases
    L2NORM = 18
    QUANTISE = 19  # x row, scale `value`; o row
    QUANTISE_ROWS = 20  # x row; o row, and a beat with the row's float32 scale in lane 0
    DEQUANTISE = 21  # once: y row of column scales. x row of int32, y beat: row scale in lane 0
    DEQUANTISE_BIAS = 22  # once: y row of column scales, y row of biases
    MERGE = 23  # x beat (m, l), y beat, x row, y row; o beat of float32 (m, l), o row, o row / l
    # A row of ROPE is half a row of the operator: element i turns with element i of the other.
    ROPE = 24  # once: y rows of int32, steps' low 24 bits and high 24. two x rows; two o rows
    MULTIPLY_INTEGER = 25  # x row of int32, y row; o row
    # Programs with a loop; `repeats` is how often.
    TOPK = 26  # x row; a loop's o: a beat, float32 value in lane 0, its place, an integer, in 1
    MEAN_POOL = 27  # a loop's x row; o row, their mean
    MEAN_POOL_MASKED = 28  # a loop's x row, and y beat: in lane 0 whether the row counts
    MLGRU = 29  # x row, y row of forget, y row of state, lower bound `value`; o row


class Program(NamedTuple):
    """The steps of one operator."""

    command: tuple[Step, ...]  # once, before the first row
    rows: tuple[Step, ...]  # for each row
    loop: int = -1  # where in `rows` a loop begins; it ends with the step marked again

    def parts(self) -> tuple[tuple[Step, ...], tuple[Step, ...], tuple[Step, ...]]:
        """Return the steps of a row before the loop, of the loop, and behind it."""
        if self.loop < 0:
            return self.rows, (), ()
        end = 1 + next(at for at, each in enumerate(self.rows) if each.again)
        return self.rows[: self.loop], self.rows[self.loop : end], self.rows[end:]


def _one(*steps: Step) -> list[Step]:
    """The steps, on one beat each."""
    return [each._replace(length=Count.ONE) for each in steps]


def _total(op: Op, of: Operand, to: Operand) -> list[Step]:
    """Reduce row operand `of` to a number all lanes see."""
    return [Step(op, TOTAL, of, TOTAL, Count.ELEMENTS), Step(op, to, TOTAL, ACROSS, Count.LANES)]


def _load() -> list[Step]:
    return [step(Op.PASS, X, STREAM_X)]


def _send(first: Operand, second: Operand | None = None) -> list[Step]:
    """Send a beat of float32: lane 0, and lane 1."""
    return _one(step(Op.PAIR, OUT_WORD, first, second))


def _curve(steps: list[Step]) -> Program:
    """The curve of a row; its last step sends."""
    *body, last = steps
    return Program((), (*_load(), *body, last._replace(to=OUT)))


def _reduce(op: Op) -> Program:
    total = shared(2)
    return Program((), (*_load(), *_total(op, X, total),
                        *_one(step(Op.ADD, total, total, immediate(ZERO)))[: op is Op.MAX],
                        *_send(total)))


def _inverse(to: Operand, of: Operand) -> list[Step]:
    return _one(step(Op.DIVIDE, to, immediate(ONE), of))


def _inverse_width(to: Operand) -> list[Step]:
    """One over the number of elements: an integer below 2**16, so a sum of 2**23 holds it."""
    return [*_one(step(Op.ADD, to, WIDTH._replace(table=Table.LOW_HALF), -immediate(TWO_23))),
            *_inverse(to, to)]


def _inverse_root(number: Operand) -> list[Step]:
    """One over the root of `number` + epsilon."""
    return [*_one(step(Op.ADD, number, number, VALUE), step(Op.ROOT, number, number)),
            *_inverse(number, number)]


def _mean(of: Operand, to: Operand, inverse_width: Operand) -> list[Step]:
    return [*_total(Op.ADD, of, to), *_one(step(Op.MULTIPLY, to, to, inverse_width))]


def _rmsnorm() -> Program:
    square, inverse_width, number = row(1), shared(2), shared(3)
    return Program(
        (step(Op.PASS, GAIN, STREAM_Y), *_inverse_width(inverse_width)),
        (*_load(), step(Op.MULTIPLY, square, X, X), *_mean(square, number, inverse_width),
         *_inverse_root(number), step(Op.MULTIPLY, square, X, number),
         step(Op.MULTIPLY, OUT, square, GAIN)))


def _layernorm() -> Program:
    square, inverse_width, mean, number = row(1), shared(2), shared(3), shared(4)
    return Program(
        (step(Op.PASS, GAIN, STREAM_Y), step(Op.PASS, BIAS, STREAM_Y),
         *_inverse_width(inverse_width)),
        (*_load(), *_mean(X, mean, inverse_width), step(Op.ADD, X, X, -mean),
         step(Op.MULTIPLY, square, X, X), *_mean(square, number, inverse_width),
         *_inverse_root(number), step(Op.MULTIPLY, X, X, number),
         step(Op.MULTIPLY, X, X, GAIN), step(Op.ADD, OUT, X, BIAS)))


def _l2norm() -> Program:
    square, number = row(1), shared(2)
    return Program((), (
        *_load(), step(Op.MULTIPLY, square, X, X), *_total(Op.ADD, square, number),
        *_one(step(Op.ROOT, number, number), step(Op.MAX, number, number, VALUE)),
        *_inverse(number, number), step(Op.MULTIPLY, OUT, X, number)))


def _softmax(state: bool) -> Program:
    largest, shift, total, inverse = shared(2), shared(3), shared(4), shared(5)
    visible = X._replace(table=Table.VISIBLE)
    steps = [
        step(Op.MULTIPLY, X, STREAM_X, VALUE),
        *_total(Op.MAX, visible, largest),
        *_one(step(Op.ADD, largest, largest, immediate(ZERO)),
              step(Op.NOTHING_IS_0, shift, largest, largest)),
        step(Op.ADD, X, visible, -shift), *curves.exp(), *_total(Op.ADD, RESULT, total)]
    if state:
        return Program((), (*steps, step(Op.PASS, OUT, RESULT), *_send(largest, total)))
    return Program((), (
        *steps, *_inverse(inverse, total), *_one(step(Op.ZERO_IS_0, inverse, total, inverse)),
        step(Op.MULTIPLY, OUT, RESULT, inverse)))


def _to_code(value: Operand) -> list[Step]:
    """Hold to the symmetric range of the output's format; round, if that is an integer."""
    return [step(Op.MAX, value, value, LEAST), step(Op.MIN, value, value, LARGEST),
            step(Op.ADD, OUT, value, ROUNDS)]


def _quantise() -> Program:
    inverse = shared(2)
    return Program(tuple(_inverse(inverse, VALUE)),
                   (step(Op.MULTIPLY, X, STREAM_X, inverse), *_to_code(X)))


def _quantise_rows() -> Program:
    largest, held, factor, scale = shared(2), shared(3), shared(4), shared(5)
    return Program((), (
        *_load(), *_total(Op.MAX, abs(X), largest),
        *_one(step(Op.TINY_IS_1, held, largest, largest),
              step(Op.DIVIDE, factor, LARGEST, held),
              step(Op.TINY_IS_0, factor, largest, factor),
              step(Op.DIVIDE, scale, largest, LARGEST),
              step(Op.TINY_IS_1, scale, largest, scale)),
        step(Op.MULTIPLY, X, X, factor), *_to_code(X), *_send(scale)))


def _from_integer(to: Operand, to_last: Operand) -> list[Step]:
    """Round the int32 in X to float32: its halves are exact, their sum rounds once."""
    high = row(1)
    return [
        step(Op.ADD, high, X._replace(table=Table.HIGH_HALF), -immediate(TWO_23_15)),
        step(Op.ADD, to, X._replace(table=Table.LOW_HALF), -immediate(TWO_23)),
        step(Op.MULTIPLY, high, high, immediate(TWO_16)),
        step(Op.ADD, to_last, high, to),
    ]


def _dequantise(bias: bool) -> Program:
    row_scale = shared(2)
    columns = step(Op.PASS, GAIN, STREAM_Y)
    steps = [*_one(step(Op.PASS, row_scale, STREAM_Y)), *_load(), *_from_integer(X, X),
             step(Op.MULTIPLY, X, X, row_scale)]
    if not bias:
        return Program((columns,), (*steps, step(Op.MULTIPLY, OUT, X, GAIN)))
    return Program((columns, step(Op.PASS, BIAS, STREAM_Y)),
                   (*steps, step(Op.MULTIPLY, X, X, GAIN), step(Op.ADD, OUT, X, BIAS)))


def _merge() -> Program:
    largest, other_largest, total, other_total = shared(2), shared(3), shared(4), shared(5)
    joint, shift, factor, other_factor = shared(6), shared(7), shared(8), shared(9)
    second = Place.ALL_SECOND
    mine, others = row(0), row(1)
    return Program((), (
        *_one(step(Op.PASS, mine, STREAM_X), step(Op.PASS, others, STREAM_Y),
              step(Op.PASS, largest, mine), step(Op.PASS, total._replace(place=second), mine),
              step(Op.PASS, other_largest, others),
              step(Op.PASS, other_total._replace(place=second), others),
              step(Op.MAX, joint, largest, other_largest),
              step(Op.ADD, joint, joint, immediate(ZERO)),
              step(Op.NOTHING_IS_0, shift, joint, joint),
              step(Op.PAIR, X, largest, other_largest), step(Op.ADD, X, X, -shift),
              *curves.exp(),
              step(Op.PASS, factor, RESULT),
              step(Op.PASS, other_factor._replace(place=second), RESULT),
              step(Op.MULTIPLY, total, total, factor),
              step(Op.MULTIPLY, other_total, other_total, other_factor),
              step(Op.ADD, total, total, other_total)),
        *_send(joint, total),
        *_inverse(shift, total), *_one(step(Op.ZERO_IS_0, shift, total, shift)),
        step(Op.MULTIPLY, mine, STREAM_X, factor),
        step(Op.MULTIPLY, others, STREAM_Y, other_factor),
        step(Op.ADD, mine, mine, others), step(Op.PASS, OUT_WORD, mine),
        step(Op.MULTIPLY, OUT, mine, shift)))


def _rope() -> Program:
    low, high = row(6), row(7)
    word, rest, sine, cosine, spare = row(1), row(2), row(3), row(4), row(5)
    d = rest
    table_sine = word._replace(table=Table.SINE)
    table_cosine = word._replace(table=Table.COSINE)
    half, sixth = EXP_SERIES
    angle = [
        step(Op.PHASE_HIGH, word, low, high), step(Op.PHASE_LOW, rest, low, high),
        # The rest of the phase in radians: its halves are exact, their sum rounds once.
        step(Op.ADD, sine, word._replace(table=Table.REST_HIGH), -immediate(TWO_23_19)),
        step(Op.MULTIPLY, sine, sine, immediate(TWO_19)),
        step(Op.ADD, rest, rest, -immediate(TWO_23)),
        step(Op.ADD, d, sine, rest), step(Op.MULTIPLY, d, d, immediate(PHASE_UNIT)),
        # small_sine in d, small_cosine in spare.
        step(Op.MULTIPLY, spare, d, d), step(Op.MULTIPLY, sine, d, spare),
        step(Op.MULTIPLY, sine, sine, immediate(sixth)), step(Op.ADD, d, d, -sine),
        step(Op.MULTIPLY, spare, spare, immediate(half)),
        step(Op.MULTIPLY, sine, table_cosine, d), step(Op.MULTIPLY, cosine, table_sine, spare),
        step(Op.ADD, sine, sine, -cosine), step(Op.ADD, sine, table_sine, sine),
        step(Op.MULTIPLY, d, table_sine, d), step(Op.MULTIPLY, spare, table_cosine, spare),
        step(Op.ADD, spare, d, spare), step(Op.ADD, cosine, table_cosine, -spare),
        # Odd quadrants swap the two; then their signs.
        step(Op.ODD_IS_0, d, word, cosine), step(Op.EVEN_IS_0, spare, word, sine),
        step(Op.EVEN_IS_0, cosine, word, cosine), step(Op.ODD_IS_0, sine, word, sine),
        step(Op.ADD, sine, sine, cosine), step(Op.ADD, cosine, d, spare),
        step(Op.COSINE_SIGN, cosine, word, cosine), step(Op.SINE_SIGN, sine, word, sine),
    ]
    first, second = X, word
    turn = [
        step(Op.PASS, first, STREAM_X), step(Op.PASS, second, STREAM_X),
        step(Op.MULTIPLY, d, first, cosine), step(Op.MULTIPLY, spare, second, sine),
        step(Op.ADD, OUT, d, -spare),
        step(Op.MULTIPLY, d, second, cosine), step(Op.MULTIPLY, spare, first, sine),
        step(Op.ADD, OUT, d, spare),
    ]
    return Program((step(Op.PASS, low, STREAM_Y), step(Op.PASS, high, STREAM_Y)),
                   (*angle, *turn))


def _looped(command: list[Step], before: list[Step], loop: list[Step],
            after: tuple[Step, ...] = ()) -> Program:
    """A program whose rows take `loop` as often as the command says."""
    *body, last = loop
    return Program(tuple(command), (*before, *body, last._replace(again=True), *after),
                   len(before))


def _topk() -> Program:
    """The largest of what is left, the first of equals; then it is taken out, and so on."""
    key, place, flag, spare = row(1), row(2), row(3), row(4)
    largest, chosen, value, number = shared(2), shared(3), shared(4), shared(5)
    # Places are negative, so the first is the largest; minus infinity is taken out, and NaN least.
    before = [
        *_load(), step(Op.SAME, flag, X, X), step(Op.NOTHING_STAYS, key, -flag, X),
        step(Op.ADD, place, -X._replace(table=Table.ELEMENT), immediate(TWO_23))]
    return _looped([], before, [
        *_total(Op.MAX, key, largest),
        step(Op.SAME, flag, key, largest), step(Op.NOTHING_STAYS, spare, -flag, place),
        *_total(Op.MAX, spare, chosen),
        step(Op.SAME, flag, place, chosen), step(Op.NOTHING_STAYS, spare, -flag, X),
        *_total(Op.MAX, spare, value),
        step(Op.NOTHING_STAYS, key, flag, key), step(Op.NOTHING_STAYS, place, flag, place),
        *_one(step(Op.ADD, number, -chosen, immediate(TWO_23)),
              step(Op.PASS, number, number._replace(table=Table.LOW_BITS))),
        *_send(value, number)])


def _mean_pool(masked: bool) -> Program:
    total, count, absent, one = row(1), shared(2), shared(3), shared(4)
    loop = _load()
    if masked:
        loop = [*_one(step(Op.SAME, absent, STREAM_Y, immediate(ZERO)),
                      step(Op.NOTHING_IS_0, one, absent, immediate(ONE))),
                *loop, step(Op.NOTHING_IS_0, X, absent, X)]
    return _looped(
        [], [step(Op.PASS, total, immediate(MINUS_ZERO)),
             *_one(step(Op.PASS, count, immediate(ZERO)))],
        [*loop, step(Op.ADD, total, total, X),
         *_one(step(Op.ADD, count, count, one if masked else immediate(ONE)))],
        (*_one(step(Op.MAX, count, count, immediate(ONE))), *_inverse(count, count),
         step(Op.MULTIPLY, OUT, total, count)))


def _mlgru() -> Program:
    rest, silu, state = row(1), row(3), row(4)
    span = shared(2)
    return Program(tuple(_one(step(Op.ADD, span, immediate(ONE), -VALUE))), (
        *_load(), *curves.silu(), step(Op.PASS, silu, RESULT),
        step(Op.PASS, X, STREAM_Y), *curves.sigmoid(),
        step(Op.MULTIPLY, RESULT, RESULT, span), step(Op.ADD, RESULT, RESULT, VALUE),
        step(Op.ADD, rest, immediate(ONE), -RESULT), step(Op.MULTIPLY, silu, silu, rest),
        step(Op.MULTIPLY, state, STREAM_Y, RESULT), step(Op.ADD, OUT, state, silu)))


def _streaming(op: Op, second: Operand) -> Program:
    return Program((), (step(op, OUT, STREAM_X, second),))


def _drained(program: Program) -> Program:
    """Mark where a step must end before the next begins, and the last of each part.

    That is where the numbers of beats differ, and at the end of a loop.
    """
    def marked(steps: tuple[Step, ...]) -> tuple[Step, ...]:
        return tuple(
            each._replace(last=after is None,
                          drain=after is None or each.again
                          or each.length is not after.length)
            for each, after in zip_longest(steps, steps[1:]))
    return Program(marked(program.command), marked(program.rows), program.loop)


PROGRAMS: dict[Code, Program] = {code: _drained(program) for code, program in {
    Code.COPY: _streaming(Op.PASS, immediate(ZERO)),
    Code.FROM_INTEGER: Program((), (*_load(), *_from_integer(X, OUT))),
    Code.ADD: _streaming(Op.ADD, STREAM_Y),
    Code.MULTIPLY: _streaming(Op.MULTIPLY, STREAM_Y),
    Code.SCALE: _streaming(Op.MULTIPLY, VALUE),
    Code.RELU: _streaming(Op.MAX, immediate(ZERO)),
    Code.EXP: _curve(curves.exp()),
    Code.SIGMOID: _curve(curves.sigmoid()),
    Code.SILU: _curve(curves.silu()),
    Code.GELU: _curve(curves.gelu()),
    Code.GELU_TANH: _curve(curves.gelu_tanh()),
    Code.TANH: _curve(curves.tanh()),
    Code.REDUCE_SUM: _reduce(Op.ADD),
    Code.REDUCE_MAX: _reduce(Op.MAX),
    Code.SOFTMAX: _softmax(False),
    Code.SOFTMAX_STATE: _softmax(True),
    Code.RMSNORM: _rmsnorm(),
    Code.LAYERNORM: _layernorm(),
    Code.L2NORM: _l2norm(),
    Code.QUANTISE: _quantise(),
    Code.QUANTISE_ROWS: _quantise_rows(),
    Code.DEQUANTISE: _dequantise(False),
    Code.DEQUANTISE_BIAS: _dequantise(True),
    Code.MERGE: _merge(),
    Code.ROPE: _rope(),
    Code.MULTIPLY_INTEGER: Program((), (*_load(), *_from_integer(X, X),
                                        step(Op.MULTIPLY, OUT, X, STREAM_Y))),
    Code.TOPK: _topk(),
    Code.MEAN_POOL: _mean_pool(False),
    Code.MEAN_POOL_MASKED: _mean_pool(True),
    Code.MLGRU: _mlgru(),
}.items()}


@cache
def rom() -> tuple[tuple[Step, ...], dict[Code, tuple[int, int, int]]]:
    """Return all steps in a row, and where each program, its rows and its loop start.

    A program without steps for a command starts with those of its rows; one without a loop has
    no step that would go back, and the loop's start is that of its rows.
    """
    steps: list[Step] = []
    entries: dict[Code, tuple[int, int, int]] = {}
    for code, program in PROGRAMS.items():
        first_of_row = len(steps) + len(program.command)
        entries[code] = len(steps), first_of_row, first_of_row + max(program.loop, 0)
        steps += [*program.command, *program.rows]
    return tuple(steps), entries
