"""Decode attention over caches as NeuPIMs places them: golden's values, commands in a run."""

from dataclasses import replace

import numpy as np
import pytest

from archsim.bound import bound
from archsim.engine.simulate import simulate
from archsim.pim_check import first_violation
from golden.execute import execute
from machine.load import read_machine
from machine.pim_macros import PimOp, attend_shape, logit_ops, logit_shape
from machine.verify import check
from mapping.pim_attention import address_of, attention_program, waves_of
from mapping.placement import Banks, KvRows, Place, RowPool

FIRST_ROW = 32
SMALL = read_machine("tiny-pim", ["dram.rows=256", "pim.latch_bytes=16384"])


def caches_of(machine, lengths, *, heads, depth):
    """Return caches that grew side by side, a request a channel in turn, rows taken in turn too."""
    banks = Banks.of(machine.dram, machine.pim)
    pools = [RowPool(range(FIRST_ROW, machine.dram.rows - 1)) for _ in range(banks.channels)]
    found = [KvRows(banks, pools[n % banks.channels], channel=n % banks.channels, heads=heads,
                    depth=depth) for n in range(len(lengths))]
    for token in range(max(lengths)):
        for cache, length in zip(found, lengths, strict=True):
            if token < length:
                cache.append()
    return found


def filled(machine, caches, keys, values):
    """Return the symbol CACHE, keys and values [request][head, token, depth] in their places."""
    base = address_of(machine, Place(0, 0, FIRST_ROW, 0, 0))
    cells = np.zeros((machine.memory_bytes - base) // 2, np.float16)
    for cache, k, v in zip(caches, keys, values, strict=True):
        for head, token, element in np.ndindex(*k.shape):
            for array, place in ((k, cache.key(head, element, token)),
                                 (v, cache.value(head, element, token))):
                cells[(address_of(machine, place) - base) // 2] = array[head, token, element]
    return cells


def attention(q, k, v):
    scores = q.astype(float) @ k.astype(float).T * q.shape[-1] ** -0.5
    weights = np.exp(scores - scores.max())
    return weights / weights.sum() @ v.astype(float)


def data(seed, lengths, heads, group, depth):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float16)

    return (draw(len(lengths), heads * group, depth), [draw(heads, n, depth) for n in lengths],
            [draw(heads, n, depth) for n in lengths])


@pytest.mark.parametrize("buffers, queues", [(2, 1), (1, 1), (2, 2)])
@pytest.mark.parametrize("lengths, heads, group, depth", [
    ((19, 70, 5), 2, 2, 16),  # two channels, pieces of 64 tokens, grouped queries
    ((1,), 1, 1, 32), ((33, 8), 5, 1, 16),  # more heads than a row holds
])
def test_attention_over_placed_caches_is_that_of_numpy(lengths, heads, group, depth, buffers,
                                                       queues):
    machine = replace(SMALL, pim=replace(SMALL.pim, row_buffers=buffers, queues=queues))
    caches = caches_of(machine, lengths, heads=heads, depth=depth)
    program = attention_program(machine, caches, group=group, first_row=FIRST_ROW)
    check(program, None, machine)
    q, k, v = data(1, lengths, heads, group, depth)
    found = execute(program, {"Q": q, "CACHE": filled(machine, caches, k, v)}, log=True)
    for request in range(len(lengths)):
        for head in range(heads * group):
            want = attention(q[request, head], k[request][head // group],
                             v[request][head // group])
            got = found.tensors["O"][request, head].astype(float)
            np.testing.assert_allclose(got, want, rtol=4e-3, atol=4e-3, err_msg=f"{request}")
    timed = simulate(program, machine)
    queues = [str(stream.queue) for stream in program.streams]
    for queue in queues:
        assert [(e.pc, e.op) for e in timed.log.of(queue)] == [
            (e.pc, e.op) for e in found.log if e.queue == queue]
    for channel in timed.pim[0]:
        assert first_violation(machine.dram, machine.pim, channel.device.trace) is None
    assert timed.ticks >= bound(program, machine).ticks


def test_entries_of_a_request_are_those_of_the_closed_forms():
    lengths, heads, depth = (70, 19), 5, 16
    caches = caches_of(SMALL, lengths, heads=heads, depth=depth)
    result = simulate(attention_program(SMALL, caches, first_row=FIRST_ROW), SMALL)
    dram, pim = SMALL.dram, SMALL.pim
    for number, cache in enumerate(caches):
        keys = logit_shape(dram, pim, heads=heads, depth=depth, length=lengths[number])
        values = attend_shape(dram, pim, depth=depth, length=lengths[number])
        want = logit_ops(dram, pim, keys, cache.key_rows)
        for head in range(heads):
            rows = [cache.value_rows[(p * heads + head) * cache.value_tiles + tile]
                    for tile in range(values.tiles) for p in range(values.chunks)]
            want += logit_ops(dram, pim, values, rows)
        found = result.pim[0][number].ops
        # Vectors come from the scratchpad here, from a row there; a sum of several pieces goes on.
        assert [op._replace(first=True) for op in found if op.kind != "GWRITE"] == [
            op for op in want if op.kind != "GWRITE"]
        assert [n for n, op in enumerate(found) if op.kind == "GWRITE"] == [
            n for n, op in enumerate(want) if op.kind == "GWRITE"]
        assert all(op == PimOp("GWRITE", row=dram.rows - 1, bank=op.bank)
                   for op in found if op.kind == "GWRITE")


def test_requests_of_eight_channels_take_what_the_source_gives_them_and_the_way_there():
    # pim-npu.md: GPT3-7B over four chips, 8 requests of 512 tokens: attention in PIM 15,806 cycles.
    machine = read_machine("neupims")
    caches = caches_of(machine, (512,) * 8, heads=8, depth=128)
    program = attention_program(machine, caches, first_row=FIRST_ROW)
    result = simulate(program, machine)
    assert 15_806 < result.ticks <= 1.1 * 15_806
    alone = simulate(attention_program(machine, caches[:1], first_row=FIRST_ROW), machine)
    assert alone.ticks <= result.ticks <= 1.03 * alone.ticks  # the channels work side by side
    for channel in result.pim[0][:8]:
        counts = channel.counts()
        assert (counts["GWRITE"], counts["GACT"], counts["GEMV"]) == (10, 512, 160)
        assert first_violation(machine.dram, machine.pim, channel.device.trace) is None
    # With one queue for all channels most of them wait their turn.
    shared = read_machine("neupims", ["pim.queues=1"])
    slow = simulate(attention_program(shared, caches, first_row=FIRST_ROW), shared)
    assert slow.ticks > 2 * result.ticks


@pytest.mark.parametrize("name", ["tiny-pim", "neupims"])
def test_an_address_is_that_of_its_place_in_the_mapping(name):
    machine = read_machine(name)
    dram, rng = machine.dram, np.random.default_rng(2)
    columns = machine.pim.row_columns(dram)
    for _ in range(200):
        place = Place(*(int(rng.integers(n)) for n in (dram.channels, dram.banks, dram.rows,
                                                       columns, 16)))
        address = address_of(machine, place)
        at = dram.place(address)
        bank = (at["ra"] * dram.bank_groups + at["bg"]) * dram.banks_per_group + at["ba"]
        inside = at["co"] * dram.burst_bytes + address % dram.burst_bytes
        assert (at["ch"], bank, at["ro"], *divmod(inside, 32)) == (
            *place[:4], 2 * place.lane)


def test_requests_of_one_channel_are_in_waves_of_their_own():
    caches = caches_of(SMALL, (4, 4, 4, 4, 4), heads=1, depth=16)
    assert waves_of(caches) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("change, sentence", [
    ({"first_row": 15}, "first_row must be behind the 65536 bytes of queries and results, not 15"),
    ({"machine": read_machine("tiny-pim", ["dram.rows=256", "pim.latch_bytes=512"])},
     "bytes of scores and sums of a request must be at most 512, the latches', not 2560"),
    ({"machine": read_machine("tiny")}, "pim must be given, tiny has none, not None"),
    ({"depth": 24}, "depth must be a multiple of 16 lanes, not 24"),
])
def test_what_does_not_fit_is_named_with_its_numbers(change, sentence):
    caches = caches_of(SMALL, (64,), heads=8, depth=change.pop("depth", 16))
    given = {"machine": SMALL, "first_row": FIRST_ROW} | change
    with pytest.raises(ValueError) as error:
        attention_program(given.pop("machine"), caches, **given)
    assert str(error.value) == sentence
