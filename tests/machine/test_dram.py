"""DRAM configurations: limits, address map, rule table, energies."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

import machine.dram as dram

PRESETS = Path(dram.__file__).parent / "presets" / "dram"


def preset(name):
    table = tomllib.loads((PRESETS / f"{name}.toml").read_text())
    return TypeAdapter(dram.DramConfig).validate_json(json.dumps(table))


NAMES = ["ddr4-2400r", "ddr5-4800bn", "gddr6-1350mv", "hbm2-neupims", "hbm3-6400", "lpddr5-6400"]
HBM2, DDR4 = preset("hbm2-neupims"), preset("ddr4-2400r")


def test_every_preset_is_read():
    assert sorted(path.stem for path in PRESETS.glob("*.toml")) == NAMES
    assert all(preset(name).capacity_bytes for name in NAMES)


def test_hbm2_energies_are_those_derived_from_the_source():
    # NeuPIMs' configuration.cc formulae on its own currents.
    assert HBM2.activate_pj == 828
    assert HBM2.read_pj == 804
    assert HBM2.write_pj == 1068
    assert HBM2.refresh_pj == 60_840
    assert HBM2.active_standby_pj_per_cycle == 66
    assert HBM2.precharge_standby_pj_per_cycle == 48


def test_energy_counts_every_device_and_the_length_of_a_cycle():
    power = replace(HBM2.power, devices=8)
    assert replace(HBM2, power=power).read_pj == 8 * 804
    slow = replace(HBM2.timing, tck_ps=2000)
    assert replace(HBM2, timing=slow).read_pj == 2 * 804


def test_energy_without_currents_is_not_modelled():
    without = replace(HBM2, power=None)
    names = [n for n in dir(without) if n.endswith(("_pj", "_pj_per_cycle")) and n[0] != "_"]
    assert len(names) == 6
    assert [getattr(without, name) for name in names] == [None] * 6


def test_hbm2_size_and_speed_are_the_sources():
    assert HBM2.capacity_bytes == 32 << 30
    assert HBM2.row_bytes == 1024
    assert HBM2.burst_bytes == 64
    assert HBM2.peak_bytes_per_cycle * 1_000_000_000_000 // HBM2.timing.tck_ps == 1_024_000_000_000


def test_ddr4_size_and_speed_are_the_standards():
    assert DDR4.capacity_bytes == 8 << 30
    assert DDR4.row_bytes == 8192
    assert DDR4.peak_bytes_per_cycle == 16


def test_hbm2_address_map_is_row15_rank1_group2_bank2_channel5_column4_offset6():
    assert HBM2.fields == {
        "co": (0, 4),
        "ch": (4, 5),
        "ba": (9, 2),
        "bg": (11, 2),
        "ra": (13, 1),
        "ro": (14, 15),
    }
    address = (5 << 20) | (1 << 19) | (2 << 17) | (3 << 15) | (17 << 10) | (9 << 6) | 63
    assert HBM2.place(address) == {"ro": 5, "ra": 1, "bg": 2, "ba": 3, "ch": 17, "co": 9}


def test_unloaded_latencies_are_the_sums_of_their_parts():
    assert HBM2.hit_latency_cycles == 14 + 2
    assert HBM2.read_latency_cycles == 14 + 14 + 2
    assert HBM2.write_latency_cycles == 14 + 4 + 2
    assert DDR4.read_latency_cycles == 16 + 16 + 4


def test_refresh_of_the_ranks_is_spread_over_the_interval():
    assert [HBM2.first_refresh_cycle(rank) for rank in range(2)] == [1950, 3900]
    assert DDR4.first_refresh_cycle(0) == 9364


@pytest.mark.parametrize(
    ("cfg", "after", "before", "scope", "gap"),
    [
        # NeuPIMs' timing.cc on its numbers.
        (HBM2, "RD", "WR", "channel", 14 + 2 - 4 + 2),
        (HBM2, "WR", "RD", "bank_group", 4 + 2 + 8),
        (HBM2, "WR", "RD", "rank", 4 + 2 + 6),
        (HBM2, "RD", "RD", "other_ranks", 2 + 2),
        (HBM2, "WR", "RD", "other_ranks", 4 + 2 + 2 + 2 - 16 - 0),
        (HBM2, "WR", "PRE", "bank", 4 + 2 + 16),
        (HBM2, "ACT", "ACT", "bank", 48),
        # JESD79-4: read to write is CL + BL/2 + 2 - CWL.
        (DDR4, "RD", "WR", "channel", 16 + 4 + 2 - 12),
        (DDR4, "WR", "RD", "rank", 12 + 4 + 3),
        (DDR4, "ACT", "ACT", "bank", 55),
    ],
)
def test_gap_between_two_commands_is_the_sources(cfg, after, before, scope, gap):
    (rule,) = [r for r in dram.rules(cfg) if (r.after, r.before, r.scope, r.nth) ==
               (after, before, scope, 1)]  # fmt: skip
    assert rule.gap_cycles(cfg) == gap


def test_rules_name_known_commands_only():
    for rule in dram.rules(HBM2):
        assert {rule.after, rule.before} <= set(dram.COMMANDS)
    assert set(dram.BUS) == set(dram.PRECONDITIONS) == set(dram.COMMANDS)


@pytest.mark.parametrize(
    ("name", "bytes_per_second", "read_ps"),
    [
        # Data rate x width; CL, RCD, the burst, and the second cycle of an ACT that has two.
        ("ddr5-4800bn", 2 * 4800e6 * 4, (2 * 36 + 8 + 1) * 416),
        ("lpddr5-6400", 4 * 6400e6 * 2, (17 + 15 + 2 + 1) * 1250),
        ("gddr6-1350mv", 4e12 / 570 * 4, (24 + 26 + 4) * 570),
        ("hbm3-6400", 32 * 6400e6 * 4, (26 + 26 + 2 + 1) * 625),
    ],
)
def test_size_and_speed_of_each_standard_are_its_own(name, bytes_per_second, read_ps):
    cfg = preset(name)
    speed = cfg.peak_bytes_per_cycle * 1e12 / cfg.timing.tck_ps
    assert speed == pytest.approx(bytes_per_second, rel=0.002)  # tCK is rounded to picoseconds
    assert cfg.read_latency_cycles * cfg.timing.tck_ps == read_ps
    assert cfg.banks == {"ddr5-4800bn": 32}.get(name, 16)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_every_mapping_is_a_bijection(name, data):
    order = data.draw(st.permutations(dram.FIELDS))
    cfg = replace(preset(name), mapping="".join(order))
    burst = data.draw(st.integers(0, cfg.capacity_bytes // cfg.burst_bytes - 1))
    place = cfg.place(burst * cfg.burst_bytes + data.draw(st.integers(0, cfg.burst_bytes - 1)))
    # The mixed-radix number of the fields, most significant first, is the burst's again.
    sizes = {"ro": cfg.rows, "ra": cfg.ranks, "bg": cfg.bank_groups, "ba": cfg.banks_per_group,
             "ch": cfg.channels, "co": cfg.columns // cfg.burst_length}  # fmt: skip
    back = 0
    for field in order:
        assert 0 <= place[field] < sizes[field]
        back = back * sizes[field] + place[field]
    assert back == burst


def test_a_command_of_two_cycles_acts_with_its_last_one():
    cfg = preset("ddr5-4800bn")
    gaps = {(r.after, r.before, r.scope, r.name): r.gap_cycles(cfg) for r in dram.rules(cfg)}
    assert gaps["ACT", "RD", "bank", "tRCDRD"] == 36
    assert gaps["ACT", "PRE", "bank", "tRAS"] == 77 + 1
    assert gaps["PRE", "ACT", "bank", "tRP"] == 36 - 1
    assert gaps["WR", "PRE", "bank", "tWR"] == 34 + 8 + 72 + 1
    assert gaps["RD", "PRE", "channel", "slots"] == 2


def test_deadlines_go_with_refresh():
    assert {d.name for d in dram.deadlines(HBM2)} == {"tREFI", "tRAS max"}
    assert dram.deadlines(replace(HBM2, refresh="off")) == ()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"channels": 3}, "channels must be a power of two, not 3"),
        ({"rows": 0}, "rows must be a power of two, not 0"),
        ({"burst_length": 1}, "burst_length must be at least 2, not 1"),
        ({"bus_bits": 4}, "bus_bits must be at least 8, not 4"),
        ({"columns_per_cycle": 8}, "burst_length must be at least 8, not 4"),
        (
            {"two_cycle": ("RDA",)},
            "two_cycle must be among ACT, PRE, PREA, REF, RD, WR, not ('RDA',)",
        ),
        ({"columns": 2}, "columns must be at least burst_length 4, not 2"),
        ({"ranks": 8}, "banks of a channel must be at most 64, not 128"),
        ({"queue_entries": 0}, "queue_entries must be at least 1, not 0"),
        ({"overtakes_max": -1}, "overtakes_max must be at least 0, not -1"),
        (
            {"mapping": "rorabgbaco"},
            "mapping must be ro ra bg ba ch co in any order, without spaces, not 'rorabgbaco'",
        ),
    ],
)
def test_refuses_an_impossible_memory(changes, sentence):
    with pytest.raises(ValueError) as caught:
        replace(HBM2, **changes)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cl_cycles": 0}, "cl_cycles must be at least 1, not 0"),
        ({"rtrs_cycles": -1}, "rtrs_cycles must be at least 0, not -1"),
        ({"ppd_cycles": -1}, "ppd_cycles must be at least 0, not -1"),
        (
            {"row_cycles": 47},
            "row_cycles must be at least 48 of ras_cycles 34 and rp_cycles 14, not 47",
        ),
        ({"ras_cycles": 13}, "ras_cycles must be at least rcd_rd_cycles 14, not 13"),
        ({"rp_all_cycles": 13}, "rp_all_cycles must be at least rp_cycles 14, not 13"),
        ({"faw_cycles": 3}, "faw_cycles must be at least rrd_s_cycles 4, not 3"),
        ({"ccd_s_cycles": 3}, "ccd_l_cycles must be at least ccd_s_cycles 3, not 2"),
        ({"rrd_s_cycles": 7}, "rrd_l_cycles must be at least rrd_s_cycles 7, not 6"),
        ({"wtr_l_cycles": 5}, "wtr_l_cycles must be at least wtr_s_cycles 6, not 5"),
        (
            {"refi_cycles": 322},
            "refi_cycles must be more than 322 of refresh, one row and two precharges, not 322",
        ),
    ],
)
def test_refuses_impossible_timings(changes, sentence):
    with pytest.raises(ValueError) as caught:
        replace(HBM2.timing, **changes)
    assert sentence in str(caught.value)
    replace(HBM2.timing, rtrs_cycles=0, refi_cycles=323, row_cycles=48, rp_all_cycles=14)


def test_refuses_a_current_of_zero():
    with pytest.raises(ValueError) as caught:
        replace(HBM2.power, idd0_ma=0)
    assert "idd0_ma must be at least 1, not 0" in str(caught.value)
