"""Block-scaled tiles in memory: each block's scale stands right before its elements.

Element number e of a tensor belongs to block e // group. A block takes the scale's bits and then
`group` elements, packed to the bit: 17 bytes for 32 elements of mxfp4. A row whose length is no
multiple of the group starts a new block with its next row if the row stride says so.
"""

import numpy as np

from golden import blocks, formats
from golden.tiles import gather_bits, scatter_bits
from machine.errors import must_be
from machine.formats import FORMATS, Format

__all__ = ["one_scale", "put", "quantised", "span", "take", "values_of_blocks"]

Codes = tuple[np.ndarray, np.ndarray]  # of elements, and of the scale of each


def one_scale(fmt: Format) -> bool:
    """Return whether a scale is all that the elements of a block of `fmt` share."""
    return not (fmt.zero or fmt.row_scale or fmt.tensor_scale)


def span(fmt: Format, numbers: np.ndarray) -> tuple[int, int]:
    """Return the first bit of the blocks of elements `numbers`, and the bit behind the last."""
    width = _block_bits(fmt)
    return int(numbers.min()) // fmt.group * width, (int(numbers.max()) // fmt.group + 1) * width


def take(raw: np.ndarray, base: int, numbers: np.ndarray, fmt: Format) -> Codes:
    """Return the codes of elements `numbers` of the tensor at bit `base`, and of their scales."""
    return (gather_bits(raw, base + _element_at(fmt, numbers), fmt.bits),
            gather_bits(raw, base + _scale_at(fmt, numbers), FORMATS[fmt.scale].bits))


def put(raw: np.ndarray, base: int, numbers: np.ndarray, codes: Codes, fmt: Format) -> None:
    """Put what `take` takes."""
    elements, scales = codes
    scatter_bits(raw, base + _element_at(fmt, numbers), elements, fmt.bits)
    scatter_bits(raw, base + _scale_at(fmt, numbers), scales, FORMATS[fmt.scale].bits)


def values_of_blocks(codes: Codes, fmt: Format) -> np.ndarray:
    """Return the exact values of elements and their scales, float64."""
    elements, scales = codes
    exact = formats.decode(elements, FORMATS[fmt.element])
    return exact * formats.decode(scales, FORMATS[fmt.scale]) * 2.0**-fmt.fraction_bits


def quantised(values: np.ndarray, numbers: np.ndarray, fmt: Format) -> Codes:
    """Return the codes of `values` [..., K], as elements `numbers` [..., K] by ``golden.blocks``.

    Raises `UserError` unless each row is one run of elements that begins a block.
    """
    first, width = numbers[..., :1], numbers.shape[-1]
    if (first % fmt.group).any() or (numbers - first != np.arange(width)).any():
        raise must_be("each row written in layout block_scaled",
                      f"one run that begins a block of {fmt.group}", int(first.flat[0]))
    parts = blocks.quantise(values, fmt)
    scales = np.repeat(formats.encode(parts["scales"], FORMATS[fmt.scale]), fmt.group, axis=-1)
    return formats.encode(parts["elements"], FORMATS[fmt.element]), scales[..., :width]


def _block_bits(fmt: Format) -> int:
    return FORMATS[fmt.scale].bits + fmt.group * fmt.bits


def _scale_at(fmt: Format, numbers: np.ndarray) -> np.ndarray:
    return numbers // fmt.group * _block_bits(fmt)


def _element_at(fmt: Format, numbers: np.ndarray) -> np.ndarray:
    return _scale_at(fmt, numbers) + FORMATS[fmt.scale].bits + numbers % fmt.group * fmt.bits
