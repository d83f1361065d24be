"""Properties of streams, as monitors that a proof binds around an unchanged design.

A monitor only reads. Its assertions hold in every cycle in which the design is correct, from
reset on and through further resets.
"""

from amaranth.hdl import Assert, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

__all__ = ["Carried", "Kept"]


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
            "inside": wiring.Out(range(capacity + 1)),
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
