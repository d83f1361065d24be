"""The rules of docs/timing.md, The life of an instruction, in plain Python, for any units.

`Rules` walks the queues of one chip. What it knows of units comes from an object with

- ``accepts_from(queue, unit)``: the cycle from which the unit takes the queue's next instruction,
  or None while that is not known;
- ``start(queue, units, cycle)``: the queue's next instruction starts; returns for each unit the
  cycle in which it is done;
- ``read(queue, tile, cycle)``: a READ starts; returns its value and the cycle it completes in.
"""

import heapq
from collections import defaultdict
from dataclasses import dataclass, field

from machine.control import Cursor, units
from machine.opcodes import OPCODES, Opcode
from machine.sequencer import head_cycles

CONTROL = (Opcode.LOOP, Opcode.END, Opcode.SCALAR)


@dataclass
class Executed:
    """An instruction as it was executed; times in cycles."""

    step: object
    issue: int
    start: int = -1
    completion: int = -1
    by_units: list = field(default_factory=list)


@dataclass
class Head:
    """A queue: what is at its head, from when, and what has issued and not left."""

    cursor: Cursor
    stream: object
    free: int = 0  # the sequencer may go on from then
    step: object = None
    at: int = 0  # the head may issue from then
    issued: Executed = None
    open: int = 0
    halted: bool = False
    log: list = field(default_factory=list)


class Rules:
    """One run; `log` has what each queue executed, in order."""

    def __init__(self, program, launch, sequencer, stubs):
        self.program, self.cfg, self.stubs = program, sequencer, stubs
        self.counts = [token.initial for token in program.tokens]
        self.given = defaultdict(list)  # by cycle: tokens and counts
        self.ends = defaultdict(list)  # by cycle: instructions whose last unit is done
        self.times = [0]
        self.answers = {}
        streams = sorted(program.streams, key=lambda stream: stream.queue)
        self.heads = [Head(Cursor(program, stream, launch.values, control=True), stream)
                      for stream in streams]
        self.last = 0

    @property
    def log(self):
        return {str(head.stream.queue): head.log for head in self.heads}

    def run(self):
        """Run until nothing is left to happen."""
        for head in self.heads:
            self._advance(head)
        while self.times:
            now = heapq.heappop(self.times)
            while self.times and self.times[0] == now:
                heapq.heappop(self.times)
            self.last = now
            for head, one in self.ends.pop(now, []):
                head.open -= 1
                self._complete(one, now)
            for head in self.heads:
                self._start(head, now)
            for token, count in self.given.pop(now, []):
                self.counts[token] += count
            for head in self.heads:
                self._issue(head, now)
        return self

    def _at(self, cycle):
        heapq.heappush(self.times, cycle)

    def _complete(self, one, now):
        one.completion = now
        visible = now + self.cfg.token_latency_cycles
        self.given[visible] += one.step.instruction.signals
        self._at(visible)

    def _advance(self, head):
        """Bring the next instruction to the head, past control."""
        while True:
            step = head.cursor.next_step()
            if step is None:
                head.halted = True
                return
            spent = self.cfg.control_cycles if step.instruction.opcode in CONTROL else 0
            if step.active:
                spent = head_cycles(self.cfg, self.program, step.instruction)
            head.free += spent
            if step.instruction.opcode not in CONTROL:
                head.step, head.at = step, head.free
                self._at(head.at)
                return

    def _issue(self, head, now):
        if head.halted or head.issued or now < head.at:
            return
        waits = head.step.instruction.waits
        if any(self.counts[token] < count for token, count in waits):
            return
        for token, count in waits:
            self.counts[token] -= count
        head.issued = Executed(head.step, now)
        head.log.append(head.issued)
        self._at(now + self.cfg.issue_cycles)

    def _start(self, head, now):
        one = head.issued
        if one is None or now < one.issue + self.cfg.issue_cycles:
            return
        opcode = one.step.instruction.opcode
        if not one.step.active or opcode == Opcode.NOP:
            one.start = now
            self._complete(one, now)
        elif opcode == Opcode.FENCE:
            one.start = one.issue + self.cfg.issue_cycles
            if head.open:
                return
            self._complete(one, now)
        elif opcode == Opcode.READ:
            if not self._read(head, one, now):
                return
        elif not self._units(head, one, now):
            return
        head.issued, head.free = None, now
        self._advance(head)

    def _read(self, head, one, now):
        if one.start < 0:
            one.start = now
            tile = one.step.resolve(self.program.operands[one.step.instruction.operands["src"]])
            value, when = self.stubs.read(head.stream.queue, tile, now)
            self.answers[head.stream.queue] = value, when
            self._at(when)
        value, when = self.answers[head.stream.queue]
        if now < when:
            return False
        head.cursor.give(value)
        self._complete(one, now)
        return True

    def _units(self, head, one, now):
        queue = head.stream.queue
        driven = [unit for rank, unit in units(one.step.instruction.unit_mask)
                  if not self._empty(one.step, rank)]
        free = [self.stubs.accepts_from(queue, unit) for unit in driven]
        if None in free or max([now, *free]) > now:
            for cycle in free:
                if cycle is not None and cycle > now:
                    self._at(cycle)
            return False
        one.start = now
        one.by_units = driven
        if driven:
            dones = self.stubs.start(queue, driven, now)
            for done in dones:
                self._at(done)
            head.open += 1
            self.ends[max(dones)].append((head, one))
        else:
            self._complete(one, now)
        return True

    def _empty(self, step, rank):
        operands = self.program.operands
        return any(0 in step.resolve(operands[number], rank).shape
                   for number in step.instruction.operands.values())


def tiles_of(program, step):
    """Yield (role, part, unit, tile) of an active instruction's operands, in order of resolving."""
    instruction, operands = step.instruction, program.operands
    roles = [role.name for role in OPCODES[Opcode(instruction.opcode)].roles]
    for rank, unit in units(instruction.unit_mask):
        for slot, role in enumerate(roles):
            if role not in instruction.operands:
                continue
            operand = operands[instruction.operands[role]]
            numbers = [instruction.operands[role], None, None, None]
            if operand.group is not None:
                numbers[1:3] = operand.group.scale, operand.group.zero
            if operand.gather is not None:
                numbers[3] = operand.gather.index
            for part, number in enumerate(numbers):
                if number is not None:
                    yield slot, part, unit, step.resolve(operands[number], rank)
