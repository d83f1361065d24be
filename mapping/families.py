"""From a Hugging Face config.json to a `Model`: one adapter for each ``model_type``.

Each adapter follows the reference code of its family in Hugging Face transformers, named in its
docstring; where the file is silent, the reference's default is taken and written into
`Model.notes`. `docs/new-model.md` shows how to add a family.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from machine.errors import UserError, unknown
from mapping.config_json import Keys, read_json
from mapping.model import (
    Activation,
    Attention,
    FeedForward,
    Model,
    Norm,
    Position,
    RopeScaling,
    RopeScalingKind,
)
from mapping.tensor_names import (
    BERT_TENSORS,
    GPT2_TENSORS,
    LLAMA_TENSORS,
    OPT_TENSORS,
    TensorNames,
)

__all__ = [
    "FAMILIES",
    "Family",
    "activation",
    "find_config",
    "head_dim",
    "model_names",
    "model_of",
    "read_model",
    "rope_position",
]

MODELS = Path(__file__).parent / "models"

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu",
    "silu": "silu", "swish": "silu",
}

SCALINGS: tuple[RopeScalingKind | Literal["default"], ...] = (
    "default", "linear", "dynamic", "llama3", "yarn")


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """What is to be known of one ``model_type``."""

    read: Callable[[Keys], Model]
    tensors: TensorNames


def model_names() -> list[str]:
    """Return the names of the models whose config.json comes with the package."""
    return sorted(path.stem for path in MODELS.glob("*.json"))


def find_config(name: str | Path) -> Path:
    """Return the config.json meant by a shipped model's name, a file, or a folder that has one."""
    path = Path(name)
    if path.is_dir():
        return path / "config.json"
    if path.suffix == ".json" or len(path.parts) > 1:
        return path
    if str(name) not in model_names():
        raise unknown("model", str(name), model_names())
    return MODELS / f"{name}.json"


def read_model(name: str | Path) -> Model:
    """Return the model of a shipped name, a config.json or a folder holding one.

    Raises `UserError` in one line that names file, key, value and the nearest valid name.
    """
    path = find_config(name)
    inside = path.name == "config.json"
    return model_of(read_json(path), name=path.parent.name if inside else path.stem,
                    where=path.name)


def model_of(values: dict[str, object], *, name: str, where: str = "config.json") -> Model:
    """Return the model described by the `values` of a config.json; `where` opens each error."""
    keys = Keys(values, where)
    if keys.has("quantization_config"):
        keys.notes.append("quantization_config is not used: formats are chosen per run")
    if not isinstance(values.get("model_type"), str):
        raise UserError(f"{where}: model_type must be a word; known are "
                        f"{', '.join(sorted(FAMILIES))}; docs/new-model.md shows how to add one")
    family = str(values["model_type"])
    if family not in FAMILIES:
        error = unknown("model_type", family, FAMILIES, where=where)
        raise UserError(f"{error}; docs/new-model.md shows how to add one")
    try:
        model = FAMILIES[family].read(keys)
    except ValidationError as error:
        sentence = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UserError(f"{where}: {sentence}") from None
    keys.finish()
    return replace(model, name=name, notes=(*model.notes, *keys.notes))


def activation(keys: Keys, key: str) -> Activation:
    """Return the activation function named at `key` in Hugging Face's words."""
    return ACTIVATIONS[keys.choice(key, ACTIVATIONS)]


def _derived_head_dim(keys: Keys, width: str, heads: str, source: str) -> int:
    """``width / heads``, for the families whose reference code says so; noted as derived."""
    d_model, count = keys.integer(width), keys.integer(heads)
    if d_model % count:
        raise keys.error(width, f"a multiple of {heads} ({count})", d_model)
    keys.notes.append(f"head_dim is not given: {d_model // count} ({width} / {heads}, {source})")
    return d_model // count


def head_dim(keys: Keys, source: str) -> int:
    """Return the file's ``head_dim`` where it has one, else the quotient of the reference code."""
    if keys.has("head_dim"):
        return keys.integer("head_dim")
    return _derived_head_dim(keys, "hidden_size", "num_attention_heads", source)


def rope_position(keys: Keys, default_theta: float, source: str) -> Position:
    """Return rotary positions; transformers 5 keeps both keys in ``rope_parameters``."""
    longest = keys.integer("max_position_embeddings")
    new = keys.has("rope_parameters")
    place = "rope_parameters" if new else "rope_scaling"
    table = keys.table(place) if new or keys.has(place) else None
    if new and table is not None:
        theta = table.number("rope_theta")
    else:
        theta = keys.number("rope_theta", default=default_theta, source=source)
    return Position(kind="rope", max_positions=longest, theta=theta,
                    scaling=None if table is None else _rope_scaling(table))


def _rope_scaling(table: Keys) -> RopeScaling | None:
    kind = table.choice("rope_type" if table.has("rope_type") else "type", SCALINGS)
    table.has("type")  # the older name of rope_type; both may stand in one file
    if kind == "default":
        table.refuse_unread()
        return None

    def optional(key: str) -> float | None:
        return table.number(key) if table.has(key) else None

    longest, factor = "original_max_position_embeddings", table.number("factor")
    if factor < 1:
        raise table.error("factor", "at least 1", factor)
    scaling = RopeScaling(
        kind=kind, factor=factor,
        original_max_positions=(table.integer(longest) if kind == "llama3" or table.has(longest)
                                else None),
        low_freq_factor=table.number("low_freq_factor") if kind == "llama3" else None,
        high_freq_factor=table.number("high_freq_factor") if kind == "llama3" else None,
        beta_fast=optional("beta_fast"), beta_slow=optional("beta_slow"),
        attention_factor=optional("attention_factor"))
    table.refuse_unread()
    return scaling


def gpt2(keys: Keys) -> Model:
    """GPT-2 (transformers ``models/gpt2/modeling_gpt2.py``, ``GPT2LMHeadModel``)."""
    source = "as GPT2Config does"
    keys.only("scale_attn_weights", True, "logits are divided by the root of head_dim")
    keys.only("scale_attn_by_inverse_layer_idx", False, "layers must be equal")
    keys.only("add_cross_attention", False, "no encoder is read")
    d_model, heads = keys.integer("n_embd"), keys.integer("n_head")
    positions = keys.integer("n_positions")
    return Model(
        name="", family="gpt2", kind="decoder", layers=keys.integer("n_layer"), d_model=d_model,
        vocab=keys.integer("vocab_size"),
        attention=Attention(
            heads=heads, kv_heads=heads, qkv_bias=True, out_bias=True,
            head_dim=_derived_head_dim(keys, "n_embd", "n_head", "as GPT2Attention does")),
        ffn=FeedForward(
            width=keys.integer("n_inner", default=4 * d_model, source="4 n_embd, " + source),
            gated=False, activation=activation(keys, "activation_function"), bias=True),
        norm=Norm(kind="layernorm", eps=keys.number("layer_norm_epsilon"), placement="pre"),
        position=Position(kind="learned", max_positions=positions, rows=positions),
        tied_embeddings=keys.flag("tie_word_embeddings", default=True, source=source))


def opt(keys: Keys) -> Model:
    """OPT (transformers ``models/opt/modeling_opt.py``, ``OPTForCausalLM``).

    The position table has two rows more than there are positions; position 0 is row 2.
    """
    source = "as OPTConfig does"
    d_model, heads = keys.integer("hidden_size"), keys.integer("num_attention_heads")
    keys.only("word_embed_proj_dim", d_model, "as hidden_size; a projection is not built")
    keys.only("layer_norm_elementwise_affine", True, "a norm without gain is not built")
    before = keys.flag("do_layer_norm_before", default=True, source=source)
    removed = keys.flag("_remove_final_layer_norm", default=False, source=source)
    bias = keys.flag("enable_bias", default=True, source=source)
    positions = keys.integer("max_position_embeddings")
    keys.notes.append(f"rows of the position table are not given: {positions + 2} "
                      "(max_position_embeddings + 2, as OPTLearnedPositionalEmbedding does)")
    keys.notes.append("layer norm eps is not given: 1e-05 (as torch.nn.LayerNorm does)")
    return Model(
        name="", family="opt", kind="decoder", layers=keys.integer("num_hidden_layers"),
        d_model=d_model, vocab=keys.integer("vocab_size"),
        attention=Attention(
            heads=heads, kv_heads=heads, qkv_bias=bias, out_bias=bias,
            head_dim=_derived_head_dim(keys, "hidden_size", "num_attention_heads",
                                       "as OPTAttention does")),
        ffn=FeedForward(width=keys.integer("ffn_dim"), gated=False, bias=bias,
                        activation=activation(keys, "activation_function")),
        norm=Norm(kind="layernorm", eps=1e-5, placement="pre" if before else "post",
                  final=before and not removed),
        position=Position(kind="learned", max_positions=positions, rows=positions + 2, offset=2),
        tied_embeddings=keys.flag("tie_word_embeddings", default=True, source=source))


def bert(keys: Keys) -> Model:
    """BERT (transformers ``models/bert/modeling_bert.py``, ``BertModel`` with its pooler)."""
    keys.only("position_embedding_type", "absolute", "relative positions are not built")
    keys.only("is_decoder", False, "BERT is read as an encoder")
    keys.only("add_cross_attention", False, "BERT is read as an encoder")
    heads, positions = keys.integer("num_attention_heads"), keys.integer("max_position_embeddings")
    return Model(
        name="", family="bert", kind="encoder", layers=keys.integer("num_hidden_layers"),
        d_model=keys.integer("hidden_size"), vocab=keys.integer("vocab_size"),
        attention=Attention(
            heads=heads, kv_heads=heads, qkv_bias=True, out_bias=True,
            head_dim=_derived_head_dim(keys, "hidden_size", "num_attention_heads",
                                       "as BertSelfAttention does")),
        ffn=FeedForward(width=keys.integer("intermediate_size"), gated=False, bias=True,
                        activation=activation(keys, "hidden_act")),
        norm=Norm(kind="layernorm", eps=keys.number("layer_norm_eps"), placement="post",
                  embedding=True, final=False),
        position=Position(kind="learned", max_positions=positions, rows=positions),
        type_vocab=keys.integer("type_vocab_size", default=2, source="as BertConfig does"),
        pooler=True)


def _llama_like(keys: Keys, source: str, *, head_dim: int, kv_heads: int, qkv_bias: bool = False,
                out_bias: bool = False, mlp_bias: bool = False, qk_norm: bool = False,
                window: int | None = None) -> Model:
    """The block LLaMA, Mistral and Qwen share: RMS norms before, rotation, gated feed-forward."""
    keys.only("partial_rotary_factor", 1.0, "a partial rotation is not built")
    heads = keys.integer("num_attention_heads")
    if heads % kv_heads:
        raise keys.error("num_key_value_heads", f"a divisor of num_attention_heads ({heads})",
                         kv_heads)
    return Model(
        name="", family=str(keys.values["model_type"]), kind="decoder",
        layers=keys.integer("num_hidden_layers"), d_model=keys.integer("hidden_size"),
        vocab=keys.integer("vocab_size"),
        attention=Attention(heads=heads, kv_heads=kv_heads, head_dim=head_dim, qkv_bias=qkv_bias,
                            out_bias=out_bias, qk_norm=qk_norm, window=window),
        ffn=FeedForward(width=keys.integer("intermediate_size"), gated=True, bias=mlp_bias,
                        activation=activation(keys, "hidden_act")),
        norm=Norm(kind="rmsnorm", eps=keys.number("rms_norm_eps"), placement="pre"),
        position=rope_position(keys, 10000.0, source),
        tied_embeddings=keys.flag("tie_word_embeddings", default=False, source=source))


def llama(keys: Keys) -> Model:
    """LLaMA 1 to 3 (transformers ``models/llama/modeling_llama.py``, ``LlamaForCausalLM``)."""
    source = "as LlamaConfig does"
    bias = keys.flag("attention_bias", default=False, source=source)
    return _llama_like(
        keys, source, head_dim=head_dim(keys, "as LlamaAttention does"),
        kv_heads=keys.integer("num_key_value_heads", default=keys.integer("num_attention_heads"),
                              source="num_attention_heads, " + source),
        qkv_bias=bias, out_bias=bias,
        mlp_bias=keys.flag("mlp_bias", default=False, source=source))


def mistral(keys: Keys) -> Model:
    """Mistral (transformers ``models/mistral/modeling_mistral.py``, ``MistralForCausalLM``).

    A ``sliding_window`` of null is none.
    """
    source = "as MistralConfig does"
    window = None
    if "sliding_window" not in keys.values or keys.has("sliding_window"):
        window = keys.integer("sliding_window", default=4096, source=source)
    return _llama_like(keys, source, head_dim=head_dim(keys, "as MistralAttention does"),
                       kv_heads=keys.integer("num_key_value_heads"), window=window)


def qwen2(keys: Keys) -> Model:
    """Qwen2 and Qwen2.5 (transformers ``models/qwen2/modeling_qwen2.py``, ``Qwen2ForCausalLM``)."""
    _refuse_windowed_layers(keys)
    return _llama_like(keys, "as Qwen2Config does",
                       head_dim=head_dim(keys, "as Qwen2Attention does"),
                       kv_heads=keys.integer("num_key_value_heads"), qkv_bias=True)


def qwen3(keys: Keys) -> Model:
    """Qwen3, dense (transformers ``models/qwen3/modeling_qwen3.py``, ``Qwen3ForCausalLM``).

    Its ``head_dim`` is 128 where the file is silent, not a quotient.
    """
    source = "as Qwen3Config does"
    _refuse_windowed_layers(keys)
    bias = keys.flag("attention_bias", default=False, source=source)
    return _llama_like(keys, source,
                       head_dim=keys.integer("head_dim", default=128, source=source),
                       kv_heads=keys.integer("num_key_value_heads"), qkv_bias=bias, out_bias=bias,
                       qk_norm=True)


def _refuse_windowed_layers(keys: Keys) -> None:
    why = "a window in some layers only is not built"
    keys.only("use_sliding_window", False, why)
    if keys.has("layer_types"):
        keys.only("layer_types", ["full_attention"] * keys.integer("num_hidden_layers"), why)


FAMILIES: dict[str, Family] = {
    "bert": Family(read=bert, tensors=BERT_TENSORS),
    "gpt2": Family(read=gpt2, tensors=GPT2_TENSORS),
    "llama": Family(read=llama, tensors=LLAMA_TENSORS),
    "mistral": Family(read=mistral, tensors=LLAMA_TENSORS),
    "opt": Family(read=opt, tensors=OPT_TENSORS),
    "qwen2": Family(read=qwen2, tensors=LLAMA_TENSORS),
    "qwen3": Family(read=qwen3, tensors=LLAMA_TENSORS),
}
