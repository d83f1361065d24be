"""Clocks are exact, and the tick is the longest time that divides every period."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.clock import ClockConfig, tick_of

PERIODS = st.lists(st.tuples(st.integers(1, 10**5), st.integers(1, 100)), min_size=1, max_size=4)


def clocks_of(periods):
    return tuple(ClockConfig(name=f"c{i}", period_ps=p, divisor=d)
                 for i, (p, d) in enumerate(periods))


def test_period_is_exact():
    clock = ClockConfig(name="c", period_ps=2500, divisor=3)
    assert clock.period == Fraction(2500, 3)
    assert clock.hz == pytest.approx(1.2e9)


@given(PERIODS)
def test_tick_divides_every_period_and_no_longer_time_does(periods):
    clocks = clocks_of(periods)
    tick = tick_of(clocks)
    counts = [clock.period / tick for clock in clocks]
    assert all(count.denominator == 1 for count in counts)
    # A longer common divisor would divide every count.
    assert all(any(count % factor for count in counts) for factor in range(2, 50))


@pytest.mark.parametrize(("field", "value"), [("period_ps", 0), ("divisor", 0), ("divisor", -1)])
def test_period_must_be_positive(field, value):
    with pytest.raises(ValueError, match=f"{field} must be at least 1, not {value}"):
        ClockConfig(**{"name": "c", "period_ps": 1000, field: value})
