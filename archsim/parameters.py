"""A model's parameters as the tensors a mapped program asks for."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from golden import weights
from machine.errors import UserError, must_be
from machine.formats import format_named
from mapping.checkpoint import Binding, bind, read_checkpoint
from mapping.model import Model
from mapping.transformer import STRETCHED, Mapped, Weight

__all__ = ["program_tensors", "read_parameters"]

# Names of safetensors' formats that numpy reads as they are.
_DTYPES = {"F16": np.float16, "F32": np.float32, "F64": np.float64}


def read_parameters(model: Model, path: Path) -> dict[str, np.ndarray]:
    """Return the parameters of `model` in FP32 by our names, layers stacked on a first axis.

    Raises `UserError` for a parameter that is missing or stored in a format that is not a float.
    """
    bindings, _ = bind(model, read_checkpoint(path))
    found: dict[str, list[np.ndarray]] = {}
    for binding in bindings:
        found.setdefault(binding.parameter.name, []).append(_read(binding))
    return {
        name: np.stack(parts) if name.startswith("layer.") else parts[0]
        for name, parts in found.items()
    }


def _read(binding: Binding) -> np.ndarray:
    stored = binding.stored
    with stored.file.open("rb") as file:
        file.seek(stored.begin_bytes)
        data = file.read(stored.end_bytes - stored.begin_bytes)
    if stored.dtype == "BF16":
        values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif stored.dtype in _DTYPES:
        values = np.frombuffer(data, np.dtype(_DTYPES[stored.dtype]).newbyteorder("<"))
    else:
        raise must_be("dtype", f"one of BF16, {', '.join(_DTYPES)}", stored.dtype,
                      where=f"{stored.file.name}: {stored.name}")
    values = values.reshape(stored.shape).astype(np.float32)
    if binding.transposed:
        values = values.T
    return np.split(values, binding.parts)[binding.part] if binding.parts > 1 else values


def program_tensors(mapped: Mapped, parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return every constant of ``mapped.program`` made from `parameters` (`read_parameters`).

    Raises `UserError` for a parameter that is not given, and for a model whose rotation the program
    does not compute.
    """
    scaling = mapped.model.position.scaling
    if scaling is not None and scaling.kind not in STRETCHED:
        raise must_be("rope scaling", f"{' or '.join(STRETCHED)} to run on data", scaling.kind,
                      where=mapped.model.name)
    tensors: dict[str, np.ndarray] = {}
    for weight in mapped.weights:
        tensors |= _matrix(mapped, weight, parameters)
    for symbol, (source, *_) in mapped.vectors:
        tensors[symbol.name] = _given(parameters, source)
    return tensors


def _matrix(
    mapped: Mapped, weight: Weight, parameters: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return one matrix in tiles, with its scales and bias."""
    sources = [_given(parameters, f"{s}.weight") for s in weight.sources]
    w = np.concatenate([np.swapaxes(s, -1, -2) for s in sources], axis=-1)
    k, n = weight.tile
    scales = None
    if weight.planes:
        w, scales = weights.quantise_planes(w, weight.planes)
    elif weight.scale is not None:
        w, scales = weights.quantise_columns(w, format_named(weight.symbol.format))
    rows: dict[str, np.ndarray] = {}
    if scales is not None and weight.scale is not None:
        rows[weight.scale.name] = scales
    if weight.bias is not None:
        rows[weight.bias.name] = np.concatenate(
            [_given(parameters, f"{s}.bias") for s in weight.sources], axis=-1)
    if weight.halves:
        w = weights.interleave(w, n // 2)
        rows = {name: weights.interleave(row, n // 2) for name, row in rows.items()}
    made = {name: weights.pad_columns(row, n) for name, row in rows.items()}
    if weight.planes:
        return made | {weight.symbol.name: weights.plane_tiles(w, weight.planes, k, n)}
    return made | {weight.symbol.name: weights.tiles(w, k, n)}


def _given(parameters: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in parameters:
        raise UserError(f"parameters must hold {name}")
    return parameters[name]
