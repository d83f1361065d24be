"""Float to integer, the larger of two floats, and their order."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.floats import NumberShape, quiet_nan
from hw.shifters import StickyShifter
from machine.formats import Format

__all__ = ["EncodeInteger", "Order", "Place", "Select"]


def _placed(shape: NumberShape, fmt: Format) -> data.StructLayout:
    """A magnitude with a guard and a sticky bit below the binary point, and its marks."""
    return data.StructLayout({
        "nan": 1,
        "negative": 1,
        "beyond": 1,  # larger than any integer of the format
        "magnitude": shape.bits + _left(shape, fmt) + 2,
    })


def _left(shape: NumberShape, fmt: Format) -> int:
    """Most places that a significand moves to the left: enough for any integer of `fmt`."""
    return max(0, min(shape.high, fmt.bits))


class Place(wiring.Component):
    """First of two stages from a number to an integer: puts the binary point in place.

    No registers.

    Parameters
    ----------
    shape : NumberShape
        The number.
    fmt : Format
        The integer.

    Members
    -------
    i : In(StructLayout)
        Number of `shape`.
    o : Out(StructLayout)
        Its magnitude, for `EncodeInteger`.
    """

    def __init__(self, shape: NumberShape, fmt: Format):
        self.shape = shape
        self.fmt = fmt
        super().__init__({"i": In(shape.layout), "o": Out(_placed(shape, fmt))})

    def elaborate(self, platform):
        m = Module()
        shape, left = self.shape, _left(self.shape, self.fmt)

        # From as far left as it may go, the magnitude moves to the right.
        width = shape.bits + left + 2
        limit = max(0, min(left - shape.low, width))
        room = Signal(range(left - shape.high, left - shape.low + 1))
        m.submodules.shift = shift = StickyShifter(width, limit)
        m.d.comb += [
            room.eq(left - self.i.exponent),
            shift.i.eq(self.i.significand << (left + 2)),
            shift.amount.eq(Mux(room < 0, 0, Mux(room > limit, limit, room))),
            self.o.magnitude.eq(shift.o),
            self.o.nan.eq(self.i.nan),
            self.o.negative.eq(self.i.negative),
            self.o.beyond.eq(self.i.infinite | ((room < 0) & self.i.significand.any())),
        ]
        return m


class EncodeInteger(wiring.Component):
    """Second of two stages from a number to an integer: rounds; what lies outside saturates.

    No registers. NaN becomes 0.

    Parameters
    ----------
    shape : NumberShape
        The number that `Place` had.
    fmt : Format
        The integer.
    rounding : str
        ``nearest_even``, ``toward_zero`` or ``floor``.

    Members
    -------
    i : In(StructLayout)
        What `Place` says.
    o : Out(bits)
        Code.
    """

    def __init__(self, shape: NumberShape, fmt: Format, rounding: str):
        self.fmt = fmt
        self.rounding = rounding
        super().__init__({"i": In(_placed(shape, fmt)), "o": Out(fmt.bits)})

    def elaborate(self, platform):
        m = Module()
        fmt, negative = self.fmt, self.i.negative
        sticky, guard, units = self.i.magnitude[0], self.i.magnitude[1], self.i.magnitude[2:]
        up = {
            "nearest_even": guard & (sticky | units[0]),
            "toward_zero": Const(0),
            "floor": negative & (guard | sticky),
        }[self.rounding]
        size = Signal(len(units) + 1)
        m.d.comb += size.eq(units + up)

        # Two's complement reaches one further below zero than above.
        above = int(fmt.largest)
        below = above + 1 if fmt.signed else 0
        most = Signal(fmt.bits)
        m.d.comb += most.eq(Mux(negative, below, above))
        held = Mux(self.i.beyond | (size > most), most, size)
        m.d.comb += self.o.eq(Mux(self.i.nan, 0, Mux(negative, -held, held)))
        return m


class Order(wiring.Component):
    """Compares two floats; both zeros are equal. No registers.

    Parameters
    ----------
    fmt : Format
        Format of both.

    Members
    -------
    i : In(StructLayout)
        Codes ``a`` and ``b``.
    o : Out(3)
        Bit 0: a < b; bit 1: a == b; bit 2: one of them is NaN, and the other bits are 0.
    """

    def __init__(self, fmt: Format):
        self.fmt = fmt
        super().__init__({
            "i": In(data.StructLayout({"a": fmt.bits, "b": fmt.bits})),
            "o": Out(3),
        })

    def elaborate(self, platform):
        m = Module()
        fmt = self.fmt
        infinity = 2 ** (fmt.bits - 1) - 2**fmt.mantissa_bits
        last = infinity if fmt.has_inf else 2 ** (fmt.bits - 1) - 1 - fmt.has_nan
        keys, nans = [], []
        for name in ("a", "b"):
            code, key = self.i[name], Signal(signed(fmt.bits), name=f"key_{name}")
            m.d.comb += key.eq(Mux(code[-1], -code[:-1], code[:-1]))
            keys.append(key)
            nans.append(code[:-1] > last)
        unordered = Signal()
        less, equal = keys[0] < keys[1], keys[0] == keys[1]
        m.d.comb += [
            unordered.eq(nans[0] | nans[1]),
            self.o.eq(Mux(unordered, 0b100, Cat(less, equal))),
        ]
        return m


class Select(wiring.Component):
    """The larger of two floats; NaN wins, a zero is +0. No registers.

    Parameters
    ----------
    fmt : Format
        Format of both.

    Members
    -------
    i : In(StructLayout)
        Codes ``a`` and ``b``.
    o : Out(bits)
        Code of the larger one.
    """

    def __init__(self, fmt: Format):
        self.fmt = fmt
        super().__init__({
            "i": In(data.StructLayout({"a": fmt.bits, "b": fmt.bits})),
            "o": Out(fmt.bits),
        })

    def elaborate(self, platform):
        m = Module()
        fmt = self.fmt
        m.submodules.order = order = Order(fmt)
        m.d.comb += order.i.eq(self.i)
        less, unordered = order.o[0], order.o[2]
        larger = Mux(less, self.i.b, self.i.a)
        zero = ~larger[:-1].any()
        m.d.comb += self.o.eq(Mux(unordered, quiet_nan(fmt), Mux(zero, 0, larger)))
        return m
