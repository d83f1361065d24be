"""What LOAD and STORE do: a tile copied element by element, converted to the other's format."""

import numpy as np

from golden.memory import Memory
from machine.control import Tile
from machine.errors import must_be
from machine.opcodes import Rounding

__all__ = ["move"]


def move(
    memory: Memory,
    chip: int,
    source: Tile,
    to: Tile,
    source_index: np.ndarray | None = None,
    to_index: np.ndarray | None = None,
    *,
    rounding: Rounding = Rounding.NEAREST_EVEN,
    saturate: bool = True,
) -> None:
    """Copy `source` to `to` on `chip`: bit for bit in one format, else as ``golden.convert``.

    The indices are the lists of the tiles' gathers. Raises `UserError` unless shapes agree.
    """
    if source.shape != to.shape:
        raise must_be("shapes of src and dst", "equal", (source.shape, to.shape))
    if source.operand.format == to.operand.format:
        memory.copy(chip, source, to, source_index, to_index)
        return
    values = memory.read(chip, source, source_index)
    memory.write(chip, to, values, to_index, rounding=rounding, saturate=saturate)
