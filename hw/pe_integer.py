"""Integer elements: registers around a combinational product, and the adder of integer sums."""

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.pe_bits import bipolar, ternary
from hw.pe_lanes import lanes, tree
from hw.pe_shift import shift_add, shift_by_power
from machine.systolic import SystolicConfig

__all__ = ["IntAdd", "Product", "multiply"]


def multiply(cfg: SystolicConfig, act: Value, weight: Value) -> Value:
    """Return the sum of the lanes' products, by multipliers."""
    return tree([a * w for a, w in lanes(cfg, act, weight)])


# By kind: the sum of products as a function of an element's activations and weights.
PRODUCTS = {
    "int_mac": multiply,
    "qoq": multiply,
    "mixpe": shift_add,
    "shift": shift_by_power,
    "ternary": ternary,
    "bipolar": bipolar,
}


class Product(wiring.Component):
    """Sum of an element's products in one beat, a combinational function between registers.

    Latency is ``cfg.multiply_cycles`` steps: the first register is behind the function, the second
    in front of it. Throughput is one beat a step. Reset clears the registers.

    Members
    -------
    en : In(1)
        Step: registers change only in a cycle with ``en``.
    start : In(1)
        A beat is at the inputs; not used.
    act : In(act_port_bits)
        Activations: lane l at bit ``l * a_bits``; above them, if the kind is masked, whether they
        count.
    weight : In(weight_bits)
        Weights: lane l at bit ``l * w_bits``.
    o : Out(signed(product_bits))
        The sum of the products; zero for activations that do not count.
    """

    def __init__(self, cfg: SystolicConfig):
        self.cfg = cfg
        super().__init__({
            "en": In(1),
            "start": In(1),
            "act": In(cfg.act_port_bits),
            "weight": In(cfg.weight_bits),
            "o": Out(signed(cfg.product_bits)),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg

        # Operands.
        act, weight = self.act, self.weight
        if cfg.multiply_cycles > 1:
            act, weight = Signal.like(act), Signal.like(weight)
            with m.If(self.en):
                m.d.sync += [act.eq(self.act), weight.eq(self.weight)]

        # Their product, zero if they do not count.
        product = Signal.like(self.o)
        m.d.comb += product.eq(PRODUCTS[cfg.pe.kind](cfg, act[: cfg.act_bits], weight))
        counted = Mux(act[-1], product, 0) if cfg.pe.fixed.masked else product
        if cfg.multiply_cycles == 0:
            m.d.comb += self.o.eq(counted)
        else:
            with m.If(self.en):
                m.d.sync += self.o.eq(counted)
        return m


class IntAdd(wiring.Component):
    """Adder of integer sums, which wrap.

    Latency is ``cycles - 1`` steps, in registers behind the adder; throughput is one sum a step.
    Reset clears the registers.

    Parameters
    ----------
    cfg : SystolicConfig
        Widths.
    cycles : int
        Steps of the adder, the register that takes its result included.

    Members
    -------
    en : In(1)
        Step: registers change only in a cycle with ``en``.
    product : In(signed(product_bits))
        What is added.
    merge : In(1)
        Add ``other`` in its place.
    other : In(acc_bits)
        Another sum.
    addend : In(acc_bits)
        What it is added to.
    o : Out(acc_bits)
        The sum of the two.
    """

    def __init__(self, cfg: SystolicConfig, cycles: int):
        self.cfg = cfg
        self.cycles = cycles
        super().__init__({
            "en": In(1),
            "product": In(signed(cfg.product_bits)),
            "merge": In(1),
            "other": In(cfg.acc_bits),
            "addend": In(cfg.acc_bits),
            "o": Out(cfg.acc_bits),
        })

    def elaborate(self, platform):
        m = Module()
        total = self.addend + Mux(self.merge, self.other.as_signed(), self.product)
        for i in range(self.cycles - 1):
            later = Signal(self.cfg.acc_bits, name=f"total_{i}")
            with m.If(self.en):
                m.d.sync += later.eq(total)
            total = later
        m.d.comb += self.o.eq(total)
        return m
