"""The zero points of a group: taken off its sums, once a group and never a weight.

An array multiplies codes. The sum over a group of (q_w - z) * q_a is its sum of q_w * q_a less z
times the sum of its activations (MixPE, arXiv 2411.16158); the scale of the group comes behind.
"""

from machine.config import config, require
from machine.systolic import MAX_LENGTH, signed_bits

__all__ = ["GroupConfig"]


@config
class GroupConfig:
    """A stage behind an array that takes the zero points off the sums of groups."""

    cols: int  # columns of a row of sums
    group: int = 128  # most products in a group
    a_bits: int = 8  # of a signed activation
    w_bits: int = 4  # of an unsigned weight, and of a zero point
    acc_bits: int = 32  # of a sum

    def __post_init__(self) -> None:
        require(self.cols >= 1, "cols", "at least 1", self.cols)
        require(1 <= self.group <= MAX_LENGTH, "group", f"from 1 to {MAX_LENGTH}", self.group)
        for name, most in (("a_bits", 16), ("w_bits", 8)):
            value = getattr(self, name)
            require(1 <= value <= most, name, f"from 1 to {most}", value)
        least = signed_bits(-self.largest, self.largest)
        require(least <= self.acc_bits <= 64, "acc_bits",
                f"from {least} (for {self.group} products of int{self.a_bits} by "
                f"uint{self.w_bits}) to 64", self.acc_bits)

    @property
    def largest(self) -> int:
        """Largest magnitude of a group's sum, with its zero point or without."""
        return self.group * 2 ** (self.a_bits - 1) * (2**self.w_bits - 1)

    @property
    def act_sum_bits(self) -> int:
        """Bits of the sum of a group's activations, a signed integer."""
        low = -(2 ** (self.a_bits - 1))
        return signed_bits(self.group * low, self.group * (-low - 1))

    @property
    def sum_beat_bits(self) -> int:
        """Width of one row of sums; column c lies at bit ``c * acc_bits``."""
        return self.cols * self.acc_bits

    @property
    def zero_word_bits(self) -> int:
        """Width of a group's word: its rows less one in 16 bits, then the zero of each column."""
        return 16 + self.cols * self.w_bits

    @property
    def latency_cycles(self) -> int:
        """Cycles from a row's acceptance to the cycle it is offered."""
        return 1
