"""The sequencer of the systolic array: turns commands and offered beats into steps of the grid."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.pe import CONTROL, CONTROL_BITS
from machine.systolic import COMMAND_BITS, COMMAND_FIELDS, SystolicConfig

__all__ = ["Sequencer", "slot_layout"]

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


class Sequencer(wiring.Component):
    """Decides what enters the grid in each step.

    Two commands are in work: one loads its weights while the one in front streams activations.
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
        cfg = self.cfg

        # The command that loads, the command that runs, and the sums of an os tile that leave.
        load = Signal(COMMAND)
        load_valid, load_done = Signal(), Signal()
        load_count = Signal(range(cfg.rows))
        run = Signal(COMMAND)
        run_valid = Signal()
        run_count = Signal(16)
        leave = Signal(slot_layout(cfg))
        leave_count = Signal(range(cfg.rows))

        # Activations enter, with weights if os, unless their sums would meet those that leave.
        run_os = run.dataflow if len(cfg.dataflows) == 2 else Const("os" in cfg.dataflows, 1)
        load_os = load.dataflow if len(cfg.dataflows) == 2 else run_os
        first, last, run_ready, run_fire = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            first.eq(run_count == 0),
            last.eq(run_count == Mux(run_os, run.k_last, run.m_last)),
            run_ready.eq(self.step & run_valid & (~leave.valid | (run_os & ~last))),
            self.acts_ready.eq(run_ready & (~run_os | self.weights_valid)),
            run_fire.eq(self.acts_ready & self.acts_valid),
        ]

        # Weights load once the weights in front of them are taken up.
        load_ready, load_fire, load_last, loaded = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            load_ready.eq(self.step & load_valid & ~load_os & ~load_done
                          & (~run_valid | (~run_os & (~first | run_fire)))),
            load_fire.eq(load_ready & self.weights_valid),
            load_last.eq(load_count == load.k_last),
            loaded.eq(load_valid & (load_os | load_done | (load_fire & load_last))),
            self.weights_ready.eq(load_ready | (run_ready & run_os & self.acts_valid)),
        ]

        # A loaded command moves on when the one in front has ended, and makes room for the next.
        move = Signal()
        m.d.comb += [
            move.eq(self.step & loaded & (~run_valid | (run_fire & last))),
            self.i_commands.ready.eq(self.step & (~load_valid | move)),
        ]
        with m.If(load_fire):
            m.d.sync += load_count.eq(load_count + 1)
            m.d.sync += load_done.eq(load_last)
        with m.If(self.i_commands.ready):
            m.d.sync += load_valid.eq(self.i_commands.valid)
            m.d.sync += load.eq(self.i_commands.payload)
            m.d.sync += load_count.eq(0)
            m.d.sync += load_done.eq(0)
        with m.If(run_fire):
            m.d.sync += run_count.eq(run_count + 1)
            m.d.sync += run_valid.eq(~last)
        with m.If(move):
            m.d.sync += run_valid.eq(1)
            m.d.sync += run.eq(load)
            m.d.sync += run_count.eq(0)
            m.d.sync += self.used.eq(
                Cat(load_os | (load.k_last >= element) for element in range(cfg.rows)))

        # What row 0 does with the beats of this step.
        control = data.View(CONTROL, self.control)
        m.d.comb += [
            control.mac.eq(run_fire),
            control.os.eq(run_os),
            control.first.eq(first),
            control.last.eq(last),
            control.load.eq(load_fire | (run_fire & run_os)),
            self.hops.eq(Mux(load_fire, cfg.rows - 1 - load_count, cfg.rows - 1)),
        ]

        # The slot of this step, and the further slots of an os tile.
        with m.If(leave.valid):
            m.d.comb += self.slot.eq(leave)
        with m.Else():
            m.d.comb += [
                self.slot.valid.eq(run_fire & (~run_os | last)),
                self.slot.accumulate.eq(run.accumulate),
                self.slot.emit.eq(run.emit),
                self.slot.row.eq(run.acc_row + Mux(run_os, 0, run_count)),
            ]
        with m.If(self.step & leave.valid):
            m.d.sync += leave.valid.eq(leave_count != 1)
            m.d.sync += leave.row.eq(leave.row + 1)
            m.d.sync += leave_count.eq(leave_count - 1)
        with m.If(run_fire & run_os & last):
            m.d.sync += leave.eq(self.slot)
            m.d.sync += leave.valid.eq(run.m_last != 0)
            m.d.sync += leave.row.eq(run.acc_row + 1)
            m.d.sync += leave_count.eq(run.m_last)
        return m
