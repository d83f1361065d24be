"""Scalar registers of a queue and the arithmetic on them."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from machine.front_end import FrontEndConfig
from machine.opcodes import Alu
from machine.program import LOOP_LEVELS, REGISTERS

__all__ = ["BITS", "LongArithmetic", "Registers", "Scalar"]

BITS = 64  # of a register


class Registers(wiring.Component):
    """Registers of 64 bits; a value that is written can be read in the next cycle.

    Reset and ``clear`` make every register 0.

    Members
    -------
    clear : In(1)
        Every register becomes 0.
    write : In(1)
        ``rd`` becomes ``value``.
    rd : In(range(REGISTERS))
        The register that is written.
    value : In(signed(BITS))
        What it becomes.
    read : In(range(REGISTERS))
        One a port: the register that is read.
    found : Out(signed(BITS))
        One a port: its value, in the same cycle.
    """

    def __init__(self, ports: int):
        self.ports = ports
        super().__init__({
            "clear": In(1),
            "write": In(1),
            "rd": In(range(REGISTERS)),
            "value": In(BITS),
            "read": In(range(REGISTERS)).array(ports),
            "found": Out(BITS).array(ports),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=BITS, depth=REGISTERS, init=())
        written = Signal(REGISTERS)  # the others are 0, whatever the memory holds

        port = memory.write_port()
        m.d.comb += [port.en.eq(self.write), port.addr.eq(self.rd), port.data.eq(self.value)]
        with m.If(self.write):
            m.d.sync += written.bit_select(self.rd, 1).eq(1)
        with m.If(self.clear):
            m.d.sync += written.eq(0)
        for read, found in zip(self.read, self.found, strict=True):
            port = memory.read_port(domain="comb")
            m.d.comb += [
                port.addr.eq(read),
                found.eq(Mux(written.bit_select(read, 1), port.data, 0)),
            ]
        return m


class LongArithmetic(wiring.Component):
    """Product and quotient of two registers, a bit a cycle.

    ``result`` is there ``LONG_CYCLES`` - 1 cycles after ``start`` and stays until the next one.
    Reset makes it 0.

    Members
    -------
    start : In(1)
        Take ``a`` and ``b``; what is under way is dropped.
    divide : In(1)
        Divide, rounding up, 0 for b = 0; else multiply.
    a : In(signed(BITS))
        The dividend, or a factor.
    b : In(signed(BITS))
        The divisor, or a factor.
    result : Out(signed(BITS))
        The low bits of the result.
    """

    def __init__(self):
        super().__init__({
            "start": In(1), "divide": In(1), "a": In(BITS), "b": In(BITS), "result": Out(BITS),
        })

    def elaborate(self, platform):
        m = Module()
        steps = Signal(range(BITS + 1))
        divides, negative, by_zero = Signal(), Signal(), Signal()
        high = Signal(BITS + 1)  # the sum, or the remainder
        low = Signal(BITS)  # the factor that is left, or the quotient
        other = Signal(BITS)  # the factor, moved up, or the divisor

        # Products need no signs; quotients are made of magnitudes.
        with m.If(self.start):
            minus_a, minus_b = self.divide & self.a[-1], self.divide & self.b[-1]
            m.d.sync += [
                steps.eq(BITS),
                divides.eq(self.divide),
                negative.eq(self.a[-1] ^ self.b[-1]),
                by_zero.eq(self.b == 0),
                high.eq(0),
                low.eq(Mux(minus_a, -self.a, self.a)),
                other.eq(Mux(minus_b, -self.b, self.b)),
            ]
        with m.Elif(steps != 0):
            m.d.sync += steps.eq(steps - 1)
            shifted = Cat(low[-1], high[:BITS])
            fits = Signal()
            m.d.comb += fits.eq(shifted >= other)
            with m.If(divides):
                m.d.sync += [
                    high.eq(Mux(fits, shifted - other, shifted)),
                    low.eq(Cat(fits, low[:-1])),
                ]
            with m.Else():
                m.d.sync += [
                    high.eq(Mux(low[0], high + other, high)[:BITS]),
                    low.eq(low[1:]),
                    other.eq(other << 1),
                ]

        # Rounding up: the next greater one if something is left of a positive quotient.
        quotient = Mux(negative, -low, low + (high != 0))[:BITS]
        m.d.comb += self.result.eq(
            Mux(divides, Mux(by_zero, 0, quotient), high[:BITS]))
        return m


class Scalar(wiring.Component):
    """What a SCALAR puts into its register, but for products and quotients; combinational.

    Members
    -------
    alu : In(Alu)
        What to do.
    a : In(signed(BITS))
        Register ``ra``.
    b : In(signed(BITS))
        The number or register b.
    launch : In(signed(BITS))
        Entry b of the launch table.
    index : In(index_bits)
        One a level: the loop index.
    long : In(signed(BITS))
        The product or the quotient.
    is_long : Out(1)
        ``result`` is ``long``.
    result : Out(signed(BITS))
        What the register becomes.
    """

    def __init__(self, cfg: FrontEndConfig):
        self.cfg = cfg
        super().__init__({
            "alu": In(5),
            "a": In(BITS),
            "b": In(BITS),
            "launch": In(BITS),
            "index": In(cfg.index_bits).array(LOOP_LEVELS),
            "long": In(BITS),
            "is_long": Out(1),
            "result": Out(BITS),
        })

    def elaborate(self, platform):
        m = Module()
        a, b = self.a.as_signed(), self.b.as_signed()
        less = Signal()
        index = Array([*self.index, Const(0, 1)])
        m.d.comb += less.eq(a < b)
        with m.Switch(self.alu):
            for alu, result in (
                (Alu.SET, b), (Alu.LAUNCH, self.launch), (Alu.ADD, a + b), (Alu.SUB, a - b),
                (Alu.MIN, Mux(less, a, b)), (Alu.MAX, Mux(less, b, a)), (Alu.LT, less),
                (Alu.EQ, a == b), (Alu.INDEX, index[self.b[:3]]),
                (Alu.WRAP, Mux(less, a, a - b)),
            ):
                with m.Case(alu):
                    m.d.comb += self.result.eq(result)
            with m.Case(Alu.MUL, Alu.CEILDIV):
                m.d.comb += [self.is_long.eq(1), self.result.eq(self.long)]
        return m
