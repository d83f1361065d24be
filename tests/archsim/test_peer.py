"""A machine whose arrays declare ``peer:scale-sim`` is timed as SCALE-Sim times it."""

import pytest

from archsim.engine.simulate import simulate
from machine.assembly import parse
from machine.errors import UserError
from machine.load import read_machine

PROGRAM = """program one version 1
needs systolic
chips 1
operand a scratchpad 0x0000 int8 [{m},{k}] stride [{k},1]
operand w scratchpad 0x4000 int8 [{k},{n}] stride [{n},1]
operand c accumulator 0x0000 int32 [{m},{n}] stride [{n},1]
stream chip0.array0
  matmul a=a acc=c w=w dataflow={flow}
  matmul a=a acc=c w=w dataflow={flow}
  halt
"""

# M, N, K, dataflow -> compute cycles of the published table, 8x8 array (scalesim 3.0.0).
TABLE = [
    (1, 1, 1, "os", 14), (37, 53, 71, "os", 2974), (5, 64, 768, "os", 6255),
    (1, 1, 1, "ws", 22), (37, 53, 71, "ws", 3716),
]


def machine(fidelity: str):
    wide = ["scratchpad.bytes=131072", "scratchpad.word_bytes=512", "accumulator.word_bytes=512"]
    return read_machine("tiny", [f"arrays.0.fidelity='{fidelity}'", *wide])


def lengths(fidelity: str, m: int, n: int, k: int, flow: str) -> list[int]:
    """Cycles from start to completion of two equal products, one after the other."""
    text = PROGRAM.format(m=m, n=n, k=k, flow=flow)
    log = simulate(parse(text), machine(fidelity)).log.of("chip0.array0")
    first, second = (e for e in log if e.pc < 2)
    return [first.completion - first.start, second.completion - first.completion]


@pytest.mark.parametrize("m, n, k, flow, cycles", TABLE)
def test_a_product_takes_scale_sims_cycles_and_the_next_one_waits(m, n, k, flow, cycles):
    assert lengths("peer:scale-sim", m, n, k, flow) == [cycles + 1, cycles + 1]


def test_our_own_array_overlaps_what_scale_sim_does_not():
    ours, theirs = (lengths(f, 37, 53, 71, "ws") for f in ("rtl", "peer:scale-sim"))
    assert sum(ours) < sum(theirs)


def test_the_run_says_which_timing_it_used():
    assert machine("peer:scale-sim").fidelities["arrays.0"] == "peer:scale-sim"
    with pytest.raises(UserError, match="fidelity"):
        machine("peer:scalesim")


def test_weights_loaded_beforehand_are_refused():
    matmul = "  matmul a=a acc=c w=w dataflow=ws\n"
    text = PROGRAM.format(m=4, n=4, k=4, flow="ws").replace(
        2 * matmul, "  preload w=w\n" + matmul.replace(" w=w", ""))
    with pytest.raises(UserError, match="peer:scale-sim knows no weights loaded beforehand"):
        simulate(parse(text), machine("peer:scale-sim"))
