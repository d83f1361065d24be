"""The MixPE study: pairs of elements of equal function, published ratios as released."""

import pytest

from archsim.studies.mixpe import elements, luts, needed
from archsim.studies.tables import study_of, study_tables
from machine.area import area_table
from machine.errors import UserError

W4A8 = "pe.kind=mixpe w_bits=4"
W4A16 = "a_bits=16 pe.acc_format=float32 pe.kind=float_shift_add w_bits=4"
FP16 = "a_bits=16 pe.acc_format=float32 pe.kind=float_mac w_bits=16"


def test_every_row_the_study_reads_was_measured():
    assert len(needed()) == 16 and None not in needed()


@pytest.mark.parametrize("study, target, mixpe, baseline", [
    (0, "osu018", W4A8, ""), (1, "sky130", W4A8, ""),
    (2, "osu018", W4A16, FP16), (3, "sky130", W4A16, FP16),
])
def test_ratios_are_of_the_measured_elements(study, target, mixpe, baseline):
    found, base = (area_table()["pe", parameters, target] for parameters in (mixpe, baseline))
    row = elements()[study].rows[-1]
    assert row["area"] == pytest.approx(found.area_um2 / base.area_um2, abs=6e-4)
    for name in ("delay_ps", "energy_pj"):
        ours, other = getattr(found, name), getattr(base, name)
        ratio = row[name.split("_")[0]]
        assert (ratio is None) == (ours is None or other is None)
        assert ratio is None or ratio == pytest.approx(ours / other, abs=6e-4)


def test_published_energies_are_ratios_of_the_released_powers():
    # nW of mixpe_simulator @ 7e0d42c; the row of 8 by 4 bits serves INT8 and MixPE W4A8 alike.
    assert [study.rows[-1]["published_energy"] for study in elements()] == [
        1.0, 1.0, pytest.approx(544982 / 839982, abs=6e-4), pytest.approx(0.649, abs=6e-4)]


def test_an_element_without_a_multiplier_is_smaller_than_its_baseline():
    for study in elements():
        assert study.rows[0]["area"] == 1.0 and study.rows[-1]["area"] < 1
    for study in luts():
        assert study.rows[-1]["luts_over_int8"] < 0.5


def test_groups_are_scaled_once_and_weights_before():
    for study in elements():
        assert study.rows[0]["scalings"] == 1
        assert all(row["scalings"] == pytest.approx(1 / 128, abs=1e-4) for row in study.rows[1:])


def test_notes_say_what_was_not_published_and_what_lies_outside():
    whole = [" ".join(study.notes) for study in elements()]
    assert all("published: none" in text for text in whole)
    assert "outside 10%" in whole[0], "MixPE W4A8 shares a row of power with INT8 there, not here"
    assert all("not measured" in text for text in whole[1:])


def test_every_table_is_drawn_and_the_first_is_the_default():
    for name in ("elements", "luts"):
        assert study_tables(study_of("mixpe", name)())
    assert study_of("mixpe") is elements
    with pytest.raises(UserError, match="^--table must be one of elements, luts, not '2'$"):
        study_of("mixpe", "2")
