"""One line of the text form of a program, read word by word; every error names file and line."""

import re
from collections.abc import Iterable
from enum import IntEnum

from machine.errors import UserError, must_be, nearest, unknown
from machine.program import NAME, REGISTERS

__all__ = ["Line", "names"]

_NAME = re.compile(NAME)
_LISTED = 30  # an error lists at most so many names
_SIZES = re.compile(r"\[(-?\d+(?:,-?\d+)*)?\]")


def names(kind: type[IntEnum]) -> dict[str, IntEnum]:
    """Return the members of an enumeration by the name the text form gives them."""
    return {member.name.lower(): member for member in kind}


class Line:
    """The words of one line, taken from left to right; `where` is ``file:line``."""

    def __init__(self, where: str, words: list[str]):
        self.where = where
        self.words = words
        self._next = 0

    def error(self, name: str, what: str, value: object) -> UserError:
        """Return the error ``where: name must be what, not value``."""
        return must_be(name, what, value, where=self.where)

    @property
    def left(self) -> bool:
        """Whether a word is left."""
        return self._next < len(self.words)

    @property
    def coming(self) -> str:
        """The next word, not taken; empty at the end of the line."""
        return self.words[self._next] if self.left else ""

    def take(self, what: str) -> str:
        """Take the next word, which is to be a `what`."""
        if not self.left:
            raise UserError(f"{self.where}: {what} must follow {self.words[-1]!r}")
        self._next += 1
        return self.words[self._next - 1]

    def expect(self, word: str) -> None:
        """Take the next word, which must be `word`."""
        found = self.take(repr(word))
        if found != word:
            raise self.error("word", repr(word), found)

    def done(self) -> None:
        """Raise `UserError` if a word is left."""
        if self.left:
            raise self.error("word", "the end of the line", self.coming)

    def integer(self, name: str, word: str, low: int | None = None) -> int:
        """Return `word` as an integer, decimal or 0x."""
        try:
            value = int(word, 0)
        except ValueError:
            raise self.error(name, "an integer", word) from None
        if low is not None and value < low:
            raise self.error(name, f"at least {low}", value)
        return value

    def register(self, name: str, word: str) -> int:
        """Return the number of the register `word`: r0 to r15."""
        match = re.fullmatch(r"r(\d+)", word)
        if not match or int(match[1]) >= REGISTERS:
            raise self.error(name, f"r0 to r{REGISTERS - 1}", word)
        return int(match[1])

    def member(self, name: str, word: str, kind: type[IntEnum]) -> IntEnum:
        """Return the member of `kind` that `word` names."""
        known = names(kind)
        if word not in known:
            raise unknown(name, word, known, where=self.where)
        return known[word]

    def name(self, what: str, word: str, taken: Iterable[str] = ()) -> str:
        """Return `word` as the name of a new `what`."""
        if not _NAME.fullmatch(word):
            raise self.error(what, "a letter or _, then letters, digits and _ . / -", word)
        if word in taken:
            raise self.error(what, "a new name", word)
        return word

    def known(self, what: str, word: str, table: dict[str, int]) -> int:
        """Return the index that `table` gives the name `word`."""
        if word in table:
            return table[word]
        if len(table) <= _LISTED:
            raise unknown(what, word, table, where=self.where)
        near = nearest(word, table)
        hint = f"; did you mean {near!r}?" if near else ""
        raise UserError(f"{self.error(what, f'one of the {len(table)} declared', word)}{hint}")

    def reference(self, what: str, word: str, table: dict[str, int]) -> int:
        """Return the index of the operand that ``@name`` refers to."""
        if not word.startswith("@"):
            raise self.error(what, "@ and the name of an operand", word)
        return self.known("operand", word[1:], table)

    def sizes(self, name: str, word: str) -> tuple[int, ...]:
        """Return the integers of ``[8,16]``."""
        match = _SIZES.fullmatch(word)
        if not match:
            raise self.error(name, "integers like [8,16], no space between", word)
        return tuple(int(number) for number in match[1].split(",")) if match[1] else ()

    def option(self, keys: Iterable[str], what: str) -> tuple[str, str]:
        """Take the next word, ``key=value`` with one of `keys`."""
        word = self.take(what)
        key, equals, value = word.partition("=")
        if not equals or not value:
            raise self.error("word", f"{what} key=value", word)
        if key not in (known := list(keys)):
            raise unknown(f"key of {what}", key, known, where=self.where)
        return key, value
