"""The one error class for a user's mistake, and the sentence every such error is written in."""

import difflib
from collections.abc import Iterable

__all__ = ["UserError", "must_be", "nearest", "unknown"]


class UserError(ValueError):
    """A mistake in the user's input: printed as one line, exit code 2, never a traceback."""


def must_be(name: str, what: str, value: object, *, where: str = "") -> UserError:
    """Return the error ``name must be what, not value``, after `where`: a file or key."""
    return UserError(f"{where + ': ' if where else ''}{name} must be {what}, not {value!r}")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the entry of `known` that is most like `name`, or None if none is close."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return found[0] if found else None


def unknown(kind: str, name: str, known: Iterable[str], *, where: str = "") -> UserError:
    """Return the error for a `name` that is not among `known`, with the nearest one named."""
    known = sorted(known)
    near = nearest(name, known)
    hint = f"; did you mean {near!r}?" if near else ""
    at = f"{where}: " if where else ""
    return UserError(f"{at}{kind} must be one of {', '.join(known)}, not {name!r}{hint}")
