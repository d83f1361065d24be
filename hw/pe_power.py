"""A float activation by a power of two: its exponent is added to, nothing is multiplied."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from machine.formats import Format, format_named

__all__ = ["PowerProduct"]

NAN = 0x7FC00000  # float32's one NaN


class PowerProduct(wiring.Component):
    """Exact product, in float32, of a float and a weight of a shift format. Combinational.

    A normal number's exponent grows by p; a subnormal one is normalised first. No product leaves
    the normal range of float32, so nothing is rounded (DenseShift, arXiv 2208.09708). NaN gives the
    one NaN, infinity and zero keep their size.

    Parameters
    ----------
    act_format : str
        ``float16`` or ``float8_e5m2``: formats with infinities whose products float32 holds.
    weight_format : str
        A shift format.

    Members
    -------
    act : In(bits of act_format)
        Code of the activation.
    weight : In(bits of weight_format)
        Code of the weight: p, and above it the sign.
    o : Out(32)
        Code of the product.
    """

    def __init__(self, act_format: str, weight_format: str):
        self.act_format: Format = format_named(act_format)
        self.weight_format: Format = format_named(weight_format)
        super().__init__({
            "act": In(self.act_format.bits),
            "weight": In(self.weight_format.bits),
            "o": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        fmt = self.act_format
        width, power = fmt.mantissa_bits, self.weight.as_unsigned()[:-1]
        fraction = self.act[:width]
        exponent = self.act[width:-1]
        last = (1 << fmt.exponent_bits) - 1
        sign = self.act[-1] ^ self.weight[-1]

        # Normalise a subnormal: its highest bit becomes the hidden one.
        normal, field = Signal(width), Signal(8)
        m.d.comb += [normal.eq(fraction), field.eq(exponent + (127 - fmt.bias) + power)]
        with m.If(exponent == 0):
            for bit in range(width):  # the last assignment holds: the highest bit that is set
                with m.If(fraction[bit]):
                    m.d.comb += normal.eq(fraction << width - bit)
                    m.d.comb += field.eq(127 + fmt.smallest_exponent - width + bit + power)

        # Zero, infinity and NaN.
        finite = Cat(Const(0, 23 - width), normal, Mux(self.act[:-1] == 0, 0, field), sign)
        infinite = Cat(Const(0, 23), Const(255, 8), sign)
        m.d.comb += self.o.eq(finite)
        with m.If(exponent == last):
            m.d.comb += self.o.eq(Mux(fraction == 0, infinite, NAN))
        return m
