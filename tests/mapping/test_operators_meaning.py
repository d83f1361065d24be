"""The operators compute the model: run one by one on random data, against the textbook formulas.

`run` executes a workload's operators on float64 arrays and knows nothing of models. `Textbook` is
written from the reference implementations' formulas, token by token and head by head, and knows
nothing of operators.
"""

from math import erf

import numpy as np
import pytest

from machine.vector import Mask, VectorOp
from mapping.families import model_of
from mapping.operators import operators
from mapping.parameters import parameters
from mapping.workload import Matmul, decode, encode, prefill

BASE = {
    "hidden_size": 12, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 11,
    "max_position_embeddings": 32, "intermediate_size": 10, "hidden_act": "silu",
}
GATED = BASE | {"rms_norm_eps": 1e-5, "num_key_value_heads": 2, "rope_theta": 50.0}
MODELS = {
    "llama, biased": GATED | {"model_type": "llama", "head_dim": 6, "attention_bias": True,
                              "mlp_bias": True},
    "mistral, window 3": GATED | {"model_type": "mistral", "sliding_window": 3, "head_dim": 4},
    "qwen2": GATED | {"model_type": "qwen2", "head_dim": 2},
    "qwen3, tied": GATED | {"model_type": "qwen3", "head_dim": 8, "tie_word_embeddings": True},
    "gpt2": {"model_type": "gpt2", "n_embd": 12, "n_head": 3, "n_layer": 2, "n_positions": 32,
             "vocab_size": 11, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new"},
    "opt": BASE | {"model_type": "opt", "ffn_dim": 10, "activation_function": "relu",
                   "word_embed_proj_dim": 12},
    "opt, post": BASE | {"model_type": "opt", "ffn_dim": 10, "activation_function": "relu",
                         "word_embed_proj_dim": 12, "do_layer_norm_before": False},
}
BERT = BASE | {"model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": 1e-12}


def random_parameters(model):
    """Name and layer (None outside the layers) to array."""
    random = np.random.default_rng(7)
    return {(p.name, layer): random.normal(size=p.shape)
            for p in parameters(model)
            for layer in (range(model.layers) if p.name.startswith("layer.") else [None])}


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(erf)(x / 2**0.5))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))


def silu(x):
    return x / (1 + np.exp(-x))


# Operators, one by one.


def rotate_rows(x, positions, theta):
    """Rotate x [B, T, H, D]: the first half of a head is the cosine side."""
    half = x.shape[-1] // 2
    angle = positions[:, None] * theta ** (-np.arange(half) / half)
    cos, sin = np.cos(angle)[None, :, None], np.sin(angle)[None, :, None]
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def masked_softmax(step, x, q_len):
    row = step.position_base + np.arange(x.shape[-2])[:, None] % q_len
    key = np.arange(x.shape[-1])[None]
    hidden = np.zeros((x.shape[-2], x.shape[-1]), bool)
    if step.mask is not Mask.NONE:
        hidden |= key > row
    if step.mask is Mask.WINDOW:
        hidden |= key <= row - step.window
    x = np.exp(np.where(hidden, -np.inf, x))
    return x / x.sum(axis=-1, keepdims=True)


class Run:
    """A workload executed on arrays; caches survive from one phase to the next."""

    def __init__(self, model):
        self.theta = model.position.theta
        self.weights = random_parameters(model)
        self.caches = {}

    def __call__(self, workload, tokens, types=None):
        self.phase = workload.phase
        base, rows = self.phase.position_base, tokens.shape
        offset = {o.name: o.position_base for o in workload.before if not isinstance(o, Matmul)}
        place = np.broadcast_to(np.arange(rows[1]), rows)
        self.values = {
            "token_index": tokens, "type_index": types,
            "position_index": place + offset.get("embed.position", 0),
            "cache_index": base + np.arange(rows[1]),
            "last_token_index": np.full(rows[0], rows[1] - 1),
            "first_token_index": np.zeros(rows[0], int), "token_mask": np.ones(rows),
        }
        for layer, operator in workload.walk():
            made = (self.product if isinstance(operator, Matmul) else self.step)(operator, layer)
            self.values[operator.out.name] = made
        return self.values[operator.out.name]

    def get(self, tensor, layer):
        if tensor.role in ("weight", "vector"):
            return self.weights[tensor.name, layer if tensor.name.startswith("layer.") else None]
        return self.values[tensor.name]

    def product(self, op, layer):
        a, b = self.get(op.a, layer), self.get(op.b, layer)
        if op.weight:
            made = a.reshape(op.m, op.k) @ b.T + (self.get(op.bias, layer) if op.bias else 0)
            return made.reshape(op.out.shape)
        batch, q_len = self.phase.batch, self.phase.q_len
        pairs = op.count // batch
        if op.b.role != "kv":  # an encoder's keys and values: tokens, then heads
            b = b.reshape(batch, q_len, pairs, -1).swapaxes(1, 2)
        if op.b_rows == "k":
            b = b[..., b.shape[2] - op.k:, :]
            made = (a @ b).reshape(batch, -1, q_len, op.n)
            return made.swapaxes(1, 2)
        a = a.reshape(batch, q_len, -1, op.k).swapaxes(1, 2).reshape(batch, pairs, op.m, op.k)
        return op.scale * a @ b[..., b.shape[2] - op.n:, :].swapaxes(-1, -2)

    def step(self, op, layer):
        x, *others = (self.get(t, layer) for t in op.inputs)
        x = x.reshape(op.inputs[0].shape) if x is not None else x
        match op.op:
            case VectorOp.GATHER if op.inputs[0].role == "weight":
                return x[others[0]]
            case VectorOp.GATHER:
                return x[np.arange(len(x)), others[0]]
            case VectorOp.SCATTER:
                old = self.caches.get((op.out.name, layer))
                new = x.swapaxes(1, 2)
                cache = new if old is None else np.concatenate([old, new], axis=2)
                assert cache.shape == op.out.shape and others[0][0] == cache.shape[2] - x.shape[1]
                self.caches[op.out.name, layer] = cache
                return cache
            case VectorOp.LAYERNORM:
                centred = x - x.mean(axis=-1, keepdims=True)
                spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + op.eps)
                return centred / spread * others[0] + others[1]
            case VectorOp.RMSNORM:
                return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + op.eps) * others[0]
            case VectorOp.ROPE:
                return rotate_rows(x, op.position_base + np.arange(x.shape[1]), self.theta)
            case VectorOp.SOFTMAX:
                return masked_softmax(op, x, self.phase.q_len)
            case VectorOp.MEAN_POOL:
                return (x * others[0][..., None]).sum(axis=1) / others[0].sum(axis=1)[:, None]
            case VectorOp.L2NORM:
                return x / np.sqrt((x**2).sum(axis=-1, keepdims=True))
            case VectorOp.ADD:
                return x + others[0]
            case VectorOp.MUL:
                return x * others[0]
            case VectorOp.ARGMAX:
                return x.argmax(axis=-1).reshape(op.out.shape)
        return {VectorOp.GELU: gelu, VectorOp.GELU_TANH: gelu_tanh, VectorOp.SILU: silu,
                VectorOp.RELU: lambda v: np.maximum(v, 0), VectorOp.TANH: np.tanh}[op.op](x)


# The textbook, token by token.


class Textbook:
    """One sequence at a time, each token and head on its own."""

    def __init__(self, model):
        self.model = model
        self.w = random_parameters(model)

    def linear(self, stem, x, layer=None):
        bias = self.w.get((f"{stem}.bias", layer), 0)
        return self.w[f"{stem}.weight", layer] @ x + bias

    def norm(self, stem, x, layer=None):
        gain, eps = self.w[f"{stem}.weight", layer], self.model.norm.eps
        if self.model.norm.kind == "rmsnorm":
            return gain * x / np.sqrt(np.mean(x * x) + eps)
        return gain * (x - x.mean()) / np.sqrt(x.var() + eps) + self.w[f"{stem}.bias", layer]

    def turn(self, head, position):
        """Multiply each pair (i, i + half), as a complex number, by exp(i position f)."""
        half = len(head) // 2
        frequency = self.model.position.theta ** (-np.arange(half) * 2 / len(head))
        turned = (head[:half] + 1j * head[half:]) * np.exp(1j * position * frequency)
        return np.concatenate([turned.real, turned.imag])

    def heads(self, stem, x, position, layer):
        attention = self.model.attention
        heads = self.linear(f"layer.{stem}", x, layer).reshape(-1, attention.head_dim)
        if stem != "v" and attention.qk_norm:
            heads = [self.norm(f"layer.{stem}_norm", head, layer) for head in heads]
        if stem != "v" and self.model.position.kind == "rope":
            heads = [self.turn(head, position) for head in heads]
        return heads

    def attend(self, inside, layer):
        attention, made = self.model.attention, []
        q, k, v = ([self.heads(s, x, t, layer) for t, x in enumerate(inside)] for s in "qkv")
        for t in range(len(inside)):
            first = 0 if attention.window is None else max(0, t - attention.window + 1)
            last = len(inside) if self.model.kind == "encoder" else t + 1
            context = []
            for head in range(attention.heads):
                shared = head // (attention.heads // attention.kv_heads)
                score = np.array([q[t][head] @ k[j][shared] for j in range(first, last)])
                share = np.exp(score / np.sqrt(attention.head_dim))
                share /= share.sum()
                context.append(sum(s * v[j][shared] for s, j in zip(share, range(first, last),
                                                                    strict=True)))
            made.append(self.linear("layer.out", np.concatenate(context), layer))
        return made

    def feed_forward(self, x, layer):
        act = {"gelu": gelu, "gelu_tanh": gelu_tanh, "silu": silu,
               "relu": lambda v: np.maximum(v, 0)}[self.model.ffn.activation]
        up = self.linear("layer.up", x, layer)
        inner = act(self.linear("layer.gate", x, layer)) * up if self.model.ffn.gated else act(up)
        return self.linear("layer.down", inner, layer)

    def states(self, tokens):
        model, xs = self.model, []
        for t, token in enumerate(tokens):
            x = self.w["embed.token.weight", None][token]
            if model.position.kind == "learned":
                x = x + self.w["embed.position.weight", None][t + model.position.offset]
            if model.type_vocab:
                x = x + self.w["embed.type.weight", None][0]
            xs.append(self.norm("embed.norm", x) if model.norm.embedding else x)
        before = model.norm.placement == "pre"
        for n in range(model.layers):
            inside = [self.norm("layer.attention_norm", x, n) for x in xs] if before else xs
            xs = [x + y for x, y in zip(xs, self.attend(inside, n), strict=True)]
            if before:
                xs = [x + self.feed_forward(self.norm("layer.ffn_norm", x, n), n) for x in xs]
            else:
                xs = [self.norm("layer.attention_norm", x, n) for x in xs]
                xs = [self.norm("layer.ffn_norm", x + self.feed_forward(x, n), n) for x in xs]
        return [self.norm("final_norm", x) for x in xs] if model.norm.final else xs

    def logits(self, tokens):
        head = "embed.token" if self.model.tied_embeddings else "lm_head"
        return self.linear(head, self.states(tokens)[-1])


TOKENS = np.array([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 10, 0]])


@pytest.mark.parametrize("name", MODELS)
def test_prefill_then_decode_gives_the_textbook_logits(name):
    model = model_of(MODELS[name], name=name)
    run, book = Run(model), Textbook(model)
    chunks = [(prefill(2, 4), 0, 4), (prefill(2, 2, cached=4), 4, 6), (decode(2, 7), 6, 7)]
    for phase, begin, end in chunks:
        logits = run(operators(model, phase), TOKENS[:, begin:end]).reshape(2, -1)
        want = [book.logits(tokens[:end]) for tokens in TOKENS]
        np.testing.assert_allclose(logits, want, rtol=1e-9, atol=1e-9)


def test_an_encoder_gives_the_textbook_states_pooled_vector_and_sentence():
    model = model_of(BERT, name="bert")
    run, book = Run(model), Textbook(model)
    states = np.array([book.states(tokens) for tokens in TOKENS])
    pooled = [np.tanh(book.linear("pooler", x[0])) for x in states]
    mean = states.mean(axis=1)
    want = {"states": states, "pooler": pooled,
            "sentence": mean / np.linalg.norm(mean, axis=1, keepdims=True)}
    for result, value in want.items():
        made = run(operators(model, encode(2, 7), result), TOKENS, np.zeros_like(TOKENS))
        np.testing.assert_allclose(made, value, rtol=1e-9, atol=1e-9)


def test_the_token_is_the_argmax_of_the_logits():
    model = model_of(MODELS["gpt2"], name="gpt2")
    token = Run(model)(operators(model, prefill(2, 7), "token"), TOKENS)
    assert token.tolist() == [int(np.argmax(Textbook(model).logits(t))) for t in TOKENS]
