"""The frame of a program: regions that are apart, streams, stages and edges."""

import pytest

from machine.load import read_machine
from machine.opcodes import Opcode
from machine.program import Edge, Space, SymbolKind
from mapping.builder import ProgramBuilder
from mapping.fit import Unfit
from mapping.plan import FEW_ROWS, MANY_ROWS, Plan, Rows, Tensor


def planned(*overrides, entries=()):
    builder = ProgramBuilder("p")
    return builder, Plan(builder, read_machine("tiny", overrides), entries=entries)


@pytest.mark.parametrize("size", [4096, 65536, 1 << 20, 65536 + 4096])
def test_regions_are_apart_and_inside_the_buffers(size):
    _, plan = planned(f"scratchpad.bytes={size}")
    ends = {Space.SCRATCHPAD: 0, Space.ACCUMULATOR: 0}
    for ring in plan.rings.values():
        assert ring.address_bytes == ends[ring.space]
        assert ring.slot_bytes > 0 and ring.slot_bytes % 64 == 0
        ends[ring.space] += ring.slots * ring.slot_bytes
    assert ends[Space.SCRATCHPAD] <= size
    assert ends[Space.ACCUMULATOR] <= plan.machine.accumulator.bytes


@pytest.mark.parametrize("regions", [FEW_ROWS, MANY_ROWS])
def test_the_shares_use_the_scratchpad_up(regions):
    assert sum(share * slots for share, slots in regions.values()) == 64


@pytest.mark.parametrize("count, fits", [(2, False), (3, True)])
def test_needs_three_dma_engines(count, fits):
    if fits:
        planned(f"dma.count={count}")
        return
    with pytest.raises(Unfit, match="every kernel does not fit: dma.count must be at least 3 "):
        planned(f"dma.count={count}")


def test_each_stream_drives_its_own_units():
    _, plan = planned("arrays.0.count=3", "vectors.0.count=2")
    masks = {str(s.queue): s.mask for s in plan.streams}
    assert masks == {"chip0.dma0": 1, "chip0.dma1": 2, "chip0.dma2": 4, "chip0.array0": 7,
                     "chip0.vector0": 3}


def test_a_loop_stands_at_one_level_in_every_stream():
    _, plan = planned()
    with plan.loop(2) as outer, plan.loop(3, plan.acts, plan.vector) as inner:
        assert (outer, inner) == (0, 1)
    counts = {str(s.queue): sum(i.opcode == Opcode.LOOP for i in s.instructions)
              for s in plan.streams}
    assert counts == {"chip0.dma0": 1, "chip0.dma1": 2, "chip0.dma2": 1, "chip0.array0": 1,
                      "chip0.vector0": 2}


def test_a_tensor_starts_at_its_offset_which_is_a_whole_byte():
    builder = ProgramBuilder("p")
    builder.symbol("before", SymbolKind.CONST, (4,), "int8")
    symbol = builder.symbol("t", SymbolKind.CONST, (3, 8, 16), "float16")
    whole, layered = Tensor.of(symbol), Tensor.of(symbol, layered=True)
    assert whole.strides == (128, 16, 1) and whole.layer == 0
    assert layered.strides == (16, 1) and layered.layer == 128
    assert Tensor(symbol, (1,), 5).address_bytes == symbol.address_bytes + 10
    nibbles = builder.symbol("n", SymbolKind.CONST, (8,), "int4")
    assert Tensor(nibbles, (1,), 2).address_bytes == nibbles.address_bytes + 1
    with pytest.raises(AssertionError, match="whole byte"):
        _ = Tensor(nibbles, (1,), 1).address_bytes


def test_an_edge_is_a_number_or_a_launch_entry():
    _, plan = planned(entries=("tokens",))
    assert plan.edge(plan.acts, Rows(9), (1, 4)) == Edge(9, ((1, 4),))
    register = plan.acts.launch("tokens")
    assert plan.edge(plan.acts, Rows(9, "tokens"), (1, 4)) == Edge(0, ((1, 4),), register)


def test_a_kernel_reads_after_the_one_before_has_written():
    builder, plan = planned()
    plan.begin()
    plan.acts.fence()
    plan.end((plan.cached, 1))
    assert plan.acts.instructions[-1].waits == ((plan.stage, 1),)
    assert plan.store.instructions[-1].signals == ((plan.stage, 1), (plan.cached, 1))
