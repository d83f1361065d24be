"""Operands of the vector unit: from where they are to what the units take."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from hw.float_unit import FloatUnit
from machine import approx
from machine.floats import FloatConfig
from machine.formats import FORMATS
from machine.vector_core import INPUT_FORMATS
from machine.vector_microcode import Op, Place, Table

__all__ = ["PREPARE", "Operands", "Reader", "Tables"]

NOTHING, MINUS_ZERO = 0xFF800000, 0x80000000  # minus infinity; what changes no sum
TWO_23 = 0x4B000000

# What the lanes are told one cycle after a beat's issue.
PREPARE = data.StructLayout({
    "op": 5, "first": 1, "in_turn": 1, "beat": 16, "immediate": 32, "x_format": 4, "y_format": 4,
    "a_place": 4, "a_table": 4, "a_negated": 1, "a_magnitude": 1, "a_all": 32,
    "b_place": 4, "b_negated": 1, "b_magnitude": 1, "b_all": 32,
})


class Tables(wiring.Component):
    """What becomes of the bits of operand a before its sign. No registers.

    Members
    -------
    table : In(4)
        ``machine.vector_microcode.Table``.
    visible : In(1)
        The row's query sees this element.
    element : In(16)
        Its place in the row.
    i : In(32)
        The operand.
    o : Out(32)
        What it becomes.
    """

    def __init__(self):
        super().__init__({"table": In(4), "visible": In(1), "element": In(16), "i": In(32),
                          "o": Out(32)})

    def elaborate(self, platform):
        m = Module()
        word = self.i
        m.submodules.powers = powers = memory.Memory(
            shape=64, depth=32, init=[high | low << 32 for high, low in
                                      zip(approx.EXP_HIGH, approx.EXP_LOW, strict=True)])
        m.submodules.sines = sines = memory.Memory(shape=32, depth=129, init=approx.SINE)
        power = powers.read_port(domain="comb")
        sine = sines.read_port(domain="comb")
        step = word[20:27]
        m.d.comb += [power.addr.eq(word[:5]),
                     sine.addr.eq(Mux(self.table == Table.COSINE, 128 - step, step))]

        exponent = word[5:14].as_signed()
        first = exponent >> 1
        with m.Switch(self.table):
            for table, value in (
                (Table.EXP_HIGH, power.data[:32]), (Table.EXP_LOW, power.data[32:]),
                (Table.TWO_FIRST, Cat(Const(0, 23), (first + 127)[:8])),
                (Table.TWO_SECOND, Cat(Const(0, 23), (exponent - first + 127)[:8])),
                (Table.LOW_HALF, Cat(word[:16], Const(TWO_23 >> 16, 16))),
                (Table.HIGH_HALF, Cat(word[16:] ^ 0x8000, Const(TWO_23 >> 16, 16))),
                (Table.HEAD, Cat(Const(0, 12), (word[11:] + 1)[1:21])),
                (Table.VISIBLE, Mux(self.visible, word, NOTHING)),
                (Table.SINE, sine.data), (Table.COSINE, sine.data),
                (Table.REST_HIGH, Cat(word[:20], Const(TWO_23 >> 20, 12))),
                (Table.ELEMENT, Cat(self.element, Const(TWO_23 >> 16, 16))),
                (Table.LOW_BITS, word[:23]),
            ):
                with m.Case(table):
                    m.d.comb += self.o.eq(value)
            with m.Default():
                m.d.comb += self.o.eq(word)
        return m


class Reader(wiring.Component):
    """An element of a stream as float32, or of an integer format as int32. No registers.

    Members
    -------
    format : In(4)
        Number of its format in ``machine.vector_core.INPUT_FORMATS``.
    i : In(32)
        Code, in the low bits.
    o : Out(32)
        Float32 or int32.
    """

    def __init__(self):
        super().__init__({"format": In(4), "i": In(32), "o": Out(32)})

    def elaborate(self, platform):
        m = Module()
        values = {}
        for number, name in enumerate(INPUT_FORMATS):
            fmt = FORMATS[name]
            code = self.i[: fmt.bits]
            if name == "bfloat16":
                values[number] = code << 16
            elif fmt.is_float and fmt.bits < 32:
                m.submodules[name] = unit = FloatUnit(FloatConfig(operation="convert", a=name))
                m.d.comb += unit.a.eq(code)
                values[number] = unit.o
            elif fmt.bits < 32:
                values[number] = code.as_signed() if fmt.signed else code
        with m.Switch(self.format):
            for number, value in values.items():
                with m.Case(number):
                    m.d.comb += self.o.eq(value)
            with m.Default():
                m.d.comb += self.o.eq(self.i)
        return m


class Operands(wiring.Component):
    """Operands of one beat in one lane, from where they are to what the units take. No registers.

    Members
    -------
    control : In(StructLayout)
        What the step says, `PREPARE`.
    row_a : In(32)
        Row register of operand a.
    row_b : In(32)
        Row register of operand b.
    x : In(32)
        Element of x, in its format.
    y : In(32)
        Element of y, in its format.
    total : In(32)
        Running total.
    across : In(32)
        Running total of a lane further on.
    turn : In(32)
        The element to be added in sequential order.
    visible : In(1)
        The row's query sees this element.
    inside : In(1)
        The element lies within the width.
    element : In(16)
        Its place in the row.
    a : Out(32)
        Operand a.
    b : Out(32)
        Operand b.
    """

    def __init__(self):
        words = {name: In(32) for name in ("row_a", "row_b", "x", "y", "total", "across", "turn")}
        super().__init__({"control": In(PREPARE), **words, "visible": In(1),
                          "inside": In(1), "element": In(16), "a": Out(32), "b": Out(32)})

    def elaborate(self, platform):
        m = Module()
        control = self.control

        # Elements of the streams become float32, integers 32 bits.
        streams = {}
        for name in ("x", "y"):
            m.submodules[f"read_{name}"] = reader = Reader()
            m.d.comb += [reader.format.eq(control[f"{name}_format"]),
                         reader.i.eq(getattr(self, name))]
            streams[name] = reader.o

        # Choose; a total's first beat finds what changes nothing.
        adds = control.op == Op.ADD
        neutral = Mux(adds, MINUS_ZERO, NOTHING)
        chosen = {name: Signal(32, name=f"chosen_{name}") for name in "ab"}
        for name, word in chosen.items():
            with m.Switch(control[f"{name}_place"]):
                for place, value in (
                    (Place.ROW, getattr(self, f"row_{name}")), (Place.ALL, control[f"{name}_all"]),
                    (Place.X, streams["x"]), (Place.Y, streams["y"]),
                    (Place.IMMEDIATE, control.immediate), (Place.ACROSS, self.across),
                    (Place.TOTAL, Mux(control.first, neutral, self.total) if name == "b"
                     else self.total),
                ):
                    with m.Case(place):
                        m.d.comb += word.eq(value)

        # Tables, signs; elements outside the width change no total.
        m.submodules.tables = tables = Tables()
        m.d.comb += [tables.table.eq(control.a_table), tables.visible.eq(self.visible),
                     tables.element.eq(self.element),
                     tables.i.eq(chosen["a"])]
        a = Signal(32)
        m.d.comb += a.eq(_signed(tables.o, control.a_negated, control.a_magnitude))
        reducing = control.b_place == Place.TOTAL
        outside = Mux(adds, 0, NOTHING)
        m.d.comb += self.a.eq(Mux(reducing & control.in_turn, self.turn,
                                  Mux(reducing & ~self.inside, outside, a)))
        m.d.comb += self.b.eq(_signed(chosen["b"], control.b_negated, control.b_magnitude))
        return m


def _signed(word, negated, magnitude):
    """Return `word` with the sign that a step asks for."""
    return Cat(word[:31], (word[31] & ~magnitude) ^ negated)
