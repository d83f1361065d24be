"""The simulator: when each instruction of a program issues, starts and completes.

A conservative discrete-event simulation in int64 ticks; a tick divides every clock's period.
Each queue is walked in order. An instruction comes to the head when the one before has started.
It issues when its tokens are there, which takes them; ``issue_cycles`` later it starts, or when
every unit of its mask accepts it. It completes when its last effect is visible, and its signals
can be taken ``token_latency_cycles`` after that. SCALAR, LOOP and END cost ``control_cycles``.
An instruction whose predicate is false, a NOP, or one whose tiles are empty completes as it
starts. In one tick, completions come before issues, and issues go in the order of the queues.

``docs/timing.md`` states the rules of every unit. The simulation is compiled
(`archsim.engine.kernel`) and works on one array of integers (`archsim.engine.cells`); Python lowers
the program into it, answers what depends on shapes and data, and reads the result out of it.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from archsim.accounting import CLASSES
from archsim.dram.channels import DEPTH, Memory
from archsim.engine import cells as c
from archsim.engine.answers import Answers
from archsim.result import SimResult, collect
from machine.chip import Machine
from machine.encoding import require_capabilities
from machine.errors import UserError
from machine.program import Launch, Program

__all__ = ["Engine", "prepare", "simulate"]

_WAITS_FOR = {c.FOR_NOTHING: "", c.FOR_EARLIER: "earlier instructions", c.FOR_UNITS: "its units",
              c.FOR_MEMORY: "the memory"}


def prepare(tell: Callable[[str], None]) -> None:
    """Have the simulator compiled; `tell` is called with a name for that if it is not in the cache.
    """
    from archsim.engine.kernel import run

    if hasattr(run, "make"):  # not with NUMBA_DISABLE_JIT=1
        run.make(lambda: tell("compiling the simulator, this once"))


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
    """One simulation; `together` lets equal units be simulated as one, which changes nothing."""

    def __init__(self, program: Program, machine: Machine, launch: Launch,
                 values: Mapping[str, Sequence[int]], *, together: bool = True):
        require_capabilities(program, machine.capabilities)
        if program.chips > machine.chips:
            raise UserError(
                f"chips must be at most the machine's {machine.chips}, not {program.chips}")
        self.program, self.machine = program, machine
        self.answers = Answers(program, machine, launch, values, together=together)
        ports = machine.dma.count + 1  # the last is for READs
        self.memories = [Memory(machine.dram, ports=ports) for _ in range(program.chips)]

    @property
    def cells(self) -> np.ndarray:
        """The memory of the kernel, for now."""
        return self.answers.memory

    def run(self) -> None:
        """Simulate to the end. Raises `UserError` for a deadlock."""
        # Imported where it is needed: it takes seconds to compile the first time.
        from archsim.engine.events import mark, resume
        from archsim.engine.kernel import run

        answers = self.answers
        k, trace, done, state, moves, started, credit = Memory.stacked(self.memories)
        for stream in answers.lowered.stream_places:
            mark(answers.memory, stream, 0, CLASSES.index("control"))
            resume(answers.memory, stream, 0)
        with np.errstate(over="ignore"):  # registers wrap around; only numpy's integers say so
            while True:
                why = run(answers.memory, k, state, moves, answers.listed, started, trace, done,
                          credit)
                if why == c.ENDED:
                    break
                if why != c.PAUSED:
                    answers.answer(why)
        stuck = [self._stuck(s) for s in self._streams() if not s[c.S_HALTED] or s[c.S_OPEN]]
        if stuck:
            raise UserError(f"program must not deadlock: {'; '.join(stuck)}")
        for chip, memory in enumerate(self.memories):
            memory.now = int(self.cells[self._memory_place(chip) + c.Y_NOW])

    def _streams(self) -> list[list[int]]:
        """Return the cells of every stream."""
        places = self.answers.lowered.stream_places
        return [self.cells[place : place + c.STREAM].tolist() for place in places]

    def _memory_place(self, chip: int) -> int:
        transfers = DEPTH * int(self.cells[c.MEMORY_PORTS])
        return int(self.cells[c.AT_MEMORY]) + chip * (c.MEMORY + transfers * c.TRANSFER)

    def _stuck(self, cells: list[int]) -> str:
        """Say what a stream waits for in the end: a message, or what holds its head."""
        number = cells[c.S_NUMBER]
        queue, reason = self.answers.lowered.streams[number].queue, cells[c.S_WAITS_FOR]
        at = f"[{cells[c.S_HEAD_PC]}]" if cells[c.S_HEAD_PC] != c.NONE else ""
        waits_for = self._message(number) or _WAITS_FOR.get(reason) or ""
        if reason == c.FOR_TOKENS and not waits_for:
            waits_for = ", ".join(self._tokens_short(cells))
        return f"{queue}{at} waits for {waits_for}"

    def _message(self, number: int) -> str:
        """Return the message that a queue's RECV has not got, in words; "" if there is none."""
        cells, places = self.cells, self.answers.lowered.stream_places
        channels = self.answers.lowered.channels.items()
        for (sender, _, tag), at in sorted(channels, key=lambda one: cells[one[1] + c.N_SINCE]):
            part = cells[at + c.N_WANTED]
            while part != c.NONE:
                if cells[part + c.A_STREAM] == places[number]:
                    return f"the message of chip {sender} with tag {tag}"
                part = cells[part + c.A_NEXT]
        return ""

    def _tokens_short(self, stream: list[int]) -> list[str]:
        """Return what a head lacked when it last asked, as ``name: has of needs``."""
        plan = stream[c.S_PLANS] + stream[c.S_HEAD_PC] * c.PLAN
        first, count = self.cells[[plan + c.P_WAITS, plan + c.P_WAIT_COUNT]].tolist()
        waits = self.cells[first : first + count * c.WAIT].reshape(count, c.WAIT).tolist()
        names = self.program.tokens
        return [f"{names[token].name}: {seen} of {count}"
                for token, count, seen in waits if seen < count]
