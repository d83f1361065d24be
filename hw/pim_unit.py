"""The bank unit: products of one column by a slice of the vector, an adder tree, an accumulator."""

from amaranth.hdl import Cat, ClockSignal, Instance, Module, Mux, ResetSignal, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.float_unit import FloatUnit
from machine.floats import FloatConfig
from machine.formats import FORMATS
from machine.pim import BankUnitConfig

__all__ = ["BankUnit", "LaneProduct", "SumRegister", "column_layout", "parts_of"]


def column_layout(cfg: BankUnitConfig) -> data.StructLayout:
    """Return what a bank unit takes: a column, the vector's slice, and the ends of a result."""
    width = cfg.lanes * cfg.element_bits
    return data.StructLayout({"matrix": width, "vector": width, "first": 1, "last": 1})


class LaneProduct(wiring.Component):
    """Register of the product of two elements, rounded once; of integers exact.

    Latency is one step, throughput one product a step. Reset clears the register.

    Members
    -------
    en : In(1)
        Step: the register changes only in a cycle with ``en``.
    a : In(bits)
        Code of the matrix's element.
    b : In(bits)
        Code of the vector's element.
    o : Out(bits)
        Code of the product in the accumulator's format.
    """

    def __init__(self, cfg: BankUnitConfig):
        self.cfg = cfg
        bits = FORMATS[cfg.acc_format].bits
        super().__init__({"en": In(1), "a": In(cfg.element_bits), "b": In(cfg.element_bits),
                          "o": Out(bits)})

    def elaborate(self, platform):
        m = Module()
        if self.cfg.format == "int8":
            product = self.a.as_signed() * self.b.as_signed()
        else:
            fmt = self.cfg.format
            m.submodules.unit = unit = FloatUnit(FloatConfig(
                operation="multiply", a=fmt, b=fmt, out=self.cfg.acc_format))
            m.d.comb += [unit.a.eq(self.a), unit.b.eq(self.b)]
            product = unit.o
        with m.If(self.en):
            m.d.sync += self.o.eq(product)
        return m


class SumRegister(wiring.Component):
    """Register of a sum, rounded once; of integers it wraps.

    Latency is one step, throughput one sum a step. Reset clears the register.

    Members
    -------
    en : In(1)
        Step: the register changes only in a cycle with ``en``.
    a : In(bits)
        Code of one term.
    b : In(bits)
        Code of the other.
    o : Out(bits)
        Code of their sum.
    """

    def __init__(self, cfg: BankUnitConfig):
        self.cfg = cfg
        bits = FORMATS[cfg.acc_format].bits
        super().__init__({"en": In(1), "a": In(bits), "b": In(bits), "o": Out(bits)})

    def elaborate(self, platform):
        m = Module()
        if self.cfg.format == "int8":
            total = self.a + self.b
        else:
            m.submodules.unit = unit = FloatUnit(FloatConfig(
                operation="add", a=self.cfg.acc_format, b=self.cfg.acc_format,
                out=self.cfg.acc_format))
            m.d.comb += [unit.a.eq(self.a), unit.b.eq(self.b)]
            total = unit.o
        with m.If(self.en):
            m.d.sync += self.o.eq(total)
        return m


class BankUnit(wiring.Component):
    """Dot products of columns by slices of a vector, summed into a latch until it is read.

    Latency from a result's last column to ``o`` is ``cfg.latency_cycles``; throughput is one column
    a cycle. A latch that is full and not read stops the unit. Products are rounded to the
    accumulator's format, then added as a tree, neighbours first, then to the sum of the columns
    before; a first column is added to +0. Reset empties the unit.

    Parameters
    ----------
    cfg : BankUnitConfig
    library : str or None
        If given, products and sums are instances of the modules ``<library>_product`` and
        ``<library>_sum`` of `parts_of`, so that each is compiled once.

    Members
    -------
    i : In(stream)
        Columns (`column_layout`): ``matrix`` and ``vector``, element j at the bits of lane j;
        ``first`` starts a result, ``last`` ends it.
    o : Out(stream)
        Results: codes of ``cfg.acc_format``.
    """

    def __init__(self, cfg: BankUnitConfig, library: str | None = None):
        self.cfg = cfg
        self.library = library
        bits = FORMATS[cfg.acc_format].bits
        super().__init__({"i": In(stream.Signature(column_layout(cfg).size)),
                          "o": Out(stream.Signature(bits))})

    def elaborate(self, platform):
        m = Module()
        cfg, bits = self.cfg, self.cfg.element_bits
        column = data.View(column_layout(cfg), self.i.payload)
        step = Signal()
        m.d.comb += [step.eq(~self.o.valid | self.o.ready), self.i.ready.eq(step)]

        # The marks of a column move beside it.
        depth = cfg.tree_levels + 1
        valid, first, last = Signal(depth), Signal(depth), Signal(depth)
        with m.If(step):
            m.d.sync += [valid.eq(Cat(self.i.valid, valid)),
                         first.eq(Cat(column.first, first)),
                         last.eq(Cat(column.last, last))]

        # Products, then a level of sums after the other.
        terms = [self._leaf(m, f"product_{lane}", LaneProduct, step,
                            column.matrix.word_select(lane, bits),
                            column.vector.word_select(lane, bits))
                 for lane in range(cfg.lanes)]
        while len(terms) > 1:
            terms = [self._leaf(m, f"sum_{len(terms) // 2}_{k}", SumRegister, step, a, b)
                     for k, (a, b) in enumerate(zip(terms[::2], terms[1::2], strict=True))]

        # The accumulator is the latch.
        total = Signal(FORMATS[cfg.acc_format].bits)
        held = self._leaf(m, "accumulator", SumRegister, step & valid[-1],
                          Mux(first[-1], 0, total), terms[0])
        m.d.comb += [total.eq(held), self.o.payload.eq(total)]
        with m.If(step):
            m.d.sync += self.o.valid.eq(valid[-1] & last[-1])
        return m

    def _leaf(self, m, name, kind, en, a, b):
        """Add a product or a sum and return its register."""
        if self.library is None:
            m.submodules[name] = leaf = kind(self.cfg)
            m.d.comb += [leaf.en.eq(en), leaf.a.eq(a), leaf.b.eq(b)]
            return leaf.o
        o = Signal(FORMATS[self.cfg.acc_format].bits, name=f"{name}_o")
        module = "product" if kind is LaneProduct else "sum"
        m.submodules[name] = Instance(
            f"{self.library}_{module}", ("i", "clk", ClockSignal()), ("i", "rst", ResetSignal()),
            ("i", "en", en), ("i", "a", a), ("i", "b", b), ("o", "o", o))
        return o


def parts_of(cfg: BankUnitConfig, library: str) -> list[tuple[str, wiring.Component]]:
    """Return the modules, by name, that a `BankUnit` of `library` instantiates."""
    return [(f"{library}_product", LaneProduct(cfg)), (f"{library}_sum", SumRegister(cfg))]
