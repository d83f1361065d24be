"""The processing element, step by step."""

from dataclasses import replace

import pytest
from amaranth.hdl import Fragment, Shape
from amaranth.sim import Simulator

from hw.pe import CONTROL, Element
from hw.pe_kinds import Apart, multiplier
from machine.pe import PeConfig
from machine.systolic import SystolicConfig


def steps(depth: int, inputs: list[dict[str, int]]) -> list[dict[str, int]]:
    """Give an element one set of inputs a step; return its outputs after each."""
    return steps_of(SystolicConfig(rows=2, cols=2, pe=PeConfig(depth_cycles=depth)), inputs)


def steps_of(cfg: SystolicConfig, inputs: list[dict[str, int]]) -> list[dict[str, int]]:
    dut = Element(cfg)
    seen = []

    async def bench(ctx):
        ctx.set(dut.en, 1)
        for step in inputs:
            control = {field: step.get(field, 0) for field, _ in CONTROL}
            ctx.set(dut.control, CONTROL.const(control).as_value())
            for port in ("act", "weight", "sum", "en"):
                ctx.set(getattr(dut, port), step.get(port, int(port == "en")))
            await ctx.tick()
            seen.append({port: ctx.get(getattr(dut, f"next_{port}"))
                         for port in ("act", "weight", "sum", "control")})

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return seen


@pytest.mark.parametrize("depth", [1, 2])
def test_ws_takes_up_the_preloaded_weight_and_adds_to_the_sum_from_above(depth):
    seen = steps(depth, [
        {"load": 1, "weight": 0xFD},  # -3
        {"mac": 1, "first": 1, "act": 5, "sum": 100, "load": 1, "weight": 9},
        {"mac": 1, "act": 0xFE, "sum": 100},  # -2, still by -3
        {"mac": 1, "first": 1, "act": 1, "sum": 100},  # by 9
        {"sum": 100},
    ])
    assert [step["sum"] for step in seen[depth : depth + 3]] == [85, 106, 109]
    assert [step["weight"] for step in seen[:3]] == [0xFD, 9, 9]
    assert [step["act"] for step in seen[1:4]] == [5, 0xFE, 1]


@pytest.mark.parametrize("depth", [1, 2])
def test_os_adds_up_and_moves_the_sum_after_the_last_pair(depth):
    pair = {"mac": 1, "os": 1, "load": 1}
    seen = steps(depth, [
        {**pair, "first": 1, "act": 3, "weight": 4},
        {**pair, "act": 0xFF, "weight": 2},  # -1
        {**pair, "last": 1, "act": 10, "weight": 10},
        {"hold": 1, "sum": 7},
        {"sum": 7},
        {"sum": 8},
        {},
    ])
    assert seen[1 + depth]["sum"] == 12 - 2 + 100
    assert seen[2 + depth]["sum"] == 110, "held"
    assert seen[3 + depth]["sum"] == 7 + (depth - 1), "shifted down"


def test_os_restarts_with_the_first_pair_of_the_next_tile():
    pair = {"mac": 1, "os": 1, "first": 1, "last": 1}
    seen = steps(1, [{**pair, "act": 3, "weight": 4}, {**pair, "act": 5, "weight": 6}])
    assert [step["sum"] for step in seen] == [12, 30]


@pytest.mark.parametrize("depth", [1, 2])
def test_nothing_changes_without_a_step(depth):
    work = {"mac": 1, "first": 1, "load": 1, "act": 3, "weight": 4, "sum": 9}
    other = {**work, "act": 8, "weight": 7, "sum": 1}
    seen = steps(depth, [work, work, work, {**other, "en": 0}, other])
    assert seen[3] == seen[2] and seen[2]["sum"] == 9 + 3 * 4
    assert seen[4]["weight"] == 7 and seen[4]["act"] == 8, "the next step goes on"


def test_activations_that_do_not_count_leave_the_sum_though_they_have_no_zero():
    cfg = SystolicConfig(rows=2, cols=2, a_bits=1, w_bits=1, acc_bits=8,
                         pe=PeConfig(kind="bipolar", k_lanes=3))
    counted = 0b1000  # the bit above the lanes
    beat = {"mac": 1, "first": 1, "sum": 50}
    seen = steps_of(cfg, [
        {"load": 1, "weight": 0b101},  # 1, -1, 1
        {**beat, "act": 0b101},
        {**beat, "act": 0b101 | counted},  # all equal
        {**beat, "act": 0b000 | counted},  # -1, -1, -1
    ])
    assert [step["sum"] for step in seen[1:]] == [50, 53, 49]


def test_a_serial_element_takes_a_bit_a_step():
    cfg = SystolicConfig(rows=2, cols=2, a_bits=8, w_bits=3, pe=PeConfig(kind="bit_serial"))
    idle = {"act": 77, "weight": 7}
    seen = steps_of(cfg, [
        {"load": 1, "weight": 0b101},  # -3
        {"mac": 1, "first": 1, "act": 10},
        idle,
        {**idle, "sum": 100},  # of the control two steps ago
        {"sum": 7},
    ])
    assert [step["sum"] for step in seen[2:]] == [0, 70, 7]


DEEP = [  # kind, bits of activation and weight, formats where they are named, accumulator
    ("int_mac", 8, 8, {}), ("mixpe", 8, 4, {}), ("shift", 8, 4, {}), ("ternary", 8, 2, {}),
    ("bipolar", 3, 2, {}), ("bit_serial", 8, 4, {}),
    ("float_mac", 16, 16, {"a_format": "float16", "w_format": "float16", "acc_format": "float32"}),
    ("float_mac", 8, 8, {"a_format": "float8_e4m3fn", "w_format": "float8_e4m3fn",
                         "acc_format": "kulisch"}),
    ("float_shift_add", 16, 4, {"a_format": "float16", "w_format": "int4",
                                "acc_format": "float32"}),
    ("mx", 8, 4, {"a_format": "mxfp8_e4m3", "w_format": "mxfp4", "acc_format": "float32",
                  "k_lanes": 2}),
]


@pytest.mark.parametrize("kind, a_bits, w_bits, more", DEEP)
def test_registers_apart_give_what_the_multiplier_between_them_gives(kind, a_bits, w_bits, more):
    cfg = SystolicConfig(rows=1, cols=1, a_bits=a_bits, w_bits=w_bits, acc_bits=42 if
                         more.get("acc_format") == "kulisch" else 32, dataflows=("os",),
                         pe=PeConfig(kind=kind, depth_cycles=5, **more))
    apart, inner = Apart(cfg), multiplier(replace(cfg, pe=replace(cfg.pe, depth_cycles=3)))
    for component in (apart, inner):
        Fragment.get(component, None)  # elaborated, or Amaranth warns
    assert Shape.cast(apart.o.shape()) == Shape.cast(inner.o.shape())
