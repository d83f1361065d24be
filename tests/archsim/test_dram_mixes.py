"""Streams that random transfers seldom make: both directions in one bank, ends that cross channels.

What is expected comes from closed forms of the machine's cycles or from the general choice, which
`shortcuts=False` asks for every command.
"""

import json
import random
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter

import machine.dram as dram
from archsim.dram.channels import Memory

PRESETS = Path(dram.__file__).parent / "presets" / "dram"
FAR = 1 << 40


def preset(name, **changes):
    table = tomllib.loads((PRESETS / f"{name}.toml").read_text())
    return replace(TypeAdapter(dram.DramConfig).validate_json(json.dumps(table)), **changes)


def timed(cfg, **timing):
    return replace(cfg, timing=replace(cfg.timing, **timing))


HBM2 = preset("hbm2-neupims", channels=1, refresh="off")
DDR4 = preset("ddr4-2400r", channels=1, refresh="off")
MIXES = {
    "hbm2": HBM2,
    # Data of writes so late that no rule keeps a WR from following a RD at once.
    "hbm2, writes at once": timed(HBM2, cl_cycles=4, cwl_cycles=14),
    "hbm2, writes at once, columns apart": timed(
        HBM2, cl_cycles=4, cwl_cycles=14, ccd_l_cycles=6, ccd_s_cycles=6
    ),
    # The WR is legal in the very cycle of the next RD of a run.
    "hbm2, writes in step": timed(HBM2, cl_cycles=6, cwl_cycles=8),
    "hbm2, writes at once, few overtakes": replace(
        timed(HBM2, cl_cycles=4, cwl_cycles=14), overtakes_max=2
    ),
    "ddr4": DDR4,
}


def address(cfg, **fields):
    """Return the address of the burst with these fields, the others 0."""
    return sum(number << cfg.fields[name][0] for name, number in fields.items()) * cfg.burst_bytes


def mixed(cfg, seed, **options):
    """Read and write bursts of two rows of a bank, at times of another; return all that is seen.

    Some transfers start while another's run is under way.
    """
    rng = random.Random(seed)
    memory, seen = Memory(cfg, ports=2, **options), []
    for tag in range(12):
        count, writes = rng.randint(1, 12), rng.choice([0.0, 0.1, 0.5])
        kinds = [rng.random() < writes for _ in range(count)]
        row, group = rng.choice([0, 0, 0, 1]), rng.choice([0, 0, 0, 1])
        places = [address(cfg, ro=row, bg=group, co=rng.randrange(16)) for _ in range(count)]
        write = kinds if rng.random() < 0.7 else not rng.randrange(3)
        memory.start_list(
            tag, tag % 2, write=write, addresses_bytes=places, row_bytes=cfg.burst_bytes,
            now=memory.now + rng.choice([0, 0, 5, 17, 40]),
        )  # fmt: skip
        if tag % 2:
            for _ in range(rng.randint(1, 2)):
                seen += memory.advance(FAR)
            while rng.random() < 0.5 and memory.next_event() is not None:
                seen += memory.advance(FAR)
    while memory.next_event() is not None:
        seen += memory.advance(FAR)
    return seen, memory.counters(0)


@pytest.mark.parametrize("name", MIXES)
@pytest.mark.parametrize("seed", range(30))
def test_reads_and_writes_mixed_in_one_bank_go_as_the_general_choice_says(name, seed):
    cfg = MIXES[name]
    assert mixed(cfg, seed) == mixed(cfg, seed, shortcuts=False)


def test_a_write_that_may_follow_a_read_at_once_ends_the_run_of_reads():
    # The WR is legal one cycle after the first RD, sooner than the second: it goes between them.
    cfg = MIXES["hbm2, writes at once"]
    memory, t = Memory(cfg), cfg.timing
    places = [address(cfg, co=column) for column in range(3)]
    memory.start_list(0, 0, write=False, addresses_bytes=places[:2], row_bytes=64, now=0)
    memory.start_list(1, 1, write=True, addresses_bytes=places[2:], row_bytes=64, now=0)
    ended = [*memory.advance(FAR), *memory.advance(FAR)]
    written = t.rcd_rd_cycles + 1 + t.cwl_cycles + cfg.burst_cycles
    assert (1, written) in [(done.tag, done.done_cycle) for done in ended]


def test_classes_of_cycles_between_columns_further_apart_than_a_burst():
    # Both requests are queued when the first goes: the gap is spacing, none of it is late.
    cfg, bursts = DDR4, 10
    memory = Memory(cfg)
    memory.start(0, 0, write=False, address_bytes=0, row_bytes=bursts * 64, now=0)
    while memory.next_event() is not None:
        memory.advance(FAR)
    gap = cfg.timing.ccd_l_cycles - cfg.burst_cycles
    counters = memory.counters(0)
    assert gap > 0
    assert (counters.bus_conflict_cycles, counters.late_cycles) == ((bursts - 1) * gap, 0)


def test_no_channel_passes_the_end_of_a_transfer_it_has_no_burst_of():
    """One transfer in both channels closes a row; another in channel 0 alone ends before it.

    Both may end as early, so the older is looked at first, and channel 0 finds the younger's end on
    the way: channel 1 may not go on past it, for what starts then comes there too.
    """
    cfg = replace(HBM2, channels=2)
    memory, t = Memory(cfg, ports=2), cfg.timing
    opened = [address(cfg, ch=channel) for channel in range(2)]
    closing = [address(cfg, ch=channel, ro=1) for channel in range(2)]
    memory.start_list(0, 0, write=False, addresses_bytes=opened, row_bytes=64, now=0)
    memory.advance(FAR)
    memory.idle_until(200)
    memory.start_list(1, 0, write=False, addresses_bytes=closing, row_bytes=64, now=200)
    memory.start(2, 1, write=False, address_bytes=address(cfg, co=1), row_bytes=64, now=200)
    (first,) = memory.advance(FAR)
    assert (first.tag, first.done_cycle) == (2, 200 + t.cl_cycles + cfg.burst_cycles)
    # Channel 1 closes at 200, opens after tRP; the newcomer's bank opens tRRD_S after that.
    memory.start(
        3, 1, write=False, address_bytes=address(cfg, ch=1, bg=1), row_bytes=64, now=memory.now
    )
    ended = {done.tag: done.done_cycle for _ in range(2) for done in memory.advance(FAR)}
    open_cycle = 200 + t.rp_cycles + t.rrd_s_cycles
    assert first.done_cycle < open_cycle
    assert ended[3] == open_cycle + t.rcd_rd_cycles + t.cl_cycles + cfg.burst_cycles
