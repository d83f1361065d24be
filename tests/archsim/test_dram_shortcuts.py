"""Shortcuts change nothing: channels alike, idle refresh, slices of time, compiled or not."""

import json
import os
import random
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

import machine.dram as dram
from archsim.dram import kernel as at
from archsim.dram.channels import Memory

PRESETS = Path(dram.__file__).parent / "presets" / "dram"


def preset(name, **changes):
    table = tomllib.loads((PRESETS / f"{name}.toml").read_text())
    return replace(TypeAdapter(dram.DramConfig).validate_json(json.dumps(table)), **changes)


HBM2 = preset("hbm2-neupims", channels=8)
STRIPE = 8 * 1024
FAR = 1 << 40


def random_transfer(rng):
    """Return one transfer: some alike for all channels, some for a few, strided or listed."""
    kind = rng.choice(["stripes", "stripes", "piece", "strided", "listed"])
    base = rng.randrange(1 << 10) * STRIPE
    write = rng.random() < 0.3
    if kind == "listed":
        places = [rng.randrange(1 << 18) * 64 for _ in range(rng.randint(1, 30))]
        return {"write": write, "addresses_bytes": places, "row_bytes": rng.choice([64, 200])}
    if kind == "stripes":
        return {
            "write": write, "address_bytes": base, "row_bytes": rng.randint(1, 4) * STRIPE,
        }  # fmt: skip
    base += rng.randrange(STRIPE)
    rows = 1 if kind == "piece" else rng.randint(2, 12)
    stride = rng.choice([STRIPE, 3 * STRIPE, 1000, 4096, 11_008])
    return {
        "write": write, "address_bytes": base, "row_bytes": rng.randint(1, 9000), "rows": rows,
        "stride_bytes": stride,
    }  # fmt: skip


def work(cfg, seed, *, transfers=60, until=lambda rng, now: FAR, **options):
    """Drive a memory as an engine does, two transfers a port; return it and what completed."""
    rng, slices = random.Random(seed), random.Random(seed + 1)
    memory, done, waiting = Memory(cfg, ports=3, **options), [], list(range(transfers))
    free = [0, 0, 1, 1, 2, 2]
    port_of = {}
    while waiting or port_of:
        while waiting and free:
            tag, port = waiting.pop(0), free.pop(rng.randrange(len(free)))
            transfer, delay = random_transfer(rng), rng.choice([0, 0, 0, 7, 900, 30_000])
            go = memory.start_list if "addresses_bytes" in transfer else memory.start
            go(tag, port, now=memory.now + delay, **transfer)
            port_of[tag] = port
        ended = []
        while not ended:
            bound = memory.next_event()
            ended = memory.advance(until(slices, memory.now))
            assert all(completion.done_cycle >= bound for completion in ended)
        for completion in ended:
            free.append(port_of.pop(completion.tag))
        done += ended
    return memory, done


def history(memory, channels):
    return [memory.counters(channel) for channel in range(channels)]


VARIANTS = {
    "hbm2": HBM2,
    "two buses, short queue": replace(HBM2, command_bus="row+column", queue_entries=8),
    "in order, other map": replace(HBM2, mapping="rocorabgbach", overtakes_max=0),
    "ddr4": preset("ddr4-2400r", channels=4, ranks=2, overtakes_max=5),
    "ddr4 without refresh": preset("ddr4-2400r", channels=2, refresh="off", queue_entries=64),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("seed", range(2))
def test_shortcuts_change_no_completion_and_no_count(name, seed):
    cfg = VARIANTS[name]
    short, done = work(cfg, seed)
    full, expected = work(cfg, seed, shortcuts=False)
    assert done == expected
    assert history(short, cfg.channels) == history(full, cfg.channels)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("seed", range(2, 20))
def test_shortcuts_change_nothing_in_many_more_runs(name, seed):
    test_shortcuts_change_no_completion_and_no_count(name, seed)


def test_recording_changes_nothing():
    recorded, done = work(HBM2, 9, record=True)
    plain, expected = work(HBM2, 9)
    assert done == expected
    assert history(recorded, 8) == history(plain, 8)


@pytest.mark.parametrize("seed", range(4))
def test_slices_of_time_change_nothing(seed):
    _, expected = work(HBM2, seed)
    _, done = work(HBM2, seed, until=lambda rng, now: now + rng.choice([1, 2, 5, 40, 3000]))
    assert done == expected


def leaders(memory):
    return len(set(memory._s[:, at.LEADER].tolist()))


def test_channels_part_for_unequal_work_and_join_again():
    memory = Memory(HBM2)
    go = {"write": False, "rows": 1}
    memory.start(0, 0, address_bytes=0, row_bytes=4 * STRIPE, now=0, **go)
    assert leaders(memory) == 1
    memory.advance(FAR)
    memory.start(1, 0, address_bytes=0, row_bytes=1024, now=memory.now, **go)  # channel 0 only
    assert leaders(memory) == 2
    memory.advance(FAR)
    memory.advance(memory.now + 2 * HBM2.timing.refi_cycles)  # refresh closes every row
    memory.start(2, 0, address_bytes=0, row_bytes=4 * STRIPE, now=memory.now, **go)
    assert leaders(memory) == 1
    memory.advance(FAR)
    assert [memory.counters(c).reads for c in range(8)] == [64 + 16 + 64, *[64 + 64] * 7]


def test_channels_with_the_same_bursts_of_other_pieces_stay_together():
    memory = Memory(HBM2)
    # Rows 0 to 7 begin in channels 0, 4, 0, 4, ...: four pieces each, at the same places inside.
    memory.start(
        0, 0, write=False, address_bytes=0, row_bytes=128, rows=8, stride_bytes=4096, now=0
    )  # fmt: skip
    assert leaders(memory) == 2
    memory.advance(FAR)
    assert [memory.counters(c).reads for c in range(8)] == [8, 0, 0, 0, 8, 0, 0, 0]


@pytest.mark.parametrize("pause", [30, 60, 90, 120, 150])
def test_channels_that_part_amid_a_transfer_go_on_at_their_own_pieces(pause):
    def both(**options):
        memory = Memory(HBM2, **options)
        memory.start(
            0, 0, write=False, address_bytes=0, row_bytes=128, rows=64, stride_bytes=4096, now=0
        )  # fmt: skip
        memory.advance(pause)
        memory.start(1, 1, write=True, address_bytes=4096, row_bytes=64, now=pause)
        done = memory.advance(FAR) + memory.advance(FAR)
        return done, history(memory, 8)

    assert both() == both(shortcuts=False)


def test_channels_do_not_join_while_unequal_work_is_still_to_come():
    def both(**options):
        memory = Memory(HBM2, **options)
        # The first piece is alike for all; of the second, channel 0 has the next row of a bank
        # that the first leaves open, the others the first row of the last bank.
        memory.start(
            0, 0, write=False, address_bytes=0, row_bytes=STRIPE, rows=2,
            stride_bytes=31 * STRIPE + 1024, now=5000,
        )  # fmt: skip
        memory.start(1, 1, write=False, address_bytes=0, row_bytes=STRIPE, rows=1, now=10)
        done = memory.advance(FAR) + memory.advance(FAR)
        return done, history(memory, 8)

    assert both() == both(shortcuts=False)


def test_channels_with_different_open_rows_do_not_join():
    memory = Memory(replace(HBM2, refresh="off"))
    go = {"write": False, "rows": 1}
    memory.start(0, 0, address_bytes=0, row_bytes=1024, now=0, **go)
    memory.advance(FAR)
    memory.idle_until(1_000_000)
    memory.start(1, 0, address_bytes=0, row_bytes=STRIPE, now=memory.now, **go)
    assert leaders(memory) == 2


@pytest.mark.parametrize("gap", [100, 3899, 3900, 3901, 12_345, 1_000_003])
@pytest.mark.parametrize("opened", [False, True])
def test_idle_refresh_in_closed_form_is_idle_refresh_step_by_step(gap, opened):
    cfg = preset("hbm2-neupims", channels=1)
    one, other = Memory(cfg), Memory(cfg, shortcuts=False)
    for memory in (one, other):
        if opened:
            memory.start(0, 0, write=True, address_bytes=0, row_bytes=4096, now=1900)
            memory.advance(FAR)
        memory.idle_until(memory.now + gap)
        memory.start(1, 0, write=False, address_bytes=0, row_bytes=64, now=memory.now)
    assert one.advance(FAR) == other.advance(FAR)
    assert one.counters(0) == other.counters(0)
    derived = range(at.PICK_KNOWN, at.ACTIVATES)  # what is kept only to save work
    kept = [i for i in range(one._k[at.AT_BANK]) if i not in derived]
    ranks = range(one._k[at.AT_RANK], one._k[at.AT_LANE])
    assert np.array_equal(one._s[0, [*kept, *ranks]], other._s[0, [*kept, *ranks]])


def test_refreshes_of_an_idle_memory_are_one_each_interval():
    for refi, ranks, until in ((3900, 2, 1_000_000), (3900, 1, 7801), (5000, 2, 2501)):
        timing = replace(HBM2.timing, refi_cycles=refi)
        cfg = replace(HBM2, timing=timing, ranks=ranks)
        memory = Memory(cfg)
        memory.idle_until(until)
        due = [range(refi * (rank + 1) // ranks, until, refi) for rank in range(ranks)]
        assert memory.counters(3).refreshes == sum(map(len, due))


def test_every_refresh_of_a_busy_memory_is_on_time():
    cfg = preset("hbm2-neupims", channels=1)
    memory = Memory(cfg, record=True)
    memory.start(0, 0, write=False, address_bytes=0, row_bytes=8 << 20, now=0)
    memory.advance(FAR)
    t = cfg.timing
    closing = t.ras_cycles + t.rp_cycles + 2  # the last ACT before, PREA, and a lost slot
    for rank in range(2):
        cycles = [c.cycle for c in memory.trace if (c.command, c.rank) == ("REF", rank)]
        for i, cycle in enumerate(cycles):
            due = cfg.first_refresh_cycle(rank) + i * t.refi_cycles
            assert due <= cycle <= due + closing
        assert len(cycles) == (memory.now - cfg.first_refresh_cycle(rank)) // t.refi_cycles + 1


TWIN = """
import runpy, sys
tests = runpy.run_path(sys.argv[1])
memory, done = tests["work"](tests["HBM2"], 3, transfers=8)
print(done, tests["history"](memory, 8))
"""


def test_plain_python_gives_what_the_compiled_loop_gives():
    memory, done = work(HBM2, 3, transfers=8)
    env = dict(os.environ, NUMBA_DISABLE_JIT="1")
    ran = subprocess.run(
        [sys.executable, "-c", TWIN, __file__],
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert ran.stdout.strip() == f"{done} {history(memory, 8)}"


def test_all_compiled_functions_lie_in_one_file():
    compiled = [f for f in vars(at).values() if hasattr(f, "py_func")]
    assert len(compiled) > 15
    assert {f.py_func.__module__ for f in compiled} == {"archsim.dram.kernel"}


def test_each_function_is_compiled_for_one_signature():
    work(HBM2, 4, transfers=10)
    compiled = [f for f in vars(at).values() if hasattr(f, "py_func")]
    assert {len(f.signatures) for f in compiled} == {0, 1}  # none where it is inlined
