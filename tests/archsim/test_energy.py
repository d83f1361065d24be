"""Energy: counts by hand times numbers with a source; what has none says so."""

from dataclasses import replace

import pytest

from archsim.area import element_energy
from archsim.energy import NOT_MODELLED, EnergyRow, energy, energy_table

TEXT = """program t version 1
needs systolic vector
chips 1
operand a scratchpad 0x0 int8 [8,8] stride [8,1]
operand h scratchpad 0x0 int16 [8,8] stride [8,1]
operand w scratchpad 0x100 int8 [8,8] stride [8,1]
operand acc accumulator 0x0 int32 [8,8] stride [8,1]
operand v scratchpad 0x800 float32 [4,16] stride [16,1]
operand far dram 0x0 int8 [640] stride [1]
operand near scratchpad 0x1000 int8 [640] stride [1]
stream chip0.dma0
  load src=far dst=near
  halt
stream chip0.array0
  matmul a=a w=w acc=acc dataflow=ws units=0x3
  matmul a=h w=w acc=acc dataflow=ws
  halt
stream chip0.vector0
  vector vop=copy x=v y=v
  halt
"""


@pytest.fixture(scope="module")
def result(run, machine):
    return run(TEXT, machine(arrays=2))


@pytest.fixture(scope="module")
def rows(result):
    return {(row.component, row.operation): row for row in energy(result)}


def test_every_number_of_the_table_names_its_source():
    table = energy_table()
    assert table
    for row in table.values():
        assert row.value_pj > 0
        assert " @ " in row.source  # repository and commit
        assert row.unit


@pytest.mark.parametrize(("component", "operation", "nw", "mhz"), [
    ("array", "mac of 8 bits", 279_960, 500), ("array", "mac of 16 bits", 839_982, 500),
])
def test_the_energy_of_a_mac_is_its_power_over_its_clock(component, operation, nw, mhz):
    assert energy_table()[component, operation].value_pj == pytest.approx(nw / mhz / 1000)


@pytest.mark.parametrize(("component", "operation", "value"), [
    ("array", "leakage", 64_314 * 1e-6),  # nW are 1e-6 pJ a ns
    ("buffer", "read", 17.769 / 64), ("buffer", "write", 24.887 / 64),  # a word of 512 bits
    ("buffer", "leakage", 5.498 / 8192),  # mW are pJ a ns, of a bank of 8 KB
    ("dram", "interface", 0.8 * 8), ("link", "transfer", 1.3 * 8),  # pJ a bit
])
def test_derived_numbers_follow_from_their_source(component, operation, value):
    assert energy_table()[component, operation].value_pj == pytest.approx(value)


def test_dynamic_energy_is_count_times_number(rows, result):
    # 512 macs on each of two arrays, 512 with 16-bit activations on one.
    assert rows["array", "mac of 8 bits"].count == 1024
    value_pj, source = element_energy(result.machine.arrays[0])
    assert rows["array", "mac of 8 bits"].energy_pj == pytest.approx(1024 * value_pj)
    assert rows["array", "mac of 8 bits"].source == source
    assert rows["array", "mac of 16 bits"].energy_pj == pytest.approx(512 * 1.679964)
    # Words of 64 bytes: activations 1 + 1 + 2, weights 3, the vector 4; written: dma 10, vector 4.
    assert rows["scratchpad", "read"].count == (4 + 3 + 4) * 64
    assert rows["scratchpad", "write"].count == (10 + 4) * 64
    assert rows["accumulator", "write"].count == 3 * 4 * 64
    assert rows["dram", "read"].count == 10
    assert rows["dram", "interface"].count == 640
    reads = 10 * result.machine.dram.read_pj
    assert rows["dram", "read"].energy_pj == pytest.approx(reads)


def test_macs_of_an_element_that_was_not_measured_have_the_tables_energy(run, machine):
    on = machine(arrays=2)
    odd = replace(on, arrays=(replace(on.arrays[0], a_bits=7, w_bits=9),))
    found = {row.operation: row for row in energy(run(TEXT, odd)) if row.component == "array"}
    assert found["mac of 8 bits"].energy_pj == pytest.approx(1024 * 0.55992)
    assert "mixpe_simulator" in found["mac of 8 bits"].source


def test_static_energy_grows_with_time_and_size(rows, result):
    ns = result.ticks  # of 1 ns
    assert rows["array", "leakage"].energy_pj == pytest.approx(2 * 64 * ns * 0.064314)
    size = result.machine.scratchpad.bytes
    assert rows["scratchpad", "leakage"].energy_pj == pytest.approx(size * ns * 5.498 / 8192)
    assert rows["dram", "standby"].kind == "static"
    assert rows["dram", "standby"].count == result.ticks * result.machine.dram.ranks


def test_what_has_no_source_is_not_modelled_and_never_zero(rows):
    absent = [row for row in rows.values() if row.energy_pj is None]
    assert {row.component for row in absent} == {"vector", "crossbar", "sequencer"}
    for row in absent:
        assert row.to_dict()["energy_pj"] == NOT_MODELLED
        assert row.cells()[EnergyRow.columns().index("energy_pj")] == NOT_MODELLED
    for row in rows.values():
        assert row.energy_pj is None or row.source != NOT_MODELLED


def test_dram_without_currents_is_not_modelled(run, machine):
    on = machine(arrays=2)
    result = run(TEXT, replace(on, dram=replace(on.dram, power=None)))
    found = {row.operation: row.energy_pj for row in energy(result) if row.component == "dram"}
    assert found.pop("interface") is not None
    assert set(found) == {"activate", "read", "write", "refresh", "standby"}
    assert set(found.values()) == {None}
