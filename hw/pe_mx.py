"""The dot product of two blocks of OCP MX: exact, with the two scales in its exponent."""

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.chain import Chain
from hw.floats import NumberShape
from hw.kulisch import FixedProduct
from hw.pe_lanes import tree
from hw.shifters import LeadingZeros, LeftShifter
from machine.floats import kulisch_bits
from machine.formats import FORMATS, Format

__all__ = ["BlockNumber", "BlockProduct", "BlockSum", "block_product_shape"]


def _element(fmt: Format) -> Format:
    return FORMATS[fmt.element]


def _sum_bits(act: Format, weight: Format, lanes: int) -> int:
    """Bits of the exact sum of `lanes` products of elements, sign included."""
    a, w = _element(act), _element(weight)
    if a.is_float:
        return kulisch_bits(a, w, lanes)
    return (lanes * 2 ** (a.bits + w.bits - 2)).bit_length() + 1


def _unit(fmt: Format) -> int:
    """Exponent of the smallest element under a scale of 1."""
    element = _element(fmt)
    if not element.is_float:
        return -fmt.fraction_bits
    return element.smallest_exponent - element.mantissa_bits


def block_product_shape(act: Format, weight: Format, lanes: int) -> NumberShape:
    """Return the shape of the dot product of two blocks of `lanes` elements."""
    bits, unit = _sum_bits(act, weight, lanes) - 1, _unit(act) + _unit(weight)
    scales = FORMATS[act.scale].bias + FORMATS[weight.scale].bias
    return NumberShape(bits=bits, low=unit - scales - bits + 1, high=unit + scales, leading=0)


def _summed(act: Format, weight: Format, lanes: int) -> data.StructLayout:
    """The exact sum of the products, its marks, and the sum of the biased scales."""
    return data.StructLayout({
        "nan": 1, "above": 1, "below": 1, "scale": 9, "sum": signed(_sum_bits(act, weight, lanes)),
    })


class BlockSum(wiring.Component):
    """First of two stages of a dot product: multiplies all lanes and adds them. No registers.

    Parameters
    ----------
    act_block, weight_block : Format
        OCP MX formats, both of floats or both of integers.
    lanes : int
        Elements.

    Members
    -------
    i : In(StructLayout)
        Blocks ``a`` and ``b``: element l at bit ``l * bits``, the scale above them.
    o : Out(StructLayout)
        The sum in units of the smallest product, for `BlockNumber`.
    """

    def __init__(self, act_block: Format, weight_block: Format, lanes: int):
        act, weight = self.act, self.weight = act_block, weight_block
        self.lanes = lanes
        super().__init__({
            "i": In(data.StructLayout({
                "a": lanes * act.bits + FORMATS[act.scale].bits,
                "b": lanes * weight.bits + FORMATS[weight.scale].bits,
            })),
            "o": Out(_summed(act, weight, lanes)),
        })

    def elaborate(self, platform):
        m = Module()
        act, weight, lanes = self.act, self.weight, self.lanes
        scales = self.i.a[lanes * act.bits :], self.i.b[lanes * weight.bits :]
        products, nan, above, below = [], scales[0].all() | scales[1].all(), 0, 0
        for lane in range(lanes):
            a = self.i.a.word_select(lane, act.bits)
            b = self.i.b.word_select(lane, weight.bits)
            if not _element(act).is_float:
                products.append(a.as_signed() * b.as_signed())
                continue
            product = FixedProduct(_element(act), _element(weight))
            m.submodules[f"product_{lane}"] = product
            m.d.comb += [product.i.a.eq(a), product.i.b.eq(b)]
            products.append(product.o.fixed)
            nan, above = nan | product.o.nan, above | product.o.above
            below = below | product.o.below
        m.d.comb += [
            self.o.sum.eq(tree(products)),
            self.o.scale.eq(scales[0] + scales[1]),
            self.o.nan.eq(nan),
            self.o.above.eq(above),
            self.o.below.eq(below),
        ]
        return m


class BlockNumber(wiring.Component):
    """Second of two stages of a dot product: shifts the sum up to its leading one. No registers.

    Parameters
    ----------
    act_block, weight_block : Format
        OCP MX formats.
    lanes : int
        Elements.

    Members
    -------
    i : In(StructLayout)
        What `BlockSum` says.
    o : Out(StructLayout)
        The dot product, of `block_product_shape`; NaN if a scale is, or if infinities of both
        signs are in the blocks' products.
    """

    def __init__(self, act_block: Format, weight_block: Format, lanes: int):
        act, weight = act_block, weight_block
        self.shape = block_product_shape(act, weight, lanes)
        super().__init__({
            "i": In(_summed(act, weight, lanes)),
            "o": Out(self.shape.layout),
        })

    def elaborate(self, platform):
        m = Module()
        bits, total = self.shape.bits, self.i.sum
        infinite = self.i.above | self.i.below
        size = Signal(bits)
        m.submodules.zeros = zeros = LeadingZeros(bits)
        m.submodules.shift = shift = LeftShifter(bits, bits - 1)
        m.d.comb += [
            size.eq(Mux(total < 0, -total, total)),
            zeros.i.eq(size),
            shift.i.eq(size),
            shift.amount.eq(zeros.o),
            self.o.significand.eq(shift.o),
            self.o.exponent.eq(self.i.scale - zeros.o + (self.shape.low + bits - 1)),
            self.o.nan.eq(self.i.nan | (self.i.above & self.i.below)),
            self.o.infinite.eq(infinite),
            self.o.negative.eq(Mux(infinite, self.i.below, total < 0)),
        ]
        return m


class BlockProduct(wiring.Component):
    """The dot product of two blocks of OCP MX, not rounded.

    Latency is `registers` steps: the first register is behind the product, the second between its
    two stages. Throughput is one block a step. Reset clears the registers.

    Parameters
    ----------
    act_block, weight_block : Format
        OCP MX formats, both of floats or both of integers.
    lanes : int
        Elements of a block.
    registers : int
        0, 1 or 2.

    Members
    -------
    en : In(1)
        Step: registers change only in a cycle with ``en``.
    start : In(1)
        A beat is at the inputs; not used.
    act : In(lanes * bits + 9)
        Activations: lane l at bit ``l * bits``; the scale above them; then, whether they count.
    weight : In(lanes * bits + 8)
        Weights: lane l at bit ``l * bits``; the scale above them.
    o : Out(bits)
        Number of `block_product_shape`; +0 for activations that do not count.
    """

    def __init__(self, act_block: Format, weight_block: Format, lanes: int, registers: int):
        act, weight = self.act_block, self.weight_block = act_block, weight_block
        self.lanes = lanes
        self.registers = registers
        scale_bits = FORMATS[act.scale].bits
        super().__init__({
            "en": In(1),
            "start": In(1),
            "act": In(lanes * act.bits + scale_bits + 1),
            "weight": In(lanes * weight.bits + scale_bits),
            "o": Out(block_product_shape(act, weight, lanes).layout.size),
        })

    def elaborate(self, platform):
        m = Module()
        act, weight, lanes = self.act_block, self.weight_block, self.lanes
        stages = [BlockSum(act, weight, lanes), BlockNumber(act, weight, lanes)]
        m.submodules.chain = chain = Chain(stages, ((), (1,), (0, 1))[self.registers])
        counts = self.act[-1]
        a, b = Value.cast(chain.i.a), Value.cast(chain.i.b)
        m.d.comb += [
            chain.en.eq(self.en),
            a.eq(Mux(counts, self.act[:-1], 0)),
            b.eq(Mux(counts, self.weight, 0)),
            self.o.eq(chain.o),
        ]
        return m
