"""Random programs: compiled or not, units and channels joined or not, the simulator says the same.

What it says is everything: log, books, parts, counters of every channel, words moved.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "random_programs.py"
spec = importlib.util.spec_from_file_location("random_programs", SCRIPT)
programs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(programs)

TWINS = range(24)  # run as plain Python as well
ALONE = range(120)
MANY = range(120, 2000)


def test_programs_are_of_every_kind():
    texts = [programs.make_program(seed) for seed in ALONE]
    words = re.findall(r"^ ([a-z]+)", "\n".join(texts), re.MULTILINE)
    for name in ("load", "store", "matmul", "preload", "vector", "nop", "fence", "loop", "send",
                 "recv"):
        assert words.count(name) >= 20, name
    for part in (" wait ", " signal ", " units=", " if r1", " if !r1", " edge 0:", " loop 0:"):
        assert sum(text.count(part) for text in texts) >= 100, part
    assert len(set(texts)) == len(texts)
    assert len({str(programs.make_machine(seed)) for seed in ALONE}) > 100


def test_plain_python_says_of_random_programs_what_the_compiled_loop_says():
    ran = subprocess.run(
        [sys.executable, SCRIPT, *map(str, TWINS)], env=dict(os.environ, NUMBA_DISABLE_JIT="1"),
        capture_output=True, text=True, check=True, timeout=300)
    for seed, line in zip(TWINS, ran.stdout.splitlines(), strict=True):
        assert line == programs.outcome(seed), f"seed {seed}"


def same_alone(seed):
    """Units by themselves, then channels and commands by themselves."""
    expected = programs.outcome(seed)
    assert programs.outcome(seed, together=False) == expected
    assert programs.outcome(seed, shortcuts=False) == expected
    return json.loads(expected)


def test_units_and_channels_by_themselves_say_the_same():
    ticks, entries = 0, 0
    for seed in ALONE:
        found = same_alone(seed)
        ticks, entries = ticks + found[0], entries + len(found[1])
    assert ticks > 100_000 and entries > 3_000


@pytest.mark.slow
@pytest.mark.parametrize("first", range(MANY.start, MANY.stop, 100))
def test_units_and_channels_by_themselves_say_the_same_many_more_times(first):
    for seed in range(first, min(first + 100, MANY.stop)):
        same_alone(seed)
