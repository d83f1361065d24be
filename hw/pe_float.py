"""Float elements: the exact product of two floats, or of a float and an integer, and the adder.

The adder rounds once, to the accumulator's format. Exact (Kulisch) sums are in ``hw.kulisch``.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.chain import Chain, Each, Wire
from hw.float_add import Align, Sum, sum_shape
from hw.float_multiply import Product, product_shape
from hw.floats import Count, Decode, Encode, NumberShape, Shift, decoded_shape
from hw.kulisch import FixedProduct, sum_layout
from machine.floats import kulisch_bits, registers_after
from machine.formats import Format

__all__ = ["FloatProduct", "FloatSum", "factors_product"]


def factors_product(act: Format, weight: Format) -> NumberShape:
    """Return the shape of the product of an `act` and a `weight`."""
    a, b = (decoded_shape(fmt, normalised=True) for fmt in (act, weight))
    return product_shape(a, b)


class FloatProduct(wiring.Component):
    """The product of an activation and a weight, not rounded.

    Latency is `registers` steps: the first register is behind the product, the second in front of
    it. Throughput is one product a step. Reset clears the registers.

    Parameters
    ----------
    act, weight : Format
        A float; a float or an integer.
    registers : int
        0, 1 or 2.
    exact : bool
        Whether the product is fixed-point, of ``hw.kulisch``, and not a number.
    shift_add : bool
        Whether it is made without a multiplier, the activation added up at the weight's bits.

    Members
    -------
    en : In(1)
        Step: registers change only in a cycle with ``en``.
    start : In(1)
        A beat is at the inputs; not used.
    act : In(bits + 1)
        Code of the activation; above it, whether it counts.
    weight : In(bits)
        Code of the weight.
    o : Out(bits)
        The product; +0 for an activation that does not count.
    """

    def __init__(self, act: Format, weight: Format, registers: int, exact: bool = False,
                 shift_add: bool = False):
        self.formats = act, weight
        self.registers = registers
        self.exact = exact
        self.shift_add = shift_add
        made = (sum_layout(kulisch_bits(act, weight, 1)) if exact
                else factors_product(act, weight).layout)
        super().__init__({
            "en": In(1),
            "start": In(1),
            "act": In(act.bits + 1),
            "weight": In(weight.bits),
            "o": Out(made.size),
        })

    def elaborate(self, platform):
        m = Module()
        act, weight = self.formats
        stages: list[wiring.Component]
        if self.exact:
            codes = data.StructLayout({"a": act.bits, "b": weight.bits})
            stages = [Wire(codes), FixedProduct(act, weight)]
        else:
            a, b = Decode(act, True), Decode(weight, True)
            stages = [Each({"a": a, "b": b}), Product(a.shape, b.shape, self.shift_add)]
        m.submodules.chain = chain = Chain(stages, ((), (1,), (0, 1))[self.registers])
        counts = self.act[-1]
        m.d.comb += [
            chain.en.eq(self.en),
            Value.cast(chain.i).eq(Mux(counts, Cat(self.act[:-1], self.weight), 0)),
            self.o.eq(chain.o),
        ]
        return m


class FloatSum(wiring.Component):
    """Adder of float sums, rounded once: a product, or another sum, to a sum.

    Latency is ``cycles - 1`` steps, in registers spread over its stages; throughput is one sum a
    step. Reset clears the registers.

    Parameters
    ----------
    shape : NumberShape
        The product.
    acc : Format
        Format of a sum.
    cycles : int
        Steps of the adder, the register that takes its result included.

    Members
    -------
    en : In(1)
        Step: registers change only in a cycle with ``en``.
    product : In(bits)
        Number that is added.
    merge : In(1)
        Add ``other`` in its place.
    other : In(bits)
        Code of another sum.
    addend : In(bits)
        Code of what it is added to.
    o : Out(bits)
        Code of the sum of the two.
    """

    def __init__(self, shape: NumberShape, acc: Format, cycles: int):
        self.shape = shape
        self.acc = acc
        self.cycles = cycles
        super().__init__({
            "en": In(1),
            "product": In(self.shape.layout.size),
            "merge": In(1),
            "other": In(acc.bits),
            "addend": In(acc.bits),
            "o": Out(acc.bits),
        })

    def elaborate(self, platform):
        m = Module()
        product = data.View(self.shape.layout, self.product)
        m.submodules.other = other = Decode(self.acc, True)
        m.submodules.addend = addend = Decode(self.acc)
        m.d.comb += [other.i.eq(self.other), addend.i.eq(self.addend)]

        # What is added: a number that holds either, the top bits of both in one place.
        wide = _either(self.shape, other.shape)
        added = Signal(wide.layout)
        with m.If(self.merge):
            m.d.comb += _placed(added, wide, other.o, other.shape)
        with m.Else():
            m.d.comb += _placed(added, wide, product, self.shape)

        # Add and round.
        x, y, acc = wide, addend.shape, self.acc
        total = sum_shape(x, y, acc)
        stages = [Align(x, y, acc), Sum(x, y, acc), Count(total, acc), Shift(total, acc),
                  Encode(total, acc)]
        stages += [Wire(acc.bits) for _ in range(self.cycles - len(stages))]
        m.submodules.chain = chain = Chain(stages, registers_after(len(stages), self.cycles - 1))
        m.d.comb += [chain.en.eq(self.en), chain.i.x.eq(added), chain.i.y.eq(addend.o),
                     self.o.eq(chain.o)]
        return m


def _either(a: NumberShape, b: NumberShape) -> NumberShape:
    """Return the shape of numbers of either of two shapes, their top bits in one place."""
    bits = max(a.bits, b.bits)
    return NumberShape(
        bits=bits, low=min(a.low + a.bits, b.low + b.bits) - bits,
        high=max(a.high + a.bits, b.high + b.bits) - bits, leading=max(a.zeros, b.zeros))


def _placed(target, wide, number, shape):
    """Return the assignments of a `number` of `shape` to a `target` of the shape `wide`."""
    lift = wide.bits - shape.bits
    return [target.nan.eq(number.nan), target.infinite.eq(number.infinite),
            target.negative.eq(number.negative), target.exponent.eq(number.exponent - lift),
            target.significand.eq(number.significand << lift)]
