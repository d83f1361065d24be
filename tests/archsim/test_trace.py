"""The trace: one track a unit, slices that never overlap, the same bytes for the same run."""

import gzip
import json

import pytest

from archsim.output.trace import slices, trace, write_trace

TEXT = """program t version 1
needs systolic vector
chips 1
token full
token free 2
op product
op copy
operand far dram 0x0 int8 [8,8] stride [8,1]
operand w scratchpad 0x100 int8 [8,8] stride [8,1]
operand a scratchpad 0x0 int8 [8,8] stride [8,1]
operand acc accumulator 0x0 int32 [8,8] stride [8,1]
operand v scratchpad 0x800 float32 [4,16] stride [16,1]
stream chip0.dma0
  loop 12
    load src=far dst=w wait free:1 signal full:1 op=product layer=0+0
  end
  halt
stream chip0.array0
  loop 12
    matmul a=a w=w acc=acc dataflow=ws wait full:1 signal free:1 op=product layer=0+0
  end
  halt
stream chip0.vector0
  loop 6
    vector vop=copy x=v y=v units=0x1 op=copy
    vector vop=copy x=v y=v units=0x3 op=copy
  end
  halt
"""


@pytest.fixture(scope="module")
def result(run, machine):
    return run(TEXT, machine(vectors=2))


def events(found):
    return [event for event in found["traceEvents"] if event["ph"] == "X"]


@pytest.mark.parametrize("most", [10**6, 30, 5])
def test_slices_of_a_track_never_overlap(result, most):
    tracks = {}
    for event in events(trace(result, most=most)):
        tracks.setdefault(event["tid"], []).append((event["ts"], event["ts"] + event["dur"]))
    assert tracks
    for spans in tracks.values():
        spans.sort()
        for (_, end), (start, _) in zip(spans, spans[1:], strict=False):
            assert start >= end - 1e-9


def test_every_unit_has_a_named_track(result):
    names = {event["args"]["name"] for event in trace(result)["traceEvents"] if event["ph"] == "M"}
    assert {"chip0.array0", "chip0.vector0", "chip0.vector1", "chip0.dma0", "chip0.dma1"} <= names


def test_slices_cover_what_is_under_way_on_a_unit(result):
    for name, parts in result.parts.items():
        under_way = {t for row in parts.tolist() for t in range(row[0], row[-1])}
        covered = [t for start, end, *_ in slices(result, name).tolist()
                   for t in range(start, end)]
        assert len(covered) == len(set(covered))
        assert set(covered) == under_way


def test_slices_carry_operation_layer_and_time(result):
    # The first product: its LOAD starts at 2 and takes 33 cycles, the array starts at 37.
    array = [e for e in events(trace(result)) if e["name"] == "product" and e["args"]["pc"] == 1]
    first = min(array, key=lambda e: e["ts"])
    assert first["ts"] == pytest.approx(result.log.start[0] / 1000)  # microseconds
    assert {event["args"]["layer"] for event in array} == set(range(12))


def test_touching_slices_of_one_operation_are_one(result):
    # Unit 1 of the vectors works in every other instruction, unit 0 in all of them.
    busy, other = slices(result, "chip0.vector0"), slices(result, "chip0.vector1")
    assert busy[:, 3].sum() == 12 and len(busy) < 12
    assert other[:, 3].tolist() == [1] * 6


def test_a_long_trace_closes_gaps_then_cuts_and_says_so(result):
    everything = trace(result, most=10**6)
    assert everything["otherData"]["gap_closed_ticks"] == 0
    assert everything["otherData"]["slices_cut"] == 0
    count = len(events(everything))
    closed = trace(result, most=count - 1)
    assert closed["otherData"]["gap_closed_ticks"] > 0
    assert closed["otherData"]["slices_cut"] == 0
    assert len(events(closed)) < count
    cut = trace(result, most=3)
    assert len(events(cut)) == 3
    assert cut["otherData"]["slices_cut"] > 0


def test_the_file_is_the_same_for_the_same_run(result, tmp_path):
    for name in ("one", "other"):
        write_trace(result, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert json.loads(gzip.decompress((tmp_path / "one").read_bytes())) == json.loads(
        json.dumps(trace(result)))
