"""The curves of the vector unit as steps: golden.approx's arithmetic, operation by operation.

Each function returns the steps from row register `X` to row register `RESULT`. `X` stays; the
other registers are used up.
"""

from machine import approx
from machine.vector_microcode import Op, Operand, Place, Step, Table

__all__ = [
    "ONE", "RESULT", "ROUNDER", "ZERO", "X", "exp", "gelu", "gelu_tanh", "immediate", "row",
    "shared", "sigmoid", "silu", "step", "tanh",
]

# Words of float32.
ZERO, ONE, TWO, MINUS_TWO, FOUR = 0, 0x3F800000, 0x40000000, 0xC0000000, 0x40800000
MINUS_HALF = 0xBF000000
LOWEST, HIGHEST = 0xC2D00000, 0x42B20000  # -104 and 89, where exp is 0 and infinite
TAIL_END = 0x41680000  # 14.5
ROUNDER = 0x4B400000  # 1.5 * 2**23: adding it rounds to an integer, left in the low bits


def row(index: int) -> Operand:
    """Return row register `index`."""
    return Operand(Place.ROW, index)


def shared(index: int) -> Operand:
    """Return the number `index` that all lanes see."""
    return Operand(Place.ALL, index)


def immediate(word: int) -> Operand:
    """Return the constant whose float32 bits are `word`."""
    return Operand(Place.IMMEDIATE, word)


def step(op: Op, to: Operand, a: Operand, b: Operand | None = None) -> Step:
    """Return a step of a whole row; without `b` it has the one operand."""
    return Step(op, to, a, immediate(ZERO) if b is None else b)


def _of(operand: Operand, table: Table) -> Operand:
    return operand._replace(table=table)


X, RESULT = row(0), row(6)
EXPONENT, COUNT, REST, SPARE = row(2), row(4), row(5), row(7)


def _power(rest: Operand | None = None) -> list[Step]:
    """Split exp(EXPONENT + `rest`): the count of steps in COUNT, the excess in RESULT."""
    steps = [
        step(Op.MULTIPLY, COUNT, EXPONENT, immediate(approx.EXP_STEPS)),
        step(Op.ADD, COUNT, COUNT, immediate(ROUNDER)),
        step(Op.ADD, RESULT, COUNT, -immediate(ROUNDER)),
        step(Op.MULTIPLY, REST, RESULT, immediate(approx.EXP_STEP_HIGH)),
        step(Op.ADD, REST, EXPONENT, -REST),
        step(Op.MULTIPLY, RESULT, RESULT, immediate(approx.EXP_STEP_LOW)),
        step(Op.ADD, REST, REST, -RESULT),
    ]
    if rest is not None:
        steps += [step(Op.ADD, REST, REST, rest)]
    half, sixth = approx.EXP_SERIES
    return [
        *steps,
        step(Op.MULTIPLY, RESULT, REST, immediate(sixth)),
        step(Op.ADD, RESULT, RESULT, immediate(half)),
        step(Op.MULTIPLY, SPARE, REST, REST),
        step(Op.MULTIPLY, RESULT, SPARE, RESULT),
        step(Op.ADD, RESULT, REST, RESULT),
        step(Op.MULTIPLY, RESULT, _of(COUNT, Table.EXP_HIGH), RESULT),
        step(Op.ADD, RESULT, _of(COUNT, Table.EXP_LOW), RESULT),
    ]


def _scaled(value: Operand) -> list[Step]:
    """Multiply row register `value` by the power of two in COUNT, in two halves."""
    return [step(Op.MULTIPLY, value, _of(COUNT, table), value)
            for table in (Table.TWO_FIRST, Table.TWO_SECOND)]


def _exp_of_exponent(rest: Operand | None = None) -> list[Step]:
    return [*_power(rest), step(Op.ADD, RESULT, _of(COUNT, Table.EXP_HIGH), RESULT),
            *_scaled(RESULT)]


def exp() -> list[Step]:
    """Return the steps of e**x."""
    return [step(Op.MAX, EXPONENT, X, immediate(LOWEST)),
            step(Op.MIN, EXPONENT, EXPONENT, immediate(HIGHEST)), *_exp_of_exponent()]


def _sigmoid_of(x: Operand) -> list[Step]:
    """Return 1 / (1 + e**-`x`)."""
    return [
        step(Op.MAX, EXPONENT, -abs(x), immediate(LOWEST)),
        *_exp_of_exponent(),
        step(Op.ADD, SPARE, RESULT, immediate(ONE)),
        step(Op.RISING_IS_1, RESULT, x, RESULT),
        step(Op.DIVIDE, RESULT, RESULT, SPARE),
    ]


def sigmoid() -> list[Step]:
    """Return the steps of 1 / (1 + e**-x)."""
    return _sigmoid_of(X)


def _times_x() -> list[Step]:
    """Multiply by x; minus infinity gives 0."""
    return [step(Op.MULTIPLY, RESULT, X, RESULT), step(Op.NOTHING_IS_0, RESULT, X, RESULT)]


def silu() -> list[Step]:
    """Return the steps of x * sigmoid(x)."""
    return [*_sigmoid_of(X), *_times_x()]


def gelu_tanh() -> list[Step]:
    """Return the steps of x * sigmoid(x * (first + second * x * x))."""
    gate = row(1)
    first, second = approx.GELU_TANH
    return [
        step(Op.MULTIPLY, gate, X, X),
        step(Op.MULTIPLY, gate, gate, immediate(second)),
        step(Op.ADD, gate, gate, immediate(first)),
        step(Op.MULTIPLY, gate, X, gate),
        *_sigmoid_of(gate), *_times_x(),
    ]


def tanh() -> list[Step]:
    """Return the steps of the hyperbolic tangent, from e**(-2|x|) - 1 = (base - 1) + excess."""
    base = row(1)
    return [
        step(Op.MULTIPLY, EXPONENT, abs(X), immediate(MINUS_TWO)),
        step(Op.MAX, EXPONENT, EXPONENT, immediate(LOWEST)),
        *_power(),
        step(Op.PASS, base, _of(COUNT, Table.EXP_HIGH)),
        *_scaled(base), *_scaled(RESULT),
        step(Op.ADD, base, base, -immediate(ONE)),
        step(Op.ADD, base, base, RESULT),
        step(Op.ADD, RESULT, base, immediate(TWO)),
        step(Op.DIVIDE, RESULT, base, RESULT),
        step(Op.SIGN, RESULT, X, RESULT),
    ]


def _tail_product() -> list[Step]:
    """Return t * Q(t) of t = |x|, Q the upper tail of the normal distribution."""
    t, rest, total, u = row(1), row(3), REST, row(3)
    pole = EXPONENT
    steps = [
        step(Op.MIN, t, abs(X), immediate(TAIL_END)),
        step(Op.PASS, SPARE, _of(t, Table.HEAD)),
        step(Op.ADD, rest, t, -SPARE),
        step(Op.ADD, REST, t, SPARE),
        step(Op.MULTIPLY, rest, rest, REST),
        step(Op.MULTIPLY, rest, rest, immediate(MINUS_HALF)),
        step(Op.MULTIPLY, EXPONENT, SPARE, SPARE),
        step(Op.MULTIPLY, EXPONENT, EXPONENT, immediate(MINUS_HALF)),
        *_exp_of_exponent(rest),
        step(Op.ADD, pole, t, immediate(FOUR)),
        step(Op.ADD, u, t, -immediate(FOUR)),
        step(Op.DIVIDE, u, u, pole),
        step(Op.MULTIPLY, total, u, immediate(approx.TAIL[-1])),
    ]
    for coefficient in approx.TAIL[-2:0:-1]:
        steps += [step(Op.ADD, total, total, immediate(coefficient)),
                  step(Op.MULTIPLY, total, total, u)]
    return [
        *steps,
        step(Op.ADD, total, total, immediate(approx.TAIL[0])),
        step(Op.DIVIDE, total, total, pole),
        step(Op.MULTIPLY, RESULT, RESULT, total),
        step(Op.MULTIPLY, RESULT, t, RESULT),
    ]


def gelu() -> list[Step]:
    """Return the steps of max(x, 0) - |x| * Q(|x|)."""
    positive = row(1)
    return [*_tail_product(), step(Op.MAX, positive, X, immediate(ZERO)),
            step(Op.ADD, RESULT, positive, -RESULT)]
