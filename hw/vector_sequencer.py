"""The sequencer of the vector unit: commands become steps, steps become beats."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.vector_control import COMMAND, STEP
from machine.vector import ReductionOrder
from machine.vector_core import COMMAND_BITS, VectorCoreConfig
from machine.vector_microcode import ITERATIVE, STEP_BITS, Count, Op, Place, pack_step
from machine.vector_programs import rom

__all__ = ["Issuer", "Pace", "Programs", "Rounds", "VectorSequencer"]


class Pace(wiring.Component):
    """How many beats a step has and how far apart they are. No registers.

    Members
    -------
    step : In(StructLayout)
        The step at work.
    command : In(StructLayout)
        The command at work.
    beat : In(16)
        Beat of the step.
    beats : In(16)
        Beats of a row.
    in_turn : Out(1)
        The step adds in sequential order.
    sends : Out(1)
        The step's results are sent.
    takes_x : Out(1)
        A beat of it takes one of x.
    takes_y : Out(1)
        A beat of it takes one of y.
    iterates : Out(1)
        The step's unit takes one beat at a time.
    last : Out(1)
        The beat is the step's last.
    pause : Out(log2(iterative_cycles))
        Cycles after the beat in which nothing is issued.
    """

    def __init__(self, cfg: VectorCoreConfig):
        self.cfg = cfg
        super().__init__({
            "step": In(STEP), "command": In(COMMAND), "beat": In(16), "beats": In(16),
            "in_turn": Out(1), "sends": Out(1), "takes_x": Out(1), "takes_y": Out(1),
            "iterates": Out(1), "last": Out(1),
            "pause": Out(range(cfg.iterative_cycles)),
        })

    def elaborate(self, platform):
        m = Module()
        cfg, step = self.cfg, self.step
        latency, iterative = cfg.latency_cycles, cfg.iterative_cycles
        count = Signal(16)
        m.d.comb += [
            self.in_turn.eq((self.command.order == ReductionOrder.SEQUENTIAL)
                            & (step.op == Op.ADD) & (step.length == Count.ELEMENTS)),
            self.iterates.eq(_is_in(step.op, ITERATIVE)),
            self.sends.eq(_is_in(step.to_place, (Place.OUT, Place.OUT_WORD))),
            self.takes_x.eq(step.a_place == Place.X),
            self.takes_y.eq((step.a_place == Place.Y) | (step.b_place == Place.Y)),
            self.last.eq(self.beat + 1 == count),
        ]
        with m.Switch(step.length):
            with m.Case(Count.ROW):
                m.d.comb += count.eq(self.beats)
            with m.Case(Count.ONE):
                m.d.comb += count.eq(1)
            with m.Case(Count.ELEMENTS):
                m.d.comb += count.eq(Mux(self.in_turn, self.command.width_last + 1, self.beats))
            with m.Default():
                m.d.comb += count.eq(cfg.lanes.bit_length() - 1)

        with m.If(self.iterates):
            m.d.comb += self.pause.eq(iterative - 1)
        with m.Elif((step.to_place == Place.TOTAL) | (step.a_place == Place.TOTAL)):
            m.d.comb += self.pause.eq(latency)
        with m.Elif(self.last & ~self.sends):
            with m.If(step.drain):
                m.d.comb += self.pause.eq(latency)
            with m.Elif(count <= latency):
                m.d.comb += self.pause.eq(latency + 1 - count)
        return m


class Issuer(wiring.Component):
    """Issues a beat, then pauses. Reset ends the pause.

    Members
    -------
    able : In(1)
        A beat is there and can be issued.
    pause : In(log2(iterative_cycles))
        Cycles after it in which nothing is issued.
    iterates : In(1)
        Its unit iterates; stays through the pause.
    issue : Out(1)
        The beat is issued.
    commit : Out(1)
        It begins its way to the result: with its issue, or so that the result of a unit that
        iterates is written in the last cycle of the pause.
    through : Out(1)
        The last cycle before the next beat may be issued.
    """

    def __init__(self, cfg: VectorCoreConfig):
        self.cfg = cfg
        super().__init__({"able": In(1), "pause": In(range(cfg.iterative_cycles)),
                          "iterates": In(1), "issue": Out(1), "commit": Out(1), "through": Out(1)})

    def elaborate(self, platform):
        m = Module()
        wait = Signal.like(self.pause)
        with m.If(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        with m.Elif(self.issue):
            m.d.sync += wait.eq(self.pause)
        m.d.comb += [
            self.issue.eq(self.able & (wait == 0)),
            self.commit.eq(Mux(self.iterates, wait == self.cfg.latency_cycles + 1, self.issue)),
            self.through.eq(Mux(wait == 0, self.issue & (self.pause == 0), wait == 1)),
        ]
        return m


class Programs(wiring.Component):
    """The steps of all programs, and where each program begins.

    A step is there one cycle after its address.

    Members
    -------
    address : In(log2(steps))
        Address of a step.
    step : Out(StructLayout)
        The step of the address of the cycle before.
    code : In(6)
        A program.
    first : Out(log2(steps))
        Address of its first step.
    first_of_row : Out(log2(steps))
        Address of its first step of a row.
    first_of_loop : Out(log2(steps))
        Address of the first step of its loop.
    """

    def __init__(self):
        steps, _ = rom()
        address = range(len(steps))
        super().__init__({"address": In(address), "step": Out(STEP), "code": In(6),
                          "first": Out(address), "first_of_row": Out(address),
                          "first_of_loop": Out(address)})

    def elaborate(self, platform):
        m = Module()
        steps, entries = rom()
        m.submodules.words = words = memory.Memory(
            shape=STEP_BITS, depth=len(steps), init=[pack_step(step) for step in steps])
        read = words.read_port()
        m.d.comb += [read.addr.eq(self.address), read.en.eq(1), self.step.eq(read.data)]
        with m.Switch(self.code):
            for code, (first, first_of_row, first_of_loop) in entries.items():
                with m.Case(code):
                    m.d.comb += [self.first.eq(first), self.first_of_row.eq(first_of_row),
                                 self.first_of_loop.eq(first_of_loop)]
        return m


class Rounds(wiring.Component):
    """Counts the rounds of a loop and the rows of a command. Reset leaves nothing to do.

    Members
    -------
    start : In(1)
        The command begins.
    command : In(StructLayout)
        The command at work.
    rows_only : In(1)
        Its program has no steps before the first row.
    ends : In(1)
        A step ends.
    again : In(1)
        It is the last of a loop.
    last : In(1)
        It is the last of a row, or of those before the first row.
    to_loop : Out(1)
        The loop's first step follows it.
    to_row : Out(1)
        The row's first step follows it.
    row : Out(1)
        A row ends with it.
    done : Out(1)
        That is the last row.
    """

    def __init__(self):
        super().__init__({
            "start": In(1), "command": In(COMMAND), "rows_only": In(1), "ends": In(1),
            "again": In(1), "last": In(1), "to_loop": Out(1), "to_row": Out(1), "row": Out(1),
            "done": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        rows, repeats, per_row = Signal(16), Signal(16), Signal()
        m.d.comb += [
            self.to_loop.eq(self.again & (repeats != 0)), self.to_row.eq(self.last & ~self.to_loop),
            self.row.eq(self.ends & self.to_row & per_row), self.done.eq(rows == 0),
        ]
        with m.If(self.ends & self.to_loop):
            m.d.sync += repeats.eq(repeats - 1)
        with m.If(self.ends & self.to_row):
            m.d.sync += [per_row.eq(1), repeats.eq(self.command.repeats_last)]
        with m.If(self.row):
            m.d.sync += rows.eq(rows - 1)
        with m.If(self.start):
            m.d.sync += [per_row.eq(self.rows_only), rows.eq(self.command.rows_last),
                         repeats.eq(self.command.repeats_last)]
        return m


def _is_in(value, members):
    """Return whether `value` is one of `members`."""
    return Cat(value == member for member in members).any()


class VectorSequencer(wiring.Component):
    """Walks the steps of a command, for each of its rows, and issues their beats.

    The first beat is issued ``DECODE_CYCLES`` after a command is taken; between beats and between
    steps pass the cycles that ``machine.vector_microcode`` states. A beat waits for the streams it
    reads and for room behind it. Reset abandons the command.

    Members
    -------
    i_commands : In(stream)
        Command words.
    x_valid : In(1)
        An element beat of x is there.
    y_valid : In(1)
        One of y is there.
    room : In(1)
        One more beat may be sent.
    issue : Out(1)
        A beat is issued in this cycle.
    commit : Out(1)
        A beat begins its way to the result: with its issue, or when an iterating unit is done.
    step : Out(StructLayout)
        The step at work.
    command : Out(StructLayout)
        The command at work.
    beat : Out(16)
        Beat of the step; of a sum in sequential order, the element.
    beats : Out(16)
        Beats of a row.
    position : Out(32)
        Position of the row.
    in_turn : Out(1)
        The step adds in sequential order.
    sends : Out(1)
        The step's results are sent.
    takes_x : Out(1)
        A beat of it takes one of x.
    takes_y : Out(1)
        A beat of it takes one of y.
    """

    def __init__(self, cfg: VectorCoreConfig):
        self.cfg = cfg
        super().__init__({
            "i_commands": In(stream.Signature(COMMAND_BITS)),
            "x_valid": In(1), "y_valid": In(1), "room": In(1),
            "issue": Out(1), "commit": Out(1), "step": Out(STEP), "command": Out(COMMAND),
            "beat": Out(16), "beats": Out(16), "position": Out(32), "in_turn": Out(1),
            "sends": Out(1), "takes_x": Out(1), "takes_y": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        cfg, step = self.cfg, self.step

        m.submodules.programs = programs = Programs()
        at, following = Signal.like(programs.address), Signal.like(programs.address)
        m.d.sync += at.eq(following)
        m.d.comb += [following.eq(at), programs.address.eq(following), step.eq(programs.step),
                     programs.code.eq(self.command.code)]

        m.submodules.pace = pace = Pace(cfg)
        m.d.comb += [pace.step.eq(step), pace.command.eq(self.command), pace.beat.eq(self.beat),
                     pace.beats.eq(self.beats)]
        m.d.comb += [getattr(self, name).eq(getattr(pace, name)) for name in (
            "in_turn", "sends", "takes_x", "takes_y")]

        # A beat waits for the streams it reads, and for room if it is sent.
        m.submodules.issuer = issuer = Issuer(cfg)
        active = Signal()
        m.d.comb += [
            issuer.able.eq(active & (self.room | ~pace.sends) & (self.x_valid | ~pace.takes_x)
                           & (self.y_valid | ~pace.takes_y)),
            issuer.pause.eq(pace.pause), issuer.iterates.eq(pace.iterates),
            self.issue.eq(issuer.issue), self.commit.eq(issuer.commit),
        ]

        # The next beat, step, round of a loop, row or command.
        starting = Signal()
        m.submodules.rounds = rounds = Rounds()
        m.d.comb += [
            rounds.start.eq(starting), rounds.ends.eq(issuer.through & pace.last),
            rounds.command.eq(self.command), rounds.again.eq(step.again),
            rounds.last.eq(step.last), rounds.rows_only.eq(programs.first == programs.first_of_row),
        ]
        with m.If(issuer.through):
            m.d.sync += self.beat.eq(Mux(pace.last, 0, self.beat + 1))
        with m.If(rounds.ends):
            m.d.comb += following.eq(Mux(rounds.to_loop, programs.first_of_loop, Mux(
                rounds.to_row, programs.first_of_row, at + 1)))
        with m.If(rounds.row):
            m.d.sync += [self.position.eq(self.position + 1), active.eq(~rounds.done)]

        # Take a command; in the cycle after, find its program.
        m.d.comb += self.i_commands.ready.eq(~active & ~starting)
        with m.If(self.i_commands.valid & self.i_commands.ready):
            m.d.sync += [self.command.eq(self.i_commands.payload), starting.eq(1)]
        with m.If(starting):
            m.d.sync += [starting.eq(0), active.eq(1), self.position.eq(self.command.position),
                         self.beats.eq((self.command.width_last >> cfg.lanes.bit_length() - 1) + 1)]
            m.d.comb += following.eq(programs.first)
        return m
