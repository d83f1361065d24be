"""Elements as parameters: what fits an array, what it costs, and what is refused with a number."""

from fractions import Fraction

import pytest

from machine.formats import FORMATS, Kind
from machine.group import GroupConfig
from machine.pe import PE_KINDS, PeConfig, limits
from machine.systolic import SystolicConfig, matmul_tiles, signed_bits

FOLDED = ("fidelity must be rtl for elements of more than one product or step a beat, "
          "not 'peer:scale-sim'")


def fails(call, sentence: str) -> None:
    """Hold `call` to raise ``ValueError`` with exactly `sentence` in its text."""
    with pytest.raises(ValueError) as caught:
        call()
    lines = [line.strip().removeprefix("Value error, ").split(" [type=")[0]
             for line in str(caught.value).splitlines()]
    assert sentence in lines


@pytest.mark.parametrize("change, sentence", [
    ({"depth_cycles": 0}, "depth_cycles must be from 1 to 5, not 0"),
    ({"depth_cycles": 6}, "depth_cycles must be from 1 to 5, not 6"),
    ({"add_cycles": 0}, "add_cycles must be from 1 to 64, not 0"),
    ({"add_cycles": 3, "partial_sums": 4},
     "partial_sums must be from 1 to the 3 add_cycles, not 4"),
    ({"partial_sums": 2}, "partial_sums must be from 1 to the 1 add_cycles, not 2"),
    ({"k_lanes": 0}, "k_lanes must be from 1 to 256, not 0"),
    ({"kind": "bit_serial", "k_lanes": 2}, "k_lanes must be 1 for bit_serial, not 2"),
    ({"a_format": "float16"}, "a_format must be of kind integer for int_mac, not 'float16'"),
    ({"kind": "ternary", "w_format": "int2"},
     "w_format must be of kind ternary for ternary, not 'int2'"),
    ({"kind": "bipolar", "a_format": "int2"},
     "a_format must be of kind bipolar for bipolar, not 'int2'"),
    ({"kind": "qoq", "w_format": "mxfp4"}, "w_format must be 'qoq_w4' for qoq, not 'mxfp4'"),
    ({"acc_format": "float32"},
     "acc_format must be '' (signed integers of acc_bits) for int_mac, not 'float32'"),
])
def test_rejects_an_element_with_its_reason(change, sentence):
    fails(lambda: PeConfig(**change), sentence)


def test_rejects_an_unknown_format_with_the_nearest():
    with pytest.raises(ValueError, match="a_format: format must be one of .*did you mean 'uint8'"):
        PeConfig(a_format="unt8")


@pytest.mark.parametrize("pe, change, sentence", [
    ({"a_format": "uint4"}, {}, "a_bits must be 4, the bits of uint4, not 8"),
    ({"kind": "ternary"}, {}, "w_bits must be 2, not 8"),
    ({"kind": "shift"}, {"w_bits": 5}, "w_bits must be from 2 to 4, not 5"),
    ({"kind": "mixpe"}, {"w_bits": 9}, "w_bits must be from 1 to 8, not 9"),
    ({"kind": "bipolar"}, {"a_bits": 9}, "a_bits must be from 1 to 8, not 9"),
    ({"kind": "qoq"}, {"w_bits": 4}, "w_bits must be 8, not 4"),
    ({"add_cycles": 4}, {}, "dataflows must be ('os',) for an adder of 4 cycles, not ('os', 'ws')"),
    ({"k_lanes": 2}, {"fidelity": "peer:scale-sim"}, FOLDED),
    ({"kind": "bit_serial"}, {"fidelity": "peer:scale-sim"}, FOLDED),
    # 4 rows of 8 lanes: 32 * 128 * 128 = 2^19 needs a sign and 20 bits.
    ({"k_lanes": 8}, {"acc_bits": 20},
     "acc_bits must be from 21 (for 32 products of int8 by int8) to 64, not 20"),
    # 4 * 255 * 15 = 15300 < 2^14
    ({"kind": "mixpe", "a_format": "uint8", "w_format": "uint4"}, {"w_bits": 4, "acc_bits": 14},
     "acc_bits must be from 15 (for 4 products of uint8 by uint4) to 64, not 14"),
    # 4 * 16 * 3 * 1 = 192 < 2^8
    ({"kind": "bipolar", "k_lanes": 16}, {"a_bits": 2, "w_bits": 1, "acc_bits": 8},
     "acc_bits must be from 9 (for 64 products of bipolar2 by bipolar1) to 64, not 8"),
    # 4 * -128 * 2^7 = -2^16, and 2^16 with the other sign
    ({"kind": "shift"}, {"w_bits": 4, "acc_bits": 17},
     "acc_bits must be from 18 (for 4 products of int8 by shift4) to 64, not 17"),
    # 4 * -128 * 1 = -512, and 512 with the other sign
    ({"kind": "ternary"}, {"w_bits": 2, "acc_bits": 10},
     "acc_bits must be from 11 (for 4 products of int8 by ternary) to 64, not 10"),
    # int1 is 0 or -1: 4 * -1 * -1
    ({}, {"a_bits": 1, "w_bits": 1, "acc_bits": 3},
     "acc_bits must be from 4 (for 4 products of int1 by int1) to 64, not 3"),
    # 4 * 1 * -1 = -4 fits 3 bits
    ({"a_format": "uint1"}, {"a_bits": 1, "w_bits": 1, "acc_bits": 2},
     "acc_bits must be from 3 (for 4 products of uint1 by int1) to 64, not 2"),
])
def test_rejects_an_array_that_its_element_does_not_fit(pe, change, sentence):
    fails(lambda: SystolicConfig(rows=4, cols=2, pe=PeConfig(**pe), **change), sentence)
    if sentence.startswith("acc_bits"):
        least = int(sentence.split("from ")[1].split()[0])
        assert SystolicConfig(rows=4, cols=2, pe=PeConfig(**pe), **{**change, "acc_bits": least})


@pytest.mark.parametrize("low, high, bits", [
    (0, 0, 1), (-1, 0, 1), (0, 1, 2), (-2, 1, 2), (-3, 1, 3), (-4, 3, 3), (0, 4, 4), (-5, -5, 4),
])
def test_signed_bits_are_the_fewest_that_hold_both_ends(low, high, bits):
    assert signed_bits(low, high) == bits
    assert -(1 << bits - 1) <= low and high < 1 << bits - 1
    half = 1 << bits - 1 >> 1
    assert bits == 1 or not (-half <= low and high < half)


@pytest.mark.parametrize("name, low, high", [
    ("int1", -1, 0), ("uint1", 0, 1), ("int8", -128, 127), ("uint16", 0, 65535),
    ("bipolar3", -7, 7), ("ternary", -1, 1), ("shift4", -128, 128), ("shift2", -2, 2),
])
def test_limits_are_the_ends_of_the_format(name, low, high):
    assert limits(FORMATS[name]) == (low, high)


def test_every_kind_of_integers_has_an_array_with_nothing_but_its_name_and_bits():
    bits = {"ternary": (8, 2), "shift": (8, 4), "bipolar": (2, 2)}
    for kind in (kind for kind in PE_KINDS if kind not in ("float_mac", "float_shift_add", "mx")):
        a_bits, w_bits = bits.get(kind, (8, 8))
        cfg = SystolicConfig(rows=2, cols=2, a_bits=a_bits, w_bits=w_bits, pe=PeConfig(kind=kind))
        assert cfg.act_format.kind in PE_KINDS[kind].act_kinds
        assert cfg.weight_format.kind in PE_KINDS[kind].weight_kinds
    assert cfg.weight_format.kind is Kind.BLOCK and cfg.operand_format.name == "int8"


@pytest.mark.parametrize("pe, w_bits, depth, interval, merge", [
    ({}, 8, 1, 1, 0),
    ({"depth_cycles": 3}, 8, 3, 1, 0),
    ({"depth_cycles": 5}, 8, 5, 1, 0),
    ({"kind": "bit_serial"}, 5, 5, 5, 0),
    ({"kind": "bit_serial", "depth_cycles": 2}, 5, 6, 5, 0),
    ({"kind": "bit_serial", "depth_cycles": 4}, 5, 8, 5, 0),
    ({"kind": "bit_serial"}, 1, 1, 1, 0),
    ({"add_cycles": 4}, 8, 4, 4, 0),
    ({"add_cycles": 4, "partial_sums": 4}, 8, 4, 1, 12),
    ({"add_cycles": 5, "partial_sums": 3, "depth_cycles": 2}, 8, 6, 2, 10),
    ({"kind": "bit_serial", "add_cycles": 9, "partial_sums": 2}, 3, 11, 5, 9),
])
def test_times_of_an_element(pe, w_bits, depth, interval, merge):
    cfg = SystolicConfig(rows=3, cols=4, w_bits=w_bits, dataflows=("os",), pe=PeConfig(**pe))
    assert (cfg.depth_cycles, cfg.initiation_interval_cycles) == (depth, interval)
    assert cfg.pe.merge_cycles == merge
    assert cfg.latency_cycles == 3 + 4 + depth
    assert cfg.macs_per_cycle == Fraction(12, interval)
    # By the formula, from the last pair of a tile: k intervals, or the merge and the rows in front.
    after = max(interval, merge + 1)
    assert cfg.os_tile_cycles(1, 1) == after
    assert cfg.os_tile_cycles(10, 1) == max(after + 9 * interval, merge + 1)
    assert cfg.os_tile_cycles(1, 3) == max(after, merge + 3)


def test_lanes_count_in_beats_and_words():
    cfg = SystolicConfig(rows=4, cols=3, a_bits=2, w_bits=1,
                         pe=PeConfig(kind="bipolar", k_lanes=8))
    assert (cfg.act_beat_bits, cfg.weight_beat_bits) == (4 * 8 * 2, 3 * 8)
    assert cfg.act_port_bits == 8 * 2 + 1
    assert cfg.macs_per_cycle == 4 * 3 * 8
    assert [cfg.k_beats(k) for k in (1, 8, 9, 16)] == [1, 1, 2, 2]
    works = list(matmul_tiles(cfg, 5, 3, 40, "ws"))
    assert [(work.tile.k, work.k_from) for work in works] == [(4, 0), (1, 32)]


def test_a_format_without_zero_fills_its_lanes():
    pe = PeConfig(kind="bipolar", k_lanes=8)
    cfg = SystolicConfig(rows=4, cols=3, a_bits=2, w_bits=2, pe=pe)
    fails(lambda: list(matmul_tiles(cfg, 1, 1, 20, "os")),
          "k must be a multiple of 8: bipolar2 has no zero, not 20")
    whole = SystolicConfig(rows=4, cols=3, pe=PeConfig(k_lanes=8))
    assert [work.tile.k for work in matmul_tiles(whole, 1, 1, 20, "os")] == [3]


@pytest.mark.parametrize("change, sentence", [
    ({"cols": 0}, "cols must be at least 1, not 0"),
    ({"group": 0}, "group must be from 1 to 65536, not 0"),
    ({"a_bits": 17}, "a_bits must be from 1 to 16, not 17"),
    ({"w_bits": 9}, "w_bits must be from 1 to 8, not 9"),
    # 128 * 128 * 15 = 245760 < 2^18
    ({"acc_bits": 18},
     "acc_bits must be from 19 (for 128 products of int8 by uint4) to 64, not 18"),
])
def test_rejects_a_group_stage_with_its_reason(change, sentence):
    fails(lambda: GroupConfig(**{"cols": 2, **change}), sentence)


def test_a_group_stage_has_room_for_the_sum_of_its_activations():
    assert GroupConfig(cols=1).act_sum_bits == 8 + 7
    assert GroupConfig(cols=1, group=100).act_sum_bits == signed_bits(-12800, 12700)
