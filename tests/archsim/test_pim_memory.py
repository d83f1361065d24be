"""Channels that compute, driven together: no effect is told late, none changes what came before."""

import random
from dataclasses import replace

import pytest

from archsim.pim import NEVER, PimChannel
from archsim.pim_check import first_violation
from archsim.pim_expand import Macro
from archsim.pim_memory import PimMemory
from machine.errors import UserError
from machine.load import read_machine
from machine.pim_macros import PimOp

TINY = read_machine("tiny-pim")
# Refresh often, so that a short mix meets it.
DRAM = replace(TINY.dram, rows=64,
               timing=replace(TINY.dram.timing, refi_cycles=1300, rfc_cycles=60))


def random_macro(rng, pim):
    """Return what one of PIM's instructions may ask of one or both channels."""
    channels = rng.choice([(0,), (1,), (0, 1)])
    kind = rng.randrange(5)
    if kind == 0:
        slot = rng.randrange(pim.outstanding)
        op = PimOp("GWRITE", row=DRAM.rows - 1, bank=slot)
        return Macro({channel: [op] for channel in channels}, rng.choice([32, 96, 128]), slot)
    if kind == 1:
        return Macro({channel: [PimOp("PIMPRE")] for channel in channels})
    if kind == 2:
        return Macro({channel: [] for channel in channels}, reads_latch=True)
    ops = {}
    for channel in channels:
        row = rng.randrange(DRAM.rows - 1)
        reads = rng.randint(1, 4)
        made = [PimOp("HEADER", row=row, dots=reads, reads=reads)] * rng.randint(0, 1)
        for n in range(reads):
            if pim.row_buffers == 2:
                made.append(PimOp("GEMV", row=row, column=n, dots=1))
            else:
                made += [PimOp("DOT", row=row, column=n, dots=1), PimOp("READRES", row=row)]
        ops[channel] = made
    return Macro(ops)


def drive(pim, seed, count=60):
    """Return a memory after a random mix, and (tag, told at, seen at) of every effect."""
    rng = random.Random(seed)
    memory = PimMemory(DRAM, pim, chips=1, ports=3)
    now, told, started = 0, [], 0
    for tag in range(count):
        until = now + rng.choice([0, 1, 3, 40, 300])
        while True:
            seen = memory.advance(until)
            if not seen:
                break
            told += [(tag_, cycle) for cycle, tag_ in seen]
            now = seen[0][0]
            if rng.random() < 0.5:  # an effect brings on what comes next, at once
                until = now
        now = until
        if rng.random() < 0.5:
            low = rng.randrange(DRAM.rows - 1) * 2048 + rng.randrange(0, 2048, 64)
            memory.transfer(0, tag, rng.randrange(2), write=rng.random() < 0.4,
                            pieces=[(low, rng.choice([1, 64, 200, 2500]))], now=now)
        else:
            memory.macro(0, tag, 2, random_macro(rng, pim), now)
        started += 1
    while memory.under_way:
        told += [(tag_, cycle) for cycle, tag_ in memory.advance(NEVER)]
    assert sorted(tag for tag, _ in told) == list(range(started))
    return memory, told


@pytest.mark.parametrize("buffers", [1, 2])
@pytest.mark.parametrize("host", ["concurrent", "blocked"])
def test_every_channel_does_what_it_would_if_it_knew_all_from_the_start(buffers, host):
    pim = replace(TINY.pim, row_buffers=buffers, host=host)
    for seed in range(6):
        memory, told = drive(pim, seed)
        assert [cycle for _, cycle in told] == sorted(cycle for _, cycle in told)
        for channel in memory.channels(0):
            again = PimChannel(DRAM, pim, ports=3)
            for op, cycle in zip(channel.ops, channel.op_cycles, strict=True):
                again.offer(op, cycle)
            for request, port in zip(channel.requests, channel.ports, strict=True):
                again.ask(request, port)
            while again.now < channel.now:
                again.advance(channel.now)
            assert again.device.trace == channel.device.trace, (seed, buffers)
            assert first_violation(DRAM, pim, channel.device.trace) is None
            assert sum(channel.host_classes.values()) == channel.now


def test_a_vector_is_copied_only_once_its_data_are_in_the_row():
    t = DRAM.timing
    for seed in range(6):
        memory, _ = drive(TINY.pim, seed)
        for channel in memory.channels(0):
            rows = {}
            for command in channel.device.trace:
                if command.command == "WR" and command.row == DRAM.rows - 1:
                    rows[command.bank] = command.cycle + t.cwl_cycles + DRAM.burst_cycles
                elif command.command == "GWRITE":
                    assert command.cycle >= rows[command.bank]


def test_a_transfer_ends_with_its_last_burst_on_either_channel():
    quiet = replace(DRAM, refresh="off")
    memory = PimMemory(quiet, TINY.pim, chips=1, ports=3)
    # 1,024 bytes of each channel's first row, a bank after the other: 2 bursts in each of 16 banks.
    memory.transfer(0, 7, 0, write=False, pieces=[(0, 2048)], now=10)
    ((cycle, tag),) = memory.advance(NEVER)
    assert tag == 7 and not memory.under_way
    for channel in memory.channels(0):
        assert sorted((r.bank, r.column) for r in channel.requests) == [
            (bank, column) for bank in range(8) for column in range(2)]
    latency = quiet.timing.cl_cycles + quiet.burst_cycles
    assert cycle == latency + max(max(c.host_done) for c in memory.channels(0))


def test_results_are_waited_for_and_nothing_else():
    memory = PimMemory(replace(DRAM, refresh="off"), TINY.pim, chips=1, ports=3)
    gemv = PimOp("GEMV", row=1, column=0, dots=1)
    memory.macro(0, 0, 2, Macro({0: [gemv, gemv]}), 0)
    memory.macro(0, 1, 2, Macro({0: []}, reads_latch=True), 1)
    memory.macro(0, 2, 2, Macro({0: [gemv]}), 2)
    memory.macro(0, 3, 2, Macro({1: []}, reads_latch=True), 3)  # nothing to wait for there
    found = []
    while memory.under_way:
        found += memory.advance(NEVER)
    seen = {tag: cycle for cycle, tag in found}
    assert seen[3] == 3
    assert seen[1] == seen[0] < seen[2]


def test_what_never_goes_is_a_deadlock_and_not_a_loop_without_end():
    memory = PimMemory(replace(DRAM, refresh="off"), replace(TINY.pim, row_buffers=1), chips=1,
                       ports=3)
    memory.macro(0, 0, 2, Macro({0: [PimOp("HEADER", row=1, dots=1, reads=1)]}), 0)
    memory.advance(NEVER)
    memory.transfer(0, 1, 0, write=False, pieces=[(8192, 64)], now=500)
    with pytest.raises(UserError, match="channel 0 of chip 0 serves nothing more from cycle .*; "
                                        "first of its PIM queue: nothing, requests of the host: "
                                        "0 of 1 served"):
        memory.advance(NEVER)
