"""The global vector buffer of a channel that computes: filled from a row, read by dot products."""

from amaranth.hdl import Module
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from machine.pim import PimConfig

__all__ = ["VectorBuffer"]


class VectorBuffer(wiring.Component):
    """Columns of the vector, one for all banks at a time, in a memory.

    Latency is one cycle, throughput a column a cycle on each side. A column that is written is
    read from the next cycle on. Reset clears nothing.

    Members
    -------
    write : In(1)
        A column is written; one past the end is not.
    write_slot : In(bits)
        Where.
    data : In(bits)
        That column.
    slot : In(bits)
        Column that is read.
    o : Out(bits)
        The column that was read in the cycle before.
    """

    def __init__(self, pim: PimConfig):
        self.pim = pim
        bits, slot = 8 * pim.unit.column_bytes, bits_for(pim.buffer_columns)
        super().__init__({"write": In(1), "write_slot": In(slot), "data": In(bits),
                          "slot": In(slot), "o": Out(bits)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.columns = columns = memory.Memory(
            shape=len(self.data), depth=self.pim.buffer_columns, init=[])
        port = columns.write_port()
        m.d.comb += [port.addr.eq(self.write_slot), port.data.eq(self.data),
                     port.en.eq(self.write & (self.write_slot < self.pim.buffer_columns))]
        port = columns.read_port()
        m.d.comb += [port.addr.eq(self.slot), self.o.eq(port.data)]
        return m
