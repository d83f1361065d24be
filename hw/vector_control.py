"""What the lanes of the vector unit are told: the control of each beat, stage by stage."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.vector_lane import address_bits, layouts
from hw.vector_operands import PREPARE
from machine.vector import Mask
from machine.vector_core import (
    COMMAND_BITS,
    COMMAND_FIELDS,
    OUTPUT_FORMATS,
    VectorCoreConfig,
    quantiser_words,
)
from machine.vector_microcode import FIELDS, STEP_BITS, Count, Op, Place

__all__ = ["COMMAND", "STEP", "Addresses", "Control", "Preparation", "Results", "Sight"]

KEPT = range(2, 10)  # numbers that all lanes see and steps may write

STEP = data.FlexibleLayout(STEP_BITS, {
    name: data.Field(width, low) for name, (low, width) in FIELDS.items()})
COMMAND = data.FlexibleLayout(COMMAND_BITS, {
    name: data.Field(width, low) for name, low, width in COMMAND_FIELDS})


class Addresses(wiring.Component):
    """Where a beat lies in its row registers. No registers.

    Members
    -------
    step : In(StructLayout)
        The step at work.
    beat : In(16)
        Beat of the step; of a sum in sequential order, the element.
    in_turn : In(1)
        The step adds in sequential order.
    a : Out(bits)
        Address of operand a.
    b : Out(bits)
        Address of operand b.
    to : Out(bits)
        Address of the result.
    """

    def __init__(self, cfg: VectorCoreConfig):
        self.cfg = cfg
        bits = address_bits(cfg)
        super().__init__({"step": In(STEP), "beat": In(16), "in_turn": In(1),
                          "a": Out(bits), "b": Out(bits), "to": Out(bits)})

    def elaborate(self, platform):
        m = Module()
        lane_bits, beat_bits = (size.bit_length() - 1 for size in (
            self.cfg.lanes, self.cfg.row_beats))
        element = Mux(self.in_turn, self.beat >> lane_bits, self.beat)
        for name, beat in (("a", element), ("b", element), ("to", self.beat)):
            m.d.comb += getattr(self, name).eq(
                Cat(beat[:beat_bits], self.step[f"{name}_index"][:3]))
        return m


class Sight(wiring.Component):
    """Which elements of a beat count. No registers.

    Members
    -------
    command : In(StructLayout)
        The command at work.
    beat : In(16)
        Beat of the row.
    final : In(1)
        It is the row's last.
    position : In(32)
        Position of the row.
    visible : Out(lanes)
        Elements that the row's query sees.
    inside : Out(lanes)
        Elements that lie within the width.
    """

    def __init__(self, cfg: VectorCoreConfig):
        self.cfg = cfg
        super().__init__({"command": In(COMMAND), "beat": In(16), "final": In(1),
                          "position": In(32), "visible": Out(cfg.lanes), "inside": Out(cfg.lanes)})

    def elaborate(self, platform):
        m = Module()
        command, lane_bits = self.command, self.cfg.lanes.bit_length() - 1
        ahead = Signal(signed(34))
        m.d.comb += ahead.eq(self.position - (self.beat << lane_bits))
        for lane in range(self.cfg.lanes):
            # The row's query sees element j at a distance of position - j.
            distance = Signal(signed(34), name=f"distance_{lane}")
            m.d.comb += [
                distance.eq(ahead - lane),
                self.inside[lane].eq(~self.final | (lane <= command.width_last[:lane_bits])),
                self.visible[lane].eq(
                    (command.mask == Mask.NONE)
                    | ((distance >= 0) & ((command.mask == Mask.CAUSAL)
                                          | (distance < command.window)))),
            ]
        return m


class Results(wiring.Component):
    """Follows a beat to its result. Reset clears the pipeline.

    Members
    -------
    step : In(StructLayout)
        The step at work.
    command : In(StructLayout)
        The command at work.
    commit : In(1)
        A beat begins its way to the result.
    address : In(bits)
        Where it goes, if to a row register.
    final : In(1)
        It is the row's last.
    write : Out(StructLayout)
        ``cfg.latency_cycles`` later, for the lanes.
    keep : Out(1)
        Then: the result is a number for all lanes.
    second : Out(1)
        Then: it is lane 1's, not lane 0's.
    number : Out(4)
        Then: which number.
    send : Out(StructLayout)
        One more later, for the lanes.
    push : Out(1)
        Then: a beat is sent.
    sent : Out(lanes)
        Then: which lanes of it are not 0.
    """

    def __init__(self, cfg: VectorCoreConfig):
        self.cfg = cfg
        super().__init__({
            "step": In(STEP), "command": In(COMMAND), "commit": In(1),
            "address": In(address_bits(cfg)), "final": In(1),
            "write": Out(layouts(cfg)["write"]), "keep": Out(1), "second": Out(1),
            "number": Out(4), "send": Out(layouts(cfg)["send"]), "push": Out(1),
            "sent": Out(cfg.lanes),
        })

    def elaborate(self, platform):
        m = Module()
        cfg, step, command = self.cfg, self.step, self.command
        lane_bits = cfg.lanes.bit_length() - 1
        result = data.StructLayout({
            "valid": 1, "op": 5, "place": 4, "number": 4, "address": len(self.address),
            "total": 1, "format": 4, "saturate": 1, "one": 1, "partial": 1, "last_lane": lane_bits})
        now = Signal(result)
        m.d.comb += [
            now.valid.eq(self.commit), now.op.eq(step.op), now.place.eq(step.to_place),
            now.number.eq(step.to_index), now.address.eq(self.address),
            now.total.eq((step.to_place == Place.TOTAL) | (step.a_place == Place.TOTAL)),
            now.format.eq(command.o_format), now.saturate.eq(command.saturate),
            now.one.eq(step.length == Count.ONE),
            now.partial.eq((step.length == Count.ROW) & self.final),
            now.last_lane.eq(command.width_last[:lane_bits]),
        ]
        for stage in range(cfg.latency_cycles):
            later = Signal(result, name=f"result_{stage}")
            m.d.sync += later.eq(now)
            now = later
        m.d.comb += [
            self.write.op.eq(now.op), self.write.address.eq(now.address),
            self.write.row.eq(now.valid & (now.place == Place.ROW)),
            self.write.total.eq(now.valid & now.total), self.number.eq(now.number),
            self.second.eq(now.place == Place.ALL_SECOND),
            self.keep.eq(now.valid & ((now.place == Place.ALL) | self.second)),
        ]

        sent = Signal(result)
        sends = (now.place == Place.OUT) | (now.place == Place.OUT_WORD)
        m.d.sync += [sent.eq(now), self.push.eq(now.valid & sends)]
        m.d.comb += [self.send.format.eq(sent.format), self.send.saturate.eq(sent.saturate),
                     self.send.word.eq(sent.place == Place.OUT_WORD)]
        m.d.comb += [self.sent[lane].eq(Mux(sent.one, lane < 2,
                                            ~sent.partial | (lane <= sent.last_lane)))
                     for lane in range(cfg.lanes)]
        return m


class Preparation(wiring.Component):
    """What makes the operands, with the numbers all lanes see: eight, and the command's.

    Reset clears the eight.

    Members
    -------
    step : In(StructLayout)
        The step of the beat.
    command : In(StructLayout)
        The command at work.
    first : In(1)
        It is the step's first beat.
    beat : In(16)
        Beat of the step.
    in_turn : In(1)
        The step adds in sequential order.
    keep : In(1)
        A number is written.
    number : In(4)
        Which one.
    i : In(32)
        The number.
    o : Out(StructLayout)
        For the lanes.
    """

    def __init__(self):
        super().__init__({"step": In(STEP), "command": In(COMMAND), "first": In(1),
                          "beat": In(16), "in_turn": In(1), "keep": In(1), "number": In(4),
                          "i": In(32), "o": Out(PREPARE)})

    def elaborate(self, platform):
        m = Module()
        kept = [Signal(32, name=f"number_{index}") for index in KEPT]
        for index, register in zip(KEPT, kept, strict=True):
            with m.If(self.keep & (self.number == index)):
                m.d.sync += register.eq(self.i)
        quantiser = [Signal(32, name=name) for name in ("largest", "least", "rounder")]
        with m.Switch(self.command.o_format):
            for number, fmt in enumerate(OUTPUT_FORMATS):
                with m.Case(number):
                    m.d.comb += [signal.eq(word) for signal, word in zip(
                        quantiser, quantiser_words(fmt), strict=True)]
        seen = Array([self.command.value, self.command.width_last + 1, *kept, *quantiser])
        m.d.comb += [getattr(self.o, name).eq(getattr(self.step, name)) for name in (
            "op", "immediate", "a_place", "a_table", "a_negated", "a_magnitude", "b_place",
            "b_negated", "b_magnitude")]
        m.d.comb += [
            self.o.first.eq(self.first), self.o.in_turn.eq(self.in_turn),
            self.o.beat.eq(self.beat),
            self.o.x_format.eq(self.command.x_format), self.o.y_format.eq(self.command.y_format),
            self.o.a_all.eq(seen[self.step.a_index]), self.o.b_all.eq(seen[self.step.b_index]),
        ]
        return m


class Control(wiring.Component):
    """Follows every beat from its issue to its result, and keeps the numbers all lanes see.

    Reset clears the pipeline and the numbers.

    Members
    -------
    step : In(StructLayout)
        The step at work, ``machine.vector_microcode.FIELDS``.
    command : In(StructLayout)
        The command at work; may change in the second cycle after a beat's issue.
    issue : In(1)
        A beat is issued.
    commit : In(1)
        A beat begins its way to the result.
    beat : In(16)
        Beat of the step; of a sum in sequential order, the element.
    beats : In(16)
        Beats of a row.
    position : In(32)
        Position of the row.
    in_turn : In(1)
        The step adds in sequential order.
    result : In(32)
        Result of lane 0.
    second : In(32)
        Result of lane 1.
    read : Out(StructLayout)
        For the lanes; as all that follow, in the cycle that ``hw.vector_lane.layouts`` states.
    prepare : Out(StructLayout)
        For the lanes.
    operate : Out(StructLayout)
        For the lanes.
    write : Out(StructLayout)
        For the lanes.
    send : Out(StructLayout)
        For the lanes.
    visible : Out(lanes)
        One cycle after the issue: which elements the row's query sees.
    inside : Out(lanes)
        One cycle after the issue: which elements lie within the width.
    turn_lane : Out(log2(lanes))
        One cycle after the issue: the lane whose element is added in sequential order.
    halving : Out(log2(lanes))
        One cycle after the issue: the level of the tree.
    push : Out(1)
        A beat is sent, ``cfg.latency_cycles`` + 1 after its issue.
    sent : Out(lanes)
        Which lanes of it are not 0.
    """

    def __init__(self, cfg: VectorCoreConfig):
        self.cfg = cfg
        lane_bits = cfg.lanes.bit_length() - 1
        super().__init__({
            "step": In(STEP), "command": In(COMMAND), "issue": In(1), "commit": In(1),
            "beat": In(16), "beats": In(16), "position": In(32), "in_turn": In(1),
            "result": In(32), "second": In(32),
            **{name: Out(layout) for name, layout in layouts(cfg).items()},
            "visible": Out(cfg.lanes), "inside": Out(cfg.lanes), "turn_lane": Out(lane_bits),
            "halving": Out(lane_bits), "push": Out(1), "sent": Out(cfg.lanes),
        })

    def elaborate(self, platform):
        m = Module()
        cfg, step, command = self.cfg, self.step, self.command

        m.submodules.addresses = addresses = Addresses(cfg)
        m.d.comb += [addresses.step.eq(step), addresses.beat.eq(self.beat),
                     addresses.in_turn.eq(self.in_turn),
                     self.read.a.eq(addresses.a), self.read.b.eq(addresses.b)]

        # One cycle later: operands.
        soon, beat, position = Signal(STEP), Signal(16), Signal(32)
        issued, in_turn, first, final = Signal(), Signal(), Signal(), Signal()
        m.d.sync += [
            soon.eq(step), beat.eq(self.beat), position.eq(self.position), issued.eq(self.issue),
            in_turn.eq(self.in_turn), first.eq(self.beat == 0),
            final.eq(self.beat + 1 == self.beats),
        ]
        m.submodules.preparation = preparation = Preparation()
        m.d.comb += [
            preparation.step.eq(soon), preparation.command.eq(command),
            preparation.first.eq(first), preparation.beat.eq(beat), preparation.in_turn.eq(in_turn),
            self.prepare.eq(preparation.o), self.turn_lane.eq(beat), self.halving.eq(beat),
        ]
        m.submodules.sight = sight = Sight(cfg)
        m.d.comb += [sight.command.eq(command), sight.beat.eq(beat), sight.final.eq(final),
                     sight.position.eq(position), self.visible.eq(sight.visible),
                     self.inside.eq(sight.inside)]

        # Two later: units.
        phase = (soon.op == Op.PHASE_HIGH) | (soon.op == Op.PHASE_LOW)
        m.d.sync += [
            self.operate.op.eq(soon.op), self.operate.position.eq(position),
            self.operate.divide.eq(issued & (soon.op == Op.DIVIDE)),
            self.operate.root.eq(issued & (soon.op == Op.ROOT)),
            self.operate.phase.eq(issued & phase),
        ]

        # Behind the units: results; some are numbers for all lanes.
        m.submodules.results = results = Results(cfg)
        m.d.comb += [
            results.step.eq(step), results.command.eq(command), results.commit.eq(self.commit),
            results.address.eq(addresses.to), results.final.eq(self.beat + 1 == self.beats),
            self.write.eq(results.write), self.send.eq(results.send), self.push.eq(results.push),
            self.sent.eq(results.sent), preparation.keep.eq(results.keep),
            preparation.number.eq(results.number),
            preparation.i.eq(Mux(results.second, self.second, self.result)),
        ]
        return m
