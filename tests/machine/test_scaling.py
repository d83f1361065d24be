"""Scaling between nodes: the authors' own example, the identity, and what is refused."""

import pytest

from machine.scaling import area_factor, delay_factor, energy_factor


def test_energy_of_the_authors_corrected_example():
    # 1 pJ at 65 nm and 1.3 V, a factor of 2.604, at 32 nm and 0.9 V, one of 0.4571.
    assert energy_factor(65, 1.3, 32, 0.9) == pytest.approx(0.4571 / 2.604, rel=1e-3)


@pytest.mark.parametrize(("from_nm", "to_nm", "factor"), [(180, 32, 0.025), (130, 7, 0.0092)])
def test_area_at_a_node_of_the_table_is_the_tables(from_nm, to_nm, factor):
    assert area_factor(from_nm, to_nm) == factor


@pytest.mark.parametrize("node_nm", [180, 130, 65, 28, 7])
def test_a_node_to_itself_changes_nothing(node_nm):
    assert energy_factor(node_nm, 1.0, node_nm, 1.0) == pytest.approx(1)
    assert delay_factor(node_nm, 1.0, node_nm, 1.0) == pytest.approx(1)


def test_between_two_nodes_is_between_their_factors():
    assert area_factor(180, 20) < area_factor(180, 28) < area_factor(180, 32)
    # Half way over the logarithm: the geometric mean.
    assert area_factor(180, (20 * 32) ** 0.5) == pytest.approx((0.011 * 0.025) ** 0.5)


def test_a_smaller_node_is_smaller_faster_and_takes_less():
    nodes = [180, 130, 90, 65, 45, 32, 20, 16, 14, 10, 7]
    areas = [area_factor(180, node) for node in nodes]
    assert areas == sorted(areas, reverse=True)
    assert energy_factor(180, 1.8, 28, 0.9) < energy_factor(180, 1.8, 65, 1.1) < 1
    assert delay_factor(180, 1.8, 28, 0.9) < delay_factor(180, 1.8, 65, 1.1) < 1


def test_outside_the_table_is_refused():
    with pytest.raises(ValueError, match="^node_nm must be from 7 to 180, not 5$"):
        area_factor(180, 5)
    with pytest.raises(ValueError, match="^from_nm must be one of 180, 130, not 65$"):
        area_factor(65, 28)
    with pytest.raises(ValueError, match="^node_nm must be from 7 to 180, not 250$"):
        energy_factor(250, 1.8, 28, 0.9)
