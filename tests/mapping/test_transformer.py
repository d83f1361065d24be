"""Programs of whole models: what a launch may say, and what every layer shares."""

from dataclasses import replace

import pytest

from machine.decoding import decode as decode_bytes
from machine.encoding import encode as encode_bytes
from machine.errors import UserError
from machine.load import read_machine
from machine.program import SymbolKind
from mapping.families import model_names, model_of, read_model
from mapping.formats import parse_formats
from mapping.parameters import parameters
from mapping.transformer import map_model
from mapping.workload import decode, encode, prefill

FORMATS = parse_formats("W8A8KV8")
BERT = {
    "model_type": "bert", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "vocab_size": 100, "max_position_embeddings": 32,
    "hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2,
}
LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "hidden_act": "silu",
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
}


def mapped(values, phase, machine="tiny"):
    return map_model(model_of(values, name="toy"), phase, read_machine(machine), FORMATS)


def test_a_decode_launch_says_position_and_keys():
    found = mapped(LLAMA, decode(2, 9))
    assert found.launch((3, 4), position=5).values == {"position": 5, "keys": 6}
    assert found.launch().values == {"position": 8, "keys": 9}
    assert found.launch((3, 4)).tensors["token_index"] == [3, 4]


def test_an_encoder_launch_says_how_many_tokens():
    found = mapped(BERT, encode(1, 8))
    launch = found.launch((7, 8, 9))
    assert launch.values == {"position": 0, "tokens": 3}
    assert launch.tensors["token_index"] == [7, 8, 9, 0, 0, 0, 0, 0]
    assert launch.tensors["position_index"][:3] == [0, 1, 2]


@pytest.mark.parametrize("phase, tokens, position, message", [
    (decode(2, 9), (1,), None, "tokens must be 2, not 1"),
    (decode(2, 9), (1, 2, 3), None, "tokens must be 2, not 3"),
    (decode(2, 9), (1, 2), 9, "position must be from 0 to 8, not 9"),
    (decode(2, 9), (1, 2), -1, "position must be from 0 to 8, not -1"),
    (prefill(1, 4), (1, 2, 3), None, "tokens must be 4, not 3"),
    (encode(1, 4), (1, 2, 3, 4, 5), None, "tokens must be at most 4, not 5"),
    (encode(2, 4), (1, 2, 3), None, "tokens must be 8, not 3"),
])
def test_rejects_a_launch_the_program_cannot_serve(phase, tokens, position, message):
    found = mapped(BERT if phase.kind == "encode" else LLAMA, phase)
    with pytest.raises(UserError) as caught:
        found.launch(tokens, position=position)
    assert str(caught.value) == message


def test_a_program_survives_its_binary_form_and_is_the_same_each_time():
    first, second = (mapped(LLAMA, decode(2, 9)).program for _ in range(2))
    assert encode_bytes(first) == encode_bytes(second)
    assert decode_bytes(encode_bytes(first)) == first


def test_layers_share_their_instructions():
    deep = LLAMA | {"num_hidden_layers": 7}
    lengths = [[len(s.instructions) for s in mapped(values, decode(1, 8)).program.streams]
               for values in (LLAMA, deep)]
    assert lengths[0] == lengths[1]


def test_every_parameter_is_a_source_of_exactly_one_constant():
    """But a pooler's, which no program here computes, and a tied table, which is used twice."""
    for values, phase in ((LLAMA, decode(1, 8)), (BERT, encode(1, 8))):
        found = mapped(values, phase)
        sources = [f"{s}.weight" for w in found.weights for s in w.sources]
        sources += [f"{s}.bias" for w in found.weights if w.bias for s in w.sources]
        sources += [source for _, names in found.vectors for source in names]
        wanted = [p.name for p in parameters(found.model) if not p.name.startswith("pooler")]
        assert sorted(sources) == sorted(wanted)
        names = {s.name for s in found.program.symbols if s.kind is SymbolKind.CONST}
        made = {w.symbol.name for w in found.weights} | {v.name for v, _ in found.vectors}
        made |= {s.name for w in found.weights for s in (w.scale, w.bias) if s is not None}
        assert made == names


def test_notes_say_which_stretched_rotation_is_not_modelled():
    model = read_model("llama-3.2-1b")
    assert not any("rope" in note for note in map_model(
        model, decode(1, 16), read_machine("npu-hbm2"), FORMATS).model.notes)
    yarn = replace(model.position, scaling=replace(model.position.scaling, kind="yarn"))
    model = replace(model, position=yarn)
    found = map_model(model, decode(1, 16), read_machine("npu-hbm2"), FORMATS)
    note = "rope scaling yarn is not modelled: the rotation is the unscaled one"
    assert found.model.notes == (*model.notes, note)
    assert not any("rope scaling" in note for note in mapped(LLAMA, decode(1, 8)).model.notes)


@pytest.mark.parametrize("name", model_names())
def test_every_shipped_model_maps_or_says_what_is_missing(name):
    model = read_model(name)
    phase = encode(1, 64) if model.kind == "encoder" else decode(2, 64)
    found = map_model(model, phase, read_machine("npu-hbm2"), FORMATS)
    weights = sum(p.elements for p in parameters(model))
    capacity = read_machine("npu-hbm2").dram.capacity_bytes
    if hasattr(found, "program"):
        assert weights <= found.dram_bytes <= capacity
    else:
        assert "dram.channels" in found.levers[0] and weights > capacity
