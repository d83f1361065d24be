"""Transfers: a LOAD and a STORE alone take their formula; what they share, they wait for."""

from dataclasses import replace

import pytest

from machine.link import LinkConfig
from machine.load import read_machine
from machine.program import Launch

HEAD = """program t version 1
needs systolic
chips 1
operand one dram 0x0 int8 [64] stride [1]
operand two dram 0x40 int8 [64] stride [1]
operand big dram 0x10000 int8 [4096] stride [1]
operand pad scratchpad 0x1000 int8 [64] stride [1]
operand bigpad scratchpad 0x2000 int8 [4096] stride [1]
operand wide scratchpad 0x2000 int32 [64] stride [1]
"""


def unloaded(on):
    """The cycles of a LOAD and of a STORE of one burst, from start to completion."""
    cross = on.crossbar.latency_cycles
    load = on.dma.setup_cycles + on.dram.read_latency_cycles + cross + 1
    store = (on.dma.setup_cycles + on.scratchpad.latency_cycles + cross
             + on.dram.write_latency_cycles)
    return load, store


@pytest.mark.parametrize("setup", [0, 5])
@pytest.mark.parametrize("cross", [0, 3])
def test_one_burst_alone_takes_the_unloaded_time(setup, cross, run, times, machine):
    base = machine()
    on = replace(base, dma=replace(base.dma, setup_cycles=setup),
                 crossbar=replace(base.crossbar, latency_cycles=cross))
    load, store = unloaded(on)
    loaded = run(HEAD + "stream chip0.dma0\n load src=one dst=pad\n halt\n", on)
    stored = run(HEAD + "stream chip0.dma0\n store src=pad dst=one\n halt\n", on)
    assert times(loaded, "chip0.dma0") == [(0, 1, 1 + load)]
    assert times(stored, "chip0.dma0") == [(0, 1, 1 + store)]


@pytest.mark.parametrize("outstanding", [1, 2, 3])
def test_an_engine_holds_as_many_transfers_as_it_may(outstanding, run, times, machine):
    base = machine()
    on = replace(base, dma=replace(base.dma, outstanding=outstanding))
    load, _ = unloaded(on)
    body = "stream chip0.dma0\n loop 4\n load src=one dst=pad\n end\n halt\n"
    found = times(run(HEAD + body, on), "chip0.dma0")
    # Loop and end take a cycle each: starts at 2, 4, 6 until the engine is full; then the next
    # one starts as the first completes.
    starts = [start for _, start, _ in found]
    assert starts[:outstanding] == [2 + 2 * i for i in range(outstanding)]
    assert starts[outstanding] == found[0][2] == 2 + load


def test_a_narrow_crossbar_limits_a_long_load(run, times, machine):
    base = machine()
    on = replace(base, crossbar=replace(base.crossbar, bytes_per_cycle=4))
    body = "stream chip0.dma0\n load src=big dst=bigpad\n halt\n"
    (_, start, completion), = times(run(HEAD + body, on), "chip0.dma0")
    # The first data can have crossed at: setup, closed bank without its data's length, crossing.
    first = (on.dma.setup_cycles + on.dram.read_latency_cycles - on.dram.burst_cycles
             + on.crossbar.latency_cycles)
    assert completion == start + first + 4096 // 4


def test_two_engines_share_the_crossbar(run, times, machine):
    base = machine()
    on = replace(base, crossbar=replace(base.crossbar, bytes_per_cycle=4))
    body = ("stream chip0.dma0\n load src=big dst=bigpad\n halt\n"
            "stream chip0.dma1\n load src=big dst=bigpad units=0x2\n halt\n")
    result = run(HEAD + body, on)
    (_, start, one), = times(result, "chip0.dma0")
    (_, _, other), = times(result, "chip0.dma1")
    first = (on.dma.setup_cycles + on.dram.read_latency_cycles - on.dram.burst_cycles
             + on.crossbar.latency_cycles)
    assert {one, other} == {start + first + 2 * 1024 - 1, start + first + 2 * 1024}
    assert result.accounts["chip0.crossbar"]["busy"] == 2 * 1024
    lost = [result.accounts[f"chip0.dma{i}"]["port_conflict"] for i in (0, 1)]
    assert lost == [1023, 1024]  # every other cycle


def test_units_of_one_load_move_their_own_tiles(run, machine):
    head = HEAD + ("operand part dram 0x0 int8 [64] stride [1] loop 7:4096\n"
                   "operand partpad scratchpad 0x0 int8 [64] stride [1] loop 7:64\n")
    on = replace(machine(), dma=replace(machine().dma, count=4))
    result = run(head + "stream chip0.dma0\n load src=part dst=partpad units=0x7\n halt\n", on)
    assert result.dram[0].reads == 3
    # 64 bytes each are 2 cycles of the crossbar, which passes them all.
    assert [result.accounts[f"chip0.dma{i}"]["busy"] for i in range(4)] == [2, 2, 2, 0]
    assert result.accounts["chip0.crossbar"]["busy"] == 6


def test_a_converting_transfer_counts_each_side_in_its_own_width(run, machine):
    body = "stream chip0.dma0\n load src=one dst=wide\n halt\n"
    result = run(HEAD + body)
    assert result.dram[0].reads == 1  # 64 elements of a byte
    assert result.accounts["chip0.scratchpad.dma0"]["busy"] == 4  # 64 of four bytes
    assert result.work[0].dram_bytes() == 64


def test_a_gather_reads_the_pages_of_its_index_list(run, times, machine):
    head = HEAD + ("symbol pages scratchpad 0x0 int32 [4] launch\n"
                   "operand index scratchpad 0x0 int32 [4] stride [1]\n"
                   "operand paged dram 0x0 int8 [4,1024] stride [1024,1]"
                   " gather axis=0 index=@index granule=1\n"
                   "operand rows scratchpad 0x2000 int8 [4,1024] stride [1024,1]\n")
    body = "stream chip0.dma0\n load src=paged dst=rows\n halt\n"
    near = run(head + body, launch=Launch({}, {"pages": [0, 1, 2, 3]}))
    same_bank = 1 << 18  # rows of one bank are so many KiB apart: each page opens another row
    far = run(head + body, launch=Launch({}, {"pages": [i * (same_bank >> 10) for i in range(4)]}))
    assert near.dram[0].reads == far.dram[0].reads == 4 * 1024 // 64
    assert near.dram[0].row_conflicts == 0  # neighbouring rows lie in different banks
    assert far.dram[0].row_conflicts == 3
    assert near.ticks < far.ticks


def test_a_store_and_a_load_of_one_engine_complete_in_order(run, times, machine):
    body = "stream chip0.dma0\n load src=big dst=bigpad\n store src=pad dst=two\n halt\n"
    (_, _, big), (_, _, small) = times(run(HEAD + body), "chip0.dma0")
    assert small >= big


def test_memories_of_two_chips_do_not_disturb_each_other(run, times, machine):
    on = replace(machine(), chips=2,
                 links=LinkConfig(count=1, bytes_per_cycle=8, latency_cycles=10))
    loads = "stream chip{}.dma0\n loop {}\n load src=big dst=bigpad\n end\n halt\n"
    alone = run(HEAD + loads.format(0, 5), on)
    both = run(HEAD.replace("chips 1", "chips 2") + loads.format(0, 5) + loads.format(1, 9), on)
    assert times(both, "chip0.dma0") == times(alone, "chip0.dma0")
    assert times(both, "chip1.dma0")[:5] == times(alone, "chip0.dma0")
    assert both.dram[1].reads == 9 * 64


def test_slower_memory_moves_on_its_own_edges(run, times, machine):
    base = machine()
    clocks = (base.clocks[0], replace(base.clocks[1], period_ps=3000))
    on = replace(base, clocks=clocks)
    body = "stream chip0.dma0\n load src=one dst=pad\n halt\n"
    (_, start, completion), = times(run(HEAD + body, on), "chip0.dma0")
    asks = start + on.dma.setup_cycles
    edge = -(-asks // 3) * 3
    assert completion == edge + 3 * on.dram.read_latency_cycles + on.crossbar.latency_cycles + 1


def test_a_transfer_may_end_before_a_longer_one_in_front_of_it_on_other_channels(run):
    on = read_machine("npu-hbm2", ["dma.count=1"])
    dram, period = on.dram, on.ticks(on.dram.clock)
    stripe = dram.channels * 1024  # 1 KiB a channel: the long one is all in channel 0
    text = f"""program t version 1
needs systolic
chips 1
operand long dram 0x0 int8 [256,1024] stride [{stripe},1]
operand short dram 0x400 int8 [64] stride [1]
operand longpad scratchpad 0x0 int8 [256,1024] stride [1024,1]
operand shortpad scratchpad 0x40000 int8 [64] stride [1]
stream chip0.dma0
 load src=long dst=longpad
 load src=short dst=shortpad
 halt
"""
    result = run(text, on)
    long, short = result.parts["chip0.dma0"].tolist()
    # Boundary 7 is when the last data of the memory came, or the last word over the port.
    assert long[7] >= 256 * 1024 // dram.burst_bytes * dram.burst_cycles * period
    assert short[7] < long[7]
    # The engine completes them in order.
    assert short[8] >= long[8]
