"""Golden and simulator changed by hand, in a copy of the packages: the block's check sees each.

Each block has twenty changes. A check is a smaller run of that of the block's test in this folder,
against the unchanged RTL. None survives: what would is no test but a wish.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The checks, in the copy: `tests` is the block's test module.
CHECKS = {
    "test_systolic.py": """
tests.MATMULS, tests.MIXES = 8, 8
for cfg in (tests.CONFIGS[5], tests.CONFIGS[8]):
    simulation = StreamSimulation(tests.Systolic(cfg))
    tests.check_random_cases(cfg, simulation, 0)
    tests.check_slow_sums(cfg, simulation, 4 if cfg.acc_rows else 0)
cfg = tests.CONFIGS[5]  # sums of the lowest numbers wrap between tiles
works = list(tests.matmul_tiles(cfg, 4, 4, 16, "ws"))
beats = tests.lay_out(cfg, works, tests.np.full((4, 16), -16), tests.np.full((16, 4), -4))
tests.check(cfg, StreamSimulation(tests.Systolic(cfg)), tests.np.random.default_rng(0),
            [work.tile for work in works], *beats)
""",
    "test_lut.py": """
tests.MATMULS, tests.MIXES = 6, 6
for name in ("symmetric", "int8-w2", "whole-tables-enter", "add"):
    cfg = tests.CONFIGS[name]
    tests.check_random_cases(cfg, StreamSimulation(tests.Lut(cfg)), 0)
""",
    "test_group_scale.py": """
for name, cfg in tests.STAGES.items():
    simulation = StreamSimulation(tests.GroupScale(cfg), merge_wires=False)
    rng = tests.np.random.default_rng(7)
    for _ in range(40):
        tests.compare_stage(simulation, cfg, rng)
chain = StreamSimulation(tests.GroupedSystolic(tests.ARRAY, tests.ZEROS, tests.SCALES),
                         merge_wires=False)
tests.test_grouped_products_of_any_shape_with_random_stalls(chain)
""",
    "test_float_programs.py": """
for name, cfgs in tests.MODELS.items():
    simulation = StreamSimulation(tests.Arrays(cfgs), merge_wires=False)
    for seed in range(5):
        tests.compare(simulation, cfgs, seed)
""",
}
START = """
import importlib.util
from hw.cxxrtl import StreamSimulation
spec = importlib.util.spec_from_file_location("tests", "tests/{name}")
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
"""

SYSTOLIC = [
    ("golden/systolic.py", "sums = add(cfg, stored[rows], sums)", "sums = stored[rows] + sums"),
    ("golden/systolic.py", "if tile.accumulate:", "if tile.accumulate and tile.m > 1:"),
    ("golden/systolic.py", "act_at += tile.act_beats", "act_at += tile.m"),
    ("golden/systolic.py", "weight_at += tile.weight_beats", "weight_at += tile.act_beats"),
    ("golden/systolic.py", "a = a[:, : tile.k] if", "a = a[:, : cfg.rows] if"),
    ("golden/systolic.py", "stored[rows] = sums", "stored[rows] += sums"),
    ("golden/systolic.py", "sent.append(sums)", "sent.append(sums[::-1])"),
    ("golden/systolic.py", "half = 1 << (bits - 1)", "half = 1 << bits"),
    ("golden/systolic.py", "slice(tile.acc_row, tile.acc_row + tile.m)", "slice(0, tile.m)"),
    ("golden/systolic.py", "at += tile.m", "at += 1"),
    ("archsim/systolic.py", "offered[at] = max(cycle, before) + 1", "offered[at] = cycle + 1"),
    ("archsim/systolic.py", "max(0, before - cycle)", "max(0, before - cycle - 1)"),
    ("archsim/systolic.py", "taken[at] = max(offered[at], ready[at])", "taken[at] = ready[at]"),
    ("archsim/systolic.py", "loaded = _load(step,", "loaded = 1 + _load(step,"),
    ("archsim/systolic.py", "moved = max(loaded, end)\n\n        # Run: one beat",
     "moved = loaded\n\n        # Run: one beat"),
    ("archsim/systolic.py", "step = max(loaded, weights_open)", "step = loaded"),
    ("archsim/systolic.py", "if not os or beat == k - 1:", "if not os:"),
    ("archsim/systolic.py", "weights_open = end + 1", "weights_open = end"),
    ("archsim/systolic.py", "slot_open = end + (m if os else 1)", "slot_open = end + 1"),
    ("archsim/systolic.py", "_push(end + row + delay,", "_push(end + row + delay + (row > 0),"),
]
LUT = [
    ("golden/lut_array.py", "factor = 2 * w + 1 if", "factor = 2 * w - 1 if"),
    ("golden/lut_array.py", "if not tile.accumulate:", "if True:"),
    ("golden/lut_array.py", "sums = wrap(sums + _step", "sums = (sums + _step"),
    ("golden/lut_array.py", "sent.append(sums[: tile.rows])", "sent.append(sums[-tile.rows :])"),
    ("golden/lut_array.py", "sign[-1] = -1", "sign[-1] = 1"),
    ("golden/lut_array.py", "codes ^ last - 1, codes)", "codes, codes)"),
    ("golden/lut_array.py", "biased = w + (1 << planes - 1)", "biased = w & (1 << planes) - 1"),
    ("golden/lut_array.py", "at += tile.rows", "at += 1"),
    ("golden/lut.py", "last = 1 << k - 1", "last = 1 << k - 2"),
    ("golden/lut.py", "return groups(a, k) @ (2 * entries - 1).T",
     "return groups(a, k) @ (1 - 2 * entries).T"),
    ("golden/lut.py", "sign << b", "sign"),
    ("archsim/lut.py", "commands[tile] = max(commands_valid[tile], ended)",
     "commands[tile] = max(commands_valid[tile], ended + 1)"),
    ("archsim/lut.py", "start = max(commands[tile] + 1, free)", "start = commands[tile] + 1"),
    ("archsim/lut.py", "max(tables_valid[table], freed)", "tables_valid[table]"),
    ("archsim/lut.py", "start = max(start, tables[table] + 1)",
     "start = max(start, tables[table])"),
    ("archsim/lut.py", "last = max(start, last + 1, weights_valid[weight])",
     "last = max(start, last, weights_valid[weight])"),
    ("archsim/lut.py", "push = last + depth", "push = last + 1"),
    ("archsim/lut.py", "push = max(push, sums[row - 2] + 1)", "push = max(push, sums[row - 2])"),
    ("archsim/lut.py", "offered[row] = max(push, before) + 1", "offered[row] = push + 1"),
    ("archsim/lut.py", "            free = push\n", "            free = push + 1\n"),
]
GROUP_SCALE = [
    ("golden/group_scale.py", "start = np.float32(0) if group.first else", "start ="),
    ("golden/group_scale.py", "at += group.rows", "at += 1"),
    ("golden/group_scale.py", "if group.last:", "if group.last or group.first:"),
    ("golden/group_scale.py", "added = start + product", "added = product - start"),
    ("golden/group_scale.py", "kept[: group.rows] = added", "kept[: group.rows] = product"),
    ("golden/group_scale.py", "product = whole.astype(np.float32) * scale",
     "product = (whole * scale.astype(float)).astype(np.float32)"),
    ("golden/group_scale.py", "rows & 0xFFFF_FFFF", "rows & 0x7FFF_FFFF"),
    ("golden/matmul.py", "whole = whole - added[..., :, None]",
     "whole = whole + added[..., :, None]"),
    ("golden/matmul.py", "total = total + whole.astype(np.float32) * scale",
     "total = (total + whole.astype(float) * scale).astype(np.float32)"),
    ("machine/group_scale.py", "self.multiply_cycles + 1", "self.multiply_cycles + 2"),
    ("archsim/group_scale.py", "late += max(0, before - cycle)",
     "late += max(0, before - cycle - 1)"),
    ("archsim/group_scale.py", "before = max(max(cycle, before) + 1, ready[sent])",
     "before = max(cycle + 1, ready[sent])"),
    ("archsim/group_scale.py", "if emits[front]:", "if True or emits[front]:"),
    ("archsim/group_scale.py", "step = min(step, steps[front] + delay + 1)",
     "step = min(step, steps[front] + delay)"),
    ("archsim/group_scale.py", "step > steps[front] + delay)", "step >= steps[front] + delay)"),
    ("archsim/group_scale.py", "entered[row] = step, step + late", "entered[row] = step, step"),
    ("archsim/group_scale.py", "entered[np.cumsum(rows) - 1]",
     "entered[np.cumsum(rows) - np.array(rows)]"),
    ("archsim/group_scale.py", "np.maximum(sums_valid, np.repeat(scales_valid, rows))",
     "np.asarray(sums_valid)"),
    ("archsim/group_scale.py", "takes, scaled = zeroed.rows, done.sums",
     "takes, scaled = zeroed.rows, scaled"),
    ("archsim/group.py", "enters = max(enters, taken[row - 2] + 1)",
     "enters = max(enters, taken[row - 2])"),
]
FLOATS = [
    ("golden/k_order.py", "w[..., part, :]", "w[..., part, ::-1]"),
    ("golden/k_order.py", "slice(first, depth, size)", "slice(first * size, first * size + size)"),
    ("golden/k_order.py", "for first in range(size)])]", "for first in range(size)][::-1])]"),
    ("golden/k_order.py", "slice(first + size - 1,", "slice(first + size - 2,"),
    ("golden/k_order.py", "slice(first + size - 1, first - 1 if first else None, -1)",
     "slice(first, first + size)"),
    ("golden/k_order.py", "first - 1 if first else None", "first if first else None"),
    ("golden/k_order.py", "range(0, depth, size)]", "range(0, depth, size)][::-1]"),
    ("golden/k_order.py", "total = total + part", "total = total - part"),
    ("golden/k_order.py", "parts if sets else [acc, *parts]", "parts"),
    ("golden/k_order.py", "[acc, *parts])", "[*parts, acc])"),
    ("golden/k_order.py", "total = parts[0]", "total = parts[-1]"),
    ("golden/execute_ops.py", "return level >= len(indices) or indices[level] == 0",
     "return True"),
    ("golden/matmul.py", "added = total + product if narrow", "added = total - product if narrow"),
    ("golden/matmul.py", "_add_to_odd(total, product)", "total + product.astype(np.float16)"),
    ("machine/k_order.py", "Order(KOrder.DESCENDING, cfg.rows)",
     "Order(KOrder.DESCENDING, cfg.rows + 1)"),
    ("machine/k_order.py", "Order(KOrder.INTERLEAVED, pe.partial_sums)",
     "Order(KOrder.INTERLEAVED, 1)"),
    ("archsim/departures.py", "if acc.format != array", "if acc.format == array"),
    ("archsim/departures.py", "elif not same_sums", "elif same_sums"),
    ("archsim/systolic.py", "end += merge", "end += 0"),
    ("archsim/systolic.py", "step = max(step, slot_open)", "step = slot_open"),
]
CASES = [("test_systolic.py", *change) for change in SYSTOLIC]
CASES += [("test_lut.py", *change) for change in LUT]
CASES += [("test_group_scale.py", *change) for change in GROUP_SCALE]
CASES += [("test_float_programs.py", *change) for change in FLOATS]


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """Return a copy of the packages and of the tests here."""
    top = tmp_path_factory.mktemp("copy")
    for package in ("machine", "golden", "hw", "archsim", "mapping"):
        shutil.copytree(ROOT / package, top / package,
                        ignore=shutil.ignore_patterns("__pycache__"))
    (top / "tests").mkdir()
    for name in CHECKS:
        shutil.copy(ROOT / "tests/cross" / name, top / "tests")
    return top


def outcome(copy: Path, name: str) -> subprocess.CompletedProcess:
    """Run the check of `name` in the copy; without compiling the simulator, and RTL as cached."""
    # The packages of the copy come first; of the RTL, the compiled ones are shared.
    where = {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "NUMBA_DISABLE_JIT": "1",
             "ARCHSIM_CACHE": str(Path(os.environ.get("ARCHSIM_CACHE", ".cache")).resolve())}
    return subprocess.run([sys.executable, "-c", START.format(name=name) + CHECKS[name]],
                          cwd=copy, env=os.environ | where, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", CHECKS)
def test_the_unchanged_copy_passes(copy, name):
    done = outcome(copy, name)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.cxxrtl
@pytest.mark.parametrize("name, file, old, new", CASES, ids=[f"{c[1]}: {c[3]}" for c in CASES])
def test_a_change_by_hand_is_seen(copy, name, file, old, new):
    path = copy / file
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
    path.write_text(text.replace(old, new))
    try:
        done = outcome(copy, name)
    finally:
        path.write_text(text)
    # Seen by the comparison or by a failure on the way, not by what is no program at all.
    assert done.returncode != 0
    assert "SyntaxError" not in done.stderr and "NameError" not in done.stderr, done.stderr


def test_there_are_twenty_changes_of_each_block():
    assert {len(part) for part in (SYSTOLIC, LUT, GROUP_SCALE, FLOATS)} == {20}
