"""Area of a machine: measured elements times a sourced factor; the rest is said."""

from dataclasses import replace

import pytest

from archsim.area import NOT_MODELLED, area, area_report, element_energy, element_parameters
from machine.area import area_table
from machine.errors import UserError
from machine.load import read_machine
from machine.pe import PeConfig
from machine.systolic import SystolicConfig

TINY = read_machine("tiny")


def test_elements_are_their_number_times_the_measured_one_scaled():
    cfg = TINY.arrays[0]
    rows = {row.component: row for row in area(TINY, 32)}
    row = rows[f"{cfg.name}: elements"]
    measured = area_table()["pe", element_parameters(cfg), "sky130"].area_um2
    # Stillmaker and Baas: 130 nm to 32 nm is a factor of 0.072.
    count = cfg.count * cfg.rows * cfg.cols
    assert row.area_um2 == pytest.approx(count * measured * 0.072)
    assert row.count == count
    assert "machine/tables/area.csv, pe" in row.source and "Stillmaker" in row.source


def test_what_was_not_measured_is_said_and_is_no_number():
    rows = area_report(area(TINY))
    absent = {row["component"] for row in rows if row["area_um2"] == NOT_MODELLED}
    assert {"scratchpad", "accumulator", "vector"} <= absent
    assert all(row["source"] == NOT_MODELLED for row in rows if row["component"] in absent)
    odd = replace(TINY.arrays[0], a_bits=7)
    rows = area_report(area(replace(TINY, arrays=(odd,))))
    assert rows[0]["area_um2"] == NOT_MODELLED


def test_a_node_off_the_table_is_refused():
    with pytest.raises(UserError, match="^--node must be from 7 to 180, not 5$"):
        area(TINY, 5)


@pytest.mark.parametrize("changes, want", [
    ({}, ""),
    ({"w_bits": 4}, "w_bits=4"),
    ({"acc_bits": 48, "a_bits": 16, "w_bits": 16}, "a_bits=16 acc_bits=48 w_bits=16"),
    ({"pe": PeConfig(depth_cycles=2), "rows": 4, "acc_rows": 0}, "pe.depth_cycles=2"),
    ({"dataflows": ("ws",)}, 'dataflows=["ws"]'),
    ({"dataflows": ("ws", "os")}, ""),
])
def test_an_element_is_looked_up_by_what_makes_it(changes, want):
    assert element_parameters(SystolicConfig(**{"rows": 2, "cols": 3, **changes})) == want


def test_energy_is_the_measured_one_scaled():
    cfg = SystolicConfig(rows=8, cols=8)
    value, source = element_energy(cfg)
    measured = area_table()["pe", "", "osu018"].energy_pj
    # The authors' polynomials: 24.64 * 1.8 - 17.98 at 180 nm; between those of 32 and 20 nm at
    # 28 nm, where both are of 0.9 V.
    at_180 = 24.64 * 1.8 - 17.98
    at_32 = 0.8367 * 0.81 - 0.4341 * 0.9 + 0.1701
    at_20 = 0.373 * 0.81 - 0.1582 * 0.9 + 0.04104
    assert measured * at_20 / at_180 < value < measured * at_32 / at_180
    assert source.endswith("180 nm scaled by Stillmaker and Baas 2017 to 28 nm and 0.9 V")
    assert element_energy(replace(cfg, a_bits=7)) is None
