"""The scales of groups: each row of a group's sums times its columns' scales, added up in float32.

Behind an array (and ``machine.group``, where there are zero points): total += float32(sum) * scale,
three roundings a group, groups in the order they come. Grouped W4A8 and MixPE (arXiv 2411.16158)
have a scale a group; of two-level weights (``machine.qoq``) all of K is one group, and its scale
that of a row of weights.
"""

from fractions import Fraction

from machine.config import config, require
from machine.formats import format_named
from machine.systolic import MAX_LENGTH

__all__ = ["HEAD_BITS", "GroupScaleConfig", "pack_scales"]

SUM_FORMATS = ("int32", "float32")
SCALE_FORMATS = ("float16", "bfloat16", "float32")
HEAD_BITS = 18  # of a group's word: rows less one in 16, whether it is the first, the last


@config
class GroupScaleConfig:
    """A stage behind an array that scales the sums of groups and adds them up."""

    cols: int  # columns of a row of sums
    rows: int = 512  # most rows of a group; as many totals are kept
    sum_format: str = "int32"  # of a group's sum; float32 behind an array of floats
    scale_format: str = "float16"  # of a scale
    convert_cycles: int = 1  # registers inside the conversion of integers
    multiply_cycles: int = 2  # registers inside the multiplier

    def __post_init__(self) -> None:
        require(self.cols >= 1, "cols", "at least 1", self.cols)
        require(1 <= self.rows <= MAX_LENGTH, "rows", f"from 1 to {MAX_LENGTH}", self.rows)
        for name, known in (("sum_format", SUM_FORMATS), ("scale_format", SCALE_FORMATS)):
            value = getattr(self, name)
            require(value in known, name, f"one of {', '.join(known)}", value)
        for name, most in (("convert_cycles", 3), ("multiply_cycles", 4)):
            value = getattr(self, name)
            require(0 <= value <= most, name, f"from 0 to {most}", value)

    @property
    def converts(self) -> bool:
        """Whether sums are integers, rounded to float32 first."""
        return self.sum_format != "float32"

    @property
    def sum_beat_bits(self) -> int:
        """Width of one row of sums, and of totals; column c lies at bit ``c * 32``."""
        return self.cols * 32

    @property
    def scale_bits(self) -> int:
        """Bits of one scale."""
        return format_named(self.scale_format).bits

    @property
    def scale_word_bits(self) -> int:
        """Width of a group's word, laid out as `pack_scales`."""
        return HEAD_BITS + self.cols * self.scale_bits

    @property
    def scale_cycles(self) -> int:
        """Steps from a row's acceptance to its sums at the multiplier."""
        return self.convert_cycles if self.converts else 0

    @property
    def add_cycles(self) -> int:
        """Steps from a row's acceptance to its products at the adder."""
        return self.scale_cycles + self.multiply_cycles + 1

    @property
    def latency_cycles(self) -> int:
        """Cycles from the acceptance of a last group's row to the cycle its totals are offered."""
        return self.add_cycles + 1

    @property
    def rows_per_cycle(self) -> Fraction:
        """Rows of sums taken a cycle, nothing stalling."""
        return Fraction(1)


def pack_scales(
    cfg: GroupScaleConfig, rows: int, scales: list[int], *, first: bool, last: bool
) -> int:
    """Return the word of a group of `rows` rows: codes of `scales`, one a column.

    The first group of a row of totals starts from +0, the last one sends them.
    """
    word = rows - 1 | int(first) << 16 | int(last) << 17
    for col, scale in enumerate(scales):
        word |= scale << HEAD_BITS + col * cfg.scale_bits
    return word
