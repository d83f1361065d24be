"""What an array's elements compute: their products in one beat, and the order of addition.

Beats hold codes: the bits of the format as an unsigned integer, or any integer equal to it modulo
2**bits, so that a two's complement number stands for itself.
"""

from collections.abc import Callable

import numpy as np

from golden import pe_float
from golden.exact import matmul, wrap
from golden.formats import integers
from machine.formats import Format
from machine.systolic import Dataflow, SystolicConfig

__all__ = ["accumulate", "add", "operand", "tile_sums"]

Step = Callable[[np.ndarray, int], np.ndarray]


def operand(codes: np.ndarray, fmt: Format) -> np.ndarray:
    """Return the numbers, int64, that `codes` [...] of an integer-valued format stand for."""
    return integers(codes.astype(np.int64) & (2**fmt.bits - 1), fmt)


def accumulate(
    cfg: SystolicConfig,
    dataflow: Dataflow,
    beats: int,
    zero: np.ndarray,
    add_beat: Step,
    merge: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Return the sums [m, cols] of a tile of `beats`, added in the order of the elements.

    ``ws``: from `zero`, down the rows: the last beat of weights first, the first one last. ``os``:
    beat j goes to partial sum ``j % partial_sums``, each of which starts from `zero`; then the
    partial sums are merged into the first, in ascending order. ``add_beat(sums, j)`` adds the
    products of beat j, ``merge(sums, others)`` two partial sums.
    """
    if dataflow == "ws":
        sums = zero
        for beat in reversed(range(beats)):
            sums = add_beat(sums, beat)
        return sums
    partial = [zero] * cfg.pe.partial_sums
    for beat in range(beats):
        index = beat % len(partial)
        partial[index] = add_beat(partial[index], beat)
    sums = partial[0]
    for other in partial[1:]:
        sums = merge(sums, other)
    return sums


def tile_sums(
    cfg: SystolicConfig, dataflow: Dataflow, acts: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the sums of one tile, int64 [m, cols].

    `acts` [m, k, lanes] and `weights` [k, lanes, cols] are codes. Integer sums wrap, so that the
    order of addition cannot be seen; those of floats are codes of the accumulator.
    """
    if not cfg.pe.fixed.integer:
        zero = np.zeros((len(acts), weights.shape[-1]), np.int64)
        return accumulate(cfg, dataflow, acts.shape[1], zero,
                          pe_float.add_beat(cfg, acts, weights),
                          lambda sums, others: pe_float.add(cfg, sums, others))
    a = operand(acts, cfg.act_format).reshape(len(acts), -1)
    w = operand(weights, cfg.operand_format).reshape(-1, weights.shape[-1])
    return wrap(matmul(a, w), cfg.acc_bits)


def add(cfg: SystolicConfig, stored: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Return stored rows + `sums`, both int64 [m, cols], as the collector adds them."""
    if not cfg.pe.fixed.integer:
        return pe_float.add(cfg, stored, sums)
    return wrap(stored.astype(object) + sums, cfg.acc_bits)
