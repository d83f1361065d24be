"""SCALE-Sim's compute cycles, against what the package scalesim 3.0.0 printed."""

import pytest

from archsim.scalesim import compute_cycles, utilisation_percent
from machine.errors import UserError
from machine.systolic import SystolicConfig, matmul_cycles

# (rows and columns, dataflow, m, n, k, compute cycles, utilisation in percent as printed):
# runs of scalesim 3.0.0.
PRINTED = [
    (8, "os", 1, 1, 1, 14, 0.111607),
    (8, "os", 37, 53, 71, 2974, 73.150113),
    (8, "os", 5, 64, 768, 6255, 61.390887),
    (8, "ws", 1, 1, 1, 22, 0.071023),
    (8, "ws", 37, 53, 71, 3716, 58.543713),
    (8, "ws", 5, 64, 768, 20735, 18.519412),
    (8, "is", 1, 1, 1, 22, 0.071023),
    (8, "is", 37, 53, 71, 3374, 64.477901),
    (8, "is", 5, 64, 768, 8255, 46.517262),
    (16, "os", 1, 1, 1, 30, 0.013021),
    (16, "os", 37, 53, 71, 1211, 44.910908),
    (16, "os", 5, 64, 768, 3191, 30.084613),
    (16, "ws", 1, 1, 1, 46, 0.008492),
    (16, "ws", 37, 53, 71, 1659, 32.783068),
    (16, "ws", 5, 64, 768, 9791, 9.804923),
    (16, "is", 1, 1, 1, 46, 0.008492),
    (16, "is", 37, 53, 71, 1484, 36.648996),
    (16, "is", 5, 64, 768, 5279, 18.185262),
    (32, "os", 1, 1, 1, 62, 0.001575),
    (32, "os", 37, 53, 71, 531, 25.605984),
    (32, "os", 5, 64, 768, 1659, 14.466546),
    (32, "ws", 1, 1, 1, 94, 0.001039),
    (32, "ws", 37, 53, 71, 785, 17.320735),
    (32, "ws", 5, 64, 768, 4751, 5.051568),
    (32, "is", 1, 1, 1, 94, 0.001039),
    (32, "is", 37, 53, 71, 881, 15.433345),
    (32, "is", 5, 64, 768, 3791, 6.330783),
    (128, "os", 1, 1, 1, 254, 2.4e-05),
    (128, "os", 37, 53, 71, 324, 2.622835),
    (128, "os", 5, 64, 768, 1021, 1.469148),
    (128, "ws", 1, 1, 1, 382, 1.6e-05),
    (128, "ws", 37, 53, 71, 418, 2.033011),
    (128, "ws", 5, 64, 768, 2321, 0.646273),
    (128, "is", 1, 1, 1, 382, 1.6e-05),
    (128, "is", 37, 53, 71, 434, 1.958061),
    (128, "is", 5, 64, 768, 2675, 0.560748),
]


@pytest.mark.parametrize("size, dataflow, m, n, k, cycles, percent", PRINTED)
def test_cycles_and_utilisation_are_those_scale_sim_prints(
    size, dataflow, m, n, k, cycles, percent
):
    assert compute_cycles(size, size, m, n, k, dataflow) == cycles
    assert round(utilisation_percent(size, size, m, n, k, dataflow), 6) == percent


@pytest.mark.parametrize("dataflow, folds, fold_cycles", [
    ("os", 5 * 3, 13 + 4 + 6 - 2),  # m over rows, n over columns; k streams
    ("ws", 4 * 3, 2 * 4 + 6 + 17 - 2),  # k over rows, n over columns; m streams
    ("is", 4 * 3, 2 * 4 + 6 + 18 - 2),  # k over rows, m over columns; n streams
])
def test_rows_and_columns_are_not_confused(dataflow, folds, fold_cycles):
    assert compute_cycles(4, 6, 17, 18, 13, dataflow) == folds * fold_cycles - 1


def test_rejects_an_unknown_dataflow():
    with pytest.raises(UserError) as caught:
        compute_cycles(8, 8, 1, 1, 1, "oss")
    assert str(caught.value) == ("dataflow must be one of is, os, ws, not 'oss'; "
                                 "did you mean 'os'?")


@pytest.mark.parametrize("place", range(5))
def test_rejects_sizes_below_one(place):
    sizes = [8, 8, 1, 1, 1]
    sizes[place] = 0
    name = ("rows", "cols", "m", "n", "k")[place]
    with pytest.raises(ValueError, match=rf"^{name} must be at least 1, not 0$"):
        compute_cycles(*sizes, "os")


def test_the_utilisation_of_no_cycles_is_refused():
    assert compute_cycles(1, 1, 1, 1, 1, "os") == 0
    with pytest.raises(ValueError, match=r"^cycles must be above 0 for a utilisation, not 0$"):
        utilisation_percent(1, 1, 1, 1, 1, "os")


def test_our_array_overlaps_the_folds_that_scale_sim_runs_one_by_one():
    cfg = SystolicConfig(rows=32, cols=32, acc_rows=512)
    for dataflow in ("os", "ws"):
        ours = matmul_cycles(cfg, 512, 512, 512, dataflow).total_cycles
        assert ours < compute_cycles(32, 32, 512, 512, 512, dataflow)
