"""The sequencer of a queue: what fetching, control and tokens cost."""

from machine.config import Analytic, config, require

__all__ = ["SequencerConfig"]


@config
class SequencerConfig:
    """One sequencer a queue: fetches, unrolls loops, waits for tokens, issues in order."""

    tokens: int = 256  # counting semaphores of the chip
    token_bits: int = 16  # width of each count
    issue_cycles: int = 1  # from the head of the queue to the unit
    control_cycles: int = 1  # each LOOP, END and SCALAR
    token_latency_cycles: int = 1  # from a completion to the count that others see
    clock: str = "core"
    fidelity: Analytic = "analytic"

    def __post_init__(self) -> None:
        require(1 <= self.tokens <= 65536, "tokens", "from 1 to 65536", self.tokens)
        require(1 <= self.token_bits <= 32, "token_bits", "from 1 to 32", self.token_bits)
        require(self.issue_cycles >= 1, "issue_cycles", "at least 1", self.issue_cycles)
        require(self.control_cycles >= 0, "control_cycles", "at least 0", self.control_cycles)
        latency = self.token_latency_cycles
        require(latency >= 0, "token_latency_cycles", "at least 0", latency)
