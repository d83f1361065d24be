"""Elements of single bits: ternary weights, and bipolar numbers by XNOR and population count."""

from amaranth.hdl import Mux, Value

from hw.pe_lanes import lanes, tree
from machine.systolic import SystolicConfig

__all__ = ["bipolar", "ternary"]


def ternary(cfg: SystolicConfig, act: Value, weight: Value) -> Value:
    """Return the sum of the lanes' activations, each added, subtracted or left out.

    Bit 0 of a weight says that it is not zero, bit 1 that it is negative; 0b10 counts as zero.
    """
    return tree([Mux(w[0], Mux(w[1], -a, a), 0) for a, w in lanes(cfg, act, weight)])


def bipolar(cfg: SystolicConfig, act: Value, weight: Value) -> Value:
    """Return the sum of the lanes' products of bipolar numbers, whose bits weigh +-2^i.

    Planes i and j contribute 2^(i + j) times their equal bits less their unequal ones: twice the
    equal bits less the lanes (arXiv 2409.17870). What is subtracted is one constant.
    """
    count = cfg.pe.k_lanes
    planes = []
    for i in range(cfg.w_bits):
        for j in range(cfg.a_bits):
            equal = [~(weight[lane * cfg.w_bits + i] ^ act[lane * cfg.a_bits + j])
                     for lane in range(count)]
            planes.append(tree(equal) << i + j)
    return (tree(planes) << 1) - count * (2**cfg.w_bits - 1) * (2**cfg.a_bits - 1)
