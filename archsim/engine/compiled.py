"""Compiled functions: one source, types from annotations, a cache that sees every edit.

A function compiled here runs as plain Python with ``NUMBA_DISABLE_JIT=1``. Its annotations are
its only types: ``int`` is int64, so that it is compiled once and not anew for every literal.
Nothing is compiled before it is called. What Python calls is kept in numba's cache, with all that
it calls (`archsim.engine.linking`). That cache looks at one file only, so it lies in a folder named
by all files of `KERNEL`: an edit of any of them is another folder.
"""

import functools
import hashlib
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import numba
import numpy as np
from numba import boolean, int64, njit, types, void
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import lower_builtin, lower_cast

from archsim.engine.linking import EntryCompiler, compile_part
from archsim.engine.translate import source

__all__ = ["KERNEL", "Cube", "Flat", "Row", "Rows", "cache_folder", "compiled", "entry", "part"]

Flat = Annotated[np.ndarray, int64[::1], "cells"]  # where they begin, between compiled functions
Row = Annotated[np.ndarray, int64[::1]]
Rows = Annotated[np.ndarray, int64[:, ::1]]
Cube = Annotated[np.ndarray, int64[:, :, ::1]]

# Every file with compiled functions that call each other.
KERNEL = (
    "buffer.py", "dma.py", "dram/kernel.py", "dram/queue_device.py", "dram/queue_pick.py",
    "dram/queue_run.py", "dram/queues.py", "engine/cells.py",
    "engine/compiled.py", "engine/control.py", "engine/counting.py", "engine/ends.py",
    "engine/events.py", "engine/expressions.py", "engine/flight.py", "engine/kernel.py",
    "engine/lanes.py", "engine/linking.py", "engine/memory.py", "engine/ports.py",
    "engine/sequencer.py", "engine/shares.py", "engine/tokens.py", "engine/translate.py",
    "engine/values.py", "link.py", "pim_head.py", "pim_host.py", "pim_loop.py", "pim_queue.py",
    "pim_timers.py",
)

_Function = TypeVar("_Function", bound=Callable[..., Any])
_OUTER: dict[Any, Any] = {int: int64, bool: boolean, type(None): void}
_INNER: dict[Any, Any] = _OUTER | {Flat: types.CPointer(int64)}


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
_SOURCES = Path(__file__).parents[1]
_FOLDER = cache_folder(_SOURCES, _config.CACHE_DIR)
for _name in KERNEL:
    source(str(_SOURCES / _name))  # what is compiled later is what the folder is named by


def compiled(function: _Function) -> _Function:
    """Compile `function`, which other compiled functions call, for the types of its annotations."""
    return _compiled(function)


def entry(function: _Function) -> _Function:
    """As `compiled`; Python calls it too, with the array that its cells lie in."""
    return _compiled(function)


def part(signature: Any = None, **inlining: Any) -> Callable[[_Function], _Function]:
    """As `compiled`, for the types of a numba signature; without one, a part of its callers.

    It takes what numba's own decorator takes, of which nothing but `inline` means anything here.
    """
    if signature is None or _config.DISABLE_JIT:
        made: Callable[[_Function], _Function] = _njit(inline=inlining.get("inline", "never"))
        return made
    return lambda function: _as_function(_Compiled(function, signature, signature))


def _compiled(function: _Function) -> _Function:
    if _config.DISABLE_JIT:
        return function
    hints = get_type_hints(function, include_extras=True)
    names = list(inspect.signature(function).parameters)
    inner, outer = (
        _type(hints["return"], where)(*(_type(hints[name], where) for name in names))
        for where in (_INNER, _OUTER)
    )
    return _as_function(_Compiled(function, inner, outer))


def _as_function(made: Any) -> Any:
    return made


class _Compiled:
    """A function that is compiled when it is first called: into its callers, or for Python.

    To numba it is a function like those numba brings along, whose types are known without a look
    into it. Python's own call is an entry, which is kept in the cache.
    """

    def __init__(self, function: Callable[..., Any], inner: Any, outer: Any):
        functools.update_wrapper(self, function)
        self.py_func = function
        self._inner, self._outer = inner, outer  # its signatures to compiled code and to Python
        self._part: Any = None
        self._entry: Any = None

        class Template(AbstractTemplate):
            key = self

            def generic(self, args: Any, kws: Any) -> Any:
                return inner

        infer_global(self, types.Function(Template))
        lower_builtin(self, types.VarArg(types.Any))(self._lower)

    def _lower(self, context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return self.call_from(context, builder, args)

    def call_from(self, context: Any, builder: Any, args: Any) -> Any:
        """Write down a call of it; return what it returns."""
        if self._part is None:
            self._part = compile_part(
                context.typing_context, context, self.py_func, self._inner)
        context.add_linking_libs([self._part.library])
        return context.call_internal(builder, self._part.fndesc, self._inner, args)

    @property
    def signatures(self) -> list[Any]:
        """What it is compiled for in other compiled functions."""
        return [self._inner]

    def make(self, announce: Callable[[], None] | None = None) -> Any:
        """Return the function as Python calls it, compiled or from the cache.

        `announce` is called before it is compiled.
        """
        if self._entry is None:
            before, _config.CACHE_DIR = _config.CACHE_DIR, _FOLDER
            EntryCompiler.announce = announce
            try:
                self._entry = _njit(self._outer, cache=True, no_cfunc_wrapper=True,
                                    pipeline_class=EntryCompiler)(self.py_func)
            finally:
                _config.CACHE_DIR, EntryCompiler.announce = before, None
        return self._entry

    def __call__(self, *args: Any) -> Any:
        return self.make()(*args)


@lower_cast(types.Array, types.CPointer)
def _place_of(context: Any, builder: Any, array: Any, _: Any, value: Any) -> Any:
    """Return where the numbers of an array lie; the caller keeps the array alive."""
    return context.make_array(array)(context, builder, value).data


def _type(hint: Any, where: dict[Any, Any]) -> Any:
    return where[hint] if hint in where else get_args(hint)[1]
