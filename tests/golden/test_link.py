"""Links: what is sent is received once, by tag, in order."""

import numpy as np

from golden.link import Links


def test_tiles_of_one_tag_arrive_in_the_order_sent():
    links = Links()
    for number in range(3):
        links.send(0, 1, 7, np.array([number]))
    assert [int(links.receive(0, 1, 7)[0]) for _ in range(3)] == [0, 1, 2]
    assert not links.arrived(0, 1, 7)


def test_source_destination_and_tag_are_apart():
    links = Links()
    links.send(0, 1, 7, np.array([1]))
    assert links.arrived(0, 1, 7)
    assert not any(links.arrived(*key) for key in ((1, 0, 7), (0, 2, 7), (0, 1, 8)))


def test_a_tile_is_sent_as_it_was():
    links, values = Links(), np.array([1, 2])
    links.send(0, 1, 7, values)
    values[:] = 9
    assert links.receive(0, 1, 7).tolist() == [1, 2]


def test_pending_names_what_was_not_received():
    links = Links()
    assert links.pending == []
    links.send(2, 1, 5, np.zeros(1))
    links.send(0, 1, 7, np.zeros(1))
    assert links.pending == [(0, 1, 7), (2, 1, 5)]
    links.receive(0, 1, 7)
    assert links.pending == [(2, 1, 5)]
