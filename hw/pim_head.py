"""The next command of the PIM queue's head, and whether it may begin before refresh."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.pim_queue import Entry, choose, command_code, command_layout, entry_layout
from hw.pim_timers import NUMBER, left_shape, may
from machine.dram import DramConfig
from machine.pim import PIM_COMMANDS, PimConfig
from machine.pim_macros import gwrite_cycles, header_terms

__all__ = ["PimHead"]


class PimHead(wiring.Component):
    """What the head of the PIM queue does in this cycle; a function of its inputs alone.

    Members
    -------
    entry : In(bits)
        The head (`entry_layout`).
    en : In(1)
        It is there, and PIM may go.
    gwriting : In(1)
        Its GWRITE was admitted before.
    ready : In(bits)
        Of `Timers`.
    host_open : In(bits)
        Of `Rows`.
    host_rows : In(bits)
        Of `Rows`.
    pim_open : In(bits)
        Of `Rows`.
    pim_rows : In(bits)
        Of `Rows`.
    left : In(signed)
        Cycles until refresh is due.
    issued : Out(1)
        A command goes.
    command : Out(bits)
        That command (`command_layout`).
    ended : Out(1)
        The entry is done with this cycle.
    refused : Out(1)
        Too little time is left before refresh.
    begins : Out(1)
        It is admitted in this cycle: ``slack`` is the time that remains.
    slack : Out(signed)
        Cycles left less those it needs.
    """

    def __init__(self, dram: DramConfig, pim: PimConfig):
        self.dram = dram
        self.pim = pim
        banks, row = dram.banks, bits_for(dram.rows - 1)
        super().__init__({
            "entry": In(entry_layout(dram, pim).size), "en": In(1), "gwriting": In(1),
            "ready": In(len(PIM_COMMANDS) * banks), "host_open": In(banks),
            "host_rows": In(banks * row), "pim_open": In(banks),
            "pim_rows": In(banks * row), "left": In(left_shape(dram)), "issued": Out(1),
            "command": Out(command_layout(dram, pim).size), "ended": Out(1), "refused": Out(1),
            "begins": Out(1), "slack": Out(signed(24)),
        })

    def elaborate(self, platform):
        m = Module()
        entry = data.View(entry_layout(self.dram, self.pim), self.entry)
        self._see(m, entry)
        is_tile = Signal()
        m.d.comb += is_tile.eq((entry.kind == Entry.GACT) | (entry.kind == Entry.DOT)
                               | (entry.kind == Entry.READRES) | (entry.kind == Entry.GEMV))

        # Admission.
        need = Signal(signed(24))
        m.d.comb += need.eq(Mux(entry.kind == Entry.GWRITE, self._gwrite_need(),
                                self._header_need(entry)))
        asks = (entry.kind == Entry.HEADER) | (entry.kind == Entry.GWRITE) & ~self.gwriting
        m.d.comb += [self.refused.eq(self.en & asks & (self.left <= need)),
                     self.begins.eq(self.en & asks & (self.left > need)),
                     self.slack.eq(self.left - need)]

        # The first command that can go.
        choices = [*self._gwrite(entry), *self._close(entry), *self._open(entry, is_tile)]
        can, value = choose(m, "head", choices)
        m.d.comb += [self.issued.eq(self.en & ~self.refused & can), self.command.eq(value)]

        # Whether that ends the entry.
        sent = data.View(command_layout(self.dram, self.pim), self.command).command
        own = Cat(sent == NUMBER[kind.name] for kind in Entry)
        last_closed = self.closed == 1
        if self.pim.precharge == "all" and self.pim.row_buffers == 2:
            last_closed = Const(1)
        with m.If(self.en & ~self.refused):
            with m.Switch(entry.kind):
                with m.Case(Entry.PIMPRE):
                    m.d.comb += self.ended.eq(Mux(self.issued, last_closed, self.closed == 0))
                with m.Case(Entry.GACT):
                    opens = self.issued & (sent == NUMBER["GACT"]) & (self.missing_count == 1)
                    m.d.comb += self.ended.eq(opens | (self.missing_count == 0))
                with m.Default():
                    m.d.comb += self.ended.eq(
                        self.issued & own.bit_select(entry.kind, 1))
        return m

    def _see(self, m, entry):
        """Compare the rows that are open with the entry's."""
        banks, width = self.dram.banks, len(entry.row)
        two = self.pim.row_buffers == 2
        self.right, self.held, self.wrong = (
            Signal(banks, name=name) for name in ("right", "held", "wrong"))
        closes = entry.kind == Entry.PIMPRE
        for bank in range(banks):
            own = self.pim_rows.word_select(bank, width) == entry.row
            host = self.host_rows.word_select(bank, width) == entry.row
            m.d.comb += [
                self.right[bank].eq(self.pim_open[bank] & own),
                self.held[bank].eq(self.host_open[bank] & host & ~closes if two else 0),
                self.wrong[bank].eq(self.pim_open[bank] & (~own | closes))]
        step = banks if self.pim.activate == "all" else self.dram.banks_per_group
        self.step = step
        self.missing = Signal(banks // step)
        m.d.comb += self.missing.eq(Cat(~self.right[b : b + step].all()
                                        for b in range(0, banks, step)))
        self.closed = Signal(range(banks + 1))
        self.missing_count = Signal(range(banks + 1))
        group = self.dram.banks_per_group
        self.groups = Signal(range(banks // group + 1))
        m.d.comb += [
            self.closed.eq(sum(self.wrong)), self.missing_count.eq(sum(self.missing)),
            self.groups.eq(sum(~self.right[b : b + group].all() for b in range(0, banks, group)))]
        bank = entry.bank
        self.hit = Signal()
        self.other = Signal()
        row = self.host_rows.word_select(bank, width) == entry.row
        there = self.host_open.bit_select(bank, 1)
        m.d.comb += [self.hit.eq(there & row), self.other.eq(there & ~row)]

    def _gwrite_need(self):
        needs = {(o, x): gwrite_cycles(self.dram, self.pim, opened=o, other=x)
                 for o, x in ((True, False), (False, True), (False, False))}
        return Mux(self.hit, needs[True, False], Mux(self.other, needs[False, True],
                                                     needs[False, False]))

    def _header_need(self, entry):
        k = header_terms(self.dram, self.pim)
        shape = signed(24)
        floor = k.floor + k.floor_per_read * entry.reads
        dots = Mux(entry.dots > floor, entry.dots, floor)
        tile = k.per_dot * dots + k.per_read * entry.reads + Const(k.base, shape)
        tile = Mux(tile > Const(k.least, shape), tile, Const(k.least, shape))
        opening = Array(Const(value, shape) for value in k.opening)[self.groups]
        closing = Mux(self.closed != 0, k.closing, 0)
        return opening + closing + k.per_closed * self.closed + tile

    def _may(self, name, bank):
        return may(self.ready, self.dram.banks, name, bank)

    def _command(self, name, bank, **fields):
        return command_code(self.dram, self.pim, name, bank=bank, **fields)

    def _gwrite(self, entry):
        """Return the choices of a GWRITE: its row must be open in the host's buffer."""
        here, bank, row = entry.kind == Entry.GWRITE, entry.bank, entry.row
        closed = here & ~self.hit & ~self.other
        width = len(entry.row)
        mine = self.pim_open.bit_select(bank, 1) & (
            self.pim_rows.word_select(bank, width) == row)
        if self.pim.row_buffers == 1:
            mine = Const(0)
        go = self._command("GWRITE", bank, row=row, column=entry.column, slot=entry.slot)
        return [
            (here & self.hit & self._may("GWRITE", bank), go),
            (here & self.other & self._may("PRE", bank), self._command("PRE", bank)),
            (closed & mine & self._may("PIMPRE", bank), self._command("PIMPRE", bank)),
            (closed & ~mine & self._may("ACT", bank), self._command("ACT", bank, row=row)),
        ]

    def _close(self, entry):
        """Return the choices of a HEADER and of a PIMPRE: rows to close, then the HEADER."""
        close = "PIMPRE" if self.pim.row_buffers == 2 else "PRE"
        here = (entry.kind == Entry.HEADER) | (entry.kind == Entry.PIMPRE)
        choices = []
        for bank in range(self.dram.banks):
            choices.append((here & self.wrong[bank] & self._may(close, bank),
                            self._command(close, bank)))
            choices.append((here & ~self.wrong[bank] & self.held[bank] & self._may("PRE", bank),
                            self._command("PRE", bank)))
        free = (entry.kind == Entry.HEADER) & ~self.wrong.any() & ~self.held.any()
        choices.append((free & self._may("HEADER", 0), self._command(
            "HEADER", 0, row=entry.row, column=entry.reads, dots=entry.dots)))
        return choices

    def _open(self, entry, here):
        """Return the choices of what needs the row in all banks: groups in turn, then itself."""
        close = "PIMPRE" if self.pim.row_buffers == 2 else "PRE"
        choices = []
        for place, start in enumerate(range(0, self.dram.banks, self.step)):
            banks = range(start, start + self.step)
            lacks = here & self.missing[place]
            choices += [(lacks & self.pim_open[b] & self._may(close, b),
                         self._command(close, b)) for b in banks]
            choices += [(lacks & self.held[b] & self._may("PRE", b), self._command("PRE", b))
                        for b in banks]
            clear = ~(self.pim_open | self.held)[start : start + self.step].any()
            choices.append((lacks & clear & self._may("GACT", start),
                            self._command("GACT", start, row=entry.row)))
        for kind in (Entry.DOT, Entry.READRES, Entry.GEMV):
            go = (entry.kind == kind) & ~self.missing.any() & self._may(kind.name, 0)
            choices.append((go, self._command(
                kind.name, 0, row=entry.row, column=entry.column, dots=entry.dots,
                slot=entry.slot, first=entry.first)))
        return choices
