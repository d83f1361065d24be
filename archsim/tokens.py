"""Counting semaphores: the only order between queues."""

from collections.abc import Iterable, Sequence

from machine.errors import UserError
from machine.program import Token

__all__ = ["Tokens"]

Counts = Iterable[tuple[int, int]]  # (token, count)


class Tokens:
    """The counts of a program's tokens, and which queues wait for each.

    `take` is all or nothing: the counts of one instruction are subtracted together. When several
    queues wait for one token, those that a signal wakes try again in the order of their numbers,
    after every signal of the same tick has been added.
    """

    def __init__(self, tokens: Sequence[Token], *, bits: int):
        self.names = [token.name for token in tokens]
        self.counts = [token.initial for token in tokens]
        self._most = 2**bits - 1
        self._waiting: list[set[int]] = [set() for _ in tokens]

    def take(self, waits: Counts) -> bool:
        """Subtract `waits` if every count suffices; return whether it did."""
        waits = tuple(waits)
        counts = self.counts
        for token, count in waits:
            if counts[token] < count:
                return False
        for token, count in waits:
            counts[token] -= count
        return True

    def missing(self, waits: Counts) -> list[str]:
        """Return what `waits` still lacks, as ``name: has of needs``."""
        return [
            f"{self.names[token]}: {self.counts[token]} of {count}"
            for token, count in waits
            if self.counts[token] < count
        ]

    def wait(self, queue: int, waits: Counts) -> None:
        """Note that `queue` waits for those tokens of `waits` that are short."""
        for token, count in waits:
            if self.counts[token] < count:
                self._waiting[token].add(queue)

    def give(self, signals: Counts) -> set[int]:
        """Add `signals`; return the queues to wake. Raises `UserError` on overflow of a count."""
        woken: set[int] = set()
        for token, count in signals:
            self.counts[token] += count
            if self.counts[token] > self._most:
                raise UserError(
                    f"token {self.names[token]} must be at most {self._most},"
                    f" not {self.counts[token]}"
                )
            if self._waiting[token]:
                woken |= self._waiting[token]
                self._waiting[token] = set()
        return woken
