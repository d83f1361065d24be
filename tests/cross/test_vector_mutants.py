# amaranth: UnusedElaboratable=no
"""Mutants of the netlists of the vector unit and of float units: killed, or equal.

As ``test_mutation.py``, whose draw, proofs and list of argued survivors these tests share. The
check of the float units runs every operand through a pipeline without feedback, so a mutant inside
a unit that passes it is equal.
"""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hw.mutation import MutantSimulation
from hw.vector import Vector
from machine.floats import FloatConfig
from machine.formats import FORMATS, Format
from machine.vector_core import VectorCommand, VectorCoreConfig
from machine.vector_programs import Code

HERE = Path(__file__).parent
DRAWN = 110  # mutants of a block
SAMPLE = 11  # every so many in CI
UNIT = VectorCoreConfig(lanes=2, row_elements=8, unit_cycles=1)
SMALL = {name: {"a": name, "b": name, "out": name} for name in ("float8_e4m3fn", "float8_e5m2")}
FLOATS = [
    FloatConfig(operation="add", depth_cycles=2, **SMALL["float8_e4m3fn"]),
    FloatConfig(operation="multiply", depth_cycles=1, **SMALL["float8_e5m2"]),
    FloatConfig(operation="divide", depth_cycles=3, **SMALL["float8_e4m3fn"]),
    FloatConfig(operation="convert", a="float16", out="float8_e5m2", saturate=True),
    FloatConfig(operation="compare", **SMALL["float8_e5m2"]),
]
DELAY = 1 + max(cfg.latency_cycles for cfg in FLOATS)  # of the bench's pipeline, in steps
# Survivors that are neither proved equal nor argued to be: known holes, to be closed.
OPEN = {"vector": 0, "floats": 0}


def loaded(path: Path) -> ModuleType:
    """Return the module of the tests at `path`, which are no package that could be imported."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mutation = loaded(HERE / "test_mutation.py")


def spread(rng: np.random.Generator, fmt: Format) -> np.ndarray:
    """Return codes of `fmt` in random order, twice: all exponents, all lengths of subnormals."""
    if fmt.bits == 8:
        return np.concatenate([rng.permutation(256) for _ in range(4)])
    size = fmt.mantissa_bits
    exponents = np.repeat(np.arange(1 << fmt.exponent_bits), 3) << size
    ends = rng.choice(np.array([0, 1, (1 << size) - 1, 1 << size - 1]), len(exponents))
    random = rng.integers(0, 1 << size, len(exponents))
    bits = np.repeat(np.arange(size), 4)
    codes = np.concatenate([exponents | ends, exponents | random, 1 << bits | rng.integers(
        0, 1 << bits)])
    codes |= rng.integers(0, 2, len(codes)) << fmt.bits - 1
    return np.concatenate([rng.permutation(codes), rng.permutation(codes)])


def elements(tests: ModuleType) -> list:
    """Return works on single elements: corners by corners, all small floats, numbers at ties."""
    rng = np.random.default_rng(9)

    def work(code: Code, x: np.ndarray, y: list[np.ndarray], x_format: str, **fields):
        rows = [part.astype(np.uint32)[: len(x) // UNIT.row_elements * UNIT.row_elements]
                .reshape(-1, UNIT.row_elements) for part in (x, *y)]
        command = VectorCommand(code=code, rows=len(rows[0]), width=UNIT.row_elements,
                                x_format=x_format, **fields)
        return tests.Work(command, rows[:1], rows[1:], [])
    corners = np.array(tests.CORNERS["float32"], np.uint32)
    corners = np.concatenate([corners, corners | 0x80000000])
    everywhere = {name: spread(rng, FORMATS[name]) for name in tests.FLOATS}
    pairs = [part.ravel() for part in np.meshgrid(corners, corners)]
    close = rng.integers(0, 1 << 32, (2, 800), np.uint32)
    close[1] = close[0] ^ rng.integers(0, 1 << 25, 800, np.uint32) ^ 0x80000000
    works = [work(code, x, [y], "float32") for x, y in (pairs, close)
             for code in (Code.ADD, Code.MULTIPLY)]
    for name in tests.FLOATS[1:]:
        codes = everywhere[name]
        works.append(work(Code.COPY, codes, [], name))
        nothing = np.full(len(codes), 0x80000000)
        works.append(work(Code.ADD, nothing, [codes], "float32", y_format=name))

        # Halfway between neighbours of the format, and one bit beside it.
        low = np.sort(tests.codes(rng, name, (400,), finite=True)) & ~np.uint32(1)
        with np.errstate(all="ignore"):
            ties = ((tests.decode(low, FORMATS[name]) + tests.decode(low + 1, FORMATS[name])) / 2)
        words = ties.astype(np.float32).view(np.uint32)
        words = np.concatenate([words, words + 1, words ^ 1, everywhere["float32"]])
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
    """Every pair of operands of 8 bits, every one of 16, in any order, a few first; with waits."""
    rng = np.random.default_rng(0)
    every = rng.permutation(1 << 16).astype(np.uint32)
    for codes in (every[:1024], every[1024:8192], every[8192:]):
        words = np.stack([codes, codes >> 8, 0 * codes], axis=1)
        waits = [np.cumsum(rng.integers(0, 4, len(words))) for _ in range(2)]
        log = simulation.run({"i": (words, waits[0])}, {"o": waits[1]},
                             max_cycles=4 * len(words) + 100)
        for index, cfg in enumerate(FLOATS):
            given = [word & (1 << cfg.format_of(name).bits) - 1
                     for name, word in zip("ab", words.T[:2], strict=True)]
            got, want = log["o"].words[:, index], tests.expected(cfg, *given)
            assert (got == want).all(), cfg.operation
        assert (log["o"].cycles >= log["i"].cycles + DELAY).all()
        assert log["o"].cycles[-1] <= max(waits[0][-1], waits[1][-1]) + 2 * DELAY + 8


mutation.BLOCKS = {
    "vector": mutation.Block("test_vector.py", lambda _: Vector(UNIT), check_unit,
                             lambda ports: 1),
    "floats": mutation.Block("../hw/test_float_unit.py", lambda tests: tests.Bench(FLOATS),
                             check_floats, lambda ports: 1),
}


def equal_by_check(change: str) -> bool:
    """Return whether a mutant that passes its check is equal for that: inside a float unit."""
    return "-module bench" in change and "$flatten\\unit_" in change


@pytest.mark.slow
@pytest.mark.cxxrtl
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", mutation.BLOCKS)
def test_mutants_are_killed_or_equal(name):
    simulation, alive = mutation.found_alive(mutation.BLOCKS[name], DRAWN, 1)
    assert len(simulation.mutants) >= 100
    print(f"{name}: {len(simulation.mutants)} mutants, {len(alive)} alive")
    open_to_proof = [mutant for mutant in alive if not equal_by_check(mutant.change)]
    left = mutation.unexplained(name, simulation, open_to_proof, timeout_s=20)
    assert len(left) <= OPEN[name], left


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", mutation.BLOCKS)
def test_a_sample_of_mutants_is_killed_or_equal(name):
    simulation, alive = mutation.found_alive(mutation.BLOCKS[name], DRAWN, SAMPLE)
    assert len(simulation.mutants) == DRAWN // SAMPLE
    listed = mutation.LISTED.get(name, {})
    assert [mutant.change for mutant in alive
            if mutant.change not in listed and not equal_by_check(mutant.change)] == []
