"""The multiplier and the adder of each kind of element.

A multiplier has the ports of ``hw.pe_integer.Product``; what it gives is the adder's ``product``.
An adder has the ports of ``hw.pe_integer.IntAdd``. The element and the array know no more of a
kind than that, and what ``machine.pe.PE_KINDS`` says of it.
"""

from dataclasses import replace

from amaranth.hdl import Module, ShapeLike, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.kulisch import FixedSum, sum_layout
from hw.pe_float import FloatProduct, FloatSum, factors_product
from hw.pe_integer import IntAdd, Product
from hw.pe_mx import BlockProduct, block_product_shape
from hw.pe_serial import SerialProduct
from machine.floats import kulisch_bits
from machine.formats import format_named
from machine.systolic import SystolicConfig

__all__ = ["Apart", "adder", "multiplier"]

INNER = 3  # depth_cycles up to which the registers are the multiplier's own


class Apart(wiring.Component):
    """A multiplier with a register more in front of it and, at ``depth_cycles`` 5, one more behind.

    Wires to and from a multiplier that is a block in a place of its own take steps of their own.
    Latency is ``cfg.multiply_cycles`` steps; throughput is the multiplier's. Reset clears the
    registers.

    Parameters
    ----------
    cfg : SystolicConfig
        Of ``depth_cycles`` 4 or 5.

    Members
    -------
    en : In(1)
        Step: registers change only in a cycle with ``en``.
    start : In(1)
        A beat is at the inputs.
    act : In(act_port_bits)
        Activations.
    weight : In(weight_bits)
        Weights.
    o : Out(shape of the multiplier's)
        The product.
    """

    def __init__(self, cfg: SystolicConfig):
        self.cfg = cfg
        super().__init__({
            "en": In(1),
            "start": In(1),
            "act": In(cfg.act_port_bits),
            "weight": In(cfg.weight_bits),
            "o": Out(_product_shape(cfg)),
        })

    def elaborate(self, platform):
        m = Module()
        inner = multiplier(replace(self.cfg, pe=replace(self.cfg.pe, depth_cycles=INNER)))
        m.submodules.multiplier = inner
        m.d.comb += inner.en.eq(self.en)
        with m.If(self.en):
            m.d.sync += [getattr(inner, name).eq(getattr(self, name))
                         for name in ("start", "act", "weight")]
        if self.cfg.pe.depth_cycles - INNER == 1:
            m.d.comb += self.o.eq(inner.o)
        else:
            with m.If(self.en):
                m.d.sync += self.o.eq(inner.o)
        return m


def _product_shape(cfg: SystolicConfig) -> ShapeLike:
    """Return the shape of what the multiplier of `cfg` gives."""
    act, weight = cfg.act_format, cfg.operand_format
    if cfg.pe.fixed.integer:
        return signed(cfg.product_bits)
    if cfg.pe.kind == "mx":
        return block_product_shape(act, weight, cfg.pe.k_lanes).layout.size
    if cfg.pe.acc_format == "kulisch":
        return sum_layout(kulisch_bits(act, weight, 1)).size
    return factors_product(act, weight).layout.size


def multiplier(cfg: SystolicConfig) -> wiring.Component:
    """Return what makes the product of an element of `cfg`, ``cfg.multiply_cycles`` deep."""
    if cfg.pe.depth_cycles > INNER:
        return Apart(cfg)
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
