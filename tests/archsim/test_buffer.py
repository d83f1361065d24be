"""Ports and banks: the closed form grants every word in the cycle a per-cycle arbiter does."""

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from archsim.buffer import advance, next_finish, request, words
from archsim.engine import cells as c
from archsim.engine.layout import Layout
from archsim.engine.routes import arbiter


class Grant(NamedTuple):
    """The end of one job: when its last word was granted, and what it lost before."""

    job: int
    finish: int  # the cycle after its last grant
    port_lost: int  # cycles in which its port served another client
    bank_lost: int  # cycles in which its port was served by no bank


def stepped(clients, banks, jobs):
    """Grant cycle by cycle; `jobs` are (start, port, client, words). Returns finish and losses."""
    queues = {(p, c): [] for p, n in enumerate(clients) for c in range(n)}
    turn = [n - 1 for n in clients]
    port_turn, now, ended = len(clients) - 1, 0, {}
    todo = sorted(enumerate(jobs), key=lambda job: job[1][0])
    while todo or any(queues.values()):
        while todo and todo[0][1][0] == now:
            job, (_, port, client, count) = todo.pop(0)
            queues[port, client].append([job, count, 0, 0])
        # The ports that have words to move, from the one after the last served.
        ring = [(port_turn + 1 + k) % len(clients) for k in range(len(clients))]
        ring = [p for p in ring if any(queues[p, c] for c in range(clients[p]))]
        for port in ring:
            order = [(turn[port] + 1 + k) % clients[port] for k in range(clients[port])]
            order = [c for c in order if queues[port, c]]
            if port in ring[:banks]:
                port_turn = port
                turn[port] = order[0]
                queues[port, order[0]][0][1] -= 1
                for c in order[1:]:
                    queues[port, c][0][2] += 1
                if queues[port, order[0]][0][1] == 0:
                    job, _, port_lost, bank_lost = queues[port, order[0]].pop(0)
                    ended[job] = Grant(job, now + 1, port_lost, bank_lost)
            else:
                for c in order:
                    queues[port, c][0][3] += 1
        now += 1
    return ended


def memory_of(clients, banks, jobs):
    """The engine's memory with one arbiter and room for `jobs` jobs; the arbiter's place."""
    layout = Layout()
    group = arbiter(layout, range(len(clients)), clients, banks, 1)
    layout.set(0, FREE_JOB=layout.pool(c.JOB, jobs, c.J_NEXT),
               AT_ENDED=layout.place([0] * (sum(clients) * c.GRANT)))
    return layout.finish(c.D_SIZES, 0), group


def closed(clients, banks, jobs):
    memory, group = memory_of(clients, banks, len(jobs))
    ended = {}

    def take(until):
        while (finish := next_finish(memory, group)) <= until:
            first, count = memory[c.AT_ENDED], advance(memory, group, finish)
            for job, _, *lost in memory[first : first + count * c.GRANT].reshape(-1, c.GRANT):
                ended[job] = Grant(job, finish, *lost)

    for job, (start, port, client, count) in sorted(enumerate(jobs), key=lambda job: job[1][0]):
        take(start)
        request(memory, group, port, client, count, job, start)
    take(c.NEVER - 1)
    first = memory[group + c.G_PORT] + c.O_GRANTED
    granted = memory[first : first + len(clients) * c.PORT : c.PORT]
    assert granted.sum() == sum(count for *_, count in jobs)
    return ended


@st.composite
def cases(draw):
    clients = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    ports = st.integers(0, len(clients) - 1)
    jobs = []
    for _ in range(draw(st.integers(1, 8))):
        port = draw(ports)
        client = draw(st.integers(0, clients[port] - 1))
        jobs.append((draw(st.integers(0, 40)), port, client, draw(st.integers(1, 25))))
    return clients, draw(st.integers(1, 5)), jobs


@settings(max_examples=400, deadline=None)
@given(cases())
def test_closed_form_grants_as_a_per_cycle_arbiter(case):
    assert closed(*case) == stepped(*case)


def test_alone_a_client_gets_a_word_a_cycle():
    assert closed([1], 1, [(5, 0, 0, 7)]) == {0: Grant(0, 12, 0, 0)}


def test_two_clients_of_a_port_alternate():
    # Cycles 0, 2, 4 go to client 0; cycles 1, 3 and then 5, 6 to client 1.
    ended = closed([2], 1, [(0, 0, 0, 3), (0, 0, 1, 4)])
    assert ended == {0: Grant(0, 5, 2, 0), 1: Grant(1, 7, 3, 0)}


def test_two_ports_on_one_bank_lose_cycles_to_the_bank():
    ended = closed([1, 1], 1, [(0, 0, 0, 3), (0, 1, 0, 3)])
    assert ended == {0: Grant(0, 5, 0, 2), 1: Grant(1, 6, 0, 3)}


def test_two_ports_on_two_banks_lose_nothing():
    ended = closed([1, 1], 2, [(0, 0, 0, 3), (0, 1, 0, 3)])
    assert ended == {0: Grant(0, 3, 0, 0), 1: Grant(1, 3, 0, 0)}


def test_jobs_of_one_client_follow_each_other():
    ended = closed([1], 1, [(0, 0, 0, 4), (1, 0, 0, 4)])
    assert [ended[job].finish for job in (0, 1)] == [4, 8]


def test_every_run_starts_a_word():
    assert words(1, 33, 32) == 2
    assert words(4, 32, 32) == 4
    assert words(3, 1, 32) == 3
