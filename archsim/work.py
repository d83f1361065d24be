"""What a program does in all, whatever the time: the counts behind the bound and the energy."""

from archsim.demand import Demand
from machine.opcodes import Opcode
from machine.program import QueueKind, Space

__all__ = ["Work"]


class Work:
    """The demands of one chip, summed over units and executions."""

    def __init__(self) -> None:
        self._executed: dict[int, list] = {}  # id of a demand -> [kind, opcode, demand, times]

    def add(self, kind: QueueKind, opcode: Opcode, demand: Demand, units: int) -> None:
        """Count one execution of `demand` on `units` units."""
        seen = self._executed.get(id(demand))
        if seen is None:
            self._executed[id(demand)] = [kind, opcode, demand, units]
        else:
            seen[3] += units

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all arrays."""
        return sum(demand.macs * times for _, _, demand, times in self._executed.values())

    @property
    def elements(self) -> int:
        """Elements of all vector operations."""
        return sum(demand.elements * times for _, _, demand, times in self._executed.values())

    def busy_ticks(self, kind: QueueKind) -> int:
        """Ticks in which units of `kind` take a beat, summed over the units."""
        return sum(d.busy * times for k, _, d, times in self._executed.values() if k is kind)

    def moved_bytes(self, opcode: Opcode) -> int:
        """Bytes that instructions of `opcode` move over the crossbar or a link."""
        return sum(d.moved_bytes * times for _, o, d, times in self._executed.values()
                   if o is opcode)

    def dram_bytes(self, *, write: bool) -> int:
        """Bytes of DRAM that transfers read or write, without the rest of a burst."""
        opcode = Opcode.STORE if write else Opcode.LOAD
        return sum(d.dram_bytes * times for _, o, d, times in self._executed.values()
                   if o is opcode)

    def words(self) -> dict[tuple[QueueKind, Space, bool], int]:
        """Return the words moved through ports, by client, buffer and whether written."""
        found: dict[tuple[QueueKind, Space, bool], int] = {}
        for kind, _, demand, times in self._executed.values():
            for use in demand.ports:
                key = kind, use.space, use.write
                found[key] = found.get(key, 0) + use.words * times
        return found
