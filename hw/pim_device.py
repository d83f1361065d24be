"""The memory of a channel that computes, behind its command bus: banks, vector buffer, units."""

from amaranth.hdl import Array, Cat, ClockSignal, Const, Instance, Module, Mux, ResetSignal, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.pim_banks import BankArray, BankCells, BankWords
from hw.pim_buffer import VectorBuffer
from hw.pim_check import fault_layout
from hw.pim_queue import command_layout
from hw.pim_unit import BankUnit, column_layout, parts_of
from machine.config import require
from machine.dram import DramConfig
from machine.formats import FORMATS
from machine.pim import PIM_COMMANDS, PimConfig

__all__ = ["ColumnSequence", "LatchLine", "PimDevice", "check_device", "device_parts",
           "result_bits"]


def result_bits(dram: DramConfig, pim: PimConfig) -> int:
    """Return the bits of a result read: the latches of all banks, bank b at lane b."""
    return dram.banks * FORMATS[pim.unit.acc_format].bits


def check_device(dram: DramConfig, pim: PimConfig) -> None:
    """Raise ``ValueError`` naming the numbers if there is no RTL of a channel of `dram`."""
    pim.check(dram)
    require(pim.bundle_banks == 1, "bundle_banks", "1, a unit in each bank", pim.bundle_banks)
    require(pim.hold == "last_dot", "hold", "last_dot: what is read stays open", pim.hold)
    require(not dram.two_cycle, "two_cycle", "empty: a command is one cycle", dram.two_cycle)
    columns = pim.row_columns(dram)
    BankWords.of(dram, pim)
    require(pim.gwrite_cycles > columns, "gwrite_cycles",
            f"more than {columns}, the columns of a row", pim.gwrite_cycles)
    least = _sum_cycles(pim) + 3
    require(dram.timing.cl_cycles + dram.burst_cycles >= least, "cycles of CL and burst",
            f"at least {least}, for a sum to be read in time",
            dram.timing.cl_cycles + dram.burst_cycles)


def _sum_cycles(pim: PimConfig) -> int:
    """Return when the latches are looked at after their read: the units see a column one later."""
    return 1 + max(pim.unit.latency_cycles - pim.dot_cycles, 0)


class ColumnSequence(wiring.Component):
    """What DOT, GEMV, READRES and GWRITE do in each cycle; a function of the last command.

    GEMV of d columns in cycle t reads them in t, t + dot, ..., with ``pim.dot_cycles`` between,
    and the latches in t + d * dot. GWRITE in cycle t copies a column a cycle from t on, to the end
    of the row or of the buffer. Reset: nothing is under way.

    Members
    -------
    i : In(stream)
        Commands (`command_layout`). Always ready.
    dot : Out(1)
        Every bank reads a column for its unit.
    first : Out(1)
        The units start from +0 with it.
    copy : Out(1)
        A column is copied to the buffer.
    bank : Out(bits)
        The bank it is copied from.
    column : Out(bits)
        The column of the row.
    slot : Out(bits)
        The column of the buffer.
    read : Out(1)
        The latches are read.
    """

    def __init__(self, dram: DramConfig, pim: PimConfig):
        self.dram = dram
        self.pim = pim
        layout = command_layout(dram, pim)
        super().__init__({
            "i": In(stream.Signature(layout.size)), "dot": Out(1), "first": Out(1),
            "copy": Out(1), "bank": Out(layout["bank"].width),
            "column": Out(layout["column"].width), "slot": Out(layout["slot"].width),
            "read": Out(1)})

    def elaborate(self, platform):
        m = Module()
        command = data.View(command_layout(self.dram, self.pim), self.i.payload)
        here = {name: self.i.valid & (command.command == PIM_COMMANDS.index(name))
                for name in ("DOT", "GEMV", "READRES", "GWRITE")}
        columns, slot_cycles = self.pim.row_columns(self.dram), self.pim.dot_cycles

        # The places of this cycle: those of the command, or the next ones.
        column, slot, bank = (Signal.like(part) for part in (self.column, self.slot, self.bank))
        begins = here["DOT"] | here["GEMV"] | here["GWRITE"]
        m.d.comb += [self.i.ready.eq(1), self.column.eq(Mux(begins, command.column, column)),
                     self.slot.eq(Mux(begins, command.slot, slot)),
                     self.bank.eq(Mux(begins, command.bank, bank))]
        m.d.sync += [bank.eq(self.bank), column.eq(self.column), slot.eq(self.slot)]
        with m.If(self.dot | self.copy):
            m.d.sync += [column.eq(self.column + 1), slot.eq(self.slot + 1)]

        # A composite: its columns, then the read, a step every `dot_cycles`.
        left, wait = Signal.like(command.dots), Signal(range(slot_cycles))
        under_way, step = Signal(), Signal()
        m.d.comb += [
            step.eq(under_way & (wait == 0)),
            self.dot.eq(here["DOT"] | here["GEMV"] | step & (left != 0)),
            self.first.eq((here["DOT"] | here["GEMV"]) & command.first),
            self.read.eq(here["READRES"] | step & (left == 0))]
        with m.If(here["GEMV"] | step):
            m.d.sync += [left.eq(Mux(here["GEMV"], command.dots, left) - 1),
                         wait.eq(slot_cycles - 1),
                         under_way.eq(here["GEMV"] | (left != 0))]
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)

        # A copy, to the end of the row or of the buffer.
        copies = Signal()
        last = (self.column == columns - 1) | (self.slot == self.pim.buffer_columns - 1)
        m.d.comb += self.copy.eq(here["GWRITE"] | copies)
        m.d.sync += copies.eq(self.copy & ~last)
        return m


class LatchLine(wiring.Component):
    """Results on their way from the latches to the data bus.

    A read in cycle t is there in cycle t + CL + burst - 1, the last of its burst on the bus; the
    latches are looked at as soon as the sum of a column ``pim.dot_cycles`` before t is in them.
    Throughput is a read every ``pim.dot_cycles``. Reset: none is on its way.

    Members
    -------
    read : In(1)
        The latches are read.
    latches : In(bits)
        What they hold.
    o : Out(stream)
        What was read; ``ready`` is not looked at.
    """

    def __init__(self, dram: DramConfig, pim: PimConfig):
        self.dram = dram
        self.pim = pim
        bits = result_bits(dram, pim)
        self.sum_cycles = _sum_cycles(pim)
        self.bus_cycles = dram.timing.cl_cycles + dram.burst_cycles - 1
        super().__init__({"read": In(1), "latches": In(bits), "o": Out(stream.Signature(bits))})

    def elaborate(self, platform):
        m = Module()
        depth = 1 << bits_for(self.bus_cycles // self.pim.dot_cycles + 1)
        m.submodules.held = held = memory.Memory(shape=len(self.latches), depth=depth, init=[])
        line = Signal(self.bus_cycles)  # bit k: a read k + 1 cycles ago
        m.d.sync += line.eq(Cat(self.read, line))

        # Into the memory when the sum is there, out of it for the bus.
        enter, leave = held.write_port(), held.read_port()
        m.d.comb += [enter.en.eq(line[self.sum_cycles - 1]), enter.data.eq(self.latches)]
        with m.If(enter.en):
            m.d.sync += enter.addr.eq(enter.addr + 1)
        with m.If(line[-2]):
            m.d.sync += leave.addr.eq(leave.addr + 1)
        m.d.comb += [self.o.valid.eq(line[-1]), self.o.payload.eq(leave.data)]
        return m


class PimDevice(wiring.Component):
    """The bank array, the global vector buffer and a bank unit a bank, moved by commands.

    Columns and vector are read in the cycle of a dot product (`ColumnSequence`), the units take
    them in the next, and a result is at ``o_results`` as of `LatchLine`. Data of the host: as of
    `BankArray`. Reset closes all rows, empties the units and keeps what is stored.

    Parameters
    ----------
    library : str or None
        If given, cells and units are instances of the modules ``<library>_cells`` and
        ``<library>_unit`` of `device_parts`.

    Members
    -------
    i : In(stream)
        Commands (`command_layout`), each in the cycle in which it is issued. Always ready.
    i_data : In(stream)
        Beats to write, taken in the cycles in which the bus carries them.
    o_data : Out(stream)
        Beats that are read; ``ready`` is not looked at.
    o_results : Out(stream)
        Latches that are read, bank b at lane b; ``ready`` is not looked at.
    o_fault : Out(stream)
        Faults, as of `CommandCheck`.
    """

    def __init__(self, dram: DramConfig, pim: PimConfig, library: str | None = None):
        check_device(dram, pim)
        self.dram = dram
        self.pim = pim
        self.library = library
        beat = BankWords.of(dram, pim).beat_bits
        super().__init__({
            "i": In(stream.Signature(command_layout(dram, pim).size)),
            "i_data": In(stream.Signature(beat)), "o_data": Out(stream.Signature(beat)),
            "o_results": Out(stream.Signature(result_bits(dram, pim))),
            "o_fault": Out(stream.Signature(fault_layout(dram, pim).size)),
        })

    def elaborate(self, platform):
        m = Module()
        both = self.dram, self.pim
        m.submodules.array = array = BankArray(*both, library=self.library)
        m.submodules.sequence = sequence = ColumnSequence(*both)
        m.submodules.buffer = buffer = VectorBuffer(self.pim)
        m.submodules.line = line = LatchLine(*both)

        # Commands to the banks and to the sequence; the host's data passes by.
        m.d.comb += self.i.ready.eq(1)
        for part in (array, sequence):
            m.d.comb += [part.i.valid.eq(self.i.valid), part.i.payload.eq(self.i.payload)]
        wiring.connect(m, wiring.flipped(self.i_data), array.i_data)
        wiring.connect(m, array.o_data, wiring.flipped(self.o_data))
        wiring.connect(m, array.o_fault, wiring.flipped(self.o_fault))

        # Columns of the banks, and where they go in the next cycle.
        dots, first, copies = Signal(), Signal(), Signal()
        bank, slot = Signal.like(sequence.bank), Signal.like(sequence.slot)
        m.d.sync += [dots.eq(sequence.dot), first.eq(sequence.first), copies.eq(sequence.copy),
                     bank.eq(sequence.bank), slot.eq(sequence.slot)]
        m.d.comb += [array.column.eq(sequence.column), array.copy.eq(sequence.copy)]
        width = 8 * self.pim.unit.column_bytes
        columns = [array.columns.word_select(b, width) for b in range(self.dram.banks)]

        # The vector: copied from one bank, read for all.
        m.d.comb += [buffer.write.eq(copies), buffer.write_slot.eq(slot),
                     buffer.data.eq(Array(columns)[bank]), buffer.slot.eq(sequence.slot)]

        # The units never wait: each column's sum is a result, and the last one is the latch.
        layout, latches = column_layout(self.pim.unit), []
        for number, column in enumerate(columns):
            beat = Signal(layout, name=f"beat_{number}")
            m.d.comb += [beat.matrix.eq(column), beat.vector.eq(buffer.o), beat.first.eq(first),
                         beat.last.eq(1)]
            latches.append(self._unit(m, f"unit_{number}", dots, beat.as_value()))
        m.d.comb += [line.read.eq(sequence.read), line.latches.eq(Cat(latches)),
                     self.o_results.valid.eq(line.o.valid),
                     self.o_results.payload.eq(line.o.payload)]
        return m

    def _unit(self, m, name, valid, beat):
        """Add a bank unit and return its latch."""
        if self.library is None:
            m.submodules[name] = unit = BankUnit(self.pim.unit)
            m.d.comb += [unit.i.valid.eq(valid), unit.i.payload.eq(beat), unit.o.ready.eq(1)]
            return unit.o.payload
        o = Signal(FORMATS[self.pim.unit.acc_format].bits, name=f"{name}_o")
        m.submodules[name] = Instance(
            f"{self.library}_unit", ("i", "clk", ClockSignal()), ("i", "rst", ResetSignal()),
            ("i", "i__valid", valid), ("i", "i__payload", beat), ("i", "o__ready", Const(1)),
            ("o", "o__payload", o))
        return o


def device_parts(dram: DramConfig, pim: PimConfig, library: str
                 ) -> list[tuple[str, wiring.Component]]:
    """Return the modules, by name, that a `PimDevice` of `library` instantiates."""
    return [(f"{library}_cells", BankCells(dram, pim)), *parts_of(pim.unit, library),
            (f"{library}_unit", BankUnit(pim.unit, library=library))]
