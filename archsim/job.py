"""One job: a model in a phase, or a program, on a machine; mapped, simulated, summed up."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from archsim.bound import Bound, bound
from archsim.engine import simulate
from machine.assembly import parse
from machine.encoding import encode
from machine.errors import UserError, must_be
from machine.load import read_machine
from machine.program import Launch, Program
from machine.verify import check
from mapping.families import read_model
from mapping.fit import DoesNotFit
from mapping.formats import parse_formats
from mapping.transformer import Mapped, map_model
from mapping.workload import Phase, decode, prefill
from mapping.workload import encode as encode_phase

if TYPE_CHECKING:
    from archsim.result import SimResult
    from machine.chip import Machine

__all__ = ["Job", "Outcome", "make_phase", "prepare_model", "prepare_program", "run_job"]

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to run: a program with its launch on a machine, and where it came from."""

    name: str
    machine: "Machine"
    program: Program
    launch: Launch
    title: str  # the first line of its table
    tokens: int = 0  # new tokens a run makes or reads; 0 is not a model
    mapped: Mapped | None = None
    values: Mapping[str, Sequence[int]] = field(default_factory=dict)  # value trace
    seed: int = 0

    @property
    def program_hash(self) -> str:
        """The SHA-256 of the program's binary form, in hex."""
        return hashlib.sha256(encode(self.program)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a job came to; `result` is None where only its bound was asked for."""

    job: Job
    bound: Bound
    result: "SimResult | None" = None


def make_phase(kind: str, batch: int, tokens: int, kv: int) -> Phase:
    """Return the phase of the command line's words; raises `UserError` for a wrong one."""
    for name, value in (("--batch", batch), ("--tokens", tokens), ("--kv", kv)):
        if value < 1:
            raise must_be(name, "at least 1", value)
    match kind:
        case "decode":
            return decode(batch, kv)
        case "prefill":
            return prefill(batch, tokens)
        case "encode":
            return encode_phase(batch, tokens)
    raise must_be("--phase", "one of decode, encode, prefill", kind)


def prepare_model(
    model: str, machine: str, phase: Phase, *, formats: str = "W8A8KV8",
    overrides: Sequence[str] = (), seed: int = 0,
) -> Job | DoesNotFit:
    """Map `model` in `phase` onto `machine`; return the job, or the record of what does not fit.

    `model` is a name or the path of a config.json, `machine` a preset or the path of a TOML file.
    Raises `UserError` for anything wrong in either.
    """
    described = read_model(model)
    chip = read_machine(machine, overrides)
    parsed = parse_formats(formats)
    mapped = map_model(described, phase, chip, parsed)
    if isinstance(mapped, DoesNotFit):
        return mapped
    lengths = {
        "decode": f"decode, batch {phase.batch}, {phase.kv_len} keys",
        "prefill": f"prefill, batch {phase.batch}, {phase.q_len} tokens",
        "encode": f"encode, batch {phase.batch}, {phase.q_len} tokens",
    }
    return Job(
        name=f"{described.name}-{phase.kind}", machine=chip, program=mapped.program,
        launch=mapped.launch(), tokens=phase.tokens, mapped=mapped, seed=seed,
        title=f"{described.name}, {lengths[phase.kind]}, {parsed} on {chip.name}",
    )


def prepare_program(
    path: Path, machine: str, *, launch: Mapping[str, int] | None = None,
    overrides: Sequence[str] = (), tensors: Mapping[str, Sequence[int]] | None = None,
) -> Job:
    """Assemble the text program at `path` for `machine` and verify it.

    Raises `UserError` for a wrong file, program or launch value.
    """
    chip = read_machine(machine, overrides)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: program must be a readable text file: {error}") from None
    program = parse(text, where=path.name)
    given = Launch(values=dict(launch or {}), tensors=dict(tensors or {}))
    for name in given.values:
        if name not in program.launch:
            raise must_be("--launch", f"one of {', '.join(program.launch) or 'no entries'}", name)
    check(program, given, chip)
    return Job(name=program.name, machine=chip, program=program, launch=given,
               title=f"program {program.name} on {chip.name}")


def run_job(job: Job, *, only_bound: bool = False, tell: Tell = lambda text: None) -> Outcome:
    """Simulate `job` (or only its bound); `tell` is called with each step's name as it begins."""
    tell("counting work")
    limit = bound(job.program, job.machine, job.launch)
    if only_bound:
        return Outcome(job=job, bound=limit)
    tell("simulating")
    return Outcome(job=job, bound=limit,
                   result=simulate(job.program, job.machine, job.launch, job.values))
