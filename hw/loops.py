"""The hardware loops of a queue: a stack of bodies, trip counts and indices."""

from amaranth.hdl import Array, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from machine.front_end import FrontEndConfig
from machine.program import LOOP_LEVELS

__all__ = ["Loops"]


class Loops(wiring.Component):
    """Loops of a queue, ``LOOP_LEVELS`` deep; enters or ends one a cycle.

    The loader has checked that LOOPs and ENDs pair and are not too deep. Reset and ``clear`` leave
    no loop open.

    Members
    -------
    clear : In(1)
        No loop is open.
    enter : In(1)
        A loop is entered; not with ``again``.
    body : In(range(instructions))
        Its first instruction.
    count : In(index_bits)
        Its trip count, at least 1.
    again : In(1)
        The body of the innermost loop has ended.
    repeat : Out(1)
        That loop then goes on with the next index; else it is left.
    to : Out(range(instructions))
        The first instruction of the innermost loop.
    depth : Out(range(LOOP_LEVELS + 1))
        Loops open.
    index : Out(index_bits)
        One a level: its index; 0 for one that is not open.
    """

    def __init__(self, cfg: FrontEndConfig):
        self.cfg = cfg
        super().__init__({
            "clear": In(1),
            "enter": In(1),
            "body": In(range(cfg.instructions)),
            "count": In(cfg.index_bits),
            "again": In(1),
            "repeat": Out(1),
            "to": Out(range(cfg.instructions)),
            "depth": Out(range(LOOP_LEVELS + 1)),
            "index": Out(cfg.index_bits).array(LOOP_LEVELS),
        })

    def elaborate(self, platform):
        m = Module()
        levels = range(LOOP_LEVELS)
        bodies = Array(Signal(range(self.cfg.instructions), name=f"body_{i}") for i in levels)
        last = Array(Signal(self.cfg.index_bits, name=f"last_{i}") for i in levels)
        index = Array(self.index)

        top = Signal(range(LOOP_LEVELS + 1))
        m.d.comb += [
            top.eq(self.depth - 1),
            self.repeat.eq(index[top] != last[top]),
            self.to.eq(bodies[top]),
        ]
        with m.If(self.enter):
            m.d.sync += [
                bodies[self.depth].eq(self.body),
                last[self.depth].eq(self.count - 1),
                self.depth.eq(self.depth + 1),
            ]
        with m.If(self.again):
            with m.If(self.repeat):
                m.d.sync += index[top].eq(index[top] + 1)
            with m.Else():
                m.d.sync += [index[top].eq(0), self.depth.eq(top)]
        with m.If(self.clear):
            m.d.sync += [self.depth.eq(0), *(one.eq(0) for one in self.index)]
        return m
