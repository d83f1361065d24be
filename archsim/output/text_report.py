"""What a run on sentences prints: a row a sentence with its cycles and its nearest neighbour."""

from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from archsim.text import POOLING, TextOutcome

__all__ = ["text_table"]

SHOWN = 40  # characters of a sentence


def text_table(found: TextOutcome) -> list[Any]:
    """Return the parts of the screen, in order."""
    seconds = sum(found.times_ps) * 1e-12
    parts: list[Any] = [
        Text(found.title, style="bold"),
        Text(f"time {seconds * 1e3:,.3f} ms, {sum(found.cycles):,} cycles, "
             f"{sum(found.tokens) / seconds:,.0f} tokens/s, one sentence after the other"),
        Text(f"weights and sums executed in golden; pooling: {POOLING}"), Text(), _rows(found),
    ]
    if any(found.truncated):
        parts.append(Text(f"* cut to the model's {found.model.position.max_positions} positions"))
    if found.written is not None:
        parts += [Text(), Text(f"results in {found.written}")]
    return parts


def _rows(found: TextOutcome) -> Table:
    table = Table(box=None, pad_edge=False)
    for name, right in (("", True), ("sentence", False), ("tokens", True), ("cycles", True),
                        ("us", True), ("nearest", True), ("cosine", True)):
        table.add_column(name, justify="right" if right else "left")
    alike = found.similarities
    np.fill_diagonal(alike, -np.inf)
    for i, sentence in enumerate(found.sentences):
        nearest = int(alike[i].argmax())
        alone = len(found.sentences) == 1
        short = sentence if len(sentence) <= SHOWN else sentence[: SHOWN - 3] + "..."
        table.add_row(f"{i + 1}", short + ("*" if found.truncated[i] else ""),
                      f"{found.tokens[i]}", f"{found.cycles[i]:,}",
                      f"{found.times_ps[i] * 1e-6:,.1f}", "" if alone else f"{nearest + 1}",
                      "" if alone else f"{alike[i, nearest]:.3f}")
    return table
