"""What can be wrong with a program, as data."""

from dataclasses import dataclass
from enum import StrEnum

from machine.disassembly import instruction_text
from machine.program import Instruction, Program

__all__ = ["Fault", "FaultKind", "fault_at", "listed"]


class FaultKind(StrEnum):
    """The kinds of fault a verifier reports, each with its meaning."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> "FaultKind":
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    # Of declarations.
    NAME = "name", "a name twice, or not a name"
    FORMAT = "format", "an unknown number format, or formats that do not go together"
    OPERAND = "operand", "an operand or symbol that is malformed"
    CAPABILITY = "capability", "one used and not declared, or declared and not the machine's"
    QUEUE = "queue", "a queue twice, on no chip, or given another queue's opcode"
    UNITS = "units", "units that are not there, or are driven by two streams"
    # Of an instruction as written.
    OPCODE = "opcode", "an unknown opcode"
    ROLE = "role", "an operand missing, or one the opcode does not take"
    SPACE = "space", "an operand in an address space its role cannot have"
    FIELD = "field", "a field the opcode does not have, or a value without meaning"
    REGISTER = "register", "a register that is not there"
    TOKEN = "token", "an unknown token, too many tokens, or a count below 1"
    CONTROL = "control", "loops that do not pair or are too deep, halt not at the end"
    ENCODING = "encoding", "more than the binary form holds"
    # Of an instruction as it runs.
    LAUNCH = "launch", "a launch table that is not the program's"
    READ = "read", "a READ whose value nobody gives"
    LENGTH = "length", "more dynamic instructions than are verified"
    SHAPE = "shape", "shapes that do not go together"
    BOUNDS = "bounds", "a tile outside its space or its symbol"
    CONST = "const", "a write to a constant"
    UNINITIALISED = "uninitialised", "a read of on-chip bytes that nothing wrote"
    # Between queues.
    RACE = "race", "two accesses to the same bytes, one a write, in no order"
    DEADLOCK = "deadlock", "a queue that waits for ever"
    BALANCE = "balance", "a token whose count at the end is not its count at the start"
    OVERFLOW = "overflow", "a token whose counter can pass its width"
    LINK = "link", "a tile sent and not received, or the other way round"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, at an instruction if it has one."""

    kind: FaultKind
    message: str
    stream: str = ""  # the queue; empty for a declaration
    pc: int = -1  # the instruction in its stream; -1 for a declaration
    iteration: tuple[int, ...] = ()  # loop indices, outermost first
    text: str = ""  # the instruction as the text form writes it

    def __str__(self) -> str:
        place = ""
        if self.stream:
            place = self.stream + (f"[{self.pc}]" if self.pc >= 0 else "")
            place += f" `{self.text}`" if self.text else ""
            if self.iteration:
                place += f" at iteration {','.join(map(str, self.iteration))}"
            place += ": "
        return f"{place}{self.kind}: {self.message}"


def fault_at(program: Program, stream: int, pc: int, kind: FaultKind, message: str,
             iteration: tuple[int, ...] = ()) -> Fault:
    """Return a fault of instruction `pc` of the program's stream number `stream`."""
    found = program.streams[stream]
    instruction: Instruction = found.instructions[pc]
    return Fault(kind, message, str(found.queue), pc, iteration,
                 instruction_text(program, instruction))


def listed(names: object) -> str:
    """Return names as an error lists them; ``none`` if there are none."""
    assert isinstance(names, list | tuple)
    return ", ".join(str(name) for name in names) or "none"
