"""Sizes of our own gates: the rows of ``machine/tables/area.csv``, each measured by a synthesis."""

import csv
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

__all__ = ["TABLE", "AreaRow", "area_rows", "area_table", "write_area_table"]

TABLE = Path(__file__).parent / "tables" / "area.csv"
SOURCE = "measured by archsim synth"


@dataclass(frozen=True, kw_only=True)
class AreaRow:
    """One design on one target; None where the target has no such number, or none was taken."""

    design: str
    parameters: str = ""  # ``key=value`` in ascending order, where not the design's defaults
    target: str
    tool: str = ""
    rtlil: str = ""  # start of the SHA-256 of the design's RTLIL
    lut: int | None = None
    ff: int | None = None
    dsp: int | None = None
    carry: int | None = None
    bram: int | None = None
    cells: int | None = None
    area_um2: float | None = None
    delay_ps: float | None = None
    fmax_mhz: float | None = None
    energy_pj: float | None = None  # of one cycle at work, at the target's own node and voltage
    source: str = SOURCE


_NUMBERS = {"lut": int, "ff": int, "dsp": int, "carry": int, "bram": int, "cells": int,
            "area_um2": float, "delay_ps": float, "fmax_mhz": float, "energy_pj": float}


def area_rows(text: str) -> list[AreaRow]:
    """Return the rows of the CSV `text`; numbers that are not there are None."""
    rows = []
    for row in csv.DictReader(text.splitlines()):
        values: dict[str, Any] = dict(row)
        for name, kind in _NUMBERS.items():
            values[name] = kind(row[name]) if row[name] else None
        rows.append(AreaRow(**values))
    return rows


@cache
def area_table() -> dict[tuple[str, str, str], AreaRow]:
    """Return the measured rows by design, parameters and target."""
    text = files("machine").joinpath("tables/area.csv").read_text(encoding="utf-8")
    return {(row.design, row.parameters, row.target): row for row in area_rows(text)}


def write_area_table(rows: list[AreaRow], path: Path = TABLE) -> None:
    """Write `rows` as CSV to `path`; numbers that are not there stay empty."""
    names = [field.name for field in fields(AreaRow)]
    with path.with_name(path.name + ".part").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    path.with_name(path.name + ".part").replace(path)
