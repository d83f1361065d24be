"""Links between chips."""

from machine.config import Analytic, config, require

__all__ = ["LinkConfig"]


@config
class LinkConfig:
    """`count` equal full-duplex links; each serves one queue of sends and receives."""

    count: int
    bytes_per_cycle: int  # each direction
    latency_cycles: int  # from the last byte sent to the last byte received
    clock: str = "core"
    fidelity: Analytic = "analytic"

    def __post_init__(self) -> None:
        require(self.count >= 1, "count", "at least 1", self.count)
        require(self.bytes_per_cycle >= 1, "bytes_per_cycle", "at least 1", self.bytes_per_cycle)
        require(self.latency_cycles >= 0, "latency_cycles", "at least 0", self.latency_cycles)
