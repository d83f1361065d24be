"""The instructions of a queue that have started on units and are not complete."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.tokens import pairs_layout
from machine.front_end import FrontEndConfig

__all__ = ["Flight"]


class Flight(wiring.Component):
    """Follows up to ``slots`` instructions of a queue, each until the last of its units is done.

    A unit does its instructions in order. Several units may be done in one cycle, and an
    instruction completes in the cycle in which its last one is. Reset and ``clear`` empty it.

    Parameters
    ----------
    units : int
        Units of the queue's kind.

    Members
    -------
    clear : In(1)
        Forget everything.
    free : Out(1)
        There is room for another instruction; a function of registers alone.
    start : In(1)
        An instruction starts; only if ``free``.
    mask : In(units)
        Its units, at least one.
    signals : In(pairs_layout)
        What it signals when it is complete.
    done : In(units)
        A unit has done the oldest of its instructions, in this cycle.
    gives : Out(units)
        That completes the instruction.
    given : Out(pairs_layout)
        One a unit: what the instruction signals that it has done.
    open : Out(1)
        An instruction is not complete at the end of this cycle, those apart that start in it.
    stray : Out(1)
        A unit is done that has no instruction of this queue.
    """

    def __init__(self, cfg: FrontEndConfig, units: int):
        self.cfg, self.units = cfg, units
        pairs = pairs_layout(cfg)
        super().__init__({
            "clear": In(1),
            "free": Out(1),
            "start": In(1),
            "mask": In(units),
            "signals": In(pairs),
            "done": In(units),
            "gives": Out(units),
            "given": Out(pairs).array(units),
            "open": Out(1),
            "stray": Out(units),
        })

    def elaborate(self, platform):
        m = Module()
        slots = range(self.cfg.slots)
        left = Array(Signal(self.units, name=f"left_{s}") for s in slots)  # 0: the slot is free
        signals = Array(Signal.like(self.signals.as_value(), name=f"signals_{s}") for s in slots)

        # The instruction takes the first free slot.
        slot = Signal(range(self.cfg.slots))
        for s in reversed(slots):
            with m.If(left[s] == 0):
                m.d.comb += [slot.eq(s), self.free.eq(1)]

        # Each unit knows the slots of its instructions, the oldest first.
        oldest, served = [], []
        for unit in range(self.units):
            line = [Signal(range(self.cfg.slots), name=f"line_{unit}_{s}") for s in slots]
            count = Signal(range(self.cfg.slots + 1), name=f"count_{unit}")
            done = self.done[unit] & (count != 0)
            enters = self.start & self.mask[unit]
            place = Signal(range(self.cfg.slots + 1), name=f"place_{unit}")
            m.d.comb += [place.eq(count - done), self.stray[unit].eq(self.done[unit] & ~done)]
            m.d.sync += count.eq(Mux(self.clear, 0, place + enters))
            for s in slots:
                moved = line[s + 1] if s + 1 < len(line) else line[s]
                m.d.sync += line[s].eq(Mux(enters & (place == s), slot, Mux(done, moved, line[s])))
            oldest.append(line[0])
            served.append(done)

        # An instruction is complete when its last unit is done; the lowest one gives its signals.
        after = []
        for s in slots:
            gone = Cat(done & (line == s) for done, line in zip(served, oldest, strict=True))
            rest = Signal(self.units, name=f"rest_{s}")
            m.d.comb += rest.eq(left[s] & ~gone)
            m.d.sync += left[s].eq(Mux(self.clear, 0, rest))
            after.append(rest)
        for unit in range(self.units):
            same = [served[other] & (oldest[other] == oldest[unit]) for other in range(unit)]
            m.d.comb += [
                self.gives[unit].eq(served[unit] & (Array(after)[oldest[unit]] == 0)
                                    & ~Cat(same).any()),
                self.given[unit].eq(signals[oldest[unit]]),
            ]
        m.d.comb += self.open.eq(Cat(rest.any() for rest in after).any())
        with m.If(self.start & ~self.clear):
            m.d.sync += [left[slot].eq(self.mask), signals[slot].eq(self.signals)]
        return m
