"""The command line: each command parses, calls one function of the library, prints.

==================  ============================================================================
command             the same from Python
==================  ============================================================================
run                 `archsim.job.prepare_model` or `prepare_program`, then `archsim.job.run_job`,
                    and `archsim.output.results.write_results` for a directory
run --text          `archsim.text.run_text`
bound               as run, with ``run_job(job, only_bound=True)``
report              `archsim.output.html_report.write_report`
rtl                 `archsim.rtl.emit_block`
synth               `archsim.rtl.synthesise_block`
area                `archsim.area.area`
reproduce           the functions of ``archsim.studies.<paper>.TABLES``
list                `archsim.catalogue.catalogue`
check               `archsim.catalogue.check_file`
doctor              `archsim.doctor.diagnose`
diff-exec           `archsim.agree.agree`
==================  ============================================================================

Exit code 0 is success, 1 a result that says no (does not fit, does not agree), 2 a mistake of the
user, in one line, and 130 an interrupt. Results go to stdout, progress and mistakes to stderr.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsim.progress import progress
from archsim.usage import UsageError, integer, launch_values, usage_sentence
from machine.errors import UserError, unknown

if TYPE_CHECKING:
    from archsim.job import Job, Outcome
    from mapping.fit import DoesNotFit

__all__ = ["app", "main"]

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="archsim", add_completion=False, rich_markup_mode=None,
    pretty_exceptions_enable=False, help="LLM-inference accelerators: simulate, bound, emit RTL.",
)


def _number(option: str, meaning: str) -> Any:
    return typer.Option(option, help=meaning, metavar="INTEGER")


Machine = Annotated[str, typer.Option("--machine", help="a preset's name or a TOML file")]
Overrides = Annotated[list[str] | None, typer.Option(
    "--set", help="override a field of the machine, as arrays.0.rows=64; repeatable")]
Model = Annotated[str | None, typer.Option(
    "--model", help="a known model's name, a config.json, or a model's folder")]
PhaseName = Annotated[str, typer.Option("--phase", help="decode, prefill or encode")]
Batch = Annotated[str, _number("--batch", "sequences")]
Tokens = Annotated[str, _number("--tokens", "new tokens a sequence (prefill, encode)")]
Keys = Annotated[str, _number("--kv", "keys a sequence attends to (decode)")]
FormatText = Annotated[str, typer.Option("--formats", help="as W8A8KV8 or W16A16KV16")]
ProgramFile = Annotated[Path | None, typer.Option("--program", help="a program's text file")]
LaunchValues = Annotated[list[str] | None, typer.Option(
    "--launch", help="a launch entry of the program, as length=7, or a launch tensor, as "
    "pages=4,0,2; repeatable")]
_OF_A_PHASE = ("phase", "batch", "tokens", "kv", "formats")  # options that a model alone uses
Seed = Annotated[str, _number("--seed", "of everything random")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        commands = typer.main.get_group(app).commands
        if arguments and not arguments[0].startswith("-") and arguments[0] not in commands:
            raise unknown("command", arguments[0], commands)
        code = app(arguments or ["--help"], prog_name="archsim", standalone_mode=False)
        sys.stdout.flush()
    except UserError as error:
        code = _mistake(str(error))
    except UsageError as error:
        code = _mistake(usage_sentence(error))
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output has had enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    sys.exit(code if isinstance(code, int) else DONE)


def _mistake(sentence: str) -> int:
    print("archsim: " + " ".join(sentence.split()), file=sys.stderr)
    return MISTAKE


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What `run` and `bound` were asked for, as it was written."""

    machine: str
    model: str | None
    phase: str
    batch: str
    tokens: str
    kv: str
    formats: str
    program: Path | None
    launch: list[str] | None
    overrides: list[str] | None
    seed: str

    def job(self) -> "Job | DoesNotFit":
        """Return the job, or the record of what does not fit."""
        from archsim.job import make_phase, prepare_model, prepare_program

        if self.model is not None and self.program is not None:
            raise UserError("--model and --program must not be given together")
        if self.program is not None:
            return prepare_program(self.program, self.machine, launch=launch_values(self.launch),
                                   overrides=self.overrides or ())
        if self.model is None:
            raise UserError("--model or --program must be given")
        if self.launch:
            raise UserError("--launch must come with --program")
        phase = make_phase(self.phase, integer("--batch", self.batch),
                           integer("--tokens", self.tokens), integer("--kv", self.kv))
        return prepare_model(self.model, self.machine, phase, formats=self.formats,
                             overrides=self.overrides or (), seed=integer("--seed", self.seed))

    def outcome(self, tell: Callable[[str], None], *, only_bound: bool = False
                ) -> "Outcome | DoesNotFit":
        """Return what the job came to, or the record of what does not fit."""
        from archsim.job import Job, run_job

        tell("mapping")
        job = self.job()
        return run_job(job, only_bound=only_bound, tell=tell) if isinstance(job, Job) else job


def _refuse_unused(context: typer.Context, given: str, *names: str) -> None:
    """Raise `UserError` for the first of the options `names` that was written beside `given`."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise UserError(f"--{name} must not come with {given}, which does not use it")


@app.command()
def run(
    context: typer.Context,
    machine: Machine = "npu-hbm2", model: Model = None, phase: PhaseName = "decode",
    batch: Batch = "1", tokens: Tokens = "512", kv: Keys = "512", formats: FormatText = "W8A8KV8",
    program: ProgramFile = None, launch: LaunchValues = None, text: Annotated[
        Path | None, typer.Option("--text", help="sentences, one a line, run on real weights")
    ] = None,
    set_: Overrides = None, output: Annotated[
        Path | None, typer.Option("--output", "-o", help="directory for the results")] = None,
    seed: Seed = "0", as_json: AsJson = False,
) -> int:
    """Simulate a model's phase, a text on a real model, or a program."""
    from archsim.output.report import outcome_json, outcome_table
    from archsim.output.results import check_output, write_results
    from mapping.fit import DoesNotFit

    if output is not None:
        check_output(output)
    if text is not None:
        _refuse_unused(context, "--text", *_OF_A_PHASE, "seed", "launch")
        return _run_text(model, program, text, machine, set_, output, as_json)
    asked = _Asked(machine=machine, model=model, phase=phase, batch=batch, tokens=tokens, kv=kv,
                   formats=formats, program=program, launch=launch, overrides=set_, seed=seed)
    if program is not None and model is None:
        _refuse_unused(context, "--program", *_OF_A_PHASE, "seed")
    with progress() as tell:
        outcome = asked.outcome(tell)
        if isinstance(outcome, DoesNotFit):
            return _unfit(outcome, as_json)
        written = None
        if output is not None:
            tell("writing results")
            written = write_results(outcome, output)
    _show(outcome_json(outcome) if as_json else outcome_table(outcome, written), as_json)
    return DONE


def _run_text(
    model: str | None, program: Path | None, text: Path, machine: str,
    overrides: list[str] | None, output: Path | None, as_json: bool,
) -> int:
    """Run the sentences of `text` through a real encoder."""
    from archsim.output.text_report import text_table
    from archsim.text import run_text

    if model is None or program is not None:
        raise UserError("--text must come with --model, the folder of a real model")
    with progress() as tell:
        found = run_text(Path(model), text, machine, overrides=overrides or (), output=output,
                         tell=tell)
    _show(found.to_dict() if as_json else text_table(found), as_json)
    return DONE


@app.command()
def bound(
    context: typer.Context,
    machine: Machine = "npu-hbm2", model: Model = None, phase: PhaseName = "decode",
    batch: Batch = "1", tokens: Tokens = "512", kv: Keys = "512", formats: FormatText = "W8A8KV8",
    program: ProgramFile = None, launch: LaunchValues = None, set_: Overrides = None,
    as_json: AsJson = False,
) -> int:
    """Print the least time the machine's peaks allow, and which resource sets it."""
    from archsim.output.report import bound_table, outcome_json
    from mapping.fit import DoesNotFit

    asked = _Asked(machine=machine, model=model, phase=phase, batch=batch, tokens=tokens, kv=kv,
                   formats=formats, program=program, launch=launch, overrides=set_, seed="0")
    if program is not None and model is None:
        _refuse_unused(context, "--program", *_OF_A_PHASE)
    with progress() as tell:
        outcome = asked.outcome(tell, only_bound=True)
    if isinstance(outcome, DoesNotFit):
        return _unfit(outcome, as_json)
    _show(outcome_json(outcome) if as_json else bound_table(outcome), as_json)
    return DONE


def _unfit(record: "DoesNotFit", as_json: bool) -> int:
    """Print the record of what does not fit."""
    _show({"does_not_fit": record.to_dict()} if as_json else record.sentence, as_json)
    return FAILED


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(help="a directory that run -o wrote")],
    as_json: AsJson = False,
) -> int:
    """Write one self-contained HTML page of a run into its directory."""
    from archsim.output.html_report import write_report

    with progress() as tell:
        tell("drawing")
        written = str(write_report(directory))
    _show({"file": written} if as_json else written, as_json)
    return DONE


@app.command()
def rtl(
    output: Annotated[Path, typer.Option("--output", "-o", help="directory for the Verilog")],
    machine: Machine = "tiny",
    block: Annotated[str, typer.Option("--block", help="which block")] = "systolic",
    wrap: Annotated[str | None, typer.Option("--wrap", help="axi")] = None,
    set_: Overrides = None, as_json: AsJson = False,
) -> int:
    """Write a block's Verilog and a JSON of its ports and parameters."""
    from archsim.rtl import emit_block
    from machine.load import read_machine

    with progress() as tell:
        tell("emitting Verilog")
        files = emit_block(read_machine(machine, set_ or ()), block, output, wrap=wrap)
    names = [str(file) for file in files]
    _show({"files": names} if as_json else "\n".join(names), as_json)
    return DONE


@app.command()
def synth(
    block: Annotated[str, typer.Option("--block", help="which design, as pe or systolic")],
    target: Annotated[str, typer.Option("--target", help="which technology, as ecp5 or osu018")],
    set_: Annotated[list[str] | None, typer.Option(
        "--set", help="override a parameter of the design, as a_bits=4; repeatable")] = None,
    output: Annotated[Path | None, typer.Option(
        "--output", "-o", help="directory for what the tools read and write")] = None,
    as_json: AsJson = False,
) -> int:
    """Synthesise a design: its gates, cells or area, delay, clock and energy on a technology."""
    from archsim.output.synth_report import synthesis_dict, synthesis_table
    from archsim.rtl import synthesise_block

    with progress() as tell:
        tell(f"synthesising {block} for {target}")
        row = synthesise_block(block, target, set_ or (), output=output)
    _show(synthesis_dict(row) if as_json else synthesis_table(row), as_json)
    return DONE


@app.command()
def area(
    machine: Machine = "npu-hbm2",
    node: Annotated[str, _number("--node", "process node in nm")] = "28",
    set_: Overrides = None, as_json: AsJson = False,
) -> int:
    """Print the area of a machine's components from our synthesised gates; the rest is said."""
    from archsim.area import area as areas
    from archsim.area import area_report, area_tables
    from machine.load import read_machine

    rows = areas(read_machine(machine, set_ or ()), integer("--node", node))
    _show(area_report(rows) if as_json else area_tables(rows), as_json)
    return DONE


@app.command()
def reproduce(
    paper: Annotated[str, typer.Argument(help="which study: lut-tensor-core, mixpe or neupims")],
    table: Annotated[str | None, typer.Option(
        "--table", help="which of its tables; without it the first")] = None,
    as_json: AsJson = False,
) -> int:
    """Print a published table with ours beside it, and why they differ."""
    from archsim.studies.tables import study_of, study_tables

    found = study_of(paper, table)()
    _show([one.to_dict() for one in found] if as_json else study_tables(found), as_json)
    return DONE


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(
        help="machines, models, formats, instructions, operations or blocks")] = "machines",
    as_json: AsJson = False,
) -> int:
    """List what archsim knows."""
    from archsim.catalogue import catalogue, catalogue_table

    found = catalogue(what)
    _show(found if as_json else catalogue_table(found), as_json)
    return DONE


@app.command()
def check(
    files: Annotated[list[str], typer.Argument(
        help="machines (TOML or preset), models (JSON or name) and programs (.prog)")],
    machine: Machine = "tiny", launch: LaunchValues = None, as_json: AsJson = False,
) -> int:
    """Check machines, models and programs; say what is wrong with the first that is not right."""
    from archsim.catalogue import check_file

    found = [check_file(name, machine, launch_values(launch)) for name in files]
    _show(found if as_json else "\n".join(f"{f['file']}: {f['is']}" for f in found), as_json)
    return DONE


@app.command()
def doctor(as_json: AsJson = False) -> int:
    """Say what is installed, and what is missing for what."""
    from archsim.doctor import diagnose, doctor_table

    found = diagnose()
    _show([{"name": f.name, "present": f.present, "detail": f.detail, "purpose": f.purpose}
           for f in found] if as_json else doctor_table(found), as_json)
    return DONE


@app.command("diff-exec")
def diff_exec(
    program: Annotated[Path, typer.Argument(help="a program's text file")],
    machine: Machine = "tiny", launch: LaunchValues = None, set_: Overrides = None,
    seed: Seed = "0", as_json: AsJson = False,
) -> int:
    """Run a program in golden and in the simulator; name the first instruction where they part."""
    from archsim.agree import agree

    with progress() as tell:
        tell("running golden and the simulator")
        found = agree(program, machine, launch=launch_values(launch), overrides=set_ or (),
                      seed=integer("--seed", seed, least=0))
    _show(found if as_json else found["sentence"], as_json)
    return DONE if found["agree"] else FAILED


def _show(thing: Any, as_json: bool) -> None:
    """Print JSON, or a table or text through rich."""
    if as_json:
        print(json.dumps(thing, indent=1, sort_keys=True))
        return
    from rich.console import Console

    console = Console(soft_wrap=isinstance(thing, str))
    if not console.is_terminal:
        console.width = 100
    for part in thing if isinstance(thing, list) else [thing]:
        console.print(part, markup=False, highlight=False)
