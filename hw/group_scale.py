"""The scales of groups behind an array: converted, multiplied, added up over groups in float32."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.float_unit import FloatUnit
from hw.group import GroupZero
from hw.stream import PairQueue
from hw.systolic import Systolic
from machine.floats import FloatConfig
from machine.group import GroupConfig
from machine.group_scale import HEAD_BITS, GroupScaleConfig
from machine.systolic import COMMAND_BITS, SystolicConfig

__all__ = ["GroupScale", "GroupedSystolic", "ScaleColumn"]


def _slot(cfg: GroupScaleConfig) -> data.StructLayout:
    """What becomes of a row: whether there is one, its number, its group's two marks."""
    return data.StructLayout({"valid": 1, "row": range(max(2, cfg.rows)), "first": 1, "last": 1})


class ScaleColumn(wiring.Component):
    """One column: float32(sum) * scale ``cfg.add_cycles`` steps later, and its addition then.

    Reset clears the registers.

    Members
    -------
    en : In(1)
        Step: registers change only in a cycle with ``en``.
    sum : In(32)
        Sum of a group.
    scale : In(scale_bits)
        Scale of the group, in the same step.
    total : In(32)
        What is added to the product of the sum ``cfg.add_cycles`` steps ago.
    o : Out(32)
        Their sum, in the same step.
    """

    def __init__(self, cfg: GroupScaleConfig):
        self.cfg = cfg
        super().__init__({
            "en": In(1), "sum": In(32), "scale": In(cfg.scale_bits), "total": In(32),
            "o": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg

        # Round an integer to float32; its scale waits beside it.
        number, scale = Value.cast(self.sum), Value.cast(self.scale)
        if cfg.converts:
            m.submodules.convert = convert = FloatUnit(FloatConfig(
                operation="convert", a=cfg.sum_format, depth_cycles=cfg.convert_cycles))
            m.d.comb += [convert.en.eq(self.en), convert.a.eq(self.sum)]
            number = convert.o
        for step in range(cfg.scale_cycles):
            later = Signal(cfg.scale_bits, name=f"scale_{step}")
            with m.If(self.en):
                m.d.sync += later.eq(scale)
            scale = later

        # Multiply; the product is registered.
        m.submodules.multiply = multiply = FloatUnit(FloatConfig(
            operation="multiply", b=cfg.scale_format, depth_cycles=cfg.multiply_cycles))
        product = Signal(32)
        m.d.comb += [multiply.en.eq(self.en), multiply.a.eq(number), multiply.b.eq(scale)]
        with m.If(self.en):
            m.d.sync += product.eq(multiply.o)

        # Add, in the one step between two groups of one row.
        m.submodules.add = add = FloatUnit(FloatConfig(operation="add"))
        m.d.comb += [add.en.eq(self.en), add.a.eq(self.total), add.b.eq(product), self.o.eq(add.o)]
        return m


class GroupScale(wiring.Component):
    """Adds the scaled sums of groups up, row by row, and sends the totals of the last group.

    Latency is ``cfg.latency_cycles``; throughput is one row a cycle, also where a group has one
    row. A row is accepted once the word of its group is there; the word leaves with the last row.
    While two rows of totals wait to be taken the stage stands still. A group of more than
    ``cfg.rows`` rows is not legal and not seen. Reset empties the stage and starts a new group;
    totals that are kept stay.

    Members
    -------
    i_sums : In(stream)
        Rows of sums of one group: column c at bit ``c * 32``. ``ready`` depends on the ``valid`` of
        ``i_scales``.
    i_scales : In(stream)
        A word a group, laid out as ``machine.group_scale.pack_scales``. ``ready`` depends on the
        ``valid`` of ``i_sums``.
    o : Out(stream)
        Rows of totals, float32: column c at bit ``c * 32``.
    """

    def __init__(self, cfg: GroupScaleConfig):
        self.cfg = cfg
        super().__init__({
            "i_sums": In(stream.Signature(cfg.sum_beat_bits)),
            "i_scales": In(stream.Signature(cfg.scale_word_bits)),
            "o": Out(stream.Signature(cfg.sum_beat_bits)),
        })

    def elaborate(self, platform):
        m = Module()
        cfg, layout = self.cfg, _slot(self.cfg)
        m.submodules.queue = queue = PairQueue(cfg.sum_beat_bits)
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        step = queue.i.ready
        word = self.i_scales.payload

        # A row enters with the word of its group, which leaves with the last row.
        here, row = Signal(layout), Signal(16)
        last_row = row == word[:16]
        m.d.comb += [
            here.valid.eq(self.i_sums.valid & self.i_scales.valid),
            here.row.eq(row), here.first.eq(word[16]), here.last.eq(word[17]),
            self.i_sums.ready.eq(step & self.i_scales.valid),
            self.i_scales.ready.eq(step & self.i_sums.valid & last_row),
        ]
        with m.If(step & here.valid):
            m.d.sync += row.eq(Mux(last_row, 0, row + 1))

        # Slots wait for their products; one step before, the total is read.
        line = Signal(layout.size * cfg.add_cycles)
        with m.If(step):
            m.d.sync += line.eq(Cat(here, line))
        waiting = Cat(here, line)
        soon = data.View(layout, waiting[-2 * layout.size : -layout.size])
        slot = data.View(layout, waiting[-layout.size :])
        m.submodules.totals = totals = memory.Memory(
            shape=cfg.sum_beat_bits, depth=cfg.rows, init=[])
        write = totals.write_port()
        read = totals.read_port(transparent_for=(write,))
        m.d.comb += [read.addr.eq(soon.row), read.en.eq(step)]

        # Multiply and add column by column; keep the totals, or send them.
        for col in range(cfg.cols):
            m.submodules[f"column_{col}"] = column = ScaleColumn(cfg)
            m.d.comb += [
                column.en.eq(step),
                column.sum.eq(self.i_sums.payload.word_select(col, 32)),
                column.scale.eq(word[HEAD_BITS:].word_select(col, cfg.scale_bits)),
                column.total.eq(Mux(slot.first, 0, read.data.word_select(col, 32))),
                queue.i.payload.word_select(col, 32).eq(column.o),
            ]
        m.d.comb += [
            write.addr.eq(slot.row),
            write.data.eq(queue.i.payload),
            write.en.eq(step & slot.valid & ~slot.last),
            queue.i.valid.eq(slot.valid & slot.last),
        ]
        return m


class GroupedSystolic(wiring.Component):
    """An array, the zero points of groups and their scales in a row: products of grouped weights.

    A command that emits ends a group. Latency is that of the array, ``zeros.latency_cycles`` and
    ``scales.latency_cycles``; throughput is the array's. Reset is that of the three.

    Parameters
    ----------
    cfg : SystolicConfig
        The array, of integers; its sums have 32 bits.
    zeros : GroupConfig
        The stage that takes zero points off.
    scales : GroupScaleConfig
        The stage that scales and adds up.

    Members
    -------
    i_commands : In(stream)
        As ``hw.systolic.Systolic``.
    i_acts : In(stream)
        As ``hw.systolic.Systolic``.
    i_weights : In(stream)
        As ``hw.systolic.Systolic``.
    i_act_sums : In(stream)
        As ``hw.group.GroupZero``.
    i_zeros : In(stream)
        As ``hw.group.GroupZero``.
    i_scales : In(stream)
        As `GroupScale`.
    o : Out(stream)
        As `GroupScale`.
    """

    def __init__(self, cfg: SystolicConfig, zeros: GroupConfig, scales: GroupScaleConfig):
        self.cfg, self.zeros, self.scales = cfg, zeros, scales
        super().__init__({
            "i_commands": In(stream.Signature(COMMAND_BITS)),
            "i_acts": In(stream.Signature(cfg.act_beat_bits)),
            "i_weights": In(stream.Signature(cfg.weight_beat_bits)),
            "i_act_sums": In(stream.Signature(zeros.act_sum_bits)),
            "i_zeros": In(stream.Signature(zeros.zero_word_bits)),
            "i_scales": In(stream.Signature(scales.scale_word_bits)),
            "o": Out(stream.Signature(scales.sum_beat_bits)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.array = array = Systolic(self.cfg)
        m.submodules.zero = zero = GroupZero(self.zeros)
        m.submodules.scale = scale = GroupScale(self.scales)
        for part, names in ((array, ("i_commands", "i_acts", "i_weights")),
                            (zero, ("i_act_sums", "i_zeros")), (scale, ("i_scales",))):
            for name in names:
                wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(part, name))
        wiring.connect(m, array.o_sums, zero.i_sums)
        wiring.connect(m, zero.o, scale.i_sums)
        wiring.connect(m, scale.o, wiring.flipped(self.o))
        return m
