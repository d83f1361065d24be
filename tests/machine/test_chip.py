"""The chip: what joins its blocks must be there, and what it says of them is theirs."""

from dataclasses import replace
from fractions import Fraction

import pytest

from machine.chip import MASK_BITS
from machine.clock import ClockConfig
from machine.encoding import encode
from machine.link import LinkConfig
from machine.load import read_machine
from machine.program import (
    Capability,
    Instruction,
    Program,
    Queue,
    QueueKind,
    Space,
    Stream,
)

TINY = read_machine("tiny")
LINKS = LinkConfig(count=2, bytes_per_cycle=16, latency_cycles=5)


def refused(sentence, **changes):
    with pytest.raises(ValueError) as error:
        replace(TINY, **changes)
    assert sentence in str(error.value)


def test_chip_without_units_or_clocks_is_refused():
    refused("arrays must be at least one array, not ()", arrays=())
    refused("vectors must be at least one vector unit, not ()", vectors=())
    refused("clocks must be at least one clock, not ()", clocks=())
    refused("chips must be at least 1, not 0", chips=0)


def test_block_of_an_unknown_clock_is_named():
    refused("scratchpad.clock must be one of core, dram, not 'slow'",
            scratchpad=replace(TINY.scratchpad, clock="slow"))
    refused("arrays.0.clock must be one of core, dram, not 'slow'",
            arrays=(replace(TINY.arrays[0], clock="slow"),))


def test_more_than_one_chip_needs_links():
    refused("links must be given for more than one chip, not None", chips=2)
    assert replace(TINY, chips=2, links=LINKS).chips == 2


def test_a_unit_mask_holds_as_many_units_as_a_chip_may_have():
    dma = TINY.dma
    assert replace(TINY, dma=replace(dma, count=MASK_BITS)).units(QueueKind.DMA) == MASK_BITS
    refused(f"dma units must be at most {MASK_BITS}, the bits of a unit mask, not {MASK_BITS + 1}",
            dma=replace(dma, count=MASK_BITS + 1))
    half = replace(TINY.arrays[0], count=MASK_BITS // 2)
    refused("array units must be at most", arrays=(half, half, replace(half, count=1)))


def test_mask_bits_are_those_of_the_binary_form():
    def program(mask):
        stop = Instruction(opcode=0, unit_mask=mask)
        return Program(name="p", streams=(Stream(Queue(QueueKind.DMA, 0, 0), (stop,)),))

    assert encode(program((1 << MASK_BITS) - 1))
    with pytest.raises(ValueError):
        encode(program(1 << MASK_BITS))


def test_units_of_unequal_arrays_are_numbered_one_after_the_other():
    small, big = TINY.arrays[0], replace(TINY.arrays[0], count=2, rows=16)
    machine = replace(TINY, arrays=(small, big))
    assert machine.units(QueueKind.ARRAY) == 3
    assert [machine.array_of(unit).rows for unit in range(3)] == [8, 16, 16]
    with pytest.raises(IndexError):
        machine.array_of(3)
    wide = replace(TINY.vectors[0], lanes=16)
    machine = replace(TINY, vectors=(TINY.vectors[0], wide))
    assert [machine.vector_of(unit).lanes for unit in range(2)] == [8, 16]
    with pytest.raises(IndexError):
        machine.vector_of(2)


def test_units_of_links_are_there_with_links_only():
    assert TINY.units(QueueKind.LINK) == 0
    linked = replace(TINY, links=LINKS)
    assert linked.units(QueueKind.LINK) == 2
    assert Capability.LINK in linked.capabilities
    assert Capability.LINK not in TINY.capabilities


def test_spaces_have_the_sizes_of_their_blocks():
    assert TINY.space_bytes(Space.SCRATCHPAD) == TINY.scratchpad.bytes
    assert TINY.space_bytes(Space.ACCUMULATOR) == TINY.accumulator.bytes
    assert TINY.space_bytes(Space.DRAM) == TINY.dram.capacity_bytes
    assert TINY.space_bytes(Space.PIM_BUFFER) is None


def test_every_block_that_has_a_fidelity_declares_it():
    assert TINY.fidelities.keys() == TINY.blocks.keys()
    assert TINY.fidelities["arrays.0"] == "rtl"
    assert set(TINY.fidelities.values()) <= {"rtl", "analytic"}


def test_clocks_are_whole_ticks():
    clocks = (ClockConfig(name="core", period_ps=1000), ClockConfig(name="dram", period_ps=2500,
                                                                    divisor=3))
    machine = replace(TINY, clocks=clocks)
    assert machine.tick_ps == Fraction(500, 3)
    assert (machine.ticks("core"), machine.ticks("dram")) == (6, 5)


def test_tokens_are_the_sequencer_s():
    machine = replace(TINY, sequencer=replace(TINY.sequencer, tokens=5, token_bits=3))
    assert (machine.tokens, machine.token_bits) == (5, 3)
