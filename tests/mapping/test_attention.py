"""The search for an attention kernel's blocks goes by an estimate; the simulator judges it."""

import dataclasses
import random

import pytest

from archsim.engine.simulate import simulate
from machine.load import read_machine
from mapping import attention
from mapping.attention_blocks import candidates, find_blocks
from mapping.families import model_of
from mapping.formats import parse_formats
from mapping.transformer import map_model
from mapping.workload import decode, prefill

LLAMA = {
    "model_type": "llama", "hidden_size": 512, "intermediate_size": 512, "num_hidden_layers": 1,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 100,
    "hidden_act": "silu", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}
SMALL = ["scratchpad.bytes=262144", "accumulator.bytes=131072"]


def simulated_ticks(monkeypatch, phase, choose):
    """Return the ticks of the attention of one layer whose blocks `choose` picks."""
    with monkeypatch.context() as patch:
        patch.setattr(attention, "find_blocks", choose)
        mapped = map_model(model_of(LLAMA, name="toy"), phase, machine(), parse_formats("W8A8KV8"))
    result = simulate(mapped.program, machine(), mapped.launch())
    wanted = mapped.program.ops.index("attention")
    return sum(op.charged for op in result.operations if op.op == wanted)


def machine():
    return read_machine("npu-hbm2", SMALL)


@pytest.mark.parametrize("phase", [prefill(1, 96), prefill(1, 600), decode(2, 700)])
def test_the_blocks_chosen_are_nearly_the_fastest(monkeypatch, phase):
    """Of a sample of all that fit, none is faster by more than a quarter (fixed beforehand)."""
    fitting = []

    def note(plan, kernel):
        fitting[:] = dict.fromkeys(candidates(plan, kernel))
        return find_blocks(plan, kernel)

    chosen = simulated_ticks(monkeypatch, phase, note)
    sample = random.Random(0).sample(fitting, min(len(fitting), 20))
    tried = {n: simulated_ticks(monkeypatch, phase, lambda plan, kernel, n=n: n) for n in sample}
    assert len(tried) >= 12
    assert chosen <= 1.25 * min(tried.values()), {
        str(dataclasses.astuple(n)): ticks for n, ticks in tried.items()}
