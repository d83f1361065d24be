"""One instruction on one unit: what it may read, what it may write, and the state behind it."""

from dataclasses import dataclass, field

import numpy as np

from golden.link import Links
from golden.memory import Memory
from golden.pim import Channels
from machine.control import Step, Tile
from machine.errors import UserError
from machine.formats import Format, format_named
from machine.opcodes import OPCODES, Opcode, Rounding
from machine.program import Instruction, Program, Queue

__all__ = ["Call", "State"]

_DEFAULTS: dict[int, dict[str, int]] = {
    opcode: {f.name: f.default for f in spec.fields}
    for opcode, spec in OPCODES.items()
}


@dataclass(slots=True)
class State:
    """Everything an instruction can change besides registers and tokens."""

    program: Program
    memory: Memory
    lanes: int  # of a vector unit
    links: Links = field(default_factory=Links)
    channels: Channels = field(default_factory=Channels)
    # Weights that an array unit holds, and their format, by (chip, unit).
    preloaded: dict[tuple[int, int], tuple[np.ndarray, Format]] = field(default_factory=dict)


class Call:
    """One dynamic instruction on the unit of rank `rank`; operands by role, fields by name."""

    __slots__ = ("chip", "instruction", "queue", "rank", "state", "step", "tiles", "unit")

    def __init__(self, state: State, queue: Queue, step: Step, rank: int, unit: int):
        self.state = state
        self.queue = queue
        self.chip = queue.chip
        self.step = step
        self.rank = rank
        self.unit = unit
        self.instruction: Instruction = step.instruction
        table = state.program.operands
        self.tiles: dict[str, Tile] = {
            role: step.resolve(table[index], rank)
            for role, index in self.instruction.operands.items()
        }

    @property
    def empty(self) -> bool:
        """Whether a tile has no element here: then the instruction does nothing on this unit."""
        return any(0 in tile.shape for tile in self.tiles.values())

    def __contains__(self, role: str) -> bool:
        return role in self.tiles

    def field(self, name: str) -> int:
        """Return the field `name`, or its default."""
        found = self.instruction.fields.get(name)
        return _DEFAULTS[self.instruction.opcode][name] if found is None else found

    def tile(self, role: str) -> Tile:
        """Return the tile of `role`; raise `UserError` if the instruction has none."""
        try:
            return self.tiles[role]
        except KeyError:
            raise UserError(f"{Opcode(self.instruction.opcode).name.lower()} must have "
                            f"an operand {role}") from None

    def format(self, role: str) -> Format:
        """Return the number format of `role`."""
        return format_named(self.tile(role).operand.format)

    def read(self, role: str) -> np.ndarray:
        """Return the exact values of `role`, not to be written to (``Memory.read``)."""
        tile = self.tile(role)
        return self.state.memory.read(self.chip, tile, self.index(tile))

    def read_operand(self, operand: int, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """Return the values of an operand that another one names: scales, zero points, an index.

        With `shape`, only as many elements of each axis are read.
        """
        tile = self.step.resolve(self.state.program.operands[operand], self.rank)
        if shape is not None:
            if len(shape) != len(tile.shape) or any(
                    s > t for s, t in zip(shape, tile.shape, strict=True)):
                raise UserError(f"operand {tile.operand.name} must have at least shape "
                                f"{list(shape)}, not {list(tile.shape)}")
            tile = Tile(tile.operand, tile.address_bytes, tile.offset_elements, shape)
        return self.state.memory.read(self.chip, tile, self.index(tile))

    def index(self, tile: Tile) -> np.ndarray | None:
        """Return the index list of the tile's gather, or None."""
        gather = tile.operand.gather
        return None if gather is None else self.read_operand(gather.index).reshape(-1)

    def write(self, role: str, values: np.ndarray) -> None:
        """Write `values` to `role`, converted by the instruction's `rounding` and `saturate`."""
        tile = self.tile(role)
        self.state.memory.write(
            self.chip, tile, values, self.index(tile), rounding=Rounding(self.field("rounding")),
            saturate=bool(self.field("saturate")))

    def write_exact(self, role: str, values: np.ndarray) -> None:
        """Write `values` to `role` as an instruction without conversion fields does."""
        tile = self.tile(role)
        self.state.memory.write(self.chip, tile, values, self.index(tile))
