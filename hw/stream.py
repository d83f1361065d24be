"""Streams: the queue that ends a block, and the two ends of a stream in Amaranth's simulator."""

from collections.abc import Sequence

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import SimulatorContext

__all__ = ["PairQueue", "collect", "drive"]


class PairQueue(wiring.Component):
    """Queue of two entries that cuts the path from the receiver's ``ready`` to the sender.

    Latency is one cycle; throughput is one transfer a cycle. ``i.ready`` is a function of registers
    alone. Reset empties the queue and clears the payload.

    Parameters
    ----------
    width : int
        Bits of the payload.

    Members
    -------
    i : In(stream)
        Payloads, unsigned.
    o : Out(stream)
        The same payloads, one cycle later or more.
    """

    def __init__(self, width: int):
        self.width = width
        super().__init__({
            "i": In(stream.Signature(width)),
            "o": Out(stream.Signature(width)),
        })

    def elaborate(self, platform):
        m = Module()
        spare = Signal(self.width)
        spare_free = Signal(init=1)  # no inverter behind: the sender may enable a whole array
        m.d.comb += self.i.ready.eq(spare_free)

        # The head moves on when taken; what arrives while it cannot is spared.
        with m.If(self.o.ready | ~self.o.valid):
            m.d.sync += spare_free.eq(1)
            m.d.sync += self.o.valid.eq(~spare_free | self.i.valid)
            with m.If(~spare_free):
                m.d.sync += self.o.payload.eq(spare)
            with m.Elif(self.i.valid):
                m.d.sync += self.o.payload.eq(self.i.payload)
        with m.Elif(self.i.valid & self.i.ready):
            m.d.sync += spare.eq(self.i.payload)
            m.d.sync += spare_free.eq(0)
        return m


async def drive(
    ctx: SimulatorContext,
    port: stream.Interface,
    payloads: Sequence[int],
    valid_from: Sequence[int],
) -> list[int]:
    """Send `payloads` into the stream `port`; payload j is offered from cycle ``valid_from[j]``.

    Runs as a testbench from cycle 0 and returns the cycle of each transfer.
    """
    cycle, cycles = 0, []
    for payload, first in zip(payloads, valid_from, strict=True):
        while cycle < first:
            await ctx.tick()
            cycle += 1
        ctx.set(port.payload, payload)
        ctx.set(port.valid, 1)
        taken = False
        while not taken:
            *_, taken = await ctx.tick().sample(port.ready)
            cycle += 1
        cycles.append(cycle - 1)
        ctx.set(port.valid, 0)
    return cycles


async def collect(
    ctx: SimulatorContext, port: stream.Interface, ready_from: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Take a payload per entry of `ready_from` from the stream `port`, the j-th from that cycle on.

    Runs as a testbench from cycle 0 and returns the payloads and the cycle of each transfer.
    """
    cycle, cycles, payloads = 0, [], []
    for first in ready_from:
        while cycle < first:
            await ctx.tick()
            cycle += 1
        ctx.set(port.ready, 1)
        given = False
        while not given:
            *_, given, payload = await ctx.tick().sample(port.valid, port.payload)
            cycle += 1
        payloads.append(payload)
        cycles.append(cycle - 1)
        ctx.set(port.ready, 0)
    return payloads, cycles
