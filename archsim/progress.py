"""Progress on stderr: nothing for a short run, a spinner or a line a step for a long one."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["PATIENCE_S", "progress"]

PATIENCE_S = 1.0  # what ends sooner says nothing, unless stderr is a terminal


@contextmanager
def progress(patience_s: float = PATIENCE_S) -> Iterator[Callable[[str], None]]:
    """Yield a function to be called with the name of each step as it begins.

    On a terminal the step under way is shown with a spinner and wiped at the end. Elsewhere
    nothing is printed within `patience_s`; from then on the step under way, and each that
    follows, is one line.
    """
    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status("starting ...") as status:
            yield lambda step: status.update(f"{step} ...")
        return
    lines = _Lines()
    timer = threading.Timer(patience_s, lines.open)
    timer.daemon = True
    timer.start()
    try:
        yield lines.tell
    finally:
        timer.cancel()
        timer.join()


class _Lines:
    """The step under way, printed once `open` was called."""

    def __init__(self) -> None:
        self._step = ""
        self._open = False
        self._lock = threading.Lock()

    def tell(self, step: str) -> None:
        """Take note of a step, and print it if it is time."""
        with self._lock:
            self._step = step
            if self._open:
                self._print()

    def open(self) -> None:
        """Print the step under way and from now on every one."""
        with self._lock:
            self._open = True
            if self._step:
                self._print()

    def _print(self) -> None:
        print(f"archsim: {self._step} ...", file=sys.stderr, flush=True)
