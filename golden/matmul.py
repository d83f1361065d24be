"""What MATMUL computes: integer, float, grouped and table products, added to an accumulator.

Shapes are [..., M, K] by [..., K, N]; leading axes are a batch and broadcast.
"""

import numpy as np

from golden.exact import matmul, wrap
from machine.errors import UserError
from machine.formats import FORMATS, Format, Kind

__all__ = ["accumulate_float", "accumulate_groups", "accumulate_integers", "check_operands"]

_EXACT_BITS = 24  # significant bits of a float32


def check_operands(a: np.ndarray, w: np.ndarray, acc_shape: tuple[int, ...]) -> None:
    """Raise `UserError` unless `a` @ `w` has shape `acc_shape`."""
    try:
        batch = np.broadcast_shapes(a.shape[:-2], w.shape[:-2])
    except ValueError:
        batch = (-1,)
    result = (*batch, a.shape[-2] if a.ndim > 1 else -1, w.shape[-1])
    if a.ndim < 2 or w.ndim < 2 or a.shape[-1] != w.shape[-2] or result != tuple(acc_shape):
        raise UserError(f"a {list(a.shape)} by w {list(w.shape)} must give acc, "
                        f"which is {list(acc_shape)}")


def accumulate_integers(acc: np.ndarray, product: np.ndarray, bits: int) -> np.ndarray:
    """Return integers `acc` + `product` [..., M, N] in `bits`-bit two's complement."""
    return wrap(acc.astype(np.int64) + wrap(product, bits), bits)


def accumulate_float(
    acc: np.ndarray, a: np.ndarray, w: np.ndarray, a_format: Format, w_format: Format
) -> np.ndarray:
    """Return `acc` + `a` @ `w` in the type of `acc`, float32 or float16.

    Products are exact; they are added in ascending k, each addition rounded once.
    """
    kind = acc.dtype
    narrow = _significant(a_format) + _significant(w_format) <= _EXACT_BITS and kind == np.float32
    # A product that float32 holds is added there, with the one rounding that is wanted. Another of
    # at most 24 bits is added in float64: with its 2 * 24 + 2 bits or more, rounding the sum again
    # equals rounding once (S. Figueroa, "When is double rounding innocuous?", 1995).
    work = np.dtype("f4" if narrow and _in_range(a_format, w_format) else "f8")
    x, y, total = a.astype(work), w.astype(work), acc.astype(work)
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(a.shape[-1]):
            product = x[..., :, k, None] * y[..., None, k, :]
            added = total + product if narrow else _add_to_odd(total, product)
            total = added.astype(kind, copy=False).astype(work, copy=False)
    return total.astype(kind, copy=False)


def accumulate_groups(
    acc: np.ndarray,
    a: np.ndarray,
    w: np.ndarray,
    size: int,
    scales: np.ndarray,
    zeros: np.ndarray | None,
    sums: np.ndarray | None,
) -> np.ndarray:
    """Return float32 `acc` after every group of `size` elements of K was added to it in turn.

    A group g adds fp32(sum q_w q_a - z_g sum q_a) * s_g: the integer part is exact and rounded
    once, the product is rounded once, the addition is rounded once. `a` and `w` are integers,
    `scales` and `zeros` [..., groups, N], `sums` [..., M, groups] the activation sums if they
    were computed before.
    """
    depth = a.shape[-1]
    total = acc.astype(np.float32)
    for group in range(-(-depth // size)):
        part = slice(group * size, min((group + 1) * size, depth))
        whole = matmul(a[..., part], w[..., part, :])
        if zeros is not None:
            added = a[..., part].astype(np.int64).sum(axis=-1) if sums is None else (
                sums[..., group].astype(np.int64))
            whole = whole - added[..., :, None] * zeros[..., None, group, :].astype(np.int64)
        scale = scales[..., None, group, :].astype(np.float32)
        total = total + whole.astype(np.float32) * scale
    return total


def _significant(fmt: Format) -> int:
    """Return the significant bits of any value of `fmt`; those of a block, with its scale."""
    if fmt.kind is Kind.BLOCK:
        return _significant(FORMATS[fmt.element]) + _significant(FORMATS[fmt.scale])
    if fmt.kind is Kind.POWER:
        return 0
    return fmt.mantissa_bits + 1 if fmt.kind is Kind.FLOAT else fmt.bits


def _in_range(a_format: Format, w_format: Format) -> bool:
    """Return whether float32 has the exponents of all products of two formats."""
    if Kind.BLOCK in (a_format.kind, w_format.kind):
        return False
    return (a_format.largest * w_format.largest < 2.0**127
            and a_format.smallest * w_format.smallest >= 2.0**-126)


def _add_to_odd(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return x + y, float64, an inexact sum rounded to the neighbour with an odd last bit.

    Rounded once more to at most 51 bits, it equals the exact sum rounded once (S. Boldo and
    G. Melquiond, "Emulation of FMA and correctly rounded sums", 2008). The error of the sum is
    D. Knuth's TwoSum.
    """
    near = x + y
    back = near - x
    error = (x - (near - back)) + (y - back)
    bits = near.view(np.int64)
    fix = np.isfinite(near) & (error != 0) & (bits & 1 == 0)
    away = (error > 0) == (near > 0)
    return np.where(fix, bits + np.where(away, 1, -1), bits).view(np.float64)
