"""One job: a model in a phase, or a program, on a machine; mapped, simulated, summed up."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from archsim.bound import Bound, bound, bound_of
from archsim.departures import departures
from archsim.engine.demand import require_units
from archsim.engine.simulate import prepare, simulate
from machine.assembly import parse
from machine.encoding import encode
from machine.errors import UserError, must_be, unknown
from machine.load import read_machine
from machine.program import Launch, Program, SymbolKind
from machine.verify import check
from mapping.families import read_model
from mapping.fit import DoesNotFit
from mapping.formats import parse_formats
from mapping.model import Model
from mapping.transformer import Mapped, map_model
from mapping.workload import Phase, decode, prefill
from mapping.workload import encode as encode_phase

if TYPE_CHECKING:
    from archsim.result import SimResult
    from machine.chip import Machine

__all__ = [
    "Job", "Outcome", "launch_table", "make_phase", "prepare_model", "prepare_program",
    "read_program", "run_job",
]

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
    def fidelities(self) -> dict[str, str]:
        """The fidelity of each block in this run; `departures` has why one is not as declared."""
        return self.machine.fidelities | dict.fromkeys(self.departures, "analytic")

    @property
    def departures(self) -> dict[str, str]:
        """Why the timing of a block declared ``rtl`` is analytic in this run, by block."""
        return departures(self.program, self.machine)

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
    raise unknown("--phase", kind, ["decode", "encode", "prefill"])


def prepare_model(
    model: str, machine: str, phase: Phase, *, formats: str = "W8A8KV8",
    overrides: Sequence[str] = (), seed: int = 0,
) -> Job | DoesNotFit:
    """Map `model` in `phase` onto `machine`; return the job, or the record of what does not fit.

    `model` is a name or the path of a config.json, `machine` a preset or the path of a TOML file.
    Raises `UserError` for anything wrong in either.
    """
    described = read_model(model)
    _check_phase(described, phase)
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


def _check_phase(model: Model, phase: Phase) -> None:
    """Raise `UserError` for a phase that `model` does not have, or beyond its position table."""
    if (phase.kind == "encode") != (model.kind == "encoder"):
        kinds = "encode" if model.kind == "encoder" else "decode or prefill"
        raise must_be("--phase", f"{kinds} for the {model.kind} {model.name}", phase.kind)
    most = model.position.max_positions
    name, length = ("--kv", phase.kv_len) if phase.kind == "decode" else ("--tokens", phase.q_len)
    if model.position.kind == "learned" and length > most:
        raise must_be(name, f"at most {most}, the positions of {model.name}", length)


def prepare_program(
    path: Path, machine: str, *, launch: Mapping[str, int | Sequence[int]] | None = None,
    overrides: Sequence[str] = (),
) -> Job:
    """Assemble the text program at `path` for `machine`, verify it and ask the units it names.

    `launch` gives the program's launch entries an integer each and its launch tensors their
    integers. Raises `UserError` for a wrong file, program or launch value.
    """
    chip = read_machine(machine, overrides)
    program = read_program(path)
    given = launch_table(program, launch or {})
    check(program, given, chip)
    require_units(program, chip)
    return Job(name=program.name, machine=chip, program=program, launch=given,
               title=f"program {program.name} on {chip.name}")


def read_program(path: Path) -> Program:
    """Assemble the text program at `path`; raises `UserError` for a wrong file or text."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: program must be a readable file: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: program must be text in UTF-8") from None
    return parse(text, where=path.name)


def launch_table(program: Program, given: Mapping[str, int | Sequence[int]]) -> Launch:
    """Return `given` as a launch table: a list for a tensor's name, an integer for an entry's.

    Raises `UserError` for a name that `program` has not, and for a list where it has an entry.
    """
    tensors = [symbol.name for symbol in program.symbols if symbol.kind is SymbolKind.LAUNCH]
    values: dict[str, int] = {}
    lists: dict[str, list[int]] = {}
    for name, value in given.items():
        if name in tensors:
            lists[name] = [value] if isinstance(value, int) else list(value)
        elif name not in program.launch:
            if not program.launch and not tensors:
                raise UserError(f"{program.name}: --launch must not be given: "
                                "the program has no launch entries")
            raise unknown("launch entry", name, [*program.launch, *tensors], where=program.name)
        elif not isinstance(value, int):
            raise must_be(f"launch entry {name}", "one integer", list(value), where=program.name)
        else:
            values[name] = value
    return Launch(values, lists)


def run_job(job: Job, *, only_bound: bool = False, tell: Tell = lambda text: None) -> Outcome:
    """Simulate `job` (or only its bound); `tell` is called with each step's name as it begins."""
    if only_bound:
        tell("counting work")
        return Outcome(job=job, bound=bound(job.program, job.machine, job.launch, job.values))
    prepare(tell)
    tell("simulating")
    result = simulate(job.program, job.machine, job.launch, job.values)
    return Outcome(job=job, bound=bound_of(result.work, job.machine), result=result)
