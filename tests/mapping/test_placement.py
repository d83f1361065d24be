"""Every element has one place, every place one element; caches grow, go and never overlap."""

import json
import tomllib
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pydantic import TypeAdapter

import machine.dram as dram
from machine.pim import PimConfig
from mapping.placement import Banks, KvRows, Place, RowPool, RowsPlacement, pim_gpt_cache

PRESETS = Path(dram.__file__).parent / "presets"


def read(kind, name):
    table = tomllib.loads((PRESETS / f"{name}.toml").read_text())
    return TypeAdapter(kind).validate_json(json.dumps(table))


small = st.builds(
    Banks, channels=st.integers(1, 3), banks=st.sampled_from([1, 2, 4]), rows=st.just(10_000),
    columns=st.integers(1, 4), lanes=st.sampled_from([1, 2, 4]))


def places(banks, rows):
    """Return every place in `rows` of all banks."""
    return (Place(*p) for p in product(range(banks.channels), range(banks.banks), rows,
                                       range(banks.columns), range(banks.lanes)))


@given(small, st.integers(1, 30), st.integers(1, 30), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_a_matrix_and_its_places_are_a_bijection(banks, outputs, depth, first):
    matrix = RowsPlacement(banks=banks, outputs=outputs, depth=depth, first_row=first)
    there = {matrix.place(o, k): (o, k) for o, k in product(range(outputs), range(depth))}
    assert len(there) == outputs * depth
    for place in places(banks, range(first + matrix.rows + 1)):
        assert matrix.element(place) == there.pop(place, None)
    assert not there


@given(small, st.integers(1, 20), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_reserved_keys_and_values_never_meet_and_keep_their_forms(banks, elements, tokens):
    keys, values = pim_gpt_cache(banks, elements=elements, tokens_max=tokens, first_row=2)
    for place in places(banks, range(2 + keys.rows + values.rows)):
        assert keys.element(place) is None or values.element(place) is None
    # Row-major: a token's key in one bank, along it. Column-major: so is an element over tokens.
    for matrix in (keys, values):
        line = [matrix.place(0, k) for k in range(matrix.depth)]
        assert {(p.channel, p.bank) for p in line} == {(line[0].channel, line[0].bank)}
        assert [p.column * banks.lanes + p.lane for p in line] == [
            k % banks.row_elements for k in range(matrix.depth)]


def test_neighbouring_outputs_work_at_once():
    banks = Banks(channels=2, banks=4, rows=10, columns=2, lanes=4)
    matrix = RowsPlacement(banks=banks, outputs=16, depth=16)
    first = [matrix.place(o, 0) for o in range(8)]
    assert {(p.channel, p.bank) for p in first} == set(product(range(2), range(4)))
    # One slice of the vector serves the rows of all groups before the next is loaded.
    assert [matrix.place(0, k).row for k in (0, 7, 8)] == [0, 0, 2]
    assert matrix.place(8, 0).row == 1


@given(small, st.integers(1, 5), st.integers(1, 9), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_a_cache_and_its_places_are_a_bijection(banks, heads, depth, tokens):
    if -(-depth // banks.lanes) > banks.columns:
        depth = banks.columns * banks.lanes
    cache = KvRows(banks, RowPool(range(3, 9000)), channel=banks.channels - 1, heads=heads,
                   depth=depth)
    for _ in range(tokens):
        cache.append()
    there = {}
    for name, find in (("key", cache.key), ("value", cache.value)):
        for h, e, t in product(range(heads), range(depth), range(tokens)):
            there[find(h, e, t)] = name, h, e, t
    assert len(there) == 2 * heads * depth * tokens
    used = sorted({*cache.key_rows, *cache.value_rows})
    for place in places(banks, [*used, used[-1] + 1]):
        assert cache.element(place) == there.pop(place, None)
    assert not there


def test_neupims_own_numbers():
    # 32 tokens a tile of keys, four heads of 128 a row; 512 tokens a tile of values.
    banks = Banks.of(read(dram.DramConfig, "dram/hbm2-neupims"), read(PimConfig, "pim/neupims"))
    assert banks.row_elements == 512
    cache = KvRows(banks, RowPool(range(32768)), channel=5, heads=8, depth=128)
    rows = []
    for _ in range(513):
        cache.append()
        rows.append((len(cache.key_rows), len(cache.value_rows)))
    assert rows[0] == rows[31] == (2, 32)
    assert rows[32] == (4, 32)
    assert rows[511] == (32, 32)
    assert rows[512] == (34, 64)
    assert cache.key(0, 0, 33).bank == 1
    assert cache.key(3, 127, 0) == Place(5, 0, cache.key_rows[0], 31, 15)
    assert cache.key(4, 0, 0).row == cache.key_rows[1]
    assert cache.value(0, 33, 511) == Place(5, 1, cache.value_rows[1], 31, 15)


class Caches(RuleBasedStateMachine):
    """Requests of one channel come, grow and go; a model memory keeps what was written."""

    @initialize(banks=small, rows=st.integers(5, 40))
    def start(self, banks, rows):
        self.banks = Banks(channels=1, banks=banks.banks, rows=rows, columns=banks.columns,
                           lanes=banks.lanes)
        self.rows, self.pool = rows, RowPool(range(rows))
        self.caches, self.memory, self.number = {}, {}, 0

    @rule(heads=st.integers(1, 3), depth=st.integers(1, 4))
    def arrive(self, heads, depth):
        depth = min(depth, self.banks.row_elements)
        self.caches[self.number] = KvRows(self.banks, self.pool, channel=0, heads=heads,
                                          depth=depth)
        self.number += 1

    @precondition(lambda self: self.caches)
    @rule(data=st.data(), count=st.integers(1, 6))
    def grow(self, data, count):
        name = data.draw(st.sampled_from(sorted(self.caches)))
        cache = self.caches[name]
        for _ in range(count):
            before = cache.tokens, self.pool.free
            try:
                cache.append()
            except ValueError as error:
                assert "the free ones" in str(error)
                assert (cache.tokens, self.pool.free) == before
                return
            for h, e in product(range(cache.heads), range(cache.depth)):
                for kind, find in (("key", cache.key), ("value", cache.value)):
                    place = find(h, e, cache.tokens - 1)
                    assert place not in self.memory
                    self.memory[place] = name, kind, h, e, cache.tokens - 1

    @precondition(lambda self: self.caches)
    @rule(data=st.data())
    def leave(self, data):
        name = data.draw(st.sampled_from(sorted(self.caches)))
        self.caches.pop(name).release()
        self.memory = {p: held for p, held in self.memory.items() if held[0] != name}

    @invariant()
    def nothing_overlaps_and_nothing_is_lost(self):
        if not hasattr(self, "caches"):
            return
        rows = [row for c in self.caches.values() for row in (*c.key_rows, *c.value_rows)]
        assert len(rows) == len(set(rows))
        assert len(rows) + self.pool.free == self.rows
        assert all(0 <= row < self.rows for row in rows)
        for place, (name, *held) in self.memory.items():
            assert self.caches[name].element(place) == tuple(held)
        size = sum(2 * c.heads * c.depth * c.tokens for c in self.caches.values())
        assert len(self.memory) == size


def test_caches_grow_and_reuse_rows_without_overlap_or_loss():
    run_state_machine_as_test(Caches, settings=settings(max_examples=40, deadline=None,
                                                        stateful_step_count=25))


def test_freed_rows_are_taken_again():
    banks = Banks(channels=1, banks=2, rows=4, columns=2, lanes=2)
    pool = RowPool(range(4))
    one, two = (KvRows(banks, pool, channel=0, heads=1, depth=2) for _ in range(2))
    one.append()
    two.append()
    with pytest.raises(ValueError, match="^rows must be at most 0, the free ones, not 2$"):
        KvRows(banks, pool, channel=0, heads=1, depth=2).append()
    rows = [*one.key_rows, *one.value_rows]
    one.release()
    three = KvRows(banks, pool, channel=0, heads=1, depth=2)
    three.append()
    assert [*three.key_rows, *three.value_rows] == rows


@pytest.mark.parametrize("make, message", [
    (lambda b: RowsPlacement(banks=b, outputs=81, depth=8),
     "rows must be at most 10 of a bank, not 11"),
    (lambda b: RowsPlacement(banks=b, outputs=80, depth=9),
     "rows must be at most 10 of a bank, not 20"),
    (lambda b: RowsPlacement(banks=b, outputs=0, depth=9), "outputs must be at least 1, not 0"),
    (lambda b: RowsPlacement(banks=b, outputs=1, depth=8).place(1, 0),
     "output must be from 0 to 0, not 1"),
    (lambda b: KvRows(b, RowPool(range(3)), channel=0, heads=1, depth=9),
     "columns of a head must be at most 2, the columns of a row, not 3"),
    (lambda b: KvRows(b, RowPool(range(3)), channel=0, heads=1, depth=8).key(0, 0, 0),
     "token must be from 0 to -1, not 0"),
    (lambda b: RowPool(range(3)).give([1]), "row must be a taken one, not 1"),
])
def test_what_has_no_place_is_refused_with_the_numbers(make, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make(Banks(channels=2, banks=4, rows=10, columns=2, lanes=4))
