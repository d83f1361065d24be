"""The static verifier: what is wrong with a program, before anything runs it.

It looks at the program as written, then unrolls every stream for one launch table, then runs the
tokens and orders all accesses to memory by them. It computes no data.
"""

from collections.abc import Mapping, Sequence
from math import prod

from machine.errors import UserError
from machine.faults import Fault, FaultKind, fault_at
from machine.footprint import symbol_bytes
from machine.ordering import Event, Order, order
from machine.places import Places
from machine.program import Launch, Program, SymbolKind
from machine.races import Access, Races
from machine.unroll import Unrolled, unroll
from machine.wellformed import Sizes, wellformed_faults

__all__ = ["check", "verify"]

TOKEN_BITS = 16  # of a token's count, where no machine says
Values = Mapping[str, Sequence[int]]


def check(program: Program, launch: Launch | None = None, machine: Sizes | None = None,
          values: Values | None = None) -> None:
    """Raise `UserError` with the first fault that `verify` finds, if there is one."""
    faults = verify(program, launch, machine, values)
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UserError(f"{program.name}: {faults[0]}{more}")


def verify(program: Program, launch: Launch | None = None, machine: Sizes | None = None,
           values: Values | None = None) -> list[Fault]:
    """Return the faults of `program` for one launch table, on `machine` if it is given.

    `values` is a value trace: what the READs of each queue (``chip0.dma0``) give, in order. The
    READs of a queue that it leaves out are answered from the launch table's tensors.

    Faults come stage by stage, and only the first stage that finds any is reported: the program
    as written, the launch table, each instruction as it runs, the tokens and the memory they
    order. A gather whose index list is not in the launch table counts as touching the whole
    symbol it begins in. A token that several queues wait for orders nothing, and is taken in one
    order of the possible ones.
    """
    launch = Launch() if launch is None else launch
    faults = wellformed_faults(program, machine)
    if not faults:
        faults = [*_launch_faults(program, launch), *_symbol_faults(program, machine)]
    if faults:
        return faults
    places = Places(program, launch, machine)
    streams: list[Unrolled] = []
    for number, stream in enumerate(program.streams):
        given = None if values is None else values.get(str(stream.queue))
        unrolled, found = unroll(program, number, launch, places, given)
        streams.append(unrolled)
        faults += found
    if faults:
        return faults
    return _Concurrent(program, streams, places, machine).faults()


def _launch_faults(program: Program, launch: Launch) -> list[Fault]:
    tensors = [s for s in program.symbols if s.kind == SymbolKind.LAUNCH]
    found = []
    for what, given, wanted in (("value", list(launch.values), list(program.launch)),
                                ("tensor", list(launch.tensors), [s.name for s in tensors])):
        found += [f"launch {what} must be one of {', '.join(wanted) or 'none'}, not {name!r}"
                  for name in given if name not in wanted]
        found += [f"launch {what} {name!r} must be given" for name in wanted if name not in given]
    for symbol in tensors:
        length = len(launch.tensors.get(symbol.name, ()))
        if length > prod(symbol.shape):
            found.append(f"launch tensor {symbol.name!r} must have at most {prod(symbol.shape)} "
                         f"entries, not {length}")
    return [Fault(FaultKind.LAUNCH, message) for message in found]


def _symbol_faults(program: Program, machine: Sizes | None) -> list[Fault]:
    found = []
    for symbol in program.symbols if machine is not None else ():
        assert machine is not None
        size = machine.space_bytes(symbol.space, symbol.chip)
        end = symbol.address_bytes + symbol_bytes(symbol)
        if size is None or end > size:
            found.append(Fault(FaultKind.BOUNDS, f"symbol {symbol.name!r} must end by "
                               f"{size or 0:#x} in {symbol.space.name.lower()}, not {end:#x}"))
    return found


class _Concurrent:
    """The streams of a program together: tokens, links and the order of accesses."""

    def __init__(self, program: Program, streams: Sequence[Unrolled], places: Places,
                 machine: Sizes | None):
        self._program = program
        self._streams = streams
        self._places = places
        self._bits = TOKEN_BITS if machine is None else machine.token_bits
        # A tile under way on a link is a token beyond the program's own.
        keys = {key for s in streams for key, _, _ in (*s.sent, *s.received)}
        self._links = {key: len(program.tokens) + at for at, key in enumerate(sorted(keys))}

    def faults(self) -> list[Fault]:
        """Return all that is wrong between the queues."""
        self._places.link()
        races = Races([stream.accesses for stream in self._streams])
        initial = [token.initial for token in self._program.tokens] + [0] * len(self._links)
        ran = order([self._events(stream) for stream in self._streams],
                    [len(stream.pcs) for stream in self._streams],
                    initial, races.visit, 2**self._bits - 1)
        return [*self._unmatched(), *self._deadlocks(ran), *self._counts(ran),
                *self._overflows(ran), *self._races(races), *self._stale(races)]

    def _at(self, queue: int, number: int, kind: FaultKind, message: str) -> Fault:
        stream = self._streams[queue]
        return fault_at(self._program, queue, stream.pcs[number], kind, message,
                        stream.indices[number])

    def _instruction(self, queue: int, number: int) -> str:
        return f"{self._program.streams[queue].queue}[{self._streams[queue].pcs[number]}]"

    def _events(self, stream: Unrolled) -> list[Event]:
        """Return the stream's events with those of its links."""
        if not self._links:
            return stream.events
        waits: dict[int, dict[int, int]] = {}
        signals: dict[int, dict[int, int]] = {}
        for event in stream.events:
            waits[event.number] = dict(event.waits)
            found = signals[event.number] = {}
            for token, count in event.signals:
                found[token] = found.get(token, 0) + count
        for listed, into in ((stream.sent, signals), (stream.received, waits)):
            for key, _, number in listed:
                counts = into.setdefault(number, {})
                token = self._links[key]
                counts[token] = counts.get(token, 0) + 1
        return [Event(number, tuple(waits.get(number, {}).items()),
                      tuple(signals.get(number, {}).items()))
                for number in sorted({*waits, *signals})]

    def _unmatched(self) -> list[Fault]:
        """Tiles sent and not received, received and not sent, or of another size."""
        found = []
        for key in self._links:
            sent = [(size, queue, at) for queue, s in enumerate(self._streams)
                    for other, size, at in s.sent if other == key]
            received = [(size, queue, at) for queue, s in enumerate(self._streams)
                        for other, size, at in s.received if other == key]
            for (size, _, _), (wanted, queue, at) in zip(sent, received, strict=False):
                if size != wanted:
                    found.append(self._at(queue, at, FaultKind.LINK, f"tile must have the "
                                          f"{size} elements that were sent, not {wanted}"))
                    break
            for ends, others, verb in ((sent, received, "received"), (received, sent, "sent")):
                if len(ends) > len(others):
                    _, queue, at = ends[len(others)]
                    found.append(self._at(
                        queue, at, FaultKind.LINK, f"tile from chip {key[0]} to chip {key[1]} "
                        f"with tag {key[2]} must be {verb} too, that is {len(others)} times "
                        f"for {len(ends)}"))
        return found

    def _deadlocks(self, ran: Order) -> list[Fault]:
        stuck = {blocked.queue: blocked for blocked in ran.blocked}
        found = []
        for queue, number, token, need, have in ran.blocked:
            givers = [other for other, stream in enumerate(self._streams)
                      if any(token == t for event in self._events(stream)
                             for t, _ in event.signals)]
            said = [f"{self._program.streams[giver].queue} signals it, "
                    + (f"waiting at [{self._streams[giver].pcs[stuck[giver].number]}]"
                       if giver in stuck else "ended") for giver in givers]
            name = (f"token {self._program.tokens[token].name!r}"
                    if token < len(self._program.tokens) else "a tile to receive")
            found.append(self._at(queue, number, FaultKind.DEADLOCK,
                                  f"waits for {need} of {name}, which has {have}: "
                                  f"{'; '.join(said) or 'nobody signals it'}"))
        return found

    def _counts(self, ran: Order) -> list[Fault]:
        if ran.blocked:
            return []
        return [Fault(FaultKind.BALANCE, f"token {token.name!r} must end at its initial count "
                                         f"{token.initial}, not {count}")
                for token, count in zip(self._program.tokens, ran.counts, strict=False)
                if count != token.initial]

    def _overflows(self, ran: Order) -> list[Fault]:
        return [Fault(FaultKind.OVERFLOW, f"token {self._program.tokens[token].name!r} must stay "
                                          f"within {2**self._bits - 1}, it can reach {peak}")
                for token, peak in ran.peaks.items() if token < len(self._program.tokens)]

    def _races(self, races: Races) -> list[Fault]:
        found = {}
        for race in races.races:
            here = self._streams[race.queue].pcs[race.number]
            there = self._streams[race.other_queue].pcs[race.other_number]
            key = race.queue, here, race.other_queue, there
            if key not in found:
                found[key] = self._at(
                    race.queue, race.number, FaultKind.RACE,
                    f"{self._bytes(race.access)} must be ordered by tokens with "
                    f"{self._instruction(race.other_queue, race.other_number)}, which "
                    f"{'writes' if race.other_writes else 'reads'} there")
        return list(found.values())

    def _stale(self, races: Races) -> list[Fault]:
        found = {}
        for stale in races.stale:
            key = stale.queue, self._streams[stale.queue].pcs[stale.number]
            if key not in found:
                found[key] = self._at(stale.queue, stale.number, FaultKind.UNINITIALISED,
                                      f"{self._bytes(stale.access)} must be written before "
                                      "they are read")
        return list(found.values())

    def _bytes(self, access: Access) -> str:
        return f"bytes of {self._places.shown(access, access)}"
