"""The front end of a chip: from the program in memory to instructions at its units.

`FrontEndConfig` says how large it is; `front_end_of` reads it from a machine.
"""

from enum import IntEnum

from machine.chip import Machine
from machine.config import config, require
from machine.errors import must_be
from machine.program import QueueKind

__all__ = ["LONG_CYCLES", "OPERAND_CYCLES", "FrontEndConfig", "Trap", "front_end_of"]

OPERAND_CYCLES = 8  # to resolve an operand: a record of seven beats, one behind the other
LONG_CYCLES = 66  # of a MUL or a CEILDIV: a bit a cycle, one before and one after


class Trap(IntEnum):
    """Why the front end stopped; the first reason stays."""

    NONE = 0
    HEADER = 1  # magic, version, capabilities, chips, a section out of place
    RESERVED = 2  # a reserved bit that is set
    SIZE = 3  # more of something than there is memory for
    QUEUE = 4  # a stream of no queue, or a queue given another queue's opcode
    OPCODE = 5  # an unknown opcode
    FIELD = 6  # a field with a value without meaning
    OPERAND = 7  # an operand missing, not in the table, or one the opcode does not take
    TOKEN = 8  # an unknown token, or one that HALT or control waits for or signals
    REGISTER = 9  # a register that is not there
    UNITS = 10  # a unit that is not there
    LOOP = 11  # loops that do not pair or are too deep
    HALT = 12  # HALT not at the end, or no HALT
    RECORD = 13  # an operand record without meaning, or beyond the address space
    COUNT = 14  # a trip count beyond `index_bits`
    OVERFLOW = 15  # a token's count beyond its width; the place is the token
    DEADLOCK = 16  # every queue has halted or waits for tokens that nobody will give
    BUS = 17  # memory answered with an error


@config
class FrontEndConfig:
    """One sequencer a unit, the tokens between them, and the loader that fills them."""

    units: tuple[int, ...]  # of each kind, in the order of QueueKind; a queue each
    capabilities: int = 0  # bit i is capability i; a program that needs another is refused
    tokens: int = 64
    token_bits: int = 16
    issue_cycles: int = 1
    control_cycles: int = 1
    long_cycles: int = 65
    operand_cycles: int = OPERAND_CYCLES
    token_latency_cycles: int = 1
    slots: int = 4  # instructions of a queue under way, started and not complete
    instructions: int = 256  # of a queue
    operands: int = 64  # of a program
    launch: int = 16  # entries of the launch table
    address_bits: int = 40  # of a byte's address; an offset in elements has 3 more, and a sign
    index_bits: int = 24  # of a loop's index and trip count

    def __post_init__(self) -> None:
        require(len(self.units) == len(QueueKind) and min(self.units) >= 0, "units",
                f"{len(QueueKind)} counts", self.units)
        require(sum(self.units) >= 1, "units", "one unit or more", self.units)
        require(1 <= self.tokens <= 4096, "tokens", "from 1 to 4096", self.tokens)
        require(8 <= self.token_bits <= 32, "token_bits", "from 8 to 32", self.token_bits)
        for name in ("issue_cycles", "control_cycles", "slots", "launch"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        require(self.operand_cycles >= OPERAND_CYCLES, "operand_cycles",
                f"at least {OPERAND_CYCLES}", self.operand_cycles)
        long = self.control_cycles + self.long_cycles
        require(long >= LONG_CYCLES, "control_cycles + long_cycles", f"at least {LONG_CYCLES}",
                long)
        require(self.token_latency_cycles >= 0, "token_latency_cycles", "at least 0",
                self.token_latency_cycles)
        for name in ("instructions", "operands"):
            require(2 <= getattr(self, name) <= 65535, name, "from 2 to 65535",
                    getattr(self, name))
        require(16 <= self.address_bits <= 60, "address_bits", "from 16 to 60", self.address_bits)
        require(8 <= self.index_bits <= 32, "index_bits", "from 8 to 32", self.index_bits)

    @property
    def offset_bits(self) -> int:
        """Bits of a signed offset in elements, each of one bit or more."""
        return self.address_bits + 4

    @property
    def queues(self) -> tuple[tuple[QueueKind, int], ...]:
        """(kind, index) of every queue, in the order in which they issue; units stand likewise."""
        return tuple((kind, index) for kind in QueueKind for index in range(self.units[kind]))


def front_end_of(machine: Machine, **sizes: int) -> FrontEndConfig:
    """Return the front end of one chip of `machine`; `sizes` are of its memories and widths.

    Raises `UserError` for a machine whose sequencer has no RTL: one on another clock than its
    units, or one that resolves operands or long arithmetic in no time.
    """
    sequencer = machine.sequencer
    where = f"{machine.name}: sequencer"
    for name, least in (("operand_cycles", OPERAND_CYCLES),
                        ("long_cycles", LONG_CYCLES - sequencer.control_cycles),
                        ("control_cycles", 1)):
        if getattr(sequencer, name) < least:
            raise must_be(name, f"at least {least} in RTL", getattr(sequencer, name), where=where)
    clocks = {block.clock for block in (*machine.arrays, *machine.vectors, machine.dma, sequencer)}
    if len(clocks) > 1:
        raise must_be("clock", "that of all units in RTL", sequencer.clock, where=where)
    return FrontEndConfig(
        units=tuple(machine.units(kind) for kind in QueueKind),
        capabilities=sum(1 << bit for bit in machine.capabilities),
        tokens=machine.tokens, token_bits=machine.token_bits,
        issue_cycles=sequencer.issue_cycles, control_cycles=sequencer.control_cycles,
        long_cycles=sequencer.long_cycles, operand_cycles=sequencer.operand_cycles,
        token_latency_cycles=sequencer.token_latency_cycles, **sizes)
