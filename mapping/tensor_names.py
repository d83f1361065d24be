"""Where each family's checkpoint keeps the parameters that `mapping.parameters` names.

The names are those of the state dictionaries of Hugging Face transformers' reference models.
"""

from dataclasses import dataclass, field

__all__ = ["BERT_TENSORS", "GPT2_TENSORS", "LLAMA_TENSORS", "OPT_TENSORS", "TensorNames"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorNames:
    """Where a family's checkpoint keeps each parameter; our names are in `mapping.parameters`."""

    stems: dict[str, str]  # our stem -> the file's, before .weight or .bias; {layer} is the index
    prefixes: tuple[str, ...] = ("",)  # what may stand in front of every name
    transposed: frozenset[str] = frozenset()  # stems stored as [inputs, outputs]
    parts: dict[str, tuple[int, int]] = field(default_factory=dict)  # stem -> (part, of how many)


_DECODER_STEMS = {
    "embed.token": "embed_tokens",
    "layer.attention_norm": "layers.{layer}.input_layernorm",
    "layer.q": "layers.{layer}.self_attn.q_proj",
    "layer.q_norm": "layers.{layer}.self_attn.q_norm",
    "layer.k": "layers.{layer}.self_attn.k_proj",
    "layer.k_norm": "layers.{layer}.self_attn.k_norm",
    "layer.v": "layers.{layer}.self_attn.v_proj",
    "layer.out": "layers.{layer}.self_attn.o_proj",
    "layer.ffn_norm": "layers.{layer}.post_attention_layernorm",
    "layer.gate": "layers.{layer}.mlp.gate_proj",
    "layer.up": "layers.{layer}.mlp.up_proj",
    "layer.down": "layers.{layer}.mlp.down_proj",
    "final_norm": "norm",
    "lm_head": "lm_head",
}
LLAMA_TENSORS = TensorNames(stems=_DECODER_STEMS, prefixes=("model.", ""))
OPT_TENSORS = TensorNames(
    prefixes=("model.decoder.", "decoder.", ""),
    stems={
        "embed.token": "embed_tokens",
        "embed.position": "embed_positions",
        "layer.attention_norm": "layers.{layer}.self_attn_layer_norm",
        "layer.q": "layers.{layer}.self_attn.q_proj",
        "layer.k": "layers.{layer}.self_attn.k_proj",
        "layer.v": "layers.{layer}.self_attn.v_proj",
        "layer.out": "layers.{layer}.self_attn.out_proj",
        "layer.ffn_norm": "layers.{layer}.final_layer_norm",
        "layer.up": "layers.{layer}.fc1",
        "layer.down": "layers.{layer}.fc2",
        "final_norm": "final_layer_norm",
        "lm_head": "lm_head",
    })
GPT2_TENSORS = TensorNames(
    prefixes=("transformer.", ""),
    stems={
        "embed.token": "wte",
        "embed.position": "wpe",
        "layer.attention_norm": "h.{layer}.ln_1",
        "layer.q": "h.{layer}.attn.c_attn",
        "layer.k": "h.{layer}.attn.c_attn",
        "layer.v": "h.{layer}.attn.c_attn",
        "layer.out": "h.{layer}.attn.c_proj",
        "layer.ffn_norm": "h.{layer}.ln_2",
        "layer.up": "h.{layer}.mlp.c_fc",
        "layer.down": "h.{layer}.mlp.c_proj",
        "final_norm": "ln_f",
        "lm_head": "lm_head",
    },
    transposed=frozenset({"layer.q", "layer.k", "layer.v", "layer.out", "layer.up", "layer.down"}),
    parts={"layer.q": (0, 3), "layer.k": (1, 3), "layer.v": (2, 3)})
BERT_TENSORS = TensorNames(
    prefixes=("bert.", ""),
    stems={
        "embed.token": "embeddings.word_embeddings",
        "embed.position": "embeddings.position_embeddings",
        "embed.type": "embeddings.token_type_embeddings",
        "embed.norm": "embeddings.LayerNorm",
        "layer.q": "encoder.layer.{layer}.attention.self.query",
        "layer.k": "encoder.layer.{layer}.attention.self.key",
        "layer.v": "encoder.layer.{layer}.attention.self.value",
        "layer.out": "encoder.layer.{layer}.attention.output.dense",
        "layer.attention_norm": "encoder.layer.{layer}.attention.output.LayerNorm",
        "layer.up": "encoder.layer.{layer}.intermediate.dense",
        "layer.down": "encoder.layer.{layer}.output.dense",
        "layer.ffn_norm": "encoder.layer.{layer}.output.LayerNorm",
        "pooler": "pooler.dense",
    })
