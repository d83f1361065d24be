"""The vector unit: commands become steps, steps become beats, beats pass through the lanes.

In the order of the data: the sequencer walks the program in its ROM and issues beats; a beat's
control follows it down the lanes' pipeline; numbers that all lanes see are kept beside them; what
is sent waits in a queue.
"""

from amaranth.hdl import Array, Cat, ClockSignal, Instance, Module, Mux, ResetSignal, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.vector_control import Control
from hw.vector_lane import Lane
from hw.vector_sequencer import VectorSequencer
from machine.vector_core import COMMAND_BITS, VectorCoreConfig

__all__ = ["OutputQueue", "Vector"]

MINUS_ZERO = 0x80000000


class OutputQueue(wiring.Component):
    """Queue at the end of the unit: what is pushed must fit.

    A beat is offered in the cycle after its push; throughput is one a cycle. Reset empties it.

    Parameters
    ----------
    width : int
        Bits of a beat.
    depth : int
        Beats it holds.

    Members
    -------
    push : In(1)
        A beat comes.
    beat : In(width)
        The beat.
    o : Out(stream)
        The same beats in turn.
    """

    def __init__(self, width: int, depth: int):
        self.width = width
        self.depth = depth
        super().__init__({"push": In(1), "beat": In(width), "o": Out(stream.Signature(width))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.beats = beats = memory.Memory(shape=self.width, depth=self.depth, init=[])
        write, read = beats.write_port(), beats.read_port(domain="comb")
        first, end = Signal(range(self.depth)), Signal(range(self.depth))
        level = Signal(range(self.depth + 1))
        taken = self.o.valid & self.o.ready
        m.d.comb += [self.o.valid.eq(level != 0), read.addr.eq(first),
                     self.o.payload.eq(read.data & self.o.valid.replicate(self.width)),
                     write.addr.eq(end), write.data.eq(self.beat), write.en.eq(self.push)]
        for pointer, moves in ((first, taken), (end, self.push)):
            with m.If(moves):
                m.d.sync += pointer.eq(Mux(pointer == self.depth - 1, 0, pointer + 1))
        m.d.sync += level.eq(level + self.push - taken)
        return m


class Vector(wiring.Component):
    """Vector unit: carries out commands in turn, each a program on rows of elements.

    A command of ``machine.vector_core`` takes ``command_cycles`` of it, nothing stalled; a beat is
    offered ``cfg.output_cycles`` after its issue (``iterative_cycles`` later, less
    ``latency_cycles`` + 1, where an iterating unit makes it). ``cfg.output_depth`` beats may be
    under way; a further one waits. Commands are not checked: ``VectorCommand.check`` states what
    is legal. Reset abandons all commands.

    Parameters
    ----------
    cfg : VectorCoreConfig
        Sizes.
    library : str or None
        If given, lanes are instances of the Verilog module ``<library>_lane``; otherwise they are
        part of the design, as a simulator needs.

    Members
    -------
    i_commands : In(stream)
        Command words, laid out as ``machine.vector_core.COMMAND_FIELDS``.
    i_x : In(stream)
        Beats of x: the element of lane j at bit ``32 * j``, in the format the command names.
        ``ready`` may depend on the ``valid`` of ``i_y``.
    i_y : In(stream)
        Beats of y, likewise. ``ready`` may depend on the ``valid`` of ``i_x``.
    o : Out(stream)
        Beats of results; which ones, ``machine.vector_programs.Code`` states.
    """

    def __init__(self, cfg: VectorCoreConfig, library: str | None = None):
        self.cfg = cfg
        self.library = library
        super().__init__({
            "i_commands": In(stream.Signature(COMMAND_BITS)),
            "i_x": In(stream.Signature(cfg.beat_bits)),
            "i_y": In(stream.Signature(cfg.beat_bits)),
            "o": Out(stream.Signature(cfg.beat_bits)),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg

        # Steps; what they read is taken with their issue.
        m.submodules.sequencer = sequencer = VectorSequencer(cfg)
        wiring.connect(m, wiring.flipped(self.i_commands), sequencer.i_commands)
        x, y = Signal(cfg.beat_bits), Signal(cfg.beat_bits)
        m.d.sync += [x.eq(self.i_x.payload), y.eq(self.i_y.payload)]
        m.d.comb += [
            sequencer.x_valid.eq(self.i_x.valid), sequencer.y_valid.eq(self.i_y.valid),
            self.i_x.ready.eq(sequencer.issue & sequencer.takes_x),
            self.i_y.ready.eq(sequencer.issue & sequencer.takes_y),
        ]

        m.submodules.control = control = Control(cfg)
        m.d.comb += [control.step.eq(sequencer.step), control.command.eq(sequencer.command)]
        m.d.comb += [getattr(control, name).eq(getattr(sequencer, name)) for name in (
            "issue", "commit", "beat", "beats", "position", "in_turn")]

        # Lanes.
        lanes = [self._lane(m, lane, x, y, control) for lane in range(cfg.lanes)]
        m.d.comb += [control.result.eq(lanes[0].result), control.second.eq(lanes[1].result)]
        turn = Array(lane.element for lane in lanes)[control.turn_lane]
        for number, lane in enumerate(lanes):
            m.d.comb += [lane.turn.eq(turn if number == 0 else MINUS_ZERO),
                         lane.across.eq(self._across(lanes, number, control.halving))]

        # Output; a beat may be issued while there is room for it.
        m.submodules.queue = queue = OutputQueue(cfg.beat_bits, cfg.output_depth)
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        used = Signal(range(cfg.output_depth + 1))
        taken = self.o.valid & self.o.ready
        m.d.sync += used.eq(used + (sequencer.issue & sequencer.sends) - taken)
        m.d.comb += [
            sequencer.room.eq(used != cfg.output_depth), queue.push.eq(control.push),
            queue.beat.eq(Cat(lane.o & inside.replicate(32)
                              for lane, inside in zip(lanes, control.sent, strict=True)))]
        return m

    def _lane(self, m, number, x, y, control):
        """Return the ports of lane `number`, told what to do by `control`."""
        if self.library is None:
            ports = m.submodules[f"lane_{number}"] = Lane(self.cfg)
        else:
            ports = Lane.ports(self.cfg).create()
            wires = {"i_clk": ClockSignal(), "i_rst": ResetSignal()}
            for path, member, value in ports.signature.flatten(ports):
                wires[f"{'i' if member.flow is In else 'o'}_{'__'.join(path)}"] = value
            m.submodules[f"lane_{number}"] = Instance(f"{self.library}_lane", **wires)
        m.d.comb += [getattr(ports, name).eq(getattr(control, name)) for name in (
            "read", "prepare", "operate", "write", "send")]
        m.d.comb += [
            ports.x.eq(x.word_select(number, 32)), ports.y.eq(y.word_select(number, 32)),
            ports.visible.eq(control.visible[number]), ports.inside.eq(control.inside[number]),
            ports.lane.eq(number)]
        return ports

    def _across(self, lanes, number, halving):
        """Return the total of the lane 2**`halving` further on, as far as there is one."""
        distances = range(self.cfg.lanes.bit_length() - 1)
        return Array(lanes[(number + (1 << d)) % self.cfg.lanes].total for d in distances)[halving]
