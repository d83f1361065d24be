"""What SEND and RECV do: tiles between chips, matched by tag, in order."""

from collections import deque

import numpy as np

__all__ = ["Links"]


class Links:
    """Every tile that was sent and not yet received."""

    def __init__(self) -> None:
        self._sent: dict[tuple[int, int, int], deque[np.ndarray]] = {}

    def send(self, source: int, destination: int, tag: int, values: np.ndarray) -> None:
        """Send `values` from chip `source`; they are copied."""
        self._sent.setdefault((source, destination, tag), deque()).append(values.copy())

    def arrived(self, source: int, destination: int, tag: int) -> bool:
        """Return whether `receive` has a tile to give."""
        return bool(self._sent.get((source, destination, tag)))

    def receive(self, source: int, destination: int, tag: int) -> np.ndarray:
        """Return the oldest tile from `source` to `destination` with `tag`, and forget it."""
        return self._sent[source, destination, tag].popleft()

    @property
    def pending(self) -> list[tuple[int, int, int]]:
        """Every (source, destination, tag) that still holds tiles, in order."""
        return sorted(key for key, tiles in self._sent.items() if tiles)
