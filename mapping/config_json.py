"""Typed reading of a Hugging Face config.json: every key by name, every default said aloud."""

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from machine.errors import UserError, must_be, nearest, unknown

__all__ = ["Keys", "read_json"]

_Word = TypeVar("_Word", bound=str)

_TYPO_CUTOFF = 0.9  # how alike an unread key and an absent one must be to be called a misspelling


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file at `path`.

    Raises `UserError` that names the file if it is absent, not JSON, not an object, or has a key
    twice.
    """
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: set[str] = set()
        for key, _ in items:
            if key in seen:
                raise UserError(f"{path.name}: key {key!r} must be given once, not twice")
            seen.add(key)
        return dict(items)

    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=pairs)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path.name}: must be JSON; line {error.lineno}, column {error.colno}: "
                        f"{error.msg}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path.name}: must be JSON text in UTF-8") from None
    if not isinstance(value, dict):
        raise UserError(f"{path.name}: must be a JSON object, not a {type(value).__name__}")
    return value


class Keys:
    """The keys of one JSON object, read by type.

    A key without a default must be there. A default that is taken is recorded in `notes` with the
    source it is given with; null counts as absent. Every error is one line: file, key, value.
    """

    def __init__(self, values: Mapping[str, Any], where: str, prefix: str = "") -> None:
        self.values = values
        self.where = where
        self.notes: list[str] = []
        self._prefix = prefix
        self._read: set[str] = set()

    def has(self, key: str) -> bool:
        """Return whether `key` is there and not null."""
        self._read.add(key)
        return self.values.get(key) is not None

    def integer(self, key: str, *, default: int | None = None, source: str = "",
                least: int = 1) -> int:
        """Return the integer at `key`, at least `least`."""
        value = self._get(key, default, source)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.error(key, f"an integer of at least {least}", value)
        return value

    def number(self, key: str, *, default: float | None = None, source: str = "") -> float:
        """Return the number at `key`, above 0."""
        value = self._get(key, default, source)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise self.error(key, "a number above 0", value)
        return float(value)

    def flag(self, key: str, *, default: bool | None = None, source: str = "") -> bool:
        """Return the true or false at `key`."""
        value = self._get(key, default, source)
        if not isinstance(value, bool):
            raise self.error(key, "true or false", value)
        return value

    def choice(self, key: str, choices: Iterable[_Word]) -> _Word:
        """Return the word at `key`, one of `choices`."""
        value = self._get(key, None, "")
        if not isinstance(value, str):
            raise self.error(key, "a word", value)
        for word in choices:
            if word == value:
                return word
        raise unknown(self._prefix + key, value, choices, where=self.where)

    def table(self, key: str) -> "Keys":
        """Return the keys of the object at `key`; its notes are its own."""
        value = self._get(key, None, "")
        if not isinstance(value, dict):
            raise self.error(key, "an object", value)
        return Keys(value, self.where, prefix=f"{self._prefix}{key}.")

    def only(self, key: str, value: object, why: str) -> None:
        """Refuse any value at `key` but `value`, which is also what its absence means."""
        got = self.values.get(key, value)
        self._read.add(key)
        same = got == value and isinstance(got, bool) == isinstance(value, bool)
        if got is not None and not same:
            raise self.error(key, f"{json.dumps(value)} ({why})", got)

    def error(self, key: str, what: str, value: object) -> UserError:
        """Return the error ``file: key must be what, not value``."""
        return must_be(self._prefix + key, what, value, where=self.where)

    def finish(self) -> None:
        """Raise `UserError` if a key nobody read looks like one that was looked for in vain."""
        absent = [key for key in self._read if key not in self.values]
        for key in self.values:
            if key in self._read:
                continue
            near = difflib.get_close_matches(key, absent, n=1, cutoff=_TYPO_CUTOFF)
            if near:
                raise UserError(f"{self.where}: {self._prefix}{key} is not a key of this family; "
                                f"did you mean {near[0]!r}?")

    def refuse_unread(self) -> None:
        """Raise `UserError` if any key was not read."""
        for key in self.values:
            if key not in self._read:
                raise unknown(f"key of {self._prefix.rstrip('.') or 'the file'}", key,
                              self._read, where=self.where)

    def _get(self, key: str, default: Any, source: str) -> Any:
        if self.has(key):
            return self.values[key]
        if default is None:
            near = nearest(key, set(self.values) - self._read)
            hint = f"; did you mean {near!r}?" if near else ""
            raise UserError(f"{self.where}: {self._prefix}{key} is missing{hint}")
        self.notes.append(f"{self._prefix}{key} is not given: {json.dumps(default)} ({source})")
        return default
