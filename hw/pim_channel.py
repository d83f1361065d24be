"""A channel that computes, joined: controller, banks, vector buffer and units behind streams."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.pim import PimController
from hw.pim_banks import BankWords
from hw.pim_check import fault_layout
from hw.pim_device import PimDevice, check_device, result_bits
from hw.pim_queue import HostWindow, command_layout, entry_layout, host_layout
from machine.dram import DramConfig
from machine.pim import PIM_COMMANDS, PimConfig

__all__ = ["BurstReader", "BurstWriter", "Credits", "PimChannel", "read_layout"]

RETURNS = {"RD": "reads", "READRES": "results", "GEMV": "results"}  # by command, what it returns


def read_layout(dram: DramConfig, pim: PimConfig) -> data.StructLayout:
    """Return what the host reads: a burst and where it is from."""
    where = host_layout(dram, pim)
    return data.StructLayout({"data": 8 * dram.burst_bytes,
                              **{n: where[n].width for n in ("bank", "row", "column")}})


class Credits(wiring.Component):
    """Counts what is on its way to a queue, so that no more leaves than there is room for.

    Reset: nothing is on its way.

    Parameters
    ----------
    depth : int
        Room of the queue.

    Members
    -------
    sent : In(1)
        One more is on its way.
    taken : In(1)
        One has left the queue.
    full : Out(1)
        None may be sent in this cycle; a function of registers.
    """

    def __init__(self, depth: int):
        self.depth = depth
        super().__init__({"sent": In(1), "taken": In(1), "full": Out(1)})

    def elaborate(self, platform):
        m = Module()
        inside = Signal(range(self.depth + 1))
        m.d.sync += inside.eq(inside + self.sent - self.taken)
        m.d.comb += self.full.eq(inside == self.depth)
        return m


class BurstWriter(wiring.Component):
    """Keeps the bursts to write until their WR, then gives their beats to the data bus.

    A burst comes with its request; WRs of a bank go in the order of its requests. Reset empties it.

    Members
    -------
    i : In(stream)
        Bursts; there is room whenever the controller takes a request.
    bank : In(bits)
        Its bank.
    wr_bank : In(bits)
        Bank of the WR.
    wr : In(1)
        A WR is issued in this cycle.
    o : Out(stream)
        Beats, in the order of the WRs, from the cycle after the WR on.
    """

    def __init__(self, dram: DramConfig, pim: PimConfig):
        self.dram = dram
        self.pim = pim
        bank = bits_for(dram.banks - 1)
        super().__init__({
            "i": In(stream.Signature(8 * dram.burst_bytes)), "bank": In(bank),
            "wr_bank": In(bank), "wr": In(1),
            "o": Out(stream.Signature(BankWords.of(dram, pim).beat_bits))})

    def elaborate(self, platform):
        m = Module()
        burst, beat = len(self.i.payload), len(self.o.payload)
        entries, beats = self.pim.host_entries, self.dram.burst_cycles
        layout = data.StructLayout({"data": burst, "bank": len(self.bank)})
        m.submodules.window = window = HostWindow(entries, layout.size)
        m.submodules.sent = sent = fifo.SyncFIFO(
            width=burst, depth=self.dram.timing.cwl_cycles // beats + 2)
        m.d.comb += [window.i.valid.eq(self.i.valid), self.i.ready.eq(window.i.ready),
                     window.i.payload.eq(Cat(self.i.payload, self.bank))]

        # The oldest burst of the bank leaves with its WR.
        for place in reversed(range(entries)):
            held = data.View(layout, window.requests.word_select(place, layout.size))
            with m.If(window.valid[place] & (held.bank == self.wr_bank)):
                m.d.comb += [window.place.eq(place), sent.w_data.eq(held.data)]
        m.d.comb += [window.served.eq(self.wr), sent.w_en.eq(self.wr)]

        # Beat by beat.
        which = Signal(range(beats))
        last = which == beats - 1
        m.d.comb += [self.o.valid.eq(sent.r_rdy), sent.r_en.eq(self.o.ready & last),
                     self.o.payload.eq(sent.r_data.word_select(which, beat))]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += which.eq(Mux(last, 0, which + 1))
        return m


class BurstReader(wiring.Component):
    """Puts the beats that are read together and tells where they are from.

    A burst whose last beat comes in cycle t is there from t + 1 on. Reset empties it.

    Parameters
    ----------
    depth : int
        Bursts it holds, those on their way included.

    Members
    -------
    rd : In(1)
        An RD is issued in this cycle.
    where : In(bits)
        Its bank, row and column, as `read_layout` has them.
    i : In(stream)
        Beats, in the order of the RDs. Always ready.
    o : Out(stream)
        Bursts (`read_layout`).
    """

    def __init__(self, dram: DramConfig, pim: PimConfig, depth: int):
        self.dram = dram
        self.depth = depth
        layout, burst = read_layout(dram, pim), 8 * dram.burst_bytes
        super().__init__({
            "rd": In(1), "where": In(layout.size - burst),
            "i": In(stream.Signature(BankWords.of(dram, pim).beat_bits)),
            "o": Out(stream.Signature(layout.size))})

    def elaborate(self, platform):
        m = Module()
        beat, beats = len(self.i.payload), self.dram.burst_cycles
        m.submodules.places = places = fifo.SyncFIFO(width=len(self.where), depth=self.depth)
        m.submodules.bursts = bursts = fifo.SyncFIFO(width=beat * beats, depth=self.depth)
        m.d.comb += [places.w_en.eq(self.rd), places.w_data.eq(self.where), self.i.ready.eq(1)]

        # Earlier beats wait for the last.
        which, early = Signal(range(beats)), Signal(beat * (beats - 1))
        last = which == beats - 1
        m.d.comb += [bursts.w_en.eq(self.i.valid & last),
                     bursts.w_data.eq(Cat(early, self.i.payload))]
        with m.If(self.i.valid):
            m.d.sync += which.eq(Mux(last, 0, which + 1))
            if beats > 1:
                m.d.sync += early.word_select(which, beat).eq(self.i.payload)

        m.d.comb += [self.o.valid.eq(bursts.r_rdy), bursts.r_en.eq(self.o.ready),
                     places.r_en.eq(bursts.r_rdy & self.o.ready),
                     self.o.payload.eq(Cat(bursts.r_data, places.r_data))]
        return m


class PimChannel(wiring.Component):
    """One channel that computes, from requests, data and PIM entries to data and results.

    Commands are those of ``archsim.pim``, cycle for cycle, as long as reads and results are taken
    when they are there and a write's data is offered with its request. Where they are not taken,
    the controller waits: no RD goes that ``o_reads``, no READRES or GEMV that ``o_results`` has no
    room for, so nothing is lost and refresh is not late. An entry held back so may, with
    ``host="blocked"`` or little time left before refresh, hold back the host as well: who takes
    reads must not wait for results, nor the other way round.

    Latency: a burst is at ``o_reads`` CL + burst cycles after its RD, a result at ``o_results``
    CL + burst cycles after its READRES, of a composite of d dot products d * ``pim.dot_cycles``
    more. Reset starts the controller again and keeps what is stored.

    Parameters
    ----------
    library : str or None
        If given, cells and units are instances of modules of `device_parts`.

    Members
    -------
    i : In(stream)
        Entries of the PIM queue (`entry_layout`), taken with the command that ends them.
    i_host : In(stream)
        Requests of the host (`host_layout`); one that writes is taken together with its data.
    i_writes : In(stream)
        Data of the requests that write, in their order: a burst each.
    o_reads : Out(stream)
        Bursts that are read (`read_layout`), in the order of their RDs.
    o_results : Out(stream)
        Latches that are read, bank b at lane b, in the order of the entries.
    o : Out(stream)
        Commands (`command_layout`), each in the cycle in which it is issued; ``ready`` is not
        looked at.
    o_fault : Out(stream)
        Faults, as of `CommandCheck`; none ever comes.
    """

    def __init__(self, dram: DramConfig, pim: PimConfig, library: str | None = None):
        check_device(dram, pim)
        self.dram = dram
        self.pim = pim
        self.library = library
        burst, dot = dram.burst_cycles, pim.dot_cycles
        # What can be under way at most where everything is taken at once, and one more.
        self.read_room = dram.hit_latency_cycles // burst + 3
        self.result_room = dram.hit_latency_cycles // dot + 3
        super().__init__({
            "i": In(stream.Signature(entry_layout(dram, pim).size)),
            "i_host": In(stream.Signature(host_layout(dram, pim).size)),
            "i_writes": In(stream.Signature(8 * dram.burst_bytes)),
            "o_reads": Out(stream.Signature(read_layout(dram, pim).size)),
            "o_results": Out(stream.Signature(result_bits(dram, pim))),
            "o": Out(stream.Signature(command_layout(dram, pim).size)),
            "o_fault": Out(stream.Signature(fault_layout(dram, pim).size)),
        })

    def elaborate(self, platform):
        m = Module()
        both = self.dram, self.pim
        m.submodules.controller = controller = PimController(*both, holds=True)
        m.submodules.device = device = PimDevice(*both, library=self.library)
        m.submodules.writer = writer = BurstWriter(*both)
        m.submodules.reader = reader = BurstReader(*both, depth=self.read_room)
        m.submodules.results = results = fifo.SyncFIFO(
            width=len(self.o_results.payload), depth=self.result_room)
        wiring.connect(m, wiring.flipped(self.i), controller.i)

        # A request that writes goes with its burst.
        request = data.View(host_layout(*both), self.i_host.payload)
        whole = ~request.write | self.i_writes.valid
        writes = self.i_host.valid & request.write & controller.i_host.ready
        m.d.comb += [
            controller.i_host.payload.eq(self.i_host.payload),
            controller.i_host.valid.eq(self.i_host.valid & whole),
            self.i_host.ready.eq(controller.i_host.ready & whole),
            self.i_writes.ready.eq(writes), writer.i.valid.eq(writes & self.i_writes.valid),
            writer.i.payload.eq(self.i_writes.payload), writer.bank.eq(request.bank)]

        # Commands to the device, data to and from it.
        sent = data.View(command_layout(*both), controller.o.payload)
        goes = {name: self.o.valid & (sent.command == PIM_COMMANDS.index(name))
                for name in ("RD", "WR", *RETURNS)}
        wiring.connect(m, writer.o, device.i_data)
        wiring.connect(m, device.o_data, reader.i)
        m.d.comb += [
            self.o.valid.eq(controller.o.valid), self.o.payload.eq(controller.o.payload),
            device.i.valid.eq(controller.o.valid), device.i.payload.eq(controller.o.payload),
            writer.wr.eq(goes["WR"]), writer.wr_bank.eq(sent.bank), reader.rd.eq(goes["RD"]),
            reader.where.eq(Cat(sent.bank, sent.row, sent.column))]

        # What comes back waits until it is taken.
        wiring.connect(m, reader.o, wiring.flipped(self.o_reads))
        wiring.connect(m, device.o_fault, wiring.flipped(self.o_fault))
        m.d.comb += [
            results.w_en.eq(device.o_results.valid), results.w_data.eq(device.o_results.payload),
            self.o_results.valid.eq(results.r_rdy), results.r_en.eq(self.o_results.ready),
            self.o_results.payload.eq(results.r_data)]
        self._hold(m, controller, goes)
        return m

    def _hold(self, m, controller, goes):
        """Hold back the commands whose return has no room."""
        full = {}
        for name, port, room in (("reads", self.o_reads, self.read_room),
                                 ("results", self.o_results, self.result_room)):
            m.submodules[f"{name}_credits"] = credits = Credits(room)
            m.d.comb += [
                credits.sent.eq(Cat(goes[c] for c, of in RETURNS.items() if of == name).any()),
                credits.taken.eq(port.valid & port.ready)]
            full[name] = credits.full
        m.d.comb += controller.hold.eq(Cat(
            full[RETURNS[name]] if name in RETURNS else Const(0, 1) for name in PIM_COMMANDS))
