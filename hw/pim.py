"""The controller of a channel that computes: PIM queue, host requests and refresh on one bus."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.pim_head import PimHead
from hw.pim_host import HostChoice
from hw.pim_queue import (
    Entry,
    choose,
    command_code,
    command_layout,
    entry_layout,
    host_layout,
)
from hw.pim_timers import COMMAND_BITS, NUMBER, Deadlines, Rows, Timers, may
from machine.dram import DramConfig
from machine.pim import PIM_COMMANDS, PimConfig

__all__ = ["PimController", "Progress", "RefreshChoice"]


class RefreshChoice(wiring.Component):
    """The next command towards the refresh of a rank: rows closed bank by bank, then REF.

    Members
    -------
    rank : In(bits)
        The rank.
    ready : In(bits)
        Of `Timers`.
    host_open : In(bits)
        Of `Rows`.
    pim_open : In(bits)
        Of `Rows`.
    can : Out(1)
        A command can go.
    command : Out(bits)
        That command (`command_layout`).
    """

    def __init__(self, dram: DramConfig, pim: PimConfig):
        self.dram = dram
        self.pim = pim
        super().__init__({
            "rank": In(bits_for(max(dram.ranks - 1, 1))),
            "ready": In(len(PIM_COMMANDS) * dram.banks), "host_open": In(dram.banks),
            "pim_open": In(dram.banks), "can": Out(1),
            "command": Out(command_layout(dram, pim).size),
        })

    def elaborate(self, platform):
        m = Module()
        banks, per_rank = self.dram.banks, self.dram.bank_groups * self.dram.banks_per_group
        choices = []

        def choice(when, name, bank):
            choices.append((when & may(self.ready, banks, name, bank),
                            command_code(self.dram, self.pim, name, bank=bank)))

        for bank in range(banks):
            here = self.rank == bank // per_rank
            choice(here & self.host_open[bank], "PRE", bank)
            choice(here & ~self.host_open[bank] & self.pim_open[bank], "PIMPRE", bank)
        for first in range(0, banks, per_rank):
            is_open = (self.host_open | self.pim_open)[first : first + per_rank].any()
            choice((self.rank == first // per_rank) & ~is_open, "REF", first)
        can, command = choose(m, "refresh", choices)
        m.d.comb += [self.can.eq(can), self.command.eq(command)]
        return m


class Progress(wiring.Component):
    """What is remembered of PIM between cycles. Reset: nothing is under way.

    Members
    -------
    entry : In(bits)
        Head of the PIM queue.
    begins : In(1)
        Of `PimHead`.
    refused : In(1)
        Of `PimHead`.
    admitted_slack : In(signed)
        ``slack`` of `PimHead`.
    issued : In(1)
        Of `PimHead`.
    command : In(4)
        Number of the command that goes.
    refreshed : In(1)
        A rank is refreshed.
    spent : In(bits)
        Cycles the host takes from the slack.
    skip : Out(1)
        Nothing of PIM goes before the next refresh.
    slack : Out(signed)
        Cycles the host may take, as of this cycle's admission.
    tile : Out(1)
        A tile is under way.
    tile_row : Out(bits)
        Its row.
    gwriting : Out(1)
        A GWRITE was admitted before.
    held : Out(1)
        A GWRITE was admitted, now or before.
    held_bank : Out(bits)
        Its bank.
    """

    def __init__(self, dram: DramConfig, pim: PimConfig):
        self.layout = entry_layout(dram, pim)
        row, bank = self.layout["row"].width, self.layout["bank"].width
        super().__init__({
            "entry": In(self.layout.size), "begins": In(1), "refused": In(1),
            "admitted_slack": In(signed(24)), "issued": In(1), "command": In(COMMAND_BITS),
            "refreshed": In(1), "spent": In(8), "skip": Out(1), "slack": Out(signed(24)),
            "tile": Out(1), "tile_row": Out(row), "gwriting": Out(1), "held": Out(1),
            "held_bank": Out(bank),
        })

    def elaborate(self, platform):
        m = Module()
        entry = data.View(self.layout, self.entry)
        slack, bank, left = Signal(signed(24)), Signal.like(entry.bank), Signal.like(entry.reads)

        # Admission.
        m.d.comb += self.slack.eq(
            Mux(self.refused, 0, Mux(self.begins, self.admitted_slack, slack)))
        m.d.sync += [self.skip.eq((self.skip | self.refused) & ~self.refreshed),
                     slack.eq(Mux(self.refreshed, 0, self.slack - self.spent))]

        # The bank of a GWRITE is its own until it goes.
        m.d.comb += [self.held.eq(self.gwriting | self.begins & (entry.kind == Entry.GWRITE)),
                     self.held_bank.eq(Mux(self.gwriting, bank, entry.bank))]
        goes = self.issued & (self.command == NUMBER["GWRITE"])
        m.d.sync += [self.gwriting.eq(self.held & ~goes & ~self.refreshed),
                     bank.eq(self.held_bank)]

        # A tile lasts from its HEADER to its last result.
        with m.If(self.issued & (self.command == NUMBER["HEADER"])):
            m.d.sync += [self.tile.eq(1), self.tile_row.eq(entry.row), left.eq(entry.reads)]
        reads = (self.command == NUMBER["GEMV"]) | (self.command == NUMBER["READRES"])
        with m.If(self.issued & reads):
            m.d.sync += [left.eq(Mux(left == 0, 0, left - 1)), self.tile.eq(self.tile & (left > 1))]
        return m


class PimController(wiring.Component):
    """One command a cycle: refresh, then the head of the PIM queue, then the host's oldest.

    The order of service is that of ``archsim.pim``, cycle for cycle. Reset closes all rows and
    starts the refresh intervals. A command that may not go for what it returns waits as for a
    timing rule: others go meanwhile, refresh above all.

    Parameters
    ----------
    holds : bool
        Whether there is the member ``hold``.

    Members
    -------
    i : In(stream)
        Entries of the PIM queue (`entry_layout`), taken with the command that ends them.
    i_host : In(stream)
        Requests of the host (`host_layout`).
    o : Out(stream)
        Commands (`command_layout`), each in the cycle in which it is issued; ``ready`` is not
        looked at.
    hold : In(bits)
        Commands, by number, that do not go in this cycle; no path leads from ``o`` to it.
    """

    def __init__(self, dram: DramConfig, pim: PimConfig, holds: bool = False):
        pim.check(dram)
        self.dram = dram
        self.pim = pim
        self.holds = holds
        super().__init__({
            "i": In(stream.Signature(entry_layout(dram, pim).size)),
            "i_host": In(stream.Signature(host_layout(dram, pim).size)),
            "o": Out(stream.Signature(command_layout(dram, pim).size)),
            **({"hold": In(len(PIM_COMMANDS))} if holds else {}),
        })

    def elaborate(self, platform):
        m = Module()
        both = self.dram, self.pim
        m.submodules.timers = timers = Timers(*both)
        m.submodules.rows = rows = Rows(*both)
        m.submodules.due = due = Deadlines(self.dram)
        m.submodules.refresh = refresh = RefreshChoice(*both)
        m.submodules.head = head = PimHead(*both)
        m.submodules.host = host = HostChoice(*both)
        m.submodules.progress = progress = Progress(*both)
        sent = data.View(command_layout(*both), self.o.payload)
        ready = timers.ready
        if self.holds:
            ready = ready & ~Cat(bit.replicate(self.dram.banks) for bit in self.hold)
        for part in (refresh, head, host):
            m.d.comb += part.ready.eq(ready)
        for name in ("host_open", "host_rows", "pim_open", "pim_rows"):
            m.d.comb += [getattr(part, name).eq(getattr(rows, name))
                         for part in (refresh, head, host) if hasattr(part, name)]

        # Refresh first; then the head of the PIM queue.
        m.d.comb += [
            refresh.rank.eq(due.rank), head.entry.eq(self.i.payload), head.left.eq(due.left),
            head.en.eq(self.i.valid & ~due.due & ~progress.skip),
            head.gwriting.eq(progress.gwriting), self.i.ready.eq(head.ended)]

        # Then the host, if PIM leaves it time.
        limited, waits, refreshes = Signal(), Signal(), Signal()
        scarce = progress.slack < self.pim.slack_min_cycles
        m.d.comb += [
            limited.eq(head.en & ~head.refused),
            waits.eq(limited & (scarce if self.pim.host == "concurrent" else 1)),
            refreshes.eq(due.due & refresh.can), self.i_host.ready.eq(host.i.ready),
            host.i.valid.eq(self.i_host.valid), host.i.payload.eq(self.i_host.payload),
            host.en.eq(~refreshes & ~head.issued & ~head.ended & ~waits), host.due.eq(due.due),
            host.rank.eq(due.rank), host.limited.eq(limited), host.slack.eq(progress.slack),
            host.tile.eq(progress.tile), host.tile_row.eq(progress.tile_row),
            host.held.eq(progress.held), host.held_bank.eq(progress.held_bank)]

        # The command that goes, and what it changes.
        m.d.comb += [
            self.o.valid.eq(refreshes | head.issued | host.en & host.can),
            self.o.payload.eq(Mux(refreshes, refresh.command,
                                  Mux(head.issued, head.command, host.command)))]
        for part in (timers, rows):
            m.d.comb += [part.en.eq(self.o.valid), part.command.eq(sent.command),
                         part.bank.eq(sent.bank)]
        m.d.comb += [timers.dots.eq(sent.dots), rows.row.eq(sent.row)]
        self._remember(m, head, host, progress, due, limited)
        return m

    def _remember(self, m, head, host, progress, due, limited):
        sent = data.View(command_layout(self.dram, self.pim), self.o.payload).command
        m.d.comb += [
            due.refreshed.eq(self.o.valid & (sent == NUMBER["REF"])),
            progress.refreshed.eq(due.refreshed), progress.entry.eq(self.i.payload),
            progress.begins.eq(head.begins), progress.refused.eq(head.refused),
            progress.admitted_slack.eq(head.slack), progress.issued.eq(head.issued),
            progress.command.eq(sent),
            progress.spent.eq(Mux(host.en & host.can & limited, host.spent, 0))]
