"""The vector unit in RTL: what is refused, the command word, cycles counted by hand."""

import random
import re
from dataclasses import replace

import pytest

from machine.vector import ReductionOrder, VectorConfig
from machine.vector_core import (
    COMMAND_BITS,
    COMMAND_FIELDS,
    VectorCommand,
    VectorCoreConfig,
    command_cycles,
    done_cycles,
    pack_command,
    step_beats,
)
from machine.vector_microcode import (
    FIELDS,
    ITERATIVE,
    STEP_BITS,
    Count,
    Given,
    Op,
    Operand,
    Place,
    Step,
    gap_cycles,
    interval_cycles,
    pack_step,
)
from machine.vector_programs import PROGRAMS, Code, rom

CFG = VectorCoreConfig(lanes=4, row_elements=64)
ADD = VectorCommand(code=Code.ADD, rows=3, width=10)


@pytest.mark.parametrize("changes, message", [
    ({"lanes": 1}, "lanes must be a power of two from 2 to 128, not 1"),
    ({"lanes": 6}, "lanes must be a power of two from 2 to 128, not 6"),
    ({"lanes": 256}, "lanes must be a power of two from 2 to 128, not 256"),
    ({"row_elements": 4}, ("row_elements must be a power of two from 8 (two beats of 4) to "
                           "32768, not 4")),
    ({"row_elements": 100}, ("row_elements must be a power of two from 8 (two beats of 4) to "
                            "32768, not 100")),
    ({"unit_cycles": 0}, "unit_cycles must be from 1 to 4, not 0"),
    ({"unit_cycles": 5}, "unit_cycles must be from 1 to 4, not 5"),
])
def test_a_unit_that_cannot_be_built_is_refused(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(CFG, **changes)


def test_the_same_sizes_are_refused_to_a_machine_whose_fidelity_is_rtl():
    assert VectorConfig(name="v", count=1, lanes=6).lanes == 6
    with pytest.raises(ValueError, match="lanes must be a power of two from 2 to 128, not 6"):
        VectorConfig(name="v", count=1, lanes=6, fidelity="rtl")


@pytest.mark.parametrize("changes, message", [
    ({"rows": 0}, "rows must be from 1 to 65536, not 0"),
    ({"width": 65}, "width must be from 1 to row_elements, 64, not 65"),
    ({"repeats": 2}, "repeats must be from 1 to 1 of ADD, not 2"),
    ({"code": Code.TOPK, "repeats": 11}, "repeats must be from 1 to 10 of TOPK, not 11"),
    ({"code": Code.MEAN_POOL, "repeats": 65537}, ("repeats must be from 1 to 65536 of MEAN_POOL, "
                                                  "not 65537")),
    ({"o_format": "int5"}, ("o_format must be one of float32, float16, bfloat16, float8_e4m3fn, "
                            "float8_e5m2, int4, uint4, int8, uint8, int16, uint16, not 'int5'")),
    ({"x_format": "int32"}, ("x_format must be an integer for FROM_INTEGER, MULTIPLY_INTEGER, "
                             "DEQUANTISE, DEQUANTISE_BIAS alone, not 'int32'")),
    ({"code": Code.FROM_INTEGER, "x_format": "float16"}, (
        "x_format must be an integer for FROM_INTEGER, MULTIPLY_INTEGER, DEQUANTISE, "
        "DEQUANTISE_BIAS alone, not 'float16'")),
    ({"code": Code.QUANTISE}, ("o_format must be one of float8_e4m3fn, float8_e5m2, int4, uint4, "
                               "int8, uint8, int16, uint16 for QUANTISE, not 'float32'")),
    ({"o_format": "int8"}, ("o_format must be an integer for QUANTISE, QUANTISE_ROWS alone, not "
                            "'int8'")),
    ({"position": (1 << 32) - 3}, "position must be from 0 to 4294967292, not 4294967293"),
    ({"window": 1 << 32}, "window must be from 0 to 4294967295, not 4294967296"),
])
def test_a_command_that_cannot_be_carried_out_is_refused(changes, message):
    ADD.check(CFG)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        replace(ADD, **changes).check(CFG)


@pytest.mark.parametrize("fields, bits", [
    (COMMAND_FIELDS, COMMAND_BITS), ([(n, *place) for n, place in FIELDS.items()], STEP_BITS)])
def test_fields_of_a_word_do_not_overlap(fields, bits):
    used = [bit for _, low, width in fields for bit in range(low, low + width)]
    assert len(used) == len(set(used)) and max(used) < bits


def test_command_word_holds_each_field_in_its_place():
    word = pack_command(replace(ADD, x_format="float16", y_format="bfloat16", saturate=True,
                                order=ReductionOrder.TREE, position=7, window=9, value=5))
    got = {name: word >> low & (1 << width) - 1 for name, low, width in COMMAND_FIELDS}
    assert got == {"code": 2, "x_format": 1, "y_format": 2, "o_format": 0, "order": 1, "mask": 0,
                   "saturate": 1, "rows_last": 2, "width_last": 9, "position": 7, "window": 9,
                   "value": 5, "repeats_last": 0}


def test_every_step_has_a_word_and_one_constant():
    steps, entries = rom()
    assert set(entries) == set(Code)
    for step in steps:
        assert 0 <= pack_step(step) < 1 << STEP_BITS
        assert [step.a.place, step.b.place].count(Place.IMMEDIATE) <= 2
        if step.a.place is Place.IMMEDIATE and step.b.place is Place.IMMEDIATE:
            assert step.b.number == 0  # an operation of one operand


@pytest.mark.parametrize("code", Code, ids=lambda code: code.name)
def test_a_program_ends_where_it_says_and_sends_last(code):
    for steps in PROGRAMS[code][:2]:
        assert [step.last for step in steps] == [False] * (len(steps) - 1) + [True] * bool(steps)
    assert PROGRAMS[code].rows[-1].to.place in (Place.OUT, Place.OUT_WORD)


def test_a_sum_of_two_streams_takes_a_cycle_a_beat():
    # 2 to decode, 3 rows of 3 beats; the last beat is offered 7 after its issue.
    assert command_cycles(CFG, ADD) == 2 + 3 * 3
    assert done_cycles(CFG, ADD) == 2 + 3 * 3 + 7


@pytest.mark.parametrize("order, beats", [(ReductionOrder.TREE, 3), (ReductionOrder.SEQUENTIAL,
                                                                    10)])
def test_a_reduction_by_hand(order, beats):
    # 2 to decode. Load: 3 beats, then 5 until the last is written. A total takes 6 a beat, the
    # tree of 4 lanes 2 levels of 6. One beat is sent.
    reduction = replace(ADD, code=Code.REDUCE_SUM, rows=1, order=order)
    assert command_cycles(CFG, reduction) == 2 + (3 + 5) + 6 * beats + 6 * 2 + 1


def test_short_rows_wait_for_results_and_long_ones_do_not():
    # exp: 20 steps. A step of B beats takes B cycles, and at least 6; the last one only B.
    for width, beats in ((4, 1), (24, 6), (64, 16)):
        exp = replace(ADD, code=Code.EXP, rows=1, width=width)
        assert command_cycles(CFG, exp) == 2 + 19 * max(beats, 6) + beats


def test_a_division_takes_its_unit_for_31_cycles():
    # 26 digits of float32's quotient and five cycles around them.
    assert CFG.iterative_cycles == 31
    sigmoid, exp = (replace(ADD, code=code, rows=1, width=4) for code in (Code.SIGMOID, Code.EXP))
    # 21 steps of 6 and a division.
    assert command_cycles(CFG, sigmoid) == 2 + 21 * 6 + 31
    assert command_cycles(CFG, exp) == 2 + 19 * 6 + 1


def test_a_loop_is_taken_as_often_as_the_command_says():
    # Of a row: its load and the three steps that begin it, all of one beat. A round: three maxima
    # of one beat (6, and 2 levels of 6), six steps, two on one number, and the beat that is sent.
    # The last of three steps in a row that is followed by another number of beats waits as long.
    largest = replace(ADD, code=Code.TOPK, rows=1, width=4)
    rounds = [command_cycles(CFG, replace(largest, repeats=count)) for count in (1, 2, 4)]
    one = 3 * (6 + 12) + 6 * 6 + 2 * 6 + 1
    assert rounds == [2 + 4 * 6 + count * one for count in (1, 2, 4)]
    # A mean of rows of 4 beats: load and add, 6 each and 3 more before a step on one beat; count.
    mean = replace(ADD, code=Code.MEAN_POOL, rows=2, width=16)
    got = [command_cycles(CFG, replace(mean, repeats=count)) for count in (1, 3)]
    assert got == [2 + 2 * ((4 + 5) + 6 + count * (6 + (4 + 5) + 6) + 6 + 31 + 4)
                   for count in (1, 3)]


def place_of(operand: Operand, beat: int) -> tuple | None:
    """Return what a beat reads or writes: a beat of a row register, a number, the total."""
    if operand.place is Place.ROW:
        return "row", operand.number, beat
    if operand.place in (Place.ALL, Place.ALL_SECOND) and operand.number not in iter(Given):
        return "all", operand.number
    return ("total",) if operand.place in (Place.TOTAL, Place.ACROSS) else None


def hasty(steps: tuple[Step, ...], width: int, order: ReductionOrder, seed: int) -> str:
    """Issue `steps`, with waits, by the rules; return the first read before its write.

    A result can be read ``latency_cycles`` + 1 after its beat's issue, of a unit that iterates
    ``iterative_cycles`` after. No two results are written in one cycle.
    """
    rng = random.Random(seed)
    now, there, written = 0, {}, set()
    beats = CFG.beats(width)
    for step in steps:
        count = step_beats(CFG, step, width, order)
        interval = interval_cycles(step, CFG.latency_cycles, CFG.iterative_cycles)
        iterates = step.op in ITERATIVE
        for number in range(count):
            in_turn = step.length is Count.ELEMENTS and count > beats
            beat = number // CFG.lanes if in_turn else number
            now += rng.choice([0, 0, 0, 1, 9]) if {step.a.place, step.b.place, step.to.place} & {
                Place.X, Place.Y, Place.OUT, Place.OUT_WORD} else 0
            for operand in (step.a, step.b):
                read = place_of(operand, beat)
                first = number == 0 and step.to.place is Place.TOTAL and read == ("total",)
                if not first and there.get(read, 0) > now:
                    return f"{step} reads {read} at {now}, there at {there[read]}"
            result = now + (CFG.iterative_cycles if iterates else CFG.latency_cycles + 1)
            if result in written:
                return f"{step} writes at {result} as well"
            written.add(result)
            for target in (step.to, Operand(Place.TOTAL)) if step.length is Count.LANES else (
                    step.to,):
                there[place_of(target, beat)] = result
            there.pop(None, None)
            now += interval if number + 1 < count else 1
        now += gap_cycles(step, count, CFG.latency_cycles, CFG.iterative_cycles)
    return ""


@pytest.mark.parametrize("order", ReductionOrder)
@pytest.mark.parametrize("code", Code, ids=lambda code: code.name)
def test_no_step_reads_what_is_not_written_yet(code, order):
    program = PROGRAMS[code]
    for width in (8, 24, 64):
        for seed in range(3):
            before, loop, after = program.parts()
            row = (*before, *loop, *loop, *after)
            assert not hasty((*program.command, *row, *row), width, order, seed)


def test_a_step_in_haste_is_seen():
    number = Operand(Place.ALL, 2)
    written = Step(Op.PASS, number, Operand(Place.ROW, 0), Operand(Place.ROW, 0))
    read = Step(Op.ADD, Operand(Place.ROW, 1), Operand(Place.ROW, 0), number)
    assert "reads ('all', 2) at" in hasty((written, read), 64, ReductionOrder.TREE, 0)
    assert not hasty((written._replace(drain=True), read), 64, ReductionOrder.TREE, 0)
