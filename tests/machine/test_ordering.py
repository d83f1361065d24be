"""Happens-before against an oracle that tries every order of every queue."""

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from machine.ordering import Event, order


def explore(events, initial):
    """Run the queues in every possible order.

    Return, for each (queue, event, other), the least number of events `other` can have run when
    the event runs; whether some order ends and some order blocks; and each token's greatest count.
    """
    start = (0,) * len(events), tuple(initial)
    todo, seen = [start], {start}
    least, ends, blocks, peaks = {}, False, False, list(initial)
    while todo:
        at, counts = todo.pop()
        peaks = list(map(max, peaks, counts))
        moved = False
        for queue, listed in enumerate(events):
            if at[queue] == len(listed):
                continue
            event = listed[at[queue]]
            if any(counts[token] < count for token, count in event.waits):
                continue
            moved = True
            for other in range(len(events)):
                key = queue, at[queue], other
                least[key] = min(least.get(key, at[other]), at[other])
            after = list(counts)
            for token, count in event.waits:
                after[token] -= count
            for token, count in event.signals:
                after[token] += count
            state = at[:queue] + (at[queue] + 1,) + at[queue + 1 :], tuple(after)
            if state not in seen:
                seen.add(state)
                todo.append(state)
        if not moved:
            done = all(at[queue] == len(listed) for queue, listed in enumerate(events))
            ends, blocks = ends or done, blocks or not done
    return least, ends, blocks, peaks


def run(events, initial, limit=10**9):
    """Return the result of `order`, and the clock of each (queue, event)."""
    clocks = {}

    def visit(segment):
        for number in range(segment.start, segment.stop):
            clocks[segment.queue, number] = segment.clock

    return order(events, [len(listed) for listed in events], initial, visit, limit), clocks


def listed(*queues):
    """Return events from (waits, signals), each a dictionary by token."""
    return [[Event(number, tuple(waits.items()), tuple(signals.items()))
             for number, (waits, signals) in enumerate(queue)] for queue in queues]


COUNTS = st.dictionaries(st.integers(0, 3), st.integers(1, 2), max_size=2)


@st.composite
def systems(draw, shared_waits):
    """Random queues over four tokens; with `shared_waits`, several queues may wait for one."""
    count = draw(st.integers(2, 4))
    waiter = [draw(st.integers(0, count - 1)) for _ in range(4)]
    queues = []
    for queue in range(count):
        events = []
        for _ in range(draw(st.integers(1, 4))):
            waits = {token: n for token, n in draw(COUNTS).items()
                     if shared_waits or waiter[token] == queue}
            events.append((waits, draw(COUNTS)))
        queues.append(events)
    return listed(*queues), [draw(st.integers(0, 2)) for _ in range(4)]


def agrees(system):
    events, initial = system
    least, ends, blocks, peaks = explore(events, initial)
    found, clocks = run(events, initial)
    # With one waiting queue a token, every order ends in the same way.
    assert ends != blocks
    assert bool(found.blocked) == blocks
    for (queue, at, other), known in least.items():
        if other != queue:
            assert clocks[queue, at][other] <= known, (queue, at, other)
    assert set(clocks) == {(queue, at) for queue, at, _ in least}
    for limit in (0, 1, 2):
        over = run(events, initial, limit)[0].peaks
        assert over == {t: peak for t, peak in enumerate(peaks) if peak > limit}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(systems(shared_waits=False))
def test_clocks_deadlocks_and_peaks_hold_in_every_order(system):
    agrees(system)


@pytest.mark.slow
@settings(max_examples=10000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(systems(shared_waits=False))
def test_clocks_deadlocks_and_peaks_hold_in_every_order_of_many(system):
    agrees(system)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(systems(shared_waits=True))
def test_clocks_are_sound_where_several_queues_wait_for_one_token(system):
    events, initial = system
    least, ends, blocks, _ = explore(events, initial)
    assume(ends and not blocks)
    found, clocks = run(events, initial)
    assert not found.blocked
    for (queue, at, other), known in least.items():
        if other != queue:
            assert clocks[queue, at][other] <= known


def test_one_producer_orders_exactly_its_cth_signal():
    events = listed([({}, {0: 1})] * 3, [({0: 1}, {})] * 3)
    _, clocks = run(events, [0])
    assert [clocks[1, at][0] for at in range(3)] == [1, 2, 3]
    _, clocks = run(events, [2])  # two may be taken before anything is signalled
    assert [clocks[1, at][0] for at in range(3)] == [0, 0, 1]


def test_two_producers_order_only_when_both_are_needed():
    one, other = [({}, {0: 1})], [({}, {0: 1})]
    _, clocks = run(listed(one, other, [({0: 2}, {})]), [0])
    assert clocks[2, 0] == (1, 1, 0)
    _, clocks = run(listed(one, other, [({0: 1}, {}), ({0: 1}, {})]), [0])
    assert (clocks[2, 0], clocks[2, 1]) == ((0, 0, 0), (1, 1, 0))


def test_producers_that_cannot_run_ahead_are_told_apart():
    # Each of two producers waits for its own free token: when the consumer asks for its second
    # pair, neither can have signalled a third time.
    producer = [[({1 + i: 1}, {0: 1})] * 4 for i in range(2)]
    consumer = [({0: 2}, {1: 1, 2: 1})] * 4
    _, clocks = run(listed(*producer, consumer), [0, 1, 1])
    assert [clocks[2, at][:2] for at in range(4)] == [(1, 1), (2, 2), (3, 3), (4, 4)]


def test_order_passes_through_a_third_queue():
    events = listed([({}, {0: 1})], [({0: 1}, {1: 1})], [({1: 1}, {})])
    assert run(events, [0, 0])[1][2, 0] == (1, 1, 0)


def test_a_queue_that_waits_for_ever_is_reported_with_what_it_lacks():
    events = listed([({0: 2}, {1: 1})], [({1: 1}, {0: 2})])
    assert [tuple(b) for b in run(events, [0, 0])[0].blocked] == [(0, 0, 0, 2, 0), (1, 0, 1, 1, 0)]
    assert run(events, [2, 0])[0].blocked == []
    assert run(events, [1, 0])[0].blocked != []


def test_instructions_between_events_share_the_clock_of_the_event_before():
    seen = []
    order([[Event(1, ((0, 1),), ()), Event(3, (), ((1, 1),))], [Event(0, (), ((0, 1),))]],
          [5, 1], [0, 0], seen.append, 9)
    mine = sorted((s.start, s.stop, s.clock) for s in seen if s.queue == 0)
    assert mine == [(0, 1, (0, 0)), (1, 3, (0, 1)), (3, 5, (0, 1))]
