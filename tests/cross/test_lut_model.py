"""A decoder whose weights are looked up computes the model whose weights are the codes'."""

import numpy as np
import pytest

from archsim.bound import bound
from archsim.engine.simulate import simulate
from archsim.parameters import program_tensors
from golden.execute import execute
from machine.load import read_machine
from machine.opcodes import Dataflow, Opcode
from machine.verify import verify
from mapping.families import model_of
from mapping.fit import DoesNotFit
from mapping.formats import parse_formats
from mapping.parameters import parameters
from mapping.transformer import map_model
from mapping.workload import decode, prefill

CONFIG = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "hidden_act": "silu",
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
# Buffers so small that every product has several blocks of rows, of columns and of K.
SMALL = ("tables.bytes=16384", "arrays.1.m=4", "arrays.1.n=16", "arrays.1.count=2",
         "arrays.0.count=2", "scratchpad.bytes=16384", "scratchpad.word_bytes=64",
         "scratchpad.ports.0.count=4", "accumulator.ports.0.count=4")


def toy():
    return model_of(CONFIG, name="toy")


def random_parameters(model):
    rng, found = np.random.default_rng(3), {}
    for p in parameters(model):
        shape = ((p.copies,) if p.name.startswith("layer.") else ()) + p.shape
        size = 1.0 if p.name.startswith("embed") else p.shape[-1] ** -0.5
        found[p.name] = rng.normal(1.0 if "norm" in p.name else 0.0,
                                   0.1 if "norm" in p.name else size, shape)
    return found


def as_codes(given, bits):
    """Every matrix with each output's weights at the nearest odd multiple of its step."""
    made = dict(given)
    for name, w in given.items():
        if w.ndim > 1 and "norm" not in name and not name.startswith("embed"):
            most = 2**bits - 1
            step = np.abs(w).max(-1, keepdims=True) / most
            levels = np.arange(-most, most + 1, 2)
            made[name] = levels[np.abs(w[..., None] / step[..., None] - levels).argmin(-1)] * step
    return made


def mapped_on(model, phase, machine, formats):
    found = map_model(model, phase, machine, parse_formats(formats))
    assert not isinstance(found, DoesNotFit), found.sentence
    return found


def logits_of(model, phase, machine, formats, given, ids):
    mapped = mapped_on(model, phase, machine, formats)
    launch = mapped.launch(tuple(ids.reshape(-1).tolist()))
    assert not verify(mapped.program, launch, machine)
    found = execute(mapped.program, program_tensors(mapped, given), launch)
    return found.tensors["logits"].astype(np.float64)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("settings", [(), SMALL], ids=["whole", "small"])
def test_looked_up_weights_give_the_logits_of_their_codes(settings, bits):
    """Beside the same program in floats on the weights that the codes stand for."""
    model, phase = toy(), prefill(2, 11)
    given, machine = random_parameters(model), read_machine("npu-lut-hbm2", settings)
    ids = np.random.default_rng(1).integers(0, model.vocab, (2, 11))
    got = logits_of(model, phase, machine, f"W{bits}A8KV8", given, ids)
    want = logits_of(model, phase, read_machine("npu-hbm2"), "W16A16KV16", as_codes(given, bits),
                     ids)
    cosine = (got * want).sum(-1) / np.sqrt((got**2).sum(-1) * (want**2).sum(-1))
    assert cosine.min() >= 0.99, cosine


def test_the_small_machine_cuts_products_in_every_direction():
    mapped = mapped_on(toy(), prefill(2, 11), read_machine("npu-lut-hbm2", SMALL), "W4A8KV8")
    sizes = {"qkv": (22, 128, 64), "out": (22, 64, 64), "up": (22, 320, 64),
             "down": (22, 64, 160)}
    blocks = [[-(-size // step) for size, step in zip(sizes[name], (t.m, t.n, t.k), strict=True)]
              for name, t in mapped.tilings if name in sizes]
    assert all(max(found) > 1 for found in zip(*blocks, strict=True)), blocks
    assert any(t.table_rows < t.m for _, t in mapped.tilings), mapped.tilings


def dataflows(mapped):
    """Which dataflow the MATMULs of each operator have."""
    found = {}
    for stream in mapped.program.streams:
        for instruction in stream.instructions:
            if instruction.opcode == Opcode.MATMUL:
                op = mapped.program.ops[instruction.op_id]
                found.setdefault(op, set()).add(Dataflow(instruction.fields["dataflow"]))
    return found


def test_weights_are_looked_up_and_keys_multiplied():
    machine = read_machine("npu-lut-hbm2")
    found = dataflows(mapped_on(toy(), decode(2, 9), machine, "W4A8KV8"))
    assert found.pop("attention") == {Dataflow.WS}
    assert found.keys() == {"qkv", "out", "up", "down", "lm_head"}
    assert all(flows == {Dataflow.LUT} for flows in found.values())


@pytest.mark.parametrize("formats, settings", [
    ("W8A8KV8", ()), ("W16A16KV16", ()), ("W4A8KV8", ("arrays.1.w_bits=3",)),
    ("W4A8KV8", ("arrays.1.tables.format='int8'",))])
def test_what_the_lookup_array_does_not_take_exactly_is_multiplied(formats, settings):
    mapped = mapped_on(toy(), decode(2, 9), read_machine("npu-lut-hbm2", settings), formats)
    assert all(flows == {Dataflow.WS} for flows in dataflows(mapped).values())


def test_tables_that_do_not_fit_name_the_memory_that_would_do():
    """Two slots of one row of 160 activations: 40 tables of 8 sums of 16 bits."""
    settings = [each for each in SMALL if "tables" not in each]
    phase, formats = decode(1, 9), parse_formats("W2A8KV8")
    found = map_model(toy(), phase, read_machine("npu-lut-hbm2", [*settings, "tables.bytes=640"]),
                      formats)
    assert isinstance(found, DoesNotFit)
    assert (found.resource, found.demand, found.bound) == ("tables.bytes", 2 * 40 * 8 * 2, 640)
    lever = found.levers[0].removeprefix("--set ")
    mapped_on(toy(), phase, read_machine("npu-lut-hbm2", [*settings, lever]), "W2A8KV8")


def test_a_simulated_step_takes_at_least_its_bound_and_less_with_fewer_bits():
    machine, times = read_machine("npu-lut-hbm2"), {}
    for bits in (2, 4):
        mapped = mapped_on(toy(), decode(4, 33), machine, f"W{bits}A8KV8")
        result = simulate(mapped.program, machine, mapped.launch())
        times[bits] = result.ticks
        assert result.ticks >= bound(mapped.program, machine, mapped.launch()).ticks
    assert times[2] < times[4]
