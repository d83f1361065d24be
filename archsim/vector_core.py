"""When the RTL vector unit moves each beat: its rules as a recurrence in valid and ready times.

Beats are issued in the order of the program. Each waits for the streams it reads and, if it is
sent, for room behind it; after it pass the cycles of ``machine.vector_microcode``. The closed form
of the unstalled case is ``machine.vector_core.command_cycles``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from machine.vector_core import DECODE_CYCLES, VectorCommand, VectorCoreConfig, step_beats
from machine.vector_microcode import (
    ITERATIVE,
    Place,
    Step,
    gap_cycles,
    interval_cycles,
)
from machine.vector_programs import PROGRAMS

__all__ = ["Transfers", "transfers"]


@dataclass(frozen=True)
class Transfers:
    """The cycle of every transfer, one int64 array a stream."""

    commands: np.ndarray
    x: np.ndarray
    y: np.ndarray
    o: np.ndarray


@dataclass
class _Unit:
    """The streams so far, and the cycle from which the next beat may be issued."""

    cfg: VectorCoreConfig
    x_valid: Sequence[int]
    y_valid: Sequence[int]
    o_ready: Sequence[int]
    cycle: int = 0
    x: list[int] = field(default_factory=list)
    y: list[int] = field(default_factory=list)
    o: list[int] = field(default_factory=list)

    def run(self, step: Step, command: VectorCommand) -> None:
        """Issue the beats of `step` and wait behind them."""
        cfg = self.cfg
        beats = step_beats(cfg, step, command.width, command.order)
        interval = interval_cycles(step, cfg.latency_cycles, cfg.iterative_cycles)
        places = step.a.place, step.b.place
        takes_x, takes_y = Place.X in places, Place.Y in places
        sends = step.to.place in (Place.OUT, Place.OUT_WORD)
        late = interval - 1 - cfg.latency_cycles if step.op in ITERATIVE else 0
        if not (takes_x or takes_y or sends):
            self.cycle += (beats - 1) * interval + 1
        else:
            for beat in range(beats):
                now = self.cycle
                if takes_x:
                    now = max(now, self.x_valid[len(self.x)])
                if takes_y:
                    now = max(now, self.y_valid[len(self.y)])
                if sends and len(self.o) >= cfg.output_depth:
                    now = max(now, self.o[-cfg.output_depth] + 1)
                if takes_x:
                    self.x.append(now)
                if takes_y:
                    self.y.append(now)
                if sends:
                    offered = now + cfg.output_cycles + late
                    before = self.o[-1] + 1 if self.o else 0
                    self.o.append(max(offered, before, self.o_ready[len(self.o)]))
                self.cycle = now + (interval if beat + 1 < beats else 1)
        self.cycle += gap_cycles(step, beats, cfg.latency_cycles, cfg.iterative_cycles)


def transfers(
    cfg: VectorCoreConfig,
    commands: Sequence[VectorCommand],
    *,
    commands_valid: Sequence[int],
    x_valid: Sequence[int],
    y_valid: Sequence[int],
    o_ready: Sequence[int],
) -> Transfers:
    """Return the cycle of every transfer of `commands`, given when each side is willing.

    Beat j of a stream is offered, or taken, from the j-th of its cycles on. Raises ``IndexError``
    where a stream has fewer beats than the commands need.
    """
    unit = _Unit(cfg, [int(t) for t in x_valid], [int(t) for t in y_valid],
                 [int(t) for t in o_ready])
    accepted = []
    for command, valid in zip(commands, commands_valid, strict=True):
        accepted.append(max(unit.cycle, int(valid)))
        unit.cycle = accepted[-1] + DECODE_CYCLES
        program = PROGRAMS[command.code]
        for step in program.command:
            unit.run(step, command)
        for _ in range(command.rows):
            before, loop, after = program.parts()
            for step in (*before, *loop * command.repeats, *after):
                unit.run(step, command)
    return Transfers(*(np.array(times, np.int64) for times in (accepted, unit.x, unit.y, unit.o)))
