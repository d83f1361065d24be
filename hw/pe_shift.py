"""Elements without a multiplier: shift and add, and shift by a power of two."""

from amaranth.hdl import Mux, Value

from hw.pe_lanes import lanes, tree
from machine.systolic import SystolicConfig

__all__ = ["shift_add", "shift_by_power"]


def shift_add(cfg: SystolicConfig, act: Value, weight: Value) -> Value:
    """Return the sum of the lanes' products: the activation shifted to each set bit of the weight.

    The highest bit of a signed weight is subtracted (MixPE, arXiv 2411.16158).
    """
    products = []
    for a, w in lanes(cfg, act, weight):
        planes = [Mux(w[bit], a << bit, 0) for bit in range(cfg.w_bits)]
        if cfg.operand_format.signed:
            planes[-1] = -planes[-1]
        products.append(tree(planes))
    return tree(products)


def shift_by_power(cfg: SystolicConfig, act: Value, weight: Value) -> Value:
    """Return the sum of the lanes' products by +-2^p, p below the weight's highest bit, its sign.

    No weight is zero (DenseShift, arXiv 2208.09708).
    """
    products = []
    for a, w in lanes(cfg, act, weight):
        shifted = a << w[:-1]
        products.append(Mux(w[-1], -shifted, shifted))
    return tree(products)
