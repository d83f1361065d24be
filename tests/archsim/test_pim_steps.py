"""A channel that computes, advanced in steps: the commands of one run; the host's classes."""

import json
import random
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter

import machine.dram as dram
from archsim.pim import CLASSES, HOST_CLASSES, HostRequest, PimChannel
from archsim.pim_random import random_mix
from machine.pim import PimConfig
from machine.pim_macros import PimOp

PRESETS = Path(dram.__file__).parent / "presets"


def read(kind, name):
    table = tomllib.loads((PRESETS / f"{name}.toml").read_text())
    return TypeAdapter(kind).validate_json(json.dumps(table))


HBM2 = read(dram.DramConfig, "dram/hbm2-neupims")
SMALL = replace(HBM2, channels=1, bank_groups=2, banks_per_group=2, rows=16, columns=16,
                timing=replace(HBM2.timing, refi_cycles=1300, rfc_cycles=60))
DUAL = replace(read(PimConfig, "pim/neupims"), buffer_bytes=256, gwrite_cycles=24,
               hold="last_dot", host_entries=4)
QUIET = replace(SMALL, refresh="off")


@pytest.mark.parametrize("buffers", [1, 2])
@pytest.mark.parametrize("host", ["concurrent", "blocked"])
def test_steps_of_any_length_with_late_entries_give_the_commands_of_one_run(buffers, host):
    pim = replace(DUAL, row_buffers=buffers, host=host)
    for seed in range(4):
        rng = random.Random(seed)
        ops, cycles, requests = random_mix(SMALL, pim, seed, tiles=8, requests=40)
        whole = PimChannel(SMALL, pim).run(ops, requests, op_cycles=cycles)
        channel = PimChannel(SMALL, pim)
        entries = sorted([(at, 0, n) for n, at in enumerate(cycles)]
                         + [(r.cycle, 1, n) for n, r in enumerate(requests)])
        for at, kind, number in entries:
            while channel.now < at - rng.randrange(3):
                channel.advance(min(at, channel.now + rng.randint(1, 50)))
            if kind == 0:
                channel.offer(ops[number], at)
            else:
                channel.ask(requests[number])
        while not channel.idle:
            channel.advance(channel.now + rng.randint(1, 50))
        until = whole.cycles
        assert channel.device.trace[: len(whole.trace)] == whole.trace, seed
        assert channel.ops_done == whole.ops_done
        assert channel.host_done == whole.host_done
        alone = PimChannel(SMALL, pim).run(ops, requests, op_cycles=cycles, until=until)
        again = PimChannel(SMALL, pim)
        for op, at in zip(ops, cycles, strict=True):
            again.offer(op, at)
        for request in requests:
            again.ask(request)
        while again.now < until:
            again.advance(min(until, again.now + rng.randint(1, 9)))
        assert again.classes == alone.classes


def test_classes_of_units_and_of_the_host_sum_to_the_cycles():
    for seed, buffers in ((0, 1), (1, 2), (2, 1), (3, 2)):
        channel = PimChannel(SMALL, replace(DUAL, row_buffers=buffers))
        ops, cycles, requests = random_mix(SMALL, channel.pim, seed)
        run = channel.run(ops, requests, op_cycles=cycles)
        assert set(channel.classes) == set(CLASSES)
        assert set(channel.host_classes) == set(HOST_CLASSES)
        assert sum(channel.classes.values()) == run.cycles
        assert sum(channel.host_classes.values()) == run.cycles
        channel.advance(run.cycles + 2)
        assert channel.host_classes["busy"] == len(requests) * SMALL.burst_cycles


@pytest.mark.parametrize("rows, write, reason, cycles", [
    ((1,), False, "row_miss", 14),  # tRCD
    ((1, 1), (False, True), "turnaround", 14 - 2),  # CL + burst + tRTRS - CWL, less the burst
    # tRAS from the ACT, less tRCD and the burst, tRP, tRCD
    ((1, 2), False, "row_miss", 14 + 34 - 16 + 14 + 14),
])
def test_a_cycle_of_the_host_counts_for_what_its_oldest_request_waits_for(
    rows, write, reason, cycles
):
    kinds = write if isinstance(write, tuple) else (write,) * len(rows)
    channel = PimChannel(QUIET, DUAL)
    channel.run([], [HostRequest(0, kind, 0, row, 0)
                     for row, kind in zip(rows, kinds, strict=True)], until=100)
    found = dict(channel.host_classes)
    if reason == "turnaround":
        assert found.pop("row_miss") == 14
    assert found.pop("busy") == 2 * len(rows)
    assert found.pop(reason) == cycles
    assert sum(found.values()) == found["idle"], found


def test_a_request_that_waits_for_pim_says_so():
    # One row buffer: the tile keeps every bank until its last result.
    pim = replace(DUAL, row_buffers=1)
    ops = [PimOp("HEADER", row=3, dots=4, reads=1),
           *(PimOp("DOT", row=3, column=j, slot=j, dots=1, first=j == 0) for j in range(4)),
           PimOp("READRES", row=3)]
    beside = PimChannel(QUIET, pim)
    beside.run(ops, [HostRequest(1, False, 0, 5, 0)])
    alone = PimChannel(QUIET, pim)
    alone.run([], [HostRequest(1, False, 0, 5, 0)])
    later = beside.host_done[0] - alone.host_done[0]
    assert later > 40
    pim_cycles = beside.host_classes["pim_conflict"]
    # What is more than alone is PIM's, but the precharge of its row.
    assert beside.host_classes["row_miss"] - alone.host_classes["row_miss"] <= 14 + 14
    assert pim_cycles >= later - 28 and alone.host_classes["pim_conflict"] == 0


def test_ports_take_turns():
    channel = PimChannel(QUIET, replace(DUAL, host_entries=1), ports=2)
    for column in range(4):
        channel.ask(HostRequest(0, False, 0, 1, column), port=0)
        channel.ask(HostRequest(0, False, 0, 1, column), port=1)
    while not channel.idle:
        channel.advance(channel.now + 100)
    order = sorted(range(8), key=lambda n: channel.host_done[n])
    assert order == list(range(8))  # 0 and 1 in turn, the first ones first


def test_an_entry_without_a_cycle_waits_for_its_release():
    channel = PimChannel(QUIET, DUAL)
    number = channel.offer(PimOp("GWRITE", row=1))
    assert not channel.advance(500) and channel.now == 500
    channel.release(number, 510)
    while not channel.served:
        channel.advance(1000)
    assert channel.ops_done == [510 + 14]  # the row is opened first


def test_rejects_what_is_in_the_past():
    channel = PimChannel(QUIET, DUAL)
    channel.advance(100)
    with pytest.raises(ValueError, match="cycle must be at least 100, the channel's time, not 99"):
        channel.offer(PimOp("GWRITE", row=1), 99)
    with pytest.raises(ValueError, match="cycle must be at least 100, the channel's time, not 99"):
        channel.ask(HostRequest(99, False, 0, 1, 0))
