"""The order in which an array adds floats, as the fields of a MATMUL."""

import pytest

from machine.assembly import parse
from machine.faults import FaultKind
from machine.formats import FORMATS
from machine.k_order import Order, array_order, same_sums
from machine.opcodes import Dataflow, KOrder
from machine.pe import PeConfig
from machine.systolic import MAX_LENGTH, SystolicConfig
from machine.verify import verify

OS, WS = Dataflow.OS, Dataflow.WS
HEAD = """program test version 1
symbol A dram 0x0 float16 [2,4] input
operand a scratchpad 0x0 float16 [2,4] stride [4,1]
operand w scratchpad 0x40 float16 [4,2] stride [2,1]
operand acc accumulator 0x0 float32 [2,2] stride [2,1]
stream chip0.array0
  matmul a=a w=w acc=acc {fields}
  halt
"""


def floats(acc: str = "float32", dataflows=("os", "ws"), **pe) -> SystolicConfig:
    return SystolicConfig(
        rows=5, cols=2, a_bits=16, w_bits=16, acc_bits=FORMATS[acc].bits, dataflows=dataflows,
        pe=PeConfig(kind="float_mac", a_format="float16", w_format="float16", acc_format=acc, **pe))


def test_an_array_names_its_rows_or_its_partial_sums():
    assert array_order(floats(), WS) == Order(KOrder.DESCENDING, 5)
    assert array_order(floats(), OS) == Order(KOrder.INTERLEAVED, 1)
    interleaved = floats(dataflows=("os",), add_cycles=3, partial_sums=2)
    assert array_order(interleaved, OS) == Order(KOrder.INTERLEAVED, 2)
    assert array_order(SystolicConfig(rows=5, cols=2), WS) == Order(KOrder.SEQUENTIAL, 0)
    blocks = SystolicConfig(rows=2, cols=1, pe=PeConfig(
        kind="mx", a_format="mxint8", w_format="mxint8", acc_format="float32", k_lanes=2))
    assert array_order(blocks, WS) is None


@pytest.mark.parametrize("flow, order, k, sets, same", [
    (WS, Order(KOrder.DESCENDING, 5), 99, False, True),
    (WS, Order(KOrder.DESCENDING, 4), 99, False, False),
    (WS, Order(KOrder.SEQUENTIAL, 0), 99, True, False),
    (OS, Order(KOrder.INTERLEAVED, 1), MAX_LENGTH, False, True),
    (OS, Order(KOrder.INTERLEAVED, 1), MAX_LENGTH + 1, False, False),
    (OS, Order(KOrder.SEQUENTIAL, 0), 99, True, True),
    (OS, Order(KOrder.SEQUENTIAL, 0), 99, False, False),
])
def test_sums_are_the_same_only_in_the_array_s_own_order(flow, order, k, sets, same):
    assert same_sums(floats(), flow, order, k, sets=sets) is same


@pytest.mark.parametrize("fields, message", [
    ("k_order=descending", "k_size must be at least 1 for descending, not 0"),
    ("k_order=interleaved", "k_size must be at least 1 for interleaved, not 0"),
    ("k_size=3", "k_size must be 0 for sequential, not 3"),
    ("k_order=descending k_size=2 tables=1",
     "k_order must be sequential for tables, not descending"),
])
def test_the_verifier_refuses_an_order_without_meaning(fields, message):
    faults = verify(parse(HEAD.format(fields=fields)))
    assert (FaultKind.FIELD, True) in {(f.kind, message in f.message) for f in faults}


def test_the_verifier_accepts_each_order():
    for fields in ("", "k_order=descending k_size=2", "k_order=interleaved k_size=9"):
        assert FaultKind.FIELD not in {f.kind for f in verify(parse(HEAD.format(fields=fields)))}
