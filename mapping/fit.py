"""What does not fit: a record that says how much, where, and what would make it fit."""

from dataclasses import asdict, dataclass, replace
from math import lcm
from typing import Any

from machine.chip import Machine

__all__ = ["DoesNotFit", "Unfit", "buffer_too_small", "enlarged"]

# A buffer of a multiple of so many bytes is shared out without a rest (mapping.plan).
WHOLE_BYTES = {"scratchpad": 4096, "accumulator": 2}


@dataclass(frozen=True, slots=True)
class DoesNotFit:
    """A demand that exceeds a bound of the machine; a result, not an error."""

    operator: str  # what was being placed
    resource: str  # the machine's key, as scratchpad.bytes; `demand` there lifts this bound
    demand: int
    bound: int
    unit: str  # of both numbers
    levers: tuple[str, ...]  # changes that would make it fit, the smallest first

    @property
    def gap(self) -> int:
        """How much is missing."""
        return self.demand - self.bound

    @property
    def sentence(self) -> str:
        """The record as one line."""
        return (
            f"{self.operator} does not fit: {self.resource} must be at least {self.demand} "
            f"{self.unit}, not {self.bound} ({self.gap} more); {' or '.join(self.levers)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The record as plain data, the gap included."""
        return asdict(self) | {"gap": self.gap}


class Unfit(Exception):
    """Carries a `DoesNotFit` out of the mapper's inside; ``map_model`` returns the record."""

    def __init__(self, record: DoesNotFit):
        super().__init__(record.sentence)
        self.record = record


def enlarged(machine: Machine, record: DoesNotFit) -> Machine:
    """Return `machine` with the bound of `record` lifted to its demand."""
    block, field = record.resource.split(".")
    return replace(machine, **{block: replace(getattr(machine, block), **{field: record.demand})})


def buffer_too_small(
    operator: str, machine: Machine, buffer: str, demand: int, bound: int, *others: str
) -> Unfit:
    """Return what to raise where a region of `bound` bytes must have `demand`.

    `buffer` is ``scratchpad`` or ``accumulator``, of which the region is a fixed share.
    """
    config = machine.scratchpad if buffer == "scratchpad" else machine.accumulator
    whole = WHOLE_BYTES[buffer]
    shared = max(config.bytes // whole, 1) * whole
    step = lcm(whole, config.banks * config.word_bytes)
    wanted = -(-shared * demand // max(bound, 1))
    wanted = -(-max(wanted, config.bytes + 1) // step) * step
    key = f"{buffer}.bytes"
    return Unfit(DoesNotFit(operator, key, wanted, config.bytes, "bytes",
                            (f"--set {key}={wanted}", *others)))
