"""Stages without registers, in a row or side by side, with registers between chosen ones.

A stage is a component with an input ``i`` and an output ``o`` that follows it in the same cycle.
"""

from collections.abc import Mapping, Sequence

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Chain", "Each", "Wire"]


class Wire(wiring.Component):
    """The stage that changes nothing.

    Parameters
    ----------
    layout : ShapeLike
        What passes.

    Members
    -------
    i : In(layout)
        What comes.
    o : Out(layout)
        The same.
    """

    def __init__(self, layout):
        super().__init__({"i": In(layout), "o": Out(layout)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o.eq(self.i)
        return m


class Each(wiring.Component):
    """Stages side by side, as one stage.

    Parameters
    ----------
    parts : mapping of str to stage
        Each one works on the field of its name.

    Members
    -------
    i : In(StructLayout)
        Input of every part.
    o : Out(StructLayout)
        Output of every part.
    """

    def __init__(self, parts: Mapping[str, wiring.Component]):
        self.parts = dict(parts)
        super().__init__({
            "i": In(data.StructLayout({name: _shape(part, "i") for name, part in parts.items()})),
            "o": Out(data.StructLayout({name: _shape(part, "o") for name, part in parts.items()})),
        })

    def elaborate(self, platform):
        m = Module()
        for name, part in self.parts.items():
            m.submodules[name] = part
            m.d.comb += [part.i.eq(self.i[name]), self.o[name].eq(part.o)]
        return m


class Chain(wiring.Component):
    """Stages in a row, with a register behind some of them.

    Latency is the number of registers, in steps; throughput is one input a step. Reset clears the
    registers. Without registers it is a stage itself, and ``en`` means nothing.

    Parameters
    ----------
    stages : sequence of stages
        Each one's ``o`` has the shape of the next one's ``i``. Raises ``ValueError`` if not.
    registers : tuple of int
        Stages, counted from 0, whose output is registered.

    Members
    -------
    en : In(1)
        Step: registers change only in a cycle with ``en``.
    i : In(shape of the first stage)
        Input of the first stage.
    o : Out(shape of the last stage)
        Output of the last stage.
    """

    def __init__(self, stages: Sequence[wiring.Component], registers: tuple[int, ...] = ()):
        self.stages = tuple(stages)
        self.registers = registers
        for before, after in zip(stages, stages[1:], strict=False):
            if _shape(before, "o") != _shape(after, "i"):
                raise ValueError(f"input of {type(after).__name__} must be the output of "
                                 f"{type(before).__name__}, {_shape(before, 'o')!r}, "
                                 f"not {_shape(after, 'i')!r}")
        super().__init__({
            "en": In(1),
            "i": In(_shape(stages[0], "i")),
            "o": Out(_shape(stages[-1], "o")),
        })

    def elaborate(self, platform):
        m = Module()
        passing = self.i
        for index, stage in enumerate(self.stages):
            m.submodules[f"stage_{index}"] = stage
            m.d.comb += stage.i.eq(passing)
            passing = stage.o
            if index in self.registers:
                passing = Signal(_shape(stage, "o"), name=f"register_{index}")
                with m.If(self.en):
                    m.d.sync += passing.eq(stage.o)
        m.d.comb += self.o.eq(passing)
        return m


def _shape(stage, port):
    return stage.signature.members[port].shape
