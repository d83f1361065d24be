"""The token counters of a chip: taken by queues at issue, given by instructions at completion."""

from functools import reduce
from operator import add

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from machine.front_end import FrontEndConfig
from machine.records import WAIT_SLOTS

__all__ = ["COUNT_BITS", "Tokens", "pairs_layout"]

COUNT_BITS = 8  # of a count in an instruction


def pairs_layout(cfg: FrontEndConfig) -> data.ArrayLayout:
    """Return the layout of what an instruction waits for or signals; a count of 0 is nothing."""
    pair = data.StructLayout({"token": range(max(cfg.tokens, 2)), "count": COUNT_BITS})
    return data.ArrayLayout(pair, WAIT_SLOTS)


def _of(pairs: data.View, token: Value | int, when: Value | int = 1) -> Value:
    """Return the sum of the counts that `pairs` has of `token`."""
    return reduce(add, [Mux((pair.token == token) & when, pair.count, 0) for pair in pairs])


class Tokens(wiring.Component):
    """Counting semaphores; what is given can be taken ``token_latency_cycles`` later.

    In one cycle all that has come is added before any queue takes. Queues take in the order of
    their numbers, each all it waits for or nothing. A count beyond ``token_bits`` is reported and
    wraps. Reset and ``clear`` make every count 0 and forget what is on its way.

    Members
    -------
    clear : In(1)
        Every count becomes 0.
    load : In(1)
        The count of ``load_token`` becomes ``load_count``.
    load_token : In(range(tokens))
        The token.
    load_count : In(token_bits)
        Its count before the program starts.
    wants : In(1)
        One a queue: its head may issue once its tokens are there.
    waits : In(pairs_layout)
        One a queue: what its head waits for.
    granted : Out(1)
        One a queue: its tokens are taken in this cycle.
    gives : In(1)
        One a source: an instruction completes in this cycle.
    signals : In(pairs_layout)
        One a source: what it signals.
    busy : Out(1)
        Something given cannot be taken yet.
    counts : Out(token_bits)
        One a token: its count, without what comes in this cycle.
    overflow : Out(1)
        A count would pass its width.
    overflow_token : Out(range(tokens))
        The first token of which it does.
    """

    def __init__(self, cfg: FrontEndConfig, sources: int):
        self.cfg, self.sources = cfg, sources
        queues, pairs = len(cfg.queues), pairs_layout(cfg)
        super().__init__({
            "clear": In(1),
            "load": In(1),
            "load_token": In(range(max(cfg.tokens, 2))),
            "load_count": In(cfg.token_bits),
            "wants": In(1).array(queues),
            "waits": In(pairs).array(queues),
            "granted": Out(1).array(queues),
            "gives": In(1).array(sources),
            "signals": In(pairs).array(sources),
            "busy": Out(1),
            "counts": Out(cfg.token_bits).array(cfg.tokens),
            "overflow": Out(1),
            "overflow_token": Out(range(max(cfg.tokens, 2))),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        most = (2**COUNT_BITS - 1) * WAIT_SLOTS * self.sources
        wide = max(cfg.token_bits, most.bit_length()) + 1

        arrived = self._arrived(m)
        come = [Signal(wide, name=f"come_{t}") for t in range(cfg.tokens)]
        for token, there in enumerate(come):
            m.d.comb += there.eq(reduce(add, [_of(pairs, token, when) for when, pairs in arrived]))
        at_once = cfg.token_latency_cycles == 0
        there = Array(Signal(wide, name=f"there_{t}") for t in range(cfg.tokens))
        for token in range(cfg.tokens):
            m.d.comb += there[token].eq(self.counts[token] + (come[token] if at_once else 0))

        # A queue takes if its tokens are there beside what the queues before it take.
        for queue, (wants, waits) in enumerate(zip(self.wants, self.waits, strict=True)):
            enough = []
            for pair in waits:
                needed = _of(waits, pair.token)
                for before in range(queue):
                    needed = needed + _of(self.waits[before], pair.token, self.granted[before])
                enough.append((pair.count == 0) | (there[pair.token] >= needed))
            m.d.comb += self.granted[queue].eq(wants & Cat(enough).all())

        # Count.
        over = Signal(cfg.tokens)
        for token, count in enumerate(self.counts):
            taken = reduce(add, [_of(waits, token, granted) for waits, granted
                                 in zip(self.waits, self.granted, strict=True)])
            after = Signal(wide, name=f"after_{token}")
            m.d.comb += [after.eq(count + come[token] - taken),
                         over[token].eq(after[cfg.token_bits :].any())]
            m.d.sync += count.eq(after)
            with m.If(self.clear):
                m.d.sync += count.eq(0)
            with m.Elif(self.load & (self.load_token == token)):
                m.d.sync += count.eq(self.load_count)
        m.d.comb += self.overflow.eq(over.any())
        for token in reversed(range(cfg.tokens)):
            with m.If(over[token]):
                m.d.comb += self.overflow_token.eq(token)
        return m

    def _arrived(self, m: Module) -> list[tuple[Value, data.View]]:
        """Return what comes in this cycle, by source: whether something does, and what."""
        cfg = self.cfg
        # What is given waits in a line, so that it is added a cycle before it can be taken.
        m.d.comb += self.busy.eq(Cat(*self.gives).any())
        given = [Cat(gives, signals.as_value())
                 for gives, signals in zip(self.gives, self.signals, strict=True)]
        for step in range(cfg.token_latency_cycles - 1):
            later = [Signal.like(one, name=f"given_{step}_{s}") for s, one in enumerate(given)]
            m.d.sync += [new.eq(Mux(self.clear, 0, old))
                         for new, old in zip(later, given, strict=True)]
            with m.If(Cat(one[0] for one in later).any()):
                m.d.comb += self.busy.eq(1)
            given = later
        return [(one[0], data.View(pairs_layout(cfg), one[1:])) for one in given]
