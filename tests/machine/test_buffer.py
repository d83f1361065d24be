"""Buffers: whole banks of whole words, and ports that serve the units they name."""

from dataclasses import replace

import pytest

from machine.buffer import BufferConfig, PortConfig

READ = PortConfig(name="r", clients=("array",), access="read", count=2)
WRITE = PortConfig(name="w", clients=("array", "dma"), access="write")
BOTH = PortConfig(name="b", clients=("vector",))
BUFFER = BufferConfig(bytes=1024, word_bytes=32, banks=4, ports=(READ, WRITE, BOTH))


@pytest.mark.parametrize(("client", "instance", "write", "port"), [
    ("array", 0, False, ("r", 0)), ("array", 1, False, ("r", 1)), ("array", 2, False, ("r", 0)),
    ("array", 2, True, ("w", 0)), ("dma", 5, True, ("w", 0)), ("dma", 0, False, None),
    ("vector", 0, False, ("b", 0)), ("vector", 3, True, ("b", 0)), ("link", 0, True, None)])
def test_port_is_the_first_that_serves_the_client_and_the_direction(client, instance, write, port):
    assert BUFFER.port_of(client, instance, write=write) == port


@pytest.mark.parametrize("field", ["bytes", "word_bytes", "banks", "latency_cycles"])
def test_sizes_are_positive(field):
    with pytest.raises(ValueError, match=f"{field} must be at least 1, not 0"):
        replace(BUFFER, **{field: 0})


def test_capacity_is_whole_words_of_every_bank():
    assert replace(BUFFER, bytes=128).bytes == 128
    for size in (127, 129, 64):
        with pytest.raises(ValueError, match=(
                f"bytes must be a multiple of 4 banks x 32 word_bytes, not {size}")):
            replace(BUFFER, bytes=size)


def test_buffer_and_port_need_someone_to_serve():
    with pytest.raises(ValueError, match=r"ports must be at least one port, not \(\)"):
        replace(BUFFER, ports=())
    with pytest.raises(ValueError, match=r"clients must be at least one unit kind, not \(\)"):
        replace(READ, clients=())
    with pytest.raises(ValueError, match="clients must be among array, vector, dma, link, pim, "
                                         "not 'host'"):
        replace(READ, clients=("host",))
    with pytest.raises(ValueError, match="count must be at least 1, not 0"):
        replace(READ, count=0)
