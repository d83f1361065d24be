"""The frame every kernel is written in: streams, rings of slots, and the order of kernels.

Five streams run side by side: `weights` loads weights and cached keys and values, `acts` loads
activations and everything small, `store` writes results; `array` and `vector` compute. Each ring
of slots has one producer and one consumer. A kernel reads its inputs from DRAM and writes its
outputs there; the `stage` token lets its inputs be read only after the kernel before has written
them, while `weights` runs ahead.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from machine.chip import Machine
from machine.formats import format_named, packed_bytes
from machine.k_order import array_order
from machine.opcodes import Dataflow, KOrder, Opcode
from machine.program import Edge, Predicate, Queue, QueueKind, Space, Symbol
from machine.vector import VectorOp
from mapping.builder import Count, ProgramBuilder, Ring, StreamBuilder, packed_strides
from mapping.fit import DoesNotFit, Unfit
from mapping.tiling import Slots

__all__ = ["Plan", "Rows", "Tensor", "mask_of"]

# Of each region: the share of one slot in the scratchpad, in 64ths, and the number of slots.
# w: weights, cached keys and values for the arrays; a: activations for the arrays; x: rows for the
# vector units; s: scales and bias beside them; o: results; p: probabilities. A slot is free again
# only when its product has drained, some tiles after it was loaded: of the operand that streams,
# weights where rows are few, weights and activations where they are many, there are more slots.
Regions = dict[str, tuple[int, int]]
FEW_ROWS: Regions = {"w": (8, 4), "a": (4, 2), "x": (3, 2), "s": (3, 2), "o": (2, 2), "p": (4, 2)}
MANY_ROWS: Regions = FEW_ROWS | {"w": (8, 3), "a": (4, 4)}


def mask_of(units: Iterable[int]) -> int:
    """Return the unit mask of `units`."""
    return sum(1 << unit for unit in units)


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where an operand of a kernel lies in DRAM."""

    symbol: Symbol
    strides: tuple[int, ...]  # elements
    offset: int = 0  # elements from the symbol's start
    layer: int = 0  # elements from one layer to the next

    @classmethod
    def of(cls, symbol: Symbol, *, layered: bool = False) -> "Tensor":
        """Return the dense tensor of a symbol; `layered` if its first axis is the layer."""
        strides = packed_strides(symbol.shape)
        return cls(symbol, strides[1:], 0, strides[0]) if layered else cls(symbol, strides)

    @property
    def address_bytes(self) -> int:
        """The address of its first element, which must start a byte."""
        bits = self.offset * format_named(self.symbol.format).bits
        assert bits % 8 == 0, "a kernel's tensor starts at a whole byte"
        return self.symbol.address_bytes + bits // 8


@dataclass(frozen=True, slots=True)
class Rows:
    """A number of rows: fixed, or read from a launch entry and at most `most`."""

    most: int
    entry: str | None = None


class Plan:
    """Streams, rings and scratch of one program on one machine."""

    def __init__(self, builder: ProgramBuilder, machine: Machine, *, entries: tuple[str, ...] = (),
                 regions: Regions = FEW_ROWS):
        self.builder = builder
        self.machine = machine
        if machine.dma.count < 3:
            raise Unfit(DoesNotFit("every kernel", "dma.count", 3, machine.dma.count, "engines",
                                   ("--set dma.count=3",)))
        # Products of two activations are multiplied: lookup arrays take weights only.
        self.array_units = machine.array_units("systolic")
        self.lookup_units = machine.array_units("lut")
        self.vectors = machine.units(QueueKind.VECTOR)
        self.weights, self.acts, self.store = (
            builder.stream(Queue(QueueKind.DMA, i), 1 << i) for i in range(3)
        )
        self.array = builder.stream(Queue(QueueKind.ARRAY), mask_of(self.array_units))
        self.vector = builder.stream(Queue(QueueKind.VECTOR), (1 << self.vectors) - 1)
        self.stage = builder.token("stage", 1)
        self.cached = builder.token("cached")
        self._place(regions)
        self._open(entries)

    def _place(self, regions: Regions) -> None:
        unit = self.machine.scratchpad.bytes // 64 // 64 * 64
        address = 0
        self.rings: dict[str, Ring] = {}
        for name, (share, slots) in regions.items():
            size = share * unit
            self.rings[name] = self.builder.ring(name, Space.SCRATCHPAD, address, size, slots)
            address += slots * size
        half = self.machine.accumulator.bytes // 2
        self.rings["acc"] = self.builder.ring("acc", Space.ACCUMULATOR, 0, half)
        if self.machine.tables is not None:
            half = self.machine.tables.bytes // 2
            self.rings["t"] = self.builder.ring("t", Space.TABLE, 0, half)

    def _open(self, entries: tuple[str, ...]) -> None:
        r = self.rings
        r["w"].open(self.weights, self.array)
        r["a"].open(self.acts, self.array)
        r["x"].open(self.acts, self.vector)
        r["o"].open(self.vector, self.store)
        r["s"].open(self.acts, self.vector)
        r["p"].open(self.vector, self.array)
        r["acc"].open(self.array, self.vector)
        if "t" in r:
            r["t"].open(self.vector, self.array)
        for stream in self.streams:
            for entry in entries:
                stream.launch(entry)

    @property
    def arrays(self) -> int:
        """Systolic arrays at work."""
        return len(self.array_units)

    @property
    def flow(self) -> Dataflow:
        """The dataflow of their products."""
        return Dataflow[self.machine.systolic.dataflows[-1].upper()]

    def order(self, acc_format: str) -> dict[str, int]:
        """The fields that name the array's order of addition, for sums that show it."""
        own = None if acc_format == "int32" else array_order(self.machine.systolic, self.flow)
        return {} if own is None or own.k_order is KOrder.SEQUENTIAL else own._asdict()

    @property
    def streams(self) -> tuple[StreamBuilder, ...]:
        """All five streams."""
        return self.weights, self.acts, self.store, self.array, self.vector

    @property
    def slots(self) -> Slots:
        """The sizes of the slots, for the search of a tiling."""
        r = self.rings
        return Slots(
            weights=r["w"].slot_bytes, activations=r["a"].slot_bytes, rows=r["x"].slot_bytes,
            outputs=r["o"].slot_bytes, side=r["s"].slot_bytes,
            probabilities=r["p"].slot_bytes, accumulator=r["acc"].slot_bytes,
            tables=r["t"].slot_bytes if "t" in r else 0,
        )

    @contextmanager
    def loop(self, count: int, *streams: StreamBuilder) -> Iterator[int]:
        """Open the same loop on each of `streams` (all five if none is named)."""
        with ExitStack() as stack:
            levels = [stack.enter_context(s.loop(count)) for s in streams or self.streams]
            assert len(set(levels)) == 1, "a loop stands at one level in every stream"
            yield levels[0]

    def begin(self) -> None:
        """Let `acts` go on only when the kernel before has written its results."""
        self.acts.wait((self.stage, 1))

    def end(self, *also: Count) -> None:
        """Say that this kernel's results are written."""
        self.store.fence((self.stage, 1), *also)

    def load(self, stream: StreamBuilder, name: str, source: Tensor, ring: Ring, at: int,
             shape: tuple[int, ...], *, loops: tuple[tuple[int, int], ...] = (),
             edges: tuple[Edge | None, ...] = (), strides: tuple[int, ...] | None = None,
             waits: tuple[Count, ...] = (), signals: tuple[Count, ...] = (),
             format: str | None = None, base: int | None = None) -> int:
        """Write a load of a tile into `ring`'s slot, `at` bytes into it; return the bytes taken."""
        b = self.builder
        fmt = format or source.symbol.format
        strides = source.strides if strides is None else strides
        src = b.operand(f"{name}.src", Space.DRAM, source.address_bytes, shape,
                        source.symbol.format, strides=strides,
                        loops=((0, source.layer), *loops), edges=edges, base=base)
        dst = b.operand(f"{name}.{ring.name}", ring.space, ring.address_bytes + at, shape, fmt,
                        base=ring.slot(stream), edges=edges)
        stream.op(Opcode.LOAD, waits=waits, signals=signals, operands={"src": src, "dst": dst})
        return -(-packed_bytes(format_named(fmt), shape) // 64) * 64

    def save(self, name: str, ring: Ring, at: int, target: Tensor, shape: tuple[int, ...],
             format: str, *, loops: tuple[tuple[int, int], ...] = (),
             edges: tuple[Edge | None, ...] = (), strides: tuple[int, ...] | None = None,
             waits: tuple[Count, ...] = (), signals: tuple[Count, ...] = (),
             base: int | None = None) -> None:
        """Write a store of a tile from `ring`'s slot, `at` bytes into it."""
        b, stream = self.builder, self.store
        src = b.operand(f"{name}.{ring.name}", ring.space, ring.address_bytes + at, shape, format,
                        base=ring.slot(stream), edges=edges)
        dst = b.operand(f"{name}.dst", Space.DRAM, target.address_bytes, shape,
                        target.symbol.format,
                        strides=target.strides if strides is None else strides,
                        loops=((0, target.layer), *loops), edges=edges, base=base)
        stream.op(Opcode.STORE, waits=waits, signals=signals, operands={"src": src, "dst": dst})

    def compute(self, vop: VectorOp, y: int, *sources: int, waits: tuple[Count, ...] = (),
                signals: tuple[Count, ...] = (), scale: int | None = None, state: int | None = None,
                mask: int | None = None, fields: dict[str, int] | None = None,
                predicate: Predicate | None = None) -> None:
        """Write one operation of the vector units on the operands given."""
        roles = dict(zip(("x", "x1", "x2", "x3"), sources, strict=False)) | {"y": y}
        if scale is not None:
            roles["scale"] = scale
        if state is not None:
            roles["state"] = state
        self.vector.op(Opcode.VECTOR, waits=waits, signals=signals, operands=roles, mask=mask,
                       predicate=predicate, fields={"vop": vop, **(fields or {})})

    def edge(self, stream: StreamBuilder, rows: Rows, *steps: tuple[int, int]) -> Edge:
        """Return the edge rule of a dimension of `rows`, in `stream`."""
        if rows.entry is None:
            return Edge(rows.most, steps)
        return Edge(0, steps, stream.launch(rows.entry))
