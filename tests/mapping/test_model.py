"""Reading a config.json: what is taken, what is derived and said, what is refused and how."""

import json
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from machine.errors import UserError
from mapping.families import FAMILIES, find_config, model_names, model_of, read_model
from mapping.parameters import parameter_count

ROOT = Path(__file__).parents[2]

LLAMA = {
    "model_type": "llama", "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 96,
    "max_position_embeddings": 128, "num_attention_heads": 4, "num_hidden_layers": 2,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 256,
}
QWEN2 = LLAMA | {"model_type": "qwen2", "use_sliding_window": False}
GPT2 = {
    "model_type": "gpt2", "activation_function": "gelu_new", "n_embd": 64, "n_head": 4,
    "n_layer": 2, "n_positions": 32, "layer_norm_epsilon": 1e-5, "vocab_size": 256,
}
OPT = {
    "model_type": "opt", "activation_function": "relu", "ffn_dim": 256, "hidden_size": 64,
    "max_position_embeddings": 32, "num_attention_heads": 4, "num_hidden_layers": 2,
    "vocab_size": 256, "word_embed_proj_dim": 64,
}
BERT = {
    "model_type": "bert", "hidden_act": "gelu", "hidden_size": 64, "intermediate_size": 256,
    "layer_norm_eps": 1e-12, "max_position_embeddings": 32, "num_attention_heads": 4,
    "num_hidden_layers": 2, "position_embedding_type": "absolute", "type_vocab_size": 2,
    "vocab_size": 256,
}


def read(values, **changes):
    return model_of(values | changes, name="m")


def refusal(values, **changes):
    with pytest.raises(UserError) as error:
        read(values, **changes)
    return str(error.value)


def without(values, key):
    return {k: v for k, v in values.items() if k != key}


# What is shipped.


def test_every_family_has_a_shipped_model_and_every_shipped_model_reads():
    models = [read_model(name) for name in model_names()]
    assert len(models) >= 10
    assert {model.family for model in models} == set(FAMILIES)
    assert [model.name for model in models] == model_names()


def test_every_shipped_config_is_named_in_the_sources():
    sources = (ROOT / "mapping/models/SOURCES.md").read_text(encoding="utf-8")
    for name in model_names():
        assert sources.count(f"| `{name}.json` |") == 2, name


def test_llama_2_7b_is_read_as_its_paper_describes_it():
    # arXiv 2307.09288 and its config.json: 32 layers, 4096 wide, 32 heads, no grouping, SwiGLU.
    model = read_model("llama-2-7b")
    assert (model.kind, model.layers, model.d_model, model.vocab) == ("decoder", 32, 4096, 32000)
    heads, ffn, norm, place = model.attention, model.ffn, model.norm, model.position
    assert (heads.heads, heads.kv_heads, heads.head_dim, heads.group) == (32, 32, 128, 1)
    assert not (heads.qkv_bias or heads.out_bias or heads.qk_norm or heads.window)
    assert (ffn.width, ffn.gated, ffn.activation, ffn.bias) == (11008, True, "silu", False)
    assert (norm.kind, norm.eps, norm.placement, norm.final) == ("rmsnorm", 1e-5, "pre", True)
    assert (place.kind, place.theta, place.max_positions, place.scaling) == (
        "rope", 10000.0, 4096, None)
    assert not model.tied_embeddings


def test_a_file_a_folder_and_a_shipped_name_mean_the_same_config(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    text = find_config("gpt2").read_text(encoding="utf-8")
    (folder / "config.json").write_text(text, encoding="utf-8")
    (tmp_path / "other.json").write_text(text, encoding="utf-8")
    shipped, inside, file = (read_model(m) for m in ("gpt2", folder, tmp_path / "other.json"))
    assert (shipped.name, inside.name, file.name) == ("gpt2", "mine", "other")
    assert parameter_count(inside) == parameter_count(file) == parameter_count(shipped)


def test_a_model_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        read_model("gpt2").layers = 3


# head_dim: read where it is given, derived only where the reference derives it, and then said.


def test_head_dim_of_the_file_wins_over_the_quotient():
    model = read_model("qwen3-0.6b")  # 16 heads of 128 in a stream of 1024
    assert model.attention.head_dim == 128 != model.d_model // model.attention.heads
    assert model.attention.q_width == 2048
    assert read(LLAMA, head_dim=40).attention.head_dim == 40


def test_a_derived_head_dim_is_said_in_the_notes_and_a_given_one_is_not():
    said = "head_dim is not given: 16 (hidden_size / num_attention_heads, as LlamaAttention does)"
    assert said in read(LLAMA).notes
    assert read(LLAMA, head_dim=None).attention.head_dim == 16
    assert not [note for note in read(LLAMA, head_dim=16).notes if "head_dim" in note]


def test_qwen3_without_head_dim_takes_the_128_of_its_reference_not_the_quotient():
    model = read(LLAMA, model_type="qwen3")
    assert model.attention.head_dim == 128
    assert "head_dim is not given: 128 (as Qwen3Config does)" in model.notes


def test_a_width_the_heads_do_not_divide_is_refused_where_head_dim_is_derived():
    assert refusal(LLAMA, num_attention_heads=6, num_key_value_heads=2) == (
        "config.json: hidden_size must be a multiple of num_attention_heads (6), not 64")
    assert read(LLAMA, num_attention_heads=6, num_key_value_heads=2, head_dim=16)


# What the families differ in.


def test_llama_without_key_heads_has_as_many_as_query_heads_and_says_so():
    model = read(without(LLAMA, "num_key_value_heads"))
    assert model.attention.kv_heads == 4
    assert ("num_key_value_heads is not given: 4 (num_attention_heads, as LlamaConfig does)"
            in model.notes)


def test_qwen2_has_biases_on_q_k_v_only():
    heads = read(QWEN2).attention
    assert (heads.qkv_bias, heads.out_bias, read(QWEN2).ffn.bias) == (True, False, False)


def test_qwen3_norms_queries_and_keys():
    assert read(LLAMA, model_type="qwen3", head_dim=16).attention.qk_norm
    assert not read(QWEN2).attention.qk_norm


def test_mistral_window_is_read_null_is_none_and_absent_is_the_default_of_its_reference():
    values = LLAMA | {"model_type": "mistral"}
    assert read(values, sliding_window=7).attention.window == 7
    assert read(values, sliding_window=None).attention.window is None
    assert read(values).attention.window == 4096
    assert "sliding_window is not given: 4096 (as MistralConfig does)" in read(values).notes


def test_opt_has_two_more_position_rows_than_positions():
    position = read(OPT).position
    assert (position.max_positions, position.rows, position.offset) == (32, 34, 2)


def test_opt_norms_at_the_end_only_where_it_norms_before_each_part():
    def final(**changes):
        return read(OPT, **changes).norm.final

    assert final() and final(do_layer_norm_before=True)
    assert not final(do_layer_norm_before=False)
    assert not final(_remove_final_layer_norm=True)


def test_bert_is_an_encoder_normed_after_each_part_and_after_the_embedding():
    model = read(BERT)
    assert (model.kind, model.type_vocab, model.pooler) == ("encoder", 2, True)
    assert (model.norm.placement, model.norm.embedding, model.norm.final) == ("post", True, False)


@pytest.mark.parametrize(("word", "ours"), [
    ("gelu", "gelu"), ("gelu_new", "gelu_tanh"), ("gelu_pytorch_tanh", "gelu_tanh"),
    ("relu", "relu"), ("silu", "silu"), ("swish", "silu")])
def test_activation_words_of_transformers(word, ours):
    assert read(GPT2, activation_function=word).ffn.activation == ours


def test_rope_scaling_is_read_whole():
    scaling = read_model("llama-3.2-1b").position.scaling
    assert (scaling.kind, scaling.factor, scaling.low_freq_factor, scaling.high_freq_factor,
            scaling.original_max_positions) == ("llama3", 32.0, 1.0, 4.0, 8192)
    old = read(LLAMA, rope_scaling={"type": "linear", "factor": 2.0}).position.scaling
    assert (old.kind, old.factor) == ("linear", 2.0)


def test_rope_parameters_of_transformers_5_mean_the_same():
    new = read(LLAMA, rope_parameters={"rope_type": "default", "rope_theta": 5e5}).position
    assert new == read(LLAMA, rope_theta=5e5).position
    scaled = {"rope_type": "linear", "factor": 2.0}
    assert (read(LLAMA, rope_parameters=scaled | {"rope_theta": 5e5}).position
            == read(LLAMA, rope_theta=5e5, rope_scaling=scaled).position)


def test_keys_that_do_not_shape_the_computation_are_left_alone():
    assert read(LLAMA, bos_token_id=1, transformers_version="4.40.0").notes == read(LLAMA).notes


def test_a_quantised_checkpoint_is_read_and_the_unused_key_is_said():
    note = "quantization_config is not used: formats are chosen per run"
    assert note in read(LLAMA, quantization_config={"quant_method": "awq"}).notes


# What is refused, in one line each.


def test_unknown_model_type_lists_the_known_ones_and_names_the_page():
    assert refusal(LLAMA, model_type="lama") == (
        "config.json: model_type must be one of bert, gpt2, llama, mistral, opt, qwen2, qwen3, "
        "not 'lama'; did you mean 'llama'?; docs/new-model.md shows how to add one")


def test_missing_model_type_lists_the_known_ones_and_names_the_page():
    assert refusal(without(LLAMA, "model_type")) == (
        "config.json: model_type must be a word; known are bert, gpt2, llama, mistral, opt, "
        "qwen2, qwen3; docs/new-model.md shows how to add one")


@pytest.mark.parametrize(("values", "changes", "message"), [
    (LLAMA, {"hidden_size": "64"}, "hidden_size must be an integer of at least 1, not '64'"),
    (LLAMA, {"hidden_size": 64.0}, "hidden_size must be an integer of at least 1, not 64.0"),
    (LLAMA, {"num_hidden_layers": 0}, "num_hidden_layers must be an integer of at least 1, not 0"),
    (LLAMA, {"vocab_size": True}, "vocab_size must be an integer of at least 1, not True"),
    (LLAMA, {"rms_norm_eps": 0}, "rms_norm_eps must be a number above 0, not 0"),
    (LLAMA, {"attention_bias": "no"}, "attention_bias must be true or false, not 'no'"),
    (LLAMA, {"hidden_act": "slu"}, ("hidden_act must be one of gelu, gelu_new, gelu_pytorch_tanh, "
     "relu, silu, swish, not 'slu'; did you mean 'silu'?")),
    (LLAMA, {"hidden_act": 3}, "hidden_act must be a word, not 3"),
    (LLAMA, {"num_key_value_heads": 3},
     "num_key_value_heads must be a divisor of num_attention_heads (4), not 3"),
    (LLAMA, {"rope_scaling": "linear"}, "rope_scaling must be an object, not 'linear'"),
    (LLAMA, {"rope_scaling": {"type": "lineer", "factor": 2.0}},
     ("rope_scaling.type must be one of default, dynamic, linear, llama3, yarn, not 'lineer'; "
     "did you mean 'linear'?")),
    (LLAMA, {"rope_scaling": {"type": "linear"}}, "rope_scaling.factor is missing"),
    (LLAMA, {"rope_scaling": {"type": "linear", "factor": 0.5}},
     "rope_scaling.factor must be at least 1, not 0.5"),
    (LLAMA, {"partial_rotary_factor": 0.5},
     "partial_rotary_factor must be 1.0 (a partial rotation is not built), not 0.5"),
    (QWEN2, {"use_sliding_window": True},
     "use_sliding_window must be false (a window in some layers only is not built), not True"),
    (GPT2, {"scale_attn_weights": False}, ("scale_attn_weights must be true "
     "(logits are divided by the root of head_dim), not False")),
    (OPT, {"word_embed_proj_dim": 32}, ("word_embed_proj_dim must be 64 "
     "(as hidden_size; a projection is not built), not 32")),
    (BERT, {"position_embedding_type": "relative_key"}, ("position_embedding_type must be "
     "\"absolute\" (relative positions are not built), not 'relative_key'")),
    (BERT, {"is_decoder": True}, "is_decoder must be false (BERT is read as an encoder), not True"),
])
def test_a_bad_value_is_refused_with_file_key_and_value(values, changes, message):
    assert refusal(values, **changes) == f"config.json: {message}"


def test_a_missing_key_is_named_with_the_nearest_unread_one():
    values = without(LLAMA, "hidden_size") | {"hiden_size": 64}
    assert refusal(values) == "config.json: hidden_size is missing; did you mean 'hiden_size'?"
    assert refusal(without(GPT2, "n_head")) == "config.json: n_head is missing"


def test_a_misspelt_optional_key_is_not_taken_as_absent():
    values = without(LLAMA, "num_key_value_heads") | {"num_key_value_head": 2}
    assert refusal(values) == ("config.json: num_key_value_head is not a key of this family; "
                               "did you mean 'num_key_value_heads'?")


def test_an_unknown_key_of_rope_scaling_is_refused():
    scaling = {"type": "linear", "factor": 2.0, "short_factor": 1.0}
    assert refusal(LLAMA, rope_scaling=scaling).startswith(
        "config.json: key of rope_scaling must be one of ")


@pytest.mark.parametrize(("text", "message"), [
    ("{", ("x.json: must be JSON; line 1, column 2: "
     "Expecting property name enclosed in double quotes")),
    ("[]", "x.json: must be a JSON object, not a list"),
    ('{"a": 1, "a": 2}', "x.json: key 'a' must be given once, not twice"),
])
def test_a_file_that_is_no_config_is_refused(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        read_model(tmp_path / "x.json")
    assert str(error.value) == message


def test_an_absent_file_an_absent_folder_config_and_an_unknown_name_are_told_apart(tmp_path):
    for path, want in [(tmp_path / "x.json", f"{tmp_path / 'x.json'}: no such file"),
                       (tmp_path, f"{tmp_path / 'config.json'}: no such file")]:
        with pytest.raises(UserError) as error:
            read_model(path)
        assert str(error.value) == want
    with pytest.raises(UserError) as error:
        read_model("lama-2-7b")
    assert str(error.value) == (f"model must be one of {', '.join(model_names())}, "
                                "not 'lama-2-7b'; did you mean 'llama-2-7b'?")


# docs/new-model.md


def test_the_family_of_the_page_on_new_models_works_as_written(monkeypatch):
    page = (ROOT / "docs/new-model.md").read_text(encoding="utf-8")
    monkeypatch.setitem(FAMILIES, "starcoder2", FAMILIES["llama"])  # undone after the test
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    exec("\n".join(blocks), names)
    (config,) = re.findall(r"```json\n(.*?)```", page, re.S)
    (stated,) = re.findall(r"= \*\*([\d,]+)\*\*", page)
    model = model_of(json.loads(config), name="walked")
    assert parameter_count(model) == int(stated.replace(",", "")) == 3216
    assert (model.attention.group, model.attention.window, model.ffn.gated) == (2, 16, False)


def test_the_page_on_new_models_lists_the_known_families():
    page = (ROOT / "docs/new-model.md").read_text(encoding="utf-8")
    known = page[page.index("The known"):page.index("**A new family**")]
    assert set(re.findall(r"`([a-z0-9]+)`", known)) == set(FAMILIES)


def test_reading_a_model_imports_no_heavy_package():
    code = ("import sys; from mapping.families import read_model; read_model('gpt2');"
            "print([m for m in ('numpy', 'numba', 'torch', 'amaranth') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
