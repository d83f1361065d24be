"""Quotient and square root, digit by digit, each with a remainder that makes the rounding exact."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.floats import NumberShape

__all__ = ["QuotientDigit", "QuotientStart", "Remainder", "RootDigit", "RootStart",
           "quotient_shape", "root_shape"]


def _state(divisor: int, remainder: int, digits: int, low: int, high: int) -> data.StructLayout:
    """A digit recurrence at work: marks, what is divided by, what is left, the digits so far."""
    return data.StructLayout({
        "nan": 1,
        "infinite": 1,
        "negative": 1,
        "exponent": range(low, high + 1),
        "divisor": divisor,  # of a root: digits of the radicand that are still to come
        "remainder": remainder,
        "digits": digits,
    })


def quotient_shape(a: NumberShape, b: NumberShape, digits: int) -> NumberShape:
    """Return the shape of a quotient of normalised numbers: `digits` and a sticky bit."""
    lift = a.bits - b.bits - digits
    return NumberShape(bits=digits + 1, low=a.low - b.high + lift, high=a.high - b.low + lift,
                       leading=1)


def root_shape(a: NumberShape, digits: int) -> NumberShape:
    """Return the shape of a root of a normalised number: `digits` and a sticky bit."""
    lift = a.bits - 2 * digits
    return NumberShape(bits=digits + 1, low=(a.low + lift + 1) // 2 - 1,
                       high=(a.high + lift + 1) // 2 - 1, leading=0)


def _quotient_state(a: NumberShape, b: NumberShape, digits: int) -> data.StructLayout:
    bits, shape = max(a.bits, b.bits), quotient_shape(a, b, digits)
    return _state(bits, bits + 1, digits, shape.low, shape.high)


def _root_state(a: NumberShape, digits: int) -> data.StructLayout:
    shape = root_shape(a, digits)
    return _state(2 * digits, digits + 2, digits, shape.low, shape.high)


class QuotientStart(wiring.Component):
    """State before the first digit of a quotient. No registers.

    Parameters
    ----------
    a, b : NumberShape
        Dividend and divisor, normalised.
    digits : int
        Digits to come.

    Members
    -------
    i : In(StructLayout)
        Numbers ``a`` and ``b``.
    o : Out(StructLayout)
        State of the recurrence.
    """

    def __init__(self, a: NumberShape, b: NumberShape, digits: int):
        self.a = a
        self.b = b
        self.digits = digits
        super().__init__({
            "i": In(data.StructLayout({"a": a.layout, "b": b.layout})),
            "o": Out(_quotient_state(a, b, digits)),
        })

    def elaborate(self, platform):
        m = Module()
        a, b, bits = self.i.a, self.i.b, max(self.a.bits, self.b.bits)
        a_zero = ~a.infinite & ~a.significand.any()
        b_zero = ~b.infinite & ~b.significand.any()
        m.d.comb += [
            self.o.nan.eq(a.nan | b.nan | (a_zero & b_zero) | (a.infinite & b.infinite)),
            self.o.infinite.eq(a.infinite | b_zero),
            self.o.negative.eq(a.negative ^ b.negative),
            self.o.exponent.eq(a.exponent - b.exponent
                               + (self.a.bits - self.b.bits - self.digits)),
            self.o.divisor.eq(Mux(b.infinite, 1 << (bits - 1),
                                  b.significand << (bits - self.b.bits))),
            # Anything by infinity is 0.
            self.o.remainder.eq(Mux(b.infinite, 0, a.significand << (bits - self.a.bits))),
        ]
        return m


class QuotientDigit(wiring.Component):
    """One digit of a quotient: the divisor goes into the remainder, or it does not. No registers.

    Parameters
    ----------
    a, b : NumberShape
        Dividend and divisor.
    digits : int
        Digits of the quotient.

    Members
    -------
    i : In(StructLayout)
        State of the recurrence.
    o : Out(StructLayout)
        State after one more digit.
    """

    def __init__(self, a: NumberShape, b: NumberShape, digits: int):
        state = _quotient_state(a, b, digits)
        super().__init__({"i": In(state), "o": Out(state)})

    def elaborate(self, platform):
        m = Module()
        rest = Signal(len(self.i.remainder) + 1)
        fits = ~rest[-1]
        m.d.comb += [
            self.o.eq(self.i),
            rest.eq(self.i.remainder - self.i.divisor),
            self.o.digits.eq(Cat(fits, self.i.digits)),
            self.o.remainder.eq(Mux(fits, rest, self.i.remainder) << 1),
        ]
        return m


class RootStart(wiring.Component):
    """State before the first digit of a square root. No registers.

    Parameters
    ----------
    a : NumberShape
        Radicand, normalised.
    digits : int
        Digits to come.

    Members
    -------
    i : In(StructLayout)
        The radicand.
    o : Out(StructLayout)
        State of the recurrence.
    """

    def __init__(self, a: NumberShape, digits: int):
        self.a = a
        self.digits = digits
        super().__init__({"i": In(a.layout), "o": Out(_root_state(a, digits))})

    def elaborate(self, platform):
        m = Module()
        a, lift = self.i, self.a.bits - 2 * self.digits

        # The radicand fills its field, but for one bit where that makes the exponent even.
        exponent = Signal(range(self.a.low + lift, self.a.high + lift + 2))
        m.d.comb += exponent.eq(a.exponent + lift)
        m.d.comb += [
            self.o.nan.eq(a.nan | (a.negative & (a.infinite | a.significand.any()))),
            self.o.infinite.eq(a.infinite),
            self.o.negative.eq(a.negative),
            self.o.exponent.eq(((exponent + 1) >> 1) - 1),
            self.o.divisor.eq(Mux(exponent[0], a.significand << (-lift - 1),
                                  a.significand << -lift)),
        ]
        return m


class RootDigit(wiring.Component):
    """One digit of a square root, two of the radicand. No registers.

    Parameters
    ----------
    a : NumberShape
        Radicand.
    digits : int
        Digits of the root.

    Members
    -------
    i : In(StructLayout)
        State of the recurrence.
    o : Out(StructLayout)
        State after one more digit.
    """

    def __init__(self, a: NumberShape, digits: int):
        state = _root_state(a, digits)
        super().__init__({"i": In(state), "o": Out(state)})

    def elaborate(self, platform):
        m = Module()
        left = Cat(self.i.divisor[-2:], self.i.remainder)
        rest = Signal(len(left) + 1)
        fits = ~rest[-1]
        m.d.comb += [
            self.o.eq(self.i),
            rest.eq(left - Cat(1, 0, self.i.digits)),
            self.o.digits.eq(Cat(fits, self.i.digits)),
            self.o.remainder.eq(Mux(fits, rest, left)),
            self.o.divisor.eq(self.i.divisor << 2),
        ]
        return m


class Remainder(wiring.Component):
    """Number made of all digits: what is left over becomes the sticky bit. No registers.

    Parameters
    ----------
    start : stage
        What the recurrence began with.
    shape : NumberShape
        `quotient_shape` or `root_shape`.

    Members
    -------
    i : In(StructLayout)
        State of the recurrence after its last digit.
    o : Out(StructLayout)
        Number of `shape`.
    """

    def __init__(self, start: wiring.Component, shape: NumberShape):
        state = start.signature.members["o"].shape
        super().__init__({"i": In(state), "o": Out(shape.layout)})

    def elaborate(self, platform):
        m = Module()
        for field in ("nan", "infinite", "negative", "exponent"):
            m.d.comb += self.o[field].eq(self.i[field])
        m.d.comb += self.o.significand.eq(Cat(self.i.remainder.any(), self.i.digits))
        return m
