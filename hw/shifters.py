"""What floats are shifted with: a count of leading zeros, a left shift, a right shift."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["LeadingZeros", "LeftShifter", "StickyShifter"]


class LeadingZeros(wiring.Component):
    """Counts the zeros above the highest one, pair by pair. No registers.

    Parameters
    ----------
    width : int
        Bits of the number; at least 1.

    Members
    -------
    i : In(width)
        The number.
    o : Out(range(width))
        Its leading zeros; without meaning if ``i`` is 0.
    """

    def __init__(self, width: int):
        self.width = width
        super().__init__({"i": In(width), "o": Out(range(width))})

    def elaborate(self, platform):
        m = Module()
        levels = (self.width - 1).bit_length()
        # Ones below the number make it a power of two wide.
        padding = 2**levels - self.width
        bits = [*reversed(self.i), *(Cat(1) for _ in range(padding))]
        nodes = [(~bit, Cat()) for bit in bits]
        for level in range(levels):
            joined = []
            for j in range(0, len(nodes), 2):
                (zero, high), (zero_low, low) = nodes[j], nodes[j + 1]
                empty = Signal(name=f"empty_{level}_{j}")
                count = Signal(level + 1, name=f"count_{level}_{j}")
                m.d.comb += [empty.eq(zero & zero_low),
                             count.eq(Cat(Mux(zero, low, high), zero))]
                joined.append((empty, count))
            nodes = joined
        m.d.comb += self.o.eq(nodes[0][1])
        return m


class LeftShifter(wiring.Component):
    """Shifts to the left; what leaves at the top is lost. No registers.

    Parameters
    ----------
    width : int
        Bits of the number.
    limit : int
        Most places.

    Members
    -------
    i : In(width)
        The number.
    amount : In(range(limit + 1))
        Places.
    o : Out(width)
        The number, shifted.
    """

    def __init__(self, width: int, limit: int):
        self.width = width
        super().__init__({"i": In(width), "amount": In(range(limit + 1)), "o": Out(width)})

    def elaborate(self, platform):
        m = Module()
        number = self.i
        for place, bit in enumerate(self.amount):
            moved = Signal(self.width, name=f"moved_{place}")
            m.d.comb += moved.eq(Mux(bit, number << (1 << place), number))
            number = moved
        m.d.comb += self.o.eq(number)
        return m


class StickyShifter(wiring.Component):
    """Shifts to the right; the last bit becomes 1 if a one is lost. No registers.

    Parameters
    ----------
    width : int
        Bits of the number.
    limit : int
        Most places.

    Members
    -------
    i : In(width)
        The number.
    amount : In(range(limit + 1))
        Places.
    o : Out(width)
        The number, shifted, its last bit set if any bit below it was.
    """

    def __init__(self, width: int, limit: int):
        self.width = width
        super().__init__({"i": In(width), "amount": In(range(limit + 1)), "o": Out(width)})

    def elaborate(self, platform):
        m = Module()
        number = self.i
        for place, bit in enumerate(self.amount):
            moved = Signal(self.width, name=f"moved_{place}")
            step = 1 << place
            lost = number[:step + 1].any()
            m.d.comb += moved.eq(Mux(bit, Cat(lost, number[step + 1:]), number))
            number = moved
        m.d.comb += self.o.eq(number)
        return m
