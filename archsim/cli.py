"""The command line: each command parses, calls one function of the library, prints."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from machine.errors import UserError

__all__ = ["app", "main"]

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130

# What typer raises for a wrong command, option or value; newer typer carries click within itself.
UsageError = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="archsim", add_completion=False, rich_markup_mode=None,
    pretty_exceptions_enable=False, help="LLM-inference accelerators: simulate, bound, emit RTL.",
)

Machine = Annotated[str, typer.Option("--machine", help="a preset's name or a TOML file")]
Overrides = Annotated[list[str] | None, typer.Option(
    "--set", help="override a field of the machine, as arrays.0.rows=64; repeatable")]
Model = Annotated[str | None, typer.Option(
    "--model", help="a known model's name, a config.json, or a model's folder")]
PhaseName = Annotated[str, typer.Option("--phase", help="decode, prefill or encode")]
Batch = Annotated[int, typer.Option("--batch", help="sequences")]
Tokens = Annotated[int, typer.Option("--tokens", help="new tokens a sequence (prefill, encode)")]
Keys = Annotated[int, typer.Option("--kv", help="keys a sequence attends to (decode)")]
FormatText = Annotated[str, typer.Option("--formats", help="as W8A8KV8 or W16A16KV16")]
ProgramFile = Annotated[Path | None, typer.Option("--program", help="a program's text file")]
LaunchValues = Annotated[list[str] | None, typer.Option(
    "--launch", help="a launch entry of the program, as length=7; repeatable")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(arguments or ["--help"], standalone_mode=False)
    except UserError as error:
        code = _mistake(str(error))
    except UsageError as error:
        code = _mistake(error.format_message())
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    sys.exit(code if isinstance(code, int) else DONE)


def _mistake(sentence: str) -> int:
    print("archsim: " + " ".join(sentence.split()), file=sys.stderr)
    return MISTAKE


@contextmanager
def _progress() -> Iterator[Any]:
    """Yield a function that shows the step under way on stderr, where that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("starting") as status:
        yield lambda text: status.update(f"{text} ...")


@app.command()
def run(
    machine: Machine = "npu-hbm2", model: Model = None, phase: PhaseName = "decode",
    batch: Batch = 1, tokens: Tokens = 512, kv: Keys = 512, formats: FormatText = "W8A8KV8",
    program: ProgramFile = None, launch: LaunchValues = None, text: Annotated[
        Path | None, typer.Option("--text", help="sentences, one a line, run on real weights")
    ] = None,
    set_: Overrides = None, output: Annotated[
        Path | None, typer.Option("--output", "-o", help="directory for the results")] = None,
    seed: Annotated[int, typer.Option("--seed", help="of everything random")] = 0,
    as_json: AsJson = False,
) -> int:
    """Simulate a model's phase, a text on a real model, or a program."""
    from archsim.report import outcome_json, outcome_table
    from archsim.results import write_results

    if text is not None:
        return _run_text(model, text, machine, set_, output, as_json)
    with _progress() as tell:
        outcome = _outcome(model, machine, phase, batch, tokens, kv, formats, program, launch,
                           set_, seed, tell)
        if isinstance(outcome, dict):
            return _unfit(outcome, as_json)
        written = None
        if output is not None:
            tell("writing results")
            written = write_results(outcome, output)
    _show(outcome_json(outcome) if as_json else outcome_table(outcome, written), as_json)
    return DONE


@app.command()
def bound(
    machine: Machine = "npu-hbm2", model: Model = None, phase: PhaseName = "decode",
    batch: Batch = 1, tokens: Tokens = 512, kv: Keys = 512, formats: FormatText = "W8A8KV8",
    program: ProgramFile = None, launch: LaunchValues = None, set_: Overrides = None,
    as_json: AsJson = False,
) -> int:
    """Print the least time the machine's peaks allow, and which resource sets it."""
    from archsim.report import bound_table, outcome_json

    with _progress() as tell:
        outcome = _outcome(model, machine, phase, batch, tokens, kv, formats, program, launch,
                           set_, 0, tell, only_bound=True)
    if isinstance(outcome, dict):
        return _unfit(outcome, as_json)
    _show(outcome_json(outcome) if as_json else bound_table(outcome), as_json)
    return DONE


def _outcome(
    model: str | None, machine: str, phase: str, batch: int, tokens: int, kv: int, formats: str,
    program: Path | None, launch: list[str] | None, overrides: list[str] | None, seed: int,
    tell: Any, *, only_bound: bool = False,
) -> Any:
    """Return the outcome of the command line's job, or the record of what does not fit."""
    from archsim.job import make_phase, prepare_model, prepare_program, run_job
    from mapping.fit import DoesNotFit

    if (model is None) == (program is None):
        raise UserError("run must be given either --model or --program")
    tell("mapping")
    if program is not None:
        job = prepare_program(program, machine, launch=_launch(launch), overrides=overrides or ())
        return run_job(job, only_bound=only_bound, tell=tell)
    made = prepare_model(str(model), machine, make_phase(phase, batch, tokens, kv),
                         formats=formats, overrides=overrides or (), seed=seed)
    if isinstance(made, DoesNotFit):
        return made.to_dict() | {"sentence": made.sentence}
    return run_job(made, only_bound=only_bound, tell=tell)


def _launch(texts: list[str] | None) -> dict[str, int]:
    values = {}
    for text in texts or ():
        name, _, number = text.partition("=")
        try:
            values[name] = int(number, 0)
        except ValueError:
            raise UserError(f"--launch must be name=integer, not {text!r}") from None
    return values


def _unfit(record: dict[str, Any], as_json: bool) -> int:
    """Print the record of what does not fit."""
    sentence = record.pop("sentence")
    _show({"does_not_fit": record} if as_json else sentence, as_json)
    return FAILED


def _run_text(
    model: str | None, text: Path, machine: str, overrides: list[str] | None,
    output: Path | None, as_json: bool,
) -> int:
    """Run the sentences of `text` through a real encoder."""
    from archsim.text import run_text
    from archsim.text_report import text_table

    if model is None:
        raise UserError("--text must come with --model, the folder of a real model")
    with _progress() as tell:
        found = run_text(Path(model), text, machine, overrides=overrides or (), output=output,
                         tell=tell)
    _show(found.to_dict() if as_json else text_table(found), as_json)
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

    with _progress() as tell:
        tell("emitting Verilog")
        files = emit_block(read_machine(machine, set_ or ()), block, output, wrap=wrap)
    names = [str(file) for file in files]
    _show({"files": names} if as_json else "\n".join(names), as_json)
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

    found = [check_file(name, machine, _launch(launch)) for name in files]
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
    seed: Annotated[int, typer.Option("--seed", help="of the data golden runs on")] = 0,
    as_json: AsJson = False,
) -> int:
    """Run a program in golden and in the simulator; name the first instruction where they part."""
    from archsim.agree import agree

    found = agree(program, machine, launch=_launch(launch), overrides=set_ or (), seed=seed)
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
        console.width = 160
    for part in thing if isinstance(thing, list) else [thing]:
        console.print(part, markup=False, highlight=False)
