"""Every committed table derived again, in decimal arithmetic of 120 digits from series."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest

from machine import approx

DIGITS = 120


@pytest.fixture(autouse=True)
def precision():
    with localcontext() as context:
        context.prec = DIGITS
        yield


def float32_bits(exact: Decimal) -> int:
    """Round to a normal float32 with fractions, ties to even, and return its bits."""
    if not exact:
        return 0
    value = abs(Fraction(exact))
    exponent = math.floor(math.log2(float(value)))
    units = round(value / Fraction(2) ** (exponent - 23))
    assert 2**23 <= units <= 2**24
    return ((exact < 0) << 31) + ((exponent + 127) << 23) + units - 2**23


def float32_value(bits: int) -> Decimal:
    """The exact value of a normal float32 or zero."""
    if not bits:
        return Decimal(0)
    mantissa = Decimal(bits % 2**23 + 2**23)
    return (-1) ** (bits >> 31) * mantissa * Decimal(2) ** ((bits >> 23) % 256 - 150)


def pi() -> Decimal:
    """Machin: 16 arctan(1/5) - 4 arctan(1/239)."""
    def arctan_of_inverse(n: int) -> Decimal:
        return sum(((-1) ** k / (Decimal(2 * k + 1) * Decimal(n) ** (2 * k + 1))
                    for k in range(2 * DIGITS)), Decimal(0))
    return 16 * arctan_of_inverse(5) - 4 * arctan_of_inverse(239)


def cosine(x: Decimal) -> Decimal:
    """Taylor series."""
    term, total = Decimal(1), Decimal(0)
    for k in range(DIGITS):
        total += term
        term *= -x * x / ((2 * k + 1) * (2 * k + 2))
    return total


def tail_ratio(t: Decimal) -> Decimal:
    """exp(t^2/2) Q(t), Q the normal upper tail: a series for small t, a fraction for large."""
    root = (2 * pi()).sqrt()
    if t < 10:
        term, total = t, Decimal(0)
        for n in range(1, 1200):
            total += term
            term *= t * t / (2 * n + 1)
        return (t * t / 2).exp() / 2 - total / root
    fraction = t
    for n in range(1500, 0, -1):
        fraction = t + n / fraction
    return 1 / (root * fraction)


def test_exp_tables_are_the_32nd_roots_of_two_in_two_words():
    for j, (high, low) in enumerate(zip(approx.EXP_HIGH, approx.EXP_LOW, strict=True)):
        exact = Decimal(2) ** (Decimal(j) / 32)
        assert high == float32_bits(exact)
        assert low == float32_bits(exact - float32_value(high))
    assert len(approx.EXP_HIGH) == 32


def test_exp_step_is_ln2_over_32_in_two_words():
    step = Decimal(2).ln() / 32
    high = float32_value(approx.EXP_STEP_HIGH)
    assert approx.EXP_STEPS == float32_bits(1 / step)
    assert high == (step * 2**16).to_integral_value("ROUND_FLOOR") / 2**16
    assert approx.EXP_STEP_LOW == float32_bits(step - high)


def test_exp_step_times_any_count_of_steps_is_exact():
    largest_count = 104 * 32 / Decimal(2).ln()
    units = float32_value(approx.EXP_STEP_HIGH) * 2**16
    assert units == int(units) and units * (int(largest_count) + 1) < 2**24


def test_exp_series_are_the_taylor_coefficients():
    assert approx.EXP_SERIES == (float32_bits(Decimal(1) / 2), float32_bits(Decimal(1) / 6))


def test_sine_table_is_a_quarter_wave():
    quarter = pi() / 2
    assert len(approx.SINE) == 129
    for j, bits in enumerate(approx.SINE):
        assert bits == float32_bits(cosine(quarter * (128 - j) / 128) if j else Decimal(0))


def test_phase_unit_is_a_turn_over_two_to_the_48():
    assert approx.PHASE_UNIT == float32_bits(2 * pi() / 2**approx.PHASE_BITS)
    assert approx.PHASE_BITS == 48


def test_tail_coefficients_interpolate_at_the_chebyshev_nodes():
    count, pole = len(approx.TAIL), Decimal(approx.TAIL_POLE)
    angles = [pi() * (2 * k + 1) / (2 * count) for k in range(count)]
    samples = []
    for angle in angles:
        u = cosine(angle)
        t = pole * (1 + u) / (1 - u)
        samples.append((t + pole) * tail_ratio(t))
    power = [Decimal(0)] * count
    previous, current = [Decimal(0)], [Decimal(1)]  # T_(j-1) and T_j as powers of u
    for j in range(count):
        weight = 2 * sum(s * cosine(j * a) for s, a in zip(samples, angles, strict=True)) / count
        for i, c in enumerate(current):
            power[i] += c * (weight / 2 if j == 0 else weight)
        double = [Decimal(0)] + [c * (1 if j == 0 else 2) for c in current]
        previous.extend([Decimal(0)] * (len(double) - len(previous)))
        previous, current = current, [d - (p if j else 0) for d, p in
                                      zip(double, previous, strict=True)]
    assert approx.TAIL == tuple(float32_bits(c) for c in power)


def test_gelu_tanh_constants():
    first = 2 * (2 / pi()).sqrt()
    assert approx.GELU_TANH == (float32_bits(first), float32_bits(first * Decimal("0.044715")))


@pytest.mark.parametrize("theta, width", [(10_000.0, 128), (500_000.0, 128), (1e6, 64)])
def test_rotary_steps_are_turns_per_position(theta, width):
    steps = approx.rotary_steps(theta, width)
    for i, step in enumerate(steps):
        turns = Decimal(theta) ** (Decimal(-2 * i) / width) / (2 * pi())
        assert abs(step - turns * 2**48) <= Decimal("0.5000001")
    assert len(steps) == width // 2


def test_rotary_steps_reject_an_odd_width():
    with pytest.raises(ValueError, match="^width must be even and at least 2, not 5$"):
        approx.rotary_steps(10_000.0, 5)


def stretched(theta, width, factor, low, high, length):
    """Turns a position of each pair in float64, by wavelengths as in transformers."""
    for i in range(width // 2):
        wave = 2 * math.pi * theta ** (2 * i / width)
        if wave > length / low:
            yield 1 / (wave * factor)
        elif wave < length / high:
            yield 1 / wave
        else:
            smooth = (length / wave - low) / (high - low)
            yield (1 - smooth) / (wave * factor) + smooth / wave


@pytest.mark.parametrize("theta, width, bands", [
    (500_000.0, 64, (32.0, 1.0, 4.0, 8192)),  # Llama-3.2-1B
    (500_000.0, 128, (8.0, 1.0, 4.0, 8192)),  # Llama-3.1-8B
    (10_000.0, 16, (4.0, 1.0, 4.0, 64)),
])
def test_stretched_steps_are_those_of_llama_3(theta, width, bands):
    steps = approx.rotary_steps(theta, width, approx.Stretch(*bands))
    want = list(stretched(theta, width, *bands))
    plain = approx.rotary_steps(theta, width)
    assert steps[0] == plain[0] and steps[-1] == round(Decimal(plain[-1]) / Decimal(bands[0]))
    for step, turns in zip(steps, want, strict=True):
        assert abs(step - turns * 2**48) <= 0.5 + 1e-12 * turns * 2**48
    kept = sum(a == b for a, b in zip(steps, plain, strict=True))
    slow = sum(abs(a * bands[0] - b) <= bands[0] for a, b in zip(steps, plain, strict=True))
    assert 0 < kept < kept + slow < len(steps), "every band must have a pair"


def test_a_stretch_without_bands_slows_every_pair_alike():
    steps, plain = (approx.rotary_steps(1e4, 32, s) for s in (approx.Stretch(2.0), None))
    assert all(abs(2 * a - b) <= 1 for a, b in zip(steps, plain, strict=True))


@pytest.mark.parametrize("stretch, message", [
    (approx.Stretch(0.5), "factor must be at least 1, not 0.5"),
    (approx.Stretch(2.0, 4.0, 4.0, 64),
     "low_freq_factor must be above 0 and below high_freq_factor 4.0, not 4.0"),
])
def test_a_stretch_that_contradicts_itself_is_refused(stretch, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        approx.rotary_steps(1e4, 16, stretch)
