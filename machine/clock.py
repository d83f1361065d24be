"""Clocks: rational periods, and the tick that divides them all."""

from fractions import Fraction
from math import gcd, lcm

from machine.config import config, require

__all__ = ["ClockConfig", "tick_of"]


@config
class ClockConfig:
    """A clock of period `period_ps` / `divisor` picoseconds; its first edge is at time 0."""

    name: str
    period_ps: int  # numerator of the period
    divisor: int = 1  # denominator of the period

    def __post_init__(self) -> None:
        require(self.period_ps >= 1, "period_ps", "at least 1", self.period_ps)
        require(self.divisor >= 1, "divisor", "at least 1", self.divisor)

    @property
    def period(self) -> Fraction:
        """The exact period in picoseconds."""
        return Fraction(self.period_ps, self.divisor)

    @property
    def hz(self) -> float:
        """The frequency, for tables."""
        return float(10**12 / self.period)


def tick_of(clocks: tuple[ClockConfig, ...]) -> Fraction:
    """Return the longest time in picoseconds that divides every period of `clocks`."""
    periods = [clock.period for clock in clocks]
    return Fraction(gcd(*(p.numerator for p in periods)), lcm(*(p.denominator for p in periods)))
