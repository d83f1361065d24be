"""What float elements compute: one beat's products, exact, added to a sum with one rounding.

Sums are codes of the accumulator as int64, the highest bit a sign as in ``golden.pe``. An exact
(Kulisch) sum is a fixed-point number in units of the smallest product, and above it three marks:
a NaN, +infinity, -infinity was added.
"""

from collections.abc import Callable

import numpy as np

from golden.exact import add_scaled, wrap
from golden.formats import decode, encode
from golden.matmul import accumulate_float
from machine.floats import KULISCH_MARKS
from machine.formats import FORMATS, Format, format_named
from machine.systolic import SystolicConfig

__all__ = ["add", "add_beat", "kulisch_value"]

Adder = Callable[[np.ndarray, int], np.ndarray]
MARKS = len(KULISCH_MARKS)


def add(cfg: SystolicConfig, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the sum of two sums [...], rounded once to the accumulator's format."""
    if cfg.pe.acc_format == "kulisch":
        return _add_exact(cfg, x, y)
    fmt = format_named(cfg.pe.acc_format)
    with np.errstate(over="ignore", invalid="ignore"):
        return _codes(cfg, _held(x, fmt) + _held(y, fmt))


def add_beat(cfg: SystolicConfig, acts: np.ndarray, weights: np.ndarray) -> Adder:
    """Return the function of sums [m, cols] and j that adds the products of beat j.

    `acts` [m, k, lanes] and `weights` [k, lanes, cols] are codes; of OCP MX blocks the last of the
    lanes is the scale's.
    """
    if cfg.pe.acc_format == "kulisch":
        return lambda sums, j: _add_exact(cfg, sums, _products(cfg, acts[:, j], weights[j]))
    fmt = format_named(cfg.pe.acc_format)
    if cfg.pe.kind == "mx":
        return lambda sums, j: _codes(cfg, _add_block(cfg, _held(sums, fmt), acts[:, j],
                                                      weights[j]))
    a, w = decode(acts, cfg.act_format), decode(weights, cfg.operand_format)
    return lambda sums, j: _codes(cfg, accumulate_float(
        _held(sums, fmt), a[:, j], w[j], cfg.act_format, cfg.operand_format))


def kulisch_value(cfg: SystolicConfig, sums: np.ndarray) -> np.ndarray:
    """Return what exact `sums` [...] of at most 53 bits stand for, float64."""
    fixed, marks = _fixed(cfg, sums)
    step = cfg.act_format.smallest * cfg.operand_format.smallest
    nan, above, below = (marks >> bit & 1 == 1 for bit in range(MARKS))
    ends = np.where(above, np.inf, np.where(below, -np.inf, fixed.astype(np.float64) * step))
    return np.where(nan | (above & below), np.nan, ends)


def _held(sums: np.ndarray, fmt: Format) -> np.ndarray:
    """Return the numbers of codes, in numpy's type of the format, float32 or float16."""
    with np.errstate(over="ignore"):
        return decode(sums & (2**fmt.bits - 1), fmt).astype(fmt.name)


def _codes(cfg: SystolicConfig, values: np.ndarray) -> np.ndarray:
    codes = encode(values, format_named(cfg.pe.acc_format))
    return wrap(codes.astype(np.int64), cfg.acc_bits)


def _fixed(cfg: SystolicConfig, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    bits = cfg.acc_bits - MARKS
    return wrap(sums, bits), sums >> bits & (2**MARKS - 1)


def _add_exact(cfg: SystolicConfig, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    bits = cfg.acc_bits - MARKS
    (x_fixed, x_marks), (y_fixed, y_marks) = _fixed(cfg, x), _fixed(cfg, y)
    low = wrap(x_fixed.astype(object) + y_fixed, bits) & (2**bits - 1)
    return wrap(low | (x_marks | y_marks) << bits, cfg.acc_bits)


def _products(cfg: SystolicConfig, a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return the exact product of codes `a` [m, 1] and `w` [1, cols] as a sum."""
    bits = cfg.acc_bits - MARKS
    x, y = decode(a, cfg.act_format), decode(w, cfg.operand_format)
    with np.errstate(invalid="ignore"):
        product = x * y  # exact: formats of at most 11 significant bits
    units = np.where(np.isfinite(product), product, 0.0)
    units = units / cfg.act_format.smallest / cfg.operand_format.smallest
    whole = np.frompyfunc(int, 1, 1)(units)
    marks = (np.isnan(product) | np.isposinf(product) * 2 | np.isneginf(product) * 4)
    return wrap((whole & (2**bits - 1)).astype(np.int64) | marks.astype(np.int64) << bits,
                cfg.acc_bits)


def _add_block(cfg: SystolicConfig, total: np.ndarray, a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return float32 `total` [m, cols] + the dot products of blocks `a` [m, lanes + 1] and `w`."""
    values, units, scales = [], [], []
    for codes, fmt in ((a, cfg.act_format), (w.T, cfg.operand_format)):
        element = FORMATS[fmt.element]
        values.append(decode(codes[:, :-1] & (2**element.bits - 1), element))
        units.append(element.smallest * 2.0**-fmt.fraction_bits)
        scales.append(decode(codes[:, -1], FORMATS[fmt.scale]))
    x, y = values[0][:, None, :], values[1][None, :, :]
    with np.errstate(invalid="ignore"):
        products = x * y
        special = np.where(np.isfinite(products), 0.0, products).sum(axis=-1)
        special = special + np.where(np.isnan(scales[0][:, None] * scales[1]), np.nan, 0.0)
    finite = np.where(np.isfinite(products), products, 0.0)
    steps = [FORMATS[fmt.element].smallest for fmt in (cfg.act_format, cfg.operand_format)]
    units_of = np.frompyfunc(int, 1, 1)(finite / (steps[0] * steps[1]))
    whole = np.add.reduce(units_of, axis=-1)
    powers = [np.frexp(np.where(np.isnan(scale), 1.0, scale))[1] - 1 for scale in scales]
    unit = np.frexp(units[0] * units[1])[1] - 1
    exponent = powers[0][:, None] + powers[1] + unit
    kept = np.where(np.isfinite(total), total, np.float32(0))
    added = add_scaled(kept, whole, exponent)
    with np.errstate(invalid="ignore"):  # infinities of both signs make NaN
        other = total + special
    return np.where(np.isfinite(total) & (special == 0), added, other).astype(np.float32)
