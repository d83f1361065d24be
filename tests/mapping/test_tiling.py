"""Every tiling found fits all slots and covers the product; the estimate prefers the cheaper."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine.load import read_machine
from mapping.builder import ProgramBuilder
from mapping.fit import Unfit
from mapping.plan import Plan
from mapping.tiling import Gemm, GemmTiling, Slots, cost_cycles, find_tiling, fits


@st.composite
def machines(draw):
    """A machine with any number of arrays of any shape and buffers of any size."""
    bits = draw(st.integers(14, 20))
    sizes = {"scratchpad": 1 << bits, "accumulator": 1 << draw(st.integers(12, 20))}
    return read_machine("tiny", [
        f"arrays.0.count={draw(st.sampled_from([1, 2, 3, 4, 6, 8]))}",
        f"arrays.0.rows={draw(st.sampled_from([4, 8, 32, 128]))}",
        f"arrays.0.cols={draw(st.sampled_from([4, 8, 32, 128]))}",
        f"vectors.0.count={draw(st.sampled_from([1, 2, 5, 8]))}",
        *(f"{name}.bytes={size}" for name, size in sizes.items())])


gemms = st.builds(
    lambda m, n, k, bits, residual, halves: Gemm(
        m, 2 * n if halves else n, k, bits, bits, 16, residual=residual, halves=halves),
    st.integers(1, 300), st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([8, 16]),
    st.booleans(), st.booleans())


@given(machine=machines(), gemm=gemms, one_part=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_tiling_fits_and_covers(machine, gemm, one_part):
    slots = Plan(ProgramBuilder("p"), machine).slots
    try:
        t = find_tiling(gemm, machine, slots, name="gemm", one_part=one_part)
    except Unfit as unfit:
        assert unfit.record.gap > 0
        return
    # Counted here, not with mapping.tiling.fits.
    held = gemm.k if t.resident else t.k
    assert t.k * t.n * gemm.w_bits <= 8 * slots.weights
    assert t.m * held * gemm.a_bits <= 8 * slots.activations
    assert t.m * t.n * 4 <= slots.accumulator
    columns = t.n // 2 if gemm.halves else t.n
    assert t.rows * columns * 2 <= slots.outputs
    assert not gemm.residual or t.rows * columns * 2 <= slots.rows
    assert 2 * 4 * t.n + 4 * t.m <= slots.side
    count = machine.arrays[0].count
    assert count % t.m_parts == 0 and t.m % t.m_parts == 0 and t.m % t.rows == 0
    assert t.n == t.unit_n * (count // t.m_parts)
    assert t.m_parts == 1 or not one_part
    assert not gemm.halves or t.n % 2 == 0


SLOTS = Slots(weights=4096, activations=512, rows=512, outputs=512, side=1024, probabilities=64,
              accumulator=2048)


@pytest.mark.parametrize("region, at, over", [
    ("weights", {"k": 64}, {"k": 65}),
    ("activations", {"k": 64}, {"k": 64, "m": 9}),
    ("accumulator", {"n": 64, "m": 8}, {"n": 64, "m": 9}),
    ("outputs", {"rows": 4, "n": 64}, {"rows": 5, "n": 64}),
    ("residual", {"rows": 4, "n": 64}, {"rows": 5, "n": 64}),
    ("side", {"n": 112, "m": 32}, {"n": 112, "m": 33}),
])
def test_a_region_holds_its_slot_and_not_one_more(region, at, over):
    gemm = Gemm(64, 64, 64, 8, 8, 16, residual=True)
    whole = {"m": 8, "n": 64, "k": 8, "rows": 1}
    for change, fit in ((at, True), (over, False)):
        s = whole | change
        tiling = GemmTiling(s["m"], s["n"], s["k"], s["n"], 1, s["rows"], False)
        demand, bound = fits(gemm, tiling, SLOTS)[region]
        assert (demand <= bound) is fit, (demand, bound)


def test_resident_rows_hold_all_of_k():
    gemm = Gemm(8, 64, 640, 8, 8, 16)
    demand = {r: fits(gemm, GemmTiling(8, 64, 8, 64, 1, 1, r), SLOTS)["activations"][0]
              for r in (False, True)}
    assert demand == {False: 64, True: 5120}


def test_the_estimate_counts_rows_of_a_tile_and_bytes_of_a_step():
    machine = read_machine("npu-hbm2")
    gemm = Gemm(256, 1024, 128, 8, 8, 16)
    block = GemmTiling(256, 1024, 128, 128, 1, 1, True)
    # One step: one tile of 256 rows a unit against 128 KiB of weights at 1024 bytes a cycle.
    tail = machine.arrays[0].latency_cycles + 256
    assert cost_cycles(gemm, block, machine) == 256 + 1 + tail
    # Twice the columns, twice the tiles; both halves of the rows by different units.
    parts = GemmTiling(256, 512, 128, 128, 2, 1, True)
    assert cost_cycles(gemm, parts, machine) == 2 * (128 + 1) + 2 * (tail - 128)


def test_no_tiling_names_the_region_that_misses_most():
    machine = read_machine("tiny", ["accumulator.bytes=32"])
    slots = Plan(ProgramBuilder("p"), machine).slots
    with pytest.raises(Unfit) as caught:
        find_tiling(Gemm(8, 8, 8, 8, 8, 16), machine, slots, name="qkv")
    assert caught.value.record.resource == "accumulator.bytes"
    assert caught.value.record.operator == "qkv"
