"""Compiled functions: one source, types from annotations, a cache that sees every edit.

A function compiled here runs as plain Python with ``NUMBA_DISABLE_JIT=1``. Its annotations are
its only types: ``int`` is int64, so that it is compiled once and not anew for every literal.
numba's cache looks at one file only, and a compiled function holds those that it calls. So the
cache lies in a folder named by all files of `KERNEL`: an edit of any of them is another folder.
"""

import hashlib
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import numba
import numpy as np
from numba import boolean, int64, njit, void

__all__ = ["KERNEL", "Cube", "Flat", "Rows", "cache_folder", "compiled", "entry", "inlined"]

Flat = Annotated[np.ndarray, int64[::1]]
Rows = Annotated[np.ndarray, int64[:, ::1]]
Cube = Annotated[np.ndarray, int64[:, :, ::1]]

# Every file with compiled functions that call each other.
KERNEL = (
    "buffer.py", "dma.py", "dram/kernel.py", "engine/cells.py", "engine/compiled.py",
    "engine/control.py", "engine/counting.py", "engine/ends.py", "engine/events.py",
    "engine/flight.py", "engine/kernel.py", "engine/lanes.py", "engine/memory.py",
    "engine/ports.py", "engine/sequencer.py", "engine/shares.py", "engine/tokens.py", "link.py",
)

_Function = TypeVar("_Function", bound=Callable[..., Any])
_TYPES: dict[Any, Any] = {int: int64, bool: boolean, type(None): void}


def cache_folder(sources: Path, base: str) -> str:
    """Return the folder for what is compiled of `KERNEL` in the folder `sources`.

    It lies in `base`; without one, beside the sources, or in the user's cache where those cannot
    be written to.
    """
    digest = hashlib.sha256()
    for name in KERNEL:
        digest.update((sources / name).read_bytes())
    if not base:
        beside = sources / "__pycache__"
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "archsim"
        base = str(beside if os.access(sources, os.W_OK) else home)
    return str(Path(base) / f"kernel-{digest.hexdigest()[:16]}")


_config: Any = numba.config  # its attributes are made at run time
_njit: Any = njit  # its published types know neither signatures as lists nor all options
_FOLDER = cache_folder(Path(__file__).parents[1], _config.CACHE_DIR)


def compiled(function: _Function) -> _Function:
    """Compile `function`, which other compiled functions call, for the types it is annotated with.

    Python cannot call it, unless nothing is compiled; see `entry`.
    """
    return _compiled(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def entry(function: _Function) -> _Function:
    """Compile `function`, which Python calls, for the types it is annotated with."""
    return _compiled(function, no_cfunc_wrapper=True)


def inlined(function: _Function) -> _Function:
    """Compile `function` as a part of the one that calls it: there is only one.

    numba optimises a function anew in every one above it, so that the large ones, those that
    lead to the DRAM's, should have few above them.
    """
    made: _Function = _njit(inline="always")(function)
    return made


def _compiled(function: _Function, **options: bool) -> _Function:
    hints = get_type_hints(function, include_extras=True)
    result = _type(hints["return"])
    arguments = [_type(hints[name]) for name in inspect.signature(function).parameters]
    before, _config.CACHE_DIR = _config.CACHE_DIR, _FOLDER
    try:
        made: _Function = _njit(result(*arguments), cache=True, **options)(function)
    finally:
        _config.CACHE_DIR = before
    return made


def _type(hint: Any) -> Any:
    return _TYPES[hint] if hint in _TYPES else get_args(hint)[1]
