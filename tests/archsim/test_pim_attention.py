"""The attention of a decode step in memory that computes: every command, every channel, once."""

import json
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter

import machine.dram as dram
from archsim.pim import HostRequest, PimChannel
from archsim.pim_attention import (
    HOST_ROWS,
    VECTOR_ROWS,
    decode_attention,
    random_lengths,
    round_robin,
)
from machine.pim import PimConfig
from machine.pim_macros import PimCounts, attend_ops, attend_shape, logit_ops, logit_shape
from mapping.pim import attention_cycles

PRESETS = Path(dram.__file__).parent / "presets"


def read(kind, name):
    table = tomllib.loads((PRESETS / f"{name}.toml").read_text())
    return TypeAdapter(kind).validate_json(json.dumps(table))


HBM2 = read(dram.DramConfig, "dram/hbm2-neupims")
DUAL = read(PimConfig, "pim/neupims")
SINGLE = replace(DUAL, row_buffers=1)
LENGTHS = [[40, 600], [1], [513, 33, 512], []]


def counts(pim, heads, length):
    """Return the commands of one request by the formulas."""
    k = logit_shape(HBM2, pim, heads=heads, depth=128, length=length).counts(HBM2, pim)
    return k + attend_shape(HBM2, pim, depth=128, length=length).counts(HBM2, pim).times(heads)


@pytest.mark.parametrize("pim", [DUAL, SINGLE], ids=["dual", "single"])
def test_it_takes_the_commands_of_every_request_in_every_layer(pim):
    step = decode_attention(HBM2, pim, LENGTHS, heads=4, depth=128, layers=3, host_share=0.1)
    want = sum((counts(pim, 4, n).times(3) for of_channel in LENGTHS for n in of_channel),
               PimCounts(0, 0, 0, 0, 0))
    found = step.counts
    assert (found["GWRITE"], found["HEADER"]) == (want.gwrites, want.headers)
    assert found["GACT"] >= want.activations  # a refresh between tiles closes rows
    if pim is SINGLE:
        assert (found["DOT"], found["READRES"]) == (want.dots, want.reads)
    else:
        assert found["GEMV"] == want.reads
    assert found["RD"] == step.host_bursts > 0 == found["WR"]
    assert len(step.layer_cycles) == 3 and sum(step.layer_cycles) == step.cycles
    assert sum(step.classes.values()) <= 4 * step.cycles
    assert step.refresh_late_cycles < HBM2.timing.refi_cycles // 2


@pytest.mark.parametrize("pim, share", [(DUAL, 0), (DUAL, 0.3), (SINGLE, 0.1), (SINGLE, 0.3)],
                         ids=["dual", "dual, host", "single, less host", "single, host"])
def test_a_channel_alone_takes_the_time_of_its_entries(pim, share):
    shape_k = logit_shape(HBM2, pim, heads=4, depth=128, length=70)
    shape_v = attend_shape(HBM2, pim, depth=128, length=70)
    rows = iter(range(HBM2.rows))
    first = HBM2.rows - HOST_ROWS - VECTOR_ROWS
    of_k = [next(rows) for _ in range(shape_k.tiles)]
    ops = logit_ops(HBM2, pim, shape_k, of_k, source=first)
    for head in range(4):
        of_v = [next(rows) for _ in range(shape_v.tiles)]
        ops += attend_ops(HBM2, pim, shape_v, [of_v], source=first + 1 + head)
    # The host's blocks of 64 bursts, evenly over the estimated time, 16 bursts a row of 32 banks.
    cycles = attention_cycles(heads=4, depth=128, length=70)
    blocks = int(share * cycles / (64 * 2))
    host = [HostRequest(n // 64 * cycles // blocks, False, n // 16 % 32,
                        HBM2.rows - HOST_ROWS + n // 512, n % 16) for n in range(64 * blocks)]
    alone = PimChannel(HBM2, pim).run(ops, host)
    step = decode_attention(HBM2, pim, [[70]], heads=4, depth=128, layers=1, host_share=share)
    assert (step.cycles, step.counts, step.classes) == (alone.cycles, alone.counts, alone.classes)


def test_equal_channels_are_simulated_once_and_count_as_often_as_they_are():
    one = decode_attention(HBM2, DUAL, [[90, 40]], heads=4, depth=128, layers=2, host_share=0.05)
    three = decode_attention(HBM2, DUAL, [[90, 40]] * 3, heads=4, depth=128, layers=2,
                             host_share=0.05)
    assert (one.simulated_channels, three.simulated_channels) == (1, 1)
    assert three.layer_cycles == one.layer_cycles
    assert three.counts == {name: 3 * count for name, count in one.counts.items()}
    assert three.classes == {name: 3 * cycles for name, cycles in one.classes.items()}
    assert three.host_bursts == 3 * one.host_bursts


def test_a_layer_begins_when_the_slowest_channel_has_ended_the_one_before():
    both = decode_attention(HBM2, DUAL, [[1200], [40]], heads=4, depth=128, layers=2)
    long = decode_attention(HBM2, DUAL, [[1200]], heads=4, depth=128, layers=2)
    assert both.layer_cycles == long.layer_cycles and both.simulated_channels == 2


def test_lengths_are_seeded_and_dealt_in_turn():
    lengths = random_lengths(4000, 3)
    assert lengths == random_lengths(4000, 3) != random_lengths(4000, 4)
    assert min(lengths) >= 1 and max(lengths) <= 2048
    # 80.29, and half of 294.99 on average, in whole tokens from 1: within four standard errors.
    assert abs(sum(lengths) / len(lengths) - (80.29 + 294.99 / 2)) < 4 * 260 / 4000**0.5
    assert round_robin([1, 2, 3, 4, 5], 2) == [[1, 3, 5], [2, 4]]


def test_the_example_shows_both_numbers_of_row_buffers():
    script = Path(__file__).parents[2] / "examples" / "pim_attention.py"
    command = [sys.executable, script, "--batch", "2", "--layers", "1", "--host-share", "0.1"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["row buffers 1", "row buffers 2"]
    dealt = round_robin(random_lengths(2, 1), HBM2.channels)
    step = decode_attention(HBM2, DUAL, dealt, heads=8, depth=128, layers=1, host_share=0.1)
    assert f" {step.cycles} cycles, {sum(step.counts.values())} commands, " in lines[1]


def test_refuses_caches_that_do_not_fit_and_a_host_that_takes_all():
    with pytest.raises(ValueError, match="^rows of the caches must be at most 31680 of every bank, "
                                         "not 51200$"):
        decode_attention(HBM2, DUAL, [[512] * 25], heads=8, depth=128, layers=32)
    with pytest.raises(ValueError, match="^host_share must be at least 0 and below 1, not 1$"):
        decode_attention(HBM2, DUAL, [[1]], heads=8, depth=128, layers=1, host_share=1)
