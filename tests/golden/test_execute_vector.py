"""VECTOR: every operator takes its operands from their roles, its constants from its fields."""

import re

import numpy as np
import pytest
from scipy import special

from golden.execute import execute
from machine.assembly import parse
from machine.errors import UserError
from machine.vector import VectorOp


def run(instruction, *, made=("float32", (3, 8)), setup=(), **operands):
    """Load `operands` (name=array), run one VECTOR instruction, return y and every operand.

    Floats are float32, integers int32; `made` is the format and shape of y, if it is not loaded.
    """
    shapes = {name: ("float32" if array.dtype.kind == "f" else "int32", array.shape)
              for name, array in operands.items()}
    given = {name.upper(): array for name, array in operands.items()}
    shapes.setdefault("y", made)
    lines, loads, stores = [], [], []
    for i, (name, (form, shape)) in enumerate(shapes.items()):
        size = f"[{','.join(map(str, shape))}]"
        strides = [int(np.prod(shape[axis + 1 :], dtype=int)) for axis in range(len(shape))]
        where = f"{form} {size} stride [{','.join(map(str, strides))}]"
        lines += [f"operand {name} scratchpad {0x800 * i} {where}",
                  f"operand {name}_in dram {0x800 * i} {where}",
                  f"operand {name}_out dram {0x8000 + 0x800 * i} {where}",
                  f"symbol OUT.{name} dram {0x8000 + 0x800 * i} {form} {size} output"]
        stores.append(f"store src={name} dst={name}_out")
        if name in operands:
            lines.append(f"symbol {name.upper()} dram {0x800 * i} {form} {size} input")
            loads.append(f"load src={name}_in dst={name}")
    text = "\n".join(["program test version 1", "token go", "token done", *lines,
                      "stream chip0.dma0", *loads, "nop signal go:1", "nop wait done:1", *stores,
                      "halt", "stream chip0.vector0", *setup, f"{instruction} wait go:1",
                      "fence signal done:1", "halt"])
    result = execute(parse(text), given, lanes=4).tensors
    return {name: result[f"OUT.{name}"] for name in shapes}


RNG = np.random.default_rng(1)
X = RNG.normal(size=(3, 8)).astype(np.float32)
X1 = RNG.normal(size=(3, 8)).astype(np.float32)
GAIN, BIAS = RNG.normal(size=(2, 8)).astype(np.float32)
D = X.astype(float)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def normal(x, epsilon):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)


def rotate(x, positions, theta):
    angle = positions[:, None] * theta ** (-np.arange(4) / 4)
    a, b = x[:, :4], x[:, 4:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle),
                           b * np.cos(angle) + a * np.sin(angle)], axis=1)


CASES = {  # operator: fields, operands, expected y
    "copy": ("", {"x": X}, D),
    "convert": ("", {"x": X}, D),
    "add": ("", {"x": X, "x1": X1}, D + X1),
    "mul": ("", {"x": X, "x1": X1}, D * X1),
    "scale": ("value=0.5", {"x": X}, D / 2),
    "relu": ("", {"x": X}, D.clip(0)),
    "sigmoid": ("", {"x": X}, sigmoid(D)),
    "silu": ("", {"x": X}, D * sigmoid(D)),
    "gelu": ("", {"x": X}, D * special.ndtr(D)),
    "gelu_tanh": ("", {"x": X},
                  D / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (D + 0.044715 * D**3)))),
    "exp": ("", {"x": X}, np.exp(D)),
    "tanh": ("", {"x": X}, np.tanh(D)),
    "reduce_sum": ("", {"x": X}, D.sum(1)),
    "reduce_max": ("", {"x": X}, D.max(1)),
    "argmax": ("", {"x": X}, D.argmax(1)),
    "topk": ("k=3", {"x": X}, np.argsort(-D, axis=1)[:, :3]),
    "softmax": ("value=2.0", {"x": X}, softmax(2 * D)),
    "layernorm": ("value=1e-05", {"x": X, "x1": GAIN, "x2": BIAS}, normal(D, 1e-5) * GAIN + BIAS),
    "rmsnorm": ("value=1e-05", {"x": X, "x1": GAIN},
                D / np.sqrt((D * D).mean(1, keepdims=True) + 1e-5) * GAIN),
    "l2norm": ("", {"x": X}, D / np.sqrt((D * D).sum(1, keepdims=True))),
    "mean_pool": ("", {"x": X, "x1": np.array([1, 0, 1])}, D[[0, 2]].mean(0)),
    "rope": ("value=100.0 position=5", {"x": X}, rotate(D, np.arange(5, 8), 100.0)),
    "quantise": ("value=0.1", {"x": X}, np.rint(D / 0.1).clip(-127, 127)),
    "dequantise": ("", {"x": RNG.integers(-999, 999, (3, 8)), "x1": X[:, 0], "x2": GAIN,
                        "x3": BIAS}, None),
    "gather": ("", {"x": X, "x1": np.array([2, 0, 2])}, D[[2, 0, 2]]),
    "scatter": ("", {"x": X[:2], "x1": np.array([2, 0]), "y": X1},
                np.stack([D[1], X1[1], D[0]])),
    "merge": ("", {"x": X, "state": X1}, None),
    "table_precompute": ("", {"x": RNG.integers(-9, 9, (3, 8))}, None),
    "mlgru": ("", {"x": X, "x1": X1, "state": X[::-1].copy()},
              sigmoid(X1) * D[::-1] + D * sigmoid(D) * (1 - sigmoid(X1))),
}
CASES["dequantise"] = (*CASES["dequantise"][:2],
                       CASES["dequantise"][1]["x"] * D[:, :1] * GAIN + BIAS)
SHAPES = {"reduce_sum": (3,), "reduce_max": (3, 1), "argmax": (3,), "topk": (3, 3),
          "mean_pool": (8,), "merge": (3, 6), "table_precompute": (3, 2, 8)}
FORMATS = {"argmax": "int32", "topk": "int32", "quantise": "int8", "table_precompute": "int16"}


def expected_merge():
    """The softmax-weighted mean of both pieces' outputs: each is exp(m) l and exp(m) o."""
    pieces = [(np.exp(s[:, :1].astype(float)), s[:, 1:2], s[:, 2:]) for s in (X, X1)]
    return (sum(m * o for m, _, o in pieces) / sum(m * weight for m, weight, _ in pieces))


def expected_tables(a):
    table = np.zeros((3, 2, 8))
    for row, group, j in np.ndindex(3, 2, 8):
        four = a[row, 4 * group : 4 * group + 4]
        table[row, group, j] = sum(four[i] if j >> i & 1 else -four[i] for i in range(3)) - four[3]
    return table


CASES["merge"] = (*CASES["merge"][:2], expected_merge())
CASES["table_precompute"] = (*CASES["table_precompute"][:2],
                             expected_tables(CASES["table_precompute"][1]["x"]))


def test_every_operator_has_a_case():
    assert sorted(CASES) == sorted(vop.name.lower() for vop in VectorOp)


@pytest.mark.parametrize("vop", CASES)
def test_operator_reads_its_roles_and_fields(vop):
    fields, operands, expected = CASES[vop]
    shape, form = SHAPES.get(vop, (3, 8)), FORMATS.get(vop, "float32")
    roles = " ".join(f"{name}={name}" for name in operands if name != "y")
    got = run(f"vector vop={vop} {roles} y=y {fields}", made=(form, shape), **operands)["y"]
    tolerance = 0 if form != "float32" else 2e-6
    np.testing.assert_allclose(got.reshape(np.shape(expected)), expected, rtol=tolerance,
                               atol=tolerance)


def test_result_is_rounded_once_to_the_format_of_y():
    got = run("vector vop=add x=x x1=x1 y=y", made=("float16", (3, 8)), x=X, x1=X1)["y"]
    np.testing.assert_array_equal(got, (X + X1).astype(np.float16))


def test_dynamic_quantisation_writes_the_scale_of_each_row():
    got = run("vector vop=quantise scale_rule=row_absmax x=x y=y scale=s", made=("int8", (3, 8)),
              x=X, s=np.zeros(3, np.float32))
    np.testing.assert_allclose(got["s"], np.abs(X).max(1) / 127, rtol=1e-6)
    np.testing.assert_array_equal(got["y"], np.rint(D / np.abs(D).max(1, keepdims=True) * 127))


def test_block_quantisation_has_a_scale_every_k_elements():
    got = run("vector vop=quantise scale_rule=block k=4 x=x y=y scale=s", made=("int8", (3, 8)),
              x=X, s=np.zeros((3, 2), np.float32))
    blocks = np.abs(D).reshape(3, 2, 4).max(2)
    np.testing.assert_allclose(got["s"], blocks / 127, rtol=1e-6)
    np.testing.assert_array_equal(got["y"], np.rint(D / blocks.repeat(4, axis=1) * 127))


def test_static_scale_may_be_an_operand():
    got = run("vector vop=quantise x=x x1=x1 y=y", made=("int8", (3, 8)), x=X,
              x1=np.array([0.01, 0.1, 1], np.float32))["y"]
    np.testing.assert_array_equal(
        got, np.rint(D / np.array([[0.01], [0.1], [1]])).clip(-127, 127))


@pytest.mark.parametrize("mask, seen", [
    ("mask=causal position=4", lambda q, k: k <= 4 + q),
    ("mask=window window=3 position=4", lambda q, k: 1 + q < k <= 4 + q),
    ("mask=none position=4", lambda q, k: True),
])
def test_softmax_hides_the_keys_that_the_mask_hides(mask, seen):
    got = run(f"vector vop=softmax x=x y=y {mask}", x=X)["y"]
    hidden = np.array([[not seen(q, k) for k in range(8)] for q in range(3)])
    np.testing.assert_allclose(got, softmax(np.where(hidden, -np.inf, D)), rtol=1e-6, atol=1e-7)
    assert (got[hidden] == 0).all()


def test_position_register_is_added_to_the_position():
    in_field = run("vector vop=rope x=x y=y position=7", x=X)["y"]
    in_both = run("vector vop=rope x=x y=y position=3 position_register=r6", x=X,
                  setup=["r6 = 4"])["y"]
    np.testing.assert_array_equal(in_both, in_field)


def test_pieces_of_a_row_of_scores_merge_into_its_attention():
    scores = RNG.normal(size=(3, 8)).astype(np.float32)
    values = RNG.normal(size=(8, 5)).astype(np.float32)
    pieces = []
    for cut in (slice(0, 3), slice(3, 8)):
        part = scores[:, cut].copy()
        got = run("vector vop=softmax x=x y=y state=state", x=part, made=("float32", part.shape),
                  state=np.full((3, 7), 9, np.float32))
        np.testing.assert_allclose(got["y"], np.exp(part - part.max(1, keepdims=True)), rtol=1e-6)
        np.testing.assert_array_equal(got["state"][:, 0], part.max(1))
        np.testing.assert_allclose(got["state"][:, 1], got["y"].sum(1), rtol=1e-6)
        assert (got["state"][:, 2:] == 9).all()
        pieces.append(np.concatenate([got["state"][:, :2], got["y"] @ values[cut]], axis=1))
    got = run("vector vop=merge x=x state=state y=y", x=pieces[0], state=pieces[1],
              made=("float32", (3, 5)))
    np.testing.assert_allclose(got["y"], softmax(scores.astype(float)) @ values, rtol=1e-5)


def test_recurrent_state_is_written_back():
    got = run("vector vop=mlgru x=x x1=x1 state=state y=y", x=X, x1=X1, state=X1)
    np.testing.assert_array_equal(got["state"], got["y"])


def test_topk_leaves_values_where_y_holds_floats():
    got = run("vector vop=topk k=2 x=x y=y", made=("float32", (3, 2)), x=X)["y"]
    np.testing.assert_array_equal(got, -np.sort(-X, axis=1)[:, :2])


def test_tree_reduction_adds_by_lanes():
    big = np.array([[1, 2.0**24, 1, -(2.0**24), 1, 0, 1, 0]], np.float32)
    shape = ("float32", (1,))
    in_turn = run("vector vop=reduce_sum x=x y=y", x=big, made=shape)["y"]
    by_lanes = run("vector vop=reduce_sum reduction=tree x=x y=y", x=big, made=shape)["y"]
    # In turn: 1 + 2**24 loses the 1, as does the next; 1 + 1 is left. Four lanes: 2, 2**24, 2,
    # -2**24; then (2 + 2**24) + (2 - 2**24) = 4, exactly.
    assert (in_turn[0], by_lanes[0]) == (2, 4)


@pytest.mark.parametrize("instruction, made, message", [
    ("vector vop=copy x=x y=y axis=1", ("float32", (3, 8)), "axis must be 0, the last axis, not 1"),
    ("vector x=x y=y", ("float32", (3, 8)), "vop must be an operator of machine.vector, not 0"),
    ("vector vop=add x=x y=y", ("float32", (3, 8)), "vector must have an operand x1"),
    ("vector vop=copy x=x y=y", ("float32", (3, 7)),
     "copy y must be of shape [3, 8], not [3, 7]"),
    ("vector vop=quantise x=x y=y", ("float32", (3, 8)),
     "y of quantise must be of an integer format or a float of 8 bits, not 'float32'"),
    ("vector vop=quantise scale_rule=block k=3 x=x y=y", ("int8", (3, 8)),
     "k of quantise must be a divisor of the row of 8, not 3"),
    ("vector vop=mul x=x x1=y y=y", ("float32", (3, 5)),
     "operands could not be broadcast together"),
    ("vector vop=merge x=x state=y y=y", ("float32", (3, 2)),
     "state [3, 2] and x [3, 8] must be rows (m, l, o...) of one shape"),
])
def test_vector_without_meaning_is_refused_with_its_place(instruction, made, message):
    with pytest.raises(UserError, match="^" + re.escape(f"test: chip0.vector0[0]: {message}")):
        run(instruction, made=made, x=X)
