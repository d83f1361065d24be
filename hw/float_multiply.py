"""The exact product of two numbers."""

from amaranth.hdl import Const, Module, Mux
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.floats import NumberShape

__all__ = ["Product", "product_shape"]


def product_shape(a: NumberShape, b: NumberShape) -> NumberShape:
    """Return the shape of the product of numbers of shapes `a` and `b`."""
    return NumberShape(bits=a.bits + b.bits, low=a.low + b.low, high=a.high + b.high,
                       leading=a.zeros + b.zeros + 1)


class Product(wiring.Component):
    """Multiplies two numbers; nothing is rounded. No registers.

    Parameters
    ----------
    a, b : NumberShape
        The factors.
    shift_add : bool
        Whether ``a`` is added up, shifted to the bits of ``b``, without a multiplier.

    Members
    -------
    i : In(StructLayout)
        Numbers ``a`` and ``b``.
    o : Out(StructLayout)
        Their product, of `product_shape`.
    """

    def __init__(self, a: NumberShape, b: NumberShape, shift_add: bool = False):
        self.shift_add = shift_add
        self.shape = product_shape(a, b)
        super().__init__({
            "i": In(data.StructLayout({"a": a.layout, "b": b.layout})),
            "o": Out(self.shape.layout),
        })

    def elaborate(self, platform):
        m = Module()
        a, b = self.i.a, self.i.b
        product = a.significand * b.significand
        if self.shift_add:
            product = sum((Mux(bit, a.significand << place, 0)
                           for place, bit in enumerate(b.significand)), Const(0))
        m.d.comb += [
            self.o.negative.eq(a.negative ^ b.negative),
            self.o.exponent.eq(a.exponent + b.exponent),
            self.o.significand.eq(product),
        ]

        # Infinity by 0 is NaN. The significand of an infinity means nothing, nor its zero.
        a_zero = ~a.infinite & ~a.significand.any()
        b_zero = ~b.infinite & ~b.significand.any()
        m.d.comb += [
            self.o.nan.eq(a.nan | b.nan | (a.infinite & b_zero) | (b.infinite & a_zero)),
            self.o.infinite.eq(a.infinite | b.infinite),
        ]
        return m
