"""Units that work on one operation for many cycles: a quotient, a root, a phase."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.chain import Chain, Each
from hw.float_divide import (
    QuotientDigit,
    QuotientStart,
    Remainder,
    RootDigit,
    RootStart,
    quotient_shape,
    root_shape,
)
from hw.float_unit import rounding_stages
from hw.floats import Decode
from machine.approx import PHASE_BITS
from machine.floats import FloatConfig

__all__ = ["Phase", "Recurrence"]

REST_BITS = PHASE_BITS - 9  # a phase is one of 512 steps of the turn, and a rest
POSITION_BITS = 32


def _quotient(cfg: FloatConfig) -> tuple[Chain, QuotientDigit, Chain]:
    """Return what comes before the digits of a quotient, a digit, and what comes behind."""
    a, b = Decode(cfg.format_of("a"), True), Decode(cfg.format_of("b"), True)
    start = QuotientStart(a.shape, b.shape, cfg.digits)
    shape = quotient_shape(a.shape, b.shape, cfg.digits)
    return (Chain([Each({"a": a, "b": b}), start]), QuotientDigit(a.shape, b.shape, cfg.digits),
            Chain([Remainder(start, shape), *rounding_stages(shape, cfg)]))


def _root(cfg: FloatConfig) -> tuple[Chain, RootDigit, Chain]:
    """Return the same of a root."""
    a = Decode(cfg.format_of("a"), True)
    start, shape = RootStart(a.shape, cfg.digits), root_shape(a.shape, cfg.digits)
    return (Chain([a, start]), RootDigit(a.shape, cfg.digits),
            Chain([Remainder(start, shape), *rounding_stages(shape, cfg)]))


class Recurrence(wiring.Component):
    """Quotient or root, a digit a cycle.

    The result is there ``cfg.digits + 2`` cycles after ``start`` and stays until the next one,
    which may come when it is there. Reset abandons the operation.

    Parameters
    ----------
    cfg : FloatConfig
        ``divide`` or ``square_root``, without registers.

    Members
    -------
    start : In(1)
        The operands are taken.
    a : In(bits)
        Code of the dividend or radicand.
    b : In(bits)
        Code of the divisor; a root ignores it.
    o : Out(bits)
        Code of the result.
    """

    def __init__(self, cfg: FloatConfig):
        self.cfg = cfg
        bits = cfg.format_of("a").bits
        super().__init__({"start": In(1), "a": In(bits), "b": In(bits), "o": Out(bits)})

    def elaborate(self, platform):
        m = Module()
        parts = _quotient if self.cfg.operation == "divide" else _root
        first, digit, ends = parts(self.cfg)
        m.submodules += [first, digit, ends]
        state = Signal(digit.i.shape())
        left = Signal(range(self.cfg.digits + 1))
        operands = Cat(getattr(self, name) for name in self.cfg.operands)
        m.d.comb += [Value.cast(first.i).eq(operands), digit.i.eq(state), ends.i.eq(state)]
        with m.If(self.start):
            m.d.sync += [state.eq(first.o), left.eq(self.cfg.digits)]
        with m.Elif(left.any()):
            m.d.sync += [state.eq(digit.o), left.eq(left - 1)]
        m.d.sync += self.o.eq(ends.o)
        return m


class Phase(wiring.Component):
    """Position times step, modulo a turn of 2**48, and half a step of 512 added to round it.

    The result is there 17 cycles after ``start`` and stays. Reset abandons the operation.

    Members
    -------
    start : In(1)
        Position and step are taken.
    position : In(32)
        Unsigned.
    step : In(48)
        Phase that one position adds.
    o : Out(48)
        The nearest of 512 steps in the top 9 bits; below it the rest plus half a step.
    """

    def __init__(self):
        super().__init__({"start": In(1), "position": In(POSITION_BITS), "step": In(PHASE_BITS),
                          "o": Out(PHASE_BITS)})

    def elaborate(self, platform):
        m = Module()
        position, step = Signal(POSITION_BITS), Signal(PHASE_BITS)
        with m.If(self.start):
            m.d.sync += [position.eq(self.position), step.eq(self.step),
                         self.o.eq(Const(1 << REST_BITS - 1, PHASE_BITS))]
        with m.Else():
            # Two bits of the position a cycle; when none are left nothing more is added.
            m.d.sync += [position.eq(position >> 2), step.eq(step << 2),
                         self.o.eq(self.o + Mux(position[0], step, 0)
                                   + Mux(position[1], step << 1, 0))]
        return m
