"""diff-exec: the first instruction, field and values at which two logs part."""

from dataclasses import fields

import pytest

from archsim.diff_exec import first_difference
from archsim.log import InstructionLog

NAMES = [f.name for f in fields(InstructionLog) if f.name != "queues"]


def log_of(*rows, queues=("chip0.array0", "chip0.dma0")):
    """A log of rows (queue, pc, issue, start, completion)."""
    log = InstructionLog(queues)
    for queue, pc, issue, start, completion in rows:
        row = dict(queue=queue, pc=pc, indices=(pc, 0), layer=0, op=0, mask=1, issue=issue,
                   start=start, completion=completion)
        for name in NAMES:
            getattr(log, name).append(row[name])
    return log


BASE = ((0, 1, 0, 1, 9), (1, 1, 0, 1, 20), (0, 2, 5, 6, 30), (1, 2, 8, 9, 40))


def test_equal_logs_do_not_differ():
    assert first_difference(log_of(*BASE), log_of(*BASE)) is None


def test_queues_may_interleave_differently():
    moved = (BASE[1], BASE[0], BASE[3], BASE[2])
    assert first_difference(log_of(*BASE), log_of(*moved)) is None


def test_the_earliest_difference_is_named_with_field_and_values():
    other = log_of(BASE[0], BASE[1], (0, 2, 5, 6, 31), (1, 2, 8, 10, 41))
    found = first_difference(log_of(*BASE), other)
    assert (found.queue, found.sequence, found.field) == ("chip0.array0", 1, "completion")
    assert str(found) == "chip0.array0[1], pc 2, indices (2, 0): completion 30 != 31"


@pytest.mark.parametrize("field", [n for n in NAMES if n != "queue"])
def test_every_field_is_compared(field):
    other = log_of(*BASE)
    column = getattr(other, field)
    column[2] = (9, 9) if field == "indices" else 77
    found = first_difference(log_of(*BASE), other)
    assert (found.sequence, found.field, found.right) == (1, field, column[2])


def test_unknown_times_agree_with_any():
    untimed = log_of(*((q, pc, -1, -1, -1) for q, pc, *_ in BASE))
    assert first_difference(log_of(*BASE), untimed) is None
    assert first_difference(untimed, log_of(*BASE)) is None


def test_times_can_be_left_out():
    other = log_of(BASE[0], BASE[1], (0, 2, 50, 60, 70), BASE[3])
    assert first_difference(log_of(*BASE), other, times=False) is None
    wrong = log_of(BASE[0], BASE[1], (0, 3, 5, 6, 30), BASE[3])
    assert first_difference(log_of(*BASE), wrong, times=False).field == "pc"


def test_a_log_that_ends_early_is_named():
    found = first_difference(log_of(*BASE), log_of(*BASE[:3]))
    assert str(found) == (
        "chip0.dma0[1], pc 2, indices (2, 0): in the left log, not in the right")
    found = first_difference(log_of(*BASE[:3]), log_of(*BASE))
    assert str(found) == (
        "chip0.dma0[1], pc 2, indices (2, 0): in the right log, not in the left")


def test_queues_are_compared_by_name():
    swapped = log_of(*((1 - q, *rest) for q, *rest in BASE), queues=("chip0.dma0", "chip0.array0"))
    assert first_difference(log_of(*BASE), swapped) is None
