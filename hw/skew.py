"""The diagonal wave of a systolic array: beats delayed lane by lane, control row by row."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.pe import CONTROL, CONTROL_BITS
from machine.systolic import SystolicConfig

__all__ = ["Edge", "Skew"]


class Skew(wiring.Component):
    """Delays each lane of a beat by its own number of steps.

    Parameters
    ----------
    width : int
        Bits of a lane; lane j lies at bit ``j * width``.
    delays : tuple of int
        Steps of each lane.

    Members
    -------
    step : In(1)
        Registers change only in a cycle with ``step``.
    i : In(lanes * width)
        The beat.
    o : Out(lanes * width)
        Lane j as it was ``delays[j]`` steps ago.
    """

    def __init__(self, width: int, delays: tuple[int, ...]):
        self.width = width
        self.delays = delays
        super().__init__({
            "step": In(1),
            "i": In(width * len(delays)),
            "o": Out(width * len(delays)),
        })

    def elaborate(self, platform):
        m = Module()
        for lane, delay in enumerate(self.delays):
            source = self.i.word_select(lane, self.width)
            target = self.o.word_select(lane, self.width)
            line = Signal(self.width * delay, name=f"line_{lane}")
            with m.If(self.step):
                m.d.sync += line.eq(Cat(source, line))
            m.d.comb += target.eq(Cat(source, line)[self.width * delay :])
        return m


class Edge(wiring.Component):
    """Control of every row: row r does what row 0 did r steps ago.

    Accepted weights end at their row; the sums of an ``os`` tile wait in row r until those of the
    last row are complete, ``rows - 1 - r`` steps, and while partial sums merge.

    Members
    -------
    step : In(1)
        Registers change only in a cycle with ``step``.
    control : In(6)
        `CONTROL` of row 0, without ``hold``.
    hops : In(range(rows))
        Rows below row 0 that the weights of this step pass on to.
    controls : Out(rows * 6)
        `CONTROL` of each row; row r lies at bit ``6 * r``.
    """

    def __init__(self, cfg: SystolicConfig):
        self.cfg = cfg
        super().__init__({
            "step": In(1),
            "control": In(CONTROL_BITS),
            "hops": In(range(cfg.rows)),
            "controls": Out(CONTROL_BITS * cfg.rows),
        })

    def elaborate(self, platform):
        m = Module()
        rows, merge = self.cfg.rows, self.cfg.pe.merge_cycles
        above, hops = data.View(CONTROL, self.control), self.hops
        for row in range(rows):
            # Row 0 takes the entry as it is, a later row the row above one step later.
            here = above
            if row > 0:
                here = Signal(CONTROL, name=f"control_{row}")
                left = Signal(range(rows), name=f"hops_{row}")
                with m.If(self.step):
                    m.d.sync += here.eq(above)
                    m.d.sync += here.load.eq(above.load & (hops != 0))
                    m.d.sync += left.eq(hops - 1)
                above, hops = here, left

            # Steps that the sums of this row have to wait.
            wait = Signal(range(rows + merge), name=f"wait_{row}")
            with m.If(self.step):
                with m.If(here.mac & here.os & here.last):
                    m.d.sync += wait.eq(rows - 1 - row + merge)
                with m.Elif(wait != 0):
                    m.d.sync += wait.eq(wait - 1)
            out = data.View(CONTROL, self.controls.word_select(row, CONTROL_BITS))
            m.d.comb += [out.eq(here), out.hold.eq(wait != 0)]
        return m
