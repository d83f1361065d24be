"""The sequencer of a queue: fetches, runs loops and scalars, takes tokens, starts instructions."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.flight import Flight
from hw.loops import Loops
from hw.operands import Resolver, tile_layout
from hw.records import BEAT_BITS, record_layout
from hw.scalars import BITS, LongArithmetic, Registers, Scalar
from hw.tokens import pairs_layout
from machine.front_end import FrontEndConfig
from machine.opcodes import Mode, Opcode
from machine.program import NO_LEVEL, REGISTERS
from machine.records import FIELDS_BITS, INSTRUCTION, OPERAND_SLOTS, field_record

__all__ = ["Control", "Memories", "command_layout", "control_members", "load_layout"]


def load_layout(cfg: FrontEndConfig) -> data.StructLayout:
    """Return the layout of what the loader writes into a queue's memories, one kind a cycle."""
    return data.StructLayout({
        "instruction": 1,  # write `word` at `address`
        "end": 1,  # `word` is the END of the LOOP at `address`
        "operand": 1,  # write the beat `word` at `address`
        "launch": 1,  # write the entry `word` at `address`
        "address": range(max(cfg.instructions, cfg.operands * 8, cfg.launch)),
        "word": INSTRUCTION.bits,
    })


def command_layout() -> data.StructLayout:
    """Return the layout of what a unit is given when an instruction starts."""
    return data.StructLayout({
        "opcode": 8,
        "fields": FIELDS_BITS,
        "position": signed(BITS),  # of a VECTOR: its field and its register
        "sets": 1,  # of a MATMUL: it sets the accumulator
    })


def control_members(cfg: FrontEndConfig, units: int) -> dict[str, wiring.Member]:
    """Return the members of a `Control` of a queue whose kind has `units` units."""
    pairs = pairs_layout(cfg)
    return {
        "clear": In(1),
        "run": In(1),
        "load": In(load_layout(cfg)),
        "halted": Out(1),
        "waiting": Out(1),
        "idle": Out(1),
        "refused": Out(1),
        "pc": Out(range(cfg.instructions)),
        "wants": Out(1),
        "waits": Out(pairs),
        "granted": In(1),
        "layer": Out(16),
        "gives": Out(1),
        "signals": Out(pairs),
        "tile": Out(tile_layout(cfg)),
        "valid": Out(1),
        "accepts": In(units),
        "due": Out(1),
        "starts": Out(1),
        "units_start": Out(units),
        "command": Out(command_layout()),
        "done": In(units),
        "unit_gives": Out(units),
        "unit_signals": Out(pairs).array(units),
        "stray": Out(units),
        "reads": Out(1),
        "value": In(BITS),
        "value_valid": In(1),
    }


class Memories(wiring.Component):
    """A queue's instructions, operands and launch table, each with a port of its own.

    Written by the loader, read by the queue: instruction and operand a cycle after they are asked
    for, the launch table at once. Reset leaves them as they are.

    Members
    -------
    load : In(load_layout)
        What the loader writes.
    pc : In(range(instructions))
        The instruction that is asked for.
    word : Out(512)
        That of the cycle before.
    end : Out(range(instructions))
        Its END, if it is a LOOP.
    record : In(range(operands * 8))
        The beat of an operand that is asked for.
    beat : Out(256)
        That of the cycle before.
    entry : In(range(launch))
        An entry of the launch table.
    launch : Out(64)
        Its value.
    """

    def __init__(self, cfg: FrontEndConfig):
        self.cfg = cfg
        super().__init__({
            "load": In(load_layout(cfg)),
            "pc": In(range(cfg.instructions)),
            "word": Out(INSTRUCTION.bits),
            "end": Out(range(cfg.instructions)),
            "record": In(range(cfg.operands * 8)),
            "beat": Out(BEAT_BITS),
            "entry": In(range(max(cfg.launch, 2))),
            "launch": Out(BITS),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        for name, shape, depth, asked, found, domain in (
            ("instruction", INSTRUCTION.bits, cfg.instructions, self.pc, self.word, "sync"),
            ("end", len(self.end), cfg.instructions, self.pc, self.end, "sync"),
            ("operand", BEAT_BITS, cfg.operands * 8, self.record, self.beat, "sync"),
            ("launch", BITS, max(cfg.launch, 2), self.entry, self.launch, "comb"),
        ):
            memory = Memory(shape=shape, depth=depth, init=())
            m.submodules[name] = memory
            write, read = memory.write_port(), memory.read_port(domain=domain)
            m.d.comb += [
                write.en.eq(self.load[name]),
                write.addr.eq(self.load.address),
                write.data.eq(self.load.word),
                read.addr.eq(asked),
                found.eq(read.data),
            ]
        return m


class Control(wiring.Component):
    """One queue: runs its stream by the rules of ``docs/timing.md``, The life of an instruction.

    SCALAR, LOOP and END take ``control_cycles`` each, a MUL or a CEILDIV ``long_cycles`` more.
    Any other instruction resolves its operands, takes its tokens, and starts ``issue_cycles`` later
    or when all its units accept it. Then the next one is at the head, in the same cycle. Reset and
    ``clear`` empty it; it runs from its first instruction while ``run`` is high.

    Parameters
    ----------
    units : int
        Units of the queue's kind.

    Members
    -------
    clear : In(1)
        Back to the first instruction; registers, loops and what is under way are gone.
    run : In(1)
        Go on; nothing issues or starts without it.
    load : In(load_layout)
        What the loader writes into the memories.
    halted : Out(1)
        The stream has ended; what it started may not be complete.
    waiting : Out(1)
        Only tokens are missing, and nothing of this queue is under way.
    idle : Out(1)
        Nothing of this queue is under way.
    refused : Out(1)
        A trip count is beyond ``index_bits``.
    pc : Out(range(instructions))
        The instruction at the head.
    wants : Out(1)
        The head issues if its tokens are there.
    waits : Out(pairs_layout)
        What it waits for.
    granted : In(1)
        Its tokens are taken: it issues in this cycle.
    layer : Out(16)
        The layer that the head is accounted for.
    gives : Out(1)
        An instruction that no unit does completes in this cycle.
    signals : Out(pairs_layout)
        What it signals.
    tile : Out(tile_layout)
        A resolved operand of the head.
    valid : Out(1)
        It leaves in this cycle, for its unit; never for a READ.
    accepts : In(units)
        A unit takes an instruction in this cycle.
    due : Out(1)
        The instruction in front of the head has waited ``issue_cycles``.
    starts : Out(1)
        It starts in this cycle.
    units_start : Out(units)
        The units that it starts on.
    command : Out(command_layout)
        What they are to do.
    done : In(units)
        A unit has done the oldest of its instructions.
    unit_gives : Out(units)
        That completes an instruction of this queue.
    unit_signals : Out(pairs_layout)
        One a unit: what that signals.
    stray : Out(units)
        A unit is done that does nothing for this queue.
    reads : Out(1)
        A READ asks for its value in this cycle: the first element of ``tile``.
    value : In(64)
        The value, sign extended.
    value_valid : In(1)
        It is there; the READ completes in the next cycle.
    """

    def __init__(self, cfg: FrontEndConfig, units: int):
        self.cfg, self.units = cfg, units
        super().__init__(control_members(cfg, units))

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg

        # Storage.
        m.submodules.memories = memories = Memories(cfg)
        m.submodules.registers = registers = Registers(5)
        m.submodules.loops = loops = Loops(cfg)
        m.submodules.resolver = resolver = Resolver(cfg)
        next_pc = Signal.like(self.pc)
        m.d.comb += [
            memories.load.eq(self.load), memories.pc.eq(next_pc), next_pc.eq(self.pc),
            registers.clear.eq(self.clear), loops.clear.eq(self.clear),
            *(to.eq(index) for to, index in zip(resolver.index, loops.index, strict=True)),
            memories.record.eq(resolver.record), resolver.beat.eq(memories.beat),
        ]
        m.d.sync += self.pc.eq(Mux(self.clear, 0, next_pc))
        for port in range(2):
            m.d.comb += [registers.read[port].eq(resolver.read[port]),
                         resolver.found[port].eq(registers.found[port])]

        # The head: what is behind the last instruction that has started.
        head = data.View(record_layout(INSTRUCTION), memories.word)
        at_head, leaves, pending = Signal(), Signal(), Signal()
        active = Signal()
        m.d.comb += [
            registers.read[2].eq(head.predicate_register),
            active.eq(~head.predicated | ((registers.found[2] == 0) == head.predicate_negate)),
            at_head.eq(self.run & ~self.halted & (~pending | leaves)),
            self.layer.eq(self._layer(loops, head)),
        ]

        is_control = self._control(m, head, at_head, active, loops, registers, memories, next_pc)
        with m.If(at_head & (head.opcode == Opcode.HALT)):
            m.d.sync += self.halted.eq(1)

        issues = self._issue(m, head, at_head, is_control, active, resolver, next_pc)
        self._command(m, head, issues, loops, registers)

        # It waits for its units and starts.
        self._start(m, head, active, issues, pending, leaves, resolver, registers)
        with m.If(self.clear):
            m.d.sync += [pending.eq(0), self.halted.eq(0)]
        return m

    def _issue(self, m: Module, head: data.View, at_head: Signal, is_control: Signal,
               active: Signal, resolver: Resolver, next_pc: Signal) -> Signal:
        """Resolve the operands of the head and take its tokens; return whether it issues."""
        # Anything else resolves its operands, then issues with its tokens.
        issues, ready, resolves = Signal(), Signal(), Signal()
        slots = [head[f"operand{slot}"] for slot in range(OPERAND_SLOTS)]
        m.d.comb += [
            ready.eq(at_head & ~is_control & (head.opcode != Opcode.HALT)),
            resolves.eq(active & Cat(slot != 0 for slot in slots).any()
                        & ((head.unit_mask != 0) | (head.opcode == Opcode.READ))),
            resolver.go.eq(ready & resolves), resolver.taken.eq(issues | self.clear),
            resolver.only.eq(head.opcode == Opcode.READ), resolver.mask.eq(head.unit_mask),
            *(to.eq(slot) for to, slot in zip(resolver.slots, slots, strict=True)),
            self.wants.eq(ready & (~resolves | resolver.done)),
            *(pair.token.eq(head[f"wait{i}_token"]) for i, pair in enumerate(self.waits)),
            *(pair.count.eq(head[f"wait{i}_count"]) for i, pair in enumerate(self.waits)),
            issues.eq(self.wants & self.granted),
            self.tile.eq(resolver.tile),
            self.valid.eq(resolver.valid & ~resolver.only),
        ]
        with m.If(issues):
            m.d.comb += next_pc.eq(self.pc + 1)
        return issues

    def _control(self, m: Module, head: data.View, at_head: Signal, active: Signal, loops: Loops,
                 registers: Registers, memories: Memories, next_pc: Signal) -> Signal:
        """Run loops and scalars; return whether the head is one."""
        cfg = self.cfg
        scalar = data.View(record_layout(field_record(Opcode.SCALAR)), head.fields)
        loop = data.View(record_layout(field_record(Opcode.LOOP)), head.fields)
        is_control, ends = Signal(), Signal()
        spent = Signal(range(cfg.control_cycles + cfg.long_cycles))
        long = Signal()
        m.d.comb += [
            is_control.eq((head.opcode >= Opcode.LOOP) & (head.opcode <= Opcode.SCALAR)),
            ends.eq(at_head & is_control
                    & (spent == Mux(long, cfg.control_cycles + cfg.long_cycles - 1,
                                    cfg.control_cycles - 1))),
        ]
        with m.If(at_head & is_control):
            m.d.sync += spent.eq(Mux(ends, 0, spent + 1))
            m.d.comb += next_pc.eq(Mux(ends, self.pc + 1, self.pc))
        self._loop(m, head.opcode, loop, active, ends, loops, registers, memories, next_pc)
        self._scalar(m, head, scalar, active, spent == 0, ends, long, loops, registers, memories)
        with m.If(self.clear):
            m.d.sync += spent.eq(0)
        return is_control

    def _layer(self, loops: Loops, head: data.View) -> Value:
        """Return the layer of the head: its own and, if it names a level, that loop's index."""
        return head.layer_id + self._index(loops, head.layer_level)

    def _index(self, loops: Loops, level: Value) -> Value:
        """Return the index of a loop level, 0 for one that is not open or none."""
        return reduce(or_, [Mux(level == number, index, 0)
                            for number, index in enumerate(loops.index)])

    def _loop(self, m: Module, opcode: Value, loop: data.View, active: Value, ends: Value,
              loops: Loops, registers: Registers, memories: Memories, next_pc: Signal) -> None:
        """Enter a loop, or pass it by; go round it again, or leave it."""
        count = Signal(BITS + 1)
        beyond = count[self.cfg.index_bits : BITS].any()
        negative = loop.count_is_register & count[BITS - 1]
        none = ~active | negative | (count == 0)
        m.d.comb += [
            registers.read[3].eq(loop.count),
            count.eq(Mux(loop.count_is_register, registers.found[3], loop.count)),
            loops.body.eq(self.pc + 1),
            loops.count.eq(count),
        ]
        with m.If(ends & (opcode == Opcode.LOOP)):
            with m.If(none):
                m.d.comb += next_pc.eq(memories.end + 1)
            with m.Else():
                m.d.comb += [loops.enter.eq(1), self.refused.eq(beyond)]
        with m.If(ends & (opcode == Opcode.END)):
            m.d.comb += loops.again.eq(1)
            with m.If(loops.repeat):
                m.d.comb += next_pc.eq(loops.to)

    def _scalar(self, m: Module, head: data.View, scalar: data.View, active: Value, first: Value,
                ends: Value, long: Signal, loops: Loops, registers: Registers,
                memories: Memories) -> None:
        """Run a SCALAR; a READ writes its register elsewhere."""
        m.submodules.scalar = unit = Scalar(self.cfg)
        m.submodules.arithmetic = arithmetic = LongArithmetic()
        is_scalar = head.opcode == Opcode.SCALAR
        with m.If(is_scalar):
            m.d.comb += registers.read[3].eq(scalar.b)
        b = Mux(scalar.b_is_register, registers.found[3], scalar.b)
        m.d.comb += [
            registers.read[4].eq(scalar.ra),
            memories.entry.eq(scalar.b),
            unit.alu.eq(scalar.alu), unit.a.eq(registers.found[4]), unit.b.eq(b),
            unit.launch.eq(memories.launch), unit.long.eq(arithmetic.result),
            *(to.eq(index) for to, index in zip(unit.index, loops.index, strict=True)),
            arithmetic.start.eq(first), arithmetic.divide.eq(scalar.alu[0]),
            arithmetic.a.eq(registers.found[4]), arithmetic.b.eq(b),
            long.eq(is_scalar & active & unit.is_long),
            registers.rd.eq(scalar.rd), registers.value.eq(unit.result),
        ]
        with m.If(ends & is_scalar & active):
            m.d.comb += registers.write.eq(1)

    def _command(self, m: Module, head: data.View, issues: Value, loops: Loops,
                 registers: Registers) -> None:
        """Keep what the units are to do, with what loops and registers make of it."""
        vector = data.View(record_layout(field_record(Opcode.VECTOR)), head.fields)
        matmul = data.View(record_layout(field_record(Opcode.MATMUL)), head.fields)
        with m.If(head.opcode == Opcode.VECTOR):
            m.d.comb += registers.read[3].eq(vector.position_register)
        moved = Mux(vector.position_register < REGISTERS, registers.found[3], 0)
        with m.If(issues):
            m.d.sync += [
                self.command.opcode.eq(head.opcode), self.command.fields.eq(head.fields),
                self.command.position.eq(vector.position + moved),
                self.command.sets.eq(Mux(matmul.set_level == NO_LEVEL, matmul.mode == Mode.SET,
                                         self._index(loops, matmul.set_level) == 0)),
            ]

    def _start(self, m: Module, head: data.View, active: Value, issues: Value, pending: Signal,
               leaves: Signal, resolver: Resolver, registers: Registers) -> None:
        """Hold the instruction that has issued until it starts, and what waits with it."""
        cfg = self.cfg
        m.submodules.flight = flight = Flight(cfg, self.units)
        age = Signal(range(max(cfg.issue_cycles, 2)))
        by_units, is_fence, is_read = Signal(), Signal(), Signal()
        asked, came, resolved = Signal(), Signal(), Signal()
        mask, signals = Signal(self.units), Signal(pairs_layout(cfg))
        rd = Signal(4)

        m.d.sync += asked.eq(asked | self.due)
        with m.If(leaves):
            m.d.sync += pending.eq(0)
        with m.Elif(pending & (age != 0)):
            m.d.sync += age.eq(age - 1)
        with m.If(issues):
            m.d.sync += [
                pending.eq(1), age.eq(cfg.issue_cycles - 1), asked.eq(0), came.eq(0),
                by_units.eq(active & (head.opcode > Opcode.READ)),
                is_fence.eq(active & (head.opcode == Opcode.FENCE)),
                is_read.eq(active & (head.opcode == Opcode.READ)),
                resolved.eq(resolver.done), mask.eq(head.unit_mask), rd.eq(head.fields),
                *(pair.token.eq(head[f"signal{i}_token"]) for i, pair in enumerate(signals)),
                *(pair.count.eq(head[f"signal{i}_count"]) for i, pair in enumerate(signals)),
            ]
        self._leave(m, flight, pending, age, by_units, is_fence, is_read, asked, came, resolved,
                    mask, signals, rd, leaves, resolver, registers)

    def _leave(self, m: Module, flight: Flight, pending: Signal, age: Signal, by_units: Signal,
               is_fence: Signal, is_read: Signal, asked: Signal, came: Signal, resolved: Signal,
               mask: Signal, signals: Signal, rd: Signal, leaves: Signal, resolver: Resolver,
               registers: Registers) -> None:
        """Start what has issued, and complete what no unit does."""
        # All units start together; one with an empty tile does nothing.
        driven, accepted = Signal(self.units), Signal()
        m.d.comb += [
            self.due.eq(self.run & pending & (age == 0)),
            driven.eq(Mux(by_units, mask & ~Mux(resolved, resolver.empty, 0), 0)),
            accepted.eq(((self.accepts | ~driven).all() & flight.free) | (driven == 0)),
        ]
        with m.If(is_read):
            m.d.comb += [leaves.eq(self.due & came), self.reads.eq(self.due & ~asked),
                         self.starts.eq(self.reads)]
            with m.If(self.due & self.value_valid):
                m.d.sync += came.eq(1)
                m.d.comb += [registers.write.eq(1), registers.rd.eq(rd),
                             registers.value.eq(self.value)]
        with m.Elif(is_fence):
            m.d.comb += [leaves.eq(self.due & ~flight.open), self.starts.eq(self.due & ~asked)]
        with m.Else():
            m.d.comb += [leaves.eq(self.due & accepted), self.starts.eq(leaves)]

        # What no unit does completes here; the others complete with their last unit.
        m.d.comb += [
            self.gives.eq(leaves & (driven == 0)),
            self.signals.eq(signals),
            self.units_start.eq(Mux(leaves, driven, 0)),
            flight.clear.eq(self.clear), flight.start.eq(leaves & (driven != 0)),
            flight.mask.eq(driven), flight.signals.eq(signals), flight.done.eq(self.done),
            self.unit_gives.eq(flight.gives), self.stray.eq(flight.stray),
            *(to.eq(given) for to, given in zip(self.unit_signals, flight.given, strict=True)),
            self.idle.eq(~pending & ~flight.open),
            self.waiting.eq(self.wants & ~self.granted & self.idle),
        ]
