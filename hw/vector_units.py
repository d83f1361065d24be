"""Units of a lane of the vector unit: two operands to one result, and a result to what is sent."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.float_unit import FloatUnit
from hw.recurrence import Phase, Recurrence
from machine.floats import FloatConfig
from machine.formats import FORMATS
from machine.vector_core import OUTPUT_FORMATS, VectorCoreConfig
from machine.vector_microcode import Op

__all__ = ["OPERATE", "SEND", "Selection", "Sender", "Units"]

NAN, ONE, NOTHING, MINUS_ZERO = 0x7FC00000, 0x3F800000, 0xFF800000, 0x80000000
INFINITY = 0x7F800000
TINY = 27 << 23  # 2**-100
TWO_23 = 0x4B000000

# What the lanes are told two cycles after a beat's issue, and when its result is sent.
OPERATE = data.StructLayout({"op": 5, "divide": 1, "root": 1, "phase": 1, "position": 32})
SEND = data.StructLayout({"format": 4, "word": 1, "saturate": 1})


class Selection(wiring.Component):
    """The operations that choose between numbers or change a sign. No registers.

    Members
    -------
    op : In(5)
        Operation, ``machine.vector_microcode.Op``.
    a : In(32)
        Operand a.
    b : In(32)
        Operand b.
    first_lane : In(1)
        This is lane 0.
    o : Out(32)
        Result.
    """

    def __init__(self):
        super().__init__({"op": In(5), "a": In(32), "b": In(32), "first_lane": In(1),
                          "o": Out(32)})

    def elaborate(self, platform):
        m = Module()
        a, b = self.a, self.b
        nan_a, nan_b = (word[:31] > 0x7F800000 for word in (a, b))
        zero_a, zero_b = ~a[:31].any(), ~b[:31].any()
        same = (a == b) & ~nan_a | zero_a & zero_b

        # As unsigned numbers in the order of the floats; -0 below 0.
        key_a, key_b = (Mux(word[31], ~word, word | MINUS_ZERO) for word in (a, b))
        above = key_a > key_b
        quadrant = a[27:29]
        with m.Switch(self.op):
            for op, value in (
                (Op.MAX, Mux(nan_a | nan_b, NAN, Mux(above, a, b))),
                (Op.MIN, Mux(nan_a | nan_b, NAN, Mux(above, b, a))),
                (Op.SIGN, Cat(b[:31], a[31])),
                (Op.PAIR, Mux(self.first_lane, a, b)),
                (Op.NOTHING_IS_0, Mux(a == NOTHING, 0, b)),
                (Op.ZERO_IS_0, Mux(zero_a, 0, b)),
                (Op.TINY_IS_0, Mux(a[:31] <= TINY, 0, b)),
                (Op.TINY_IS_1, Mux(a[:31] <= TINY, ONE, b)),
                (Op.RISING_IS_1, Mux(a[31] & ~zero_a & ~nan_a, b, ONE)),
                (Op.ODD_IS_0, Mux(quadrant[0], 0, b)),
                (Op.EVEN_IS_0, Mux(quadrant[0], b, 0)),
                (Op.COSINE_SIGN, b ^ Cat(Const(0, 31), quadrant[0] ^ quadrant[1])),
                (Op.SAME, Mux(same, NOTHING, INFINITY)),
                (Op.NOTHING_STAYS, Mux(a == NOTHING, NOTHING, b)),
                (Op.SINE_SIGN, b ^ Cat(Const(0, 31), quadrant[1])),
            ):
                with m.Case(op):
                    m.d.comb += self.o.eq(value)
            with m.Default():
                m.d.comb += self.o.eq(a)
        return m


class Units(wiring.Component):
    """All operations of a lane.

    Latency is ``cfg.unit_cycles``; an iterating unit begins with its mark in ``operate`` and holds
    its result (``hw.recurrence``). Reset clears the pipelines.

    Members
    -------
    operate : In(StructLayout)
        What begins, `OPERATE`.
    a : In(32)
        Operand a.
    b : In(32)
        Operand b.
    first_lane : In(1)
        This is lane 0.
    op : In(5)
        The operation whose result is asked for.
    o : Out(32)
        Result.
    """

    def __init__(self, cfg: VectorCoreConfig):
        self.cfg = cfg
        super().__init__({"operate": In(OPERATE), "a": In(32), "b": In(32), "first_lane": In(1),
                          "op": In(5), "o": Out(32)})

    def elaborate(self, platform):
        m = Module()
        a, b, depth = self.a, self.b, self.cfg.unit_cycles
        m.submodules.add = adder = FloatUnit(FloatConfig(operation="add", depth_cycles=depth))
        m.submodules.multiply = multiplier = FloatUnit(
            FloatConfig(operation="multiply", depth_cycles=depth))
        m.submodules.divide = divider = Recurrence(FloatConfig(operation="divide"))
        m.submodules.root = root = Recurrence(FloatConfig(operation="square_root"))
        for unit in (adder, multiplier, divider, root):
            m.d.comb += [unit.a.eq(a), unit.b.eq(b)]
        m.d.comb += [adder.en.eq(1), multiplier.en.eq(1), divider.start.eq(self.operate.divide),
                     root.start.eq(self.operate.root)]
        m.submodules.phase = phase = Phase()
        m.d.comb += [phase.start.eq(self.operate.phase), phase.position.eq(self.operate.position),
                     phase.step.eq(Cat(a[:24], b[:24]))]

        # A selection takes no time; it waits as long as a sum.
        m.submodules.selection = selection = Selection()
        m.d.comb += [selection.op.eq(self.operate.op), selection.a.eq(a), selection.b.eq(b),
                     selection.first_lane.eq(self.first_lane)]
        selected = selection.o
        for stage in range(depth):
            later = Signal(32, name=f"selected_{stage}")
            m.d.sync += later.eq(selected)
            selected = later

        with m.Switch(self.op):
            for op, value in (
                (Op.ADD, adder.o), (Op.MULTIPLY, multiplier.o), (Op.DIVIDE, divider.o),
                (Op.ROOT, root.o), (Op.PHASE_HIGH, phase.o[19:]),
                (Op.PHASE_LOW, Cat(phase.o[:19], Const(TWO_23 >> 19, 13))),
            ):
                with m.Case(op):
                    m.d.comb += self.o.eq(value)
            with m.Default():
                m.d.comb += self.o.eq(selected)
        return m


class Sender(wiring.Component):
    """Brings a result into the format it is sent in, one cycle later. Reset clears it.

    Members
    -------
    i : In(32)
        Result.
    send : In(StructLayout)
        One cycle later: `SEND`, the command's format, whether it is float32 all the same, and
        whether infinity becomes the largest finite number of a narrower format.
    o : Out(32)
        Code, in the cycle of ``send``.
    """

    def __init__(self):
        super().__init__({"i": In(32), "send": In(SEND), "o": Out(32)})

    def elaborate(self, platform):
        m = Module()
        word = Signal(32)
        m.d.sync += word.eq(self.i)
        narrow = {}
        nan = word[:31] > INFINITY
        for name in OUTPUT_FORMATS[1:]:
            fmt = FORMATS[name]
            if not fmt.is_float:
                narrow[name] = word[: fmt.bits]
                continue
            m.submodules[f"to_{name}"] = unit = FloatUnit(
                FloatConfig(operation="convert", out=name))
            m.d.comb += unit.a.eq(word)
            # Overflow is the code behind the largest finite one: infinity, or the only NaN.
            size = fmt.bits - 1
            beyond = (1 << size) - (1 << fmt.mantissa_bits if fmt.has_inf else 1)
            stops = self.send.saturate & (unit.o[:size] == beyond) & ~nan
            narrow[name] = Mux(stops, Cat(Const(beyond - 1, size), word[31]), unit.o)
        with m.Switch(Mux(self.send.word, 0, self.send.format)):
            for name, value in narrow.items():
                with m.Case(OUTPUT_FORMATS.index(name)):
                    m.d.comb += self.o.eq(value)
            with m.Default():
                m.d.comb += self.o.eq(Mux(nan, NAN, word))
        return m
