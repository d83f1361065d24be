"""What a run needs to know of data: values that READs find, and index lists of gathers.

A launch table's tensors are known to the simulator; everything else comes from a value trace.
"""

from collections import deque
from collections.abc import Mapping, Sequence

from archsim.engine.demand import Plan, operand_bits
from archsim.engine.pieces import Piece, gathered, pieces
from machine.control import Step, Tile
from machine.errors import UserError
from machine.program import Launch, Program, Queue, SymbolKind

__all__ = ["Values"]


class Values:
    """The launch table's tensors by address, and the value trace of each queue."""

    def __init__(self, program: Program, launch: Launch, values: Mapping[str, Sequence[int]]):
        self._tensors = []
        for symbol in program.symbols:
            if symbol.kind is SymbolKind.LAUNCH and symbol.name in launch.tensors:
                self._tensors.append((symbol, launch.tensors[symbol.name]))
        self._traces = {queue: deque(trace) for queue, trace in values.items()}
        self._program = program

    def read(self, queue: Queue, where: str, tile: Tile) -> int:
        """Return the integer that a READ of `tile` finds."""
        trace = self._traces.get(str(queue))
        if trace:
            return trace.popleft()
        known = self._launched(tile, 1, queue.chip)
        if known is None:
            raise UserError(f"{where}: the value read must be in the launch table or in values")
        return known[0]

    def transfer(self, plan: Plan, step: Step, rank: int) -> tuple[Piece, ...]:
        """Return the pieces of the DRAM tile of a transfer, from its first element on.

        Empty where neither side is in DRAM.
        """
        operand = plan.in_dram
        if operand is None:
            return ()
        bits, gather = operand_bits(operand), operand.gather
        shape = step.resolve(operand, rank).shape
        if gather is None:
            return pieces(shape, operand.strides, bits)
        needed = -(-shape[gather.axis] // gather.granule)
        source = step.resolve(self._program.operands[gather.index], rank)
        index = self._launched(source, needed, plan.chip)
        if index is None:
            raise UserError(
                f"{plan.where}: the index list of {operand.name} must be in the launch table")
        return gathered(shape, operand.strides, bits, axis=gather.axis,
                        granule=gather.granule, index=index)

    def _launched(self, tile: Tile, length: int, chip: int) -> Sequence[int] | None:
        """Return `length` integers of the launch table's tensor that `tile` begins in."""
        bits = operand_bits(tile.operand)
        for symbol, values in self._tensors:
            if (symbol.space, symbol.chip) != (tile.space, chip):
                continue
            from_bits = (tile.address_bytes - symbol.address_bytes) * 8
            at, rest = divmod(from_bits + tile.offset_elements * bits, bits)
            if not rest and 0 <= at and at + length <= len(values):
                return values[at : at + length]
        return None

