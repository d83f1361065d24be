"""The ports of a chip's buffers and its crossbar: routes of the units, arbiters where they share.

A port of one client in a buffer with a bank for every port grants a word a cycle to it: nothing
needs arbitration. All other ports have an arbiter, `archsim.buffer`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from archsim.engine import cells as c
from archsim.engine.layout import Layout
from machine.buffer import BufferConfig
from machine.chip import Machine
from machine.program import QueueKind, Space

__all__ = ["Route", "Routes", "arbiter", "way"]


class Route(NamedTuple):
    """The way from a unit to a buffer; `group` is the arbiter's place, NONE for a port of its own.

    `slot` says which of the unit's own ports it is.
    """

    port: int  # into `Routes.names`
    period: int  # ticks of a word
    slot: int
    group: int
    number: int  # of the port in the arbiter
    client: int  # of the port


def way(space: Space, *, write: bool) -> int:
    """Return the number of a unit's route to a buffer."""
    return 2 * (space is Space.ACCUMULATOR) + write


def arbiter(
    layout: Layout, names: Sequence[int], clients: Sequence[int], banks: int, period: int
) -> int:
    """Lay out an arbiter of ports with these names and numbers of clients; return its place."""
    group = layout.place([0] * c.GROUP)
    ports = layout.place([0] * (c.PORT * len(names)))
    for number, (name, count) in enumerate(zip(names, clients, strict=True)):
        first = layout.place([0] * (c.CLIENT * count))
        layout.set(ports + number * c.PORT, O_NAME=name, O_TURN=count - 1, O_CLIENTS=count,
                   O_CLIENT=first)
    layout.set(group, G_PERIOD=period, G_BANKS=banks, G_TURN=len(names) - 1, G_FINISH=c.NONE,
               G_PLANNED=c.NONE, G_PORTS=len(names), G_PORT=ports)
    return group


class Routes:
    """All ports of one chip; the crossbar is the last of `names`."""

    def __init__(self, machine: Machine, layout: Layout):
        self._machine, self._layout = machine, layout
        self.names: list[str] = []
        self.periods: list[int] = []
        self.clients = 0  # of all arbiters
        self._routes: dict[tuple[QueueKind, int], dict[int, Route]] = {}
        self._ports: list[tuple[int, int]] = []  # name and place of every arbitrated port
        self._places: dict[tuple[QueueKind, int], int] = {}
        for space, cfg in ((Space.SCRATCHPAD, machine.scratchpad),
                           (Space.ACCUMULATOR, machine.accumulator)):
            self._add(space, cfg)
        period = machine.ticks(machine.crossbar.clock)
        name = self._name("crossbar", period)
        clients = machine.dma.count + machine.units(QueueKind.PIM)
        group = self._arbiter([name], [clients], 1, period)
        self.crossbar = Route(name, period, c.NONE, group, 0, 0)
        self._lay_out_units()

    def of(self, kind: QueueKind, unit: int) -> dict[int, Route]:
        """Return the routes of one unit by `way`; those it has not are absent."""
        return self._routes.get((kind, unit), {})

    def private(self, kind: QueueKind, unit: int) -> bool:
        """Return whether no other unit shares a port with this one."""
        return all(route.group == c.NONE for route in self.of(kind, unit).values())

    def place(self, kind: QueueKind, unit: int) -> int:
        """Return the place of a unit's routes."""
        return self._places[kind, unit]

    def granted(self, memory: np.ndarray) -> dict[int, int]:
        """Return the words that arbiters granted, by number of the port's name."""
        return {name: int(memory[port + c.O_GRANTED]) for name, port in self._ports}

    def _name(self, name: str, period: int) -> int:
        self.names.append(name)
        self.periods.append(period)
        return len(self.names) - 1

    def _arbiter(
        self, names: Sequence[int], clients: Sequence[int], banks: int, period: int
    ) -> int:
        group = arbiter(self._layout, names, clients, banks, period)
        first = self._layout.cells[group + c.G_PORT]
        self._ports += [(name, first + n * c.PORT) for n, name in enumerate(names)]
        self.clients += sum(clients)
        return group

    def _add(self, space: Space, cfg: BufferConfig) -> None:
        """Find the clients of every port of a buffer, and arbitrate where they share."""
        period = self._machine.ticks(cfg.clock)
        ports = [(port.name, i) for port in cfg.ports for i in range(port.count)]
        clients: dict[tuple[str, int], list[tuple[QueueKind, int]]] = {port: [] for port in ports}
        ways: list[tuple[tuple[str, int], tuple[QueueKind, int], bool]] = []
        for kind in QueueKind:
            for unit in range(self._machine.units(kind)):
                for write in (False, True):
                    port = cfg.port_of(kind.name.lower(), unit, write=write)
                    if port is not None:
                        ways.append((port, (kind, unit), write))
                        if (kind, unit) not in clients[port]:
                            clients[port].append((kind, unit))
        shared = cfg.banks < len(ports)
        named = {port: self._name(f"{space.name.lower()}.{port[0]}{port[1]}", period)
                 for port in ports}
        members = ports if shared else [port for port in ports if len(clients[port]) > 1]
        groups = [members] if shared else [[port] for port in members]
        of: dict[tuple[str, int], int] = {}
        for group in groups:
            made = self._arbiter([named[port] for port in group],
                                 [max(1, len(clients[port])) for port in group],
                                 cfg.banks if shared else 1, period)
            of |= {port: made for port in group}
        for port, client, write in ways:
            routes = self._routes.setdefault(client, {})
            own = list(dict.fromkeys(r.port for r in routes.values() if r.group == c.NONE))
            slot = own.index(named[port]) if named[port] in own else len(own)
            routes[way(space, write=write)] = Route(
                named[port], period, slot, of.get(port, c.NONE),
                members.index(port) if shared else 0, clients[port].index(client))

    def _lay_out_units(self) -> None:
        for kind in QueueKind:
            for unit in range(self._machine.units(kind)):
                cells = [c.NONE] * (c.WAYS * c.ROUTE)
                for number, route in self.of(kind, unit).items():
                    cells[number * c.ROUTE : (number + 1) * c.ROUTE] = route
                self._places[kind, unit] = self._layout.place(cells)
