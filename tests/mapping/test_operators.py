"""Operators of a phase: totals against closed forms of the literature, and the flow of tensors."""

import pytest
from pydantic import ValidationError

from machine.errors import UserError
from machine.vector import OPERANDS, Mask, VectorOp
from mapping.families import model_names, model_of, read_model
from mapping.formats import parse_formats
from mapping.operators import operators
from mapping.parameters import parameters
from mapping.workload import Matmul, Phase, VectorStep, decode, encode, prefill

LLAMA_7B = 6_738_415_616  # published parameters, see test_parameters.py


def named(workload, name):
    return next(operator for _, operator in workload.walk() if operator.name == name)


def tiny(**changes):
    return model_of({
        "model_type": "mistral", "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 96,
        "max_position_embeddings": 128, "num_attention_heads": 4, "num_hidden_layers": 2,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 256, "sliding_window": 8,
    } | changes, name="tiny")


def phases(model):
    if model.kind == "encoder":
        return [encode(1, 1), encode(3, 7)]
    return [prefill(1, 5), prefill(2, 3, cached=9), decode(1, 1), decode(4, 11)]


# Totals.


def test_a_decoded_token_multiplies_once_by_every_matrix_but_the_gathered_table():
    # Kaplan et al., arXiv 2001.08361, section 2.1: 2 N operations a token for the N parameters
    # that are multiplied. Gains (65 of 4096) are not, and of the token table one row is read.
    workload = operators(read_model("llama-2-7b"), decode(1, 1))
    projections = sum(o.macs for _, o in workload.walk() if isinstance(o, Matmul) and o.weight)
    assert projections == LLAMA_7B - 32000 * 4096 - 65 * 4096
    assert workload.weight_elements == LLAMA_7B - 32000 * 4096 + 4096


@pytest.mark.parametrize(("batch", "tokens"), [(1, 1), (1, 1024), (3, 100)])
def test_prefill_of_gpt2_costs_what_the_megatron_formula_says(batch, tokens):
    # Narayanan et al., arXiv 2104.04473, appendix: forward operations of a layer are
    # 24 B s h^2 + 4 B s^2 h, two to a multiply-accumulate; the head is taken for one token.
    workload = operators(read_model("gpt2"), prefill(batch, tokens))
    h, layers, vocab = 768, 12, 50257
    layer = 24 * batch * tokens * h * h + 4 * batch * tokens * tokens * h
    assert 2 * workload.macs == layers * layer + 2 * batch * h * vocab


def test_a_token_of_opt_13b_keeps_800_kib_as_the_paged_attention_paper_says():
    # Kwon et al., arXiv 2309.06180, section 3: 2 x 5120 x 40 layers x 2 bytes = 800 KB a token.
    values = {
        "model_type": "opt", "activation_function": "relu", "ffn_dim": 20480, "hidden_size": 5120,
        "max_position_embeddings": 2048, "num_attention_heads": 40, "num_hidden_layers": 40,
        "vocab_size": 50272, "word_embed_proj_dim": 5120,
    }
    workload = operators(model_of(values, name="opt-13b"), decode(1, 512))
    cache = [o.out for o in workload.body if isinstance(o, VectorStep) and o.out.role == "kv"]
    stored = 40 * sum(tensor.bytes(parse_formats("W16A16KV16")) for tensor in cache)
    assert stored == 512 * 800 * 1024
    assert workload.kv_written_elements * 2 == 800 * 1024
    assert model_of(values, name="opt-13b").kv_elements_per_token * 2 == 800 * 1024


def test_llama_2_7b_decode_at_batch_16_and_512_keys_by_hand():
    workload = operators(read_model("llama-2-7b"), decode(16, 512))
    layer = 4 * 4096 * 4096 + 3 * 4096 * 11008  # q, k, v, out; gate, up, down
    attention = 2 * 32 * 128 * 512  # scores and weighted sum of one sequence
    assert workload.macs == 16 * (32 * (layer + attention) + 4096 * 32000)
    assert workload.kv_read_elements == 16 * 32 * 2 * 512 * 4096
    assert workload.kv_written_elements == 16 * 32 * 2 * 4096


def test_grouped_keys_are_read_once_for_all_heads_of_a_group():
    workload = operators(read_model("llama-3-8b"), decode(16, 512))
    scores = named(workload, "layer.scores")
    assert (scores.count, scores.m, scores.n, scores.k) == (16 * 8, 4, 512, 128)
    assert workload.kv_read_elements == 16 * 32 * 2 * 512 * 8 * 128  # 8 key heads, not 32
    assert scores.macs == 16 * 32 * 512 * 128  # all 32 query heads


def test_chunks_of_a_prefill_multiply_weights_as_often_as_the_whole():
    model = read_model("qwen3-0.6b")

    def projections(phase):
        workload = operators(model, phase, "states")
        return sum(o.macs for _, o in workload.walk() if isinstance(o, Matmul) and o.weight)

    chunks = projections(prefill(2, 40)) + projections(prefill(2, 24, cached=40))
    assert projections(prefill(2, 64)) == chunks


def test_an_encoder_keeps_no_cache_and_multiplies_every_matrix_once_a_token():
    model = read_model("all-minilm-l6-v2")
    workload = operators(model, encode(2, 16), "sentence")
    assert workload.kv_read_elements == workload.kv_written_elements == 0
    # 6 layers of 4 x 384^2 + 2 x 384 x 1536 products a token, and 2 x 16^2 x 384 a sequence.
    assert workload.macs == 6 * (32 * (4 * 384**2 + 2 * 384 * 1536) + 2 * 2 * 16**2 * 384)


def test_attention_scores_are_scaled_by_the_root_of_head_dim_and_nothing_else_is():
    workload = operators(read_model("qwen3-0.6b"), decode(1, 9))
    scales = {o.name: o.scale for _, o in workload.walk() if isinstance(o, Matmul)}
    assert scales.pop("layer.scores") == 128**-0.5
    assert set(scales.values()) == {1.0}


# Masks and windows, against a count of the pairs.


@pytest.mark.parametrize("q_len", [1, 2, 5, 9])
@pytest.mark.parametrize("cached", [0, 3, 6, 7, 8, 20])
@pytest.mark.parametrize("window", [None, 1, 8])
def test_the_keys_read_and_the_mask_are_those_of_the_definition(q_len, cached, window):
    model = tiny(sliding_window=window)
    workload = operators(model, prefill(1, q_len, cached))
    softmax, keys = named(workload, "layer.softmax"), named(workload, "layer.scores").n
    first = cached + q_len - keys  # the position of the first key read
    seen = {(q, key) for q in range(q_len) for key in range(cached + q_len)
            if key <= cached + q and (window is None or key > cached + q - window)}
    assert min(key for _, key in seen) == first
    base = softmax.position_base
    masked = {(q, key) for q in range(q_len) for key in range(keys)
              if softmax.mask is Mask.NONE or key <= base + q
              and (softmax.mask is not Mask.WINDOW or key > base + q - softmax.window)}
    assert {(q, key - first) for q, key in seen} == masked


def test_a_window_bites_from_the_key_after_it_not_before():
    def softmax(phase):
        return named(operators(tiny(), phase), "layer.softmax")

    assert softmax(prefill(1, 8)).mask is Mask.CAUSAL
    assert softmax(prefill(1, 9)).mask is Mask.WINDOW
    assert softmax(decode(1, 8)).width == softmax(decode(1, 9)).width == 8
    assert softmax(decode(1, 9)).mask is Mask.NONE
    assert softmax(prefill(1, 9)).window == 8 and softmax(prefill(1, 8)).window is None


def test_positions_continue_behind_the_cache():
    workload = operators(tiny(), prefill(1, 4, cached=10))
    assert named(workload, "layer.q_rope").position_base == 10
    assert named(operators(tiny(), decode(1, 7)), "layer.k_rope").position_base == 6
    opt = operators(read_model("opt-125m"), decode(1, 7))
    assert named(opt, "embed.position").position_base == 6 + 2


# The flow of tensors.


@pytest.mark.parametrize("name", model_names())
def test_every_tensor_is_made_before_it_is_read_and_every_parameter_is_used(name):
    model = read_model(name)
    known = {parameter.name: parameter.shape for parameter in parameters(model)}
    for phase in phases(model):
        result = "pooler" if model.kind == "encoder" else "token"
        workload, made, used = operators(model, phase, result), set(), set()
        for layer, operator in workload.walk():
            if isinstance(operator, Matmul):
                read = [operator.a, operator.b, *([operator.bias] if operator.bias else [])]
            else:
                read = list(operator.inputs)
            for tensor in read:
                key = (tensor.name, layer if tensor.name.startswith("layer.") else None)
                if tensor.role in ("weight", "vector"):
                    assert known[tensor.name] == tensor.shape
                    used.add(tensor.name)
                elif tensor.role != "index":
                    assert key in made, f"{operator.name} reads {tensor.name}"
            made.add((operator.out.name,
                      layer if operator.out.name.startswith("layer.") else None))
        assert used == set(known)


@pytest.mark.parametrize("name", model_names())
def test_sizes_of_operators_are_the_sizes_of_their_tensors(name):
    model = read_model(name)
    for phase in phases(model):
        for operator in operators(model, phase).body:
            if isinstance(operator, Matmul):
                assert operator.input_elements == operator.a.elements
                assert operator.output_elements == operator.out.elements
                assert operator.b_elements == operator.b.elements
                assert operator.b.shape[-1] == (operator.n if operator.b_rows == "k"
                                                else operator.k)
            elif operator.op is not VectorOp.SCATTER:
                assert operator.rows * operator.width == operator.out.elements
            else:
                assert operator.output_elements == operator.inputs[0].elements


@pytest.mark.parametrize("name", model_names())
def test_a_vector_step_has_the_operands_of_its_operation(name):
    model = read_model(name)
    for phase in phases(model):
        for _, step in operators(model, phase).walk():
            if isinstance(step, VectorStep):
                required = [o for o in OPERANDS[step.op] if not o.startswith("[")]
                assert len(required) <= len(step.inputs) <= len(OPERANDS[step.op]), step.name


def test_only_the_last_token_of_a_prefill_meets_the_head():
    workload = operators(read_model("llama-2-7b"), prefill(2, 512))
    assert [o.name for o in workload.after] == ["last_token", "final_norm", "lm_head"]
    assert named(workload, "final_norm").rows == named(workload, "lm_head").m == 2
    assert "last_token" not in [o.name for o in operators(tiny(), decode(2, 3)).after]


def test_results_end_where_they_say():
    last = {"logits": "lm_head", "token": "argmax", "states": "final_norm"}
    for result, name in last.items():
        assert operators(tiny(), prefill(1, 4), result).after[-1].name == name
    bert = read_model("bert-base-uncased")
    assert operators(bert, encode(1, 4)).after == ()
    assert operators(bert, encode(1, 4), "pooler").after[-1].out.name == "pooled"
    sentence = operators(bert, encode(2, 4), "sentence").after
    assert [o.op for o in sentence] == [VectorOp.MEAN_POOL, VectorOp.L2NORM]
    assert sentence[-1].out.shape == (2, 768)


def test_a_body_stands_for_every_layer():
    workload = operators(read_model("llama-2-70b"), decode(1, 4))
    walked = list(workload.walk())
    assert len(walked) == len(workload.before) + 80 * len(workload.body) + len(workload.after)
    assert sum(o.macs for _, o in walked) == workload.macs


# What is refused.


@pytest.mark.parametrize(("fields", "message"), [
    ({"batch": 0}, "batch must be at least 1, not 0"),
    ({"q_len": 2}, "q_len must be 1 in decode, not 2"),
    ({"kv_len": 0}, "kv_len must be at least q_len (1), not 0"),
    ({"kind": "encode", "q_len": 4, "kv_len": 5}, "kv_len must be q_len (4) in encode, not 5"),
])
def test_a_phase_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValidationError) as error:
        Phase(**({"kind": "decode", "batch": 1, "q_len": 1, "kv_len": 8} | fields))
    assert error.value.errors()[0]["msg"] == f"Value error, {message}"


@pytest.mark.parametrize(("make", "message"), [
    (lambda: decode(0, 8), "batch must be at least 1, not 0"),
    (lambda: decode(1, 0), "kv_len must be at least 1, not 0"),
    (lambda: prefill(1, 0), "tokens must be at least 1, not 0"),
    (lambda: prefill(1, 1, cached=-1), "cached must be at least 0, not -1"),
    (lambda: encode(-2, 4), "batch must be at least 1, not -2"),
])
def test_a_users_phase_is_refused_in_one_line(make, message):
    with pytest.raises(UserError) as error:
        make()
    assert str(error.value) == message


def test_phases_and_results_a_model_does_not_have_are_refused():
    llama, bert = read_model("llama-2-7b"), read_model("bert-base-uncased")
    for model, phase, result, message in [
        (llama, encode(1, 4), None,
         "phase must be prefill or decode for the decoder llama-2-7b, not 'encode'"),
        (bert, decode(1, 4), None,
         "phase must be encode for the encoder bert-base-uncased, not 'decode'"),
        (bert, encode(1, 4), "logits",
         "result must be states, pooler, sentence for the encoder bert-base-uncased, not 'logits'"),
    ]:
        with pytest.raises(UserError) as error:
            operators(model, phase, result)
        assert str(error.value) == message


def test_learned_positions_end_at_the_table_and_rotation_does_not():
    gpt2 = read_model("gpt2")
    operators(gpt2, prefill(1, 24, cached=1000))
    with pytest.raises(UserError) as error:
        operators(gpt2, prefill(1, 25, cached=1000))
    assert str(error.value) == "kv_len must be at most 1024, the positions gpt2 learned, not 1025"
    operators(read_model("llama-2-7b"), decode(1, 4097))
