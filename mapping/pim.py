"""What NeuPIMs' scheduler takes the attention of a request in memory to cost (its Algorithm 1)."""

from machine.config import require

__all__ = ["GEMV_CYCLES", "GWRITE_CYCLES", "attention_cycles"]

# Ref: arXiv 2403.00579 and its simulator @ f299af3: constants of the estimate, not of the memory.
GEMV_CYCLES = 184  # one tile: a row of every bank
GWRITE_CYCLES = 100  # one vector into the global buffer


def attention_cycles(*, heads: int, depth: int, length: int, row_elements: int = 512,
                     banks: int = 32) -> int:
    """Return the cycles of q K and p V of `heads` of `depth` over `length` tokens, one channel.

    A row holds `row_elements`; keys take a bank a token, values a bank an element. It knows
    nothing of refresh, of the host, of what is open: `archsim.pim` simulates those.
    """
    for name, value in (("heads", heads), ("depth", depth), ("length", length)):
        require(value >= 1, name, "at least 1", value)
    keys = -(-heads * depth // row_elements)
    values = -(-length // row_elements) * heads
    return (keys * GWRITE_CYCLES + keys * -(-length // banks) * GEMV_CYCLES
            + values * GWRITE_CYCLES + values * -(-depth // banks) * GEMV_CYCLES)
