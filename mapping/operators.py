"""From a model and a phase to the operators that compute it, in the order the reference runs them.

Rows are tokens, sequence by sequence. The query heads that share a key head are stacked into one
product of ``group * q_len`` rows, so that a grouped key is read once. Last-token selection stands
before the final norm, which works row by row, so a prefill norms and projects one row a sequence.
All sequences of a batch have one length: padding is not modelled.
"""

from dataclasses import replace
from typing import Literal

from machine.errors import must_be
from machine.vector import Mask, VectorOp
from mapping.model import Activation, Model
from mapping.workload import Matmul, Operator, Phase, Tensor, VectorStep, Workload

__all__ = ["Result", "operators"]

# states: every token's last hidden state; logits: of each sequence's last token; token: their
# argmax; pooler: BERT's tanh layer on the first token; sentence: normalised mean of the states.
Result = Literal["states", "logits", "token", "pooler", "sentence"]

_RESULTS: dict[str, tuple[Result, ...]] = {  # the first is the default
    "decoder": ("logits", "token", "states"), "encoder": ("states", "pooler", "sentence"),
}
_NORMS = {"layernorm": VectorOp.LAYERNORM, "rmsnorm": VectorOp.RMSNORM}
_ACTIVATIONS: dict[Activation, VectorOp] = {
    "gelu": VectorOp.GELU, "gelu_tanh": VectorOp.GELU_TANH, "relu": VectorOp.RELU,
    "silu": VectorOp.SILU,
}


def operators(model: Model, phase: Phase, result: Result | None = None) -> Workload:
    """Return what `model` computes in `phase` up to `result` (logits or an encoder's states).

    Raises `UserError` if the model has no such phase, result or position.
    """
    kinds = ("encode",) if model.kind == "encoder" else ("prefill", "decode")
    if phase.kind not in kinds:
        raise must_be("phase", f"{' or '.join(kinds)} for the {model.kind} {model.name}",
                      phase.kind)
    known = _RESULTS[model.kind]
    if result is None:
        result = known[0]
    if result not in known or (result == "pooler" and not model.pooler):
        raise must_be("result", f"{', '.join(known)} for the {model.kind} {model.name}", result)
    longest = model.position.max_positions
    if model.position.kind == "learned" and phase.kv_len > longest:
        raise must_be("kv_len", f"at most {longest}, the positions {model.name} learned",
                      phase.kv_len)
    builder = _Builder(model, phase)
    return Workload(phase=phase, layers=model.layers, before=builder.embedding(),
                    body=builder.layer(), after=builder.result(result))


class _Builder:
    """Writes operators one after another; each method returns the tensor it made."""

    def __init__(self, model: Model, phase: Phase) -> None:
        self.model = model
        self.phase = phase
        self.written: list[Operator] = []
        self.hidden = Tensor("hidden", (phase.batch, phase.q_len, model.d_model))

    def embedding(self) -> tuple[Operator, ...]:
        """Tokens to the hidden state that enters the first layer."""
        model, phase = self.model, self.phase
        rows = (phase.batch, phase.q_len)
        tables = [("token", model.vocab, 0)]
        if model.position.kind == "learned":
            tables.append(("position", model.position.rows,
                           phase.position_base + model.position.offset))
        if model.type_vocab:
            tables.append(("type", model.type_vocab, 0))
        total: Tensor | None = None
        for kind, entries, base in tables:
            table = Tensor(f"embed.{kind}.weight", (entries, model.d_model), "weight")
            index = Tensor(f"{kind}_index", rows, "index")
            part = self._vector(f"embed.{kind}", VectorOp.GATHER, (table, index),
                                self._like(f"embed.{kind}"), position_base=base)
            total = part if total is None else self._vector(
                f"embed.add_{kind}", VectorOp.ADD, (total, part), self._like(f"embed.{kind}_sum"))
        if model.norm.embedding and total is not None:
            self._norm("embed.norm", total, "embed.normed")
        return self._take(self.hidden)

    def layer(self) -> tuple[Operator, ...]:
        """The body of every layer: hidden state in, hidden state out."""
        before = self.model.norm.placement == "pre"
        x = self.hidden
        for name, part in (("attention", self._attention), ("ffn", self._feed_forward)):
            inside = self._norm(f"layer.{name}_norm", x, f"layer.{name}_in") if before else x
            made = part(inside)
            x = self._vector(f"layer.{name}_residual", VectorOp.ADD, (x, made),
                             self._like(f"layer.{name}_sum"))
            if not before:
                x = self._norm(f"layer.{name}_norm", x, f"layer.{name}_normed")
        return self._take(self.hidden)

    def result(self, result: Result) -> tuple[Operator, ...]:
        """The last layer's hidden state to `result`."""
        model, batch = self.model, self.phase.batch
        x = self.hidden
        if result in ("logits", "token") and self.phase.q_len > 1:
            x = self._one_of_each("last_token", x)
        if model.norm.final:
            x = self._norm("final_norm", x, "states")
        if result in ("logits", "token"):
            stem = "embed.token" if model.tied_embeddings else "lm_head"
            x = self._project("lm_head", x, model.vocab, bias=False, weight=stem, out="logits")
        if result == "token":
            self._vector("argmax", VectorOp.ARGMAX, (x,), Tensor("next_token", (batch,), "index"),
                         rows=batch, width=model.vocab)
        if result == "pooler":
            x = self._one_of_each("first_token", x)
            x = self._project("pooler", x, model.d_model, bias=True, out="pooler_sum")
            self._vector("pooler.tanh", VectorOp.TANH, (x,), Tensor("pooled", x.shape))
        if result == "sentence":
            token_mask = Tensor("token_mask", (batch, self.phase.q_len), "index")
            mean = self._vector("mean_pool", VectorOp.MEAN_POOL, (x, token_mask),
                                Tensor("mean", (batch, model.d_model)), rows=self.phase.tokens)
            self._vector("normalise", VectorOp.L2NORM, (mean,), Tensor("sentence", mean.shape))
        return self._take(None)

    def _attention(self, x: Tensor) -> Tensor:
        heads, phase = self.model.attention, self.phase
        q = self._heads("q", x, heads.heads)
        k = self._heads("k", x, heads.kv_heads)
        v = self._heads("v", x, heads.kv_heads)
        if self.model.kind == "decoder":
            k, v = self._append("k", k), self._append("v", v)
        keys = phase.kv_len
        if heads.window is not None:
            keys = min(keys, phase.q_len + heads.window - 1)
        pairs, stacked = phase.batch * heads.kv_heads, heads.group * phase.q_len
        scores = self._matmul(
            Matmul(name="layer.scores", count=pairs, m=stacked, n=keys, k=heads.head_dim, a=q, b=k,
                   out=Tensor("layer.scores", (phase.batch, heads.kv_heads, stacked, keys)),
                   scale=heads.head_dim**-0.5))
        probabilities = self._softmax(scores, keys)
        context = self._matmul(
            Matmul(name="layer.attend", count=pairs, m=stacked, n=heads.head_dim, k=keys,
                   a=probabilities, b=v, b_rows="k", out=Tensor("layer.context", q.shape)))
        return self._project("layer.out", context, self.model.d_model, bias=heads.out_bias)

    def _heads(self, stem: str, x: Tensor, heads: int) -> Tensor:
        """Project to `heads` heads; queries and keys are then normed and rotated if need be."""
        attention, position = self.model.attention, self.model.position
        flat = self._project(f"layer.{stem}", x, heads * attention.head_dim,
                             bias=attention.qkv_bias)
        made = Tensor(flat.name, (self.phase.batch, self.phase.q_len, heads, attention.head_dim))
        if stem == "v":
            return made
        if attention.qk_norm:
            gain = Tensor(f"layer.{stem}_norm.weight", (attention.head_dim,), "vector")
            made = self._vector(f"layer.{stem}_norm", VectorOp.RMSNORM, (made, gain),
                                Tensor(f"layer.{stem}_normed", made.shape),
                                eps=self.model.norm.eps)
        if position.kind == "rope":
            made = self._vector(f"layer.{stem}_rope", VectorOp.ROPE, (made,),
                                Tensor(f"layer.{stem}_rotated", made.shape),
                                position_base=self.phase.position_base)
        return made

    def _append(self, stem: str, new: Tensor) -> Tensor:
        batch, _, heads, width = new.shape
        cache = Tensor(f"layer.{stem}_cache", (batch, heads, self.phase.kv_len, width), "kv")
        place = Tensor("cache_index", (batch, self.phase.q_len), "index")
        return self._vector(f"layer.{stem}_append", VectorOp.SCATTER, (new, place), cache,
                            rows=self.phase.tokens * heads, width=width)

    def _softmax(self, scores: Tensor, keys: int) -> Tensor:
        phase, window = self.phase, self.model.attention.window
        mask = Mask.CAUSAL if window is None or phase.kv_len <= window else Mask.WINDOW
        if phase.kind == "encode" or phase.q_len == 1:
            mask = Mask.NONE
        return self._vector("layer.softmax", VectorOp.SOFTMAX, (scores,),
                            Tensor("layer.probabilities", scores.shape), mask=mask,
                            window=window if mask is Mask.WINDOW else None,
                            position_base=keys - phase.q_len)

    def _feed_forward(self, x: Tensor) -> Tensor:
        ffn = self.model.ffn
        act = _ACTIVATIONS[ffn.activation]
        gate = self._project("layer.gate", x, ffn.width, bias=ffn.bias) if ffn.gated else None
        up = self._project("layer.up", x, ffn.width, bias=ffn.bias)
        if gate is None:
            inner = self._vector("layer.activation", act, (up,), Tensor("layer.inner", up.shape))
        else:
            active = self._vector("layer.activation", act, (gate,),
                                  Tensor("layer.gate_active", gate.shape))
            inner = self._vector("layer.gating", VectorOp.MUL, (active, up),
                                 Tensor("layer.inner", up.shape))
        return self._project("layer.down", inner, self.model.d_model, bias=ffn.bias)

    def _project(self, name: str, x: Tensor, width: int, *, bias: bool, weight: str = "",
                 out: str = "") -> Tensor:
        rows = x.shape[0] if len(x.shape) == 2 else x.shape[0] * x.shape[1]
        inputs, stem = x.elements // rows, weight or name
        return self._matmul(Matmul(
            name=name, m=rows, n=width, k=inputs, a=x,
            b=Tensor(f"{stem}.weight", (width, inputs), "weight"),
            bias=Tensor(f"{stem}.bias", (width,), "vector") if bias else None,
            out=Tensor(out or name, (*x.shape[: min(2, len(x.shape) - 1)], width))))

    def _norm(self, name: str, x: Tensor, out: str) -> Tensor:
        norm, width = self.model.norm, (self.model.d_model,)
        endings = ("weight", "bias") if norm.kind == "layernorm" else ("weight",)
        gains = tuple(Tensor(f"{name}.{ending}", width, "vector") for ending in endings)
        return self._vector(name, _NORMS[norm.kind], (x, *gains), Tensor(out, x.shape),
                            eps=norm.eps)

    def _one_of_each(self, name: str, x: Tensor) -> Tensor:
        index = Tensor(f"{name}_index", (self.phase.batch,), "index")
        return self._vector(name, VectorOp.GATHER, (x, index),
                            Tensor(name, (self.phase.batch, self.model.d_model)))

    def _like(self, name: str) -> Tensor:
        return Tensor(name, self.hidden.shape)

    def _matmul(self, operator: Matmul) -> Tensor:
        self.written.append(operator)
        return operator.out

    def _vector(self, name: str, op: VectorOp, inputs: tuple[Tensor, ...], out: Tensor, *,
                rows: int = 0, width: int = 0, mask: Mask = Mask.NONE, window: int | None = None,
                position_base: int = 0, eps: float = 0.0) -> Tensor:
        """Write a step; rows and width are those of `out` unless given."""
        width = width or out.shape[-1]
        self.written.append(VectorStep(
            name=name, op=op, rows=rows or out.elements // width, width=width, inputs=inputs,
            out=out, mask=mask, window=window, position_base=position_base, eps=eps))
        return out

    def _take(self, renamed: Tensor | None) -> tuple[Operator, ...]:
        """Return what was written since the last call, the last output renamed."""
        taken, self.written = self.written, []
        if renamed is not None:
            taken[-1] = replace(taken[-1], out=renamed)
        return tuple(taken)
