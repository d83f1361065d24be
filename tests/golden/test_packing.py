"""Tensors into memory and out: which are asked for, how they are encoded, where the bytes lie."""

import re

import numpy as np
import pytest

from golden.packing import pack, pack_launch, unpack
from machine.assembly import parse
from machine.errors import UserError
from machine.program import Launch, Space

DRAM = (0, Space.DRAM)


def program(*lines):
    return parse("program test version 1\n" + "\n".join(lines) + "\n")


def test_symbols_lie_at_their_addresses_row_after_row():
    made = pack(program("symbol A dram 0x2 int8 [2,2] input", "symbol B dram 0x8 uint4 [3] const",
                        "symbol C dram 0x1 int16 [1] input chip=1"),
                {"A": np.array([[1, -1], [2, -2]]), "B": np.array([1, 2, 3]),
                 "C": np.array([0x1234])})
    assert made[DRAM].tobytes().hex() == "000001ff02fe00002103"
    assert made[1, Space.DRAM].tobytes().hex() == "003412"


def test_floats_are_rounded_once_to_the_symbol_s_format():
    made = pack(program("symbol A dram 0x0 float16 [3] input"), {"A": np.array([0.1, 1e9, -2.0])})
    assert made[DRAM].tobytes() == np.array([0.1, np.inf, -2.0]).astype(np.float16).tobytes()


@pytest.mark.parametrize("declared, values, message", [
    ("int8 [2] input", [1, 128], "tensor A must be within -128 and 127, being int8, not 128"),
    ("int8 [2] input", [-129, 0], "tensor A must be within -128 and 127, being int8, not -129"),
    ("uint4 [2] input", [-1, 0], "tensor A must be within 0 and 15, being uint4, not -1"),
    ("int8 [2] input", [1.0, 2.0], "tensor A must be integers, being int8, not 'float64'"),
    ("int8 [2] input", [[1, 2]], "tensor A must be of shape [2], not [1, 2]"),
    ("ternary [2] input", [2, 1], "tensor A must be numbers of ternary, not 2"),
    ("bipolar2 [2] input", [3, 0], "tensor A must be numbers of bipolar2, not 0"),
])
def test_tensor_that_does_not_fit_its_symbol_is_refused(declared, values, message):
    with pytest.raises(UserError, match="^" + re.escape(message) + "$"):
        pack(program(f"symbol A dram 0x0 {declared}"), {"A": np.array(values)})


@pytest.mark.parametrize("declared, values", [
    ("int8 [2] input", [-128, 127]), ("uint4 [2] input", [0, 15]),
    ("ternary [3] input", [-1, 0, 1]), ("bipolar2 [4] input", [-3, -1, 1, 3]),
])
def test_tensor_at_the_ends_of_its_format_is_taken(declared, values):
    fitting = program(f"symbol A dram 0x0 {declared}",
                      f"symbol B dram 0x0 {declared.replace('input', 'output')}")
    made = pack(fitting, {"A": np.array(values)})
    assert unpack(made, fitting)["B"].tolist() == values


def test_inputs_and_constants_are_asked_for_and_state_starts_as_zero():
    both = program("symbol A dram 0x0 int8 [1] input", "symbol W dram 0x1 int8 [1] const",
                   "symbol S dram 0x2 int8 [1] state", "symbol O dram 0x3 int8 [1] output",
                   "symbol T dram 0x4 int8 [1] scratch")
    one = np.array([1])
    with pytest.raises(UserError, match="^tensor W must be given, program test has it as const$"):
        pack(both, {"A": one})
    with pytest.raises(UserError, match="^tensor A must be given, program test has it as input$"):
        pack(both, {"W": one})
    made = pack(both, {"A": one, "W": one})
    assert unpack(made, both) == {"S": np.array([0]), "O": np.array([0])}
    assert unpack(pack(both, {"A": one, "W": one, "S": one}), both)["S"].tolist() == [1]


def test_memory_that_is_continued_needs_its_inputs_only():
    both = program("symbol A dram 0x0 int8 [1] input", "symbol W dram 0x1 int8 [1] const",
                   "symbol S dram 0x2 int8 [1] state")
    made = pack(both, {name: np.array([5]) for name in ("A", "W", "S")})
    made = pack(both, {"A": np.array([6])}, made)
    assert made[DRAM].tolist() == [6, 5, 5]
    with pytest.raises(UserError, match="^tensor A must be given"):
        pack(both, {}, made)


@pytest.mark.parametrize("kind", ["output", "scratch", "launch"])
def test_tensor_that_no_symbol_takes_is_refused_with_the_nearest(kind):
    declared = program("symbol Keys dram 0x0 int8 [1] input", f"symbol A dram 0x1 int32 [1] {kind}")
    with pytest.raises(UserError, match="^test: tensor must be one of Keys, not 'A'"):
        pack(declared, {"Keys": np.array([1]), "A": np.array([1])})
    with pytest.raises(UserError, match="not 'Key'; did you mean 'Keys'[?]$"):
        pack(declared, {"Keys": np.array([1]), "Key": np.array([1])})


LAUNCHED = ("launch batch", "symbol pages dram 0x0 int32 [2,2] launch")


def test_launch_tensors_are_written_and_filled_up_with_zeros():
    declared = program(*LAUNCHED)
    made = pack(declared, {})
    pack_launch(declared, Launch({"batch": 1}, {"pages": [7, 8, 9]}), made)
    assert made[DRAM].view("<i4").tolist() == [7, 8, 9, 0]


@pytest.mark.parametrize("values, tensors, message", [
    ({}, {"pages": [0]}, "test: launch value batch must be given"),
    ({"batch": 1}, {}, "test: launch tensor pages must be given"),
    ({"batch": 1, "lenght": 2}, {"pages": [0]},
     "test: launch value must be one of batch, not 'lenght'"),
    ({"batch": 1}, {"pages": [0], "page": [0]},
     "test: launch tensor must be one of pages, not 'page'; did you mean 'pages'?"),
    ({"batch": 1}, {"pages": [0] * 5}, "launch tensor pages must be at most 4 entries, not 5"),
])
def test_launch_that_does_not_match_the_program_is_refused(values, tensors, message):
    declared = program(*LAUNCHED)
    with pytest.raises(UserError, match="^" + re.escape(message) + "$"):
        pack_launch(declared, Launch(values, tensors), pack(declared, {}))


def test_empty_tensor_takes_no_bytes():
    empty = program("symbol A dram 0x0 int8 [0,4] input", "symbol B dram 0x0 int8 [0] output")
    made = pack(empty, {"A": np.zeros((0, 4), int)})
    assert unpack(made, empty)["B"].shape == (0,)
    assert len(made[DRAM]) == 0
