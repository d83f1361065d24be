"""Sentences through a real encoder: tokens, a program on the real weights, cycles, embeddings.

One program of the longest sentence's length serves all sentences. It runs in golden, on the
folder's own weights quantised to W8A8KV8, and in the simulator. Pooling is the host's: the mean of
a sentence's hidden states, scaled to length 1, as sentence-transformers does for such encoders.
"""

import csv
import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from archsim.engine.simulate import simulate
from archsim.output.results import SCHEMA_VERSION, write_directory
from archsim.parameters import program_tensors, read_parameters
from golden.execute import execute
from golden.memory import Memory
from golden.vector import l2norm, mean_pool
from machine.chip import Machine
from machine.encoding import encode as encode_program
from machine.errors import UserError, must_be
from machine.load import config_hash, read_machine, resolved
from machine.verify import check
from mapping.families import read_model
from mapping.fit import Unfit
from mapping.formats import parse_formats
from mapping.model import Model
from mapping.transformer import Mapped, map_model
from mapping.workload import encode

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["FORMATS", "TextOutcome", "run_text"]

FORMATS = "W8A8KV8"
FILES = ("config.json", "model.safetensors", "tokenizer.json")
LENGTH_STEP = 16  # the program's length is a multiple of this, where the model allows
POOLING = "mean over tokens, length 1 (on the host)"

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOutcome:
    """The sentences of a run with what became of each."""

    model: Model
    mapped: Mapped
    machine: Machine
    weights_sha256: str
    sentences: tuple[str, ...]
    tokens: tuple[int, ...]  # of each sentence, special ones included
    truncated: tuple[bool, ...]  # whether a sentence was longer than the model's positions
    ticks: tuple[int, ...]  # of each sentence; equal numbers of tokens are simulated once
    embeddings: np.ndarray  # float32 [sentences, d_model]
    written: Path | None = None

    @property
    def title(self) -> str:
        """What was run, in one line."""
        return (f"{self.model.name}, {len(self.sentences)} sentences of at most "
                f"{self.mapped.phase.q_len} tokens, {self.mapped.formats} on {self.machine.name}")

    @property
    def times_ps(self) -> tuple[int, ...]:
        """The simulated time of each sentence."""
        return tuple(int(ticks * self.machine.tick_ps) for ticks in self.ticks)

    @property
    def cycles(self) -> tuple[int, ...]:
        """The same in whole cycles of the machine's first clock."""
        period = self.machine.ticks(self.machine.clocks[0].name)
        return tuple(-(-ticks // period) for ticks in self.ticks)

    @property
    def similarities(self) -> np.ndarray:
        """The cosine of each pair of embeddings, [sentences, sentences]."""
        wide = self.embeddings.astype(np.float64)
        return np.einsum("ik,jk->ij", wide, wide)

    def to_dict(self) -> dict[str, Any]:
        """What ``run.json`` holds, without ``manifest.when``: plain data."""
        return {
            "schema_version": SCHEMA_VERSION,
            "title": self.title,
            "manifest": {
                "version": version("archsim"),
                "machine": self.machine.name,
                "config_sha256": config_hash(self.machine),
                "program_sha256": hashlib.sha256(encode_program(self.mapped.program)).hexdigest(),
                "weights_sha256": self.weights_sha256,
                "model": self.model.name,
                "model_notes": list(self.model.notes),
                "formats": str(self.mapped.formats),
                "phase": self.mapped.phase.kind,
                "fidelity": "cycle",
                "block_fidelities": self.machine.fidelities,
                "pooling": POOLING,
                "cycles": "sentences of equal length share the simulation of the first of them",
            },
            "totals": {"sentences": len(self.sentences), "tokens": sum(self.tokens),
                       "time_ps": sum(self.times_ps), "cycles": sum(self.cycles)},
            "sentences": [
                {"text": text, "tokens": tokens, "truncated": cut, "cycles": cycles,
                 "time_ps": ps, "embedding": [float(x) for x in row]}
                for text, tokens, cut, cycles, ps, row in zip(
                    self.sentences, self.tokens, self.truncated, self.cycles, self.times_ps,
                    self.embeddings, strict=True)
            ],
        }


def run_text(
    folder: Path, text_file: Path, machine: str, overrides: Sequence[str] = (),
    output: Path | None = None, tell: Tell = lambda text: None,
) -> TextOutcome:
    """Embed each line of `text_file` with the encoder in `folder`; write `output` if given.

    Any folder with config.json, model.safetensors and tokenizer.json will do. `machine` is a
    preset or a TOML file, changed by `overrides`. Raises `UserError` in one line for a wrong
    folder, file or machine, for a model that is no encoder and for one that does not fit.
    """
    model, tokenizer = _read_encoder(folder)
    sentences = _read_sentences(text_file)
    chip = read_machine(machine, overrides)
    longest = model.position.max_positions
    whole = [tokenizer.encode(sentence).ids for sentence in sentences]
    tokenizer.enable_truncation(longest)
    ids = [tuple(tokenizer.encode(sentence).ids) for sentence in sentences]
    tell("mapping")
    length = min(-(-max(map(len, ids)) // LENGTH_STEP) * LENGTH_STEP, longest)
    mapped = map_model(model, encode(1, length), chip, parse_formats(FORMATS))
    if not isinstance(mapped, Mapped):
        raise UserError(str(Unfit(mapped)))
    found = TextOutcome(
        model=model, mapped=mapped, machine=chip,
        weights_sha256=hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        sentences=sentences, tokens=tuple(map(len, ids)),
        truncated=tuple(len(a) > len(b) for a, b in zip(whole, ids, strict=True)),
        ticks=_simulate(mapped, chip, ids, tell),
        embeddings=_embed(mapped, folder / "model.safetensors", ids, tell),
        written=output.absolute() if output is not None else None)
    if output is not None:
        tell("writing results")
        write_directory(output, partial(_write_files, found))
    return found


def _read_encoder(folder: Path) -> "tuple[Model, Tokenizer]":
    """Return the model and the tokenizer of `folder`, whole sentences, no padding."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UserError("--text must have the package tokenizers: "
                        "pip install 'archsim[model]'") from None
    if not folder.is_dir():
        raise UserError(f"{folder}: --model must be a folder with {', '.join(FILES)}")
    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(f"{folder}: --model must hold {name}")
    model = read_model(folder)
    if model.kind != "encoder":
        raise must_be("--model", "an encoder for --text", model.family,
                      where=str(folder / "config.json"))
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises Exception itself
        raise UserError(f"{path}: tokenizer.json must be a tokenizer: {error}") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return model, tokenizer


def _read_sentences(path: Path) -> tuple[str, ...]:
    """Return the lines of `path` that are not blank."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: --text must be a readable UTF-8 file: {error}") from None
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines:
        raise UserError(f"{path}: --text must hold at least one sentence")
    return lines


def _simulate(
    mapped: Mapped, machine: Machine, ids: Sequence[tuple[int, ...]], tell: Tell
) -> tuple[int, ...]:
    """Return the ticks of each sentence; one simulation for each number of tokens."""
    ticks: dict[int, int] = {}
    for tokens in ids:
        if len(tokens) not in ticks:
            tell(f"simulating {len(tokens)} tokens")
            launch = mapped.launch(tokens)
            check(mapped.program, launch, machine)
            ticks[len(tokens)] = simulate(mapped.program, machine, launch).ticks
    return tuple(ticks[len(tokens)] for tokens in ids)


def _embed(
    mapped: Mapped, weights: Path, ids: Sequence[tuple[int, ...]], tell: Tell
) -> np.ndarray:
    """Return the embedding of each sentence, float32 [sentences, d_model]."""
    tell("quantising")
    tensors = program_tensors(mapped, read_parameters(mapped.model, weights))
    memory: Memory | None = None
    rows = []
    for number, tokens in enumerate(ids, 1):
        tell(f"executing sentence {number} of {len(ids)}")
        found = execute(mapped.program, tensors if memory is None else {}, mapped.launch(tokens),
                        memory=memory)
        memory = found.memory
        rows.append(l2norm(mean_pool(found.tensors["hidden"][: len(tokens)])))
    return np.stack(rows)


def _write_files(found: TextOutcome, at: Path) -> None:
    import tomli_w

    data = found.to_dict()
    data["manifest"]["when"] = {"written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    text = json.dumps(data, indent=1, sort_keys=True) + "\n"
    (at / "run.json").write_text(text, encoding="utf-8")
    config = tomli_w.dumps(resolved(found.machine))
    (at / "config.resolved.toml").write_text(config, encoding="utf-8")
    np.save(at / "embeddings.npy", found.embeddings)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("sentence", "tokens", "cycles", "time_ps",
                     *(f"e{i}" for i in range(found.embeddings.shape[1]))))
    for row in zip(found.sentences, found.tokens, found.cycles, found.times_ps, found.embeddings,
                   strict=True):
        writer.writerow((*row[:4], *(f"{x:.9g}" for x in row[4])))
    (at / "embeddings.csv").write_text(out.getvalue(), encoding="utf-8")
