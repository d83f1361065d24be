"""Lanes: units that do the same at the same time, kept as one, and when each accepts work.

An array accepts a MATMUL one cycle before the last tile in front starts (its command is fetched
ahead); the first activation enters when the weights are loaded and the tile in front is through.
Weights load from the first activation of the tile in front on: the second weight registers. A
PRELOAD is those weights as an instruction of its own. A FLUSH, and every operation of a vector
unit, waits for the completion of the one in front and overlaps with nothing.

A unit that shares no port with another one depends on nothing but its instructions. Such units of
one queue start as one lane, and part only when an instruction drives some of them or gives them
tiles of different sizes: an exact shortcut.
"""

from collections import deque
from typing import Any

from archsim.demand import Demand
from machine.opcodes import Opcode
from machine.program import QueueKind, Space

__all__ = ["Lane", "Route"]


class Route:
    """The way from a unit to a buffer: its port, and who arbitrates it."""

    __slots__ = ("client", "group", "period", "port", "port_index")

    def __init__(self, port: str, period: int, group: Any, port_index: int, client: int):
        self.port = port  # the port's name and number, for the books
        self.period = period  # ticks of a word
        self.group = group  # the arbiter; None where the unit has the port for itself
        self.port_index, self.client = port_index, client  # in the arbiter


class Lane:
    """One or more units of one queue with the same past; times are ticks.

    `free` says until when each port that is the units' own is taken.
    """

    shareable = True  # units may start as one lane

    def __init__(self, kind: QueueKind, unit_list: tuple[int, ...],
                 routes: dict[tuple[Space, bool], Route]):
        self.kind = kind
        self.units = unit_list
        self.mask = sum(1 << unit for unit in unit_list)
        self.routes = routes
        self.private = all(route.group is None for route in routes.values())
        self.free = {route.port: 0 for route in routes.values()}
        self.words = {route.port: 0 for route in routes.values()}  # granted to one unit
        self.beats_end = 0  # the cycle after the last beat in front
        self.next_command = 0  # when the next command can be accepted
        self.weights_open = 0  # when the next weights may begin to load
        self.weights_command = 0  # when a PRELOAD of them can be accepted
        self.weights_at = 0  # when preloaded weights are complete
        self.sum_beats = 0  # rows of sums still to leave in front
        self.done = 0  # completion of the work in front
        self.last_start = -1
        self.pending = False  # the end of the work in front is not known yet
        self.in_flight: deque[Any] = deque()  # transfers, oldest first

    def split(self, part: tuple[int, ...]) -> "Lane":
        """Part the lane: return a new one for the units of `part`, keep the others."""
        other = Lane(self.kind, part, self.routes)
        other.free, other.words = dict(self.free), dict(self.words)
        for name in ("beats_end", "next_command", "weights_open", "weights_command", "weights_at",
                     "sum_beats", "done", "last_start"):
            setattr(other, name, getattr(self, name))
        self.units = tuple(unit for unit in self.units if unit not in part)
        self.mask = sum(1 << unit for unit in self.units)
        return other

    def accepts(self, opcode: Opcode) -> int:
        """Return the earliest start of the next instruction, once nothing is pending."""
        if opcode is Opcode.MATMUL:
            return self.next_command
        if opcode is Opcode.PRELOAD:
            return self.weights_command
        return self.done

    def own_ports(self, demand: Demand, start: int) -> int:
        """Move the words of `demand` through ports of the units' own; return their end."""
        end = start
        for space, write, count in demand.ports:
            route = self.routes[space, write]
            if route.group is None:
                self.words[route.port] += count
                moved = max(self.free[route.port], start) + count * route.period
                self.free[route.port] = moved
                end = max(end, moved)
        return end

    def first_beat(self, opcode: Opcode, demand: Demand, start: int) -> int:
        """Return when the first beat of an instruction started at `start` enters."""
        if opcode is Opcode.PRELOAD:
            return max(start + demand.fill, self.weights_open + demand.loads)
        if opcode is not Opcode.MATMUL:
            return start + demand.fill
        return max(
            start + demand.fill,
            self.weights_at,
            self.weights_open + demand.loads,
            self.beats_end,
            self.beats_end + self.sum_beats - demand.head_beats,
        )

    def finish(self, opcode: Opcode, demand: Demand, first: int, end: int) -> int:
        """Note that the last beat of the work in front is in at `end`; return its completion."""
        self.pending = False
        if opcode is Opcode.PRELOAD:
            self.weights_at = self.weights_open = self.weights_command = end
            return end
        self.done = completion = end + demand.drain
        if opcode is Opcode.MATMUL:
            self.beats_end = end
            self.next_command = max(end - demand.tail, first - demand.period)
            self.weights_open = max(end - demand.weights_held, first)
            self.weights_at = 0
            self.sum_beats = demand.sum_beats
        else:
            self.beats_end = self.next_command = self.weights_open = completion
        self.weights_command = max(0, self.weights_open - demand.period)
        return completion
