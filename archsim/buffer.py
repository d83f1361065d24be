"""Ports and banks of a buffer: who gets a word in which cycle.

In every cycle a port grants one word to one of its clients that have words to move, in turn
(round-robin). A buffer with fewer banks than ports serves as many ports a cycle as it has banks,
in turn as well: the ports that have clients form a ring, and each cycle goes on where the last
one stopped. Word addresses are not compared: neighbouring words lie in neighbouring banks, so
streams that meet in a bank once are one bank apart ever after.

An arbiter, a `group` of ports, gives the exact cycle of every grant without stepping through
cycles: while the set of active clients stays the same, the grants repeat with a fixed period. Its
time is in cycles. The jobs of a client follow each other; each is a number of words, for `who`.
"""

from archsim.engine import cells as c
from archsim.engine.compiled import Flat, compiled, entry

__all__ = ["advance", "next_finish", "request", "words"]


def words(runs: int, run_bytes: int, word_bytes: int) -> int:
    """Return how many words `runs` contiguous runs of `run_bytes` take; each starts a word."""
    return runs * -(-run_bytes // word_bytes)


@compiled
def port_of(e: Flat, group: int, step: int) -> int:
    """Return the number of the port `step` behind the one served last."""
    port = e[group + c.G_TURN] + step
    return port - e[group + c.G_PORTS] if port >= e[group + c.G_PORTS] else port


@compiled
def client_of(e: Flat, port: int, turn: int, step: int) -> int:
    """Return the number of the client of `port` that is `step` behind `turn`."""
    client = turn + step
    return client - e[port + c.O_CLIENTS] if client >= e[port + c.O_CLIENTS] else client


@compiled
def active_clients(e: Flat, port: int) -> int:
    """Return how many clients of `port` have words to move."""
    count = 0
    first = e[port + c.O_CLIENT]
    for client in range(first, first + e[port + c.O_CLIENTS] * c.CLIENT, c.CLIENT):
        if e[client + c.C_LEFT] > 0:
            count += 1
    return count


@compiled
def active_ports(e: Flat, group: int) -> int:
    """Return how many ports of `group` have clients with words to move."""
    count = 0
    for number in range(e[group + c.G_PORTS]):
        if active_clients(e, e[group + c.G_PORT] + number * c.PORT) > 0:
            count += 1
    return count


@entry
def next_finish(e: Flat, group: int) -> int:
    """Return the cycle at which the next job ends if nothing else is asked; NEVER if idle."""
    if e[group + c.G_FINISH] != c.NONE:
        return e[group + c.G_FINISH]
    if e[group + c.G_LIVE] == 0:
        return c.NEVER
    soonest, place, active = c.NEVER, 0, active_ports(e, group)
    for step in range(1, e[group + c.G_PORTS] + 1):
        port = e[group + c.G_PORT] + port_of(e, group, step) * c.PORT
        size = active_clients(e, port)
        if size == 0:
            continue
        index = 0
        for behind in range(1, e[port + c.O_CLIENTS] + 1):
            number = client_of(e, port, e[port + c.O_TURN], behind)
            client = e[port + c.O_CLIENT] + number * c.CLIENT
            if e[client + c.C_LEFT] > 0:
                nth = index + (e[e[client + c.C_OLDEST] + c.J_LEFT] - 1) * size
                if active > e[group + c.G_BANKS]:
                    nth = (place + nth * active) // e[group + c.G_BANKS]
                soonest = min(soonest, nth)
                index += 1
        place += 1
    e[group + c.G_FINISH] = e[group + c.G_NOW] + soonest + 1
    return e[group + c.G_FINISH]


@compiled
def take_words(e: Flat, group: int, port: int, client: int, mine: int, ended: int) -> int:
    """Give a client `mine` words, with the last of which its first job may end.

    Returns how many jobs have ended: `ended`, and one more if it did.
    """
    e[client + c.C_LEFT] -= mine
    if e[client + c.C_LEFT] == 0:
        e[group + c.G_LIVE] -= 1
    job = e[client + c.C_OLDEST]
    e[job + c.J_LEFT] -= mine
    if e[job + c.J_LEFT] > 0:
        return ended
    grant = e[c.AT_ENDED] + ended * c.GRANT
    e[grant + c.GR_JOB], e[grant + c.GR_PORT] = e[job + c.J_WHO], e[port + c.O_NAME]
    e[grant + c.GR_PORT_LOST] = e[client + c.C_PORT_LOST] - e[client + c.C_PORT_MARK]
    e[grant + c.GR_BANK_LOST] = e[client + c.C_BANK_LOST] - e[client + c.C_BANK_MARK]
    e[client + c.C_PORT_MARK] = e[client + c.C_PORT_LOST]
    e[client + c.C_BANK_MARK] = e[client + c.C_BANK_LOST]
    e[client + c.C_OLDEST] = e[job + c.J_NEXT]
    e[job + c.J_NEXT] = e[c.FREE_JOB]
    e[c.FREE_JOB] = job
    return ended + 1


@compiled
def serve_port(
    e: Flat, group: int, number: int, got: int, cycles: int, ended: int
) -> int:
    """Deal the `got` words that a port grants within `cycles` out to its clients.

    Returns how many jobs have ended, `ended` of them before.
    """
    port = e[group + c.G_PORT] + number * c.PORT
    size, turn, index = active_clients(e, port), e[port + c.O_TURN], 0
    e[port + c.O_GRANTED] += got
    for behind in range(1, e[port + c.O_CLIENTS] + 1):
        own = client_of(e, port, turn, behind)
        client = e[port + c.O_CLIENT] + own * c.CLIENT
        if e[client + c.C_LEFT] == 0:
            continue
        mine = max(0, -(-(got - index) // size))
        e[client + c.C_PORT_LOST] += got - mine
        e[client + c.C_BANK_LOST] += cycles - got
        if mine > 0:
            if (got - 1) % size == index:
                e[port + c.O_TURN] = own
            ended = take_words(e, group, port, client, mine, ended)
        index += 1
    return ended


@compiled
def serve(e: Flat, group: int, cycles: int) -> int:
    """Grant `cycles` cycles in which the set of active clients does not change.

    Returns how many jobs have ended; they are listed from AT_ENDED on.
    """
    e[group + c.G_NOW] += cycles
    if cycles == 0 or e[group + c.G_LIVE] == 0:
        return 0
    ended, place, active, last = 0, 0, active_ports(e, group), c.NONE
    banks = e[group + c.G_BANKS]
    for step in range(1, e[group + c.G_PORTS] + 1):
        number = port_of(e, group, step)
        if active_clients(e, e[group + c.G_PORT] + number * c.PORT) == 0:
            continue
        got = cycles
        if active > banks:
            got = max(0, -(-(cycles * banks - place) // active))
        if active <= banks or (got > 0 and (cycles * banks - 1) % active == place):
            last = number
        ended = serve_port(e, group, number, got, cycles, ended)
        place += 1
    if last != c.NONE:
        e[group + c.G_TURN] = last
    return ended


@entry
def advance(e: Flat, group: int, until: int) -> int:
    """Move to the next cycle at which jobs end, at most `until`; return how many, see `serve`."""
    finish = next_finish(e, group)
    if finish > until:
        if until > e[group + c.G_NOW]:
            serve(e, group, until - e[group + c.G_NOW])
        return 0
    ended = serve(e, group, finish - e[group + c.G_NOW])
    e[group + c.G_FINISH] = c.NONE
    return ended


@entry
def request(
    e: Flat, group: int, index: int, client: int, asked: int, who: int, now: int
) -> None:
    """Let a client of port `index` ask for `asked` words from cycle `now` on.

    Every job that ends at or before `now` must have been taken with `advance`.
    """
    if now > e[group + c.G_NOW]:
        advance(e, group, now)
    place = e[e[group + c.G_PORT] + index * c.PORT + c.O_CLIENT] + client * c.CLIENT
    job = e[c.FREE_JOB]
    e[c.FREE_JOB] = e[job + c.J_NEXT]
    e[job + c.J_LEFT], e[job + c.J_WHO], e[job + c.J_NEXT] = asked, who, c.NONE
    if e[place + c.C_LEFT] == 0:
        e[place + c.C_PORT_MARK] = e[place + c.C_PORT_LOST]
        e[place + c.C_BANK_MARK] = e[place + c.C_BANK_LOST]
        e[place + c.C_OLDEST] = job
        e[group + c.G_LIVE] += 1
    else:
        e[e[place + c.C_NEWEST] + c.J_NEXT] = job
    e[place + c.C_NEWEST] = job
    e[place + c.C_LEFT] += asked
    e[group + c.G_FINISH] = c.NONE
