"""The form of a study's result, and areas from the table of our own gates."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from machine.area import AreaRow, area_table
from machine.errors import UserError, unknown

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Study", "measured", "study_of", "study_tables"]

_PAPERS = ("lut-tensor-core", "mixpe", "neupims")


@dataclass(frozen=True)
class Study:
    """A table of a study: named columns, rows of plain values, and what must be said with it."""

    title: str
    rows: list[dict[str, Any]]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the study as plain data."""
        return {"title": self.title, "rows": self.rows, "notes": self.notes}


def study_of(paper: str, table: str | None = None) -> Callable[[], list[Study]]:
    """Return what makes a table of a paper's study, its first if `table` is None.

    Raises `UserError` for an unknown one.
    """
    if paper not in _PAPERS:
        raise unknown("paper", paper, _PAPERS)
    tables = import_module(f"archsim.studies.{paper.replace('-', '_')}").TABLES
    if table is None:
        table = next(iter(tables))
    if table not in tables:
        raise unknown("--table", table, tables)
    return tables[table]


def measured(design: str, target: str, *parameters: str) -> AreaRow:
    """Return the stored row of a design; raises `UserError` where it was not synthesised."""
    key = design, " ".join(sorted(" ".join(parameters).split())), target
    if key not in area_table():
        raise UserError(f"machine/tables/area.csv must have {' '.join(filter(None, key))}: "
                        "add the row and run `make tables`")
    return area_table()[key]


def study_tables(studies: list[Study]) -> "list[Table | str]":
    """Return the studies as tables for a terminal, each with its notes under it."""
    from rich.table import Table

    parts: list[Table | str] = []
    for study in studies:
        table = Table(title=study.title, title_justify="left", box=None, pad_edge=False)
        for name in study.rows[0]:
            table.add_column(name, justify="left" if isinstance(study.rows[0][name], str)
                             else "right")
        for row in study.rows:
            table.add_row(*(_text(value) for value in row.values()))
        parts += [table, *study.notes, ""]
    return parts


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) and value < 1000 else (
        f"{value:,.0f}" if isinstance(value, float) else str(value))
