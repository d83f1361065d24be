# amaranth: UnusedElaboratable=no
"""Scales of groups behind an array: RTL, golden and the recurrence, with stalls on every stream."""

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from archsim.group_scale import grouped_transfers, scale_transfers
from golden.execute import execute
from golden.formats import decode, encode
from golden.group_scale import Group, scaled_totals
from golden.matmul import accumulate_groups
from golden.qoq import decode as decode_qoq
from golden.systolic import lay_out, run
from hw.cxxrtl import StreamSimulation, pack_beats, unpack_beats
from hw.group_scale import GroupedSystolic, GroupScale
from hw.verilog import emit
from machine.assembly import parse
from machine.control import Tile as Whole
from machine.formats import FORMATS, format_named
from machine.group import GroupConfig
from machine.group_scale import GroupScaleConfig, pack_scales
from machine.pe import PeConfig
from machine.systolic import SystolicConfig, Tile, Work, pack_tile

FLOAT32 = FORMATS["float32"]
STAGES = {
    "integers": GroupScaleConfig(cols=2, rows=9),
    "floats": GroupScaleConfig(cols=1, rows=9, sum_format="float32", scale_format="bfloat16",
                               multiply_cycles=0),
}
ARRAY = SystolicConfig(rows=2, cols=2, acc_rows=9, w_bits=4,
                       pe=PeConfig(kind="mixpe", w_format="uint4"))  # MixPE W4A8
ZEROS = GroupConfig(cols=2, group=128)
SCALES = GroupScaleConfig(cols=2, rows=9)
PROGRAM = Path(__file__).parents[2] / "examples" / "programs" / "w4a8_grouped.prog"
ROUNDS = 200  # random products of the array with its stages


def stalls(rng: np.random.Generator, beats: int) -> np.ndarray:
    """Return random times for the beats of one stream: none, few, many or long waits."""
    most, chance = [(1, 0.0), (2, 0.3), (4, 0.8), (25, 0.2)][rng.integers(4)]
    return np.cumsum(rng.integers(0, most, beats) * (rng.random(beats) < chance))


def words(values: list[int], bits: int) -> np.ndarray:
    """Return Python integers of `bits` as words, uint32 [n, words]."""
    count = -(-bits // 32)
    return np.array([list(value.to_bytes(4 * count, "little")) for value in values],
                    np.uint8).reshape(len(values), 4 * count).view("<u4")


def assert_same(what: str, got: np.ndarray, want: np.ndarray) -> None:
    """Fail with the first difference between the RTL and what it should be."""
    assert got.shape == want.shape, f"{what}: shape {got.shape}, want {want.shape}"
    for index in np.argwhere(got != want)[:1]:
        at = tuple(int(i) for i in index)
        pytest.fail(f"{what}{list(at)}: RTL {int(got[at]):#x}, want {int(want[at]):#x}")


def totals_of(log, cols: int) -> np.ndarray:
    """Return the rows of totals that left, codes of float32."""
    return unpack_beats(log["o"].words, cols, 32) & 0xFFFF_FFFF


def random_groups(rng: np.random.Generator) -> list[Group]:
    """Return groups of random rows: some products of several groups, some that only accumulate."""
    groups = []
    for _ in range(int(rng.integers(1, 6))):
        rows, count = int(rng.integers(1, 10)), int(rng.integers(1, 5))
        begins, ends = rng.random(2) < 0.8
        groups += [Group(rows, i == 0 and bool(begins), i == count - 1 and bool(ends))
                   for i in range(count)]
    return groups


def random_codes(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return codes of numbers near one another, a tenth of any code at all, few of them NaN."""
    fmt = format_named(name)
    near = encode(rng.standard_normal(shape) * 2.0 ** rng.integers(-4, 5), fmt).astype(np.int64)
    return np.where(rng.random(shape) < 0.1, rng.integers(0, 1 << fmt.bits, shape), near)


def random_sums(rng: np.random.Generator, cfg: GroupScaleConfig, rows: int) -> np.ndarray:
    """Return random rows of sums, the ends and ties of the conversion among them."""
    shape = rows, cfg.cols
    if not cfg.converts:
        return random_codes(rng, "float32", shape)
    size = rng.integers(1, 32, shape)
    wide = rng.integers(-(1 << 31), 1 << 31, shape) >> (31 - size)
    ends = rng.choice([0, -1, (1 << 24) + 1, (1 << 25) + 2, (1 << 31) - 1, -(1 << 31)], shape)
    return np.where(rng.random(shape) < 0.2, ends, wide)


def compare_stage(simulation: StreamSimulation, cfg: GroupScaleConfig,
                  rng: np.random.Generator) -> int:
    """Run random groups; hold bits against golden, cycles against the recurrence; return sums."""
    groups = random_groups(rng)
    rows, last = [g.rows for g in groups], [g.last for g in groups]
    sums = random_sums(rng, cfg, sum(rows))
    scales = random_codes(rng, cfg.scale_format, (len(groups), cfg.cols))
    heads = [pack_scales(cfg, g.rows, line, first=g.first, last=g.last)
             for g, line in zip(groups, scales.tolist(), strict=True)]
    want = scaled_totals(cfg, groups, sums, scales)
    sums_valid, scales_valid, ready = (stalls(rng, n) for n in (len(sums), len(heads), len(want)))
    log = simulation.run({"i_sums": (pack_beats(sums, 32), sums_valid),
                          "i_scales": (words(heads, cfg.scale_word_bits), scales_valid)},
                         {"o": ready})
    assert_same("totals", totals_of(log, cfg.cols), want)
    moved = scale_transfers(cfg, rows, last, sums_valid=sums_valid, scales_valid=scales_valid,
                            ready=ready)
    for name, cycles in (("i_sums", moved.sums), ("i_scales", moved.scales), ("o", moved.o)):
        assert_same(f"cycles of {name}", log[name].cycles, cycles)
    return sums.size


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", STAGES)
def test_sums_of_groups_are_scaled_and_added_up_with_random_stalls(name):
    cfg, rng = STAGES[name], np.random.default_rng(7)
    simulation, vectors, shapes = StreamSimulation(GroupScale(cfg), merge_wires=False), 0, 0
    while vectors < 10_000 or shapes < 200:
        vectors, shapes = vectors + compare_stage(simulation, cfg, rng), shapes + 1


def chain_streams(cfg: SystolicConfig, a, w, act_sums, zeros, scales, size: int, *, ws: bool):
    """Return commands, groups and payloads of A [m, K] x W [K, n] in groups of `size` along K.

    Strips of columns outside, groups next, tiles of K inside. `zeros` and `scales` are
    [groups, n], `act_sums` [m, groups].
    """
    (m, depth), n = a.shape, w.shape[1]
    works, groups, heads, codes, added = [], [], [], [], []
    for n_from in range(0, n, cfg.cols):
        for group in range(-(-depth // size)):
            start, end = group * size, min((group + 1) * size, depth)
            cut = cfg.rows if ws else size
            for at in range(start, end, cut):
                tile = Tile(dataflow="ws" if ws else "os", m=m, k=min(cut, end - at),
                            accumulate=at > start, emit=at + cut >= end)
                works.append(Work(tile, 0, n_from, at))
            last = end == depth
            groups.append(Group(m, group == 0, last))
            lines = [np.pad(part[group, n_from : n_from + cfg.cols],
                            (0, max(0, n_from + cfg.cols - n))).tolist()
                     for part in (zeros, scales)]
            heads.append(m - 1 | sum(int(z) << 16 + col * 4 for col, z in enumerate(lines[0])))
            codes.append(pack_scales(SCALES, m, lines[1], first=group == 0, last=last))
            added.append(act_sums[:, group])
    acts, weights = lay_out(cfg, works, a, w)
    streams = {
        "i_commands": np.array([pack_tile(o.tile) for o in works], "<u8").view("<u4").reshape(
            -1, 2),
        "i_acts": pack_beats(acts, cfg.a_bits), "i_weights": pack_beats(weights, cfg.w_bits),
        "i_act_sums": pack_beats(np.concatenate(added)[:, None], ZEROS.act_sum_bits),
        "i_zeros": words(heads, ZEROS.zero_word_bits),
        "i_scales": words(codes, SCALES.scale_word_bits)}
    return [work.tile for work in works], groups, streams


def compare_chain(simulation, rng, a, w, zeros, scales, size: int, want, *, ws: bool) -> None:
    """Run one product; hold its totals against `want` [m, n], codes, and all cycles."""
    (m, depth), n = a.shape, w.shape[1]
    starts = np.arange(0, depth, size)
    act_sums = np.add.reduceat(a, starts, axis=1)
    tiles, groups, streams = chain_streams(ARRAY, a, w, act_sums, zeros, scales, size, ws=ws)
    times = {name: stalls(rng, len(payload)) for name, payload in streams.items()}
    strips = -(-n // ARRAY.cols)
    ready = stalls(rng, m * strips)
    log = simulation.run({name: (streams[name], times[name]) for name in streams}, {"o": ready})
    got = totals_of(log, ARRAY.cols).reshape(strips, m, ARRAY.cols).swapaxes(0, 1).reshape(m, -1)
    assert_same("totals", got[:, :n], want)
    moved = grouped_transfers(
        ARRAY, SCALES, tiles, [g.rows for g in groups], [g.last for g in groups], ready=ready,
        **{f"{name[2:]}_valid": cycles for name, cycles in times.items()})
    for name, cycles in (
            ("i_commands", moved.array.commands), ("i_acts", moved.array.acts),
            ("i_weights", moved.array.weights), ("i_act_sums", moved.act_sums),
            ("i_zeros", moved.zeros), ("i_scales", moved.scales), ("o", moved.o)):
        assert_same(f"cycles of {name}", log[name].cycles, cycles)


@pytest.fixture(scope="module")
def chain() -> StreamSimulation:
    return StreamSimulation(GroupedSystolic(ARRAY, ZEROS, SCALES), merge_wires=False)


@pytest.mark.cxxrtl
def test_grouped_products_of_any_shape_with_random_stalls(chain):
    rng = np.random.default_rng(8)
    for _ in range(ROUNDS):
        ws = bool(rng.integers(2))
        m, n, k = (int(size) for size in rng.integers(1, [9 if ws else 3, 6, 60]))
        size = int(rng.integers(1, 40))
        groups = -(-k // size)
        # Sums of activations of one sign are long: with a scale, more bits than float32 has.
        a, w = rng.integers(rng.choice([-128, 90]), 128, (m, k)), rng.integers(0, 16, (k, n))
        zeros = rng.integers(0, 16, (groups, n))
        scales = encode(rng.uniform(-1, 1, (groups, n)), FORMATS["float16"]).astype(np.int64)
        total = accumulate_groups(np.zeros((m, n), np.float32), a, w, size,
                                  decode(scales, FORMATS["float16"]), zeros, None)
        want = encode(total, FLOAT32).astype(np.int64)
        compare_chain(chain, rng, a, w, zeros, scales, size, want, ws=ws)


@pytest.mark.cxxrtl
def test_the_grouped_program_of_the_examples_leaves_golden_s_bits_in_rtl(chain):
    rng = np.random.default_rng(5)
    a, w = rng.integers(-128, 128, (5, 256)), rng.normal(size=(24, 256))
    program = parse(PROGRAM.read_text(), PROGRAM.name)
    result = execute(program, {"A": a, "w": w, "ASUM": a.reshape(5, 2, 128).sum(axis=2)})
    # What lies packed in memory, as the program's own loads see it.
    held = {name: result.memory.read(0, tile_of(program, name), None)
            for name in ("w_dram", "s_dram", "z_dram")}
    scales = encode(held["s_dram"].T.astype(float), FORMATS["float16"]).astype(np.int64)
    want = encode(result.tensors["Y"], FLOAT32).astype(np.int64)
    compare_chain(chain, rng, a, held["w_dram"].T.astype(np.int64), held["z_dram"].T, scales, 128,
                  want, ws=True)


def tile_of(program, name: str):
    """Return the whole operand `name` as a tile."""
    operand = next(o for o in program.operands if o.name == name)
    return Whole(operand, operand.address_bytes, 0, operand.shape)


@pytest.mark.cxxrtl
def test_two_level_weights_take_the_scale_of_their_row_behind_the_array():
    cfg, rng = STAGES["integers"], np.random.default_rng(9)
    array = SystolicConfig(rows=3, cols=2, acc_rows=9, pe=PeConfig(kind="qoq"))
    a, codes = rng.integers(-128, 128, (4, 12)), rng.integers(0, 16, (12, 2))
    second, zeros = (np.repeat(rng.integers(low, 16, (3, 2)), 4, axis=0) for low in (1, 0))
    w = decode_qoq(codes, second, zeros)
    works = [Work(Tile(dataflow="ws", m=4, k=3, accumulate=at > 0, emit=at == 9), 0, 0, at)
             for at in range(0, 12, 3)]
    sums = run(array, [work.tile for work in works], *lay_out(array, works, a, w))
    scales = encode(rng.uniform(0.001, 0.1, (1, 2)), FORMATS["float16"]).astype(np.int64)
    head = pack_scales(cfg, 4, scales[0].tolist(), first=True, last=True)
    simulation = StreamSimulation(GroupScale(cfg), merge_wires=False)
    log = simulation.run({"i_sums": (pack_beats(sums, 32), np.zeros(4)),
                          "i_scales": (words([head], cfg.scale_word_bits), np.zeros(1))},
                         {"o": np.zeros(4)})
    numbers = decode(scales, FORMATS["float16"])
    product = [[np.float32(sum(int(x) * int(y) for x, y in zip(row, w[:, col], strict=True)))
                * np.float32(numbers[0, col]) for col in range(2)] for row in a]
    assert_same("rows", totals_of(log, 2), encode(np.array(product), FLOAT32).astype(np.int64))
    assert (log["o"].cycles - log["i_sums"].cycles).tolist() == [cfg.latency_cycles] * 4


def test_three_roundings_a_group_and_no_more():
    cfg = GroupScaleConfig(cols=1, rows=1)
    sums, scales = np.array([[(1 << 25) + 3], [-7]]), np.array([[0x3555], [0x3C01]])
    third, more = (Fraction(float(decode(np.array(code), FORMATS["float16"])))
                   for code in (0x3555, 0x3C01))
    # (2**25 + 3) needs 26 bits: to even, 2**25 + 4. Both products and the sum by hand likewise.
    first = Fraction(np.float32(float((1 << 25) + 4) * float(third)).item())
    total = np.float32(float(first) + float(Fraction(-7) * more))
    got = scaled_totals(cfg, [Group(1, True, False), Group(1, False, True)], sums, scales)
    assert got.tolist() == [[int(total.view(np.uint32))]]


def test_the_stage_is_emitted_without_vendor_parts_or_places(tmp_path):
    stage = GroupScale(GroupScaleConfig(cols=1, rows=4))
    text = emit(stage, "group_scale", tmp_path)[0].read_text()
    assert "module group_scale(" in text and str(tmp_path) not in text
    modules = set(re.findall(r"^module (\S+?)\(", text, re.MULTILINE))
    assert set(re.findall(r"^  (\S+) \S+ \($", text, re.MULTILINE)) <= modules


@pytest.mark.parametrize("change, message", [
    ({"sum_format": "int16"}, "sum_format must be one of int32, float32, not 'int16'"),
    ({"scale_format": "float8_e4m3fn"},
     "scale_format must be one of float16, bfloat16, float32, not 'float8_e4m3fn'"),
    ({"rows": 0}, "rows must be from 1 to 65536, not 0"),
    ({"multiply_cycles": 5}, "multiply_cycles must be from 0 to 4, not 5"),
])
def test_a_stage_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        GroupScaleConfig(cols=1, **change)
