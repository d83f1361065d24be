"""The elementwise approximations against float64: their errors, limits and special values."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, ndtr

from golden import approx
from golden.formats import round_to
from machine.approx import PHASE_BITS, rotary_steps
from machine.formats import FORMATS, Format


def gelu_tanh(x):
    return x * expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))


REFERENCE = {
    "exp": np.exp, "sigmoid": expit, "silu": lambda x: x * expit(x), "tanh": np.tanh,
    "gelu": lambda x: x * ndtr(x), "gelu_tanh": gelu_tanh,
}
PAGE = Path(__file__).parents[2] / "docs" / "numerics.md"
# rows of the page's table: function, from, to, largest and mean error, largest in 16 bits
CLAIMS = re.findall(r"^\| (\w+) \| ([-\d.]+) \| ([-\d.]+) \| ([\d.]+) \| ([\d.]+) "
                    r"\| ([\d.]+) \| ([\d.]+) \|$", PAGE.read_text(), re.MULTILINE)
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


def test_every_curve_has_a_documented_error():
    assert {name for name, *_ in CLAIMS} == set(REFERENCE)


@pytest.mark.parametrize("name, low, high, largest, mean, half, brain", CLAIMS)
def test_errors_are_those_of_the_documentation(name, low, high, largest, mean, half, brain):
    x = points(float(low), float(high))
    got, want = getattr(approx, name)(x), REFERENCE[name](x.astype(np.float64))
    error = units(got, want, FORMATS["float32"])
    assert float(largest) * 0.75 <= error.max() <= float(largest)
    assert error.mean() == pytest.approx(float(mean), abs=0.006)
    for short, bound in (("float16", half), ("bfloat16", brain)):
        fmt = FORMATS[short]
        inside = np.abs(want) <= fmt.largest
        assert units(round_to(got, fmt), want, fmt)[inside].max() <= float(bound)


def test_gelu_tanh_vanishes_absolutely_where_its_relative_error_grows():
    x = points(-30.0, -1.0)
    error = np.abs(approx.gelu_tanh(x) - gelu_tanh(x.astype(np.float64)))
    assert error.max() < 5e-8


def test_exp_reaches_zero_and_infinity_where_float32_does():
    top, bottom = np.float32(88.72283), np.float32(-103.97208)  # last finite, last above 2^-150
    up, down = np.nextafter(top, np.float32(99)), np.nextafter(bottom, np.float32(-199))
    assert np.isfinite(approx.exp(top)) and np.isinf(approx.exp(up))
    assert approx.exp(bottom) == np.float32(2.0**-149) and approx.exp(down) == 0


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
