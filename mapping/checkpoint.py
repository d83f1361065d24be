"""A safetensors checkpoint's table of tensors, and where it keeps each parameter; no data is read.

Format: https://github.com/huggingface/safetensors (8 bytes of header length, little endian, then a
JSON object of ``name: {dtype, shape, data_offsets}``, then the data).
"""

import json
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from machine.errors import UserError, must_be
from mapping.config_json import read_json
from mapping.families import FAMILIES
from mapping.model import Model
from mapping.parameters import Parameter, parameters

__all__ = ["DTYPE_BITS", "Binding", "Checkpoint", "StoredTensor", "bind", "read_checkpoint"]

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16,
    "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
}

_HEADER_LIMIT_BYTES = 100_000_000  # the safetensors library's own limit


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """One tensor of a checkpoint and the bytes of the file it occupies."""

    name: str
    dtype: str  # a key of DTYPE_BITS
    shape: tuple[int, ...]
    file: Path
    begin_bytes: int  # from the start of the file
    end_bytes: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tensors of all files of a checkpoint, by name."""

    tensors: dict[str, StoredTensor]

    @property
    def elements(self) -> int:
        """Elements of all tensors, buffers included."""
        return sum(tensor.elements for tensor in self.tensors.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Binding:
    """Where one layer's parameter lies: a stored tensor, perhaps a part of it, perhaps transposed.

    Take ``stored``, transpose it if `transposed`, cut the first axis into `parts` equal pieces and
    keep piece `part`: that is the parameter in our shape.
    """

    parameter: Parameter
    layer: int | None  # None for a parameter outside the layers
    stored: StoredTensor
    transposed: bool = False
    part: int = 0
    parts: int = 1


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the tensor table of a ``.safetensors`` file or of a folder that holds the model's.

    A folder has ``model.safetensors`` or ``model.safetensors.index.json`` with its shards. Raises
    `UserError` that names the file and what is wrong with it.
    """
    if path.is_dir():
        whole, index = path / "model.safetensors", path / "model.safetensors.index.json"
        if not whole.exists() and index.exists():
            return _read_shards(index)
        path = whole
    return Checkpoint(tensors=_read_header(path))


def bind(model: Model, checkpoint: Checkpoint) -> tuple[list[Binding], list[StoredTensor]]:
    """Return where `checkpoint` keeps each parameter of `model`, and the tensors that hold none.

    Buffers, heads that are not read and the copy of a tied embedding are among the latter. Raises
    `UserError` for the first parameter that is missing or has another shape.
    """
    bindings = [_bind_one(model, parameter, layer, checkpoint)
                for parameter in parameters(model)
                for layer in _layers_of(parameter, model)]
    used = {binding.stored.name for binding in bindings}
    return bindings, [t for name, t in checkpoint.tensors.items() if name not in used]


def _layers_of(parameter: Parameter, model: Model) -> list[int | None]:
    return list(range(model.layers)) if parameter.name.startswith("layer.") else [None]


def _bind_one(model: Model, parameter: Parameter, layer: int | None,
              checkpoint: Checkpoint) -> Binding:
    names = FAMILIES[model.family].tensors
    stem, _, ending = parameter.name.rpartition(".")
    stored = _find(checkpoint, names.stems[stem].format(layer=layer), ending, names.prefixes)
    part, parts = names.parts.get(stem, (0, 1))
    shape = (parameter.shape[0] * parts, *parameter.shape[1:])
    transposed = stem in names.transposed and len(shape) == 2
    want = shape[::-1] if transposed else shape
    if stored.shape != want:
        raise must_be(f"shape of {stored.name}", f"{list(want)} for {model.name}",
                      list(stored.shape), where=stored.file.name)
    return Binding(parameter=parameter, layer=layer, stored=stored, transposed=transposed,
                   part=part, parts=parts)


def _find(checkpoint: Checkpoint, stem: str, ending: str,
          prefixes: tuple[str, ...]) -> StoredTensor:
    """A norm's gain and bias are called gamma and beta in checkpoints converted from TensorFlow."""
    endings = (ending, {"weight": "gamma", "bias": "beta"}[ending])
    for prefix in (*prefixes, ""):
        for word in endings:
            tensor = checkpoint.tensors.get(f"{prefix}{stem}.{word}")
            if tensor is not None:
                return tensor
    raise UserError(f"checkpoint has no tensor {prefixes[0]}{stem}.{ending}")


def _read_shards(index: Path) -> Checkpoint:
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict):
        raise must_be("weight_map", "an object of tensor: file", files, where=index.name)
    tensors: dict[str, StoredTensor] = {}
    for file in sorted(set(files.values())):
        tensors |= _read_header(index.parent / file)
    for name in files:
        if name not in tensors:
            raise UserError(f"{index.name}: tensor {name} is not in {files[name]}")
    return Checkpoint(tensors=tensors)


def _read_header(path: Path) -> dict[str, StoredTensor]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int(struct.unpack("<Q", file.read(8).ljust(8, b"\0"))[0])
            if not 2 <= length <= min(_HEADER_LIMIT_BYTES, size - 8):
                raise must_be("header length", f"2 to {max(size - 8, 2)} bytes", length,
                              where=path.name)
            header = json.loads(file.read(length))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path.name}: header must be JSON: {error}") from None
    if not isinstance(header, dict):
        raise must_be("header", "a JSON object", header, where=path.name)
    header.pop("__metadata__", None)
    return {name: _stored(name, entry, path, 8 + length, size) for name, entry in header.items()}


def _stored(name: str, entry: Any, path: Path, base: int, size: int) -> StoredTensor:
    where = f"{path.name}: {name}"
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise must_be("entry", "an object with dtype, shape and data_offsets", entry, where=where)
    dtype, shape = entry["dtype"], tuple(entry["shape"])
    if dtype not in DTYPE_BITS:
        raise must_be("dtype", f"one of {', '.join(DTYPE_BITS)}", dtype, where=where)
    begin, end = (base + offset for offset in entry["data_offsets"])
    need = prod(shape) * DTYPE_BITS[dtype] // 8
    if end - begin != need:
        raise must_be("data_offsets", f"{need} bytes apart for {dtype} {list(shape)}",
                      entry["data_offsets"], where=where)
    if end > size:
        raise must_be("data_offsets", f"inside the file of {size} bytes", entry["data_offsets"],
                      where=where)
    return StoredTensor(name=name, dtype=dtype, shape=shape, file=path, begin_bytes=begin,
                        end_bytes=end)
