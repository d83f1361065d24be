"""A whole accelerator: its units, buffers, memory and clocks, joined."""

from fractions import Fraction

from machine.buffer import BufferConfig
from machine.clock import ClockConfig, tick_of
from machine.config import config, require
from machine.dma import CrossbarConfig, DmaConfig
from machine.dram import DramConfig
from machine.errors import must_be
from machine.link import LinkConfig
from machine.lut import LutConfig, TableMemoryConfig
from machine.pim import PimConfig
from machine.program import Capability, QueueKind, Space
from machine.sequencer import SequencerConfig
from machine.systolic import SystolicConfig
from machine.vector import VectorConfig

__all__ = ["Machine"]

MASK_BITS = 32  # of an instruction's unit mask, machine/encoding.py


@config
class Machine:
    """A machine of one or more equal chips; the one description every package reads."""

    name: str
    clocks: tuple[ClockConfig, ...]
    arrays: tuple[SystolicConfig | LutConfig, ...]
    vectors: tuple[VectorConfig, ...]
    scratchpad: BufferConfig
    accumulator: BufferConfig
    dma: DmaConfig
    crossbar: CrossbarConfig
    dram: DramConfig
    sequencer: SequencerConfig
    links: LinkConfig | None = None
    tables: TableMemoryConfig | None = None  # for lookup arrays
    pim: PimConfig | None = None  # makes the channels of `dram` compute
    chips: int = 1  # equal chips, joined by `links`

    def __post_init__(self) -> None:
        require(self.chips >= 1, "chips", "at least 1", self.chips)
        require(bool(self.arrays), "arrays", "at least one array", self.arrays)
        require(bool(self.vectors), "vectors", "at least one vector unit", self.vectors)
        names = [clock.name for clock in self.clocks]
        require(len(set(names)) == len(names), "clocks", "named differently", names)
        require(bool(names), "clocks", "at least one clock", self.clocks)
        for key, block in self.blocks.items():
            clock = getattr(block, "clock", names[0])
            require(clock in names, f"{key}.clock", f"one of {', '.join(names)}", clock)
        for kind in (QueueKind.ARRAY, QueueKind.VECTOR, QueueKind.DMA, QueueKind.LINK):
            units = self.units(kind)
            require(units <= MASK_BITS, f"{kind.name.lower()} units",
                    f"at most {MASK_BITS}, the bits of a unit mask", units)
        lookup = [f"arrays.{i}" for i, a in enumerate(self.arrays) if isinstance(a, LutConfig)]
        require(not lookup or self.tables is not None, "tables",
                f"given for {', '.join(lookup)}, which look up in it", self.tables)
        if self.pim is not None:
            self.pim.check_machine(self.dram)
        if self.chips > 1:
            require(self.links is not None, "links", "given for more than one chip", self.links)

    @property
    def blocks(self) -> dict[str, object]:
        """Every block's configuration by its key in the description."""
        found: dict[str, object] = {f"arrays.{i}": a for i, a in enumerate(self.arrays)}
        found |= {f"vectors.{i}": v for i, v in enumerate(self.vectors)}
        for key in ("scratchpad", "accumulator", "dma", "crossbar", "dram", "sequencer", "links",
                    "tables", "pim"):
            if getattr(self, key) is not None:
                found[key] = getattr(self, key)
        if self.pim is not None:
            found["pim.unit"] = self.pim.unit
        return found

    @property
    def fidelities(self) -> dict[str, str]:
        """The declared fidelity of every block that has one."""
        return {k: b.fidelity for k, b in self.blocks.items() if hasattr(b, "fidelity")}

    @property
    def tick_ps(self) -> Fraction:
        """The unit of simulated time in picoseconds; every clock's period is a multiple of it."""
        return tick_of(self.clocks)

    def ticks(self, clock: str) -> int:
        """Return the period of the clock named `clock` in ticks."""
        period = next(c.period for c in self.clocks if c.name == clock)
        return int(period / self.tick_ps)

    def units(self, kind: QueueKind) -> int:
        """Return how many unit instances of `kind` one chip has."""
        match kind:
            case QueueKind.ARRAY:
                return sum(array.count for array in self.arrays)
            case QueueKind.VECTOR:
                return sum(vector.count for vector in self.vectors)
            case QueueKind.DMA:
                return self.dma.count
            case QueueKind.LINK:
                return self.links.count if self.links is not None else 0
            case QueueKind.PIM:
                return self.pim.queues if self.pim is not None else 0

    def array_of(self, unit: int) -> SystolicConfig | LutConfig:
        """Return the configuration of array instance `unit`."""
        for array in self.arrays:
            if unit < array.count:
                return array
            unit -= array.count
        raise IndexError("no such array")

    def array_units(self, kind: str) -> tuple[int, ...]:
        """Return the numbers of the first array of `kind` in the description and its equals."""
        first = 0
        for array in self.arrays:
            if array.kind == kind:
                return tuple(range(first, first + array.count))
            first += array.count
        return ()

    @property
    def systolic(self) -> SystolicConfig:
        """The first systolic array; `UserError` where there is none."""
        units = self.array_units("systolic")
        return self.systolic_of(units[0] if units else 0)

    def systolic_of(self, unit: int) -> SystolicConfig:
        """Return the configuration of systolic array `unit`; `UserError` for one of another kind.

        What places products and what emits an array knows systolic ones only.
        """
        array = self.array_of(unit)
        if not isinstance(array, SystolicConfig):
            raise must_be(f"{self.name}: kind of array {unit}", "systolic here", array.kind)
        return array

    def vector_of(self, unit: int) -> VectorConfig:
        """Return the configuration of vector unit instance `unit`."""
        for vector in self.vectors:
            if unit < vector.count:
                return vector
            unit -= vector.count
        raise IndexError("no such vector unit")

    def space_bytes(self, space: Space, chip: int = 0) -> int | None:
        """Return the size of `space` on `chip`; None where the machine has no such space."""
        match space:
            case Space.DRAM:
                return self.memory_bytes
            case Space.SCRATCHPAD:
                return self.scratchpad.bytes
            case Space.ACCUMULATOR:
                return self.accumulator.bytes
            case Space.TABLE if self.tables is not None:
                return self.tables.bytes
            case Space.PIM_BUFFER if self.pim is not None:
                return self.pim.buffer_bytes
            case Space.PIM_LATCH if self.pim is not None:
                return self.pim.latch_bytes
            case _:
                return None

    @property
    def memory_bytes(self) -> int:
        """The bytes of `dram` that programs have."""
        return self.dram.capacity_bytes if self.pim is None else self.pim.usable_bytes(self.dram)

    @property
    def tokens(self) -> int:
        """How many counting semaphores a chip has."""
        return self.sequencer.tokens

    @property
    def token_bits(self) -> int:
        """The width of each semaphore's count."""
        return self.sequencer.token_bits

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What programs may ask of this machine."""
        has = {Capability.VECTOR, Capability.INDIRECT}
        for array in self.arrays:
            lookup = isinstance(array, LutConfig)
            has |= {Capability.LUT} if lookup else {Capability.SYSTOLIC, Capability.GROUP_SCALE}
        if self.links is not None:
            has.add(Capability.LINK)
        if self.pim is not None:
            has.add(Capability.PIM)
        return frozenset(has)
