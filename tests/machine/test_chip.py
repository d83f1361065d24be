"""The chip: what joins its blocks must be there, and what it says of them is theirs."""

from dataclasses import replace
from fractions import Fraction

import pytest

import golden.pim
from machine.chip import MASK_BITS
from machine.clock import ClockConfig
from machine.encoding import encode
from machine.errors import UserError
from machine.link import LinkConfig
from machine.load import read_machine
from machine.pim import PROGRAM_LANES
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


def test_a_machine_with_pim_has_its_spaces_its_queue_and_its_capability():
    machine = read_machine("tiny-pim")
    pim, dram = machine.pim, machine.dram
    assert Capability.PIM in machine.capabilities and Capability.PIM not in TINY.capabilities
    assert (machine.units(QueueKind.PIM), TINY.units(QueueKind.PIM)) == (1, 0)
    assert read_machine("neupims").units(QueueKind.PIM) == 32
    assert machine.space_bytes(Space.PIM_BUFFER) == pim.buffer_bytes == dram.row_bytes
    assert machine.space_bytes(Space.PIM_LATCH) == pim.latch_bytes
    assert TINY.space_bytes(Space.PIM_BUFFER) is TINY.space_bytes(Space.PIM_LATCH) is None
    # The last row of every bank is kept.
    kept = dram.channels * dram.banks * dram.row_bytes
    assert machine.space_bytes(Space.DRAM) == dram.capacity_bytes - kept
    assert replace(machine, pim=None).space_bytes(Space.DRAM) == dram.capacity_bytes
    assert machine.fidelities["pim"] == "paper:NeuPIMs"
    assert machine.fidelities["pim.unit"] == "rtl"


def test_neupims_is_npu_hbm2_with_pim_and_a_port_for_it():
    machine, plain = read_machine("neupims"), read_machine("npu-hbm2")
    ports = plain.scratchpad.ports + machine.scratchpad.ports[-1:]
    assert machine.scratchpad.ports[-1].clients == ("pim",)
    assert machine == replace(plain, name="neupims", pim=machine.pim,
                              scratchpad=replace(plain.scratchpad, ports=ports))
    assert (machine.dram.channels, machine.pim.row_buffers, machine.pim.units(machine.dram)) == (
        32, 2, 32)


@pytest.mark.parametrize("override, sentence", [
    ("pim.bufer_bytes=3", "pim.bufer_bytes must be a known key"),
    ("pim.bufer_bytes=3", "did you mean 'buffer_bytes'?"),
    ("pim.buffer_bytes=33",
     "pim.buffer_bytes must be a multiple of 32, a column of 16 float16, not 33"),
    ("pim.preset='neupim'", "tiny-pim.toml: pim.preset must be one of neupims, not 'neupim'"),
    ("pim.unit.lanes=3", "pim.unit.lanes must be a power of two, at least 2, not 3"),
    ("pim.row_buffers=3", "pim.row_buffers must be one of 1 or 2, not 3"),
    ("pim.outstanding=9",
     "pim.outstanding must be at most 8, the banks of a channel: each holds one vector, not 9"),
    ("dram.mapping='chrorabgbaco'",
     ("dram.mapping must be one with ro first, as PIM keeps the last row of all banks, not "
      "'chrorabgbaco'")),
    ("pim.queues=3", "pim.queues must be a divisor of 2, the channels, not 3"),
    ("dram.rows=1", "dram.rows must be at least 2: PIM keeps the last, not 1"),
    ("dram.channels=64",
     "dram.channels must be at most 32, the bits of a channel mask, not 64"),
])
def test_a_wrong_pim_section_is_named_by_file_key_and_numbers(override, sentence):
    with pytest.raises(UserError) as error:
        read_machine("tiny-pim", [override])
    assert str(error.value).startswith("tiny-pim.toml: ") and sentence in str(error.value)


def test_a_programs_columns_are_those_golden_adds():
    assert PROGRAM_LANES == golden.pim.LANES == read_machine("neupims").pim.unit.lanes
