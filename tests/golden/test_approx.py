"""The elementwise approximations against float64: their errors, limits and special values."""

import numpy as np
import pytest
from scipy.special import expit, ndtr

from golden import approx
from golden.formats import round_to
from machine.approx import PHASE_BITS, rotary_steps
from machine.formats import FORMATS, Format


def gelu_tanh(x):
    return x * expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))


# function, float64 reference, range, largest error in units of the last place; docs/numerics.md
CLAIMS = [
    (approx.exp, np.exp, (-87.0, 88.0), 0.57),
    (approx.sigmoid, expit, (-80.0, 80.0), 2.5),
    (approx.silu, lambda x: x * expit(x), (-80.0, 80.0), 3.3),
    (approx.tanh, np.tanh, (-20.0, 20.0), 3.6),
    (approx.gelu, lambda x: x * ndtr(x), (-12.5, 20.0), 5.4),
    (approx.gelu_tanh, gelu_tanh, (-1.0, 20.0), 2.9),
    (approx.gelu_tanh, gelu_tanh, (-9.0, -1.0), 190.0),
]
FUNCTIONS = [approx.exp, approx.sigmoid, approx.silu, approx.tanh, approx.gelu, approx.gelu_tanh]


def units(got, want, fmt: Format):
    """Error in units of the last place of the exact value in `fmt`."""
    exponent = np.frexp(want)[1] - 1
    place = np.maximum(exponent, fmt.smallest_exponent) - fmt.mantissa_bits
    return np.abs(got.astype(np.float64) - want) / np.ldexp(1.0, place)


def points(low, high):
    rng = np.random.default_rng(5)
    tiny = np.ldexp(rng.standard_normal(20_000), rng.integers(-40, 0, 20_000))
    x = np.concatenate([rng.uniform(low, high, 200_000), tiny, np.linspace(low, high, 4001)])
    return x[(x >= low) & (x <= high)].astype(np.float32)


@pytest.mark.parametrize("function, reference, span, bound", CLAIMS)
def test_error_is_within_the_documented_bound(function, reference, span, bound):
    x = points(*span)
    error = units(function(x), reference(x.astype(np.float64)), FORMATS["float32"])
    assert error.max() <= bound
    assert error.max() >= bound / 2, "the documented bound is loose"


@pytest.mark.parametrize("function, reference, span, _", CLAIMS)
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_rounded_to_16_bits_the_error_is_barely_the_rounding(function, reference, span, _, name):
    fmt = FORMATS[name]
    x = points(*span)
    want = reference(x.astype(np.float64))
    inside = np.abs(want) <= fmt.largest
    error = units(round_to(function(x), fmt), want, fmt)[inside]
    assert error.max() <= 0.53


def test_exp_reaches_zero_and_infinity_where_float32_does():
    top, bottom = np.float32(88.72283), np.float32(-103.97208)  # last finite, last above 2^-150
    up, down = np.nextafter(top, np.float32(99)), np.nextafter(bottom, np.float32(-199))
    assert np.isfinite(approx.exp(top)) and np.isinf(approx.exp(up))
    assert approx.exp(bottom) == np.float32(2.0**-149) and approx.exp(down) == 0
    subnormal = np.linspace(-103, -88, 5000).astype(np.float32)
    error = units(approx.exp(subnormal), np.exp(subnormal.astype(np.float64)), FORMATS["float32"])
    assert error.max() <= 0.76


@pytest.mark.parametrize("function, limits", [
    (approx.exp, (0.0, np.inf)), (approx.sigmoid, (0.0, 1.0)), (approx.silu, (0.0, np.inf)),
    (approx.tanh, (-1.0, 1.0)), (approx.gelu, (0.0, np.inf)), (approx.gelu_tanh, (0.0, np.inf))])
def test_infinities_give_the_limits_and_nan_gives_nan(function, limits):
    with np.errstate(all="raise"):
        got = function([-np.inf, np.inf, -3e38, np.nan])
    assert (got[0], got[1]) == limits and got[2] == limits[0] and np.isnan(got[3])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_value_does_not_depend_on_its_neighbours(function):
    x = points(-8.0, 8.0)[:1000]
    whole = function(x)
    assert whole.dtype == np.float32
    assert [function(v).tobytes() for v in x[:50]] == [v.tobytes() for v in whole[:50]]
    assert function(x[::-3]).tobytes() == whole[::-3].tobytes()


def test_exp_and_sigmoid_never_decrease():
    x = np.sort(points(-30.0, 30.0))
    assert (np.diff(approx.exp(x)) >= 0).all()
    # a quotient of two rounded numbers may step back by one place, no more
    curve = approx.sigmoid(x)
    assert (np.diff(curve) >= -2.0**-23 * curve[1:]).all()


def test_tanh_is_odd():
    x = points(0.0, 20.0)
    assert approx.tanh(-x).tobytes() == (-approx.tanh(x)).tobytes()


def test_cosine_and_sine_of_any_phase():
    phase = np.random.default_rng(3).integers(-(2**50), 2**50, 200_000)
    angle = (phase % 2**PHASE_BITS).astype(np.float64) * (2 * np.pi / 2**PHASE_BITS)
    cosine, sine = approx.cos_sin(phase)
    assert np.abs(cosine - np.cos(angle)).max() < 2.0**-23.9
    assert np.abs(sine - np.sin(angle)).max() < 2.0**-23.9


def test_cosine_and_sine_are_exact_at_the_quarters():
    cosine, sine = approx.cos_sin(np.arange(-4, 5) * 2 ** (PHASE_BITS - 2))
    assert cosine.tolist() == [1, 0, -1, 0, 1, 0, -1, 0, 1]
    assert sine.tolist() == [0, 1, 0, -1, 0, 1, 0, -1, 0]


def test_rotary_phase_stays_accurate_at_long_positions():
    steps = np.array(rotary_steps(10_000.0, 128))
    position = 131_071
    angle = position * 10_000.0 ** (-np.arange(0, 128, 2) / 128)
    cosine, sine = approx.cos_sin(position * steps)
    assert np.abs(cosine - np.cos(angle)).max() < 1e-7
    assert np.abs(sine - np.sin(angle)).max() < 1e-7
