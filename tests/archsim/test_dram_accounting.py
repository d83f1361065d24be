"""Where the cycles and the energy of the memory went: constructed cases, counted by hand."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

import machine.dram as dram
from archsim.dram.channels import Memory

PRESETS = Path(dram.__file__).parent / "presets" / "dram"


def preset(name, **changes):
    table = tomllib.loads((PRESETS / f"{name}.toml").read_text())
    return replace(TypeAdapter(dram.DramConfig).validate_json(json.dumps(table)), **changes)


ONE = preset("hbm2-neupims", channels=1)
QUIET_ONE, QUIET_DDR4 = replace(ONE, refresh="off"), preset("ddr4-2400r", refresh="off")
FAR = 1 << 40


def address(cfg, **place):
    """Return the byte address of a burst given by its fields."""
    burst = sum(place.get(name, 0) << low for name, (low, _) in cfg.fields.items())
    return burst * cfg.burst_bytes


def stream(cfg, places, *, write=False):
    """Run single bursts, offered in order from cycle 0; return the memory and when it was done."""
    memory = Memory(cfg)
    addresses = [address(cfg, **place) for place in places]
    memory.start_list(0, 0, write=write, addresses_bytes=addresses, row_bytes=64, now=0)
    (done,) = memory.advance(FAR)
    return memory, done.done_cycle


def classes(memory, channel=0):
    """Return the classes of cycles that are not zero."""
    c = memory.counters(channel)
    found = {
        "busy": c.busy_cycles,
        "idle": c.idle_cycles,
        "refresh": c.refresh_cycles,
        "row miss": c.row_miss_cycles,
        "turnaround": c.turnaround_cycles,
        "late": c.late_cycles,
        "bus conflict": c.bus_conflict_cycles,
    }
    assert sum(found.values()) == c.cycles
    return {name: cycles for name, cycles in found.items() if cycles}


def test_cycles_of_one_read():
    memory, _ = stream(QUIET_ONE, [{}])
    assert classes(memory) == {"idle": 14, "row miss": 14, "busy": 2}  # CL, tRCD, burst


def test_cycles_of_reads_of_one_row_too_close_together():
    memory, _ = stream(QUIET_DDR4, [{"co": i} for i in range(10)])
    gaps = 9 * (6 - 4)  # tCCD_L less the burst
    assert classes(memory) == {"idle": 16, "row miss": 16, "busy": 40, "bus conflict": gaps}


def test_cycles_of_a_row_conflict():
    memory, _ = stream(QUIET_ONE, [{}, {"ro": 1}])
    # The second RD comes tRC after the first, and so do its data.
    assert classes(memory) == {"idle": 14, "row miss": 14 + 48 - 2, "busy": 4}


def test_cycles_of_a_write_then_a_read():
    memory, _ = stream(replace(QUIET_ONE, overtakes_max=0), [{}, {"co": 1}], write=[True, False])
    # WR at 14 with data from 18 to 20; RD at 28 with data from 42. Seen CL earlier the gap is
    # from 6 to 28: the row opens until 14, then the bus turns.
    assert classes(memory) == {"idle": 4, "row miss": 14 + 8, "turnaround": 14, "busy": 4}


def test_cycles_of_a_change_of_rank():
    memory, _ = stream(QUIET_ONE, [{}, *({"ra": 1, "co": i} for i in range(2))])
    # RD at 14, at 18 from the other rank, at 20: the data bus rests for tRTRS.
    assert classes(memory) == {"idle": 14, "row miss": 14, "turnaround": 2, "busy": 6}


def test_cycles_between_two_transfers_are_idle():
    memory = Memory(QUIET_ONE)
    for now in (0, 500):
        memory.start(0, 0, write=False, address_bytes=0, row_bytes=64, now=now)
        memory.advance(FAR)
    assert memory.now == 516
    memory.idle_until(1000)
    assert classes(memory) == {"idle": 1000 - 14 - 4, "row miss": 14, "busy": 4}


def test_cycles_of_a_refresh():
    due = ONE.first_refresh_cycle(0)
    memory = Memory(ONE)
    memory.start(0, 0, write=False, address_bytes=0, row_bytes=64, now=due)
    (done,) = memory.advance(FAR)
    # All banks are closed: REF at once, then the row opens.
    assert done.done_cycle == due + 260 + ONE.read_latency_cycles
    assert classes(memory) == {"idle": due + 14, "refresh": 260, "row miss": 14, "busy": 2}


def test_cycles_until_a_late_request_are_late():
    memory = Memory(QUIET_ONE, ports=2)
    memory.start(0, 0, write=False, address_bytes=0, row_bytes=64, now=0)
    memory.start(1, 0, write=False, address_bytes=address(ONE, ro=1), row_bytes=64, now=0)
    memory.start(2, 1, write=False, address_bytes=64, row_bytes=64, now=30)
    done = [memory.advance(FAR)[0].done_cycle for _ in range(3)]
    # RD at 14; the hit arrives at 30, while the other row still waits for tRAS.
    assert done[:2] == [30, 46]
    assert classes(memory)["late"] == 30 - 16
    assert memory.counters(0).row_hits == 1
    assert memory.counters(0).row_conflicts == 1
    assert memory.counters(0).row_misses == 1


def test_energy_is_commands_and_standby_times_the_currents():
    memory, done = stream(QUIET_ONE, [{"co": i} for i in range(5)], write=[False] * 4 + [True])
    energy = memory.energy()
    assert (energy.activate_pj, energy.read_pj, energy.write_pj) == (828, 4 * 804, 1068)
    assert energy.refresh_pj == 0
    # One rank is open from the first cycle on, the other never.
    assert energy.standby_pj == done * (66 + 48)


def test_energy_of_refresh():
    memory = Memory(ONE)
    memory.idle_until(3900 * 10)
    # Rank 0 refreshes at 1950, 5850, ...; rank 1 at 3900, 7800, ... the last not yet.
    assert memory.total().refreshes == 10 + 9
    energy = memory.energy()
    assert energy.refresh_pj == 19 * 60_840
    assert energy.standby_pj == 19 * 260 * 66 + (2 * 39_000 - 19 * 260) * 48


def test_energy_without_currents_is_not_modelled():
    memory, _ = stream(replace(QUIET_ONE, power=None), [{}])
    energy = memory.energy()
    assert energy.read_pj is None
    assert energy.standby_pj is None
