"""The ports of a chip's buffers and its crossbar: routes of the units, arbiters where they share.

A port of one client in a buffer with a bank for every port grants a word a cycle to it: nothing
needs arbitration. All other ports have an `Arbiter`, whose jobs end in events of the engine.
"""

from collections.abc import Callable
from typing import Protocol

from archsim.buffer import Arbiter
from archsim.lanes import Route
from machine.buffer import BufferConfig
from machine.chip import Machine
from machine.program import QueueKind, Space

__all__ = ["Job", "PortGroup", "Ports", "Schedule"]

Schedule = Callable[[int, Callable[[int], None]], None]  # call the function at the tick


class Job(Protocol):
    """Who is told that its words are through."""

    def granted(self, port: str, now: int, port_lost: int, bank_lost: int) -> None:
        """`port` granted the last word in the cycle before `now`; what was lost is in ticks."""


class PortGroup:
    """An arbiter whose jobs end in events; times are ticks, rounded up to the group's clock."""

    def __init__(self, clients: list[int], banks: int, period: int, schedule: Schedule):
        self._arbiter = Arbiter(clients, banks)
        self._period, self._schedule = period, schedule
        self._jobs: dict[int, tuple[Job, str]] = {}
        self._number = 0
        self._planned = -1  # the cycle of the event that counts

    @property
    def granted(self) -> list[int]:
        """Words granted so far, by port."""
        return self._arbiter.granted

    def ask(self, route: Route, words: int, now: int, job: Job) -> None:
        """Queue `words` words of `job` from `now` on."""
        cycle = -(-now // self._period)
        self._take(cycle)
        self._number += 1
        self._jobs[self._number] = job, route.port
        self._arbiter.request(route.port_index, route.client, words, self._number, cycle)
        self._plan()

    def _take(self, cycle: int) -> None:
        """Tell every job that ends at or before `cycle`."""
        while (finish := self._arbiter.next_finish()) is not None and finish <= cycle:
            for grant in self._arbiter.advance(finish):
                job, port = self._jobs.pop(grant.job)
                job.granted(
                    port,
                    finish * self._period,
                    grant.port_lost * self._period,
                    grant.bank_lost * self._period,
                )

    def _plan(self) -> None:
        finish = self._arbiter.next_finish()
        if finish is not None and finish != self._planned:
            self._planned = finish
            self._schedule(finish * self._period, self._event)

    def _event(self, now: int) -> None:
        if now == self._planned * self._period:
            self._take(self._planned)
            self._planned = -1
            self._plan()


class Ports:
    """All ports of one chip."""

    def __init__(self, machine: Machine, schedule: Schedule):
        self._machine, self._schedule = machine, schedule
        self._routes: dict[tuple[str, int, Space, bool], Route] = {}
        self._groups: list[tuple[list[str], PortGroup]] = []
        self.names: list[str] = []
        self.periods: dict[str, int] = {}
        for space, cfg in ((Space.SCRATCHPAD, machine.scratchpad),
                           (Space.ACCUMULATOR, machine.accumulator)):
            self._add(space, cfg)
        self._period = machine.ticks(machine.crossbar.clock)
        self.periods["crossbar"] = self._period
        self._add_port_group(["crossbar"], [machine.dma.count], 1, self._period)

    def _add(self, space: Space, cfg: BufferConfig) -> None:
        """Find the clients of every port of a buffer, and arbitrate where they share."""
        period = self._machine.ticks(cfg.clock)
        ports = [(port.name, i) for port in cfg.ports for i in range(port.count)]
        clients: dict[tuple[str, int], list[tuple[str, int]]] = {port: [] for port in ports}
        ways: list[tuple[tuple[str, int], tuple[str, int], bool]] = []
        for kind in QueueKind:
            name = kind.name.lower()
            for unit in range(self._machine.units(kind)):
                for write in (False, True):
                    port = cfg.port_of(name, unit, write=write)
                    if port is not None:
                        ways.append((port, (name, unit), write))
                        if (name, unit) not in clients[port]:
                            clients[port].append((name, unit))
        shared = cfg.banks < len(ports)
        named = {port: f"{space.name.lower()}.{port[0]}{port[1]}" for port in ports}
        members = ports if shared else [port for port in ports if len(clients[port]) > 1]
        groups = [members] if shared else [[port] for port in members]
        of: dict[tuple[str, int], PortGroup] = {}
        for group in groups:
            made = self._add_port_group([named[port] for port in group],
                                        [max(1, len(clients[port])) for port in group],
                                        cfg.banks if shared else 1, period)
            of |= {port: made for port in group}
        for port, (name, unit), write in ways:
            index = members.index(port) if shared else 0
            self._routes[name, unit, space, write] = Route(
                named[port], period, of.get(port), index, clients[port].index((name, unit)))
        self.names += named.values()
        self.periods |= {name: period for name in named.values()}

    def _add_port_group(
        self, names: list[str], clients: list[int], banks: int, period: int
    ) -> PortGroup:
        group = PortGroup(clients, banks, period, self._schedule)
        self._groups.append((names, group))
        return group

    def routes(self, kind: QueueKind, unit: int) -> dict[tuple[Space, bool], Route]:
        """Return the routes of one unit, by buffer and direction; those it has not are absent."""
        name = kind.name.lower()
        return {
            (space, write): route
            for (n, u, space, write), route in self._routes.items()
            if (n, u) == (name, unit)
        }

    def crossbar(self, unit: int) -> Route:
        """Return the way of DMA engine `unit` over the crossbar."""
        return Route("crossbar", self._period, self._groups[-1][1], 0, unit)

    def shared_words(self) -> dict[str, int]:
        """Return the words granted by every arbiter, by port."""
        return {
            name: count
            for names, group in self._groups
            for name, count in zip(names, group.granted, strict=True)
        }
