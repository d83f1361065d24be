# amaranth: UnusedElaboratable=no
"""Compiled stream simulation: packing, scheduling, caching, its errors."""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.cxxrtl import StreamSimulation, pack_beats, unpack_beats
from hw.stream import PairQueue

WIDTH = 40


@pytest.mark.parametrize("bits, lanes", [(1, 1), (8, 4), (3, 11), (32, 1), (13, 5), (64, 3)])
def test_packed_beats_are_the_lanes_at_their_bits(bits, lanes):
    rng = np.random.default_rng(bits)
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    beats = rng.integers(low, high, (7, lanes), endpoint=True)
    words = pack_beats(beats, bits)
    assert words.shape == (7, -(-lanes * bits // 32))
    for beat, word in zip(beats, words, strict=True):
        want = sum((int(value) & ((1 << bits) - 1)) << lane * bits
                   for lane, value in enumerate(beat))
        assert int.from_bytes(word.tobytes(), "little") == want
    assert unpack_beats(words, lanes, bits).tolist() == beats.tolist()


@pytest.mark.cxxrtl
def test_a_schedule_moves_each_beat_when_both_ends_are_ready(tmp_path, monkeypatch):
    monkeypatch.setenv("ARCHSIM_CACHE", str(tmp_path))
    simulation = StreamSimulation(PairQueue(WIDTH))
    payloads = pack_beats(np.arange(4)[:, None] * 0x1_0000_0001, WIDTH)
    log = simulation.run({"i": (payloads, np.array([3, 3, 3, 9]))}, {"o": np.array([0, 20, 0, 0])})
    # One cycle through the queue; the second waits until 20, the fourth finds the queue full.
    assert log["i"].cycles.tolist() == [3, 4, 5, 21]
    assert log["o"].cycles.tolist() == [4, 20, 21, 22]
    assert log["o"].words.tolist() == payloads.tolist()
    assert len(list((tmp_path / "cxxrtl").glob("*.so"))) == 1

    # A second run starts from reset; the same component compiles to the same library.
    again = simulation.run({"i": (payloads, np.zeros(4))}, {"o": np.zeros(4)})
    assert again["o"].cycles.tolist() == [1, 2, 3, 4]
    StreamSimulation(PairQueue(WIDTH))
    assert len(list((tmp_path / "cxxrtl").glob("*.so"))) == 1


@pytest.mark.cxxrtl
def test_beats_that_do_not_move_are_an_error():
    simulation = StreamSimulation(PairQueue(WIDTH))
    payloads = pack_beats(np.zeros((3, 1), int), WIDTH)
    with pytest.raises(TimeoutError, match="^o: 3 of 4 beats moved in 50 cycles$"):
        simulation.run({"i": (payloads, np.zeros(3))}, {"o": np.zeros(4)}, max_cycles=50)


@pytest.mark.cxxrtl
def test_rejects_streams_that_are_not_the_components():
    simulation = StreamSimulation(PairQueue(WIDTH))
    payloads = pack_beats(np.zeros((3, 1), int), WIDTH)
    with pytest.raises(ValueError, match="^the streams must be i, o, not i, q$"):
        simulation.run({"i": (payloads, np.zeros(3))}, {"q": np.zeros(3)})
    with pytest.raises(ValueError, match=r"^i must have payloads \(2, 2\), not \(3, 2\)$"):
        simulation.run({"i": (payloads, np.zeros(2))}, {"o": np.zeros(3)})


class Mixed(wiring.Component):
    """A stream and a plain port."""

    def __init__(self):
        super().__init__({"o": Out(stream.Signature(8)), "go": In(1)})

    def elaborate(self, platform):
        return Module()


def test_rejects_a_component_with_other_ports():
    with pytest.raises(ValueError, match=r"^go must be a stream, not In\(1\)$"):
        StreamSimulation(Mixed())
