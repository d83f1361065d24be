"""How a model's matrices become the arrays' weights, offline: quantised, padded, cut into tiles."""

import numpy as np

from golden.lut import remap
from golden.vector import quantise_rows
from machine.formats import Format

__all__ = [
    "interleave", "pad_columns", "plane_tiles", "quantise_columns", "quantise_planes", "tiles",
]


def quantise_columns(w: np.ndarray, fmt: Format) -> tuple[np.ndarray, np.ndarray]:
    """Return codes [..., K, N] and FP32 scales [..., N] of `w` float [..., K, N].

    Each column has one symmetric scale: its largest magnitude over the format's largest code.
    """
    codes, scales = quantise_rows(np.swapaxes(w, -1, -2), fmt)
    return np.swapaxes(codes, -1, -2), scales


def quantise_planes(w: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return codes q [..., K, N] of `bits` bits and FP32 scales [..., N] of `w` float [..., K, N].

    A code stands for 2 q - (2**bits - 1), an odd number times its column's scale: the largest
    magnitude over 2**bits - 1, or 1 for a column of zeros. What lies between two codes goes to the
    nearer, in the middle to the upper.
    """
    most = 2**bits - 1
    scales = (np.abs(w).max(axis=-2) / most).astype(np.float32)
    scales = np.where(scales > 0, scales, np.float32(1))
    q = np.floor((w / scales[..., None, :].astype(np.float64) + most + 1) / 2)
    return q.clip(0, most).astype(np.int64), scales


def plane_tiles(q: np.ndarray, bits: int, k: int, n: int) -> np.ndarray:
    """Return codes `q` [..., K, N] as table codes [..., N blocks, K blocks, bits, n, k / 4].

    Padding is of code 0.
    """
    cut = tiles(q, k, n)
    flat = np.swapaxes(cut, -1, -2).reshape(-1, k)
    codes = remap(flat, bits).reshape(bits, *cut.shape[:-2], n, k // 4)
    return np.moveaxis(codes, 0, -3)


def interleave(w: np.ndarray, half: int) -> np.ndarray:
    """Return `w` [..., 2 N] with `half` columns of the first N, `half` of the second, in turn.

    N is padded with zeros to a multiple of `half`.
    """
    first, second = np.split(w, 2, axis=-1)
    blocks = [pad_columns(part, half).reshape(*w.shape[:-1], -1, half) for part in (first, second)]
    return np.stack(blocks, axis=-2).reshape(*w.shape[:-1], -1)


def pad_columns(w: np.ndarray, multiple: int) -> np.ndarray:
    """Return `w` [..., N] with zeros behind, up to a multiple of `multiple`."""
    return np.pad(w, [(0, 0)] * (w.ndim - 1) + [(0, -w.shape[-1] % multiple)])


def tiles(w: np.ndarray, k: int, n: int) -> np.ndarray:
    """Return `w` [..., K, N] as [..., N blocks, K blocks, k, n], padded with zeros."""
    pads = [(0, 0)] * (w.ndim - 2) + [(0, -w.shape[-2] % k), (0, -w.shape[-1] % n)]
    w = np.pad(w, pads)
    *lead, high, wide = w.shape
    cut = w.reshape(*lead, high // k, k, wide // n, n)
    return np.moveaxis(cut, -2, -4)
