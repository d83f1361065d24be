"""Numbers between decoding and rounding: the exact form, and the stages at both ends of it.

A number is a sign, an integer significand and the exponent of its last bit, beside two marks for
NaN and infinity. `Decode` makes one of a code. `Count`, `Shift` and `Encode` round one to a code,
once: to nearest, ties to even.
"""

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.shifters import LeadingZeros, LeftShifter, StickyShifter
from machine.formats import Format

__all__ = ["Count", "Decode", "Encode", "NumberShape", "Shift", "decoded_shape",
           "quiet_nan"]


@dataclass(frozen=True, kw_only=True)
class NumberShape:
    """Which numbers a signal may hold; its value is ``significand * 2**exponent``."""

    bits: int  # of the significand
    low: int  # least exponent
    high: int  # largest exponent
    leading: int  # most leading zeros of a significand that is not 0
    subnormal: bool = False  # at the least exponent, any number of leading zeros, and 0 is there

    @property
    def layout(self) -> data.StructLayout:
        """Signals of a number; the significand and the exponent mean nothing beside a mark."""
        return data.StructLayout({
            "nan": 1,
            "infinite": 1,
            "negative": 1,
            "exponent": range(self.low, self.high + 1),
            "significand": self.bits,
        })

    @property
    def zeros(self) -> int:
        """Most leading zeros of any significand but 0."""
        return self.bits - 1 if self.subnormal else self.leading


def decoded_shape(fmt: Format, *, normalised: bool = False) -> NumberShape:
    """Return the shape of a decoded `fmt`, a float or an integer.

    A `normalised` float begins with a one unless it is 0, a subnormal too.
    """
    if not fmt.is_float:
        return NumberShape(bits=fmt.bits, low=0, high=0, leading=fmt.bits - 1, subnormal=True)
    low = fmt.smallest_exponent - fmt.mantissa_bits
    high = fmt.largest_exponent - fmt.mantissa_bits
    return NumberShape(bits=fmt.mantissa_bits + 1, leading=0, high=high, subnormal=not normalised,
                       low=low - fmt.mantissa_bits if normalised else low)


def quiet_nan(fmt: Format) -> int:
    """Return the code of NaN in `fmt`, or 0 where there is none."""
    everything = 2 ** (fmt.bits - 1) - 1
    payload = 2 ** (fmt.mantissa_bits - 1) - 1 if fmt.has_inf else 0
    return everything - payload if fmt.has_nan else 0


class Decode(wiring.Component):
    """Code to number, exactly. No registers.

    Parameters
    ----------
    fmt : Format
        A float or an integer.
    normalised : bool
        Whether a subnormal is shifted until it begins with a one.

    Members
    -------
    i : In(bits)
        Code.
    o : Out(StructLayout)
        Its number, of `decoded_shape`.
    """

    def __init__(self, fmt: Format, normalised: bool = False):
        self.fmt = fmt
        self.normalised = normalised and fmt.is_float
        self.shape = decoded_shape(fmt, normalised=normalised)
        super().__init__({"i": In(fmt.bits), "o": Out(self.shape.layout)})

    def elaborate(self, platform):
        m = Module()
        fmt, code, number = self.fmt, self.i, self.o
        if not fmt.is_float:
            negative = code[-1] if fmt.signed else Const(0)
            m.d.comb += [number.negative.eq(negative),
                         number.significand.eq(Mux(negative, -code, code))]
            return m

        # Fields; a subnormal has the exponent of the smallest normal.
        mantissa = code[: fmt.mantissa_bits]
        field = code[fmt.mantissa_bits : -1]
        normal = field.any()
        significand = Signal(self.shape.bits)
        m.d.comb += [number.negative.eq(code[-1]), significand.eq(Cat(mantissa, normal))]
        exponent = Mux(normal, field, 1) - (fmt.bias + fmt.mantissa_bits)

        # Codes beyond the largest finite one.
        if fmt.has_inf:
            m.d.comb += [number.infinite.eq(field.all() & ~mantissa.any()),
                         number.nan.eq(field.all() & mantissa.any())]
        elif fmt.has_nan:
            m.d.comb += number.nan.eq(code[:-1].all())

        if self.normalised:
            m.submodules.zeros = zeros = LeadingZeros(self.shape.bits)
            m.submodules.shift = shift = LeftShifter(self.shape.bits, self.shape.bits - 1)
            m.d.comb += [zeros.i.eq(significand), shift.i.eq(significand),
                         shift.amount.eq(zeros.o), number.significand.eq(shift.o),
                         number.exponent.eq(exponent - zeros.o)]
        else:
            m.d.comb += [number.significand.eq(significand), number.exponent.eq(exponent)]
        return m


def _room(shape: NumberShape, fmt: Format) -> range:
    """Places from the top bit of a number of `shape` down to the top bit of a subnormal."""
    lift = shape.bits - 1 - fmt.smallest_exponent
    return range(shape.low + lift, shape.high + lift + 1)


def _counted(shape: NumberShape, fmt: Format) -> data.StructLayout:
    """What `Count` says of a number: how far to shift it, and the exponent that it then has."""
    room = _room(shape, fmt)
    return data.StructLayout({
        "nan": 1,
        "infinite": 1,
        "negative": 1,
        "left": range(shape.zeros + 1),
        "right": range(fmt.mantissa_bits + 3 if room.start < 0 else 1),
        "step": range(max(room.stop, 1)),  # exponent above that of the smallest normal
        "significand": shape.bits,
    })


def _shifted(shape: NumberShape, fmt: Format) -> data.StructLayout:
    """What `Shift` leaves to be rounded: a significand of the format, a guard bit and a sticky."""
    return data.StructLayout({
        "nan": 1,
        "infinite": 1,
        "negative": 1,
        "step": range(max(_room(shape, fmt).stop, 1)),
        "significand": fmt.mantissa_bits + 3,
    })


class Count(wiring.Component):
    """First of three stages that round: finds the leading one. No registers.

    Parameters
    ----------
    shape : NumberShape
        The number.
    fmt : Format
        The float it is rounded to.

    Members
    -------
    i : In(StructLayout)
        Number of `shape`.
    o : Out(StructLayout)
        The number and the shifts to come, for `Shift`.
    """

    def __init__(self, shape: NumberShape, fmt: Format):
        self.shape = shape
        self.fmt = fmt
        super().__init__({"i": In(shape.layout), "o": Out(_counted(shape, fmt))})

    def elaborate(self, platform):
        m = Module()
        shape, fmt = self.shape, self.fmt
        for mark in ("nan", "infinite", "negative", "significand"):
            m.d.comb += self.o[mark].eq(self.i[mark])

        # Shift to the leading one, but no further than a subnormal begins.
        m.submodules.zeros = zeros = LeadingZeros(shape.zeros + 1)
        m.d.comb += zeros.i.eq(self.i.significand[shape.bits - shape.zeros - 1 :])
        room = Signal(_room(shape, fmt))
        m.d.comb += room.eq(self.i.exponent + (shape.bits - 1 - fmt.smallest_exponent))
        with m.If(room < 0):
            most = fmt.mantissa_bits + 2  # from there on only the sticky bit remains
            m.d.comb += self.o.right.eq(Mux(room < -most, most, -room))
        with m.Elif(room < zeros.o):
            m.d.comb += self.o.left.eq(room)
        with m.Else():
            m.d.comb += [self.o.left.eq(zeros.o), self.o.step.eq(room - zeros.o)]
        return m


class Shift(wiring.Component):
    """Second of three stages that round: puts the bits in their places. No registers.

    Parameters
    ----------
    shape : NumberShape
        The number.
    fmt : Format
        The float it is rounded to.

    Members
    -------
    i : In(StructLayout)
        What `Count` says.
    o : Out(StructLayout)
        The significand, a guard bit and a sticky bit, for `Encode`.
    """

    def __init__(self, shape: NumberShape, fmt: Format):
        self.shape = shape
        self.fmt = fmt
        super().__init__({"i": In(_counted(shape, fmt)), "o": Out(_shifted(shape, fmt))})

    def elaborate(self, platform):
        m = Module()
        shape, kept = self.shape, self.fmt.mantissa_bits + 2
        for mark in ("nan", "infinite", "negative", "step"):
            m.d.comb += self.o[mark].eq(self.i[mark])

        m.submodules.left = left = LeftShifter(shape.bits, shape.zeros)
        m.d.comb += [left.i.eq(self.i.significand), left.amount.eq(self.i.left)]

        # A frame with room for one bit below the guard bit.
        width = max(shape.bits, kept + 1)
        frame = Signal(width)
        m.d.comb += frame.eq(left.o << (width - shape.bits))
        if _room(shape, self.fmt).start < 0:
            m.submodules.right = right = StickyShifter(width, kept)
            m.d.comb += [right.i.eq(frame), right.amount.eq(self.i.right)]
            frame = right.o
        sticky = frame[: width - kept].any()
        m.d.comb += self.o.significand.eq(Cat(sticky, frame[width - kept :]))
        return m


class Encode(wiring.Component):
    """Last of three stages that round: rounds, and says what lies outside. No registers.

    Parameters
    ----------
    shape : NumberShape
        The number that `Count` had.
    fmt : Format
        The float it is rounded to.
    saturate : bool
        Whether overflow and infinity give the largest finite value instead of the format's own
        rule (docs/numerics.md). A NaN that the format does not have becomes 0.

    Members
    -------
    i : In(StructLayout)
        What `Shift` leaves.
    o : Out(bits)
        Code.
    """

    def __init__(self, shape: NumberShape, fmt: Format, saturate: bool = False):
        self.fmt = fmt
        self.saturate = saturate
        super().__init__({"i": In(_shifted(shape, fmt)), "o": Out(fmt.bits)})

    def elaborate(self, platform):
        m = Module()
        fmt = self.fmt
        sticky, guard, units = self.i.significand[0], self.i.significand[1], self.i.significand[2:]

        # A carry out of the mantissa moves on into the exponent; a subnormal has exponent field 0.
        up = guard & (sticky | units[0])
        exponent = Mux(units[-1], self.i.step, 0)
        magnitude = Signal(max(len(self.i.step) + fmt.mantissa_bits, fmt.bits) + 2)
        m.d.comb += magnitude.eq(Cat(Const(0, fmt.mantissa_bits), exponent) + units + up)

        # The largest finite code, and what lies beyond it.
        everything = 2 ** (fmt.bits - 1) - 1
        top = everything - (2**fmt.mantissa_bits if fmt.has_inf else int(fmt.has_nan))
        nan = Const(quiet_nan(fmt), fmt.bits)
        over = self.i.infinite | (magnitude > top)
        beyond = nan
        if self.saturate or not fmt.has_nan:
            beyond = Cat(Const(top, fmt.bits - 1), self.i.negative)
        elif fmt.has_inf:
            beyond = Cat(Const(top + 1, fmt.bits - 1), self.i.negative)
        m.d.comb += self.o.eq(Mux(
            self.i.nan, nan, Mux(over, beyond, Cat(magnitude[: fmt.bits - 1], self.i.negative))))
        return m
