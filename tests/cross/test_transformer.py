"""Mapped transformers, executed in golden, compute the model: against a plain float64 one.

In floating point the tolerance counts the roundings to FP16 on a token's way: each is 2**-11 of
its value, and the random networks here neither grow nor shrink what they pass on. In W8A8KV8 the
outputs point the same way: cosine at least 0.99.
"""

import numpy as np
import pytest
from scipy.special import erf

from archsim.parameters import program_tensors
from golden.execute import execute
from machine.control import Cursor, units
from machine.formats import format_named
from machine.load import read_machine
from machine.opcodes import Opcode
from machine.program import QueueKind, SymbolKind
from machine.vector import VectorOp
from machine.verify import verify
from mapping.families import model_of
from mapping.formats import parse_formats
from mapping.operators import operators
from mapping.parameters import parameter_bytes, parameters
from mapping.transformer import map_model
from mapping.workload import decode, encode, prefill

LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "hidden_act": "silu",
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
}
OPT = {
    "model_type": "opt", "hidden_size": 64, "word_embed_proj_dim": 64, "ffn_dim": 100,
    "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 90,
    "max_position_embeddings": 32, "activation_function": "relu", "do_layer_norm_before": True,
}
CONFIGS = {
    "llama": LLAMA,
    "llama-linear": LLAMA | {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "llama-3": LLAMA | {"rope_scaling": {
        "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}},
    "mistral": LLAMA | {"model_type": "mistral", "sliding_window": 4},
    "qwen2": LLAMA | {"model_type": "qwen2", "num_key_value_heads": 1, "rope_theta": 1000000.0},
    "qwen3": LLAMA | {"model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": True},
    "gpt2": {
        "model_type": "gpt2", "n_embd": 48, "n_head": 3, "n_layer": 2, "n_positions": 32,
        "vocab_size": 90, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
    },
    "opt": OPT,
    "opt-post": OPT | {"do_layer_norm_before": False},
    "bert": {
        "model_type": "bert", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "vocab_size": 100, "max_position_embeddings": 32,
        "hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2,
    },
}
DECODERS = [name for name in CONFIGS if name != "bert"]
FP16, CODED = "W16A16KV16", "W8A8KV8"
EMBED, PER_LAYER, HEAD = 2, 14, 3  # roundings to FP16 before, in and after the layers


def toy(name, **changes):
    """The model of a toy configuration."""
    return model_of(CONFIGS[name] | changes, name=name)


def random_parameters(model, seed=0):
    """Parameters that keep the size of what passes through."""
    rng = np.random.default_rng(seed)
    found = {}
    for p in parameters(model):
        shape = ((p.copies,) if p.name.startswith("layer.") else ()) + p.shape
        size = 1.0 if p.name.startswith("embed") else p.shape[-1] ** -0.5
        if "norm" in p.name:
            found[p.name] = rng.normal(1.0 if p.name.endswith("weight") else 0.0, 0.1, shape)
        else:
            found[p.name] = rng.normal(0, size if len(p.shape) > 1 else 0.1, shape)
    return found


def normalised(model, given, stem, x):
    gain, bias = given(f"{stem}.weight"), given(f"{stem}.bias")
    if model.norm.kind == "layernorm":
        x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(-1, keepdims=True) + model.norm.eps) * gain
    return x if bias is None else x + bias


def activated(name, x):
    match name:
        case "relu":
            return np.maximum(x, 0)
        case "silu":
            return x / (1 + np.exp(-x))
        case "gelu":
            return x / 2 * (1 + erf(x / np.sqrt(2)))
        case "gelu_tanh":
            return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def rotated(model, x):
    """x [tokens, heads, d], token t at position t, halves layout."""
    half = x.shape[-1] // 2
    turn = model.position.theta ** (-np.arange(half) / half)
    stretch = model.position.scaling
    if stretch is not None and stretch.kind == "linear":
        turn = turn / stretch.factor
    elif stretch is not None:
        low, high = stretch.low_freq_factor, stretch.high_freq_factor
        within = stretch.original_max_positions * turn / (2 * np.pi)
        kept = np.clip((within - low) / (high - low), 0, 1)
        turn = turn * kept + turn / stretch.factor * (1 - kept)
    angle = np.arange(len(x))[:, None, None] * turn
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angle)
    return np.concatenate([z.real, z.imag], axis=-1)


def attended(model, q, k, v):
    """Softmax attention of q [T, heads, d] over k and v [T, kv heads, d]."""
    t, heads, d = q.shape
    out = np.empty_like(q)
    near = np.arange(t)[:, None] - np.arange(t)
    seen = np.ones((t, t), bool)
    if model.kind == "decoder":
        seen = (near >= 0) & (near < (model.attention.window or t))
    for head in range(heads):
        pair = head // model.attention.group
        scores = np.where(seen, q[:, head] @ k[:, pair].T / np.sqrt(d), -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, head] = p / p.sum(-1, keepdims=True) @ v[:, pair]
    return out.reshape(t, -1)


def reference(model, given, ids):
    """Hidden states [tokens, d_model] after the last layer of one sequence, in float64."""
    a, post = model.attention, model.norm.placement == "post"
    x = given["embed.token.weight"][ids]
    if model.position.kind == "learned":
        x = x + given["embed.position.weight"][np.arange(len(ids)) + model.position.offset]
    if model.type_vocab:
        x = x + given["embed.type.weight"][0]
    if model.norm.embedding:
        x = normalised(model, given.get, "embed.norm", x)
    for layer in range(model.layers):
        def of(name, layer=layer):
            return given[f"layer.{name}"][layer] if f"layer.{name}" in given else None

        def linear(name, x, of=of):
            bias = of(f"{name}.bias")
            return x @ of(f"{name}.weight").T + (0 if bias is None else bias)

        def head(name, x, count, of=of, linear=linear):
            x = linear(name, x).reshape(len(x), count, a.head_dim)
            if a.qk_norm and name in "qk":
                x = x / np.sqrt((x * x).mean(-1, keepdims=True) + model.norm.eps)
                x = x * of(f"{name}_norm.weight")
            return rotated(model, x) if model.position.kind == "rope" and name in "qk" else x

        h = x if post else normalised(model, of, "attention_norm", x)
        q, k, v = (head(n, h, c) for n, c in (("q", a.heads), ("k", a.kv_heads), ("v", a.kv_heads)))
        x = x + linear("out", attended(model, q, k, v))
        x = h = normalised(model, of, "attention_norm", x) if post else x
        if not post:
            h = normalised(model, of, "ffn_norm", x)
        inner = linear("up", h)
        if model.ffn.gated:
            inner = inner * activated(model.ffn.activation, linear("gate", h))
        else:
            inner = activated(model.ffn.activation, inner)
        x = x + linear("down", inner)
        x = normalised(model, of, "ffn_norm", x) if post else x
    return x


def logits(model, given, ids):
    """Logits [vocab] after the last token of one sequence, in float64."""
    x = reference(model, given, ids)[-1]
    if model.norm.final:
        x = normalised(model, given.get, "final_norm", x)
    return given["embed.token.weight" if model.tied_embeddings else "lm_head.weight"] @ x


def mapped_on(model, phase, machine, formats):
    found = map_model(model, phase, machine, parse_formats(formats))
    assert hasattr(found, "program"), found.sentence
    return found


def assert_close(model, formats, got, want):
    """Judge outputs [rows, n] by the tolerance of their formats."""
    got, want = np.atleast_2d(got).astype(np.float64), np.atleast_2d(want)
    assert got.shape == want.shape
    if formats == FP16:
        roundings = EMBED + PER_LAYER * model.layers + HEAD
        wrong = np.sqrt(((got - want) ** 2).mean(-1) / (want**2).mean(-1)).max()
        assert wrong <= roundings * 2.0**-11, f"relative error {wrong}"
    else:
        cosine = (got * want).sum(-1) / np.sqrt((got**2).sum(-1) * (want**2).sum(-1))
        assert cosine.min() >= 0.99, f"cosine {cosine.min()}"


def faultless(mapped, launch, machine):
    faults = verify(mapped.program, launch, machine)
    assert not faults, "\n".join(str(fault) for fault in faults[:5])


@pytest.mark.parametrize("formats", [FP16, CODED])
@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("machine", ["tiny", "npu-hbm2"])
def test_a_prefill_gives_the_logits_of_the_model(machine, name, formats):
    model, machine = toy(name), read_machine(machine)
    given, batch, tokens = random_parameters(model), 2, 11
    ids = np.random.default_rng(1).integers(0, model.vocab, (batch, tokens))
    mapped = mapped_on(model, prefill(batch, tokens), machine, formats)
    launch = mapped.launch(tuple(ids.reshape(-1).tolist()))
    faultless(mapped, launch, machine)
    found = execute(mapped.program, program_tensors(mapped, given), launch)
    want = np.stack([logits(model, given, row) for row in ids])
    assert_close(model, formats, found.tensors["logits"], want)


@pytest.mark.parametrize("formats", [FP16, CODED])
@pytest.mark.parametrize("name", DECODERS)
def test_one_decode_program_serves_growing_caches(name, formats):
    model, machine = toy(name), read_machine("tiny")
    given, batch, steps = random_parameters(model), 3, 6
    ids = np.random.default_rng(2).integers(0, model.vocab, (batch, steps))
    mapped = mapped_on(model, decode(batch, 9), machine, formats)
    tensors, memory = program_tensors(mapped, given), None
    for step in range(steps):
        launch = mapped.launch(tuple(ids[:, step].tolist()), position=step)
        if step in (0, steps - 1):
            faultless(mapped, launch, machine)
        found = execute(mapped.program, tensors if step == 0 else {}, launch, memory=memory)
        memory = found.memory
        want = np.stack([logits(model, given, row[: step + 1]) for row in ids])
        assert_close(model, formats, found.tensors["logits"], want)


SHORT_ROWS = ("accumulator.bytes=1024",)  # scores of few keys: rows are cut into pieces


def merges(mapped, launch):
    """Scores [heads, group, queries, keys of a piece] of every merge, by block of queries."""
    found, scores = {}, None
    stream = next(s for s in mapped.program.streams if s.queue.kind is QueueKind.VECTOR)
    cursor = Cursor(mapped.program, stream, launch.values)
    while (step := cursor.next_step()) is not None:
        if mapped.program.ops[step.instruction.op_id] != "attention":
            continue
        vop = step.instruction.fields.get("vop")
        if vop == VectorOp.SOFTMAX:
            scores = mapped.program.operands[step.instruction.operands["x"]].shape
        elif vop == VectorOp.MERGE:
            found.setdefault(step.indices[:4], []).append(scores)
    return found


def pieces_of(mapped, launch):
    """The most pieces that a row of scores is cut into; 1 where none is merged."""
    return max((len(block) for block in merges(mapped, launch).values()), default=1)


@pytest.mark.parametrize("formats", [FP16, CODED])
@pytest.mark.parametrize("name", ["llama", "mistral", "opt"])
def test_rows_of_scores_in_pieces_give_the_logits_of_the_model(name, formats):
    model, machine = toy(name, max_position_embeddings=200), read_machine("tiny", SHORT_ROWS)
    given, batch, tokens = random_parameters(model), 1, 135
    ids = np.random.default_rng(6).integers(0, model.vocab, (batch, tokens))
    mapped = mapped_on(model, prefill(batch, tokens), machine, formats)
    launch = mapped.launch(tuple(ids.reshape(-1).tolist()))
    assert pieces_of(mapped, launch) > 1
    faultless(mapped, launch, machine)
    found = execute(mapped.program, program_tensors(mapped, given), launch)
    want = np.stack([logits(model, given, row) for row in ids])
    assert_close(model, formats, found.tensors["logits"], want)


def test_a_piece_that_no_query_of_a_block_sees_is_left_out():
    model, machine, tokens = toy("llama", max_position_embeddings=200), "tiny", 135
    mapped = mapped_on(model, prefill(1, tokens), read_machine(machine, SHORT_ROWS), CODED)
    blocks = merges(mapped, mapped.launch())
    seen = {}
    for (_, _, _, block), scores in blocks.items():
        _, _, queries, keys = scores[0]
        last = min(tokens, (block + 1) * queries)
        assert len(scores) == -(-last // keys)
        seen[len(scores)] = True
    assert len(seen) > 1, "every block has all pieces: nothing is left out"


@pytest.mark.parametrize("formats", [FP16, CODED])
@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_a_growing_cache_fills_one_piece_after_another(name, formats):
    """The last step has keys in every piece, those before it leave some of them empty."""
    model, machine = toy(name), read_machine("tiny", SHORT_ROWS)
    given, room = random_parameters(model), 100
    mapped = mapped_on(model, decode(1, room), machine, formats)
    assert pieces_of(mapped, mapped.launch((0,), position=room - 1)) > 1
    ids = np.random.default_rng(7).integers(0, model.vocab, room - 1)
    tensors, memory = program_tensors(mapped, given), None
    for step in range(room - 1):
        launch = mapped.launch((int(ids[step]),), position=step)
        found = execute(mapped.program, tensors if step == 0 else {}, launch, memory=memory)
        memory = found.memory
        if step in (0, 40, 64, room - 2):
            faultless(mapped, launch, machine)
            assert_close(model, formats, found.tensors["logits"],
                         logits(model, given, ids[: step + 1]))


@pytest.mark.parametrize("formats", [FP16, CODED])
@pytest.mark.parametrize("name", ["llama", "mistral", "opt"])
def test_decode_goes_on_from_the_cache_a_prefill_left(name, formats):
    model, machine = toy(name), read_machine("tiny")
    given, room = random_parameters(model), 16
    ids = np.random.default_rng(3).integers(0, model.vocab, (1, 12))
    first = mapped_on(model, prefill(1, 9), machine, formats)
    then = mapped_on(model, decode(1, room), machine, formats)
    left = execute(first.program, program_tensors(first, given),
                   first.launch(tuple(ids[0, :9].tolist())))
    tensors = program_tensors(then, given)
    for symbol in then.program.symbols:
        if symbol.kind is SymbolKind.STATE:
            filled = np.zeros(symbol.shape, left.tensors[symbol.name].dtype)
            filled[:, :, :, :9] = left.tensors[symbol.name]
            tensors[symbol.name] = filled
    memory = None
    for step in range(9, 12):
        launch = then.launch((int(ids[0, step]),), position=step)
        found = execute(then.program, tensors if step == 9 else {}, launch, memory=memory)
        memory = found.memory
        assert_close(model, formats, found.tensors["logits"],
                     logits(model, given, ids[0, : step + 1]))


@pytest.mark.parametrize("formats", [FP16, CODED])
@pytest.mark.parametrize("machine", ["tiny", "npu-hbm2"])
@pytest.mark.parametrize("tokens", [17, 10, 1])
def test_one_encoder_program_serves_shorter_texts(machine, tokens, formats):
    model, machine = toy("bert"), read_machine(machine)
    given = random_parameters(model)
    ids = np.random.default_rng(4).integers(0, model.vocab, tokens)
    mapped = mapped_on(model, encode(1, 17), machine, formats)
    launch = mapped.launch(tuple(ids.tolist()))
    faultless(mapped, launch, machine)
    found = execute(mapped.program, program_tensors(mapped, given), launch)
    assert_close(model, formats, found.tensors["hidden"][:tokens], reference(model, given, ids))


@pytest.mark.parametrize("formats", [FP16, CODED])
def test_an_encoder_keeps_the_texts_of_a_batch_apart(formats):
    model, machine = toy("bert"), read_machine("tiny")
    given = random_parameters(model)
    ids = np.random.default_rng(5).integers(0, model.vocab, (3, 7))
    mapped = mapped_on(model, encode(3, 7), machine, formats)
    launch = mapped.launch(tuple(ids.reshape(-1).tolist()))
    faultless(mapped, launch, machine)
    found = execute(mapped.program, program_tensors(mapped, given), launch)
    want = np.concatenate([reference(model, given, row) for row in ids])
    assert_close(model, formats, found.tensors["hidden"], want)


def macs(mapped):
    """Multiply-accumulates of the program's MATMULs, by operator, edges applied."""
    found = dict.fromkeys(mapped.program.ops, 0)
    launch, described = mapped.launch(), mapped.program.operands
    for stream in mapped.program.streams:
        cursor = Cursor(mapped.program, stream, launch.values)
        while (step := cursor.next_step()) is not None:
            if step.instruction.opcode != Opcode.MATMUL:
                continue
            for rank, _ in units(step.instruction.unit_mask):
                a, w = (step.resolve(described[step.instruction.operands[role]], rank)
                        for role in ("a", "w"))
                assert a.shape[-1] == w.shape[-2] or not a.elements or not w.elements
                found[mapped.program.ops[step.instruction.op_id]] += a.elements * w.shape[-1]
    return found


@pytest.mark.parametrize("phase", ["step", "long"])
@pytest.mark.parametrize("machine", ["tiny", "npu-hbm2"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_program_multiplies_as_often_as_the_operators_say(machine, name, phase):
    """Exactly, but for a gated pair's columns, which are padded to whole blocks of both halves."""
    model = toy(name)
    long = encode(2, 13) if name == "bert" else prefill(2, 13)
    phase = long if phase == "long" else encode(1, 1) if name == "bert" else decode(3, 4)
    mapped = mapped_on(model, phase, read_machine(machine), CODED)
    got, want, padding = macs(mapped), operators(model, phase), 0
    for product, tiling in mapped.tilings:
        if product == "up" and model.ffn.gated:
            columns = -(-2 * model.ffn.width // tiling.n) * tiling.n - 2 * model.ffn.width
            padding = model.layers * phase.tokens * columns * model.d_model
    assert sum(got.values()) - padding == want.macs
    of_keys = [o for layer, o in want.walk() if o.name in ("layer.scores", "layer.attend")]
    assert got["attention"] == sum(o.macs for o in of_keys)


@pytest.mark.parametrize("formats", [FP16, CODED])
@pytest.mark.parametrize("name", DECODERS)
def test_a_step_reads_every_weight_from_dram(name, formats):
    """At least the bytes of all parameters but embedding tables, of which it reads rows."""
    model, parsed = toy(name), parse_formats(formats)
    mapped = mapped_on(model, decode(2, 8), read_machine("tiny"), formats)
    launch, described = mapped.launch(), mapped.program.operands
    constants = [s for s in mapped.program.symbols if s.kind is SymbolKind.CONST]
    read = 0
    for stream in mapped.program.streams:
        cursor = Cursor(mapped.program, stream, launch.values)
        while (step := cursor.next_step()) is not None:
            if step.instruction.opcode != Opcode.LOAD:
                continue
            src = described[step.instruction.operands["src"]]
            if any(s.address_bytes <= src.address_bytes < s.address_bytes + 2**15
                   for s in constants if not s.name.startswith("embed.")):
                read += step.resolve(src).elements * format_named(src.format).bits // 8
    tables = sum(p.copies * parsed.tensor_bytes(p.role, p.shape) for p in parameters(model)
                 if p.name.startswith("embed."))
    if model.tied_embeddings:
        tables -= parsed.tensor_bytes("weight", (model.vocab, model.d_model))
    assert read >= parameter_bytes(model, parsed) - tables


# Machines on which everything is cut: few rows at once, several blocks of m, n and k, units that
# have nothing to do in the last block, arrays in groups.
CUT = {
    "few rows, many units": ["scratchpad.bytes=32768", "vectors.0.count=8", "arrays.0.count=4"],
    "odd units": ["scratchpad.bytes=32768", "vectors.0.count=3", "arrays.0.count=6"],
    "small sums": ["accumulator.bytes=2048", "arrays.0.count=2", "vectors.0.count=2"],
}


@pytest.mark.parametrize("formats", [FP16, CODED])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize("cut", CUT)
def test_a_program_cut_into_many_blocks_still_computes_the_model(cut, name, formats):
    changes = {} if name == "gpt2" else {"hidden_size": 192}
    model, machine, tokens = toy(name, **changes), read_machine("tiny", CUT[cut]), 23
    given = random_parameters(model)
    ids = np.random.default_rng(6).integers(0, model.vocab, tokens)
    phase = encode(1, tokens) if name == "bert" else prefill(1, tokens)
    mapped = mapped_on(model, phase, machine, formats)
    launch = mapped.launch(tuple(ids.tolist()))
    faultless(mapped, launch, machine)
    found = execute(mapped.program, program_tensors(mapped, given), launch)
    if name == "bert":
        assert_close(model, formats, found.tensors["hidden"], reference(model, given, ids))
    else:
        assert_close(model, formats, found.tensors["logits"], logits(model, given, ids))
