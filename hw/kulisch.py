"""Exact sums of products of floats: a fixed-point number in units of the smallest product.

A sum is a word of `KULISCH_MARKS` above a two's complement number. Nothing is rounded until the
sum is read, so the order of addition cannot be seen.
"""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.chain import Chain
from hw.float_multiply import Product
from hw.floats import Count, Decode, Encode, NumberShape, Shift
from hw.shifters import LeftShifter
from machine.floats import KULISCH_MARKS, kulisch_bits
from machine.formats import Format

__all__ = ["FixedProduct", "FixedSum", "FixedToNumber", "fixed_shape", "rounding_chain",
           "sum_layout"]

MARKS = len(KULISCH_MARKS)


def sum_layout(bits: int) -> data.StructLayout:
    """Return the fields of an exact sum of `bits`, without its marks."""
    return data.StructLayout({"fixed": signed(bits), **{mark: 1 for mark in KULISCH_MARKS}})


def fixed_shape(bits: int, low: int) -> NumberShape:
    """Return the shape of an exact sum of `bits` in units of ``2**low``."""
    return NumberShape(bits=bits, low=low, high=low, leading=bits - 1)


class FixedProduct(wiring.Component):
    """The exact product of two floats in units of the smallest one. No registers.

    Parameters
    ----------
    act, weight : Format
        The factors, floats.

    Members
    -------
    i : In(StructLayout)
        Codes ``a`` and ``b``.
    o : Out(StructLayout)
        Their product, of `sum_layout`.
    """

    def __init__(self, act: Format, weight: Format):
        self.act = act
        self.weight = weight
        super().__init__({
            "i": In(data.StructLayout({"a": act.bits, "b": weight.bits})),
            "o": Out(sum_layout(kulisch_bits(act, weight, 1))),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.a = a = Decode(self.act)
        m.submodules.b = b = Decode(self.weight)
        m.submodules.product = product = Product(a.shape, b.shape)
        number, shape = product.o, product.shape
        m.d.comb += [a.i.eq(self.i.a), b.i.eq(self.i.b), product.i.a.eq(a.o), product.i.b.eq(b.o)]

        # An exponent of 0 is the unit.
        width = len(self.o.fixed)
        m.submodules.shift = shift = LeftShifter(width, shape.high - shape.low)
        size = Signal(width)
        m.d.comb += [
            shift.i.eq(number.significand),
            shift.amount.eq(number.exponent - shape.low),
            size.eq(Mux(number.nan | number.infinite, 0, shift.o)),
            self.o.fixed.eq(Mux(number.negative, -size, size)),
            self.o.nan.eq(number.nan),
            self.o.above.eq(number.infinite & ~number.negative & ~number.nan),
            self.o.below.eq(number.infinite & number.negative & ~number.nan),
        ]
        return m


class FixedSum(wiring.Component):
    """Adder of exact sums, which wrap.

    Latency is ``cycles - 1`` steps, in registers behind the adder; throughput is one sum a step.
    Reset clears the registers.

    Parameters
    ----------
    act, weight : Format
        Formats of the factors.
    width : int
        Bits of a sum, `KULISCH_MARKS` included.
    cycles : int
        Steps of the adder, the register that takes its result included.

    Members
    -------
    en : In(1)
        Step: registers change only in a cycle with ``en``.
    product : In(kulisch_bits + marks)
        What is added.
    merge : In(1)
        Add ``other`` in its place.
    other : In(width)
        Another sum.
    addend : In(width)
        What it is added to.
    o : Out(width)
        The sum of the two.
    """

    def __init__(self, act: Format, weight: Format, width: int, cycles: int):
        self.product_layout = sum_layout(kulisch_bits(act, weight, 1))
        self.layout = sum_layout(width - MARKS)
        self.cycles = cycles
        super().__init__({
            "en": In(1),
            "product": In(self.product_layout.size),
            "merge": In(1),
            "other": In(width),
            "addend": In(width),
            "o": Out(width),
        })

    def elaborate(self, platform):
        m = Module()
        product = data.View(self.product_layout, self.product)
        other, addend = (data.View(self.layout, port) for port in (self.other, self.addend))
        total = Signal(self.layout)
        m.d.comb += total.fixed.eq(addend.fixed + Mux(self.merge, other.fixed, product.fixed))
        for mark in KULISCH_MARKS:
            m.d.comb += total[mark].eq(addend[mark] | Mux(self.merge, other[mark], product[mark]))
        result = total.as_value()
        for i in range(self.cycles - 1):
            later = Signal(len(self.o), name=f"total_{i}")
            with m.If(self.en):
                m.d.sync += later.eq(result)
            result = later
        m.d.comb += self.o.eq(result)
        return m


def rounding_chain(act: Format, weight: Format, width: int, fmt: Format,
                   registers: tuple[int, ...] = ()) -> Chain:
    """Return the four stages that round an exact sum of `width` bits, marks included, to `fmt`."""
    unit = sum(f.smallest_exponent - f.mantissa_bits for f in (act, weight))
    number = FixedToNumber(width, unit)
    shape = number.shape
    return Chain([number, Count(shape, fmt), Shift(shape, fmt), Encode(shape, fmt)], registers)


class FixedToNumber(wiring.Component):
    """Exact sum to number, in front of the stages that round it. No registers.

    Parameters
    ----------
    width : int
        Bits of the sum, `KULISCH_MARKS` included.
    low : int
        Exponent of its unit: that of the smallest product.

    Members
    -------
    i : In(StructLayout)
        Sum of `sum_layout`.
    o : Out(StructLayout)
        Number of `fixed_shape`; 0 is +0, and infinities of both signs are NaN.
    """

    def __init__(self, width: int, low: int):
        self.shape = fixed_shape(width - MARKS, low)
        super().__init__({"i": In(sum_layout(width - MARKS)), "o": Out(self.shape.layout)})

    def elaborate(self, platform):
        m = Module()
        fixed, marks = self.i.fixed, self.i
        infinite = marks.above | marks.below
        below = fixed[-1]
        m.d.comb += [
            self.o.nan.eq(marks.nan | (marks.above & marks.below)),
            self.o.infinite.eq(infinite),
            self.o.negative.eq(Mux(infinite, marks.below, below)),
            self.o.exponent.eq(self.shape.low),
            self.o.significand.eq(Mux(below, -fixed, fixed)),
        ]
        return m
