"""Weights of 4 bits in two levels: what goes with them into an array of 8-bit elements.

A weight q of a group with scale s and zero point z is the int8 number s * (q - z); the scales of
rows come after the array. Method: QServe, arXiv 2405.04532.
"""

from machine.systolic import MAX_LENGTH, SystolicConfig

__all__ = ["CODE_BITS", "GROUP_BITS", "LENGTH_BITS", "SCALE_BITS", "ZERO_BITS", "code_beat_bits",
           "group_word_bits", "pack_group"]

CODE_BITS = 4  # q, unsigned
SCALE_BITS = 8  # s, unsigned
ZERO_BITS = 4  # z, unsigned
GROUP_BITS = SCALE_BITS + ZERO_BITS  # of one column; the scale lies below the zero point
LENGTH_BITS = (MAX_LENGTH - 1).bit_length()


def code_beat_bits(cfg: SystolicConfig) -> int:
    """Width of one beat of codes; lane l of column c lies at bit ``(c * k_lanes + l) * 4``."""
    return cfg.cols * cfg.pe.k_lanes * CODE_BITS


def group_word_bits(cfg: SystolicConfig) -> int:
    """Width of a group's word: its beats less one, then the scale and zero point of each column."""
    return LENGTH_BITS + cfg.cols * GROUP_BITS


def pack_group(beats: int, scales: list[int], zeros: list[int]) -> int:
    """Return the word of a group of `beats` beats of codes; a scale and a zero point a column."""
    word = beats - 1
    for col, (scale, zero) in enumerate(zip(scales, zeros, strict=True)):
        word |= (scale | zero << SCALE_BITS) << LENGTH_BITS + col * GROUP_BITS
    return word
