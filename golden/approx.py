"""exp, sigmoid, tanh, the normal tail, sine and cosine, from + - * / of float32 and tables.

Every function takes float32 [...] and returns float32 [...], bit for bit the same on any CPU: no
library function whose last bit may differ is called. Methods and errors: docs/numerics.md.
NaN gives NaN; no function raises.
"""

from collections.abc import Callable
from functools import wraps

import numpy as np
from numpy.typing import ArrayLike, NDArray

from machine import approx

__all__ = ["cos_sin", "exp", "gelu", "gelu_tanh", "sigmoid", "silu", "tanh"]

F32 = np.float32
Floats = NDArray[np.float32]


def _words(bits: tuple[int, ...]) -> Floats:
    """Read ROM words as float32."""
    return np.array(bits, np.uint32).view(F32)


def _word(bits: int) -> np.float32:
    return F32(_words((bits,))[0])


EXP_STEPS = _word(approx.EXP_STEPS)
EXP_STEP_HIGH, EXP_STEP_LOW = _word(approx.EXP_STEP_HIGH), _word(approx.EXP_STEP_LOW)
HALF, SIXTH = (_word(bits) for bits in approx.EXP_SERIES)
EXP_HIGH, EXP_LOW = _words(approx.EXP_HIGH), _words(approx.EXP_LOW)
TAIL, TAIL_POLE = _words(approx.TAIL), F32(approx.TAIL_POLE)
GELU_FIRST, GELU_SECOND = (_word(bits) for bits in approx.GELU_TANH)
PHASE_UNIT, SINE = _word(approx.PHASE_UNIT), _words(approx.SINE)
ONE = F32(1)

LOWEST, HIGHEST = F32(-104), F32(89)  # exp rounds to 0 from here down, to infinity from here up
TAIL_END = F32(14.5)  # t * Q(t) rounds to 0 from here up


def _elementwise(function: Callable[[Floats], Floats]) -> Callable[[ArrayLike], Floats]:
    """Read the argument as float32, let NaN pass round the arithmetic, and keep numpy quiet."""
    @wraps(function)
    def whole(x: ArrayLike) -> Floats:
        value = np.asarray(x, F32)
        nan = np.isnan(value)
        with np.errstate(all="ignore"):
            result = function(np.where(nan, F32(0), value))
        return np.where(nan, F32(np.nan), result)
    return whole


def _power(x: Floats, rest: Floats | float = 0.0) -> tuple[Floats, Floats, NDArray[np.int32]]:
    """Split exp(`x` + `rest`) into 2**exponent * (base + excess), base in [1, 2).

    `x` is in [LOWEST, HIGHEST] and `rest` is small beside one step.
    """
    steps = np.rint(x * EXP_STEPS)
    r = (x - steps * EXP_STEP_HIGH) - steps * EXP_STEP_LOW + F32(rest)
    series = r + (r * r) * (HALF + r * SIXTH)
    count = steps.astype(np.int32)
    base = EXP_HIGH[count & 31]
    return base, base * series + EXP_LOW[count & 31], count >> 5


def _scaled(x: Floats, exponent: NDArray[np.int32]) -> Floats:
    """Multiply by 2**exponent in two exact halves, so that a subnormal result rounds once."""
    half = exponent >> 1
    return (x * _two_to(half)) * _two_to(exponent - half)


def _two_to(exponent: NDArray[np.int32]) -> Floats:
    return ((exponent + 127) << 23).astype(np.int32).view(F32)


@_elementwise
def exp(x: Floats) -> Floats:
    """Return e**`x`."""
    base, excess, exponent = _power(np.clip(x, LOWEST, HIGHEST))
    return _scaled(base + excess, exponent)


@_elementwise
def sigmoid(x: Floats) -> Floats:
    """Return 1 / (1 + e**-`x`)."""
    return _sigmoid(x)


def _sigmoid(x: Floats) -> Floats:
    small = exp(-np.abs(x))
    return np.where(x < 0, small, ONE) / (ONE + small)


@_elementwise
def silu(x: Floats) -> Floats:
    """Return `x` * sigmoid(`x`); minus infinity gives zero."""
    return np.where(np.isneginf(x), F32(0), x * _sigmoid(x))


@_elementwise
def tanh(x: Floats) -> Floats:
    """Return the hyperbolic tangent of `x`, from e**(-2|x|) - 1 without cancellation."""
    base, excess, exponent = _power(np.maximum(F32(-2) * np.abs(x), LOWEST))
    less_one = (_scaled(base, exponent) - ONE) + _scaled(excess, exponent)
    return np.copysign(less_one / (F32(2) + less_one), x)


def _tail_product(t: Floats) -> Floats:
    """Return `t` * Q(t) for t >= 0, Q the upper tail of the normal distribution."""
    t = np.minimum(t, TAIL_END)
    # Twelve leading bits of t square exactly; the rest of t*t is small.
    head = ((t.view(np.uint32) + np.uint32(0x800)) & np.uint32(0xFFFFF000)).view(F32)
    base, excess, exponent = _power((head * head) * -HALF, ((t - head) * (t + head)) * -HALF)
    pole = t + TAIL_POLE
    u = (t - TAIL_POLE) / pole
    total = np.full_like(u, TAIL[-1])
    for coefficient in TAIL[-2::-1]:
        total = total * u + coefficient
    return t * (_scaled(base + excess, exponent) * (total / pole))


@_elementwise
def gelu(x: Floats) -> Floats:
    """Return `x` * Phi(`x`), Phi the normal distribution: max(x, 0) - |x| * Q(|x|)."""
    return np.where(x > 0, x, F32(0)) - _tail_product(np.abs(x))


@_elementwise
def gelu_tanh(x: Floats) -> Floats:
    """Return x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))), as x * sigmoid(twice that)."""
    gate = _sigmoid(x * (GELU_FIRST + GELU_SECOND * (x * x)))
    return np.where(np.isneginf(x), F32(0), x * gate)


def cos_sin(phase: ArrayLike) -> tuple[Floats, Floats]:
    """Return cosine and sine of int64 `phase` [...], 2**PHASE_BITS to the turn, any sign."""
    eighth = 1 << (approx.PHASE_BITS - 10)
    value = np.asarray(phase, np.int64)
    index = (value + eighth) >> (approx.PHASE_BITS - 9)  # nearest of 512 steps of the turn
    d = (value - (index << (approx.PHASE_BITS - 9))).astype(F32) * PHASE_UNIT
    step, quadrant = index & 127, (index >> 7) & 3
    s, c = SINE[step], SINE[128 - step]
    small_sine = d - d * (d * d) * SIXTH
    small_cosine = (d * d) * HALF  # one less the cosine
    sine = s + (c * small_sine - s * small_cosine)
    cosine = c - (s * small_sine + c * small_cosine)
    swapped = quadrant % 2 == 1
    first, second = np.where(swapped, sine, cosine), np.where(swapped, cosine, sine)
    return (np.where((quadrant == 1) | (quadrant == 2), -first, first),
            np.where(quadrant >= 2, -second, second))
