"""What a synthesis came to, as a table and as plain data."""

import dataclasses
from typing import TYPE_CHECKING, Any

from machine.area import AreaRow

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["synthesis_dict", "synthesis_table"]


def synthesis_dict(row: AreaRow) -> dict[str, Any]:
    """Return the row as plain data, without what its target does not have."""
    return {name: value for name, value in dataclasses.asdict(row).items() if value is not None}


def synthesis_table(row: AreaRow) -> "Table":
    """Return the row as a table of names and values."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in synthesis_dict(row).items():
        table.add_row(name, str(value))
    return table
