"""What a program does in all, whatever the time: the counts behind the bound and the energy."""

from archsim.engine.demand import Demand
from machine.opcodes import Opcode
from machine.program import QueueKind, Space

__all__ = ["Work"]


class Work:
    """The demands of one chip, summed over units and executions."""

    def __init__(self) -> None:
        # id of a demand -> opcode, demand, executions on a unit, by kind of queue
        self._executed: dict[int, tuple[QueueKind, Opcode, Demand, list[int]]] = {}

    def add(self, kind: QueueKind, opcode: Opcode, demand: Demand, units: int) -> None:
        """Count one execution of `demand` on `units` units."""
        seen = self._executed.get(id(demand))
        if seen is None:
            self._executed[id(demand)] = kind, opcode, demand, [units]
        else:
            seen[3][0] += units

    def macs(self, *, above_bits: int = 0, up_to_bits: int = 1 << 16) -> int:
        """Multiply-accumulates whose wider operand has more than `above_bits`, up to another."""
        return sum(
            demand.macs * times
            for _, _, demand, (times,) in self._executed.values()
            if above_bits < demand.mac_bits <= up_to_bits
        )

    @property
    def elements(self) -> int:
        """Elements that vector operations read as their first source."""
        return sum(demand.elements * times for _, _, demand, (times,) in self._executed.values())

    def moved_bytes(self, *opcodes: Opcode) -> int:
        """Bytes that instructions of `opcodes` move over the crossbar or a link."""
        return sum(
            demand.moved_bytes * times
            for _, opcode, demand, (times,) in self._executed.values()
            if opcode in opcodes
        )

    def dram_bytes(self) -> int:
        """Bytes that transfers read from DRAM or write to it, without the rest of a burst."""
        return sum(demand.dram_bytes * times for _, _, demand, (times,) in self._executed.values())

    def dots(self, channels: int) -> int:
        """Return the dot products that the busiest of `channels` channels does at least.

        Those asked of one channel are its own; of the others it has its share at least.
        """
        own: dict[int, int] = {}
        for _, _, demand, (times,) in self._executed.values():
            if demand.dots:
                own[demand.channels] = own.get(demand.channels, 0) + demand.dots * times
        alone = [count for mask, count in own.items() if mask.bit_count() == 1]
        return max([0, *alone, -(-sum(own.values()) // channels)])

    def words(self) -> dict[tuple[QueueKind, Space, bool], int]:
        """Return the words moved through ports, by client, buffer and whether written."""
        found: dict[tuple[QueueKind, Space, bool], int] = {}
        for kind, _, demand, (times,) in self._executed.values():
            for use in demand.ports:
                key = kind, use.space, use.write
                found[key] = found.get(key, 0) + use.words * times
        return found
