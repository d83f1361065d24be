"""Attention of a decode step in memory that computes: a program for requests whose cache is there.

Keys and values lie as `mapping.placement.KvRows` places them, each request in one channel. A PIM
queue works on the requests of its channels in waves, at most one of a channel: scores in memory,
softmax in a vector unit, weighted values in memory. Queries that share a key head are vectors of
their own (GQA).
"""

from collections.abc import Iterator, Sequence

from machine.chip import Machine
from machine.config import require
from machine.opcodes import Mode, Opcode
from machine.program import Capability, Program, Queue, QueueKind, Space, SymbolKind
from machine.vector import VectorOp
from mapping.builder import ProgramBuilder, fp32_bits
from mapping.placement import KvRows, Place

__all__ = ["address_of", "attention_program", "waves_of"]

ELEMENT_BYTES = 2  # float16: queries, keys, values, probabilities and results
SCORE_BYTES = 4


def address_of(machine: Machine, place: Place) -> int:
    """Return the byte address of an element of memory that computes."""
    dram = machine.dram
    assert machine.pim is not None
    at = place.column * machine.pim.unit.column_bytes + place.lane * ELEMENT_BYTES
    inner, bank = divmod(place.bank, dram.banks_per_group)
    rank, group = divmod(inner, dram.bank_groups)
    values = {"ro": place.row, "ra": rank, "bg": group, "ba": bank, "ch": place.channel,
              "co": at // dram.burst_bytes}
    burst = sum(values[name] << low for name, (low, _) in dram.fields.items())
    return burst * dram.burst_bytes + at % dram.burst_bytes


def waves_of(caches: Sequence[KvRows]) -> list[list[int]]:
    """Return the requests by wave, none of which has two of one channel; in order."""
    waves: list[list[int]] = []
    for number, cache in enumerate(caches):
        for wave in waves:
            if all(caches[other].channel != cache.channel for other in wave):
                wave.append(number)
                break
        else:
            waves.append([number])
    return waves


def attention_program(machine: Machine, caches: Sequence[KvRows], *, group: int = 1,
                      first_row: int) -> Program:
    """Return the program of one decode step's attention over what `caches` hold.

    Symbols: ``Q`` and ``O`` [requests, heads, depth], ``CACHE`` from row `first_row` of all banks
    on; `group` query heads share a key head. Raises ``ValueError`` naming the numbers for what
    does not fit.
    """
    return _Writer(machine, caches, group, first_row).program()


class _Writer:
    """Writes the program, wave by wave."""

    def __init__(self, machine: Machine, caches: Sequence[KvRows], group: int, first_row: int):
        pim, dram = machine.pim, machine.dram
        require(pim is not None, "pim", f"given, {machine.name} has none", pim)
        require(bool(caches), "caches", "at least one request", len(caches))
        assert pim is not None
        shapes = {(one.heads, one.depth) for one in caches}
        require(len(shapes) == 1, "heads and depth", "the same for all requests", sorted(shapes))
        self._machine, self._pim, self._caches, self._group = machine, pim, caches, group
        ((self._kv_heads, self._depth),) = shapes
        self._heads, self._most = self._kv_heads * group, max(one.tokens for one in caches)
        for number, cache in enumerate(caches):
            require(cache.tokens >= 1, f"tokens of request {number}", "at least 1", cache.tokens)
        step = address_of(machine, Place(0, 1, 0, 0, 0)) // ELEMENT_BYTES
        last = address_of(machine, Place(0, dram.banks - 1, 0, 0, 0)) // ELEMENT_BYTES
        even = last == step * (dram.banks - 1)
        require(even, "mapping", "one with ra, bg and ba side by side", dram.mapping)
        self._bank_step = step  # elements from bank to bank
        lanes = pim.unit.lanes
        require(self._depth % lanes == 0, "depth", f"a multiple of {lanes} lanes", self._depth)
        self._dots = self._depth // lanes
        self._b = ProgramBuilder("pim-attention")
        self._handed: dict[int, tuple[int, int]] = {}  # tokens by slot
        self._symbols(first_row)
        self._places()

    def _symbols(self, first_row: int) -> None:
        b, shape = self._b, (len(self._caches), self._heads, self._depth)
        q = b.symbol("Q", SymbolKind.INPUT, shape, "float16")
        o = b.symbol("O", SymbolKind.OUTPUT, shape, "float16")
        low = address_of(self._machine, Place(0, 0, first_row, 0, 0))
        require(low >= b.dram_bytes, "first_row",
                f"behind the {b.dram_bytes} bytes of queries and results", first_row)
        self._q_at, self._o_at = q.address_bytes, o.address_bytes
        b.dram_bytes = low
        b.symbol("CACHE", SymbolKind.STATE, ((self._machine.memory_bytes - low) // ELEMENT_BYTES,),
                 "float16")

    def _places(self) -> None:
        """Lay out the scratchpad and the latches; queries and results of all requests stay."""
        rows, elements = len(self._caches) * self._heads, self._depth * ELEMENT_BYTES
        slots = len({one.channel for one in self._caches})
        score_rows = slots * self._heads * self._most
        sizes = (rows * elements, rows * elements, score_rows * SCORE_BYTES,
                 score_rows * ELEMENT_BYTES)
        places, at = [], 0
        for size in sizes:
            places.append(at)
            at += -(-size // 64) * 64
        self._q, self._o, self._s, self._p = places
        size = self._machine.scratchpad.bytes
        require(at <= size, "bytes of queries, scores and results", f"at most {size}", at)
        self._sums = self._heads * self._most * SCORE_BYTES
        latches = self._sums + self._heads * self._depth * SCORE_BYTES
        most = self._pim.latch_bytes
        require(latches <= most, "bytes of scores and sums of a request", f"at most {most}, the "
                "latches'", latches)

    def program(self) -> Program:
        """Return the program."""
        b, kinds = self._b, QueueKind
        dma = b.stream(Queue(kinds.DMA, 0, 0))
        queues = sorted({self._queue(r) for r in range(len(self._caches))})
        tokens = {name: b.token(name) for name in ("queries", "sums")}
        count = len(self._caches) * self._heads * self._depth
        q, o = (b.operand("whole_dram", Space.DRAM, at, (count,), "float16")
                for at in (self._q_at, self._o_at))
        q_pad, o_pad = (b.operand("whole", Space.SCRATCHPAD, at, (count,), "float16")
                        for at in (self._q, self._o))
        with b.accounting("attention"):
            dma.op(Opcode.LOAD, operands={"src": q, "dst": q_pad},
                   signals=((tokens["queries"], len(queues)),))
            for number in queues:
                pim = b.stream(Queue(kinds.PIM, number, 0), 1 << number)
                pim.wait((tokens["queries"], 1))
                for wave in self._waves(number):
                    self._scores(wave)
                    pim.fence(*((self._tokens(r)[0], 1) for r in wave))
                    pim.wait(*((self._tokens(r)[1], 1) for r in wave))
                    self._weighted(wave)
                pim.fence((tokens["sums"], 1))
            for wave in waves_of(self._caches):
                for request in wave:
                    self._softmax(request)
            dma.op(Opcode.STORE, operands={"src": o_pad, "dst": o},
                   waits=((tokens["sums"], len(queues)),))
        return b.build(frozenset({Capability.PIM, Capability.VECTOR}))

    def _queue(self, request: int) -> int:
        """Return the PIM queue that drives the channel of a request."""
        channel, dram = self._caches[request].channel, self._machine.dram
        return next(n for n in range(self._pim.queues)
                    if channel in self._pim.channels_of(dram, n))

    def _waves(self, queue: int) -> list[list[int]]:
        """Return the waves of one queue's requests."""
        mine = [[r for r in wave if self._queue(r) == queue] for wave in waves_of(self._caches)]
        return [wave for wave in mine if wave]

    def _slot(self, request: int) -> int:
        """Return the place of a request's scores: one a channel that is used."""
        return sorted({one.channel for one in self._caches}).index(self._caches[request].channel)

    def _tokens(self, request: int) -> tuple[int, int]:
        """Return the tokens of a request's slot: its scores are there, its probabilities are."""
        slot = self._slot(request)
        if slot not in self._handed:
            self._handed[slot] = self._b.token(f"scores{slot}"), self._b.token(f"probs{slot}")
        return self._handed[slot]

    def _put(self, opcode: Opcode, request: int, operands: dict[str, int] | None = None,
             **fields: int) -> None:
        """Write one instruction of a PIM queue for the channel of a request."""
        queue = self._queue(request)
        self._b.stream(Queue(QueueKind.PIM, queue, 0), 1 << queue).op(
            opcode, operands=operands,
            fields={"channels": 1 << self._caches[request].channel, **fields})

    def _scores(self, wave: list[int]) -> None:
        """Write q K of a wave: for each vector of queries, tile after tile of each channel."""
        per_row = self._caches[0].banks.columns // self._dots
        for first in range(0, self._kv_heads, per_row):
            together = range(first, min(first + per_row, self._kv_heads))
            for member in range(self._group):
                for request in wave:
                    self._put(Opcode.PIM_GWRITE, request, self._query(request, together, member))
                for tile, request in self._tiles(wave):
                    self._put(Opcode.PIM_HEADER, request, reads=len(together), rows=1,
                              dots=len(together) * self._dots)
                    for head in together:
                        self._put(Opcode.PIM_GEMV, request,
                                  self._key(request, head, member, tile, head - first))
        for request in wave:
            slot, tokens = self._slot(request), self._caches[request].tokens
            for head in range(self._heads):
                at = head * self._most
                row = (slot * self._heads + head) * self._most
                self._put(Opcode.PIM_READRES, request, {
                    "src": self._latch("scores", at * SCORE_BYTES, tokens),
                    "dst": self._b.operand("s", Space.SCRATCHPAD, self._s + row * SCORE_BYTES,
                                           (tokens,), "float32")})

    def _tiles(self, wave: list[int]) -> Iterator[tuple[int, int]]:
        """Yield (tile, request), one tile of each request in turn."""
        counts = {r: -(-self._caches[r].tokens // self._caches[r].banks.banks) for r in wave}
        for tile in range(max(counts.values())):
            for request in wave:
                if tile < counts[request]:
                    yield tile, request

    def _query(self, request: int, together: range, member: int) -> dict[str, int]:
        """The queries of one member of each key head's group, in the buffer as keys lie."""
        b, d, group = self._b, self._depth, self._group
        first = (request * self._heads + together[0] * group + member) * d * ELEMENT_BYTES
        shape = (len(together), d)
        return {"src": b.operand("q", Space.SCRATCHPAD, self._q + first, shape, "float16",
                                 strides=(group * d, 1)),
                "dst": b.operand("q_buffer", Space.PIM_BUFFER, 0, shape, "float16")}

    def _key(self, request: int, head: int, member: int, tile: int, place: int) -> dict[str, int]:
        b, cache, d = self._b, self._caches[request], self._depth
        first = tile * cache.banks.banks
        outputs = min(cache.banks.banks, cache.tokens - first)
        at = (head * self._group + member) * self._most + first
        slot = place * self._dots * self._pim.unit.column_bytes
        where = address_of(self._machine, cache.key(head, 0, first))
        return {"a": b.operand("q_of_head", Space.PIM_BUFFER, slot, (d,), "float16"),
                "w": b.operand("k", Space.DRAM, where, (outputs, d), "float16",
                               strides=(self._bank_step, 1)),
                "dst": self._latch("scores", at * SCORE_BYTES, outputs)}

    def _softmax(self, request: int) -> None:
        """Write the softmax of a request's scores, the vector units in turn."""
        slot, units = self._slot(request), self._machine.units(QueueKind.VECTOR)
        shape, at = (self._heads, self._caches[request].tokens), slot * self._heads * self._most
        operands = {role: self._b.operand(role, Space.SCRATCHPAD, base + at * size, shape, form,
                                          strides=(self._most, 1))
                    for role, base, size, form in (("x", self._s, SCORE_BYTES, "float32"),
                                                   ("y", self._p, ELEMENT_BYTES, "float16"))}
        scores, probs = self._tokens(request)
        vector = self._b.stream(Queue(QueueKind.VECTOR, slot % units, 0), 1 << slot % units)
        vector.op(Opcode.VECTOR, operands=operands, waits=((scores, 1),), signals=((probs, 1),),
                  fields={"vop": VectorOp.SOFTMAX, "value": fp32_bits(self._depth**-0.5)})

    def _weighted(self, wave: list[int]) -> None:
        """Write p V of a wave: a vector is a row's tokens of one head."""
        banks = self._caches[0].banks
        for head in range(self._heads):
            for piece in range(-(-self._most // banks.row_elements)):
                first = piece * banks.row_elements
                some = [r for r in wave if self._caches[r].tokens > first]
                for request in some:
                    tokens = min(banks.row_elements, self._caches[request].tokens - first)
                    row = (self._slot(request) * self._heads + head) * self._most + first
                    self._put(Opcode.PIM_GWRITE, request, {
                        "src": self._b.operand("p", Space.SCRATCHPAD,
                                               self._p + row * ELEMENT_BYTES, (tokens,), "float16"),
                        "dst": self._b.operand("p_buffer", Space.PIM_BUFFER, 0, (tokens,),
                                               "float16")})
                for tile in range(self._caches[0].value_tiles):
                    for request in some:
                        self._put(Opcode.PIM_HEADER, request)
                        self._put(Opcode.PIM_GEMV, request,
                                  self._value(request, head, first, tile),
                                  accumulate=Mode.ACCUMULATE if piece else Mode.SET)
        for request in wave:
            at = request * self._heads * self._depth
            count = self._heads * self._depth
            self._put(Opcode.PIM_READRES, request, {
                "src": self._latch("sums", self._sums, count),
                "dst": self._b.operand("o", Space.SCRATCHPAD, self._o + at * ELEMENT_BYTES,
                                       (count,), "float16")})

    def _value(self, request: int, head: int, first: int, tile: int) -> dict[str, int]:
        b, cache = self._b, self._caches[request]
        tokens = min(cache.banks.row_elements, cache.tokens - first)
        element = tile * cache.banks.banks
        outputs = min(cache.banks.banks, self._depth - element)
        where = address_of(self._machine, cache.value(head // self._group, element, first))
        at = self._sums + (head * self._depth + element) * SCORE_BYTES
        return {"a": b.operand("p_buffer", Space.PIM_BUFFER, 0, (tokens,), "float16"),
                "w": b.operand("v", Space.DRAM, where, (outputs, tokens), "float16",
                               strides=(self._bank_step, 1)),
                "dst": self._latch("sums", at, outputs)}

    def _latch(self, name: str, at: int, count: int) -> int:
        return self._b.operand(name, Space.PIM_LATCH, at, (count,), "float32")
