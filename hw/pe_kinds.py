"""The multiplier and the adder of each kind of element.

A multiplier has the ports of ``hw.pe_integer.Product``; what it gives is the adder's ``product``.
An adder has the ports of ``hw.pe_integer.IntAdd``. The element and the array know no more of a
kind than that, and what ``machine.pe.PE_KINDS`` says of it.
"""

from amaranth.lib import wiring

from hw.kulisch import FixedSum
from hw.pe_float import FloatProduct, FloatSum, factors_product
from hw.pe_integer import IntAdd, Product
from hw.pe_mx import BlockProduct, block_product_shape
from hw.pe_serial import SerialProduct
from machine.formats import format_named
from machine.systolic import SystolicConfig

__all__ = ["adder", "multiplier"]


def multiplier(cfg: SystolicConfig) -> wiring.Component:
    """Return what makes the product of an element of `cfg`, ``cfg.multiply_cycles`` deep."""
    act, weight, registers = cfg.act_format, cfg.operand_format, cfg.multiply_cycles
    match cfg.pe.kind:
        case "float_mac":
            return FloatProduct(act, weight, registers, exact=cfg.pe.acc_format == "kulisch")
        case "float_shift_add":
            return FloatProduct(act, weight, registers, shift_add=True)
        case "mx":
            return BlockProduct(act, weight, cfg.pe.k_lanes, registers)
    return SerialProduct(cfg) if cfg.pe.fixed.serial else Product(cfg)


def adder(cfg: SystolicConfig, cycles: int) -> wiring.Component:
    """Return an adder of the sums of `cfg` whose result is there ``cycles - 1`` steps later."""
    act, weight = cfg.act_format, cfg.operand_format
    if cfg.pe.fixed.integer:
        return IntAdd(cfg, cycles)
    if cfg.pe.acc_format == "kulisch":
        return FixedSum(act, weight, cfg.acc_bits, cycles)
    if cfg.pe.kind == "mx":
        shape = block_product_shape(act, weight, cfg.pe.k_lanes)
    else:
        shape = factors_product(act, weight)
    return FloatSum(shape, format_named(cfg.pe.acc_format), cycles)
