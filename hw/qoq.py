"""The array behind a decoder of 4-bit weights with a scale and a zero point a group."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.systolic import Systolic
from machine.qoq import (
    CODE_BITS,
    GROUP_BITS,
    LENGTH_BITS,
    SCALE_BITS,
    code_beat_bits,
    group_word_bits,
)
from machine.systolic import COMMAND_BITS, SystolicConfig

__all__ = ["QoqDecoder", "QoqSystolic"]


class QoqDecoder(wiring.Component):
    """Makes s * (q - z) of a beat of codes, modulo 256. Combinational.

    Members
    -------
    codes : In(cols * k_lanes * 4)
        Codes q, unsigned: lane l of column c at bit ``(c * k_lanes + l) * 4``.
    groups : In(cols * 12)
        Scale s of each column, 8 bits, with its zero point z, 4 bits, above; both unsigned.
    weights : Out(weight_beat_bits)
        Weights of 8 bits, in the order of the codes.
    """

    def __init__(self, cfg: SystolicConfig):
        self.cfg = cfg
        super().__init__({
            "codes": In(code_beat_bits(cfg)),
            "groups": In(cfg.cols * GROUP_BITS),
            "weights": Out(cfg.weight_beat_bits),
        })

    def elaborate(self, platform):
        m = Module()
        lanes = self.cfg.pe.k_lanes
        for place in range(self.cfg.cols * lanes):
            group = self.groups.word_select(place // lanes, GROUP_BITS)
            code = self.codes.word_select(place, CODE_BITS)
            m.d.comb += self.weights.word_select(place, self.cfg.w_bits).eq(
                group[:SCALE_BITS] * (code - group[SCALE_BITS:]))
        return m


class QoqSystolic(wiring.Component):
    """Systolic array whose weights come as codes of 4 bits, decoded where they enter.

    The decoder adds no cycle: a beat of codes enters where a beat of weights would, once the word
    of its group is there. A group's word says how many beats of codes it serves and is taken with
    the last of them. Everything else is ``hw.systolic.Systolic``'s. Reset starts a new group.

    Parameters
    ----------
    cfg : SystolicConfig
        Sizes; the kind of the elements is ``qoq``.
    library : str or None
        As for ``hw.systolic.Systolic``.

    Members
    -------
    i_commands : In(stream)
        Command words of 64 bits, laid out as ``machine.systolic.COMMAND_FIELDS``.
    i_acts : In(stream)
        Beats of activations, as ``hw.systolic.Systolic`` takes them.
    i_codes : In(stream)
        Beats of codes, unsigned: lane l of column c at bit ``(c * k_lanes + l) * 4``. ``ready`` may
        depend on the ``valid`` of ``i_groups`` and ``i_acts``.
    i_groups : In(stream)
        Words laid out as ``machine.qoq.pack_group``. ``ready`` may depend on the ``valid`` of
        ``i_codes`` and ``i_acts``.
    o_sums : Out(stream)
        Beats of sums: column c at bit ``c * acc_bits``; rows of the tile in turn.
    """

    def __init__(self, cfg: SystolicConfig, library: str | None = None):
        self.cfg = cfg
        self.library = library
        super().__init__({
            "i_commands": In(stream.Signature(COMMAND_BITS)),
            "i_acts": In(stream.Signature(cfg.act_beat_bits)),
            "i_codes": In(stream.Signature(code_beat_bits(cfg))),
            "i_groups": In(stream.Signature(group_word_bits(cfg))),
            "o_sums": Out(stream.Signature(cfg.sum_beat_bits)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.array = array = Systolic(self.cfg, self.library)
        m.submodules.decoder = decoder = QoqDecoder(self.cfg)
        wiring.connect(m, wiring.flipped(self.i_commands), array.i_commands)
        wiring.connect(m, wiring.flipped(self.i_acts), array.i_acts)
        wiring.connect(m, array.o_sums, wiring.flipped(self.o_sums))

        # A beat of weights is a beat of codes beside the word of its group.
        m.d.comb += [
            decoder.codes.eq(self.i_codes.payload),
            decoder.groups.eq(self.i_groups.payload[LENGTH_BITS:]),
            array.i_weights.payload.eq(decoder.weights),
            array.i_weights.valid.eq(self.i_codes.valid & self.i_groups.valid),
            self.i_codes.ready.eq(array.i_weights.ready & self.i_groups.valid),
        ]

        # The word leaves with the last beat it serves.
        count = Signal(LENGTH_BITS)
        last = count == self.i_groups.payload[:LENGTH_BITS]
        m.d.comb += self.i_groups.ready.eq(array.i_weights.ready & self.i_codes.valid & last)
        with m.If(array.i_weights.valid & array.i_weights.ready):
            m.d.sync += count.eq(Mux(last, 0, count + 1))
        return m
