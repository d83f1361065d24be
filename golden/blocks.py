"""Block formats: elements that share scales, made from real numbers and read back.

A tensor is its sections (machine.formats.sections): arrays of exact numbers, int64 where the
section's format is an integer, float64 otherwise. Groups lie along the last axis. What a group
becomes:

- power-of-two scale (mx*, bfp*): 2**(floor(log2(largest magnitude)) - exponent of the element's
  largest value), at least 2**-127; elements saturate. A NaN or infinity makes the scale NaN.
- int*_group: scale = largest magnitude / largest code, in the scale's format.
- uint*_group: scale = (high - low) / largest code and zero = -low / scale, a whole number, where
  low and high take in 0. An element is (code - zero) * scale.
- qoq_kv4: the same scale of the true low and high; the zero is low itself, in the zero's format.
  An element is code * scale + zero.
- nvfp4: one float32 scale a tensor, largest magnitude / (6 * 448), under the groups' scales.
- qoq_w4: rows to int8 within +-119, then groups of those: scale = round((high - low) / 15), at
  least 1, and an integer zero point.

All roundings are to nearest, ties to even. A scale of 0 has elements 0. Outside mx* and bfp*,
numbers that are not finite are refused.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from golden.formats import round_to
from machine.errors import UserError
from machine.formats import FORMATS, Format, Kind

__all__ = ["dequantise", "quantise"]

Reals = NDArray[np.float64]
Sections = dict[str, NDArray]

PROTECTIVE_RANGE = 119  # keeps (q - zero) * scale of qoq_w4 within int8 (arXiv 2405.04532)


def quantise(values: ArrayLike, fmt: Format, group: int = 0) -> Sections:
    """Return the sections of `values` [..., K] in block format `fmt`, elements first.

    `group` replaces the format's own group; the last one may be short.
    Raises `UserError` for a number that is not finite, where the format has no place for it.
    """
    x = np.asarray(values, np.float64)
    size = group or fmt.group
    if FORMATS[fmt.scale].kind is Kind.POWER:
        return _typed(_power_groups(_split(x, size), fmt), fmt, x.shape[-1])
    if not np.isfinite(x).all():
        raise UserError(f"{fmt.name} holds finite numbers only, not {x[~np.isfinite(x)][0]}")
    if fmt.row_scale:
        return _typed(_two_levels(x, fmt, size), fmt, x.shape[-1])
    groups = _split(x, size)
    if fmt.zero:
        made = _offset if FORMATS[fmt.zero].is_float else _asymmetric
        return _typed(made(groups, fmt), fmt, x.shape[-1])
    if fmt.tensor_scale:
        return _typed(_under_tensor_scale(groups, fmt), fmt, x.shape[-1])
    return _typed(_symmetric(groups, fmt), fmt, x.shape[-1])


def dequantise(parts: Sections, fmt: Format, group: int = 0) -> Reals:
    """Return the exact values [..., K] of the sections `parts` of block format `fmt`."""
    elements = parts["elements"]
    q = _split(elements.astype(np.float64), group or fmt.group)
    offset = bool(fmt.zero) and FORMATS[fmt.zero].is_float
    zeros = parts["zeros"][..., None] if fmt.zero else 0.0
    scaled = (q if offset else q - zeros) * (parts["scales"][..., None] * 2.0**-fmt.fraction_bits)
    value = scaled + zeros if offset else scaled
    value = _joined(value, elements.shape[-1])
    if "row_scales" in parts:
        value = value * parts["row_scales"][..., None]
    return value * parts.get("tensor_scale", 1.0)


def _split(x: NDArray, size: int) -> NDArray:
    """Cut the last axis into groups [..., K / size, size]; a short one repeats its last number."""
    missing = -x.shape[-1] % size
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)], mode="edge")
    return padded.reshape(*x.shape[:-1], padded.shape[-1] // size, size)


def _joined(groups: NDArray, depth: int) -> NDArray:
    """Undo `_split` for a last axis of `depth`."""
    *rows, count, size = groups.shape
    return groups.reshape(*rows, count * size)[..., :depth]


def _typed(parts: Sections, fmt: Format, depth: int) -> Sections:
    """Undo the split of the elements, and hold integer sections as int64."""
    whole = _joined(parts["elements"], depth)
    names = {"elements": fmt.element, "scales": fmt.scale, "zeros": fmt.zero,
             "row_scales": fmt.row_scale, "tensor_scale": fmt.tensor_scale}
    return {name: part.astype(np.float64 if _is_real(FORMATS[names[name]]) else np.int64)
            for name, part in (parts | {"elements": whole}).items()}


def _is_real(fmt: Format) -> bool:
    return fmt.kind in (Kind.FLOAT, Kind.POWER)


def _over(x: Reals, scale: Reals) -> Reals:
    """`x` over `scale`, and 0 where the scale is 0."""
    return np.divide(x, scale, out=np.zeros(np.broadcast(x, scale).shape), where=scale != 0)


def _power_groups(x: Reals, fmt: Format) -> Sections:
    element, scale_format = FORMATS[fmt.element], FORMATS[fmt.scale]
    finite = np.asarray(np.isfinite(x).all(axis=-1))
    size = np.where(finite[..., None], x, 0.0)
    largest = np.abs(size).max(axis=-1)
    top = element.largest_exponent if element.is_float else 0
    exponent = np.frexp(largest)[1] - 1 - top
    exponent = np.where(largest > 0, exponent, -scale_format.bias)
    exponent = np.clip(exponent, -scale_format.bias, scale_format.bias)
    scale = np.ldexp(1.0, exponent)
    scaled = np.ldexp(size, fmt.fraction_bits - exponent[..., None])
    if element.is_float:
        elements = round_to(scaled, element, saturate=True)
    else:
        elements = np.clip(np.rint(scaled), -element.largest, element.largest)
    return {"elements": elements, "scales": np.where(finite, scale, np.nan)}


def _symmetric(x: Reals, fmt: Format) -> Sections:
    top = FORMATS[fmt.element].largest
    scale = round_to(np.abs(x).max(axis=-1) / top, FORMATS[fmt.scale], saturate=True)
    elements = np.clip(np.rint(_over(x, scale[..., None])), -top, top)
    return {"elements": elements, "scales": scale}


def _asymmetric(x: Reals, fmt: Format) -> Sections:
    top = FORMATS[fmt.element].largest
    low = np.minimum(x.min(axis=-1), 0.0)
    high = np.maximum(x.max(axis=-1), 0.0)
    scale = round_to((high - low) / top, FORMATS[fmt.scale], saturate=True)
    zero = np.clip(np.rint(_over(-low, scale)), 0, top)
    elements = np.clip(np.rint(_over(x, scale[..., None])) + zero[..., None], 0, top)
    return {"elements": elements, "scales": scale, "zeros": zero}


def _offset(x: Reals, fmt: Format) -> Sections:
    top = FORMATS[fmt.element].largest
    low, high = x.min(axis=-1), x.max(axis=-1)
    scale = round_to((high - low) / top, FORMATS[fmt.scale], saturate=True)
    zero = round_to(low, FORMATS[fmt.zero], saturate=True)
    elements = np.clip(np.rint(_over(x - zero[..., None], scale[..., None])), 0, top)
    return {"elements": elements, "scales": scale, "zeros": zero}


def _under_tensor_scale(x: Reals, fmt: Format) -> Sections:
    element, scale_format = FORMATS[fmt.element], FORMATS[fmt.scale]
    largest = np.abs(x).max(axis=-1)
    whole = round_to(largest.max(initial=0.0) / (element.largest * scale_format.largest),
                     FORMATS[fmt.tensor_scale])
    whole = np.where(whole > 0, whole, 1.0)
    scale = round_to(largest / element.largest / whole, scale_format, saturate=True)
    elements = round_to(_over(x, (scale * whole)[..., None]), element, saturate=True)
    return {"elements": elements, "scales": scale, "tensor_scale": whole}


def _two_levels(x: Reals, fmt: Format, size: int) -> Sections:
    largest = np.abs(x).max(axis=-1, initial=0.0)
    row_scale = round_to(largest / PROTECTIVE_RANGE, FORMATS[fmt.row_scale], saturate=True)
    first = np.rint(_over(x, row_scale[..., None]))
    groups = _split(np.clip(first, -PROTECTIVE_RANGE, PROTECTIVE_RANGE), size)
    top = FORMATS[fmt.element].largest
    low = np.minimum(groups.min(axis=-1), 0.0)
    high = np.maximum(groups.max(axis=-1), 0.0)
    scale = np.maximum(np.rint((high - low) / top), 1.0)
    zero = np.clip(np.rint(-low / scale), 0, top)
    elements = np.clip(np.rint(groups / scale[..., None]) + zero[..., None], 0, top)
    return {"elements": elements, "scales": scale, "zeros": zero, "row_scales": row_scale}
