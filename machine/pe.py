"""The processing element of an array: what it computes and how deep its pipeline is."""

from typing import Literal

from machine.config import config, require

__all__ = ["PeConfig"]


@config
class PeConfig:
    """One multiply-accumulate element, repeated over an array."""

    kind: Literal["int_mac"] = "int_mac"  # one signed integer multiply and one add
    depth_cycles: int = 1  # 1: multiply and add in one cycle; 2: the product is registered

    def __post_init__(self) -> None:
        require(self.depth_cycles in (1, 2), "depth_cycles", "1 or 2", self.depth_cycles)

    @property
    def initiation_interval_cycles(self) -> int:
        """Cycles between two products of one element."""
        return 1
