"""How compiled functions become machine code: only entries do, each with all that it calls.

numba makes every function a library of its own: optimised together with all that it calls, turned
into machine code, and optimised again in each of its callers. With a hundred functions on six
levels that is most of the time. Here a part, a function that only compiled code calls, stays as
numba's front end leaves it; an entry links all that it leads to, once, and is optimised once.

Both are numba compilers with another library, which is numba's way of extension
(``pipeline_class``). A part's compiler has the passes that code of integers, pointers, arrays and
tuples needs: it is without closures, exceptions, ``with``, ``literal_unroll`` and rewrites.
"""

from typing import Any

from numba.core import codegen, compiler, typed_passes, untyped_passes
from numba.core.compiler_machinery import PassManager

__all__ = ["EntryCompiler", "compile_part"]

_PASSES = (
    untyped_passes.TranslateByteCode, untyped_passes.FixupArgs, untyped_passes.IRProcessing,
    untyped_passes.InlineInlinables, untyped_passes.ReconstructSSA,
    typed_passes.NopythonTypeInference, typed_passes.PreLowerStripPhis,
    typed_passes.NoPythonSupportedFeatureValidation, typed_passes.IRLegalization,
    typed_passes.AnnotateTypes, typed_passes.NativeLowering, typed_passes.NoPythonBackend,
)


class _Library(codegen.JITCodeLibrary):
    """Code that is not optimised before it is linked."""

    def add_llvm_module(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout
        self._final_module.link_in(ll_module)


class _Part(_Library):
    """A function that is linked into entries and never runs by itself."""

    def add_linking_library(self, library: Any) -> None:
        self._linking_libraries.append(library)

    def finalize(self) -> None:
        self._finalized = True

    def collect(self, found: dict[Any, None]) -> None:
        """Add this library and all that it needs to `found`."""
        if self in found:
            return
        found[self] = None
        for library in self._linking_libraries:
            if isinstance(library, _Part):
                library.collect(found)
            else:
                library._ensure_finalized()
                found[library] = None


class _Entry(_Library):
    """A function with all that it calls, optimised together."""

    def add_linking_library(self, library: Any) -> None:
        found: dict[Any, None] = dict.fromkeys(self._linking_libraries)
        if isinstance(library, _Part):
            library.collect(found)
        else:
            library._ensure_finalized()
            found[library] = None
        self._linking_libraries = list(found)

    def _optimize_final_module(self) -> None:
        # What is linked is called from here alone: it may be inlined away. Nothing is gained by
        # vectorising integers that lead to each other.
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage.name == "linkonce_odr":
                function.linkage = "internal"
        passes, builder = self._codegen._module_pass_manager(
            loop_vectorize=False, slp_vectorize=False)
        passes.run(self._final_module, builder)


class EntryCompiler(compiler.Compiler):
    """Compiles a function that Python calls."""

    def __init__(self, typingctx: Any, targetctx: Any, library: Any, *rest: Any) -> None:
        library = _Entry(targetctx.codegen(), "entry")
        library.enable_object_caching()
        super().__init__(typingctx, targetctx, library, *rest)


class _PartCompiler(compiler.CompilerBase):
    """Compiles a function that compiled code calls."""

    def define_pipelines(self) -> list[Any]:
        passes = PassManager("part")
        for one in _PASSES:
            passes.add_pass(one, one._name)
        passes.finalize()
        return [passes]


def compile_part(typingctx: Any, targetctx: Any, function: Any, signature: Any) -> Any:
    """Return numba's record of `function` compiled as a part for the types of `signature`."""
    flags: Any = compiler.Flags()
    flags.nrt = True
    flags.no_compile = True
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    return compiler.compile_extra(
        typingctx, targetctx, function, signature.args, signature.return_type, flags, {},
        library=_Part(targetctx.codegen(), "part"), pipeline_class=_PartCompiler)
