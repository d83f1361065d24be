"""What is wrong with a command line, in the one sentence that every mistake is written in."""

import sys
from typing import Any

import typer

from machine.errors import UserError, must_be, unknown

__all__ = ["UsageError", "integer", "launch_values", "usage_sentence"]

# Typer's own errors; newer releases carry click inside, older ones import it.
_errors: Any = sys.modules[typer.BadParameter.__module__]
UsageError: Any = _errors.UsageError


def usage_sentence(error: Any) -> str:
    """Return the sentence for a `UsageError`: a wrong option or argument of a known command."""
    command: Any = error.ctx.command if error.ctx is not None else None
    nested = error.ctx is not None and error.ctx.parent is not None
    where = error.ctx.info_name if nested else ""
    match error:
        case _errors.NoSuchOption() if command is not None:
            known = [option for parameter in command.params for option in parameter.opts
                     if option.startswith("--")]
            return str(unknown("option", error.option_name, [*known, "--help"], where=where))
        case _errors.MissingParameter() if error.param is not None:
            name = next((o for o in error.param.opts if o.startswith("--")), error.param.name)
            return f"{where}: {name} must be given"
    return f"{where}: {error.format_message()}" if where else str(error.format_message())


def integer(name: str, text: str, *, least: int | None = None) -> int:
    """Return the integer `text` of the option `name`; raises `UserError` if it is none."""
    try:
        value = int(text, 0)
    except ValueError:
        raise must_be(name, "an integer", text) from None
    if least is not None and value < least:
        raise must_be(name, f"at least {least}", value)
    return value


def launch_values(texts: list[str] | None) -> dict[str, int | list[int]]:
    """Return ``length=7`` as an integer and ``pages=7,3,0`` as a list, by name."""
    values: dict[str, int | list[int]] = {}
    for text in texts or ():
        name, equals, numbers = text.partition("=")
        try:
            found = [int(number, 0) for number in numbers.split(",")]
        except ValueError:
            found = []
        if not (name and equals and found):
            raise must_be("--launch", "name=integer or name=integer,integer,...", text)
        if name in values:
            raise UserError(f"--launch {name} must be given once")
        values[name] = found if "," in numbers else found[0]
    return values
