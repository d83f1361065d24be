"""The program on data: every queue in order, tokens between them, and what comes out.

An instruction takes its tokens, has all its effects and gives its tokens in one step, so any
order of the queues that respects the tokens gives the same result, unless the program has a race
(``machine.verify`` finds those).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from golden.call import Call, State
from golden.execute_ops import read_scalar, run_instruction
from golden.memory import Memory
from golden.packing import pack, pack_launch, unpack
from machine.control import Cursor, Step, units
from machine.errors import UserError
from machine.opcodes import Opcode
from machine.program import Launch, Program, Queue, Stream

__all__ = ["Executed", "Result", "execute"]


class Executed(NamedTuple):
    """One dynamic instruction in the order golden executed it."""

    queue: str
    sequence: int  # how many instructions of the queue came before
    pc: int
    indices: tuple[int, ...]  # loop indices, outermost first
    layer: int
    op: int  # into Program.ops
    mask: int  # units, a bit each
    active: bool  # False where the predicate was false


@dataclass(frozen=True, slots=True)
class Result:
    """What a program left behind."""

    tensors: dict[str, np.ndarray]  # OUTPUT and STATE symbols, exact values
    memory: Memory
    value_trace: dict[str, list[int]]  # what each queue's READs gave, in order
    log: list[Executed] = field(default_factory=list)


def execute(
    program: Program,
    tensors: Mapping[str, np.ndarray],
    launch: Launch | None = None,
    *,
    memory: Memory | None = None,
    log: bool = False,
    order: Sequence[Queue] | None = None,
    lanes: int = 128,
) -> Result:
    """Run `program` on `tensors` (``golden.packing.pack``) and return what it computed.

    With `memory`, the run starts from that memory and changes it: the KV cache of the step
    before. `order` is the order in which queues get their turn, by default the program's.
    `lanes` is the width of the vector unit, which a TREE reduction can show. Raises `UserError`
    for wrong tensors, for an instruction without meaning, and for a deadlock, naming every
    queue that waits.
    """
    launch = Launch() if launch is None else launch
    filled = pack(program, tensors, memory)
    pack_launch(program, launch, filled)
    state = State(program, filled, lanes)
    tokens = [token.initial for token in program.tokens]
    by_queue = {stream.queue: stream for stream in program.streams}
    executed: list[Executed] | None = [] if log else None
    walkers = [
        _Walker(by_queue[queue], launch, state, tokens, executed)
        for queue in (by_queue if order is None else order)
    ]
    if len(walkers) != len(program.streams):
        raise UserError(f"order must name the {len(program.streams)} queues of {program.name}, "
                        f"not {len(walkers)}")
    # Every queue has its turn in each pass, whether or not one before it moved.
    while any([walker.run_until_blocked() for walker in walkers]):
        pass
    _check_end(walkers, state)
    return Result(
        unpack(filled, program),
        filled,
        {str(walker.queue): walker.values for walker in walkers if walker.values},
        executed or [],
    )


class _Walker:
    """One queue on its way through its stream."""

    def __init__(self, stream: Stream, launch: Launch, state: State, tokens: list[int],
                 log: list[Executed] | None):
        self.queue = stream.queue
        self.values: list[int] = []
        self._state = state
        self._tokens = tokens
        self._log = log
        self._cursor = Cursor(state.program, stream, launch.values)
        self._step = self._cursor.next_step()
        self._issued = False  # the step at hand has taken its tokens
        self._sequence = 0

    @property
    def halted(self) -> bool:
        """Whether the stream has ended."""
        return self._step is None

    def run_until_blocked(self) -> bool:
        """Execute as many instructions as possible; return whether there was any."""
        begun = self._sequence
        while self._step is not None and self._issue(self._step) and self._ready(self._step):
            self._execute(self._step)
            for token, count in self._step.instruction.signals:
                self._tokens[token] += count
            self._sequence += 1
            self._issued = False
            self._step = self._cursor.next_step()
        return self._sequence > begun

    def complaint(self) -> str:
        """Return what the queue waits for, naming its instruction."""
        assert self._step is not None
        where = f"{self.queue}[{self._step.pc}] waits for"
        if self._issued:
            fields = self._step.instruction.fields
            return (f"{where} a tile from chip {fields.get('peer', 0)} "
                    f"with tag {fields.get('tag', 0)}")
        names = [token.name for token in self._state.program.tokens]
        short = [
            f"{count} of token {names[token]} (count {self._tokens[token]})"
            for token, count in _needs(self._step).items()
            if self._tokens[token] < count
        ]
        return f"{where} {' and '.join(short)}"

    def _issue(self, step: Step) -> bool:
        """Take the tokens of `step` if all are there; return whether it is issued."""
        if not self._issued:
            needs = _needs(step)
            if any(self._tokens[token] < count for token, count in needs.items()):
                return False
            for token, count in needs.items():
                self._tokens[token] -= count
            self._issued = True
        return True

    def _ready(self, step: Step) -> bool:
        """Return whether what an issued instruction receives has arrived."""
        if step.instruction.opcode != Opcode.RECV or not step.active:
            return True
        get = step.instruction.fields.get
        return self._state.links.arrived(get("peer", 0), self.queue.chip, get("tag", 0))

    def _execute(self, step: Step) -> None:
        instruction = step.instruction
        try:
            if step.active and instruction.opcode == Opcode.READ:
                self.values.append(read_scalar(Call(self._state, self.queue, step, 0, 0)))
                self._cursor.give(self.values[-1])
            elif step.active:
                for rank, unit in units(instruction.unit_mask):
                    run_instruction(Call(self._state, self.queue, step, rank, unit))
        except ValueError as error:  # a UserError, or numpy's of shapes that do not go together
            name = self._state.program.name
            raise UserError(f"{name}: {self.queue}[{step.pc}]: {error}") from error
        if self._log is not None:
            self._log.append(Executed(
                str(self.queue), self._sequence, step.pc, step.indices, step.layer,
                instruction.op_id, instruction.unit_mask, step.active))


def _check_end(walkers: list[_Walker], state: State) -> None:
    """Raise `UserError` for queues that wait for ever and for tiles that nobody received."""
    name = state.program.name
    blocked = [walker.complaint() for walker in walkers if not walker.halted]
    if blocked:
        raise UserError(f"{name}: deadlock: {'; '.join(blocked)}")
    if state.links.pending:
        source, destination, tag = state.links.pending[0]
        raise UserError(f"{name}: a tile from chip {source} to chip {destination} "
                        f"with tag {tag} must be received, and was not")


def _needs(step: Step) -> dict[int, int]:
    """Return the count `step` waits for, by token."""
    needs: dict[int, int] = {}
    for token, count in step.instruction.waits:
        needs[token] = needs.get(token, 0) + count
    return needs
