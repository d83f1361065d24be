"""Each kind of fault: a small program that has it, and the same program repaired.

A case is a program that is right, and a change that makes it wrong: (kind, where, old, new,
message). ``test_cases_cover_every_kind`` holds the list to the kinds there are.
"""

import dataclasses
import re

import pytest

from machine import unroll
from machine.assembly import parse
from machine.errors import UserError
from machine.faults import FaultKind
from machine.opcodes import Opcode
from machine.program import Capability, Instruction, Launch, QueueKind, Space, Token
from machine.verify import check, verify

GEMM = """
program gemm version 1
needs systolic indirect
launch pages_used
token free 2
token full
token done
token room 1
symbol A dram 0x0 int8 [32,16] input
symbol W dram 0x1000 int8 [16,8] const
symbol C dram 0x2000 int32 [32,8] output
symbol list dram 0x3000 int32 [4] launch
operand a_dram dram 0x0 int8 [4,16] stride [16,1] loop 0:128 1:64
operand a scratchpad 0x0 int8 [4,16] stride [16,1] loop 1:64
operand w_dram dram 0x1000 int8 [16,8] stride [8,1]
operand w scratchpad 0x100 int8 [16,8] stride [8,1]
operand acc accumulator 0x0 int32 [4,8] stride [8,1]
operand out scratchpad 0x200 int32 [4,8] stride [8,1]
operand c_dram dram 0x2000 int32 [4,8] stride [8,1] loop 0:64 1:32
operand entry dram 0x3000 int32 [1] stride [1] base r2
stream chip0.dma0
  r1 = launch pages_used
  r2 = 4
  read r3 src=entry
  load src=w_dram dst=w
  loop 4
    loop 2
      load src=a_dram dst=a wait free:1 signal full:1
    end
  end
  halt
stream chip0.array0
  loop 4
    loop 2
      matmul a=a acc=acc w=w out=out dataflow=ws wait full:1 room:1 signal free:1 done:1
    end
  end
  halt
stream chip0.dma1
  loop 4
    loop 2
      store src=out dst=c_dram units=0x2 wait done:1 signal room:1
    end
  end
  halt
"""
LAUNCH = Launch({"pages_used": 2}, {"list": [7, 8, 9]})
LOAD = "load src=a_dram dst=a wait free:1 signal full:1"
MATMUL = "matmul a=a acc=acc w=w out=out dataflow=ws wait full:1 room:1 signal free:1 done:1"
STORE = "store src=out dst=c_dram units=0x2 wait done:1 signal room:1"


class Chip:
    """A machine as the verifier sees one."""

    capabilities = frozenset(Capability)
    tokens = 8
    token_bits = 4

    def __init__(self, **changes):
        self.sizes = {Space.DRAM: 0x4000, Space.SCRATCHPAD: 0x280, Space.ACCUMULATOR: 0x80}
        for name, value in changes.items():
            setattr(self, name, value)

    def units(self, kind):
        return {QueueKind.DMA: 2, QueueKind.ARRAY: 1}.get(kind, 0)

    def space_bytes(self, space, chip=0):
        return self.sizes.get(space)


def faults(source, launch=LAUNCH, machine=None, values=None):
    return verify(parse(source, "case"), launch, machine, values)


def one_changed(source, old, new):
    assert source.count(old) >= 1, old
    return source.replace(old, new, 1)


CASES = [
    (FaultKind.FORMAT, "chip0.array0[2]", "acc accumulator 0x0 int32", "acc accumulator 0x0 int8",
     "accumulator of int8 x int8 must be int16 to int32, not 'int8'"),
    (FaultKind.FORMAT, "", "w scratchpad 0x100 int8", "w scratchpad 0x100 mxint8",
     "operand 'w': format must be an element format with a group outside layout block_scaled"),
    (FaultKind.OPERAND, "", "loop 1:64", "loop 1:64 gather axis=2 index=@entry",
     "operand 'a': gather must have an axis of the operand and a granule of at least 1"),
    (FaultKind.OPERAND, "", "loop 1:64", "loop 1:64 gather axis=0 index=@a",
     "operand 'a': index must be the number of another operand"),
    (FaultKind.CAPABILITY, "", "needs systolic indirect", "needs indirect",
     "systolic must be declared, it is used"),
    (FaultKind.CAPABILITY, "", "needs systolic indirect", "needs systolic",
     "indirect must be declared, it is used"),
    (FaultKind.QUEUE, "chip0.array0[2]", MATMUL, LOAD, "queue must be dma, not array"),
    (FaultKind.QUEUE, "chip1.dma1", "stream chip0.dma1", "stream chip1.dma1",
     "chip must be below 1"),
    (FaultKind.UNITS, "chip0.dma1[2]", "units=0x2", "units=0x1",
     "dma unit 0 must be driven by one stream, chip0.dma0[3] drives it too"),
    (FaultKind.UNITS, "chip0.dma1[2]", "units=0x2", "units=0x0", "units must name at least one"),
    (FaultKind.ROLE, "chip0.array0[2]", "acc=acc ", "", "operand acc must be given"),
    (FaultKind.SPACE, "chip0.dma0[6]", LOAD, LOAD.replace("dst=a", "dst=c_dram"),
     "dst must be in scratchpad, accumulator, table, not dram"),
    (FaultKind.SPACE, "chip0.dma0[6]", LOAD, LOAD.replace("src=a_dram", "src=out"),
     "src must be in dram, not scratchpad"),
    (FaultKind.CONTROL, "chip0.dma1", STORE + "\n    end\n  end\n  halt",
     STORE + "\n    end\n  end", "last instruction must be halt"),
    (FaultKind.CONTROL, "chip0.dma1[0]", STORE + "\n    end\n  end", STORE + "\n    end",
     "loop must have an end"),
    (FaultKind.CONTROL, "chip0.dma1[5]", STORE + "\n    end\n  end",
     STORE + "\n    end\n  end\n  end", "end must close a loop"),
    (FaultKind.CONTROL, "chip0.dma1[3]", STORE, STORE + "\n      halt",
     "halt must be the last instruction"),
    (FaultKind.CONTROL, "chip0.array0[0]", "stream chip0.array0\n  loop 4",
     "stream chip0.array0\n  loop 4 wait full:1", "loop must not wait"),
    (FaultKind.ENCODING, "", "loop 1:64", "loop 1:64 edge 0:4294967296",
     "operand 'a': edge0_bound must be -2147483648 to 2147483647, not 4294967296"),
    (FaultKind.READ, "chip0.dma0[2]", "r2 = 4", "r2 = -16",
     "value must be in the launch table or the value trace"),
    (FaultKind.SHAPE, "chip0.dma0[6]", "a scratchpad 0x0 int8 [4,16]",
     "a scratchpad 0x0 int8 [4,15]", "dst must have the shape of src, [4, 16], not [4, 15]"),
    (FaultKind.SHAPE, "chip0.array0[2]", "acc accumulator 0x0 int32 [4,8]",
     "acc accumulator 0x0 int32 [4,7]", "acc must be [4, 8], not [4, 7]"),
    (FaultKind.BOUNDS, "chip0.dma0[6]", "loop 0:128 1:64", "loop 0:129 1:64",
     "a tile in dram must lie within one symbol, a_dram covers 0x1c3 to 0x202"),
    (FaultKind.CONST, "chip0.dma1[2]", ("W dram 0x1000 int8 [16,8] const\nsymbol C dram 0x2000 "
     "int32 [32,8] output"), ("W dram 0x1000 int8 [16,8] input\nsymbol C dram 0x2000 int32 [32,8] "
     "const"), "const 'C' must not be written, c_dram covers 0x2000 to 0x207f"),
    (FaultKind.UNINITIALISED, "chip0.array0[2]", "  load src=w_dram dst=w\n", "",
     "bytes of scratchpad 0x100 to 0x17f of chip 0 must be written before they are read"),
    (FaultKind.UNINITIALISED, "chip0.array0[2]", "dataflow=ws", "dataflow=ws mode=accumulate",
     "bytes of accumulator 0x0 to 0x7f of chip 0 must be written before they are read"),
    (FaultKind.RACE, "chip0.dma0[6]", "token free 2", "token free 3",
     ("bytes of scratchpad 0x40 to 0x7f of chip 0 must be ordered by tokens with chip0.array0[2], "
     "which reads there")),
    (FaultKind.RACE, "chip0.array0[2]", "token room 1", "token room 2",
     ("bytes of scratchpad 0x200 to 0x27f of chip 0 must be ordered by tokens with chip0.dma1[2], "
     "which reads there")),
    (FaultKind.DEADLOCK, "chip0.dma0[6]", "token free 2", "token free",
     "waits for 1 of token 'free', which has 0: chip0.array0 signals it, waiting at [2]"),
    (FaultKind.DEADLOCK, "chip0.array0[2]", "wait done:1 signal room:1", "wait done:1",
     "waits for 1 of token 'room', which has 0: nobody signals it"),
    (FaultKind.BALANCE, "", LOAD, LOAD.replace("full:1", "full:2"),
     "token 'full' must end at its initial count 0, not 8"),
]


def test_the_right_program_has_no_fault():
    assert faults(GEMM) == []
    assert faults(GEMM, machine=Chip()) == []
    check(parse(GEMM), LAUNCH)


@pytest.mark.parametrize("kind, where, old, new, message", CASES,
                         ids=[f"{case[0]}-{case[3][:30].strip()}" for case in CASES])
def test_a_fault_is_found_and_named(kind, where, old, new, message):
    source = one_changed(GEMM, old, new)
    found = faults(source)
    at = [f.stream + (f"[{f.pc}]" if f.pc >= 0 else "") for f in found]
    assert any(f.kind == kind and place == where and f.message.startswith(message)
               for f, place in zip(found, at, strict=True)), "\n".join(map(str, found))


def test_a_fault_names_queue_instruction_iteration_and_text():
    (found,) = faults(one_changed(GEMM, "loop 0:128 1:64", "loop 0:129 1:64"))
    assert str(found) == (
        f"chip0.dma0[6] `{LOAD}` at iteration 3,1: bounds: a tile in dram must lie within one "
        "symbol, a_dram covers 0x1c3 to 0x202")
    assert (found.stream, found.pc, found.iteration) == ("chip0.dma0", 6, (3, 1))


def test_check_raises_the_first_fault_and_counts_the_others():
    with pytest.raises(UserError, match=r"^gemm: chip0\.array0\[2\] `.*`: role: operand acc must "
                                        r"be given$"):
        check(parse(one_changed(GEMM, "acc=acc ", "")), LAUNCH)
    with pytest.raises(UserError, match=r"deadlock: waits for .* \(and 2 more\)$"):
        check(parse(one_changed(GEMM, "token free 2", "token free")), LAUNCH)


@pytest.mark.parametrize("limit", [19, 20])
def test_a_stream_longer_than_the_limit_is_not_verified(monkeypatch, limit):
    monkeypatch.setattr(unroll, "LENGTH_LIMIT", limit)
    body = "loop 3\nnop\nnop\nnop\nnop\nnop\nend\nnop"  # 1 + 3 * 6 + 1 instructions
    found = faults(f"program p version 1\nstream chip0.dma0\n{body}\nhalt\n", Launch())
    assert [(f.kind, f.message) for f in found] == (
        [(FaultKind.LENGTH, "stream must run at most 19 instructions")] if limit == 19 else [])


# What no text can say is built by hand: the first LOAD, changed.


def with_load(**changes):
    program = parse(GEMM)
    stream = program.streams[0]
    load = dataclasses.replace(stream.instructions[6], **changes)
    listed = (*stream.instructions[:6], load, *stream.instructions[7:])
    return dataclasses.replace(program, streams=(
        dataclasses.replace(stream, instructions=listed), *program.streams[1:]))


@pytest.mark.parametrize("kind, changes, message", [
    (FaultKind.OPCODE, {"opcode": 99}, "opcode must be a known one, not 99"),
    (FaultKind.ROLE, {"operands": {"src": 0, "dst": 1, "dts": 1}},
     "role must be one of src, dst, not 'dts'; did you mean 'dst'?"),
    (FaultKind.ROLE, {"operands": {"src": 0, "dst": 99}}, "dst must be an operand below 8, not 99"),
    (FaultKind.FIELD, {"fields": {"roundin": 1}},
     "field must be one of rounding, saturate, not 'roundin'; did you mean 'rounding'?"),
    (FaultKind.FIELD, {"fields": {"rounding": 7}},
     "rounding must be one of nearest_even, toward_zero, floor, not 7"),
    (FaultKind.FIELD, {"fields": {"saturate": 2}}, "saturate must be 0 to 1, not 2"),
    (FaultKind.FIELD, {"op_id": 1}, "op must be below 0, not 1"),
    (FaultKind.FIELD, {"layer_level": 7}, "level of layer must be below 7, not 7"),
    (FaultKind.TOKEN, {"waits": ((4, 1),)}, "wait must name a token below 4, not 4"),
    (FaultKind.TOKEN, {"signals": ((0, 0),)}, "count of signal must be at least 1, not 0"),
    (FaultKind.ENCODING, {"signals": ((0, 256),)},
     "chip0.dma0[6]: signal0_count must be 0 to 255, not 256"),
])
def test_an_instruction_no_text_can_write_is_refused(kind, changes, message):
    found = verify(with_load(**changes), LAUNCH)
    assert [(f.kind, f.message) for f in found] == [(kind, message)]
    assert verify(with_load(), LAUNCH) == []


@pytest.mark.parametrize("instruction, message", [
    (Instruction(Opcode.SCALAR, fields={"rd": 16}), "rd must be below 16, not 16"),
    (Instruction(Opcode.SCALAR, fields={"b": 16, "b_is_register": 1}),
     "b must be a register below 16, not 16"),
    (Instruction(Opcode.LOOP, fields={"count": 16, "count_is_register": 1}),
     "count must be a register below 16, not 16"),
])
def test_a_register_out_of_range_is_refused(instruction, message):
    program = parse("program p version 1\nstream chip0.dma0\nhalt\n")
    end = [Instruction(Opcode.END)] if instruction.opcode == Opcode.LOOP else []
    for fields, want in (({}, []), (instruction.fields, [(FaultKind.REGISTER, message)])):
        listed = (dataclasses.replace(instruction, fields=fields), *end,
                  Instruction(Opcode.HALT))
        stream = dataclasses.replace(program.streams[0], instructions=listed)
        found = verify(dataclasses.replace(program, streams=(stream,)))
        assert [(f.kind, f.message) for f in found] == want


@pytest.mark.parametrize("names, message", [
    ({"tokens": (Token("t"), Token("t"))}, "token must be named once, not 't' twice"),
    ({"ops": ("a b",)}, "op must be a letter or _, then letters, digits and _ . / -, not 'a b'"),
])
def test_a_name_twice_or_malformed_is_refused(names, message):
    program = parse("program p version 1\nstream chip0.dma0\nhalt\n")
    found = verify(dataclasses.replace(program, **names))
    assert [(f.kind, f.message) for f in found] == [(FaultKind.NAME, message)]
    assert verify(program) == []


@pytest.mark.parametrize("deep", [7, 8])
def test_loops_nest_seven_deep_and_not_eight(deep):
    body = "loop 1\n" * deep + "nop\n" + "end\n" * deep
    found = faults(f"program p version 1\nstream chip0.dma0\n{body}halt\n", Launch())
    assert [f.message for f in found] == (
        ["loops must nest at most 7 deep, not 8"] if deep == 8 else [])


# The launch table and the value trace.


@pytest.mark.parametrize("launch, message", [
    (Launch({}, {"list": [7]}), "launch value 'pages_used' must be given"),
    (Launch({"pages_used": 2, "page": 1}, {"list": [7]}),
     "launch value must be one of pages_used, not 'page'"),
    (Launch({"pages_used": 2}, {}), "launch tensor 'list' must be given"),
    (Launch({"pages_used": 2}, {"list": [1] * 5}),
     "launch tensor 'list' must have at most 4 entries, not 5"),
])
def test_a_launch_table_that_is_not_the_programs_is_refused(launch, message):
    assert [(f.kind, f.message) for f in faults(GEMM, launch)] == [(FaultKind.LAUNCH, message)]
    assert faults(GEMM, Launch({"pages_used": 2}, {"list": [1] * 4})) == []


READER = """
program reader version 1
token t
symbol S dram 0x0 int32 [4] {kind}
operand s dram 0x4 int32 [1] stride [1]
stream chip0.dma0
  read r1 src=s
  loop r1
    nop signal t:1
  end
  halt
stream chip0.vector0
  loop 3
    nop wait t:1
  end
  halt
"""


def test_a_read_is_answered_by_the_launch_table():
    source = READER.format(kind="launch")
    assert faults(source, Launch(tensors={"S": [0, 3]})) == []
    assert [f.kind for f in faults(source, Launch(tensors={"S": [0, 4]}))] == [FaultKind.BALANCE]
    # Entries the launch table does not reach are 0.
    assert [f.kind for f in faults(source, Launch(tensors={"S": [9]}))] == [FaultKind.DEADLOCK]


def test_a_read_of_computed_data_needs_a_value_trace():
    source = READER.format(kind="state")
    assert [f.kind for f in faults(source, Launch())] == [FaultKind.READ]
    assert faults(source, Launch(), values={"chip0.dma0": [3]}) == []
    assert [f.kind for f in faults(source, Launch(), values={"chip0.dma0": [2]})] == [
        FaultKind.DEADLOCK]
    assert [f.kind for f in faults(source, Launch(), values={"chip0.dma0": []})] == [
        FaultKind.READ]


def test_a_value_trace_must_agree_with_the_launch_table():
    source, launch = READER.format(kind="launch"), Launch(tensors={"S": [0, 3]})
    assert faults(source, launch, values={"chip0.dma0": [3]}) == []
    found = faults(source, launch, values={"chip0.dma0": [2]})
    assert "value in the trace must be 3, as in the launch table, not 2" in found[0].message


# On a machine.


@pytest.mark.parametrize("machine, kind, message", [
    (Chip(tokens=3), FaultKind.TOKEN, "tokens must be at most 3, not 4"),
    (Chip(capabilities=frozenset({Capability.SYSTOLIC})), FaultKind.CAPABILITY,
     "indirect must be offered by the machine, which has systolic"),
    (Chip(units=lambda kind: 1), FaultKind.UNITS,
     "units must be below 1, the machine's dma units, not 1"),
    (Chip(sizes={Space.DRAM: 0x3000, Space.SCRATCHPAD: 0x280, Space.ACCUMULATOR: 0x80}),
     FaultKind.BOUNDS, "symbol 'list' must end by 0x3000 in dram, not 0x3010"),
    (Chip(sizes={Space.DRAM: 0x4000, Space.SCRATCHPAD: 0x27F, Space.ACCUMULATOR: 0x80}),
     FaultKind.BOUNDS,
     "bytes of scratchpad must be at least 0 below 0x27f, out covers 0x200 to 0x27f"),
    (Chip(sizes={Space.DRAM: 0x4000, Space.SCRATCHPAD: 0x280}), FaultKind.BOUNDS,
     "space must be one the machine has, not accumulator"),
])
def test_a_program_beyond_its_machine_is_refused(machine, kind, message):
    assert (kind, message) in [(f.kind, f.message) for f in faults(GEMM, machine=machine)]


@pytest.mark.parametrize("ahead", [15, 16])
def test_a_token_counter_overflows_one_above_its_width(ahead):
    source = f"""
program counter version 1
token t
stream chip0.dma0
  loop {ahead}
    nop signal t:1
  end
  halt
stream chip0.vector0
  loop {ahead}
    nop wait t:1
  end
  halt
"""
    found = faults(source, Launch(), Chip(units=lambda kind: 1))
    assert [(f.kind, f.message) for f in found] == (
        [(FaultKind.OVERFLOW, "token 't' must stay within 15, it can reach 16")]
        if ahead == 16 else [])


def test_a_counter_that_is_held_back_does_not_overflow():
    source = """
program counter version 1
token t
token back 2
stream chip0.dma0
  loop 100
    nop wait back:1 signal t:1
  end
  halt
stream chip0.vector0
  loop 100
    nop wait t:1 signal back:1
  end
  halt
"""
    assert faults(source, Launch(), Chip(units=lambda kind: 1)) == []


# Links.

LINKED = """
program linked version 1
needs link
chips 2
symbol X dram 0x0 int8 [8] input
symbol Y dram 0x0 int8 [8] output chip=1
operand x dram 0x0 int8 [4] stride [1] loop 0:4
operand y dram 0x0 int8 [4] stride [1] loop 0:4
stream chip0.link0
  loop 2
    send src=x peer=1 tag=5
  end
  halt
stream chip1.link0
  loop 2
    recv dst=y tag=5
  end
  halt
"""


@pytest.mark.parametrize("old, new, where, message", [
    ("stream chip1.link0\n  loop 2", "stream chip1.link0\n  loop 1", "chip0.link0[1]",
     "tile from chip 0 to chip 1 with tag 5 must be received too, that is 1 times for 2"),
    ("stream chip0.link0\n  loop 2", "stream chip0.link0\n  loop 1", "chip1.link0[1]",
     "tile from chip 0 to chip 1 with tag 5 must be sent too, that is 1 times for 2"),
    ("recv dst=y tag=5", "recv dst=y tag=6", "chip0.link0[1]",
     "tile from chip 0 to chip 1 with tag 5 must be received too, that is 0 times for 2"),
    ("y dram 0x0 int8 [4]", "y dram 0x0 int8 [3]", "chip1.link0[1]",
     "tile must have the 4 elements that were sent, not 3"),
])
def test_tiles_sent_and_received_must_match(old, new, where, message):
    assert faults(LINKED, Launch()) == []
    found = faults(one_changed(LINKED, old, new), Launch())
    assert (FaultKind.LINK, where, message) in [
        (f.kind, f"{f.stream}[{f.pc}]", f.message) for f in found]


@pytest.mark.parametrize("peer", [0, 2])
def test_a_peer_must_be_another_chip(peer):
    found = faults(one_changed(LINKED, "peer=1", f"peer={peer}"), Launch())
    assert [(f.kind, f.message) for f in found] == [
        (FaultKind.FIELD, f"peer must be another chip below 2, not {peer}")]


def test_a_received_tile_orders_what_was_done_before_it_was_sent():
    source = """
program passed version 1
needs link vector
chips 2
symbol X dram 0x0 int8 [4] input
symbol Y dram 0x0 int8 [4] output chip=1
token t
token back
operand x scratchpad 0x0 int8 [4] stride [1]
operand xd dram 0x0 int8 [4] stride [1]
stream chip0.dma0
  load src=xd dst=x signal t:1
  nop wait back:1
  load src=xd dst=x
  halt
stream chip0.link0
  send src=x peer=1 wait t:1
  halt
stream chip1.link0
  recv dst=x signal back:1
  halt
"""
    assert faults(source, Launch()) == []
    late = one_changed(source, "  load src=xd dst=x\n", "")
    early = one_changed(late, "  nop wait back:1\n", "  load src=xd dst=x\n  nop wait back:1\n")
    found = faults(early, Launch())
    assert {f.kind for f in found} == {FaultKind.RACE}


def test_cases_cover_every_kind():
    tested = {case[0] for case in CASES} | {
        FaultKind.OPCODE, FaultKind.FIELD, FaultKind.TOKEN, FaultKind.REGISTER, FaultKind.NAME,
        FaultKind.LAUNCH, FaultKind.OVERFLOW, FaultKind.LINK, FaultKind.LENGTH}
    assert tested == set(FaultKind)
    assert re.fullmatch(r"[a-z]+", "".join(FaultKind))
