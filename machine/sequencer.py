"""The sequencer of a queue: what fetching, control, operands and tokens cost."""

from machine.config import Analytic, config, require
from machine.opcodes import Alu, Opcode
from machine.program import Instruction, Program

__all__ = ["LONG", "SequencerConfig", "head_cycles", "operand_records"]

LONG = (Alu.MUL, Alu.CEILDIV)  # SCALARs that take `long_cycles` more
_CONTROL = (Opcode.LOOP, Opcode.END, Opcode.SCALAR)


@config
class SequencerConfig:
    """One sequencer a queue: fetches, unrolls loops, waits for tokens, issues in order."""

    tokens: int = 256  # counting semaphores of the chip
    token_bits: int = 16  # width of each count
    issue_cycles: int = 1  # from the head of the queue to the unit
    control_cycles: int = 1  # each LOOP, END and SCALAR
    token_latency_cycles: int = 1  # from a completion to the count that others see
    operand_cycles: int = 0  # to resolve an operand, before the issue; 0 takes no time
    long_cycles: int = 0  # that a MUL or a CEILDIV takes beyond `control_cycles`
    clock: str = "core"
    fidelity: Analytic = "analytic"

    def __post_init__(self) -> None:
        require(1 <= self.tokens <= 65536, "tokens", "from 1 to 65536", self.tokens)
        require(1 <= self.token_bits <= 32, "token_bits", "from 1 to 32", self.token_bits)
        require(self.issue_cycles >= 1, "issue_cycles", "at least 1", self.issue_cycles)
        require(self.control_cycles >= 0, "control_cycles", "at least 0", self.control_cycles)
        for name in ("token_latency_cycles", "operand_cycles", "long_cycles"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))


def operand_records(program: Program, instruction: Instruction) -> int:
    """Return how many operands the sequencer resolves for an active `instruction`.

    For each unit of the mask: every operand, its scale, its zero point and its index list. A READ
    resolves its source.
    """
    if instruction.opcode == Opcode.READ:
        return 1
    count = 0
    for number in instruction.operands.values():
        operand = program.operands[number]
        count += 1 + (operand.gather is not None)
        if operand.group is not None:
            count += (operand.group.scale is not None) + (operand.group.zero is not None)
    return count * instruction.unit_mask.bit_count()


def head_cycles(cfg: SequencerConfig, program: Program, instruction: Instruction) -> int:
    """Return the cycles an active `instruction` takes from the head of its queue.

    Control is done then; any other instruction may issue.
    """
    if instruction.opcode not in _CONTROL:
        return cfg.operand_cycles * operand_records(program, instruction)
    long = instruction.opcode == Opcode.SCALAR and instruction.fields.get("alu", 0) in LONG
    return cfg.control_cycles + cfg.long_cycles * long
