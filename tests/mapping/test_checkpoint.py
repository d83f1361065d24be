"""Safetensors headers: read without the data, matched with a model's parameters, faults named."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from machine.errors import UserError
from mapping.checkpoint import bind, read_checkpoint
from mapping.families import FAMILIES, model_of, read_model
from mapping.parameters import parameter_count, parameters

GPT2 = model_of({
    "model_type": "gpt2", "activation_function": "gelu_new", "n_embd": 4, "n_head": 2,
    "n_layer": 2, "n_positions": 3, "layer_norm_epsilon": 1e-5, "vocab_size": 5,
}, name="tiny-gpt2")
BERT = model_of({
    "model_type": "bert", "hidden_act": "gelu", "hidden_size": 4, "intermediate_size": 8,
    "layer_norm_eps": 1e-12, "max_position_embeddings": 3, "num_attention_heads": 2,
    "num_hidden_layers": 1, "vocab_size": 5,
}, name="tiny-bert")


def gpt2_tensors():
    """The names and shapes of GPT2LMHeadModel's state, written out from its reference code."""
    shapes = {"wte.weight": (5, 4), "wpe.weight": (3, 4), "ln_f.weight": (4,), "ln_f.bias": (4,)}
    for layer in range(2):
        for name, shape in {
            "ln_1.weight": (4,), "ln_1.bias": (4,), "ln_2.weight": (4,), "ln_2.bias": (4,),
            "attn.c_attn.weight": (4, 12), "attn.c_attn.bias": (12,),
            "attn.c_proj.weight": (4, 4), "attn.c_proj.bias": (4,),
            "mlp.c_fc.weight": (4, 16), "mlp.c_fc.bias": (16,),
            "mlp.c_proj.weight": (16, 4), "mlp.c_proj.bias": (4,)}.items():
            shapes[f"h.{layer}.{name}"] = shape
    random = np.random.default_rng(1)
    return {name: random.random(shape, dtype=np.float32) for name, shape in shapes.items()}


def write(path, header, data=b""):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def refusal(path):
    with pytest.raises(UserError) as error:
        read_checkpoint(path)
    return str(error.value)


def test_offsets_point_at_the_bytes_the_library_wrote(tmp_path):
    tensors = gpt2_tensors()
    save_file(tensors, tmp_path / "model.safetensors")
    checkpoint = read_checkpoint(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    assert set(checkpoint.tensors) == set(tensors)
    for name, stored in checkpoint.tensors.items():
        data = np.frombuffer(whole[stored.begin_bytes:stored.end_bytes], dtype="<f4")
        assert stored.dtype == "F32"
        assert np.array_equal(data.reshape(stored.shape), tensors[name])


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_every_parameter_of_gpt2_is_found_once_with_or_without_the_prefix(tmp_path, prefix):
    tensors = {prefix + name: value for name, value in gpt2_tensors().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    bindings, unused = bind(GPT2, read_checkpoint(tmp_path))
    assert unused == []
    counted = sum(int(np.prod(b.parameter.shape)) for b in bindings)
    assert counted == sum(value.size for value in tensors.values()) == parameter_count(GPT2)


def test_a_binding_leads_to_the_parameter_in_our_shape(tmp_path):
    tensors = gpt2_tensors()
    save_file(tensors, tmp_path / "model.safetensors")
    bindings, _ = bind(GPT2, read_checkpoint(tmp_path))
    for binding in bindings:
        value = tensors[binding.stored.name]
        value = value.T if binding.transposed else value
        value = np.split(value, binding.parts)[binding.part]
        assert value.shape == binding.parameter.shape
    # x @ c_attn: queries, then keys, then values.
    cut = {b.parameter.name: (b.transposed, b.part, b.parts) for b in bindings if b.layer == 1
           and b.stored.name == "h.1.attn.c_attn.weight"}
    assert cut == {f"layer.{stem}.weight": (True, part, 3) for part, stem in enumerate("qkv")}
    cut = {b.parameter.name: (b.transposed, b.part, b.parts) for b in bindings if b.layer == 1
           and b.stored.name == "h.1.attn.c_attn.bias"}
    assert cut == {f"layer.{stem}.bias": (False, part, 3) for part, stem in enumerate("qkv")}


LAYER_NAMES = {  # of the state dictionaries of the reference implementations
    "qwen3": ("model.layers.1.", [
        "input_layernorm.weight", "self_attn.q_proj.weight", "self_attn.k_proj.weight",
        "self_attn.v_proj.weight", "self_attn.q_norm.weight", "self_attn.k_norm.weight",
        "self_attn.o_proj.weight", "post_attention_layernorm.weight", "mlp.gate_proj.weight",
        "mlp.up_proj.weight", "mlp.down_proj.weight"],
        ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]),
    "opt": ("model.decoder.layers.1.", [
        f"{stem}.{ending}" for ending in ("weight", "bias")
        for stem in ("self_attn_layer_norm", "self_attn.q_proj", "self_attn.k_proj",
                     "self_attn.v_proj", "self_attn.out_proj", "final_layer_norm", "fc1", "fc2")],
        ["model.decoder.embed_tokens.weight", "model.decoder.embed_positions.weight",
         "model.decoder.final_layer_norm.weight", "model.decoder.final_layer_norm.bias"]),
}


@pytest.mark.parametrize(("name", "family"), [("qwen3-8b", "qwen3"), ("opt-125m", "opt")])
def test_names_are_those_of_the_reference_state(name, family):
    model, names = read_model(name), FAMILIES[family].tensors
    prefix, in_layer, outside = LAYER_NAMES[family]
    want = {prefix + ending for ending in in_layer} | set(outside)
    found = set()
    for parameter in parameters(model):
        stem, _, ending = parameter.name.rpartition(".")
        lead = "" if stem == "lm_head" else names.prefixes[0]
        found.add(f"{lead}{names.stems[stem].format(layer=1)}.{ending}")
    assert found == want


def test_gamma_and_beta_of_a_converted_checkpoint_are_gain_and_bias(tmp_path):
    shapes = {"bert.embeddings.word_embeddings.weight": (5, 4),
              "bert.embeddings.position_embeddings.weight": (3, 4),
              "bert.embeddings.token_type_embeddings.weight": (2, 4),
              "bert.embeddings.LayerNorm.gamma": (4,), "bert.embeddings.LayerNorm.beta": (4,),
              "bert.pooler.dense.weight": (4, 4), "bert.pooler.dense.bias": (4,),
              "cls.predictions.bias": (5,)}
    for name, shape in {
        "attention.self.query": (4, 4), "attention.self.key": (4, 4),
        "attention.self.value": (4, 4), "attention.output.dense": (4, 4),
        "intermediate.dense": (8, 4), "output.dense": (4, 8)}.items():
        shapes[f"bert.encoder.layer.0.{name}.weight"] = shape
        shapes[f"bert.encoder.layer.0.{name}.bias"] = shape[:1]
    for name in ("attention.output", "output"):
        shapes[f"bert.encoder.layer.0.{name}.LayerNorm.gamma"] = (4,)
        shapes[f"bert.encoder.layer.0.{name}.LayerNorm.beta"] = (4,)
    save_file({n: np.zeros(s, np.float32) for n, s in shapes.items()},
              tmp_path / "model.safetensors")
    bindings, unused = bind(BERT, read_checkpoint(tmp_path))
    assert [tensor.name for tensor in unused] == ["cls.predictions.bias"]
    assert sum(int(np.prod(b.parameter.shape)) for b in bindings) == parameter_count(BERT)


def test_a_missing_parameter_and_a_wrong_shape_are_named(tmp_path):
    tensors = gpt2_tensors()
    tensors["h.1.mlp.c_fc.weight"] = np.zeros((4, 15), np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError) as error:
        bind(GPT2, read_checkpoint(tmp_path))
    assert str(error.value) == ("model.safetensors: shape of h.1.mlp.c_fc.weight must be [4, 16] "
                                "for tiny-gpt2, not [4, 15]")
    del tensors["h.1.mlp.c_fc.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError) as error:
        bind(GPT2, read_checkpoint(tmp_path))
    assert str(error.value) == "checkpoint has no tensor transformer.h.1.mlp.c_fc.weight"


def test_shards_are_joined_and_a_missing_tensor_is_named(tmp_path):
    tensors = gpt2_tensors()
    names = sorted(tensors)
    files = {name: f"model-{1 + (i > 9)}.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        save_file({n: tensors[n] for n in names if files[n] == file}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}), encoding="utf-8")
    assert bind(GPT2, read_checkpoint(tmp_path))[1] == []
    index.write_text(json.dumps({"weight_map": files | {"x": "model-1.safetensors"}}),
                     encoding="utf-8")
    assert refusal(tmp_path) == (
        "model.safetensors.index.json: tensor x is not in model-1.safetensors")


@pytest.mark.parametrize(("header", "data", "message"), [
    ([], b"", "x.safetensors: header must be a JSON object, not []"),
    ({"t": {"dtype": "F33", "shape": [1], "data_offsets": [0, 4]}}, b"1234",
     ("x.safetensors: t: dtype must be one of BOOL, U8, I8, F8_E4M3, F8_E5M2, F8_E8M0, U16, I16, "
     "F16, BF16, U32, I32, F32, U64, I64, F64, not 'F33'")),
    ({"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234",
     "x.safetensors: t: data_offsets must be 8 bytes apart for F32 [2], not [0, 4]"),
    # 8 bytes of length, 61 of header and 7 of data, one short.
    ({"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"1234567",
     "x.safetensors: t: data_offsets must be inside the file of 76 bytes, not [0, 8]"),
    ({"t": {"dtype": "F32"}}, b"", ("x.safetensors: t: entry must be an object with dtype, shape "
     "and data_offsets, not {'dtype': 'F32'}")),
])
def test_a_broken_header_is_refused_with_the_tensor_named(tmp_path, header, data, message):
    assert refusal(write(tmp_path / "x.safetensors", header, data)) == message


def test_a_tensor_that_ends_with_the_file_is_inside_it(tmp_path):
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    path = write(tmp_path / "x.safetensors", {"t": entry}, b"12345678")
    assert read_checkpoint(path).tensors["t"].end_bytes == path.stat().st_size


def test_a_file_that_is_no_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"hello")
    assert refusal(path).startswith("x.safetensors: header length must be ")
    path.write_bytes(struct.pack("<Q", 3) + b"{a}")
    assert refusal(path).startswith("x.safetensors: header must be JSON: ")
    assert refusal(tmp_path / "y") == f"{tmp_path / 'y'}: no such file"
