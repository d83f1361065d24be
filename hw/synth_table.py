"""``machine/tables/area.csv`` brought up to date: ``python -m hw.synth_table``.

A row is synthesised anew where its RTLIL or its tool is no longer the present one; with ``--all``
every row is. A row of a design, parameters and target alone asks to be filled in.
"""

import dataclasses
import sys
from functools import cache
from typing import Any, NamedTuple

from hw.activity import Stimulus
from hw.designs import DESIGNS
from hw.synth import emit_rtlil, rtlil_hash, synthesise, tool_of
from machine.area import SOURCE, TABLE, AreaRow, area_rows, write_area_table
from machine.load import configured

__all__ = ["Emitted", "emitted", "main", "present_hash", "synthesised"]


class Emitted(NamedTuple):
    """A design as a synthesis takes it."""

    top: str
    texts: list[str]
    stimulus: Stimulus | None


@cache
def emitted(design: str, parameters: str) -> Emitted:
    """Return a design of `DESIGNS`; raises `UserError` for parameters that it refuses."""
    kind = DESIGNS[design]
    cfg = configured(kind.config, kind.defaults, parameters.split(), design)
    parts = kind.parts(cfg)
    return Emitted(parts[-1][0], emit_rtlil(parts), kind.stimulus and kind.stimulus(cfg))


def present_hash(row: AreaRow) -> str:
    """Return the hash of the RTLIL that the row's design has now."""
    return rtlil_hash(emitted(row.design, row.parameters).texts)


def synthesised(row: AreaRow, **options: Any) -> AreaRow:
    """Return `row` with what `hw.synth.synthesise` measures now; `options` go there."""
    top, texts, stimulus = emitted(row.design, row.parameters)
    found = synthesise(texts, top, row.target, stimulus=stimulus, **options)
    return dataclasses.replace(row, rtlil=rtlil_hash(texts), source=SOURCE,
                               **dataclasses.asdict(found))


def main(arguments: list[str]) -> None:
    """Synthesise the rows that are not current, or all; write the table after each."""
    rows = area_rows(TABLE.read_text(encoding="utf-8"))
    for index, row in enumerate(rows):
        current = row.rtlil == present_hash(row) and row.tool == tool_of(row.target)
        if current and "--all" not in arguments:
            continue
        print(row.design, row.parameters, row.target, flush=True)
        rows[index] = synthesised(row)
        write_area_table(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
