"""The compiled loop of a channel that computes does what a plain one does, cycle by cycle."""

import importlib.util
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
from archsim import pim_timers as at
from archsim.pim import PimChannel
from archsim.pim_random import random_mix
from machine.pim import PimConfig

PRESETS = Path(dram.__file__).parent / "presets"


def read(kind, name):
    table = tomllib.loads((PRESETS / f"{name}.toml").read_text())
    return TypeAdapter(kind).validate_json(json.dumps(table))


def load(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


HBM2 = read(dram.DramConfig, "dram/hbm2-neupims")
NEUPIMS = read(PimConfig, "pim/neupims")
SMALL = replace(HBM2, channels=1, bank_groups=2, banks_per_group=2, rows=16, columns=16,
                timing=replace(HBM2.timing, refi_cycles=1300, rfc_cycles=60))
DRAMS = (SMALL, SMALL, replace(SMALL, refresh="off"), replace(SMALL, ranks=1),
         replace(SMALL, ranks=4, banks_per_group=4), HBM2)
OURS = replace(NEUPIMS, buffer_bytes=256, gwrite_cycles=24)
CHOICES = {
    "row_buffers": (1, 2), "admission": ("paper", "exact"), "host": ("blocked", "concurrent"),
    "hold": ("issue", "last_dot"), "precharge": ("bank", "all"), "activate": ("group", "all"),
    "activate_window": (True, False), "host_entries": (1, 4, 16),
    "slack_min_cycles": (10, 10, 300, 700),
}


def drawn(seed):
    """Return a random channel and a random mix for it."""
    rng = random.Random(seed)
    pim = replace(OURS, **{name: rng.choice(values) for name, values in CHOICES.items()})
    cfg = rng.choice(DRAMS)
    tiles, requests = rng.randrange(1, 10), rng.choice([0, 10, 60])
    return cfg, pim, *random_mix(cfg, pim, seed, tiles=tiles, requests=requests)


def as_tiles(ops):
    """Return entries as `offer_tiles` takes them, and the same ones written out."""
    tiles, kept = [], []
    for op in ops:
        if op.kind == "GWRITE" and op.column == 0:
            tiles.append((op.bank, op.row, 0, 0))
        elif op.kind == "HEADER":
            tiles.append((0, op.row, op.reads, op.dots // op.reads))
        elif op.kind == "PIMPRE":
            continue
        kept.append(op)
    return np.array(tiles, np.int64), kept


# What a run with a trace keeps for itself, and what only helps to find the next command.
ASIDE = [at.ROOM, at.RECORDED, at.STAMP, at.CAUSE, at.TRIED, at.TRIED_BANK, at.WAKE, at.LEGAL,
         at.REASON, at.HEAD_WAKE, at.HEAD_SINCE, at.HEAD_REASON, at.HEAD_TRIED, at.HEAD_BANK,
         at.HEAD_STALE, at.HOST_WAKE, at.HOST_KEY]


def state(channel):
    """Return all that decides what the channel will do, and its counters."""
    kept = channel.device.x.copy()
    kept[ASIDE] = 0
    first = channel.device.k[at.AT_SEEN]
    kept[first : first + channel.dram.banks] = 0
    return kept.tolist()


def check(seed):
    cfg, pim, ops, cycles, requests = drawn(seed)
    plain = load("pim_plain").PlainChannel(cfg, pim)
    try:
        channel = PimChannel(cfg, pim)
        run = channel.run(ops, requests, op_cycles=cycles)
    except ValueError as error:
        assert "refresh to refresh" in str(error)
        return 0
    plain.run(ops, requests, cycles)
    assert run.trace == plain.device.trace, seed
    assert run.ops_done == plain.ops_done and run.host_done == plain.host_done, seed
    assert (run.cycles, run.refresh_late_cycles) == (plain.now, plain.late), seed
    assert run.classes == plain.classes and channel.host_classes == plain.host_classes, seed
    # Without a trace, runs of commands in quiet time are taken together: the same in the end.
    fast = PimChannel(cfg, pim, record=False)
    again = fast.run(ops, requests, op_cycles=cycles)
    assert state(fast) == state(channel), seed
    assert again.ops_done == run.ops_done and again.host_done == run.host_done, seed
    assert again.trace == [] and again.counts == run.counts, seed
    return len(run.trace)


def test_every_command_of_random_mixes_is_that_of_the_plain_loop():
    assert sum(check(seed) for seed in range(40)) > 5000


@pytest.mark.slow
def test_every_command_of_a_thousand_random_mixes_is_that_of_the_plain_loop():
    assert sum(check(seed) for seed in range(1000, 2000)) > 100_000


@pytest.mark.parametrize("buffers", [1, 2])
@pytest.mark.parametrize("record", [True, False])
def test_a_tile_is_its_commands_written_out(buffers, record):
    for seed in range(12):
        cfg, pim, ops, _, requests = drawn(seed)
        pim = replace(pim, row_buffers=buffers)
        ops = random_mix(cfg, pim, seed, tiles=8)[0]
        tiles, kept = as_tiles(ops)
        wanted = PimChannel(cfg, pim)
        wanted.run(kept, requests)
        channel = PimChannel(cfg, pim, record=record)
        channel.offer_tiles(tiles, 0)
        run = channel.run([], requests)
        assert run.trace == (wanted.device.trace if record else []), seed
        assert (run.cycles, run.counts, run.classes) == (
            wanted.now, wanted.counts(), wanted.classes), seed
        assert channel.host_classes == wanted.host_classes, seed
        assert list(channel.ops_done) == [
            done for op, done, after in zip(kept, wanted.ops_done, [*kept[1:], None], strict=True)
            if op.kind == "GWRITE" or after is None or after.kind in ("GWRITE", "HEADER")], seed


def test_a_long_gemv_ends_in_the_same_state_with_its_runs_taken_together():
    tiles = np.tile(np.array([[0, 1, 4, 8], [0, 2, 4, 8]]), (200, 1))
    for buffers in (1, 2):
        pim = replace(NEUPIMS, row_buffers=buffers)
        channels = [PimChannel(HBM2, pim, record=record) for record in (True, False)]
        for channel in channels:
            channel.offer_tiles(tiles, 0)
            channel.finish()
        assert state(channels[0]) == state(channels[1])
        assert channels[1].counts()["REF"] > 10
        dots = channels[1].counts()
        assert dots["DOT"] + 8 * dots["GEMV"] == 400 * 32


def test_served_entries_are_forgotten_and_their_numbers_begin_anew():
    channel, once = PimChannel(SMALL, OURS), PimChannel(SMALL, OURS)
    ops = random_mix(SMALL, OURS, 3, tiles=4, requests=0)[0]
    first = channel.run(ops)
    channel.clear()
    channel.run(ops)
    both = once.run([*ops, *ops], op_cycles=[0] * len(ops) + [first.cycles] * len(ops))
    assert channel.device.trace == both.trace
    assert list(channel.ops_done) == both.ops_done[len(ops):]
    waits = PimChannel(SMALL, OURS)
    waits.offer(ops[0])
    with pytest.raises(ValueError, match="^entries and requests must be served, not"):
        waits.clear()


def twin():
    """Return what runs do, in numbers."""
    found = []
    for seed in range(4):
        cfg, pim, ops, cycles, requests = drawn(seed)
        for record in (True, False):
            channel = PimChannel(cfg, pim, record=record)
            run = channel.run(ops, requests, op_cycles=cycles)
            found.append([[list(c) for c in run.trace], run.ops_done, run.host_done,
                          channel.device.x.tolist()])
    return found


def test_plain_python_gives_what_the_compiled_loop_gives():
    code = "import json, runpy, sys; print(json.dumps(runpy.run_path(sys.argv[1])['twin']()))"
    plain = subprocess.run([sys.executable, "-c", code, __file__], check=True, text=True,
                           env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, capture_output=True)
    assert json.loads(plain.stdout) == twin()
