"""Races in the corners: strided tiles, gathers, units, PIM channels, indirect operands, roles."""

import pytest

from machine.assembly import parse
from machine.faults import FaultKind
from machine.program import Launch
from machine.verify import verify

HEAD = "program p version 1\nneeds systolic vector pim indirect group_scale\n"
DRAM = "symbol D dram 0x0 int8 [4096] input\n"


def kinds(source, launch=None):
    return {fault.kind for fault in verify(parse(HEAD + source, "p"), launch or Launch())}


def two_loads(first, second, tokens=("", "")):
    """Two queues that write two tiles of the scratchpad."""
    return DRAM + f"""
token t
operand a dram 0x0 int8 {first.split(" stride")[0]} stride [0,1]
operand b dram 0x0 int8 {second.split(" stride")[0]} stride [0,1]
operand x scratchpad 0x0 int8 {first}
operand y scratchpad 0x0 int8 {second}
stream chip0.dma0
  load src=a dst=x {tokens[0]}
  halt
stream chip0.dma1
  load src=b dst=y units=0x2 {tokens[1]}
  halt
"""


def shifted(source, address):
    return source.replace("operand y scratchpad 0x0", f"operand y scratchpad {address:#x}")


@pytest.mark.parametrize("address, raced", [(0, True), (3, True), (4, False), (7, False)])
def test_interleaved_tiles_race_only_where_they_share_a_byte(address, raced):
    # Rows of 4 bytes, every 8, against one byte every 8.
    source = shifted(two_loads("[8,4] stride [8,1]", "[8,1] stride [8,1]"), address)
    assert kinds(source) == ({FaultKind.RACE} if raced else set())


def test_a_token_ends_a_race():
    ordered = two_loads("[8,4] stride [8,1]", "[8,1] stride [8,1]", ("signal t:1", "wait t:1"))
    assert kinds(ordered) == set()


def test_two_reads_are_no_race():
    source = DRAM + """
operand a dram 0x0 int8 [8] stride [1]
operand x scratchpad 0x0 int8 [8] stride [1]
operand y scratchpad 0x8 int8 [8] stride [1]
stream chip0.dma0
  load src=a dst=x
  halt
stream chip0.dma1
  load src=a dst=y units=0x2
  halt
"""
    assert kinds(source) == set()


UNITS = DRAM + """
operand a dram 0x0 int8 [8] stride [1] loop 7:8
operand x scratchpad 0x0 int8 [8] stride [1] loop 7:{stride}{edge}
stream chip0.dma0
  load src=a dst=x units=0x7
  halt
"""


@pytest.mark.parametrize("stride, raced", [(8, False), (7, True), (1, True)])
def test_units_of_one_instruction_must_not_write_the_same_bytes(stride, raced):
    assert kinds(UNITS.format(stride=stride, edge="")) == ({FaultKind.RACE} if raced else set())


def test_a_unit_whose_tile_is_empty_touches_nothing():
    source = UNITS.format(stride=1, edge=" edge 0:8-7*8").replace(
        "loop 7:8\n", "loop 7:8 edge 0:8-7*8\n")
    assert kinds(source) == set()


GATHER = """
symbol D dram 0x0 int8 [64] state
symbol Y scratchpad 0x20 int8 [32] input
symbol pages dram 0x100 int32 [2] {kind}
operand list dram 0x100 int32 [2] stride [1]
operand d dram 0x0 int8 [8,4] stride [4,1] gather axis=0 index=@list granule=4
operand e dram 0x20 int8 [8,4] stride [4,1]
operand x scratchpad 0x0 int8 [8,4] stride [4,1]
operand y scratchpad 0x20 int8 [8,4] stride [4,1]
stream chip0.dma0
  load src=d dst=x
  halt
stream chip0.dma1
  store src=y dst=e units=0x2
  halt
"""


@pytest.mark.parametrize("pages, raced", [([0, 1], False), ([0, 2], True), ([3, 0], True)])
def test_a_gather_by_a_launched_list_touches_the_pages_it_names(pages, raced):
    # `e` is positions 8 to 15: pages 2 and 3.
    found = kinds(GATHER.format(kind="launch"), Launch(tensors={"pages": pages}))
    assert found == ({FaultKind.RACE} if raced else set())


def test_a_gather_by_an_unknown_list_may_touch_all_of_its_symbol():
    assert kinds(GATHER.format(kind="state")) == {FaultKind.RACE}


def test_a_list_too_short_and_a_page_outside_are_refused():
    short = GATHER.format(kind="launch").replace("list dram 0x100 int32 [2]",
                                                 "list dram 0x100 int32 [1]")
    assert kinds(short, Launch(tensors={"pages": [0]})) == {FaultKind.SHAPE}
    source = GATHER.format(kind="launch")
    assert kinds(source, Launch(tensors={"pages": [0, 4]})) == {FaultKind.BOUNDS}


def test_reading_the_list_of_a_gather_can_race():
    source = GATHER.format(kind="launch").replace("dst=e", "dst=over").replace(
        "operand x", "operand over dram 0x100 int8 [8] stride [1]\noperand x").replace(
        "y scratchpad 0x20 int8 [8,4] stride [4,1]", "y scratchpad 0x20 int8 [8] stride [1]")
    assert kinds(source, Launch(tensors={"pages": [0, 1]})) == {FaultKind.RACE}


PIM = """
symbol D dram 0x0 float16 [64] input
operand d dram 0x0 float16 [16] stride [1]
operand w dram 0x20 float16 [2,16] stride [16,1]
operand b pim_buffer 0x0 float16 [16] stride [1]
operand r pim_latch 0x0 float32 [2] stride [1]
operand out scratchpad 0x0 float32 [2] stride [1]
stream chip0.pim0
  pim_gwrite src=d dst=b channels={written}
  pim_gemv a=b w=w dst=r channels={used}{mode}
  pim_readres src=r dst=out channels={used}
  halt
"""


@pytest.mark.parametrize("written, used, stale", [
    ("0x3", "0x3", False), ("0x3", "0x1", False), ("0x1", "0x3", True), ("0x1", "0x2", True)])
def test_a_pim_buffer_is_written_channel_by_channel(written, used, stale):
    found = kinds(PIM.format(written=written, used=used, mode=""))
    assert found == ({FaultKind.UNINITIALISED} if stale else set())


def test_a_gemv_that_accumulates_reads_its_latches():
    assert kinds(PIM.format(written="0x1", used="0x1", mode=" accumulate=accumulate")) == {
        FaultKind.UNINITIALISED}


GROUPED = """
symbol X scratchpad 0x0 int8 [256] input
symbol S scratchpad 0x100 float32 [{groups}] input
operand a scratchpad 0x0 int8 [2,8] stride [8,1]
operand s scratchpad 0x100 float32 [2,4] stride [4,1]
operand w scratchpad 0x10 int8 [8,4] stride [4,1] group axis=0 size=4 scale=@s
operand acc accumulator 0x0 float32 [2,4] stride [4,1]
stream chip0.array0
  matmul a=a acc=acc w=w group_end=1
  halt
"""


def test_scales_of_a_group_are_read():
    assert kinds(GROUPED.format(groups=8)) == set()
    assert kinds(GROUPED.format(groups=7)) == {FaultKind.UNINITIALISED}


def test_group_end_needs_a_scale_and_a_float32_accumulator():
    assert kinds(GROUPED.format(groups=8).replace(" scale=@s", "")) == {FaultKind.ROLE}
    assert kinds(GROUPED.format(groups=8).replace("0x0 float32", "0x0 int32")) == {
        FaultKind.FORMAT}


SOFTMAX = """
symbol X scratchpad 0x0 float32 [8] input
symbol T scratchpad {state} float32 [2] input
operand x scratchpad 0x0 float32 [8] stride [1]
operand t scratchpad 0x20 float32 [2] stride [1]
stream chip0.vector0
  vector vop={vop} x=x y=x state=t
  halt
"""


def test_a_carried_state_is_read_and_has_its_role():
    assert kinds(SOFTMAX.format(state="0x20", vop="softmax")) == set()
    assert kinds(SOFTMAX.format(state="0x24", vop="softmax")) == {FaultKind.UNINITIALISED}
    assert kinds(SOFTMAX.format(state="0x20", vop="gelu")) == {FaultKind.ROLE}


def test_a_matmul_that_sets_by_its_level_reads_its_sum_only_afterwards():
    source = """
symbol X scratchpad 0x0 int8 [64] input
operand a scratchpad 0x0 int8 [2,8] stride [8,1]
operand w scratchpad 0x10 int8 [8,4] stride [4,1]
operand acc accumulator 0x0 int32 [2,4] stride [4,1]
stream chip0.array0
  loop 2
    matmul a=a acc=acc w=w mode=accumulate{level}
  end
  halt
"""
    assert kinds(source.format(level=" set_level=0")) == set()
    assert kinds(source.format(level="")) == {FaultKind.UNINITIALISED}
