"""The simulator: when each instruction of a program issues, starts and completes.

A conservative discrete-event simulation in int64 ticks; a tick divides every clock's period.
Each queue is walked in order. An instruction comes to the head when the one before has started.
It issues when its tokens are there, which takes them; ``issue_cycles`` later it starts, or when
every unit of its mask accepts it. It completes when its last effect is visible, and its signals
can be taken ``token_latency_cycles`` after that. SCALAR, LOOP and END cost ``control_cycles``.
An instruction whose predicate is false, a NOP, or one whose tiles are empty completes as it
starts. In one tick, completions come before issues, and issues go in the order of the queues.

``docs/timing.md`` states the rules of every unit.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from itertools import count

from archsim.demand import Demand, Plan, Planner, operand_bits
from archsim.dma import Dma, Memories
from archsim.flight import Flight, Part
from archsim.indirect import Values
from archsim.lanes import Lane
from archsim.link import Links
from archsim.log import InstructionLog
from archsim.pieces import Piece
from archsim.ports import Ports
from archsim.result import SimResult, collect
from archsim.stream import Stream
from archsim.tokens import Tokens
from archsim.work import Work
from machine.chip import Machine
from machine.control import Step
from machine.encoding import require_capabilities
from machine.errors import UserError
from machine.opcodes import Opcode
from machine.program import Launch, Program, QueueKind, Space

__all__ = ["Engine", "simulate"]

_CONTROL = (Opcode.SCALAR, Opcode.LOOP, Opcode.END)
_DONE, _ISSUE = 0, 1  # phases of a tick


def simulate(
    program: Program,
    machine: Machine,
    launch: Launch | None = None,
    values: Mapping[str, Sequence[int]] | None = None,
) -> SimResult:
    """Return when `program` does what on `machine`.

    `values` gives, by queue, the integers its READs find where the launch table does not hold
    them: golden's value trace, a model's or the user's. Raises `UserError` for a program the
    machine cannot run, for a missing value, and for a deadlock, naming who waits for what.
    """
    engine = Engine(program, machine, launch or Launch(), values or {})
    engine.run()
    return collect(engine)


class Engine:
    """The state of one simulation."""

    def __init__(self, program: Program, machine: Machine, launch: Launch,
                 values: Mapping[str, Sequence[int]]):
        require_capabilities(program, machine.capabilities)
        if program.chips > machine.chips:
            raise UserError(
                f"chips must be at most the machine's {machine.chips}, not {program.chips}")
        self.program, self.machine = program, machine
        self._events: list[tuple[int, int, int, Callable[[int], None]]] = []
        self._number = count()
        self.tokens = Tokens(program.tokens, bits=machine.token_bits)
        self.values = Values(program, launch, values)
        self.planner = Planner(program, machine)
        ordered = sorted(program.streams, key=lambda stream: stream.queue)
        self.streams = [
            Stream(number, program, stream, self.planner, launch.values)
            for number, stream in enumerate(ordered)
        ]
        self.log = InstructionLog([str(stream.queue) for stream in self.streams])
        self.parts: dict[tuple[int, QueueKind], list[tuple[int, ...]]] = {}
        self.work = [Work() for _ in range(program.chips)]
        period = machine.ticks(machine.sequencer.clock)
        self._period = period
        self._issue = machine.sequencer.issue_cycles * period
        self._control = machine.sequencer.control_cycles * period
        self._token = machine.sequencer.token_latency_cycles * period
        self._read = (machine.scratchpad.latency_cycles + 1) * machine.ticks(
            machine.scratchpad.clock)
        self._cross = machine.crossbar.latency_cycles * machine.ticks(machine.crossbar.clock)
        self.memories = Memories(machine, program.chips)
        self.ports = [Ports(machine, self.at) for _ in range(program.chips)]
        self._dmas = [
            Dma(machine, clock, ports, self.at, self._record, self._retired)
            for clock, ports in zip(self.memories.clocks, self.ports, strict=True)
        ]
        self._links = None
        if machine.links is not None:
            self._links = Links(machine, self.at, self._record, self._retired)
        for stream in self.streams:
            stream.equip(machine, self.ports[stream.queue.chip])

    def at(self, tick: int, call: Callable[[int], None]) -> None:
        """Call `call` with `tick` at `tick`, before anything issues there."""
        heapq.heappush(self._events, (tick, _DONE, next(self._number), call))

    def run(self) -> None:
        """Simulate to the end. Raises `UserError` for a deadlock."""
        for stream in self.streams:
            self._resume(stream, 0)
        events = self._events
        while True:
            until = events[0][0] if events else None
            if self.memories.advance(until, self.at):
                continue
            if not events:
                break
            tick, _, _, call = heapq.heappop(events)
            call(tick)
        stuck = [self._stuck(s) for s in self.streams if not s.halted or s.open]
        if stuck:
            raise UserError(f"program must not deadlock: {'; '.join(stuck)}")

    def _stuck(self, stream: Stream) -> str:
        """Say what `stream` waits for in the end: a message, or what holds its head."""
        message = self._links.missing(stream) if self._links is not None else ""
        at = f"[{stream.head.pc}]" if stream.head is not None else ""
        return f"{stream.queue}{at} waits for {message or stream.waits_for}"

    def _resume(self, stream: Stream, tick: int) -> None:
        """Go on with `stream` at `tick`, after the completions there."""
        if 0 <= stream.resumes <= tick:
            return
        stream.resumes = tick

        def walk(now: int) -> None:
            if stream.resumes == now:
                stream.resumes = -1
                self._walk(stream, now)

        heapq.heappush(self._events, (tick, _ISSUE, stream.number, walk))

    def _walk(self, stream: Stream, now: int) -> None:
        """Take `stream` as far as it gets without waiting for an event."""
        while not stream.halted:
            if stream.head is None and not self._next(stream):
                return
            step = stream.head
            assert step is not None
            plan = stream.plans[step.pc]
            if stream.time > now and (plan.waits or not self._runs_ahead(stream, plan)):
                self._resume(stream, stream.time)
                return
            if stream.issued < 0 and not self._take(stream, plan, step, now):
                return
            if not self._execute(stream, plan, step, now):
                return
            stream.head, stream.issued = None, -1

    def _next(self, stream: Stream) -> bool:
        """Bring the next instruction to the head, past those of control; False at the end."""
        while True:
            step = stream.cursor.next_step()
            if step is None:
                stream.halted = True
                stream.mark(stream.time, "halted")
                return False
            if stream.plans[step.pc].opcode not in _CONTROL:
                stream.head = step
                return True
            stream.mark(stream.time, "control")
            stream.time += self._control

    def _runs_ahead(self, stream: Stream, plan: Plan) -> bool:
        """Whether `plan`, once issued, may be started now for a later tick.

        Units with ports of their own are seen by no other queue, and a DMA engine only by events
        it makes itself.
        """
        if plan.opcode is Opcode.READ:
            return False
        return stream.private or plan.kind is QueueKind.DMA or plan.opcode is Opcode.NOP

    def _take(self, stream: Stream, plan: Plan, step: Step, now: int) -> bool:
        """Take the tokens of the head and log its issue; False if they are not there."""
        if plan.waits and not self.tokens.take(plan.waits):
            self.tokens.wait(stream.number, plan.waits)
            stream.waits_for = ", ".join(self.tokens.missing(plan.waits))
            stream.mark(max(stream.time, now), "token_wait")
            return False
        issue = max(stream.time, now)
        stream.issued = issue
        stream.mark(issue, "control")
        log = self.log
        stream.row = len(log.pc)
        log.queue.append(stream.number)
        log.pc.append(step.pc)
        log.indices.append(step.indices)
        log.layer.append(step.layer)
        log.op.append(plan.instruction.op_id)
        log.mask.append(plan.mask)
        log.issue.append(issue)
        log.start.append(issue + self._issue)
        log.completion.append(-1)
        return True

    def _execute(self, stream: Stream, plan: Plan, step: Step, now: int) -> bool:
        """Start the head if its units accept it; False if it has to wait for an event."""
        start = stream.issued + self._issue
        opcode = plan.opcode
        if not step.active or opcode is Opcode.NOP:
            self._complete(stream, plan, stream.row, start)
        elif opcode is Opcode.FENCE:
            if stream.open:
                stream.mark(start, "token_wait")
                stream.waits_for = "earlier instructions"
                return False
            stream.mark(start, "token_wait")
            start = max(start, stream.done)
            self._complete(stream, plan, stream.row, start)
        elif opcode is Opcode.READ:
            return self._read_value(stream, plan, step, start)
        else:
            return self._start(stream, plan, step, now)
        stream.time = start
        return True

    def _read_value(self, stream: Stream, plan: Plan, step: Step, start: int) -> bool:
        """Answer a READ once its word has come; the sequencer waits for it.

        A word of a buffer takes the buffer's latency and a cycle, and no port. One of DRAM is a
        transfer of its own and crosses the crossbar's latency.
        """
        if stream.reading:
            return False
        source = plan.operands["src"]
        tile = step.resolve(source)
        value = self.values.read(stream.queue, plan.where, tile)
        if tile.space is not Space.DRAM:
            stream.time = start + self._read
            stream.cursor.give(value)
            self._complete(stream, plan, stream.row, stream.time)
            return True
        bits = operand_bits(source)
        word = -(-bits // 8)
        base = tile.address_bytes + tile.offset_elements * bits // 8
        clock, cross = self.memories.clocks[stream.queue.chip], self._cross

        def ended(now: int) -> None:
            stream.reading = False
            stream.time = now + cross
            stream.cursor.give(value)
            self._complete(stream, plan, stream.row, stream.time)
            stream.head, stream.issued = None, -1
            self._resume(stream, stream.time)

        stream.reading, stream.waits_for = True, "the memory"
        self.at(start, lambda now: clock.start(
            self.machine.dma.count, (Piece(0, word, 1, word),), base, write=False, now=now,
            done=ended))
        return False

    def _start(self, stream: Stream, plan: Plan, step: Step, now: int) -> bool:
        """Start an instruction of the units; False if it has to wait for an event."""
        shares = self._shares(stream, plan, step)
        start = stream.issued + self._issue
        for lane, demand in shares:
            free = self._free_at(stream, lane, demand, plan)
            if free is None:
                stream.mark(start, "unused")
                stream.waits_for = "its units"
                return False
            start = max(start, free)
        stream.mark(stream.issued + self._issue, "unused")
        if start > now and not self._runs_ahead(stream, plan):
            self._resume(stream, start)
            return False
        start = max(start, now)
        self.log.start[stream.row] = start
        work = [(lane, demand) for lane, demand in shares if demand is not None]
        flight = Flight(stream, plan, stream.row, len(work))
        stream.time = start
        stream.open += 1
        stream.issued = -1
        if not work:
            self._finish(flight, start, now)
        for lane, demand in work:
            part = Part(flight, lane, demand, start, self._through)
            self._start_part(part, step, start)
        return True

    def _shares(
        self, stream: Stream, plan: Plan, step: Step
    ) -> list[tuple[Lane, Demand | None]]:
        """Return the lanes of the head's units with what each is asked; None where it is empty."""
        shares: list[tuple[Lane, Demand | None]] = []
        for lane in list(stream.driven(plan.mask)):
            (_, asked), *others = self.planner.demands(plan, step, lane.mask)
            for members, other in others:
                shares.append((stream.part(lane, members), other))
            shares.append((lane, asked))
        return shares

    def _free_at(
        self, stream: Stream, lane: Lane, demand: Demand | None, plan: Plan
    ) -> int | None:
        """Return when `lane` accepts the head; None if that is not known yet."""
        if demand is None:
            return 0
        if plan.kind is QueueKind.DMA:
            if len(lane.in_flight) >= self._dmas[0].outstanding:
                return None
            return lane.last_start + self._dmas[0].period if lane.last_start >= 0 else 0
        if plan.opcode is Opcode.RECV:
            return None if lane.in_flight else 0
        return None if lane.pending else lane.accepts(plan.opcode)

    def _start_part(self, part: Part, step: Step, start: int) -> None:
        """Start one lane's share at `start`; that is now, unless the queue runs ahead."""
        lane, demand, plan = part.lane, part.demand, part.flight.plan
        chip = part.flight.stream.queue.chip
        self.work[chip].add(plan.kind, plan.opcode, demand, len(lane.units))
        if plan.kind is QueueKind.DMA:
            rank = next(rank for rank, unit in plan.units if unit == lane.units[0])
            found, base = self.values.transfer(plan, step, rank)
            self._dmas[chip].start(part, found, base, start)
        elif plan.kind is QueueKind.LINK:
            assert self._links is not None
            get = plan.instruction.fields.get
            peer, tag = get("peer", 0), get("tag", 0)
            if plan.opcode is Opcode.SEND:
                self._links.send(part, (chip, peer, tag), start)
            else:
                self._links.receive(part, (peer, chip, tag), start)
        else:
            beat = lane.first_beat(plan.opcode, demand, start)
            part.first = beat + demand.wait
            part.work_end = part.first + demand.busy
            lane.pending = True
            part.pending = 1
            part.ask(start)
            part.came(start)

    def _through(self, part: Part, now: int) -> None:
        """The ports of an array or a vector unit are through: its end is known."""
        opcode = part.flight.plan.opcode
        end = max(part.work_end, part.port_end)
        completion = part.lane.finish(opcode, part.demand, part.first - part.demand.wait, end)
        self._record(part, end, completion)
        self._retired(part, completion, now)

    def _record(self, part: Part, end: int, completion: int) -> None:
        """Put a part in the books."""
        key = (part.flight.stream.queue.chip, part.lane.kind)
        self.parts.setdefault(key, []).append(
            (part.flight.row, *part.segments(end, completion)))

    def _retired(self, part: Part, completion: int, now: int) -> None:
        """At `now` it is known that a part completes at `completion`; the last part decides."""
        flight = part.flight
        flight.left -= 1
        flight.completion = max(flight.completion, completion)
        if flight.left == 0:
            self._finish(flight, flight.completion, now)
        elif flight.stream.issued >= 0:
            self._resume(flight.stream, now)

    def _finish(self, flight: Flight, completion: int, now: int) -> None:
        stream = flight.stream
        stream.open -= 1
        self._complete(stream, flight.plan, flight.row, completion)
        if stream.issued >= 0:
            self._resume(stream, now)

    def _complete(self, stream: Stream, plan: Plan, row: int, tick: int) -> None:
        """Log the completion of an instruction and send its signals."""
        self.log.completion[row] = tick
        stream.done = max(stream.done, tick)
        if plan.signals:
            self.at(tick + self._token, lambda now: self._give(plan, now))

    def _give(self, plan: Plan, now: int) -> None:
        for number in self.tokens.give(plan.signals):
            self._resume(self.streams[number], now)
