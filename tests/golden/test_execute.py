"""Execution: order, tokens, predicates, loops, registers, messages, the log."""

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
