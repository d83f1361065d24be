"""Reading a machine: presets and files in TOML, overrides, and errors that name file and key."""

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import ValidationError

from machine.chip import Machine
from machine.errors import UserError, must_be, nearest, unknown

__all__ = ["config_hash", "configured", "preset_names", "read_machine", "resolved"]

PRESETS = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """Return the names of the machines that come with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def read_machine(name: str | Path, overrides: Iterable[str] = ()) -> Machine:
    """Return the machine of a preset's name or a TOML file's path, with ``key=value`` overrides.

    Raises `UserError` naming the file, the key, what it must be and the nearest valid name.
    """
    path = Path(name)
    if path.suffix != ".toml":
        if str(name) not in preset_names():
            raise unknown("machine", str(name), preset_names())
        path = PRESETS / f"{name}.toml"
    table = _parse(path)
    parts: list[str] = []
    others: list[str] = []
    for override in overrides:
        (parts if override.partition("=")[0].endswith(".preset") else others).append(override)
    for override in parts:
        _apply(table, override)
    _parts(table, path)
    for override in others:
        _apply(table, override)
    return _build(Machine, table, path.name, [])


def configured(kind: type, table: Mapping[str, Any], overrides: Iterable[str], where: str) -> Any:
    """Return the configuration of type `kind` that `table` and ``key=value`` overrides describe.

    Raises `UserError` naming `where`, the key and what it must be.
    """
    described = dict(table)
    for override in overrides:
        _apply(described, override)
    return _build(kind, described, where, [])


def resolved(machine: Machine) -> dict[str, Any]:
    """Return the whole description as plain tables, every default filled in, None left out."""
    described: Any = machine
    return dict(_plain(asdict(described)))


def config_hash(machine: Machine) -> str:
    """Return the SHA-256 of the resolved description, in hex."""
    text = json.dumps(resolved(machine), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: machine must be a preset's name or an existing file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: machine must be a TOML file, not a folder") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path.name}: machine must be valid TOML: {error}") from None


def _parts(table: dict[str, Any], path: Path) -> None:
    """Fill each table with a ``preset`` from ``presets/<key>/<name>.toml``; its own keys win."""
    for key, value in table.items():
        if isinstance(value, dict) and "preset" in value:
            value = dict(value)
            name = value.pop("preset")
            folder = PRESETS / key
            known = sorted(p.stem for p in folder.glob("*.toml"))
            if name not in known:
                raise unknown(f"{key}.preset", name, known, where=path.name)
            table[key] = _merge(_parse(folder / f"{name}.toml"), value)


def _merge(under: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = (
            _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return merged


def _apply(table: dict[str, Any], override: str) -> None:
    """Set one ``arrays.0.rows=64`` in `table`."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise must_be("--set", "key=value, as arrays.0.rows=64", override)
    parts = key.split(".")
    at: Any = table
    for depth, part in enumerate(parts):
        where = ".".join(parts[:depth])
        index: Any = part
        if isinstance(at, list):
            if not part.isdigit() or int(part) >= len(at):
                raise must_be(f"--set {key}: index of {where}", f"from 0 to {len(at) - 1}", part)
            index = int(part)
        elif not isinstance(at, dict):
            raise must_be(f"--set {key}: {where}", "a table", at)
        if depth == len(parts) - 1:
            at[index] = _value(text)
        else:
            at = at[index] if isinstance(at, list) else at.setdefault(part, {})


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _build(kind: Any, value: Any, where: str, path: list[str]) -> Any:
    """Return `value` as `kind`: tables become configurations, lists become tuples.

    Raises `UserError` that names `where`, the key at `path` and what it must be.
    """
    options = [k for k in _options(kind) if is_dataclass(k)]
    if isinstance(value, list):
        item = next((get_args(k)[0] for k in _options(kind) if get_origin(k) is tuple), Any)
        return tuple(_build(item, v, where, [*path, str(i)]) for i, v in enumerate(value))
    if not isinstance(value, dict) or not options:
        return value
    chosen = _of_kind(options, value)
    hints = get_type_hints(chosen)
    known = [f.name for f in fields(chosen)]
    made = {}
    for key, inner in value.items():
        at = ".".join([*path, key])
        if key not in known:
            near = nearest(key, known)
            hint = f"; did you mean {near!r}?" if near else ""
            listed = ", ".join(sorted(known))
            raise UserError(f"{where}: {at} must be a known key, one of {listed}{hint}")
        made[key] = _build(hints[key], inner, where, [*path, key])
    try:
        return chosen(**made)
    except ValidationError as error:
        raise UserError(_sentence(error, where, path)) from None


def _of_kind(options: list[Any], value: dict[str, Any]) -> Any:
    """Return the configuration among `options` whose ``kind`` is that of `value`, or the first."""
    for option in options:
        known = {f.name: f.default for f in fields(option)}
        if "kind" in value and known.get("kind") == value["kind"]:
            return option
    return options[0]


def _options(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _sentence(error: ValidationError, where: str, path: list[str]) -> str:
    """Turn the first of pydantic's findings into our one sentence."""
    found = error.errors()[0]
    # Of a field of several kinds pydantic names the kind as well, by its class.
    loc = [str(part) for part in found["loc"] if not str(part).endswith("Config")]
    key = ".".join([*path, *loc])
    match found["type"]:
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return f"{where}: {key} must be given"
        case "value_error":
            return f"{where}: {'.'.join(filter(None, [key, str(found['ctx']['error'])]))}"
        case "literal_error":
            allowed = found["ctx"]["expected"]
            return f"{where}: {key} must be one of {allowed}, not {found['input']!r}"
        case kind:
            what = _KINDS.get(kind, found["msg"].removeprefix("Input should be "))
            return f"{where}: {key} must be {what}, not {found['input']!r}"


_KINDS = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "string_type": "a string",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dataclass_type": "a table",
    "dataclass_exact_type": "a table",
}
