"""The arithmetic unit for floats: the stages of one operation, and the registers between them."""

from amaranth.hdl import Cat, Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.chain import Chain, Each, Wire
from hw.float_add import Align, Sum, sum_shape
from hw.float_convert import EncodeInteger, Order, Place, Select
from hw.float_divide import (
    QuotientDigit,
    QuotientStart,
    Remainder,
    RootDigit,
    RootStart,
    quotient_shape,
    root_shape,
)
from hw.float_multiply import Product
from hw.floats import Count, Decode, Encode, NumberShape, Shift
from machine.floats import FloatConfig, registers_after

__all__ = ["FloatUnit", "rounding_stages", "stages"]

Stages = list[wiring.Component]


def stages(cfg: FloatConfig) -> Stages:
    """Return the stages of `cfg`, as many as it names, operands first, the result's code last."""
    return _STAGES[cfg.operation](cfg)


def rounding_stages(shape: NumberShape, cfg: FloatConfig) -> Stages:
    """Return the stages that round a number of `shape` to the format `out` of `cfg`."""
    fmt = cfg.format_of("out")
    return [Count(shape, fmt), Shift(shape, fmt), Encode(shape, fmt, cfg.saturate)]


def _multiply(cfg: FloatConfig) -> Stages:
    a, b = Decode(cfg.format_of("a"), True), Decode(cfg.format_of("b"), True)
    product = Product(a.shape, b.shape)
    return [Each({"a": a, "b": b}), product, *rounding_stages(product.shape, cfg)]


def _add(cfg: FloatConfig) -> Stages:
    a, b = Decode(cfg.format_of("a")), Decode(cfg.format_of("b"))
    return [Each({"x": a, "y": b}), *_sum(a.shape, b.shape, cfg)]


def _multiply_add(cfg: FloatConfig) -> Stages:
    a, b = Decode(cfg.format_of("a"), True), Decode(cfg.format_of("b"), True)
    c, product = Decode(cfg.format_of("c")), Product(a.shape, b.shape)
    beside = Wire(c.shape.layout)
    return [
        Each({"x": Each({"a": a, "b": b}), "y": c}),
        Each({"x": product, "y": beside}),
        *_sum(product.shape, c.shape, cfg),
    ]


def _sum(x: NumberShape, y: NumberShape, cfg: FloatConfig) -> Stages:
    fmt = cfg.format_of("out")
    return [Align(x, y, fmt), Sum(x, y, fmt), *rounding_stages(sum_shape(x, y, fmt), cfg)]


def _divide(cfg: FloatConfig) -> Stages:
    a, b = Decode(cfg.format_of("a"), True), Decode(cfg.format_of("b"), True)
    start = QuotientStart(a.shape, b.shape, cfg.digits)
    shape = quotient_shape(a.shape, b.shape, cfg.digits)
    return [
        Chain([Each({"a": a, "b": b}), start]),
        *(QuotientDigit(a.shape, b.shape, cfg.digits) for _ in range(cfg.digits)),
        Remainder(start, shape),
        *rounding_stages(shape, cfg),
    ]


def _square_root(cfg: FloatConfig) -> Stages:
    a = Decode(cfg.format_of("a"), True)
    start, shape = RootStart(a.shape, cfg.digits), root_shape(a.shape, cfg.digits)
    return [
        Chain([a, start]),
        *(RootDigit(a.shape, cfg.digits) for _ in range(cfg.digits)),
        Remainder(start, shape),
        *rounding_stages(shape, cfg),
    ]


def _convert(cfg: FloatConfig) -> Stages:
    decode, out = Decode(cfg.format_of("a")), cfg.format_of("out")
    if cfg.to_integer:
        return [decode, Place(decode.shape, out), EncodeInteger(decode.shape, out, cfg.rounding)]
    return [decode, *rounding_stages(decode.shape, cfg)]


_STAGES = {
    "add": _add,
    "multiply": _multiply,
    "multiply_add": _multiply_add,
    "divide": _divide,
    "square_root": _square_root,
    "convert": _convert,
    "maximum": lambda cfg: [Select(cfg.format_of("a"))],
    "compare": lambda cfg: [Order(cfg.format_of("a"))],
}


class FloatUnit(wiring.Component):
    """One operation on floats, rounded once: to nearest, ties to even.

    Latency is ``cfg.latency_cycles`` steps; throughput is one operation a step. Subnormals and the
    sign of zero are kept, there is one NaN, quiet and positive; overflow is docs/numerics.md's. A
    product that is added is exact. The larger of two zeros is +0. A NaN becomes 0 in a format that
    has none. Reset clears the registers.

    Members
    -------
    en : In(1)
        Step: registers change only in a cycle with ``en``; means nothing without registers.
    a : In(bits)
        Code of the first operand.
    b : In(bits)
        Code of the second operand; absent if there is none.
    c : In(bits)
        Code of what is added to the product, of the format ``out``; only of ``multiply_add``.
    o : Out(bits)
        Code of the result. Of ``compare``, bit 0: a < b; bit 1: a == b; bit 2: one is NaN.
    """

    def __init__(self, cfg: FloatConfig):
        self.cfg = cfg
        super().__init__({
            "en": In(1),
            **{name: In(cfg.format_of(name).bits) for name in cfg.operands},
            "o": Out(3 if cfg.operation == "compare" else cfg.format_of("out").bits),
        })

    def elaborate(self, platform):
        m = Module()
        row = stages(self.cfg)
        registers = registers_after(len(row), self.cfg.depth_cycles)
        m.submodules.chain = chain = Chain(row, registers)
        m.d.comb += [
            chain.en.eq(self.en),
            Value.cast(chain.i).eq(Cat(getattr(self, name) for name in self.cfg.operands)),
            self.o.eq(chain.o),
        ]
        return m
