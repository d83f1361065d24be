"""The roofline: a time that no execution of a program on a machine is below.

Every resource needs at least its work over its peak rate, whatever the schedule; the bound is the
largest of these times. No latency, dependence, refresh or conflict is in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from archsim.engine.answers import Answers
from archsim.engine.cells import ENDED
from archsim.engine.work import Work
from machine.buffer import BufferConfig
from machine.chip import Machine
from machine.opcodes import Opcode
from machine.program import Launch, Program, Space
from mapping.formats import Formats
from mapping.workload import VectorStep, Workload

__all__ = ["Bound", "bound", "bound_of", "bound_of_workload", "work_of"]


@dataclass(frozen=True)
class Bound:
    """The least time by resource, in ticks; `ticks` is the largest, `resource` whose it is."""

    ticks: int
    resource: str
    terms: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return the bound as plain data."""
        return {"ticks": self.ticks, "resource": self.resource, "terms_ticks": dict(self.terms)}


def bound(
    program: Program,
    machine: Machine,
    launch: Launch | None = None,
    values: Mapping[str, Sequence[int]] | None = None,
) -> Bound:
    """Return the bound of `program` on `machine`; raises `UserError` as ``simulate`` does."""
    return bound_of(work_of(program, machine, launch, values), machine)


def work_of(
    program: Program,
    machine: Machine,
    launch: Launch | None = None,
    values: Mapping[str, Sequence[int]] | None = None,
) -> list[Work]:
    """Return what every chip does in `program`, by walking its queues without time."""
    # Imported where it is needed: it takes seconds to compile the first time.
    from archsim.engine.counting import count_work

    answers = Answers(program, machine, launch or Launch(), values or {})
    for stream in answers.lowered.stream_places:
        with np.errstate(over="ignore"):  # registers wrap around; only numpy's integers say so
            while (why := count_work(answers.memory, stream)) != ENDED:
                answers.answer(why)
    return answers.work()


def bound_of(work: Sequence[Work], machine: Machine) -> Bound:
    """Return the bound of `work`, the work of every chip."""
    terms: dict[str, int] = {}
    for chip, done in enumerate(work):
        for name, ticks in _terms(done, machine).items():
            terms[f"chip{chip}.{name}"] = ticks
    resource = max(terms, key=lambda name: terms[name], default="")
    return Bound(terms.get(resource, 0), resource, terms)


def bound_of_workload(workload: Workload, formats: Formats, machine: Machine) -> Bound:
    """Return the bound of a model's phase on one chip, before it is mapped.

    Parameters and the visible cache are read from DRAM once, new keys and values written; what the
    units do is spread over all of them.
    """
    bits = {role: formats.of(role).bits for role in ("weight", "kv")}
    moved = (workload.weight_elements * bits["weight"] // 8
             + (workload.kv_read_elements + workload.kv_written_elements) * bits["kv"] // 8)
    elements = sum(step.rows * step.width for _, step in workload.walk()
                   if isinstance(step, VectorStep))
    terms = _peaks(machine, workload.macs, elements, moved)
    resource = max(terms, key=lambda name: terms[name])
    return Bound(terms[resource], resource, terms)


def _peaks(machine: Machine, macs: int, elements: int, dram_bytes: int) -> dict[str, int]:
    """Return the least ticks of one chip's arrays, vector units and DRAM."""
    ticks = machine.ticks
    return {
        "arrays": _ticks(macs, sum((a.count * a.macs_per_cycle for a in machine.arrays),
                                   Fraction()),
                         min(ticks(a.clock) for a in machine.arrays)),
        "vectors": _ticks(elements, sum(v.count * v.lanes for v in machine.vectors),
                          min(ticks(v.clock) for v in machine.vectors)),
        "dram": _ticks(dram_bytes, machine.dram.peak_bytes_per_cycle, ticks(machine.dram.clock)),
    }


def _terms(work: Work, machine: Machine) -> dict[str, int]:
    """Return the least ticks of every resource of one chip."""
    ticks = machine.ticks
    terms = _peaks(machine, work.macs(), work.elements, work.dram_bytes())
    if machine.pim is not None:
        terms["pim"] = (work.dots(machine.dram.channels) * machine.pim.dot_cycles
                        * ticks(machine.dram.clock))
    terms["crossbar"] = _ticks(work.moved_bytes(Opcode.LOAD, Opcode.STORE, Opcode.PIM_GWRITE,
                                                Opcode.PIM_READRES),
                               machine.crossbar.bytes_per_cycle, ticks(machine.crossbar.clock))
    if machine.links is not None:
        rate = machine.links.count * machine.links.bytes_per_cycle
        period = ticks(machine.links.clock)
        terms["links.out"] = _ticks(work.moved_bytes(Opcode.SEND), rate, period)
        terms["links.in"] = _ticks(work.moved_bytes(Opcode.RECV), rate, period)
    terms |= _ports(work, machine.scratchpad, Space.SCRATCHPAD, ticks(machine.scratchpad.clock))
    terms |= _ports(work, machine.accumulator, Space.ACCUMULATOR, ticks(machine.accumulator.clock))
    return terms


def _ports(work: Work, cfg: BufferConfig, space: Space, period: int) -> dict[str, int]:
    """Return the least ticks of a buffer's ports, a word a cycle each, and of its banks."""
    counts = {port.name: port.count for port in cfg.ports}
    words = dict.fromkeys(counts, 0)
    for (kind, of, write), count in work.words().items():
        if of is space:
            port = cfg.port_of(kind.name.lower(), 0, write=write)
            assert port is not None
            words[port[0]] += count
    name = space.name.lower()
    terms = {f"{name}.{p}": _ticks(words[p], counts[p], period) for p in counts}
    return terms | {f"{name}.banks": _ticks(sum(words.values()), cfg.banks, period)}


def _ticks(amount: int, per_cycle: int | Fraction, period: int) -> int:
    return -(-amount // per_cycle) * period
