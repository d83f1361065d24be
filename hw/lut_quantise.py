"""Quantises tables with scales found at run time: a scale a table, or one for a block of them."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.float_unit import FloatUnit
from hw.stream import PairQueue
from machine.floats import FloatConfig
from machine.lut_table import TableQuantiserConfig

__all__ = ["Magnitude", "ScaleDivider", "ScaledEntries", "TableQuantiser"]

ONE = 0x3F800000  # 1 in float32


class Magnitude(wiring.Component):
    """Finds the largest magnitude of a table's entries, in the same cycle.

    Members
    -------
    table : In(entries * entry bits)
        A table; entry e, signed, lies at bit e times its width.
    largest : Out(entry bits)
        The largest magnitude, unsigned.
    """

    def __init__(self, cfg: TableQuantiserConfig):
        self.cfg = cfg
        super().__init__({
            "table": In(cfg.table_bits),
            "largest": Out(cfg.entry.bits),
        })

    def elaborate(self, platform):
        m = Module()
        bits = self.cfg.entry.bits
        level: list[Value] = []
        for number in range(self.cfg.entries):
            entry = self.table.word_select(number, bits)
            level.append(Mux(entry[-1], -entry.as_signed(), entry)[:bits])
        while len(level) > 1:
            level = [Mux(low > high, low, high)
                     for low, high in zip(level[::2], level[1::2], strict=True)]
        m.d.comb += self.largest.eq(level[0])
        return m


class ScaleDivider(wiring.Component):
    """Divides for a block: its scale and its inverse, one behind the other in one divider.

    Registers change in every cycle; reset clears them.

    Members
    -------
    largest : In(entry bits)
        The largest magnitude of the block, unsigned.
    inverse : In(1)
        Divide the largest code by it, otherwise it by the largest code.
    o : Out(32)
        The quotient in float32, rounded once, ``cfg.divider_cycles`` later.
    """

    def __init__(self, cfg: TableQuantiserConfig):
        self.cfg = cfg
        super().__init__({
            "largest": In(cfg.entry.bits),
            "inverse": In(1),
            "o": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        m.submodules.convert = convert = FloatUnit(
            FloatConfig(operation="convert", a=f"int{cfg.entry.bits + 1}"))
        m.submodules.code = code = FloatUnit(
            FloatConfig(operation="convert", a=f"int{cfg.code.bits}"))
        m.submodules.divide = divide = FloatUnit(
            FloatConfig(operation="divide", depth_cycles=cfg.divider_cycles))
        m.d.comb += [
            convert.a.eq(self.largest),
            code.a.eq(int(cfg.code.largest)),
            divide.en.eq(1),
            divide.a.eq(Mux(self.inverse, code.o, convert.o)),
            divide.b.eq(Mux(self.inverse, convert.o, code.o)),
            self.o.eq(divide.o),
        ]
        return m


class ScaledEntries(wiring.Component):
    """Multiplies the entries of a table by a float32 factor, then rounds them to integers.

    Reset clears the products.

    Members
    -------
    table : In(entries * entry bits)
        A table; entry e, signed, lies at bit e times its width.
    factor : In(32)
        The factor, float32.
    codes : Out(entries * code bits)
        The products of the cycle before, rounded to nearest, ties to even; code e at bit e times
        its width.
    """

    def __init__(self, cfg: TableQuantiserConfig):
        self.cfg = cfg
        super().__init__({
            "table": In(cfg.table_bits),
            "factor": In(32),
            "codes": Out(cfg.code_bits),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        codes = []
        for number in range(cfg.entries):
            m.submodules[f"multiply_{number}"] = multiply = FloatUnit(
                FloatConfig(operation="multiply", a=cfg.format))
            m.submodules[f"round_{number}"] = rounded = FloatUnit(
                FloatConfig(operation="convert", out=cfg.out_format))
            m.d.comb += [
                multiply.a.eq(self.table.word_select(number, cfg.entry.bits)),
                multiply.b.eq(self.factor),
            ]
            product = Signal(32, name=f"product_{number}")
            m.d.sync += product.eq(multiply.o)
            m.d.comb += rounded.a.eq(product)
            codes.append(rounded.o)
        m.d.comb += self.codes.eq(Cat(codes))
        return m


class TableQuantiser(wiring.Component):
    """Quantises blocks of ``block`` tables: scale = largest magnitude over largest code.

    Entries are multiplied by the rounded inverse and rounded to nearest, ties to even; a block of
    zeros has the scale 1. A block takes ``cfg.block_cycles``: its tables enter, two divisions
    follow, its scale leaves, then its codes, three cycles a table. Reset drops the block in work.

    Members
    -------
    i : In(stream)
        Tables; entry e, signed, at bit e times its width.
    o : Out(stream)
        The same tables quantised; code e, signed, at bit e times its width.
    o_scales : Out(stream)
        The float32 scale of each block, offered before its first codes.
    """

    def __init__(self, cfg: TableQuantiserConfig):
        self.cfg = cfg
        super().__init__({
            "i": In(stream.Signature(cfg.table_bits)),
            "o": Out(stream.Signature(cfg.code_bits)),
            "o_scales": Out(stream.Signature(32)),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        m.submodules.codes = codes = PairQueue(cfg.code_bits)
        m.submodules.scales = scales = PairQueue(32)
        m.submodules.magnitude = magnitude = Magnitude(cfg)
        m.submodules.divider = divider = ScaleDivider(cfg)
        m.submodules.entries = entries = ScaledEntries(cfg)
        m.submodules.kept = kept = memory.Memory(shape=cfg.table_bits, depth=cfg.block, init=[])
        write, read = kept.write_port(), kept.read_port()
        wiring.connect(m, codes.o, wiring.flipped(self.o))
        wiring.connect(m, scales.o, wiring.flipped(self.o_scales))

        largest = Signal(cfg.entry.bits)
        at, step = Signal(range(cfg.block + 1)), Signal(range(cfg.divider_cycles + 2))
        last = at == cfg.block - 1
        m.d.comb += [
            magnitude.table.eq(self.i.payload), write.data.eq(self.i.payload), write.addr.eq(at),
            divider.largest.eq(largest), divider.inverse.eq(step == 0), read.addr.eq(at),
            entries.table.eq(read.data), codes.i.payload.eq(entries.codes),
            scales.i.payload.eq(Mux(largest == 0, ONE, divider.o)),
        ]
        with m.FSM() as fsm:  # Icarus looks into the states only when they change: outputs apart
            m.d.comb += [
                self.i.ready.eq(fsm.ongoing("fill")), write.en.eq(self.i.valid & self.i.ready),
                scales.i.valid.eq(fsm.ongoing("scale")), codes.i.valid.eq(fsm.ongoing("send"))]
            with m.State("fill"):
                with m.If(self.i.valid):
                    below = (at != 0) & (magnitude.largest < largest)
                    m.d.sync += [at.eq(Mux(last, 0, at + 1)), step.eq(0),
                                 largest.eq(Mux(below, largest, magnitude.largest))]
                    with m.If(last):
                        m.next = "divide"
            with m.State("divide"):
                m.d.sync += step.eq(step + 1)
                with m.If(step == cfg.divider_cycles):
                    m.d.sync += entries.factor.eq(Mux(largest == 0, 0, divider.o))
                    m.next = "scale"
            with m.State("scale"):
                with m.If(scales.i.ready):
                    m.next = "read"
            for state, behind in (("read", "multiply"), ("multiply", "send")):
                with m.State(state):
                    m.next = behind
            with m.State("send"):
                with m.If(codes.i.ready):
                    m.d.sync += at.eq(Mux(last, 0, at + 1))
                    m.next = "read"
                    with m.If(last):
                        m.next = "fill"
        return m
