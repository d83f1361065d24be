"""Execution: order, tokens, predicates, units, and what each instruction leaves in memory."""

import re

import numpy as np
import pytest

from golden.execute import execute
from machine.assembly import parse
from machine.errors import UserError
from machine.program import Launch, Queue, QueueKind


def program(body, head=""):
    """Return a program of the declarations `head` and the streams `body`."""
    return parse(f"program test version 1\n{head}\n{body}")


def run(body, head="", tensors=None, launch=None, **options):
    return execute(program(body, head), tensors or {}, launch, **options)


COPY = """
symbol A dram 0x0 int8 [4] input
symbol B dram 0x10 int8 [4] output
operand a dram 0x0 int8 [4] stride [1]
operand pad scratchpad 0x0 int8 [4] stride [1]
operand b dram 0x10 int8 [4] stride [1]
"""
A = {"A": np.array([1, -2, 3, 127])}


def test_load_then_store_copies():
    result = run("stream chip0.dma0\nload src=a dst=pad\nstore src=pad dst=b\nhalt", COPY, A)
    np.testing.assert_array_equal(result.tensors["B"], A["A"])


def test_token_holds_a_queue_until_enough_are_signalled():
    body = """
stream chip0.dma0
  store src=pad dst=b wait go:2
  halt
stream chip0.dma1
  nop signal go:1
  load src=a dst=pad signal go:1
  halt
"""
    result = run(body, COPY + "token go\n", A, log=True)
    np.testing.assert_array_equal(result.tensors["B"], A["A"])
    assert [entry.queue for entry in result.log] == ["chip0.dma1", "chip0.dma1", "chip0.dma0"]


def test_initial_count_lets_a_queue_go_at_once():
    body = "stream chip0.dma0\nload src=a dst=pad wait go:1\nstore src=pad dst=b\nhalt"
    np.testing.assert_array_equal(run(body, COPY + "token go 1\n", A).tensors["B"], A["A"])
    with pytest.raises(UserError, match="deadlock"):
        run(body, COPY + "token go 0\n", A)


def test_deadlock_names_every_waiting_queue_its_instruction_and_its_tokens():
    body = """
stream chip0.dma0
  load src=a dst=pad
  nop wait x:1 signal y:1
  halt
stream chip0.dma1
  nop wait y:2 x:1 signal x:1
  halt
stream chip0.link0
  recv dst=pad peer=1 tag=9
  halt
stream chip0.array0
  halt
"""
    with pytest.raises(UserError) as caught:
        run(body, COPY + "token x\ntoken y 1\n", A)
    assert str(caught.value) == (
        "test: deadlock: chip0.dma0[1] waits for 1 of token x (count 0); "
        "chip0.dma1[0] waits for 2 of token y (count 1) and 1 of token x (count 0); "
        "chip0.link0[0] waits for a tile from chip 1 with tag 9")


def test_all_waits_of_an_instruction_are_taken_together():
    # dma0 must not keep x while it waits for y, or dma1 could never run.
    body = """
stream chip0.dma0
  nop wait x:1 y:1
  halt
stream chip0.dma1
  nop wait x:1 signal x:1 y:1
  halt
"""
    assert run(body, "token x 1\ntoken y\n").value_trace == {}


def test_a_false_predicate_has_no_effect_but_keeps_its_tokens():
    body = """
stream chip0.dma0
  r1 = 0
  load src=a dst=pad signal go:1 if r1
  nop wait go:1
  load src=a dst=pad if !r1
  store src=pad dst=b
  load src=b dst=pad if r1
  halt
"""
    result = run(body, COPY + "token go\n", A, log=True)
    np.testing.assert_array_equal(result.tensors["B"], A["A"])
    assert [entry.active for entry in result.log] == [False, True, True, True, False]


def test_loops_advance_operands_and_a_count_of_zero_skips_the_body():
    head = """
launch times
symbol A dram 0x0 int8 [4] input
symbol B dram 0x10 int8 [4] output
operand a dram 0x0 int8 [1] stride [1] loop 0:1
operand pad scratchpad 0x0 int8 [1] stride [1]
operand b dram 0x13 int8 [1] stride [1] loop 0:-1
"""
    body = """
stream chip0.dma0
  r1 = launch times
  loop r1
    load src=a dst=pad
    store src=pad dst=b
  end
  halt
"""
    for times, expected in ((0, [0, 0, 0, 0]), (3, [0, 3, -2, 1]), (4, [127, 3, -2, 1])):
        result = run(body, head, A, Launch({"times": times}))
        assert result.tensors["B"].tolist() == expected


def test_each_unit_of_a_mask_works_on_its_own_rank():
    head = """
symbol A dram 0x0 int8 [2,2] input
symbol W dram 0x10 int8 [2,6] input
symbol C dram 0x40 int32 [2,6] output
operand a_dram dram 0x0 int8 [2,2] stride [2,1]
operand w_dram dram 0x10 int8 [2,6] stride [6,1]
operand a scratchpad 0x0 int8 [2,2] stride [2,1]
operand w_all scratchpad 0x10 int8 [2,6] stride [6,1]
operand w scratchpad 0x10 int8 [2,2] stride [6,1] loop 7:2 edge 1:5-7*2
operand c accumulator 0x0 int32 [2,2] stride [6,1] loop 7:2 edge 1:5-7*2
operand c_all accumulator 0x0 int32 [2,6] stride [6,1]
operand c_dram dram 0x40 int32 [2,6] stride [6,1]
token ready
token done
"""
    body = """
stream chip0.dma0
  load src=a_dram dst=a
  load src=w_dram dst=w_all signal ready:1
  store src=c_all dst=c_dram wait done:1
  halt
stream chip0.array0
  preload w=w units=0b11010 wait ready:1
  matmul a=a acc=c units=0b11010 signal done:1
  halt
"""
    rng = np.random.default_rng(1)
    a, w = rng.integers(-9, 9, (2, 2)), rng.integers(-9, 9, (2, 6))
    got = run(body, head, {"A": a, "W": w}).tensors["C"]
    # Ranks 0, 1, 2 take columns 0-1, 2-3 and, cut by the edge, 4.
    np.testing.assert_array_equal(got, np.concatenate([(a @ w)[:, :5], np.zeros((2, 1))], axis=1))


MATMUL = """
symbol A dram 0x0 {a} [2,3] input
symbol W dram 0x20 {w} [3,2] input
symbol C dram 0x40 {acc} [2,2] output
operand a_dram dram 0x0 {a} [2,3] stride [3,1]
operand w_dram dram 0x20 {w} [3,2] stride [2,1]
operand a scratchpad 0x0 {a} [2,3] stride [3,1]
operand w scratchpad 0x20 {w} [3,2] stride [2,1]
operand acc accumulator 0x0 {acc} [2,2] stride [2,1]
operand out scratchpad 0x40 int8 [2,2] stride [2,1]
operand c_dram dram 0x40 {acc} [2,2] stride [2,1]
operand out_dram dram 0x80 int8 [2,2] stride [2,1]
symbol OUT dram 0x80 int8 [2,2] output
operand tables scratchpad 0x100 int8 [1,1,8] stride [8,8,1]
operand codes scratchpad 0x108 uint4 [1,1,1] stride [1,1,1]
operand sums accumulator 0x100 int32 [1,1] stride [1,1]
operand float accumulator 0x100 float32 [1,1] stride [1,1]
token ready
token done
"""


def matmul(instructions, a, w, formats=("int8", "int8", "int32")):
    head = MATMUL.format(**dict(zip(("a", "w", "acc"), formats, strict=True)))
    body = ("stream chip0.dma0\nload src=a_dram dst=a\nload src=w_dram dst=w signal ready:1\n"
            "store src=acc dst=c_dram wait done:1\nstore src=out dst=out_dram\nhalt\n"
            f"stream chip0.array0\nnop wait ready:1\n{instructions}\nfence signal done:1\nhalt")
    return run(body, head, {"A": np.array(a), "W": np.array(w)}).tensors


INT_A, INT_W = [[100, 2, 3], [-4, 5, 6]], [[1, 2], [3, -4], [5, 6]]


def test_matmul_sets_or_accumulates():
    product = np.array(INT_A) @ np.array(INT_W)
    assert matmul("matmul a=a w=w acc=acc mode=accumulate\nmatmul a=a w=w acc=acc", INT_A,
                  INT_W)["C"].tolist() == product.tolist()
    assert matmul("matmul a=a w=w acc=acc\nmatmul a=a w=w acc=acc mode=accumulate", INT_A,
                  INT_W)["C"].tolist() == (2 * product).tolist()


def test_set_level_sets_in_the_first_pass_of_that_loop_only():
    product = np.array(INT_A) @ np.array(INT_W)
    body = "loop 2\nloop 3\nmatmul a=a w=w acc=acc set_level=1\nend\nend"
    assert matmul(body, INT_A, INT_W)["C"].tolist() == (3 * product).tolist()
    body = "loop 2\nloop 3\nmatmul a=a w=w acc=acc set_level=0\nend\nend"
    # Set at every inner step of outer 0, then accumulated three times.
    assert matmul(body, INT_A, INT_W)["C"].tolist() == (4 * product).tolist()


def test_integer_accumulator_wraps_at_its_width():
    product = np.array(INT_A) @ np.array(INT_W)
    got = matmul("loop 200\nmatmul a=a w=w acc=acc mode=accumulate\nend", INT_A, INT_W,
                 ("int8", "int8", "int16"))["C"]
    assert (200 * product).max() > 32767
    assert got.tolist() == (200 * product).astype(np.int16).tolist()


def test_out_is_the_accumulator_converted():
    product = np.array(INT_A) @ np.array(INT_W)
    got = matmul("matmul a=a w=w acc=acc out=out", INT_A, INT_W)
    assert got["C"].tolist() == product.tolist()
    assert got["OUT"].tolist() == product.clip(-128, 127).tolist()
    got = matmul("matmul a=a w=w acc=acc\nflush acc=acc out=out saturate=0", INT_A, INT_W)
    assert product.max() > 127
    assert got["OUT"].tolist() == product.astype(np.int8).tolist()


def test_flush_rounds_by_the_rule_named():
    a, w = [[2.5, 0, 0], [-1.5, 0, 0]], [[1, 1], [0, 0], [0, 0]]
    formats = ("float16", "float16", "float32")
    rules = {"nearest_even": [2, -2], "toward_zero": [2, -1], "floor": [2, -2]}
    for rule, expected in rules.items():
        flush = f"flush acc=acc out=out rounding={rule}"
        got = matmul(f"matmul a=a w=w acc=acc\n{flush}", a, w, formats)
        assert got["OUT"][:, 0].tolist() == expected, rule


def test_preloaded_weights_stay_until_the_next_preload():
    product = np.array(INT_A) @ np.array(INT_W)
    got = matmul("preload w=w\nmatmul a=a acc=acc\nmatmul a=a acc=acc mode=accumulate",
                 INT_A, INT_W)
    assert got["C"].tolist() == (2 * product).tolist()


@pytest.mark.parametrize("instructions, formats, message", [
    ("matmul a=a acc=acc", ("int8", "int8", "int32"),
     "test: chip0.array0[1]: matmul without w must follow a preload on its array"),
    ("matmul a=w w=w acc=acc", ("int8", "int8", "int32"),
     "test: chip0.array0[1]: a [3, 2] by w [3, 2] must give acc, which is [2, 2]"),
    ("matmul a=a w=w acc=acc", ("int8", "int8", "float32"),
     "test: chip0.array0[1]: accumulator of int8 x int8 must be "),
    ("matmul a=a w=w acc=acc k_order=tree", ("int8", "int8", "int32"),
     "test: chip0.array0[1]: k_order must be sequential: an array adds in ascending k, not "),
    ("matmul a=a w=w acc=acc group_end=1", ("int8", "int8", "float32"),
     "test: chip0.array0[1]: operand w must have groups with a scale along axis 0, its K, for "),
    ("matmul a=a w=w acc=acc tables=1", ("int8", "int8", "int32"),
     "test: chip0.array0[1]: tables [2, 3] must be [M, K / 4, 8] and codes [3, 2] [bits, N, K "),
    ("matmul a=tables w=codes acc=sums tables=1 group_end=1", ("int8", "int8", "int32"),
     "test: chip0.array0[1]: group_end with tables must be 0: table products have no group "),
    ("matmul a=tables w=codes acc=float tables=1", ("int8", "int8", "int32"),
     "test: chip0.array0[1]: tables must be integers in an integer acc, not int8 in float32"),
])
def test_meaningless_matmul_is_refused_with_its_place(instructions, formats, message):
    with pytest.raises(UserError, match="^" + re.escape(message)):
        matmul(instructions, INT_A, INT_W, formats)


def test_batched_matmul_broadcasts_leading_axes():
    head = """
symbol A dram 0x0 int8 [2,3,2,4] input
symbol W dram 0x40 int8 [2,1,4,5] input
symbol C dram 0x80 int32 [2,3,2,5] output
operand a_dram dram 0x0 int8 [2,3,2,4] stride [24,8,4,1]
operand w_dram dram 0x40 int8 [2,1,4,5] stride [20,20,5,1]
operand c_dram dram 0x80 int32 [2,3,2,5] stride [30,10,5,1]
operand a scratchpad 0x0 int8 [2,3,2,4] stride [24,8,4,1]
operand w scratchpad 0x40 int8 [2,1,4,5] stride [20,20,5,1]
operand c accumulator 0x0 int32 [2,3,2,5] stride [30,10,5,1]
token ready
token done
"""
    body = """
stream chip0.dma0
  load src=a_dram dst=a
  load src=w_dram dst=w signal ready:1
  store src=c dst=c_dram wait done:1
  halt
stream chip0.array0
  matmul a=a w=w acc=c wait ready:1 signal done:1
  halt
"""
    rng = np.random.default_rng(2)
    a, w = rng.integers(-9, 9, (2, 3, 2, 4)), rng.integers(-9, 9, (2, 1, 4, 5))
    np.testing.assert_array_equal(run(body, head, {"A": a, "W": w}).tensors["C"], a @ w)


def test_read_puts_a_number_into_a_register_and_into_the_trace():
    head = COPY + """
symbol where dram 0x20 int32 [2] launch
operand at dram 0x20 int32 [1] stride [1] loop 0:1
operand picked dram 0x0 int8 [1] stride [1] base r2
operand one scratchpad 0x0 int8 [1] stride [1]
operand b_at dram 0x10 int8 [1] stride [1] loop 0:1
"""
    body = """
stream chip0.dma0
  loop 2
    read r2 src=at
    load src=picked dst=one
    store src=one dst=b_at
  end
  halt
"""
    result = run(body, head, A, Launch({}, {"where": [3, 1]}))
    assert result.tensors["B"].tolist() == [127, -2, 0, 0]
    assert result.value_trace == {"chip0.dma0": [3, 1]}


@pytest.mark.parametrize("declared, message", [
    ("int8 [2] stride [1]", "src of read must be one element, not 2"),
    ("float16 [1] stride [1]", "format of src of read must be an integer format, not 'float16'"),
])
def test_read_of_anything_but_one_integer_is_refused(declared, message):
    with pytest.raises(UserError, match=re.escape(message)):
        run("stream chip0.dma0\nread r1 src=x\nhalt", f"operand x dram 0x0 {declared}\n")


def test_a_message_waits_for_its_tag_and_keeps_its_order():
    head = """
chips 2
symbol A dram 0x0 int8 [3] input
symbol B dram 0x10 int8 [3] output chip=1
operand a dram 0x0 int8 [1] stride [1] loop 0:1
operand last dram 0x2 int8 [1] stride [1]
operand b dram 0x10 int8 [1] stride [1] loop 0:1
operand b_last dram 0x12 int8 [1] stride [1]
"""
    body = """
stream chip1.link0
  recv dst=b_last peer=0 tag=8
  loop 2
    recv dst=b peer=0 tag=7
  end
  halt
stream chip0.link0
  loop 2
    send src=a peer=1 tag=7
  end
  send src=last peer=1 tag=8
  halt
"""
    result = run(body, head, {"A": np.array([5, 6, 7])})
    assert result.tensors["B"].tolist() == [5, 6, 7]


RECEIVER = """
stream chip1.link0
  recv dst=b peer=0 tag=7 wait slot:1 signal slot:1
  halt
stream chip0.link0
  nop wait {sender}
  send src=a peer=1 tag=7
  halt
"""
TWO_CHIPS = """
chips 2
symbol A dram 0x0 int8 [1] input
symbol B dram 0x10 int8 [1] output chip=1
operand a dram 0x0 int8 [1] stride [1]
operand b dram 0x10 int8 [1] stride [1]
token slot 1
token go 1
"""


def test_a_receiver_takes_its_tokens_once_however_long_it_waits():
    result = run(RECEIVER.format(sender="go:1"), TWO_CHIPS, {"A": np.array([9])})
    assert result.tensors["B"].tolist() == [9]


def test_a_receiver_holds_its_tokens_while_it_waits():
    with pytest.raises(UserError, match=r"deadlock: chip1.link0\[0\] waits for a tile from chip 0 "
                                        r"with tag 7; chip0.link0\[0\] waits for 1 of token slot"):
        run(RECEIVER.format(sender="slot:1"), TWO_CHIPS, {"A": np.array([9])})


def test_a_sent_tile_that_nobody_receives_is_an_error():
    head = "chips 2\noperand a dram 0x0 int8 [1] stride [1]\n"
    with pytest.raises(UserError, match="^test: a tile from chip 0 to chip 1 with tag 7 must be "
                                        "received, and was not$"):
        run("stream chip0.link0\nsend src=a peer=1 tag=7\nhalt", head)


def test_order_of_the_queues_must_name_each_one():
    body = "stream chip0.dma0\nload src=a dst=pad\nstore src=pad dst=b\nhalt"
    with pytest.raises(UserError, match="^order must name the 1 queues of test, not 0$"):
        run(body, COPY, A, order=())
    assert run(body, COPY, A, order=[Queue(QueueKind.DMA)]).tensors["B"].tolist() == [
        1, -2, 3, 127]


def test_memory_of_one_run_is_the_start_of_the_next():
    head = """
symbol A dram 0x0 int8 [4] input
symbol S dram 0x10 int32 [4] state
operand a dram 0x0 int8 [4] stride [1]
operand s dram 0x10 int32 [4] stride [1]
operand x scratchpad 0x0 float32 [4] stride [1]
operand y scratchpad 0x10 float32 [4] stride [1]
token go
token done
"""
    body = """
stream chip0.dma0
  load src=a dst=x
  load src=s dst=y signal go:1
  store src=y dst=s wait done:1
  halt
stream chip0.vector0
  vector vop=add x=x x1=y y=y wait go:1 signal done:1
  halt
"""
    memory, given = None, np.random.default_rng(3).integers(-128, 128, (3, 4))
    for step in range(3):
        result = run(body, head, {"A": given[step]}, memory=memory)
        memory = result.memory
        assert result.tensors["S"].tolist() == given[: step + 1].sum(axis=0).tolist()


def test_log_gives_each_instruction_its_place_in_the_loops():
    body = """
stream chip0.dma0
  loop 2
    loop 2
      load src=a dst=pad op=copy layer=3+0
    end
  end
  halt
"""
    log = run(body, COPY + "op other\nop copy\n", A, log=True).log
    assert [(e.sequence, e.pc, e.indices, e.layer, e.op) for e in log] == [
        (0, 2, (0, 0), 3, 1), (1, 2, (0, 1), 3, 1), (2, 2, (1, 0), 4, 1), (3, 2, (1, 1), 4, 1)]
