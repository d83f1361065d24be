"""The DMA engines: units that move strided tiles between DRAM and the on-chip buffers."""

from machine.config import Analytic, config, require

__all__ = ["CrossbarConfig", "DmaConfig"]


@config
class DmaConfig:
    """`count` equal DMA engines, each with one in-order queue of transfers."""

    count: int
    outstanding: int = 2  # transfers whose requests may be in flight at once
    setup_cycles: int = 1  # from issue to the first request
    clock: str = "core"
    fidelity: Analytic = "analytic"

    def __post_init__(self) -> None:
        require(self.count >= 1, "count", "at least 1", self.count)
        require(self.outstanding >= 1, "outstanding", "at least 1", self.outstanding)
        require(self.setup_cycles >= 0, "setup_cycles", "at least 0", self.setup_cycles)


@config
class CrossbarConfig:
    """The crossbar between the DRAM channels, the buffers and the links."""

    bytes_per_cycle: int  # all transfers together
    latency_cycles: int  # from its input to its output
    clock: str = "core"
    fidelity: Analytic = "analytic"

    def __post_init__(self) -> None:
        require(self.bytes_per_cycle >= 1, "bytes_per_cycle", "at least 1", self.bytes_per_cycle)
        require(self.latency_cycles >= 0, "latency_cycles", "at least 0", self.latency_cycles)
