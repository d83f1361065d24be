"""Properties of streams, as monitors that a proof binds around an unchanged design.

A monitor only reads. Its assertions hold in every cycle in which the design is correct, from
reset on and through further resets.
"""

from collections.abc import Callable
from typing import Any

from amaranth.hdl import Array, Assert, Assume, Module, Mux, ResetSignal, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["AnySchedule", "Carried", "Kept", "KeptOutputs", "Work"]

# Of the free data: the payloads of each stream that enters, and those of each one that leaves.
Work = Callable[[Value], tuple[dict[str, list[Any]], dict[str, list[Any]]]]


class Kept(wiring.Component):
    """Asserts that a stream keeps what it offers, unchanged, until it is taken.

    Parameters
    ----------
    width : int
        Bits of the payload.

    Members
    -------
    valid : In(1)
        A payload is offered.
    ready : In(1)
        It is taken.
    payload : In(width)
        The payload.
    """

    def __init__(self, width: int):
        self.width = width
        super().__init__({"valid": In(1), "ready": In(1), "payload": In(width)})

    def elaborate(self, platform):
        m = Module()
        stalled, before = Signal(), Signal(self.width)
        m.d.sync += [stalled.eq(self.valid & ~self.ready), before.eq(self.payload)]
        with m.If(stalled):
            m.d.comb += Assert(self.valid)
            m.d.comb += Assert(self.payload == before)
        return m


class Carried(wiring.Component):
    """Asserts that payloads leave a block in the order they entered, none lost and none made up.

    One payload, which ``choose`` picks freely, is followed from where it enters to where it leaves;
    what holds for it holds for all. A payload may leave in the cycle in which it enters.

    Parameters
    ----------
    width : int
        Bits of the payload as it leaves.
    capacity : int
        Most payloads inside at the end of a cycle.

    Members
    -------
    choose : In(1)
        Free: the payload that enters is the one to follow.
    entered : In(1)
        A payload enters.
    expected : In(width)
        What it is when it leaves.
    left : In(1)
        A payload leaves.
    payload : In(width)
        The payload that leaves.
    inside : Out(range(capacity + 1))
        Payloads inside before this cycle.
    """

    def __init__(self, width: int, capacity: int):
        self.width = width
        self.capacity = capacity
        super().__init__({
            "choose": In(1),
            "entered": In(1),
            "expected": In(width),
            "left": In(1),
            "payload": In(width),
            "inside": Out(range(capacity + 1)),
        })

    def elaborate(self, platform):
        m = Module()

        # None made up, none lost: as many inside as there is room for.
        now = Signal(range(self.capacity + 2))
        m.d.comb += now.eq(self.inside + self.entered)
        m.d.comb += Assert(~self.left | (now != 0))
        m.d.comb += Assert(now - self.left <= self.capacity)
        m.d.sync += self.inside.eq(now - self.left)

        # The one that is followed, and how many are in front of it.
        following, value, ahead = Signal(), Signal(self.width), Signal(range(self.capacity + 1))
        picked, want, before = Signal(), Signal(self.width), Signal(range(self.capacity + 1))
        m.d.comb += [
            picked.eq(following | (self.entered & self.choose)),
            want.eq(Mux(following, value, self.expected)),
            before.eq(Mux(following, ahead, self.inside)),
        ]
        m.d.sync += [following.eq(picked), value.eq(want), ahead.eq(before - self.left)]
        with m.If(picked & self.left & (before == 0)):
            m.d.comb += Assert(self.payload == want)
            m.d.sync += following.eq(0)
        return m


class KeptOutputs(wiring.Component):
    """A component, all of whose ports are streams, with anything at its inputs; `Kept` outputs.

    The members are those of the component.

    Parameters
    ----------
    dut : wiring.Component
        The component.
    """

    def __init__(self, dut: wiring.Component):
        self.dut = dut
        super().__init__(dut.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        wiring.connect(m, wiring.flipped(self), dut)
        for name, member in dut.signature.members.items():
            if member.flow is Out:
                port = getattr(dut, name)
                m.submodules[f"kept_{name}"] = kept = Kept(len(port.payload))
                m.d.comb += [kept.valid.eq(port.valid), kept.ready.eq(port.ready),
                             kept.payload.eq(port.payload)]
        return m


class AnySchedule(wiring.Component):
    """A component, all of whose ports are streams, that does some work under every schedule.

    Each stream offers its next payload, and takes the next one, in whatever cycles it likes; while
    it offers none its payload is anything. Asserts that what leaves is right and in order, and all
    there once everything has entered and been taken long enough; and that something moves as long
    as everything is offered and taken. There is no reset.

    Parameters
    ----------
    dut : wiring.Component
        The component.
    data_bits : int
        Free bits, the same in all cycles.
    work : Work
        Payloads that enter and that must leave, as functions of the free bits.
    quiet_cycles : int
        Cycles, counted while all is taken, after which everything that entered has left; and most
        cycles in which nothing moves although everything is offered and taken.

    Members
    -------
    data : In(data_bits)
        Free; the first cycle's counts.
    offer : In(streams that enter)
        Free: the stream offers.
    take : In(streams that leave)
        Free: the stream takes.
    noise : In(64)
        Free: payload of a stream that offers none.
    """

    def __init__(self, dut: wiring.Component, data_bits: int, work: Work, quiet_cycles: int):
        self.dut, self.work, self.quiet_cycles = dut, work, quiet_cycles
        flows = [member.flow for member in dut.signature.members.values()]
        super().__init__({
            "data": In(data_bits),
            "offer": In(flows.count(In)),
            "take": In(flows.count(Out)),
            "noise": In(64),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        m.d.comb += Assume(~ResetSignal())

        # The data are what they are in the first cycle.
        started, held, data = Signal(), Signal.like(self.data), Signal.like(self.data)
        m.d.comb += data.eq(Mux(started, held, self.data))
        m.d.sync += [started.eq(1), held.eq(data)]
        enter, leave = self.work(data)

        # What enters.
        entered, moves = Value.cast(1), Value.cast(0)
        for offer, (name, payloads) in zip(self.offer, enter.items(), strict=True):
            port = getattr(dut, name)
            at = Signal(range(len(payloads) + 1), name=f"{name}_moved")
            m.d.comb += [
                port.valid.eq(offer & (at < len(payloads))),
                port.payload.eq(Mux(port.valid, Array(payloads)[at], self.noise)),
            ]
            m.d.sync += at.eq(at + (port.valid & port.ready))
            entered, moves = entered & (at == len(payloads)), moves | (port.valid & port.ready)

        # What leaves.
        left = Value.cast(1)
        for take, (name, payloads) in zip(self.take, leave.items(), strict=True):
            port = getattr(dut, name)
            at = Signal(range(len(payloads) + 1), name=f"{name}_moved")
            m.d.comb += port.ready.eq(take)
            with m.If(port.valid):
                m.d.comb += Assert(at < len(payloads))
                for number, payload in enumerate(payloads):
                    with m.If(at == number):
                        m.d.comb += Assert(port.payload == payload)
            m.d.sync += at.eq(at + (port.valid & port.ready))
            left, moves = left & (at == len(payloads)), moves | (port.valid & port.ready)

        # None is lost, and nothing hangs.
        quiet, idle = Signal(range(self.quiet_cycles + 1)), Signal(range(self.quiet_cycles + 1))
        with m.If(entered & self.take.all() & (quiet < self.quiet_cycles)):
            m.d.sync += quiet.eq(quiet + 1)
        with m.If(self.offer.all() & self.take.all() & ~moves & (idle < self.quiet_cycles)):
            m.d.sync += idle.eq(idle + 1)
        with m.Else():
            m.d.sync += idle.eq(0)
        m.d.comb += Assert((quiet < self.quiet_cycles) & (idle < self.quiet_cycles) | left)
        return m
