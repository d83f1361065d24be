"""The zero points of a group, taken off the rows of sums behind an array."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.stream import PairQueue
from machine.group import GroupConfig

__all__ = ["GroupZero"]


class GroupZero(wiring.Component):
    """Makes sum - zero * (sum of activations) of every row of a group's sums.

    Latency is ``cfg.latency_cycles``; throughput is one row a cycle. A row is accepted once it,
    its sum of activations and the word of its group are there; the word leaves with the last row.
    Sums wrap at ``acc_bits``. Reset empties the stage and starts a new group.

    Members
    -------
    i_sums : In(stream)
        Rows of sums of one group: column c, signed, at bit ``c * acc_bits``. ``ready`` depends on
        the ``valid`` of the other two.
    i_act_sums : In(stream)
        Sum of the activations of each row over the group, signed. ``ready`` depends likewise.
    i_zeros : In(stream)
        A word a group: rows less one in bits 0 to 15, then the zero point of column c, unsigned, at
        bit ``16 + c * w_bits``. ``ready`` depends likewise.
    o : Out(stream)
        Rows of results: column c, signed, at bit ``c * acc_bits``.
    """

    def __init__(self, cfg: GroupConfig):
        self.cfg = cfg
        super().__init__({
            "i_sums": In(stream.Signature(cfg.sum_beat_bits)),
            "i_act_sums": In(stream.Signature(cfg.act_sum_bits)),
            "i_zeros": In(stream.Signature(cfg.zero_word_bits)),
            "o": Out(stream.Signature(cfg.sum_beat_bits)),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        inputs = (self.i_sums, self.i_act_sums, self.i_zeros)
        m.submodules.queue = queue = PairQueue(cfg.sum_beat_bits)
        wiring.connect(m, queue.o, wiring.flipped(self.o))

        # Multiply and subtract, column by column.
        added = self.i_act_sums.payload.as_signed()
        for col in range(cfg.cols):
            total = self.i_sums.payload.word_select(col, cfg.acc_bits)
            zero = self.i_zeros.payload[16:].word_select(col, cfg.w_bits)
            m.d.comb += queue.i.payload.word_select(col, cfg.acc_bits).eq(total - zero * added)

        # All three are taken together; the group's word only with its last row.
        count, move = Signal(16), Signal()
        last = count == self.i_zeros.payload[:16]
        m.d.comb += [
            queue.i.valid.eq(self.i_sums.valid & self.i_act_sums.valid & self.i_zeros.valid),
            move.eq(queue.i.valid & queue.i.ready),
        ]
        for port in inputs:
            m.d.comb += port.ready.eq(move & last if port is self.i_zeros else move)
        with m.If(move):
            m.d.sync += count.eq(Mux(last, 0, count + 1))
        return m
