"""The sum of two numbers, exact enough to be rounded once."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.floats import NumberShape
from hw.shifters import StickyShifter
from machine.formats import Format

__all__ = ["Align", "Sum", "frame_bits", "sum_shape"]


def _step(fmt: Format) -> int:
    """Exponent of the smallest positive number of `fmt`."""
    return fmt.smallest_exponent - fmt.mantissa_bits


def _zeros(shape: NumberShape, fmt: Format) -> int:
    """Leading zeros of a number that cost precision in `fmt`: not those of its own subnormals."""
    return shape.zeros if shape.low > _step(fmt) else shape.leading


def frame_bits(x: NumberShape, y: NumberShape, fmt: Format) -> int:
    """Return the bits in which two numbers are added, the last of them sticky.

    The larger number is at the top. Either the smaller one is so near that all its bits fit, or the
    sum has the significand of `fmt`, a guard bit and the sticky bit at least: rounding the sum then
    rounds the exact sum.
    """
    zeros = max(_zeros(x, fmt), _zeros(y, fmt))
    return max(fmt.mantissa_bits + 4, max(x.bits, y.bits) + 2) + zeros


def _tops(x: NumberShape, y: NumberShape, fmt: Format) -> range:
    """Exponents of the top bit of the frame."""
    low, high = zip(*((n.low + n.bits - 1, n.high + n.bits - 1) for n in (x, y)), strict=True)
    return range(low[1] if _has_floor(y, fmt) else min(low), max(high) + 1)


def _has_floor(y: NumberShape, fmt: Format) -> bool:
    """Whether `y` is never above the frame of a number of `fmt`, even if it is 0."""
    return y.subnormal and y.low <= _step(fmt)


def _aligned(x: NumberShape, y: NumberShape, fmt: Format) -> data.StructLayout:
    """What `Align` says: two significands in one frame, and the signs."""
    frame = frame_bits(x, y, fmt)
    return data.StructLayout({
        "nan": 1,
        "infinite": 1,
        "negative": 1,  # sign of the infinity, or of the larger number
        "negative_zero": 1,  # sign of a sum that is 0
        "subtract": 1,
        "top": _tops(x, y, fmt),
        "large": frame,
        "small": frame,
    })


def sum_shape(x: NumberShape, y: NumberShape, fmt: Format) -> NumberShape:
    """Return the shape of the sum of numbers of shapes `x` and `y` that is rounded to `fmt`."""
    frame, tops = frame_bits(x, y, fmt), _tops(x, y, fmt)
    return NumberShape(bits=frame + 1, low=tops.start - frame + 1, high=tops.stop - frame,
                       leading=frame)


class Align(wiring.Component):
    """First of two stages that add: shifts the number with the smaller exponent. No registers.

    Parameters
    ----------
    x, y : NumberShape
        The numbers. If one is a float of `fmt`, it is `y`.
    fmt : Format
        The float that the sum is rounded to.

    Members
    -------
    i : In(StructLayout)
        Numbers ``x`` and ``y``.
    o : Out(StructLayout)
        Both in one frame, for `Sum`.
    """

    def __init__(self, x: NumberShape, y: NumberShape, fmt: Format):
        self.x = x
        self.y = y
        self.fmt = fmt
        super().__init__({
            "i": In(data.StructLayout({"x": x.layout, "y": y.layout})),
            "o": Out(_aligned(x, y, fmt)),
        })

    def elaborate(self, platform):
        m = Module()
        x, y = self.i.x, self.i.y
        frame = frame_bits(self.x, self.y, self.fmt)

        # A zero has any exponent, and must not push the other number out of the frame.
        x_top, y_top = x.exponent + (self.x.bits - 1), y.exponent + (self.y.bits - 1)
        zero = ~x.significand.any()
        ahead = Signal(range(-(self.x.high + self.x.bits - self.y.low - self.y.bits) - 1,
                             self.y.high + self.y.bits - self.x.low - self.x.bits + 1))
        m.d.comb += ahead.eq(y_top - x_top)
        swap = Signal()
        above = ahead >= 0
        if not _has_floor(self.y, self.fmt):
            above = above & y.significand.any()
        m.d.comb += swap.eq(zero | above)

        # The frame's last bit is sticky.
        x_frame, y_frame = Signal(frame), Signal(frame)
        distance = Mux(ahead < 0, -ahead, ahead)
        m.submodules.shift = shift = StickyShifter(frame, frame)
        m.d.comb += [
            x_frame.eq(x.significand << (frame - self.x.bits)),
            y_frame.eq(y.significand << (frame - self.y.bits)),
            shift.i.eq(Mux(swap, x_frame, y_frame)),
            shift.amount.eq(Mux(distance > frame, frame, distance)),
            self.o.large.eq(Mux(swap, y_frame, x_frame)),
            self.o.small.eq(shift.o),
            self.o.top.eq(Mux(swap, y_top, x_top)),
        ]

        # The sign is that of an infinity, or of the larger number; two infinities share it.
        infinite, differ = x.infinite | y.infinite, x.negative ^ y.negative
        m.d.comb += [
            self.o.nan.eq(x.nan | y.nan | (x.infinite & y.infinite & differ)),
            self.o.infinite.eq(infinite),
            self.o.negative.eq(Mux(Mux(infinite, x.infinite, ~swap), x.negative, y.negative)),
            self.o.negative_zero.eq(x.negative & y.negative),
            self.o.subtract.eq(differ),
        ]
        return m


class Sum(wiring.Component):
    """Second of two stages that add: adds or subtracts. No registers.

    Parameters
    ----------
    x, y : NumberShape
        The numbers that `Align` had.
    fmt : Format
        The float that the sum is rounded to.

    Members
    -------
    i : In(StructLayout)
        What `Align` says.
    o : Out(StructLayout)
        The sum, of `sum_shape`; its last bit stands for all that lies below.
    """

    def __init__(self, x: NumberShape, y: NumberShape, fmt: Format):
        self.frame = frame_bits(x, y, fmt)
        super().__init__({
            "i": In(_aligned(x, y, fmt)),
            "o": Out(sum_shape(x, y, fmt).layout),
        })

    def elaborate(self, platform):
        m = Module()
        total = Signal(self.frame + 2)
        second = Signal(self.frame + 2)
        m.d.comb += [
            second.eq(Mux(self.i.subtract, ~self.i.small, self.i.small)),
            second[self.frame :].eq(self.i.subtract.replicate(2)),
            total.eq(self.i.large + second + self.i.subtract),
        ]

        # With equal exponents the other number may be the larger one.
        below = total[-1]
        size = Mux(below, -total, total)[: self.frame + 1]
        other = Mux(total.any(), self.i.negative ^ below, self.i.negative_zero)
        m.d.comb += [
            self.o.nan.eq(self.i.nan),
            self.o.infinite.eq(self.i.infinite),
            self.o.negative.eq(Mux(self.i.infinite, self.i.negative, other)),
            self.o.exponent.eq(self.i.top - (self.frame - 1)),
            self.o.significand.eq(Cat(size)),
        ]
        return m
