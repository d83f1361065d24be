"""One lane of the vector unit: its row registers, its running total, its units."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from hw.vector_operands import PREPARE, Operands
from hw.vector_units import OPERATE, SEND, Sender, Units
from machine.vector_core import VectorCoreConfig

__all__ = ["Lane", "address_bits", "layouts"]

REGISTERS = 8  # of a row


def address_bits(cfg: VectorCoreConfig) -> int:
    """Bits of the address of a beat of a row register: the beat below, the register above."""
    return (REGISTERS * cfg.row_beats - 1).bit_length()


def layouts(cfg: VectorCoreConfig) -> dict[str, data.StructLayout]:
    """What all lanes are told, by the cycle after a beat's issue in which they need it."""
    address = address_bits(cfg)
    return {
        "read": data.StructLayout({"a": address, "b": address}),  # 0: row registers
        "prepare": PREPARE,  # 1: operands
        "operate": OPERATE,  # 2: units
        # ``latency_cycles``: the result
        "write": data.StructLayout({"op": 5, "row": 1, "address": address, "total": 1}),
        "send": SEND,  # one more: what is sent
    }


class Lane(wiring.Component):
    """One lane: eight registers of its share of a row, a running total, and the units.

    A result is written ``cfg.latency_cycles`` after the issue of its beat, and sent one cycle
    later; throughput is one beat a cycle. Reset clears the running total and leaves the row
    registers.

    Members
    -------
    read : In(StructLayout)
        Addresses of both row registers, in the cycle of the issue.
    prepare : In(StructLayout)
        What makes the operands, one cycle later.
    operate : In(StructLayout)
        What the units begin, two cycles later.
    write : In(StructLayout)
        What becomes of the result, ``cfg.latency_cycles`` later.
    send : In(StructLayout)
        How it is sent, one more later.
    x : In(32)
        Element of x, one cycle after the issue.
    y : In(32)
        Element of y.
    across : In(32)
        Running total of a lane further on.
    turn : In(32)
        The element to be added in sequential order; minus 0 in all lanes but the first.
    visible : In(1)
        The row's query sees this element.
    inside : In(1)
        The element lies within the width.
    lane : In(7)
        Which lane this is; constant.
    element : Out(32)
        Row register of operand a, one cycle after the issue.
    total : Out(32)
        Running total.
    result : Out(32)
        Result, ``cfg.latency_cycles`` after the issue.
    o : Out(32)
        Result in the format it is sent in, one cycle later.
    """

    @staticmethod
    def ports(cfg: VectorCoreConfig) -> wiring.Signature:
        """Return the signature of a lane of `cfg`."""
        return wiring.Signature({
            **{name: In(layout) for name, layout in layouts(cfg).items()},
            **{name: In(32) for name in ("x", "y", "across", "turn")},
            **{name: In(1) for name in ("visible", "inside")}, "lane": In(7),
            **{name: Out(32) for name in ("element", "total", "result", "o")},
        })

    def __init__(self, cfg: VectorCoreConfig):
        self.cfg = cfg
        super().__init__(self.ports(cfg))

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg

        # Row registers.
        m.submodules.rows = rows = memory.Memory(
            shape=32, depth=1 << address_bits(cfg), init=[])
        read_a, read_b, write = rows.read_port(), rows.read_port(), rows.write_port()
        m.d.comb += [read_a.addr.eq(self.read.a), read_b.addr.eq(self.read.b),
                     read_a.en.eq(1), read_b.en.eq(1), self.element.eq(read_a.data)]

        # Operands.
        m.submodules.operands = operands = Operands()
        m.d.comb += [operands.control.eq(self.prepare), operands.row_a.eq(read_a.data),
                     operands.row_b.eq(read_b.data), operands.total.eq(self.total)]
        m.d.comb += [getattr(operands, name).eq(getattr(self, name))
                     for name in ("x", "y", "across", "turn", "visible", "inside")]
        lane_bits = cfg.lanes.bit_length() - 1
        m.d.comb += operands.element.eq(Cat(self.lane[:lane_bits], self.prepare.beat))
        a, b = Signal(32), Signal(32)
        m.d.sync += [a.eq(operands.a), b.eq(operands.b)]

        # Units; the result, and where it goes.
        m.submodules.units = units = Units(cfg)
        m.d.comb += [units.operate.eq(self.operate), units.a.eq(a), units.b.eq(b),
                     units.first_lane.eq(self.lane == 0), units.op.eq(self.write.op),
                     self.result.eq(units.o), write.en.eq(self.write.row),
                     write.addr.eq(self.write.address), write.data.eq(self.result)]
        with m.If(self.write.total):
            m.d.sync += self.total.eq(self.result)
        m.submodules.sender = sender = Sender()
        m.d.comb += [sender.i.eq(self.result), sender.send.eq(self.send), self.o.eq(sender.o)]
        return m
