# amaranth: UnusedElaboratable=no
"""The sequencer takes for every command the beats that it names, and books its rows of sums.

Mode: `prove` by property-directed reachability, so for any number of cycles, any commands whose
lengths are at most `LENGTH_MAX`, any waits on every side and a reset at any time. The broken
designs fail within 14 cycles.
"""

import pytest
from amaranth.hdl import Assert, Assume, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.formal import prove
from hw.sequencer import COMMAND, Sequencer, slot_layout
from machine.systolic import COMMAND_BITS, SystolicConfig

ROWS = 2
LENGTH_MAX = 3  # of the dimension that the rows do not bound
CFG = SystolicConfig(rows=ROWS, cols=1, acc_rows=4)
COUNT_BITS = 4  # beats of the commands at work and of the one that enters


class Owed(wiring.Component):
    """Counts the beats that commands are owed: only the last `open_commands` may still be owed any.

    Members
    -------
    enters : In(1)
        A command enters.
    beats : In(3)
        What it is owed.
    moves : In(1)
        One beat moves.
    owed : Out(COUNT_BITS)
        Beats owed before this cycle.
    """

    def __init__(self, open_commands: int):
        self.open_commands = open_commands
        super().__init__({
            "enters": In(1), "beats": In(3), "moves": In(1), "owed": Out(COUNT_BITS)})

    def elaborate(self, platform):
        m = Module()
        recent = [Signal(3, name=f"recent_{ago}") for ago in range(self.open_commands)]
        m.d.comb += Assert(~self.moves | (self.owed != 0))
        m.d.sync += self.owed.eq(self.owed - self.moves + Mux(self.enters, self.beats, 0))
        with m.If(self.enters):
            m.d.sync += Cat(recent).eq(Cat(self.beats, *recent))
            m.d.comb += Assert(self.owed - self.moves <= sum(recent))
        return m


class Booked(wiring.Component):
    """Follows one command, freely chosen, and asserts what the slots say of its rows of sums.

    Members
    -------
    choose : In(1)
        Free: the command that enters is the one to follow.
    enters : In(1)
        A command enters.
    command : In(64)
        The command.
    owed : In(COUNT_BITS)
        Rows of sums owed to those in front of it.
    booked : In(1)
        A row of sums is booked.
    slot : In(slot_layout(CFG))
        What becomes of it.
    """

    def __init__(self):
        super().__init__({
            "choose": In(1), "enters": In(1), "command": In(COMMAND_BITS),
            "owed": In(COUNT_BITS), "booked": In(1), "slot": In(slot_layout(CFG))})

    def elaborate(self, platform):
        m = Module()
        chosen = Signal(COMMAND)
        ahead, left = Signal(COUNT_BITS), Signal(3)
        with m.If((left != 0) & self.booked):
            with m.If(ahead != 0):
                m.d.sync += ahead.eq(ahead - 1)
            with m.Else():
                m.d.comb += [
                    Assert(self.slot.accumulate == chosen.accumulate),
                    Assert(self.slot.emit == chosen.emit),
                    Assert(self.slot.row == (chosen.acc_row + chosen.m_last + 1 - left)[:2]),
                ]
                m.d.sync += left.eq(left - 1)
        with m.If((left == 0) & self.enters & self.choose):
            m.d.sync += [
                chosen.eq(self.command),
                left.eq(data.View(COMMAND, self.command).m_last + 1),
                ahead.eq(self.owed - self.booked),
            ]
        return m


class SequencerHarness(wiring.Component):
    """The sequencer with free streams and legal commands."""

    def __init__(self, dut):
        self.dut = dut
        super().__init__({
            "choose": In(1),
            "step": In(1),
            "commands": In(stream.Signature(COMMAND_BITS)),
            "acts_valid": In(1),
            "weights_valid": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        wiring.connect(m, wiring.flipped(self.commands), dut.i_commands)
        m.d.comb += [
            dut.step.eq(self.step),
            dut.acts_valid.eq(self.acts_valid),
            dut.weights_valid.eq(self.weights_valid),
        ]

        # Legal commands: the rows bound k of a ws tile and m of an os tile.
        command = data.View(COMMAND, dut.i_commands.payload)
        short = Mux(command.dataflow, command.m_last, command.k_last)
        long = Mux(command.dataflow, command.k_last, command.m_last)
        m.d.comb += Assume((short < ROWS) & (long < LENGTH_MAX))

        # What each stream moves, and what a command is owed of it.
        enters = Signal()
        m.d.comb += enters.eq(dut.i_commands.valid & dut.i_commands.ready)
        long_or_short = Mux(command.dataflow, command.k_last, command.m_last)
        booked = dut.step & dut.slot.valid
        rules = {  # stream: beats a command is owed less one, a beat moves, commands at work
            "acts": (long_or_short, dut.acts_valid & dut.acts_ready, 1),
            "weights": (command.k_last, dut.weights_valid & dut.weights_ready, 1),
            "sums": (command.m_last, booked, 2),
        }
        for name, (last, moves, open_commands) in rules.items():
            m.submodules[name] = owed = Owed(open_commands)
            m.d.comb += [owed.enters.eq(enters), owed.beats.eq(last + 1), owed.moves.eq(moves)]
            m.d.comb += Assert(self.step | ~moves)

        # Where everything is offered, something moves: the sequencer never hangs.
        offered = self.step & dut.i_commands.valid & dut.acts_valid & dut.weights_valid
        m.d.comb += Assert(~offered | enters | Cat(moves for _, moves, _ in rules.values()).any())

        m.submodules.booked = monitor = Booked()
        m.d.comb += [
            monitor.choose.eq(self.choose),
            monitor.enters.eq(enters),
            monitor.command.eq(dut.i_commands.payload),
            monitor.owed.eq(owed.owed),
            monitor.booked.eq(booked),
            monitor.slot.eq(dut.slot),
        ]
        return m


def test_every_command_gets_its_beats_and_no_other():
    verdict = prove(SequencerHarness(Sequencer(CFG)), engine="abc pdr")
    assert verdict.status == "pass", verdict.reason


@pytest.mark.parametrize("old, new", [
    ("self.free.eq(~valid | end)", "self.free.eq(~valid | fire)"),
    ("~pace.wait & (~self.busy | (is_os & ~last))", "~pace.wait"),
    ("left.eq(now_left - 1)", "left.eq(now_left - 2)"),
    ("further.row.eq(self.slot.row + 1)", "further.row.eq(self.slot.row)"),
    ("last.eq(count == command.k_last)", "last.eq(count == 0)"),
    ("~is_os & ~done & self.open", "~is_os & ~done & ~self.open"),
], ids=["cut short", "slots meet", "row lost", "row kept", "weights lost", "hangs"])
def test_a_broken_sequencer_is_seen(edited, old, new):
    dut = edited("hw.sequencer", old, new).Sequencer(CFG)
    assert prove(SequencerHarness(dut), mode="bmc", depth=14, engine="abc bmc3").status == "fail"
