"""The step of an array in a register beside each part that it enables: no wire of it is long.

Whether a cycle is a step is known in the cycle before, so the registers take it there, all the same
bit. In Verilog each of them is a module: of equal registers in one module synthesis makes one.
"""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.library import part
from hw.sequencer import slot_layout
from hw.skew import Skew
from hw.stream import PairQueue
from machine.systolic import SystolicConfig

__all__ = ["STEPPED", "QueueLanes", "SkewLanes", "Step", "Steps", "SumQueue"]

# Parts of an array that are enabled as a whole; elements and columns of sums are one by one.
STEPPED = ("sequencer", "inputs", "edge", "acts", "weights", "collector")


class Step(wiring.Component):
    """A register of the step, for one part of the array. Reset lets the array step.

    Members
    -------
    coming : In(1)
        The next cycle is a step.
    step : Out(1)
        This cycle is.
    """

    @staticmethod
    def ports(cfg: SystolicConfig) -> wiring.Signature:
        """Return the signature, the same for every `cfg`."""
        return wiring.Signature({"coming": In(1), "step": Out(1, init=1)})

    def __init__(self, cfg: SystolicConfig):
        self.cfg = cfg
        super().__init__(self.ports(cfg))

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.step.eq(self.coming)
        return m


class Steps(wiring.Component):
    """Tells a cycle ahead whether the array steps: whether its output queue will have room.

    There is none while a row is behind the queue's head, which is where one goes that enters while
    the head stays.

    Members
    -------
    slot : In(slot_layout(cfg))
        What becomes of the row of sums that may enter the queue ``cfg.latency_cycles - 1`` steps
        later.
    free : In(1)
        The head of the queue is free, or taken in this cycle.
    coming : Out(1)
        The next cycle is a step.
    steps : Out(6)
        This cycle is one, in a register for each of `STEPPED`.
    """

    def __init__(self, cfg: SystolicConfig, library: str | None = None):
        self.cfg = cfg
        self.library = library
        super().__init__({
            "slot": In(slot_layout(self.cfg)),
            "free": In(1),
            "coming": Out(1),
            "steps": Out(data.StructLayout(dict.fromkeys(STEPPED, 1))),
        })

    def elaborate(self, platform):
        m = Module()
        copies = {}
        for name in ("own", *STEPPED):
            copy, m.submodules[f"step_{name}"] = part(Step, self.cfg, self.library)
            m.d.comb += copy.coming.eq(self.coming)
            copies[name] = copy.step
        m.d.comb += [self.steps[name].eq(copies[name]) for name in STEPPED]

        # Whether a row enters the queue in this step comes from a register, and nothing long goes
        # into one: the slot is the last that the sequencer decides.
        valid, emit = Signal(), Signal()
        m.submodules.line = line = Skew(1, (self.cfg.latency_cycles - 2,))
        with m.If(copies["own"]):
            m.d.sync += [valid.eq(self.slot.valid), emit.eq(self.slot.emit)]
        m.d.comb += [
            line.step.eq(copies["own"]),
            line.i.eq(valid & emit),
            self.coming.eq(self.free | (copies["own"] & ~line.o)),
        ]
        return m


class SkewLanes(wiring.Component):
    """Straightens rows of sums as ``Skew`` does, each column with a step register of its own.

    Members
    -------
    step : In(1)
        The next cycle is a step: registers change only in a step.
    i : In(cols * acc_bits)
        Sums as they leave the grid; column c at bit ``c * acc_bits``.
    o : Out(cols * acc_bits)
        Column c as it was ``cols - 1 - c`` steps ago.
    """

    def __init__(self, cfg: SystolicConfig, library: str | None = None):
        self.cfg = cfg
        self.library = library
        super().__init__({
            "step": In(1), "i": In(cfg.sum_beat_bits), "o": Out(cfg.sum_beat_bits),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        for col in range(cfg.cols):
            copy, m.submodules[f"step_{col}"] = part(Step, cfg, self.library)
            m.submodules[f"lane_{col}"] = lane = Skew(cfg.acc_bits, (cfg.cols - 1 - col,))
            m.d.comb += [
                copy.coming.eq(self.step),
                lane.step.eq(copy.step),
                lane.i.eq(self.i.word_select(col, cfg.acc_bits)),
                self.o.word_select(col, cfg.acc_bits).eq(lane.o),
            ]
        return m


class SumQueue(PairQueue):
    """``PairQueue`` of one column's sums.

    Members
    -------
    i : In(stream)
        Sums.
    o : Out(stream)
        The same sums, one cycle later or more.
    """

    @staticmethod
    def ports(cfg: SystolicConfig) -> wiring.Signature:
        """Return the signature of the queue of `cfg`."""
        return wiring.Signature({name: side(stream.Signature(cfg.acc_bits))
                                 for name, side in (("i", In), ("o", Out))})

    def __init__(self, cfg: SystolicConfig):
        self.cfg = cfg
        super().__init__(cfg.acc_bits)


class QueueLanes(wiring.Component):
    """``PairQueue`` of rows of sums whose columns are queues of their own, all in the same state.

    Members
    -------
    i : In(stream)
        Rows of sums: column c at bit ``c * acc_bits``.
    o : Out(stream)
        The same rows, one cycle later or more.
    """

    def __init__(self, cfg: SystolicConfig, library: str | None = None):
        self.cfg = cfg
        self.library = library
        super().__init__({
            "i": In(stream.Signature(cfg.sum_beat_bits)),
            "o": Out(stream.Signature(cfg.sum_beat_bits)),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        for col in range(cfg.cols):
            queue, m.submodules[f"lane_{col}"] = part(SumQueue, cfg, self.library)
            m.d.comb += [
                queue.i.valid.eq(self.i.valid),
                queue.i.payload.eq(self.i.payload.word_select(col, cfg.acc_bits)),
                queue.o.ready.eq(self.o.ready),
                self.o.payload.word_select(col, cfg.acc_bits).eq(queue.o.payload),
            ]
            if col == 0:
                m.d.comb += [self.i.ready.eq(queue.i.ready), self.o.valid.eq(queue.o.valid)]
        return m
