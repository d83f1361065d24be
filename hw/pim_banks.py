"""A channel's banks as they behave: rows in block RAM, what is open, data after CL and CWL.

An open row is an address: data is written to its row at once, so closing one moves nothing.
"""

from typing import NamedTuple

from amaranth.hdl import (
    Array,
    Cat,
    ClockSignal,
    Instance,
    Module,
    Mux,
    ResetSignal,
    Signal,
    Value,
)
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.pim_check import CommandCheck, banks_reached, fault_layout
from hw.pim_queue import command_layout
from machine.config import require
from machine.dram import DramConfig
from machine.pim import PIM_COMMANDS, PimConfig

__all__ = ["BankArray", "BankCells", "BankWords", "OpenRows"]


class BankWords(NamedTuple):
    """How a bank's row lies in its memory: words as wide as a beat or a column, whichever is more.

    A beat is what the data bus carries in one cycle.
    """

    word_bits: int
    beat_bits: int
    column_bits: int
    row_words: int

    @classmethod
    def of(cls, dram: DramConfig, pim: PimConfig) -> "BankWords":
        """Return the words of `dram` with `pim`; ``ValueError`` for sizes that do not divide."""
        beat = 8 * dram.burst_bytes // dram.burst_cycles
        column = 8 * pim.unit.column_bytes
        row = 8 * dram.row_bytes
        least = f"at least {max(beat, column)}, a beat and a column"
        require(row >= max(beat, column), "bits of a row", least, row)
        return cls(max(beat, column), beat, column, row // max(beat, column))

    def split(self, place: Value, bits: int) -> tuple[Value, Value]:
        """Return the word and the part of it of the `place`-th piece of `bits` of a row."""
        low = (self.word_bits // bits).bit_length() - 1
        return place >> low, place[:low]


class BankCells(wiring.Component):
    """The rows of one bank: a port of the host, in beats, and one of PIM, in columns.

    What is read is there in the next cycle. Reset clears nothing.

    Members
    -------
    row : In(bits)
        Row that the host reads.
    beat : In(bits)
        Which beat of that row.
    write : In(1)
        A beat is written.
    write_row : In(bits)
        Its row.
    write_beat : In(bits)
        Which beat of that row.
    data : In(bits)
        What is written.
    pim_row : In(bits)
        Row of PIM's access.
    column : In(bits)
        Which column of that row.
    o_beat : Out(bits)
        The host's beat of the cycle before.
    o_column : Out(bits)
        PIM's column of the cycle before.
    """

    def __init__(self, dram: DramConfig, pim: PimConfig):
        self.dram = dram
        self.words = BankWords.of(dram, pim)
        super().__init__(self.ports(dram, pim))

    @staticmethod
    def ports(dram: DramConfig, pim: PimConfig) -> wiring.Signature:
        """Return the members."""
        words, row = BankWords.of(dram, pim), bits_for(dram.rows - 1)
        beats = words.row_words * words.word_bits // words.beat_bits
        columns = words.row_words * words.word_bits // words.column_bits
        return wiring.Signature({
            "row": In(row), "beat": In(bits_for(beats - 1)), "write": In(1),
            "write_row": In(row), "write_beat": In(bits_for(beats - 1)),
            "data": In(words.beat_bits), "pim_row": In(row), "column": In(bits_for(columns - 1)),
            "o_beat": Out(words.beat_bits), "o_column": Out(words.column_bits),
        })

    def elaborate(self, platform):
        m = Module()
        words = self.words
        m.submodules.cells = cells = memory.Memory(
            shape=words.word_bits, depth=self.dram.rows * words.row_words, init=[])
        inside = words.row_words.bit_length() - 1

        # Write a beat: the parts of its word are all that beat, one is enabled.
        word, part = words.split(self.write_beat, words.beat_bits)
        port = cells.write_port(granularity=words.beat_bits)
        m.d.comb += [
            port.addr.eq(Cat(word[:inside], self.write_row)),
            port.data.eq(self.data.replicate(words.word_bits // words.beat_bits)),
            port.en.eq(Mux(self.write, 1, 0) << part)]

        # Read a piece of a word for each side.
        for place, bits, row, out in (
                (self.beat, words.beat_bits, self.row, self.o_beat),
                (self.column, words.column_bits, self.pim_row, self.o_column)):
            word, part = words.split(place, bits)
            port, which = cells.read_port(), Signal.like(part, name=f"part_{bits}_{len(out)}")
            m.d.comb += [port.addr.eq(Cat(word[:inside], row)),
                         out.eq(port.data.word_select(which, bits))]
            m.d.sync += which.eq(part)
        return m


class OpenRows(wiring.Component):
    """The rows that commands have opened, of one or two row buffers a bank.

    A command shows from the next cycle on. Reset closes all.

    Members
    -------
    i : In(stream)
        Commands (`command_layout`). Always ready.
    host_open : Out(bits)
        Banks with a row open in the host's buffer.
    host_rows : Out(bits)
        That row, bank by bank.
    pim_open : Out(bits)
        Banks with a row open in PIM's buffer; with one buffer the same.
    pim_rows : Out(bits)
        That row, bank by bank.
    """

    def __init__(self, dram: DramConfig, pim: PimConfig):
        self.dram = dram
        self.pim = pim
        banks, row = dram.banks, bits_for(dram.rows - 1)
        super().__init__({
            "i": In(stream.Signature(command_layout(dram, pim).size)), "host_open": Out(banks),
            "host_rows": Out(banks * row), "pim_open": Out(banks), "pim_rows": Out(banks * row),
        })

    def elaborate(self, platform):
        m = Module()
        command = data.View(command_layout(self.dram, self.pim), self.i.payload)
        two, width = self.pim.row_buffers == 2, len(command.row)
        m.d.comb += self.i.ready.eq(1)
        opened, rows = {"ACT": self.host_open}, {"ACT": self.host_rows}
        opened["GACT"], rows["GACT"] = self.pim_open, self.pim_rows
        if not two:
            opened["GACT"], rows["GACT"] = self.host_open, self.host_rows
            m.d.comb += [self.pim_open.eq(self.host_open), self.pim_rows.eq(self.host_rows)]
        closed = {"PRE": self.host_open, "PREA": self.host_open, "PIMPRE": opened["GACT"]}
        for bank in range(self.dram.banks):
            for name in (*opened, *closed):
                low = banks_reached(self.dram, self.pim, name).bit_length() - 1
                here = (command.command == PIM_COMMANDS.index(name)) & (
                    command.bank >> low == bank >> low)
                with m.If(self.i.valid & here):
                    if name in closed:
                        m.d.sync += closed[name][bank].eq(0)
                    else:
                        m.d.sync += [opened[name][bank].eq(1),
                                     rows[name].word_select(bank, width).eq(command.row)]
        return m


class BankArray(wiring.Component):
    """All banks of a channel: does what it is told, and says what of it was illegal.

    RD in cycle t: its beats are at ``o_data`` in cycles t + CL to t + CL + burst - 1. WR in cycle
    t: its beats are taken from ``i_data`` in cycles t + CWL to t + CWL + burst - 1. A column that
    PIM asks for is there in the next cycle, so that DOT may follow DOT in any cycle. Rows need no
    time to open; ``o_fault`` says where a command came too early for them. Reset closes all rows
    and keeps what is stored.

    Parameters
    ----------
    library : str or None
        If given, the cells of a bank are an instance of the module ``<library>_cells``, so that
        they are compiled once.

    Members
    -------
    i : In(stream)
        Commands (`command_layout`), each in the cycle in which it is issued. Always ready.
    i_data : In(stream)
        Beats to write; ``ready`` in the cycles in which the bus carries them, fault or not.
    column : In(bits)
        Column that PIM reads of the row open in each bank.
    copy : In(1)
        It is read of the host's row instead.
    columns : Out(bits)
        The columns of the cycle before, bank by bank.
    o_data : Out(stream)
        Beats that are read; ``ready`` is not looked at.
    o_fault : Out(stream)
        Faults, as of `CommandCheck`.
    """

    def __init__(self, dram: DramConfig, pim: PimConfig, library: str | None = None):
        self.dram = dram
        self.pim = pim
        self.library = library
        words = BankWords.of(dram, pim)
        super().__init__({
            "i": In(stream.Signature(command_layout(dram, pim).size)),
            "i_data": In(stream.Signature(words.beat_bits)),
            "column": In(bits_for(pim.row_columns(dram) - 1)), "copy": In(1),
            "columns": Out(dram.banks * words.column_bits),
            "o_data": Out(stream.Signature(words.beat_bits)),
            "o_fault": Out(stream.Signature(fault_layout(dram, pim).size)),
        })

    def elaborate(self, platform):
        m = Module()
        dram, both = self.dram, (self.dram, self.pim)
        m.submodules.rows = rows = OpenRows(*both)
        m.submodules.check = check = CommandCheck(*both)
        banks = [self._cells(m, f"bank_{number}") for number in range(dram.banks)]

        # Commands change rows and are checked against those before.
        m.d.comb += self.i.ready.eq(1)
        for part in (rows, check):
            m.d.comb += [part.i.valid.eq(self.i.valid), part.i.payload.eq(self.i.payload)]
        m.d.comb += [getattr(check, name).eq(getattr(rows, name))
                     for name in ("host_open", "host_rows", "pim_open", "pim_rows")]
        m.d.comb += [self.o_fault.valid.eq(check.o.valid),
                     self.o_fault.payload.eq(check.o.payload)]

        # The host's bursts, each beat in its cycle: a read is asked of the cells one before it.
        t, width = dram.timing, bits_for(dram.rows - 1)
        reads, read = self._line(m, "RD", t.cl_cycles - 1, rows.host_rows)
        writes, written = self._line(m, "WR", t.cwl_cycles, rows.host_rows)
        valid, bank = Signal(), Signal(bits_for(dram.banks - 1))
        m.d.comb += [self.i_data.ready.eq(writes), check.no_data.eq(writes & ~self.i_data.valid)]
        m.d.sync += [valid.eq(reads), bank.eq(read.bank)]
        for number, cells in enumerate(banks):
            m.d.comb += [
                cells.row.eq(read.row), cells.beat.eq(read.beat),
                cells.write.eq(writes & self.i_data.valid & (written.bank == number)),
                cells.write_row.eq(written.row), cells.write_beat.eq(written.beat),
                cells.data.eq(self.i_data.payload),
                cells.pim_row.eq(Mux(self.copy, rows.host_rows.word_select(number, width),
                                     rows.pim_rows.word_select(number, width))),
                cells.column.eq(self.column)]
        m.d.comb += [self.o_data.valid.eq(valid),
                     self.o_data.payload.eq(Array(cells.o_beat for cells in banks)[bank]),
                     self.columns.eq(Cat(cells.o_column for cells in banks))]
        return m

    def _cells(self, m: Module, name: str) -> wiring.PureInterface | BankCells:
        """Add the cells of a bank and return their ports."""
        if self.library is None:
            m.submodules[name] = cells = BankCells(self.dram, self.pim)
            return cells
        ports = BankCells.ports(self.dram, self.pim).create(path=(name,))
        wires = {f"{'i' if member.flow is In else 'o'}_{path[0]}": value
                 for path, member, value in ports.signature.flatten(ports)}
        m.submodules[name] = Instance(f"{self.library}_cells", i_clk=ClockSignal(),
                                      i_rst=ResetSignal(), **wires)
        return ports

    def _line(self, m: Module, name: str, delay: int, rows: Value) -> tuple[Value, data.View]:
        """Return whether a beat of command `name` is due in this cycle, and which.

        The first beat is due `delay` cycles after the command.
        """
        command = data.View(command_layout(self.dram, self.pim), self.i.payload)
        beats = self.dram.burst_cycles
        place = data.StructLayout({"row": len(command.row), "bank": len(command.bank),
                                   "beat": len(command.column) + bits_for(beats - 1)})
        first = Signal(place, name=f"{name}_0")
        width = len(command.row)
        m.d.comb += [first.row.eq(rows.word_select(command.bank, width)),
                     first.bank.eq(command.bank), first.beat.eq(command.column * beats)]
        goes = self.i.valid & (command.command == PIM_COMMANDS.index(name))
        line: list[tuple[Value, data.View]] = [(goes, first)]
        for k in range(1, delay + beats):
            there, before = Signal(name=f"{name}_there_{k}"), Signal(place, name=f"{name}_{k}")
            m.d.sync += [there.eq(line[-1][0]), before.eq(line[-1][1])]
            line.append((there, before))
        due = Signal(place, name=f"{name}_due")
        for k in range(beats):
            there, which = line[delay + k]
            with m.If(there):
                m.d.comb += [due.eq(which), due.beat.eq(which.beat + k)]
        return Cat(there for there, _ in line[delay:]).any(), due
