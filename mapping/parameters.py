"""The parameters of a model: their names, shapes and exact number.

Names are ours, the same for every family: ``embed.token.weight``, ``layer.q.weight``,
``final_norm.weight``. A name that starts with ``layer.`` stands once for each layer. A matrix is
[outputs, inputs]. Counts are those of the reference implementation's parameters: a tied head counts
once, buffers do not count.
"""

from dataclasses import dataclass
from math import prod

from mapping.formats import Formats, TensorRole
from mapping.model import Model

__all__ = ["Parameter", "parameter_bytes", "parameter_count", "parameters"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One parameter tensor, or the equal ones of all layers."""

    name: str
    shape: tuple[int, ...]  # of one copy
    copies: int = 1  # the number of layers for a layer's parameter

    @property
    def elements(self) -> int:
        """Elements of all copies."""
        return prod(self.shape) * self.copies

    @property
    def role(self) -> TensorRole:
        """A matrix or table is a weight, a gain or bias a vector."""
        return "weight" if len(self.shape) > 1 else "vector"


def parameters(model: Model) -> tuple[Parameter, ...]:
    """Return every parameter of `model`, in the order data meets them."""
    before = _embedding(model)
    body = [Parameter(name="layer." + p.name, shape=p.shape, copies=model.layers)
            for p in _layer(model)]
    return (*before, *body, *_head(model))


def parameter_count(model: Model) -> int:
    """Return the exact number of parameters of `model`."""
    return sum(parameter.elements for parameter in parameters(model))


def parameter_bytes(model: Model, formats: Formats) -> int:
    """Return the bytes of all parameters of `model`, each tensor packed in its format."""
    return sum(p.copies * formats.tensor_bytes(p.role, p.shape) for p in parameters(model))


def _matrix(stem: str, outputs: int, inputs: int, bias: bool = False) -> list[Parameter]:
    weight = Parameter(name=f"{stem}.weight", shape=(outputs, inputs))
    return [weight, Parameter(name=f"{stem}.bias", shape=(outputs,))] if bias else [weight]


def _norm(model: Model, stem: str) -> list[Parameter]:
    endings = ("weight", "bias") if model.norm.kind == "layernorm" else ("weight",)
    return [Parameter(name=f"{stem}.{ending}", shape=(model.d_model,)) for ending in endings]


def _embedding(model: Model) -> list[Parameter]:
    found = _matrix("embed.token", model.vocab, model.d_model)
    if model.position.kind == "learned":
        found += _matrix("embed.position", model.position.rows, model.d_model)
    if model.type_vocab:
        found += _matrix("embed.type", model.type_vocab, model.d_model)
    return found + (_norm(model, "embed.norm") if model.norm.embedding else [])


def _layer(model: Model) -> list[Parameter]:
    attention, ffn, d_model = model.attention, model.ffn, model.d_model
    heads = [*_matrix("q", attention.q_width, d_model, attention.qkv_bias),
             *_matrix("k", attention.kv_width, d_model, attention.qkv_bias),
             *_matrix("v", attention.kv_width, d_model, attention.qkv_bias)]
    if attention.qk_norm:
        heads += [Parameter(name=f"{stem}.weight", shape=(attention.head_dim,))
                  for stem in ("q_norm", "k_norm")]
    heads += _matrix("out", d_model, attention.q_width, attention.out_bias)
    forward = _matrix("gate", ffn.width, d_model, ffn.bias) if ffn.gated else []
    forward += _matrix("up", ffn.width, d_model, ffn.bias)
    forward += _matrix("down", d_model, ffn.width, ffn.bias)
    if model.norm.placement == "pre":
        return [*_norm(model, "attention_norm"), *heads, *_norm(model, "ffn_norm"), *forward]
    return [*heads, *_norm(model, "attention_norm"), *forward, *_norm(model, "ffn_norm")]


def _head(model: Model) -> list[Parameter]:
    found = _norm(model, "final_norm") if model.norm.final else []
    if model.pooler:
        found += _matrix("pooler", model.d_model, model.d_model, bias=True)
    if model.kind == "decoder" and not model.tied_embeddings:
        found += _matrix("lm_head", model.vocab, model.d_model)
    return found
