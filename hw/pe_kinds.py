"""The multiplier and the adder of each kind of element.

A multiplier has the ports of ``hw.pe_integer.Product``; what it gives is the adder's ``product``.
An adder has the ports of ``hw.pe_integer.IntAdd``. The element and the array know no more of a
kind than that, and what ``machine.pe.PE_KINDS`` says of it.
"""

from amaranth.lib import wiring

from hw.pe_integer import IntAdd, Product
from hw.pe_serial import SerialProduct
from machine.systolic import SystolicConfig

__all__ = ["adder", "multiplier"]


def multiplier(cfg: SystolicConfig) -> wiring.Component:
    """Return what makes the product of an element of `cfg`, ``cfg.multiply_cycles`` deep."""
    return SerialProduct(cfg) if cfg.pe.fixed.serial else Product(cfg)


def adder(cfg: SystolicConfig, cycles: int) -> wiring.Component:
    """Return an adder of the sums of `cfg` whose result is there ``cycles - 1`` steps later."""
    return IntAdd(cfg, cycles)
