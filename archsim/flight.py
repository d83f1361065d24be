"""An instruction under way, and the share that each lane of units has in it."""

from collections.abc import Callable
from typing import Any

from archsim.demand import Demand, Plan
from archsim.lanes import Lane

__all__ = ["At", "Flight", "Part"]

At = Callable[[int, Callable[[int], None]], None]  # call the function at the tick


class Flight:
    """One instruction from its start to its completion; `row` is its row of the log."""

    __slots__ = ("completion", "left", "plan", "row", "stream")

    def __init__(self, stream: Any, plan: Plan, row: int, parts: int):
        self.stream, self.plan, self.row = stream, plan, row
        self.left = parts  # parts not complete
        self.completion = 0


class Part:
    """One lane's share; `pending` counts what has not ended: ports, memory, message.

    When nothing is pending, `through` is called with the part and the tick.
    """

    __slots__ = ("bank_lost", "demand", "filled", "first", "flight", "lane", "last", "lost",
                 "pending", "port_end", "port_lost", "ready", "start", "through", "work_end")

    def __init__(self, flight: Flight, lane: Lane, demand: Demand, start: int,
                 through: Callable[["Part", int], None]):
        self.flight, self.lane, self.demand, self.through = flight, lane, demand, through
        self.start = start
        self.filled = start  # until then it waits for a message
        self.first = start  # when the first beat or byte moves
        self.work_end = start  # when the last would be in, were it alone
        self.port_end = start  # when the last word was granted
        self.last = start  # when the last byte of memory or message came
        self.port_lost = self.bank_lost = 0  # of the port that was through last
        self.lost: dict[str, list[int]] = {}  # of each port
        self.pending = 0
        self.ready = False

    def granted(self, port: str, now: int, port_lost: int, bank_lost: int) -> None:
        """A job of this part is through `port`; those of one port follow each other."""
        lost = self.lost.setdefault(port, [0, 0])
        lost[0] += port_lost
        lost[1] += bank_lost
        if now >= self.port_end:
            self.port_end = now
            self.port_lost, self.bank_lost = lost
        self.came(now)

    def came(self, now: int) -> None:
        """One of the pending things ended."""
        self.pending -= 1
        if self.pending == 0:
            self.through(self, now)

    def ask(self, now: int) -> None:
        """Move the words of the part through its ports, from `now` on."""
        lane = self.lane
        self.port_end = max(self.port_end, lane.own_ports(self.demand, now))
        if not lane.private:
            for space, write, count in self.demand.ports:
                route = lane.routes[space, write]
                if route.group is not None:
                    self.pending += 1
                    route.group.ask(route, count, now, self)

    def segments(self, end: int, completion: int) -> tuple[int, ...]:
        """Return the boundaries of the classes of this part: see `archsim.accounting.PARTS`.

        A delay by ports is split as the words lost their turns: to banks, then to other clients;
        what is left is the port's own width.
        """
        late = max(0, min(self.port_end, end) - self.work_end)
        bank = min(late, self.bank_lost)
        port = min(late - bank, self.port_lost)
        bank_end, moved = self.work_end + bank, self.work_end + late
        return (self.lane.mask, self.start, self.filled, self.first, self.work_end, bank_end,
                bank_end + port, moved, max(end, moved), completion)
