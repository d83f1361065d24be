"""The sequencer of the systolic array: turns commands and offered beats into steps of the grid.

Two commands are in work: the loader's, whose weights enter, and the runner's, whose activations
do. Rows of sums are booked as slots, one a step.
"""

from amaranth.hdl import Cat, Const, EnableInserter, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.pe import CONTROL, CONTROL_BITS
from machine.systolic import COMMAND_BITS, COMMAND_FIELDS, SystolicConfig

__all__ = ["Loader", "Pace", "Runner", "Sequencer", "Slots", "slot_layout"]

COMMAND = data.FlexibleLayout(
    COMMAND_BITS, {name: data.Field(width, low) for name, low, width in COMMAND_FIELDS}
)


def slot_layout(cfg: SystolicConfig) -> data.StructLayout:
    """Return the layout of a slot: what becomes of the row of sums a step produces."""
    return data.StructLayout({
        "valid": 1,  # there is a row of sums
        "accumulate": 1,  # add the stored row to it
        "emit": 1,  # send it; otherwise store it
        "row": range(max(cfg.acc_rows, 1)),  # stored row
    })


def _is_os(cfg: SystolicConfig, command: data.View) -> Value:
    """Return whether `command` is output-stationary: a constant if all are alike."""
    return command.dataflow if len(cfg.dataflows) == 2 else Const("os" in cfg.dataflows, 1)


class Loader(wiring.Component):
    """Holds the next command while the weights of a ``ws`` tile enter; an ``os`` tile has none.

    Members
    -------
    step : In(1)
        Nothing changes and nothing is accepted in a cycle without ``step``.
    i_commands : In(stream)
        Command words, laid out as ``machine.systolic.COMMAND_FIELDS``.
    weights_valid : In(1)
        A beat of weights is offered.
    weights_ready : Out(1)
        It is accepted for preloading.
    open : In(1)
        The preloaded weights in front are taken up, in this step at the latest.
    free : In(1)
        The command in front ends in this step, or has ended.
    load : Out(1)
        Weights enter in this step.
    hops : Out(range(rows))
        Rows below row 0 that they pass on to.
    move : Out(1)
        The command moves on in this step.
    command : Out(64)
        The command.
    """

    def __init__(self, cfg: SystolicConfig):
        self.cfg = cfg
        super().__init__({
            "step": In(1),
            "i_commands": In(stream.Signature(COMMAND_BITS)),
            "weights_valid": In(1),
            "weights_ready": Out(1),
            "open": In(1),
            "free": In(1),
            "load": Out(1),
            "hops": Out(range(cfg.rows)),
            "move": Out(1),
            "command": Out(COMMAND_BITS),
        })

    def elaborate(self, platform):
        m = Module()
        valid, done = Signal(), Signal()
        count = Signal(range(self.cfg.rows))
        command = data.View(COMMAND, self.command)
        is_os = _is_os(self.cfg, command)

        # Weights enter once those in front of them are taken up; the first goes furthest down.
        last, loaded = Signal(), Signal()
        m.d.comb += [
            self.weights_ready.eq(self.step & valid & ~is_os & ~done & self.open),
            self.load.eq(self.weights_ready & self.weights_valid),
            self.hops.eq(self.cfg.rows - 1 - count),
            last.eq(count == command.k_last),
            loaded.eq(valid & (is_os | done | (self.load & last))),
        ]
        with m.If(self.load):
            m.d.sync += [count.eq(count + 1), done.eq(last)]

        # A loaded command moves on when the one in front ends, and makes room for the next.
        m.d.comb += self.move.eq(self.step & loaded & self.free)
        m.d.comb += self.i_commands.ready.eq(self.step & (~valid | self.move))
        with m.If(self.i_commands.ready):
            m.d.sync += [
                valid.eq(self.i_commands.valid),
                self.command.eq(self.i_commands.payload),
                count.eq(0),
                done.eq(0),
            ]
        return m


class Pace(wiring.Component):
    """Keeps beats ``cfg.initiation_interval_cycles`` apart, and the end of an ``os`` tile.

    Members
    -------
    step : In(1)
        Registers change only in a cycle with ``step``.
    fire : In(1)
        A beat enters in this step; not while ``wait``.
    last : In(1)
        It is the last of an ``os`` tile.
    wait : Out(1)
        No beat may enter in this step.
    end : Out(1)
        The ``os`` tile's partial sums are merged in this step, ``merge_cycles`` after its last.
    """

    def __init__(self, cfg: SystolicConfig):
        self.cfg = cfg
        super().__init__({
            "step": In(1), "fire": In(1), "last": In(1), "wait": Out(1), "end": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        interval, merge = self.cfg.initiation_interval_cycles, self.cfg.pe.merge_cycles
        gap, merging = Signal(range(max(interval, merge, 2))), Signal()
        m.d.comb += self.wait.eq((gap != 0) | merging)

        # Count down from each beat; from the last one of an os tile to its merged sums.
        with m.If(self.step & (gap != 0)):
            m.d.sync += gap.eq(gap - 1)
        with m.If(self.fire):
            m.d.sync += gap.eq(interval - 1)
        if merge == 0:
            m.d.comb += self.end.eq(self.fire & self.last)
        else:
            m.d.comb += self.end.eq(self.step & merging & (gap == 0))
            with m.If(self.fire & self.last):
                m.d.sync += [gap.eq(merge - 1), merging.eq(1)]
            with m.Elif(self.end):
                m.d.sync += merging.eq(0)
        return m


class Runner(wiring.Component):
    """Holds the command whose activations enter, with weights beside them if ``os``.

    Activations enter ``cfg.initiation_interval_cycles`` steps apart. An ``os`` tile ends when its
    partial sums are merged, ``merge_cycles`` after its last beat; until then nothing enters.

    Members
    -------
    step : In(1)
        Nothing changes and nothing is accepted in a cycle without ``step``.
    move : In(1)
        The next command moves in.
    command : In(64)
        The next command.
    acts_valid : In(1)
        A beat of activations is offered.
    acts_ready : Out(1)
        It is accepted; depends on ``weights_valid`` if ``os``.
    weights_valid : In(1)
        A beat of weights is offered.
    weights_ready : Out(1)
        It is accepted beside activations; depends on ``acts_valid``.
    busy : In(1)
        This step's slot belongs to a tile in front.
    open : Out(1)
        The preloaded weights of this command are taken up, in this step at the latest.
    free : Out(1)
        This command ends in this step, or has ended.
    control : Out(6)
        `CONTROL` for row 0, without preloading and ``hold``.
    used : Out(rows)
        Elements of the activation beat that count.
    slot : Out(slot_layout(cfg))
        First row of sums that comes of this step.
    more : Out(16)
        Further rows of sums that come of it.
    """

    def __init__(self, cfg: SystolicConfig):
        self.cfg = cfg
        super().__init__({
            "step": In(1),
            "move": In(1),
            "command": In(COMMAND_BITS),
            "acts_valid": In(1),
            "acts_ready": Out(1),
            "weights_valid": In(1),
            "weights_ready": Out(1),
            "busy": In(1),
            "open": Out(1),
            "free": Out(1),
            "control": Out(CONTROL_BITS),
            "used": Out(cfg.rows),
            "slot": Out(slot_layout(cfg)),
            "more": Out(16),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.pace = pace = Pace(self.cfg)
        valid, count = Signal(), Signal(16)
        command = Signal(COMMAND)
        is_os = _is_os(self.cfg, command)

        # A beat enters unless its sums would meet those of a tile in front. First and last of a
        # tile are known before: comparing takes half a cycle. Short paths decide on ws twice.
        first, last, ready, fire, end = Signal(), Signal(), Signal(), Signal(), Signal()
        taken = self.acts_valid & ~pace.wait & ~self.busy if self.cfg.short_paths else fire
        m.d.comb += [
            ready.eq(self.step & valid & ~pace.wait & (~self.busy | (is_os & ~last))),
            self.acts_ready.eq(ready & (~is_os | self.weights_valid)),
            self.weights_ready.eq(ready & is_os & self.acts_valid),
            fire.eq(self.acts_ready & self.acts_valid),
            self.open.eq(~valid | (~is_os & (~first | taken))),
            self.free.eq(~valid | end),
        ]
        with m.If(fire):
            final = Mux(is_os, command.k_last, command.m_last)
            m.d.sync += [count.eq(count + 1), first.eq(0), last.eq(count + 1 == final)]

        # The tile ends with its last beat, or once its partial sums are merged.
        m.d.comb += [
            pace.step.eq(self.step), pace.fire.eq(fire), pace.last.eq(last & is_os),
            end.eq(Mux(is_os, pace.end, fire & last)),
        ]
        with m.If(end):
            m.d.sync += valid.eq(0)
        with m.If(self.move):
            following = data.View(COMMAND, self.command)
            final = Mux(_is_os(self.cfg, following), following.k_last, following.m_last)
            m.d.sync += [valid.eq(1), command.eq(self.command), count.eq(0)]
            m.d.sync += [first.eq(1), last.eq(final == 0)]
            m.d.sync += self.used.eq(Cat(
                _is_os(self.cfg, following) | (following.k_last >= element)
                for element in range(self.cfg.rows)))

        # What row 0 does with the beat, and the rows of sums that come of it.
        control = data.View(CONTROL, self.control)
        m.d.comb += [
            control.mac.eq(fire), control.os.eq(is_os), control.load.eq(fire & is_os),
            control.first.eq(first), control.last.eq(last),
            self.slot.valid.eq(Mux(is_os, end, fire)),
            self.slot.accumulate.eq(command.accumulate),
            self.slot.emit.eq(command.emit),
            self.slot.row.eq(command.acc_row + Mux(is_os, 0, count)),
            self.more.eq(Mux(is_os, command.m_last, 0)),
        ]
        return m


class Slots(wiring.Component):
    """Books the rows of sums, one a step: those of an ``os`` tile take the steps from its last on.

    Members
    -------
    step : In(1)
        Registers change only in a cycle with ``step``.
    first : In(slot_layout(cfg))
        Row of sums that comes of the beat in this step; not while ``busy``.
    more : In(16)
        Further rows that follow it, in the next stored rows.
    busy : Out(1)
        This step's slot is one of the further ones.
    slot : Out(slot_layout(cfg))
        The row of sums booked for this step.
    """

    def __init__(self, cfg: SystolicConfig):
        self.cfg = cfg
        super().__init__({
            "step": In(1),
            "first": In(slot_layout(cfg)),
            "more": In(16),
            "busy": Out(1),
            "slot": Out(slot_layout(cfg)),
        })

    def elaborate(self, platform):
        m = Module()
        further = Signal(slot_layout(self.cfg))
        left, now_left = Signal(16), Signal(16)
        m.d.comb += [
            self.busy.eq(further.valid),
            self.slot.eq(Mux(self.busy, further, self.first)),
            now_left.eq(Mux(self.busy, left, self.more)),
        ]

        # The next row of the tile takes the next step.
        with m.If(self.step):
            m.d.sync += [
                further.eq(self.slot),
                further.valid.eq(self.slot.valid & (now_left != 0)),
                further.row.eq(self.slot.row + 1),
                left.eq(now_left - 1),
            ]
        return m


class Sequencer(wiring.Component):
    """Decides what enters the grid in each step.

    Weights of the next tile may enter in the step in which the first activation of the tile in
    front does, and activations from the step after the last weight. The rows of sums of an ``os``
    tile take one slot a step from its last pair on; whatever else would make sums waits.

    Members
    -------
    step : In(1)
        Nothing changes and nothing is accepted in a cycle without ``step``.
    i_commands : In(stream)
        Command words, laid out as ``machine.systolic.COMMAND_FIELDS``.
    acts_valid : In(1)
        A beat of activations is offered.
    acts_ready : Out(1)
        It is accepted; may depend on ``weights_valid``.
    weights_valid : In(1)
        A beat of weights is offered.
    weights_ready : Out(1)
        It is accepted; may depend on ``acts_valid``.
    control : Out(6)
        `CONTROL` for row 0, without ``hold``.
    hops : Out(range(rows))
        Rows below row 0 that the accepted weights pass on to.
    used : Out(rows)
        Elements of the activation beat that count.
    slot : Out(slot_layout(cfg))
        The row of sums that belongs to this step.
    """

    def __init__(self, cfg: SystolicConfig):
        self.cfg = cfg
        super().__init__({
            "step": In(1),
            "i_commands": In(stream.Signature(COMMAND_BITS)),
            "acts_valid": In(1),
            "acts_ready": Out(1),
            "weights_valid": In(1),
            "weights_ready": Out(1),
            "control": Out(CONTROL_BITS),
            "hops": Out(range(cfg.rows)),
            "used": Out(cfg.rows),
            "slot": Out(slot_layout(cfg)),
        })

    def elaborate(self, platform):
        m = Module()
        loader, runner, slots = Loader(self.cfg), Runner(self.cfg), Slots(self.cfg)

        # Without a step the registers hold and nothing is accepted. What would be decided does not
        # depend on the step, which comes late from a register of a large fan-out.
        held = EnableInserter(self.step)
        m.submodules.loader, m.submodules.runner = held(loader), held(runner)
        m.submodules.slots = held(slots)
        m.d.comb += [part.step.eq(1) for part in (loader, runner, slots)]

        # Weights go to whichever of the two takes them; activations to the runner.
        m.d.comb += [
            loader.i_commands.payload.eq(self.i_commands.payload),
            loader.i_commands.valid.eq(self.i_commands.valid),
            self.i_commands.ready.eq(self.step & loader.i_commands.ready),
            loader.weights_valid.eq(self.weights_valid),
            runner.weights_valid.eq(self.weights_valid),
            self.weights_ready.eq(self.step & (loader.weights_ready | runner.weights_ready)),
            runner.acts_valid.eq(self.acts_valid),
            self.acts_ready.eq(self.step & runner.acts_ready),
        ]

        # From the loader to the runner, from the runner to the slots.
        m.d.comb += [
            loader.open.eq(runner.open),
            loader.free.eq(runner.free),
            runner.move.eq(loader.move),
            runner.command.eq(loader.command),
            slots.first.eq(runner.slot),
            slots.more.eq(runner.more),
            runner.busy.eq(slots.busy),
        ]

        # Weights beside activations pass through all rows.
        m.d.comb += [
            self.control.eq(runner.control),
            data.View(CONTROL, self.control).load.eq(
                data.View(CONTROL, runner.control).load | loader.load),
            self.hops.eq(Mux(loader.load, loader.hops, self.cfg.rows - 1)),
            self.used.eq(runner.used),
            self.slot.eq(slots.slot),
        ]
        return m
