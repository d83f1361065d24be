"""The front end for functions of integers: what it makes of Python is what Python makes of it."""

import importlib
import itertools
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest
from numba import boolean, int64, njit, types
from numba.core import compiler
from numba.core.registry import cpu_target

from archsim.engine import linking
from archsim.engine.compiled import KERNEL, Cube, Flat, Row, Rows, compiled, part

ROW, ROWS, CUBE = int64[::1], int64[:, ::1], int64[:, :, ::1]
EDGES = (0, 1, -1, 2, -2, 3, -3, 7, -8, 63, 1 << 31, -(1 << 31), (1 << 62) + 5, -(1 << 62) - 3,
         (1 << 63) - 1, -(1 << 63))


def wrap(number):
    """What is left of a number in 64 bits, read with its sign."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def plain(function):
    """Return `function` as Python runs it, with all that it calls."""
    names = dict(function.__globals__)
    for name, value in function.__globals__.items():
        if hasattr(value, "py_func"):
            names[name] = FunctionType(value.py_func.__code__, names)
    return FunctionType(function.__code__, names)


def entry(signature, function):
    """Return `function` compiled for Python, in no cache."""
    return njit(signature, no_cfunc_wrapper=True, pipeline_class=linking.EntryCompiler)(function)


@pytest.fixture
def ours(monkeypatch):
    """Return `entry`, which may not ask numba's front end."""
    def refuse(*arguments, **named):
        raise AssertionError("numba's front end was asked")

    monkeypatch.setattr(compiler.Compiler, "compile_extra", refuse)
    monkeypatch.setattr(linking, "_PartCompiler", refuse)
    return entry


def operate(which: int, a: int, b: int) -> int:
    if which == 0:
        return a + b
    if which == 1:
        return a - b
    if which == 2:
        return a * b
    if which == 3:
        return a & b
    if which == 4:
        return a | b
    if which == 5:
        return a ^ b
    if which == 6:
        return a // b
    if which == 7:
        return a % b
    if which == 8:
        return a << (b & 63)
    if which == 9:
        return a >> (b & 63)
    if which == 10:
        return -a
    if which == 11:
        return ~a
    if which == 12:
        return min(a, b, 5)
    if which == 13:
        return max(-4, a, b)
    return a // 7 * 100 + a % 7 + a // -3 + a % -3 + a // 8 + b % 1


def test_operators_are_pythons_on_64_bits(ours):
    made = ours(int64(int64, int64, int64), operate)
    for which, a, b in itertools.product(range(15), EDGES, EDGES):
        divides = which in (6, 7)
        if divides and (b == 0 or (a == -(1 << 63) and b == -1)):
            continue
        want = wrap(operate(which, a, b))
        assert made(which, a, b) == want, f"{which}: {a}, {b}: {made(which, a, b)} != {want}"


BIG, SMALL = (1 << 62) + 9, -13


def fold(a: int) -> int:
    return (BIG + BIG) // 3 + BIG * 5 - SMALL // 4 + SMALL % 4 + (~SMALL << 3) + (a if True else 0)


def test_constants_are_folded_as_64_bits(ours):
    made = ours(int64(int64), fold)
    big = wrap(2 * BIG) // 3
    assert made(2) == wrap(big + wrap(BIG * 5) + 4 + 3 + 96 + 2)


def divide(e: Row, a: int, b: int) -> int:
    e[0] = 1
    e[1] = quotient(a, b)
    e[2] = 1
    return e[1]


@compiled
def quotient(a: int, b: int) -> int:
    return a // b


def test_division_by_zero_raises_through_all_callers(ours):
    made, e = ours(int64(ROW, int64, int64), divide), np.zeros(3, np.int64)
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        made(e, 5, 0)
    assert e.tolist() == [1, 0, 0]
    assert made(e, -5, 3) == -2 and e.tolist() == [1, -2, 1]


@compiled
def note(e: Flat, number: int) -> int:
    """Note that this was asked, and answer."""
    e[0] = e[0] * 10 + number
    return e[number]


def decide(which: int, e: Row) -> int:
    if which == 0:
        return note(e, 1) and note(e, 2) or note(e, 3)
    if which == 1:
        return note(e, 1) or note(e, 2) and note(e, 3)
    if which == 2:
        return note(e, 1) < note(e, 2) <= note(e, 3) != note(e, 1)
    if which == 3:
        return (note(e, 1) if note(e, 2) else note(e, 3)) * 2
    if which == 4:
        if not (note(e, 1) and not note(e, 2)) or note(e, 3) > 0 > note(e, 1):
            return 10
        return 20
    if which == 5:
        flag = note(e, 1) > 0 and note(e, 2) > 0
        flag |= note(e, 3) > 0
        e[1] = flag
        return flag + (not flag) * 5
    if which == 6:
        return e[1] == (note(e, 2) > note(e, 3))
    return int(note(e, 1) > 0) + (note(e, 2) > 0)


def test_conditions_stop_early_and_give_operands(ours):
    made = ours(int64(int64, ROW), decide)
    for which, *values in itertools.product(range(8), (-1, 0, 1), (-1, 0, 1), (-1, 0, 1)):
        mine, its = (np.array([0, *values]) for _ in range(2))
        want = int(plain(decide)(which, its))
        assert made(which, mine) == want, f"{which}: {values}"
        assert mine.tolist() == its.tolist(), f"{which}: {values}"


def loop(which: int, e: Row, first: int, last: int) -> int:
    found = n = 0
    if which == 0:
        for n in range(first, last):
            if n == 2:
                continue
            found = found * 3 + n
            n = 50  # the loop goes on all the same
        return found * 100 + n
    if which == 1:
        for n in range(last, first, -2):
            found = found * 3 + n
        else:
            found += 1000
        return found
    if which == 2:
        for n in range(last):
            if e[n % 4] == first:
                break
            found += 1
        else:
            return -1
        return found * 100 + n
    if which == 3:
        while True:
            n += 1
            if n > last:
                break
            if n % 3 == 0:
                continue
            found += n
        return found
    if which == 4:
        while n < last:
            n += 2
            if n == 6:
                break
        else:
            found = 7
        return found * 100 + n
    return nested(which, e, first, last)


@compiled
def nested(which: int, e: Flat, first: int, last: int) -> int:
    found = 0
    if which == 5:
        for cell in (2, first, e[1]):
            for step in (1, 10):
                if cell == last:
                    break
                found += cell * step
        return found
    for n in range(last):
        for other in range(n):
            if other == first:
                return n
            if other % 2:
                continue
            found += other + 10
    return found - 5000


def test_loops_are_pythons(ours):
    made, e = ours(int64(int64, ROW, int64, int64), loop), np.array([3, 1, 4, 1])
    for which, first, last in itertools.product(range(7), range(-2, 5), range(-3, 9)):
        want = int(plain(loop)(which, e.copy(), first, last))
        assert made(which, e.copy(), first, last) == want, f"{which}: {first}, {last}"


@part(inline="always")
def clip(value, low, high):
    if value < low:
        return low
    if value > high:
        return high
    return value


@part(inline="always")
def raise_cell(e, place):
    if place < 0:
        return
    e[place] += 1


@part(types.UniTuple(int64, 2)(int64, int64))
def both(a, b):
    return a // b, a % b


@part(types.Tuple((int64, boolean))(int64, int64))
def mixed(a, b):
    return a + b, a > b


@compiled
def plane(rows: Row, place: int) -> bool:
    rows[place] *= 2
    return rows[place] > len(rows)


def arrays(cube, row, a, b):
    """Views, indices from the end, several targets, what is evaluated when."""
    sheet = cube[a]
    sheet[1, -1] += 5
    line = cube[b, -2]
    line[0] = line[-1] = cube[-1, 1, 2] - 7
    cube[0, 0, 0], cube[0, 0, 1] = cube[0, 0, 1], cube[0, 0, 0]
    row[row[0]] += row[1]
    quotient, rest = both(a + 9, 4)
    total, more = mixed(quotient, rest)
    row[2] = clip(total, -3, 4) + more
    raise_cell(row, a - 1)
    raise_cell(row, 0)
    row[b] -= plane(cube[1, 1], 1)
    fresh, other = np.zeros((a + 2, 3), np.int64), np.empty(2, np.int64)
    other[0] = other[1] = 40
    fresh[a + 1, 2] = len(fresh) * 100 + other[b]
    return fresh[-1, -1] + fresh[0, 0] + clip(a, 1, 9) * 1000 + len(sheet)


def test_arrays_are_numpys(ours):
    made = ours(int64(CUBE, ROW, int64, int64), arrays)
    for a, b in itertools.product((0, 1, -1), (0, 1)):
        mine, its = ((np.arange(24).reshape(2, 4, 3) * 7 % 11, np.array([1, 3, 8, 2]))
                     for _ in range(2))
        want = int(plain(arrays)(*its, a, b))
        assert made(*mine, a, b) == want, f"{a}, {b}"
        for one, other in zip(mine, its, strict=True):
            assert one.tolist() == other.tolist(), f"{a}, {b}"


@compiled
def total_of_slice(row: Row, rows: Rows, first: int) -> int:
    """Only numba knows slices; it calls one of ours in turn."""
    return row[first:].sum() + 100 * rows[1:, 1].sum() + quotient(row[0], row[1])


def calls_numbas(row: Row, cube: Cube, first: int) -> int:
    return 2 * total_of_slice(row, cube[1], first)


def test_a_function_it_does_not_know_is_numbas_and_calls_go_both_ways():
    made = entry(int64(ROW, CUBE, int64), calls_numbas)
    row, cube = np.array([-7, 2, 5, 6]), np.arange(24).reshape(2, 4, 3)
    assert made(row, cube, 2) == 2 * (5 + 6 - 4 + 100 * (16 + 19 + 22))
    row[1] = 0
    with pytest.raises(ZeroDivisionError):
        made(row, cube, 2)


def slice_of(row):
    return row[1:]


def ends_without(a):
    while a > 0:
        a -= 1


def changes(row, a):
    a = row
    return a[0]


def makes_in_a_loop(a):
    for _ in range(a):
        made = np.zeros(a, np.int64)
        made[0] = 1
    return a


def by_name(a):
    return clip(a, high=3, low=1)


@pytest.mark.parametrize("function, signature", [
    (slice_of, int64(ROW)), (ends_without, int64(int64)), (changes, int64(ROW, int64)),
    (makes_in_a_loop, int64(int64)), (by_name, int64(int64)),
], ids=lambda one: getattr(one, "__name__", ""))
def test_refuses_what_it_does_not_know(ours, function, signature):
    with pytest.raises(AssertionError, match="numba's front end was asked"):
        ours(signature, function)


def kernel_functions():
    """Yield every compiled function of the simulator with types of its own."""
    for name in KERNEL:
        module = importlib.import_module("archsim." + name.removesuffix(".py").replace("/", "."))
        for function in vars(module).values():
            mine = getattr(function, "__module__", "") == module.__name__
            if mine and hasattr(function, "call_from") and not isinstance(function, type):
                yield function


def test_every_function_of_the_simulator_is_translated(ours):
    context = cpu_target.target_context
    context.refresh()
    functions = list(kernel_functions())
    assert len(functions) > 150
    for function in functions:
        library = linking._Part(context.codegen(), "part")
        record = linking._translated(context, library, function.py_func, function.signatures[0])
        assert record.library is library


def test_a_files_syntax_is_that_of_its_first_reading(tmp_path):
    from archsim.engine.translate import source
    path = Path(tmp_path) / "one.py"
    path.write_text("first")
    assert source(str(path)) == b"first"
    path.write_text("second")
    assert source(str(path)) == b"first"
