"""Every dynamic instruction of a program: the bytes it touches, the tokens it takes and gives.

What an instruction touches is resolved once for each set of loop indices and registers that its
operands depend on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from machine.control import Cursor, Step, Tile, units
from machine.faults import Fault, FaultKind, fault_at
from machine.opcodes import OPCODES, Mode, Opcode
from machine.ordering import Event
from machine.places import Places
from machine.program import NO_LEVEL, UNIT_LEVEL, Instruction, Launch, Operand, Program, Stream
from machine.races import READ, WRITE, Access, among_units
from machine.shapes import shape_faults

__all__ = ["LENGTH_LIMIT", "Unrolled", "unroll"]

LENGTH_LIMIT = 2_000_000  # dynamic instructions of one stream, control included

_SILENT = (Opcode.LOOP, Opcode.END, Opcode.SCALAR)
_NO_EFFECT = (Opcode.PIM_ACTIVATE,)  # names memory and neither reads nor writes it


@dataclass
class Unrolled:
    """A stream's dynamic instructions, HALT and control left out."""

    pcs: list[int] = field(default_factory=list)
    indices: list[tuple[int, ...]] = field(default_factory=list)
    accesses: list[tuple[Access, ...]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    # Of each SEND and RECV in order: its channel (source, destination, tag), elements, number.
    sent: list[tuple[tuple[int, int, int], int, int]] = field(default_factory=list)
    received: list[tuple[tuple[int, int, int], int, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the effect of one static instruction depends on."""

    levels: tuple[int, ...]
    registers: tuple[int, ...]
    units: tuple[tuple[int, int], ...]  # (rank, unit)


@dataclass(frozen=True, slots=True)
class _Effect:
    """What one dynamic instruction touches, and how many elements each unit sends or receives."""

    accesses: tuple[Access, ...] = ()
    elements: tuple[int, ...] = ()
    faults: tuple[tuple[FaultKind, str], ...] = ()
    held: tuple[tuple[int, tuple[int, ...]], ...] = ()  # weights preloaded, by unit


def unroll(program: Program, number: int, launch: Launch, places: Places,
           values: Sequence[int] | None) -> tuple[Unrolled, list[Fault]]:
    """Return stream `number` of `program` unrolled, and the faults met on the way.

    `values` is what the stream's READs give, in order; without it they are answered from the
    launch table.
    """
    walk = _Walk(program, number, launch, places, values)
    walk.run()
    return walk.found, walk.faults


class _Walk:
    """One stream on its way from its first instruction to HALT."""

    def __init__(self, program: Program, number: int, launch: Launch, places: Places,
                 values: Sequence[int] | None):
        self.found = Unrolled()
        self.faults: list[Fault] = []
        self._program = program
        self._number = number
        self._stream: Stream = program.streams[number]
        self._places = places
        self._values = None if values is None else iter(values)
        self._cursor = Cursor(program, self._stream, launch.values, control=True)
        self._plans = [_plan(program, i) for i in self._stream.instructions]
        self._effects: dict[tuple[object, ...], _Effect] = {}
        self._held: dict[int, tuple[int, ...]] = {}
        self._reported: set[tuple[int, str]] = set()

    def run(self) -> None:
        """Walk until HALT, a READ without a value, or the limit of length."""
        length = 0
        while (step := self._cursor.next_step()) is not None:
            length += 1
            if length > LENGTH_LIMIT:
                self._fault(step, FaultKind.LENGTH,
                            f"stream must run at most {LENGTH_LIMIT} instructions")
                return
            if step.instruction.opcode not in _SILENT and not self._take(step):
                return

    def _take(self, step: Step) -> bool:
        """Note one dynamic instruction; return False if the walk cannot go on."""
        found, instruction = self.found, step.instruction
        at = len(found.pcs)
        effect = self._effect(step) if step.active else _Effect()
        found.pcs.append(step.pc)
        found.indices.append(step.indices)
        found.accesses.append(effect.accesses)
        if instruction.waits or instruction.signals:
            found.events.append(Event(at, _summed(instruction.waits),
                                      _summed(instruction.signals)))
        for kind, message in effect.faults:
            self._fault(step, kind, message)
        self._held.update(effect.held)
        if step.active and instruction.opcode in (Opcode.SEND, Opcode.RECV):
            self._link(instruction, effect, at)
        if step.active and instruction.opcode == Opcode.READ:
            return self._answer(step)
        return True

    def _fault(self, step: Step, kind: FaultKind, message: str) -> None:
        if (step.pc, message) not in self._reported:
            self._reported.add((step.pc, message))
            self.faults.append(fault_at(self._program, self._number, step.pc, kind, message,
                                        step.indices))

    def _link(self, instruction: Instruction, effect: _Effect, at: int) -> None:
        chip = self._stream.queue.chip
        peer, tag = instruction.fields.get("peer", 0), instruction.fields.get("tag", 0)
        sends = instruction.opcode == Opcode.SEND
        channel = (chip, peer, tag) if sends else (peer, chip, tag)
        listed = self.found.sent if sends else self.found.received
        listed += [(channel, elements, at) for elements in effect.elements]

    def _answer(self, step: Step) -> bool:
        """Give the READ of `step` its value; return False if there is none."""
        tile = step.resolve(self._program.operands[step.instruction.operands["src"]])
        launched = self._places.launched(self._stream.queue.chip, tile)
        value = None if launched is None else launched[0]
        if self._values is not None:
            traced = next(self._values, None)
            if traced is not None and value is not None and traced != value:
                self._fault(step, FaultKind.READ, f"value in the trace must be {value}, as in "
                                                  f"the launch table, not {traced}")
            value = traced
        if value is None:
            self._fault(step, FaultKind.READ, "value must be in the launch table or the "
                                              "value trace")
            return False
        self._cursor.give(int(value))
        return True

    def _effect(self, step: Step) -> _Effect:
        plan, instruction = self._plans[step.pc], step.instruction
        indices, registers = step.indices, step.registers
        depth = len(indices)
        key: tuple[object, ...]
        key = (step.pc, *[indices[level] if level < depth else 0 for level in plan.levels],
               *[registers[register] for register in plan.registers])
        if instruction.opcode == Opcode.MATMUL:
            key += (_sets(step),)
            if "w" not in instruction.operands:
                key += tuple(self._held.items())
        effect = self._effects.get(key)
        if effect is None:
            effect = self._effects[key] = self._resolve(step, plan)
        return effect

    def _resolve(self, step: Step, plan: _Plan) -> _Effect:
        accesses: list[tuple[int, Access]] = []
        faults: list[tuple[FaultKind, str]] = []
        elements: list[int] = []
        held = []
        instruction, operands = step.instruction, self._program.operands
        for rank, unit in plan.units:
            tiles = {role: step.resolve(operands[at], rank)
                     for role, at in instruction.operands.items()}
            if any(0 in tile.shape for tile in tiles.values()):
                continue
            shapes = {role: tile.shape for role, tile in tiles.items()}
            wrong = [(FaultKind.SHAPE, message) for message in
                     shape_faults(instruction, shapes, self._held.get(unit))]
            faults += wrong
            elements += [tile.elements for tile in tiles.values()]
            if instruction.opcode == Opcode.PRELOAD:
                held.append((unit, shapes["w"]))
            for tile, mode in _touched(step, tiles, operands, rank):
                made, complaints = self._places.access(
                    self._number, self._stream.queue.chip, unit, instruction, tile, mode,
                    self._index(step, tile, rank))
                accesses += [(rank, access) for access in made]
                faults += complaints
        clash = among_units(accesses) if len(plan.units) > 1 else None
        if clash is not None:
            message = f"units must not share bytes that one writes: {self._places.shown(*clash)}"
            faults.append((FaultKind.RACE, message))
        return _Effect(tuple(access for _, access in accesses if access.mode), tuple(elements),
                       tuple(dict.fromkeys(faults)), tuple(held))

    def _index(self, step: Step, tile: Tile, rank: int) -> Sequence[int] | None:
        """Return the index list of the tile's gather if the launch table gives it."""
        gather = tile.operand.gather
        if gather is None:
            return None
        listed = step.resolve(self._program.operands[gather.index], rank)
        return self._places.launched(self._stream.queue.chip, listed)


def _summed(pairs: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    if len(pairs) < 2:
        return pairs
    counts: dict[int, int] = {}
    for token, count in pairs:
        counts[token] = counts.get(token, 0) + count
    return tuple(counts.items())


def _plan(program: Program, instruction: Instruction) -> _Plan:
    levels: set[int] = set()
    registers: set[int] = set()
    for at in instruction.operands.values():
        for operand in _with_indirect(program.operands, program.operands[at]):
            levels.update(level for level, _ in operand.loop_strides)
            if operand.base_register is not None:
                registers.add(operand.base_register)
            for edge in operand.edges:
                if edge is not None:
                    levels.update(level for level, _ in edge.steps)
                    if edge.bound_register is not None:
                        registers.add(edge.bound_register)
    levels.discard(UNIT_LEVEL)
    return _Plan(tuple(sorted(levels)), tuple(sorted(registers)),
                 tuple(units(instruction.unit_mask)))


def _with_indirect(operands: Sequence[Operand], operand: Operand) -> Iterator[Operand]:
    """Yield an operand, then those that hold its scales, zero points and index list."""
    yield operand
    if operand.group is not None:
        for other in (operand.group.scale, operand.group.zero):
            if other is not None:
                yield operands[other]
    if operand.gather is not None:
        yield operands[operand.gather.index]


def _sets(step: Step) -> bool:
    """Return whether a MATMUL sets its accumulator, rather than adding to it."""
    level = step.instruction.fields.get("set_level", NO_LEVEL)
    if level == NO_LEVEL:
        return step.instruction.fields.get("mode", Mode.SET) == Mode.SET
    return level >= len(step.indices) or step.indices[level] == 0


def _touched(step: Step, tiles: Mapping[str, Tile], operands: Sequence[Operand],
             rank: int) -> Iterator[tuple[Tile, int]]:
    """Yield every tile an instruction touches on one unit, and whether it reads or writes it."""
    instruction = step.instruction
    opcode = Opcode(instruction.opcode)
    for role in OPCODES[opcode].roles:
        if role.name not in tiles:
            continue
        tile = tiles[role.name]
        mode = WRITE if role.written else READ
        if (role.name == "state"
                or (opcode == Opcode.MATMUL and role.name == "acc" and not _sets(step))
                or (opcode == Opcode.PIM_GEMV and role.name == "dst"
                    and instruction.fields.get("accumulate"))):
            mode = READ | WRITE
        yield tile, 0 if opcode in _NO_EFFECT else mode
        for other in list(_with_indirect(operands, tile.operand))[1:]:
            indirect = step.resolve(other, rank)
            if 0 not in indirect.shape:
                yield indirect, READ
