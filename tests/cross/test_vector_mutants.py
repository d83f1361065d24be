# amaranth: UnusedElaboratable=no
"""Mutants of the netlists of the vector unit and of the float units: killed, or equal.

As ``test_mutation.py``, whose draw, proofs and list of argued survivors these tests share.
"""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hw.mutation import MutantSimulation
from hw.vector import Vector
from machine.floats import FloatConfig
from machine.formats import FORMATS
from machine.vector_core import VectorCommand, VectorCoreConfig
from machine.vector_programs import Code

HERE = Path(__file__).parent
DRAWN = 110  # mutants of a block
SAMPLE = 11  # every so many in CI
UNIT = VectorCoreConfig(lanes=2, row_elements=8, unit_cycles=1)
FLOATS = [
    FloatConfig(operation="add", depth_cycles=2),
    FloatConfig(operation="multiply", a="float16", b="float16", out="float16", depth_cycles=1),
    FloatConfig(operation="divide", a="float8_e4m3fn", b="float8_e4m3fn", out="float8_e4m3fn",
                depth_cycles=3),
    FloatConfig(operation="convert", out="float8_e5m2", saturate=True),
    FloatConfig(operation="compare", a="bfloat16", b="bfloat16", out="bfloat16"),
]


def loaded(path: Path) -> ModuleType:
    """Return the module of the tests at `path`, which are no package that could be imported."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mutation = loaded(HERE / "test_mutation.py")


def elements(tests: ModuleType) -> list:
    """Return works on single elements: corners by corners, all small floats, numbers at ties."""
    rng = np.random.default_rng(9)

    def work(code: Code, x: np.ndarray, y: list[np.ndarray], x_format: str, **fields):
        rows = [part.astype(np.uint32).reshape(-1, UNIT.row_elements) for part in (x, *y)]
        command = VectorCommand(code=code, rows=len(rows[0]), width=UNIT.row_elements,
                                x_format=x_format, y_format="float32", **fields)
        return tests.Work(command, rows[:1], rows[1:], [])
    corners = np.array(tests.CORNERS["float32"], np.uint32)
    corners = np.concatenate([corners, corners | 0x80000000])
    pairs = [part.ravel() for part in np.meshgrid(corners, corners)]
    close = rng.integers(0, 1 << 32, (2, 800), np.uint32)
    close[1] = close[0] ^ rng.integers(0, 1 << 25, 800, np.uint32) ^ 0x80000000
    works = [work(code, x, [y], "float32") for x, y in (pairs, close)
             for code in (Code.ADD, Code.MULTIPLY)]
    for name in tests.FLOATS[1:]:
        codes = np.arange(256) if FORMATS[name].bits == 8 else tests.codes(
            rng, name, (800,), corners=0.3)
        works.append(work(Code.COPY, codes, [], name))

        # Halfway between neighbours of the format, and one bit beside it.
        low = np.sort(tests.codes(rng, name, (400,), finite=True)) & ~np.uint32(1)
        with np.errstate(all="ignore"):
            ties = ((tests.decode(low, FORMATS[name]) + tests.decode(low + 1, FORMATS[name])) / 2)
        words = ties.astype(np.float32).view(np.uint32)
        words = np.concatenate([words, words + 1, words ^ 1, pairs[0][:400]])
        works += [work(Code.COPY, words, [], "float32", o_format=name, saturate=saturate)
                  for saturate in (False, True)]
    return works


def check_unit(tests: ModuleType, simulation: MutantSimulation) -> None:
    """Single elements, then every program in turn; streams that wait and streams that do not."""
    tests.CYCLES_MAX = 20_000
    for work in elements(tests):
        tests.check(UNIT, simulation, [work])
    for seed in range(3):
        rng = np.random.default_rng(seed)
        for code in Code:
            works = [tests.make(rng, UNIT, code, int(rng.integers(1, 4)),
                                int(rng.integers(1, UNIT.row_elements + 1))) for _ in range(2)]
            tests.check(UNIT, simulation, works, rng if seed else None)
    tests.check_stalled(UNIT, simulation, 5, 60)


def check_floats(tests: ModuleType, simulation: MutantSimulation) -> None:
    """Random operands and pairs of corners of every unit, one behind the other."""
    rng = np.random.default_rng(0)
    operands = rng.integers(0, 1 << 32, (2, 6000), np.uint32)
    corners = np.array(tests.CORNERS["float32"], np.uint32)
    both = np.stack(np.meshgrid(corners, corners)).reshape(2, -1)
    near = operands[:, :2000].copy()  # equal exponents: cancellation
    near[1] = near[0] ^ rng.integers(0, 1 << 24, 2000, np.uint32) ^ 0x80000000
    operands = np.concatenate([operands, both, both ^ 0x80000000, near], axis=1)
    words = np.concatenate([operands.T, np.zeros((operands.shape[1], 1), np.uint32)], axis=1)
    waits = [np.cumsum(rng.integers(0, 40, len(words)) == 0) for _ in range(2)]
    log = simulation.run({"i": (np.ascontiguousarray(words), waits[0])}, {"o": waits[1]},
                         max_cycles=100_000)
    for index, cfg in enumerate(FLOATS):
        given = [codes & (1 << cfg.format_of(name).bits) - 1
                 for name, codes in zip("ab", operands, strict=True)]
        got, want = log["o"].words[:, index], tests.expected(cfg, *given)
        assert (got == want).all(), cfg.operation
    assert log["o"].cycles[-1] < waits[0][-1] + waits[1][-1] + len(words) + 10


mutation.BLOCKS = {
    "vector": mutation.Block("test_vector.py", lambda _: Vector(UNIT), check_unit,
                             lambda ports: 1),
    "floats": mutation.Block("../hw/test_float_unit.py", lambda tests: tests.Bench(FLOATS),
                             check_floats, lambda ports: 1),
}


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", mutation.BLOCKS)
def test_a_sample_of_mutants_is_killed_or_equal(name):
    simulation, alive = mutation.found_alive(mutation.BLOCKS[name], DRAWN, SAMPLE)
    assert len(simulation.mutants) == DRAWN // SAMPLE
    left = mutation.unexplained(name, simulation, alive, timeout_s=5)
    assert len(left) <= 1, left
