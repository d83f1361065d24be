"""The programs of examples/programs: assembled, written back, verified, run on data and timed.

Expected results are worked out here with numpy and plain Python, not with golden's operators. The
simulator executes the same instructions as golden.
"""

import re
from dataclasses import replace
from functools import cache
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from archsim.engine.simulate import simulate
from golden.execute import execute
from machine.assembly import parse
from machine.decoding import decode
from machine.disassembly import text
from machine.encoding import encode, normal
from machine.link import LinkConfig
from machine.load import read_machine
from machine.program import Launch
from machine.verify import check

FOLDER = Path(__file__).parents[2] / "examples" / "programs"
PROGRAMS = sorted(path.stem for path in FOLDER.glob("*.prog"))


@cache
def program_named(name):
    path = FOLDER / f"{name}.prog"
    return parse(path.read_text(), path.name)


@cache
def machine_for(name):
    """Return a machine that has what the program needs."""
    if name == "pim_attention":
        return read_machine("tiny-pim")
    if name == "lut_w2a8":
        return read_machine("tiny-lut")
    if name == "all_reduce":
        link = LinkConfig(count=1, bytes_per_cycle=16, latency_cycles=5)
        return replace(read_machine("tiny"), chips=2, links=link)
    return read_machine("npu-hbm2" if name == "gemm_ws" else "tiny")


def run(name, tensors, launch=None, memory=None):
    """Verify `name`, run it in golden in 24 orders of its queues or all, and simulate it."""
    program, machine = program_named(name), machine_for(name)
    launch = Launch() if launch is None else launch
    check(program, launch, machine)
    result = execute(program, tensors, launch, memory=memory, log=True)
    check(program, launch, machine, result.value_trace)
    timed = simulate(program, machine, launch, result.value_trace)
    for queue in map(str, (stream.queue for stream in program.streams)):
        assert (
            [(e.pc, e.indices, e.layer, e.op, e.mask) for e in timed.log.of(queue)]
            == [(e.pc, e.indices, e.layer, e.op, e.mask) for e in result.log
                if e.queue == queue]), queue
    if memory is None:
        queues = [stream.queue for stream in program.streams]
        for order, _ in zip(permutations(queues), range(24), strict=False):
            again = execute(program, tensors, launch, order=order)
            for symbol, values in result.tensors.items():
                np.testing.assert_array_equal(again.tensors[symbol], values, str(order))
            assert again.value_trace == result.value_trace
    return result


def float32_matmul(a, w):
    """Return `a` @ `w` with products and sums in float32, k ascending: one scalar at a time."""
    out = np.zeros((a.shape[0], w.shape[1]), np.float32)
    for m, n in np.ndindex(*out.shape):
        total = np.float32(0)
        for k in range(a.shape[1]):
            total = np.float32(total + np.float32(a[m, k]) * np.float32(w[k, n]))
        out[m, n] = total
    return out


def softmax(x):
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_survives_text_and_binary(name):
    program = program_named(name)
    assert program.name == name
    written = text(program)
    assert parse(written) == program
    assert text(parse(written)) == written
    assert decode(encode(program)) == normal(program)


def test_tiny_gemm_equals_the_integer_product():
    rng = np.random.default_rng(1)
    a, w = rng.integers(-128, 128, (8, 16)), rng.integers(-128, 128, (16, 16))
    result = run("gemm_tiny", {"A": a, "W": w})
    np.testing.assert_array_equal(result.tensors["C"], a @ w)


def test_weight_stationary_gemm_with_edges_equals_the_integer_product():
    rng = np.random.default_rng(2)
    a, w = rng.integers(-128, 128, (37, 71)), rng.integers(-128, 128, (71, 45))
    result = run("gemm_ws", {"A": a, "W": w})
    np.testing.assert_array_equal(result.tensors["C"], a @ w)


def test_output_stationary_gemm_adds_the_sums_of_its_tiles_and_rounds_to_float16_once():
    rng = np.random.default_rng(3)
    a, w = rng.normal(size=(19, 50)).astype(np.float16), rng.normal(size=(50, 21))
    w = w.astype(np.float16)
    result = run("gemm_os", {"A": a, "W": w})
    expected = float32_matmul(a[:, :16], w[:16])
    for at in (16, 32, 48):
        expected = expected + float32_matmul(a[:, at : at + 16], w[at : at + 16])
    assert not np.array_equal(expected, float32_matmul(a, w))
    np.testing.assert_array_equal(result.tensors["C"], expected.astype(np.float16))


def test_lut_layer_equals_the_product_with_reinterpreted_weights():
    rng = np.random.default_rng(4)
    a, q = rng.integers(-128, 128, (6, 32)), rng.integers(0, 4, (16, 32))
    rows = rng.uniform(0.01, 0.1, 6).astype(np.float32)
    columns = rng.uniform(0.01, 0.1, 16).astype(np.float32)
    result = run("lut_w2a8", {"A": a, "A_SCALE": rows, "W": q, "W_SCALE": columns})
    sums = (a @ (2 * q - 3).T).astype(np.float32)
    np.testing.assert_array_equal(result.tensors["Y"], sums * rows[:, None] * columns)


def test_grouped_weights_take_scale_and_zero_point_at_the_end_of_each_group():
    rng = np.random.default_rng(5)
    a, w = rng.integers(-128, 128, (5, 256)), rng.normal(size=(24, 256))
    groups = w.reshape(24, 2, 128)
    sums = a.reshape(5, 2, 128).sum(axis=2)
    result = run("w4a8_grouped", {"A": a, "w": w, "ASUM": sums})
    # Asymmetric 4 bits: 0 to 15 span a group's range, which takes in 0.
    low, high = np.minimum(groups.min(axis=2), 0), np.maximum(groups.max(axis=2), 0)
    scale = ((high - low) / 15).astype(np.float16)
    zero = np.rint(-low / scale.astype(float)).clip(0, 15)
    codes = (np.rint(groups / scale[..., None].astype(float)) + zero[..., None]).clip(0, 15)
    expected = np.zeros((5, 24), np.float32)
    for group in range(2):
        whole = a.reshape(5, 2, 128)[:, group] @ codes[:, group].astype(int).T
        whole = whole - sums[:, group, None] * zero[:, group].astype(int)
        expected = expected + whole.astype(np.float32) * scale[:, group].astype(np.float32)
    np.testing.assert_array_equal(result.tensors["Y"], expected)
    # The program means what quantisation means: within half a step of every weight.
    step = np.abs(a).sum() * float(scale.max())
    assert np.abs(result.tensors["Y"] - a @ w.T).max() < step


def attention(q, k, v, scale):
    """Return softmax(scale q k) v of one query in float64."""
    return softmax(scale * (k.astype(float) @ q.astype(float))) @ v.astype(float)


def test_paged_decode_serves_two_steps_from_two_launch_tables():
    rng = np.random.default_rng(6)
    lengths = [5, 16, 40]
    pages = [[7, 0, 0, 0], [3, 11, 0, 0], [9, 2, 5, 0]]
    cache = {r: rng.normal(size=(2, length, 16)).astype(np.float16)
             for r, length in enumerate(lengths)}
    stored = np.zeros((2, 192, 16), np.float16)
    for r, length in enumerate(lengths):
        for position in range(length):
            stored[:, pages[r][position // 16] * 16 + position % 16] = cache[r][:, position]
    memory = None
    for step in range(2):
        new = {name: rng.normal(size=(4, 16)).astype(np.float16)
               for name in ("Q", "K_NEW", "V_NEW")}
        launch = Launch({"batch": 3}, {
            "length": [length + step for length in lengths] + [0],
            "pages": np.array([*pages, [0] * 4]).reshape(-1).tolist()})
        given = dict(new)
        if step == 0:
            given |= {"SCALE": np.array([0.25], np.float32), "K": stored[0], "V": stored[1]}
        result = run("paged_decode", given, launch, memory)
        memory = result.memory
        for r in range(3):
            pair = np.stack([new["K_NEW"][r], new["V_NEW"][r]])[:, None]
            cache[r] = np.concatenate([cache[r], pair], axis=1)
            expected = attention(new["Q"][r], *cache[r], 0.25)
            np.testing.assert_allclose(result.tensors["O"][r].astype(float), expected,
                                       rtol=4e-3, atol=4e-3)
    # Request 1 crossed from its first page into its second: position 16 is row 11 * 16.
    np.testing.assert_array_equal(result.tensors["K"][11 * 16], cache[1][0, 16])
    np.testing.assert_array_equal(result.tensors["V"][7 * 16 + 6], cache[0][1, 6])
    assert result.tensors["O"][3].tolist() == [0] * 16


def test_moe_sends_each_token_to_its_two_experts_and_one_expert_gets_none():
    rng = np.random.default_rng(7)
    x = rng.normal(size=(6, 8)).astype(np.float16)
    router = rng.normal(size=(8, 4)).astype(np.float16)
    x[:, 0] = np.abs(x[:, 0]) + np.float16(1)
    router[:, 2], router[0, 2] = 0, -60  # so that no token chooses expert 2
    weights = rng.normal(size=(4, 8, 8)).astype(np.float16)
    logits = float32_matmul(x, router)
    chosen = np.argsort(-logits, axis=1, kind="stable")[:, :2]
    tokens, slots = np.zeros((2, 4, 6), int)
    count = np.zeros(4, int)
    for token, rank in np.ndindex(6, 2):
        e = chosen[token, rank]
        tokens[e, count[e]], slots[e, count[e]] = token, 2 * token + rank
        count[e] += 1
    assert count[2] == 0 and count.sum() == 12
    launch = Launch({}, {"count": count.tolist(), "tokens": tokens.reshape(-1).tolist(),
                         "slots": slots.reshape(-1).tolist()})
    result = run("moe_top2", {"X": x, "ROUTER": router, "WEIGHTS": weights}, launch)
    np.testing.assert_array_equal(result.tensors["CHOSEN"], chosen)
    gates = softmax(np.take_along_axis(logits, chosen, axis=1).astype(float))
    expected = [sum(gates[t, r] * (x[t].astype(float) @ weights[chosen[t, r]].astype(float))
                    for r in range(2)) for t in range(6)]
    np.testing.assert_allclose(result.tensors["Y"], expected, rtol=1e-5, atol=1e-5)
    assert result.value_trace["chip0.dma0"] == count.tolist()


def test_all_reduce_gives_both_chips_the_same_sum():
    rng = np.random.default_rng(8)
    a = rng.normal(size=(4, 32)).astype(np.float16)
    w = rng.normal(size=(32, 8)).astype(np.float16)
    result = run("all_reduce", {"A0": a[:, :16], "A1": a[:, 16:], "W0": w[:16], "W1": w[16:]})
    expected = float32_matmul(a[:, :16], w[:16]) + float32_matmul(a[:, 16:], w[16:])
    np.testing.assert_array_equal(result.tensors["Y0"], expected)
    np.testing.assert_array_equal(result.tensors["Y1"], expected)


def test_recurrent_state_carries_from_token_to_token_and_launch_to_launch():
    rng = np.random.default_rng(9)
    w = rng.integers(-1, 2, (16, 48))
    fixed = {"W": w, "W_SCALE": rng.uniform(0.05, 0.2, 48).astype(np.float32),
             "GAIN": rng.normal(1, 0.1, 16).astype(np.float32)}
    h, memory = np.zeros(16), None
    for steps in (5, 1, 8):
        x = rng.integers(-127, 128, (8, 16))
        x_scale = rng.uniform(0.01, 0.05, 8).astype(np.float32)
        given = {"X": x, "X_SCALE": x_scale} | (fixed if memory is None else {})
        result = run("mlgru", given, Launch({"steps": steps}), memory)
        memory = result.memory
        for t in range(steps):
            i, f, g = ((x[t] @ w) * x_scale[t] * fixed["W_SCALE"]).reshape(3, 16)
            h = sigmoid(f) * h + i * sigmoid(i) * (1 - sigmoid(f))
            o = h / np.sqrt((h * h).mean() + 1e-6) * fixed["GAIN"] * g * sigmoid(g)
            np.testing.assert_allclose(result.tensors["O"][t], o, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(result.tensors["H"][0], h, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("length", [1, 19, 32])
def test_pim_attention_runs_beside_the_projection_of_another_sub_batch(length):
    rng = np.random.default_rng(10)
    q = rng.normal(size=(2, 16)).astype(np.float16)
    k = rng.normal(size=(2, 32, 16)).astype(np.float16)
    v = rng.normal(size=(2, 16, 32)).astype(np.float16)
    x, w = rng.integers(-128, 128, (8, 16)), rng.integers(-128, 128, (16, 24))
    result = run("pim_attention", {"Q": q, "K": k, "V": v, "X": x, "W": w},
                 Launch({"length": length}))
    for head in range(2):
        expected = attention(q[head], k[head, :length], v[head, :, :length].T, 0.25)
        np.testing.assert_allclose(result.tensors["O"][head].astype(float), expected,
                                   rtol=4e-3, atol=4e-3)
    np.testing.assert_array_equal(result.tensors["C"], x @ w)


@pytest.mark.parametrize("length", [0, 1, 13, 37])
def test_example_of_the_instruction_set_page_multiplies_the_rows_asked_for(length):
    page = (FOLDER.parents[1] / "docs" / "instruction-set.md").read_text()
    program = parse(re.search(r"```text\n(program .*?)```", page, re.DOTALL)[1])
    launch = Launch({"length": length})
    check(program, launch, read_machine("tiny"))
    rng = np.random.default_rng(11)
    a, w = rng.integers(-128, 128, (37, 16)), rng.integers(-128, 128, (16, 8))
    expected = a @ w
    expected[length:] = 0
    got = execute(program, {"A": a, "W": w}, launch).tensors["C"]
    np.testing.assert_array_equal(got, expected)
