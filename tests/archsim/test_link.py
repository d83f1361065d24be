"""Links: a message takes its bytes over the rate and the latency, whoever comes first."""

from dataclasses import replace

import pytest

from machine.errors import UserError
from machine.link import LinkConfig

HEAD = """program t version 1
needs systolic link
chips 2
token go
operand x scratchpad 0x0 int8 [128] stride [1]
operand y scratchpad 0x1000 int8 [128] stride [1]
"""
LATENCY, RATE = 10, 8


@pytest.fixture(scope="module")
def pair(machine):
    links = LinkConfig(count=1, bytes_per_cycle=RATE, latency_cycles=LATENCY)
    return replace(machine(), chips=2, links=links)


def test_a_message_arrives_after_its_bytes_and_the_latency(run, times, pair):
    result = run(HEAD + "stream chip0.link0\n send src=x peer=1 tag=5\n halt\n"
                 "stream chip1.link0\n recv dst=y peer=0 tag=5\n halt\n", pair)
    # Start 1; 128 bytes take 16 cycles; the last byte is written in the cycle after it arrives.
    assert times(result, "chip0.link0") == [(0, 1, 1 + 16)]
    assert times(result, "chip1.link0") == [(0, 1, 1 + 16 + LATENCY + 1)]
    assert result.accounts["chip1.link0"]["busy"] == 16
    assert result.accounts["chip1.link0"]["memory_wait"] == LATENCY + 1  # 1 to 12, then 16 to 28


def test_a_message_that_came_early_is_written_when_it_is_received(run, times, pair):
    nops = " nop\n" * 60
    result = run(HEAD + "stream chip0.link0\n send src=x peer=1 tag=5\n halt\n"
                 f"stream chip1.link0\n{nops} recv dst=y peer=0 tag=5\n halt\n", pair)
    # All bytes are there: the port writes 2 words of 64 bytes from the start, 61, on.
    assert times(result, "chip1.link0")[-1] == (60, 61, 63)


def test_messages_match_by_tag_and_in_order(run, times, pair):
    result = run(HEAD + "stream chip0.link0\n send src=x peer=1 tag=1\n send src=x peer=1 tag=2\n"
                 " send src=x peer=1 tag=1\n halt\n"
                 "stream chip1.link0\n recv dst=y peer=0 tag=2\n recv dst=y peer=0 tag=1\n"
                 " recv dst=y peer=0 tag=1\n halt\n", pair)
    sent = [completion for _, _, completion in times(result, "chip0.link0")]
    assert sent == [17, 33, 49]  # one after the other on one link
    received = [completion for _, _, completion in times(result, "chip1.link0")]
    # Tag 2 is the second message. The first of tag 1 has come: 2 words. Then the third comes.
    assert received == [33 + LATENCY + 1, 33 + LATENCY + 1 + 2, 49 + LATENCY + 1]


def test_both_directions_run_at_once(run, times, pair):
    body = "".join(
        f"stream chip{me}.link0\n send src=x peer={1 - me} tag=0\n recv dst=y peer={1 - me} tag=0\n"
        " halt\n" for me in (0, 1))
    result = run(HEAD + body, pair)
    done = [times(result, f"chip{me}.link0")[1][2] for me in (0, 1)]
    assert done == [17 + LATENCY + 1] * 2


def test_a_receive_without_a_send_is_a_deadlock(run, pair):
    with pytest.raises(UserError, match=r"^program must not deadlock: chip1\.link0 waits for "
                       r"the message of chip 0 with tag 5$"):
        run(HEAD + "stream chip1.link0\n recv dst=y peer=0 tag=5\n halt\n", pair)
