"""What the host does in a channel that computes: the command of its oldest request that can go."""

from amaranth.hdl import Cat, Const, Module, Mux, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.pim_queue import HostWindow, choose, command_code, command_layout, host_layout
from hw.pim_timers import may
from machine.dram import DramConfig
from machine.pim import PIM_COMMANDS, PimConfig

__all__ = ["HostChoice"]


class HostChoice(wiring.Component):
    """The host's window and its choice in this cycle.

    Members
    -------
    i : In(stream)
        Requests (`host_layout`).
    en : In(1)
        The host may go.
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
    due : In(1)
        A rank is due for refresh.
    rank : In(bits)
        That rank.
    limited : In(1)
        PIM waits for its next command: row commands are paid from ``slack``.
    slack : In(signed)
        Cycles the host may take.
    tile : In(1)
        A tile is under way.
    tile_row : In(bits)
        Its row.
    held : In(1)
        A bank is kept for a GWRITE.
    held_bank : In(bits)
        That bank.
    can : Out(1)
        A command can go; it goes if ``en``.
    command : Out(bits)
        That command (`command_layout`).
    spent : Out(bits)
        Cycles it takes from the slack.
    """

    def __init__(self, dram: DramConfig, pim: PimConfig):
        self.dram = dram
        self.pim = pim
        banks, row = dram.banks, bits_for(dram.rows - 1)
        bank = bits_for(banks - 1)
        super().__init__({
            "i": In(stream.Signature(host_layout(dram, pim).size)), "en": In(1),
            "ready": In(len(PIM_COMMANDS) * banks), "host_open": In(banks),
            "host_rows": In(banks * row), "pim_open": In(banks), "pim_rows": In(banks * row),
            "due": In(1), "rank": In(bits_for(max(dram.ranks - 1, 1))), "limited": In(1),
            "slack": In(signed(24)), "tile": In(1), "tile_row": In(row), "held": In(1),
            "held_bank": In(bank), "can": Out(1),
            "command": Out(command_layout(dram, pim).size), "spent": Out(8),
        })

    def elaborate(self, platform):
        m = Module()
        layout = host_layout(self.dram, self.pim)
        m.submodules.window = window = HostWindow(self.pim.host_entries, layout.size)
        m.d.comb += [self.i.ready.eq(window.i.ready), window.i.valid.eq(self.i.valid),
                     window.i.payload.eq(self.i.payload)]

        # The oldest request of each bank, the oldest first.
        requests = [data.View(layout, window.requests.word_select(place, window.width))
                    for place in range(self.pim.host_entries)]
        choices = []
        for place, request in enumerate(requests):
            older = Cat(other.bank == request.bank for other in requests[:place])
            choices += self._of(place, request, window.valid[place] & ~older.any())
        can, chosen = choose(m, "host", choices)

        # Its marks: the request is served, a precharge is paid, the request's place.
        size, t = len(self.command), self.dram.timing
        served, pays, place = chosen[size], chosen[size + 1], chosen[size + 2 :]
        m.d.comb += [
            self.can.eq(can), self.command.eq(chosen[:size]),
            window.served.eq(self.en & can & served), window.place.eq(place),
            self.spent.eq(Mux(served, 0, Mux(pays, t.rp_cycles, t.rcd_wr_cycles)))]
        return m

    def _of(self, place, request, first):
        """Return the choices of a request, with their marks: its burst, or what opens its row."""
        bank, row, t = request.bank, request.row, self.dram.timing
        per_rank, two = self.dram.bank_groups * self.dram.banks_per_group, self.pim.row_buffers == 2
        width = len(row)
        goes = first & ~(self.due & (bank // per_rank == self.rank)) & ~(
            self.held & (bank == self.held_bank))
        own = Const(0)
        if two:
            goes = goes & ~(self.tile & (row == self.tile_row))
            own = self.pim_open.bit_select(bank, 1) & (
                self.pim_rows.word_select(bank, width) == row)
        is_open = self.host_open.bit_select(bank, 1)
        hit = is_open & (self.host_rows.word_select(bank, width) == row)
        changes = goes & ~hit & (1 if two else ~self.tile)
        opens = changes & ~is_open & ~(self.limited & (self.slack <= t.rcd_wr_cycles))
        least = t.rcd_wr_cycles + t.rp_cycles
        closes = changes & is_open & ~(self.limited & (self.slack <= least))

        def marked(served: int, pays: int, name: str, **fields: Value) -> Value:
            code = command_code(self.dram, self.pim, name, bank=bank, **fields)
            end = Const(place, bits_for(max(self.pim.host_entries - 1, 1)))
            return Cat(code, Const(served, 1), Const(pays, 1), end)

        def may_go(name: str) -> Value:
            return may(self.ready, self.dram.banks, name, bank)

        burst = {"row": row, "column": request.column}
        return [
            (goes & hit & request.write & may_go("WR"), marked(1, 0, "WR", **burst)),
            (goes & hit & ~request.write & may_go("RD"), marked(1, 0, "RD", **burst)),
            (opens & own & may_go("PIMPRE"), marked(0, 0, "PIMPRE")),
            (opens & ~own & may_go("ACT"), marked(0, 0, "ACT", row=row)),
            (closes & may_go("PRE"), marked(0, 1, "PRE")),
        ]
