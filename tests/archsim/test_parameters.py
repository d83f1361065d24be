"""A checkpoint's parameters become the constants a program asks for."""

import json
from dataclasses import replace

import numpy as np
import pytest

from archsim.parameters import program_tensors, read_parameters
from machine.errors import UserError
from machine.load import read_machine
from mapping.families import model_of, read_model
from mapping.formats import parse_formats
from mapping.parameters import parameters
from mapping.transformer import map_model
from mapping.workload import decode

LLAMA = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 20, "hidden_act": "silu",
    "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
}
GPT2 = {
    "model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 2, "n_positions": 8,
    "vocab_size": 11, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
}


def write_checkpoint(path, tensors, dtype="F32"):
    """Write a safetensors file: 8 bytes of length, a JSON header, the data."""
    header, data = {}, b""
    for name, values in tensors.items():
        raw = values.astype("<f4")
        if dtype == "BF16":
            raw = (raw.view("<u4") >> 16).astype("<u2")
        elif dtype != "F32":
            raw = values.astype({"F16": "<f2", "I8": "<i1"}[dtype])
        raw = raw.tobytes()
        header[name] = {"dtype": dtype, "shape": list(values.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def gpt2_tensors(rng):
    """GPT-2's own names; its Conv1D matrices are [inputs, outputs], q, k and v in one."""
    def draw(*shape):
        return rng.integers(-8, 9, shape).astype(np.float32)

    found = {"wte.weight": draw(11, 8), "wpe.weight": draw(8, 8), "ln_f.weight": draw(8),
             "ln_f.bias": draw(8)}
    for layer in range(2):
        for name, shape in (("ln_1", (8,)), ("ln_2", (8,)), ("attn.c_attn", (8, 24)),
                            ("attn.c_proj", (8, 8)), ("mlp.c_fc", (8, 32)),
                            ("mlp.c_proj", (32, 8))):
            found[f"h.{layer}.{name}.weight"] = draw(*shape)
            found[f"h.{layer}.{name}.bias"] = draw(shape[-1])
    return found


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_gpt2_is_split_and_turned(tmp_path, dtype):
    stored = gpt2_tensors(np.random.default_rng(0))
    path = write_checkpoint(tmp_path / "model.safetensors", stored, dtype)
    found = read_parameters(model_of(GPT2, name="toy"), path)
    assert sorted(found) == sorted(p.name for p in parameters(model_of(GPT2, name="toy")))
    assert all(values.dtype == np.float32 for values in found.values())
    for layer in range(2):
        fused = stored[f"h.{layer}.attn.c_attn.weight"]
        for i, part in enumerate("qkv"):
            np.testing.assert_array_equal(found[f"layer.{part}.weight"][layer],
                                          fused[:, 8 * i:8 * i + 8].T)
            np.testing.assert_array_equal(
                found[f"layer.{part}.bias"][layer],
                stored[f"h.{layer}.attn.c_attn.bias"][8 * i:8 * i + 8])
        np.testing.assert_array_equal(found["layer.down.weight"][layer],
                                      stored[f"h.{layer}.mlp.c_proj.weight"].T)
    np.testing.assert_array_equal(found["embed.token.weight"], stored["wte.weight"])


def test_rejects_parameters_stored_as_integers(tmp_path):
    stored = gpt2_tensors(np.random.default_rng(0))
    path = write_checkpoint(tmp_path / "model.safetensors", stored, "I8")
    with pytest.raises(UserError, match=r"model.safetensors: .*: dtype must be one of BF16, F16, "
                                        r"F32, F64, not 'I8'"):
        read_parameters(model_of(GPT2, name="toy"), path)


def toy(formats="W8A8KV8"):
    model = model_of(LLAMA, name="toy")
    rng = np.random.default_rng(1)
    given = {p.name: rng.normal(size=((p.copies,) if p.name.startswith("layer.") else ()) + p.shape
                                ).astype(np.float32) for p in parameters(model)}
    mapped = map_model(model, decode(1, 8), read_machine("tiny"), parse_formats(formats))
    return mapped, given, program_tensors(mapped, given)


def test_gate_and_up_stand_side_by_side_in_each_tile():
    mapped, given, tensors = toy("W16A16KV16")
    weight = next(w for w in mapped.weights if w.halves)
    k, n = weight.tile
    packed = tensors[weight.symbol.name]
    assert packed.shape == weight.symbol.shape
    for layer in range(2):
        for half, name in enumerate(("layer.gate.weight", "layer.up.weight")):
            source = given[name][layer].T
            for row, column in np.ndindex(source.shape):
                block, inside = divmod(column, n // 2)
                tile = packed[layer, block, row // k]
                assert tile[row % k, half * (n // 2) + inside] == source[row, column]


def test_codes_times_scales_are_the_weights_within_half_a_step():
    mapped, given, tensors = toy()
    weight = next(w for w in mapped.weights if w.sources == ("lm_head",))
    k, n = weight.tile
    codes, scales = tensors["lm_head.weight"], tensors["lm_head.scale"]
    source = given["lm_head.weight"].T
    for row, column in np.ndindex(source.shape):
        code = codes[column // n, row // k, row % k, column % n]
        assert abs(code * float(scales[column]) - source[row, column]) <= scales[column] * 0.5001


def test_names_the_parameter_that_is_missing():
    mapped, given, _ = toy()
    del given["layer.k.weight"]
    with pytest.raises(UserError, match="parameters must hold layer.k.weight"):
        program_tensors(mapped, given)


def stretched(kind):
    model = read_model("llama-3.2-1b")
    return replace(model, position=replace(
        model.position, scaling=replace(model.position.scaling, kind=kind)))


def test_refuses_data_for_a_rotation_that_is_not_the_programs():
    mapped = map_model(stretched("dynamic"), decode(1, 16), read_machine("npu-hbm2"),
                       parse_formats("W8A8KV8"))
    with pytest.raises(UserError) as caught:
        program_tensors(mapped, {})
    assert str(caught.value) == (
        "llama-3.2-1b: rope scaling must be linear or llama3 to run on data, not 'dynamic'")
