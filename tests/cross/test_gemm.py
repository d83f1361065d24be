"""Tiled products of any size: the edge rule, units and rings, in golden, verifier and simulator."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archsim.engine.simulate import simulate
from golden.execute import execute
from machine.assembly import parse
from machine.faults import FaultKind
from machine.load import read_machine
from machine.program import Launch
from machine.verify import verify

MACHINE = read_machine("npu-hbm2")
TEXT = """
program gemm version 1
needs systolic indirect
launch tiles_n
token free {ring}
token full
token acc_free 1
token done
symbol A dram 0x0 int8 [{m},{k}] input
symbol W dram 0x4000 int8 [{k},{n}] const
symbol C dram 0x8000 int32 [{m},{n}] output
operand a_dram dram 0x0 int8 [{tm},{tk}] stride [{k},1] loop 1:{a_row} 2:{tk} {a_edge}
operand w_dram dram 0x4000 int8 [{tk},{wide}] stride [{n},1] loop 0:{wide} 2:{w_row} {w_edge}
operand a scratchpad 0x0 int8 [{tm},{tk}] stride [{tk},1] base r2 {a_edge}
operand w_fill scratchpad 0x400 int8 [{tk},{wide}] stride [{wide},1] base r2 {w_edge}
operand w scratchpad 0x400 int8 [{tk},{tn}] stride [{wide},1] base r2 loop 7:{tn} {w_edge}-7*{tn}
operand c accumulator 0x0 int32 [{tm},{tn}] stride [{wide},1] loop 7:{tn} {c_edge}-7*{tn}
operand c_all accumulator 0x0 int32 [{tm},{wide}] stride [{wide},1] {c_edge}
operand c_dram dram 0x8000 int32 [{tm},{wide}] stride [{n},1] loop 0:{wide} 1:{c_row} {c_edge}
stream chip0.dma0
  r1 = launch tiles_n
  loop r1
    loop {tiles_m}
      loop {tiles_k}
        load src=a_dram dst=a wait free:1
        load src=w_dram dst=w_fill signal full:1
        r3 = add r2 2048
        r4 = lt r3 {end}
        r2 = mul r3 r4
      end
    end
  end
  halt
stream chip0.array0
  r1 = launch tiles_n
  loop r1
    loop {tiles_m}
      nop wait acc_free:1
      loop {tiles_k}
        matmul a=a w=w acc=c units={units} dataflow=ws set_level=2 wait full:1 signal free:1
        r3 = add r2 2048
        r4 = lt r3 {end}
        r2 = mul r3 r4
      end
      fence signal done:1
    end
  end
  halt
stream chip0.dma1
  r1 = launch tiles_n
  loop r1
    loop {tiles_m}
      store src=c_all dst=c_dram units=0x2 wait done:1 signal acc_free:1
    end
  end
  halt
"""


def gemm(m, n, k, tile, units, ring, free=None):
    """Return the program and launch table of C [m, n] = A [m, k] x W [k, n], tiles (m, n, k)."""
    tm, tn, tk = tile
    wide = units * tn
    rows, columns, depth = f"{m}-1*{tm}", f"{n}-0*{wide}", f"{k}-2*{tk}"
    text = TEXT.format(
        m=m, n=n, k=k, tm=tm, tn=tn, tk=tk, wide=wide, ring=free or ring, end=2048 * ring,
        units=hex(2**units - 1), a_row=tm * k, w_row=tk * n, c_row=tm * n,
        a_edge=f"edge 0:{rows} 1:{depth}", w_edge=f"edge 0:{depth} 1:{columns}",
        c_edge=f"edge 0:{rows} 1:{columns}", tiles_m=-(-m // tm), tiles_k=-(-k // tk))
    return parse(text), Launch({"tiles_n": -(-n // wide)})


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_tiling_of_any_product_is_sound_and_exact(data):
    m, n, k = (data.draw(st.integers(1, 40), label=name) for name in "mnk")
    tm, tn, tk = (data.draw(st.integers(1, 24), label=f"tile {name}") for name in "mnk")
    units, ring = data.draw(st.integers(1, 3), "units"), data.draw(st.integers(1, 3), "ring")
    tn = min(tn, 16)
    tk = min(tk, 1024 // (units * tn))  # a slot holds 1024 bytes of W
    program, launch = gemm(m, n, k, (tm, tn, tk), units, ring)
    assert verify(program, launch, MACHINE) == []
    rng = np.random.default_rng(data.draw(st.integers(0, 99), label="seed"))
    a, w = rng.integers(-128, 128, (m, k)), rng.integers(-128, 128, (k, n))
    result = execute(program, {"A": a, "W": w}, launch, log=True)
    np.testing.assert_array_equal(result.tensors["C"], a @ w)
    timed = simulate(program, MACHINE, launch)
    for stream in program.streams:
        queue = str(stream.queue)
        assert [(e.pc, e.indices) for e in timed.log.of(queue)] == [
            (e.pc, e.indices) for e in result.log if e.queue == queue]


@pytest.mark.parametrize("ring", [1, 2, 3])
def test_one_slot_too_many_in_the_count_is_a_race_that_the_verifier_finds(ring):
    depth = 4 * (2 * ring + 1)
    program, launch = gemm(4, 4, depth, (4, 4, 4), 1, ring)
    assert verify(program, launch, MACHINE) == []
    broken, launch = gemm(4, 4, depth, (4, 4, 4), 1, ring, free=ring + 1)
    assert FaultKind.RACE in {fault.kind for fault in verify(broken, launch, MACHINE)}
