"""How compiled functions become machine code: only entries do, each with all that it calls.

numba makes every function a library of its own: optimised together with all that it calls, turned
into machine code, and optimised again in each of its callers. With a hundred functions on six
levels that is most of the time. Here a part, a function that only compiled code calls, stays as
a front end leaves it; an entry links all that it leads to, once, and is optimised once.

The front end is our own (`archsim.engine.translate`) or, for a function that it does not know,
numba's. Entries, and parts that are numba's, are numba compilers with another library, which is
numba's way of extension (``pipeline_class``). Of numba's passes a part has those that code of
integers, pointers, arrays and tuples needs: it is without closures, exceptions, ``with``,
``literal_unroll`` and rewrites.
"""

from collections.abc import Callable
from typing import Any

from numba.core import codegen, compiler, typed_passes, untyped_passes
from numba.core.codegen import ll as binding
from numba.core.codegen import llvmir as ir
from numba.core.compiler_machinery import PassManager
from numba.core.environment import Environment
from numba.core.funcdesc import FunctionDescriptor

from archsim.engine.translate import Translation
from archsim.engine.values import Untranslatable

__all__ = ["EntryCompiler", "compile_part"]

# How much code LLVM may inline for a call that is saved. Its own 225 takes half as long again to
# compile, and nothing runs faster.
INLINED = 100

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
        tuning = binding.create_pipeline_tuning_options(speed_level=3)
        tuning.loop_vectorization = tuning.slp_vectorization = False
        tuning.inlining_threshold = INLINED
        builder = binding.create_pass_builder(self._codegen._tm, tuning)
        passes = builder.getModulePassManager()
        passes.run(self._final_module, builder)


class EntryCompiler(compiler.Compiler):
    """Compiles a function that Python calls."""

    announce: Callable[[], None] | None = None  # called before anything is compiled

    def __init__(self, typingctx: Any, targetctx: Any, library: Any, *rest: Any) -> None:
        library = _Entry(targetctx.codegen(), "entry")
        library.enable_object_caching()
        super().__init__(typingctx, targetctx, library, *rest)

    def compile_extra(self, func: Any) -> Any:
        """Return numba's record of `func`."""
        announce = type(self).announce
        if announce is not None:
            announce()
        state = self.state
        context, library = state.targetctx, state.library
        try:
            record = _translated(context, library, func, state.return_type(*state.args))
        except Untranslatable:
            return super().compile_extra(func)
        environment = Environment.from_fndesc(record.fndesc)
        context.create_cpython_wrapper(
            library, record.fndesc, environment, record.call_helper)
        library.finalize()
        return record._replace(
            environment=environment,
            entry_point=context.get_executable(library, record.fndesc, environment))


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
    library = _Part(targetctx.codegen(), "part")
    try:
        record = _translated(targetctx, library, function, signature)
        library.finalize()
        return record
    except Untranslatable:
        pass
    flags: Any = compiler.Flags()
    flags.nrt = True
    flags.no_compile = True
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    return compiler.compile_extra(
        typingctx, targetctx, function, signature.args, signature.return_type, flags, {},
        library=_Part(targetctx.codegen(), "part"), pipeline_class=_PartCompiler)


def _translated(context: Any, library: Any, function: Any, signature: Any) -> Any:
    """Add `function` to `library` by our own front end; return numba's record of it.

    Raises `Untranslatable` before anything of it is in the library.
    """
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    about = FunctionDescriptor(
        True, function.__module__, function.__qualname__, function.__qualname__, "", None,
        signature.return_type, None, names, (), argtypes=tuple(signature.args))
    module = library.create_ir_module(function.__name__)
    context.declare_env_global(module, context.get_env_name(about))
    written = context.declare_function(module, about)
    builder = ir.IRBuilder(written.append_basic_block("entry"))
    helper = context.call_conv.init_call_helper(builder)
    arguments = context.call_conv.decode_arguments(builder, about.argtypes, written)
    with context.push_code_library(library):
        Translation(context, builder).write(function, signature, arguments)
    library.add_ir_module(module)
    return compiler.compile_result(
        typing_context=context.typing_context, target_context=context, signature=signature,
        fndesc=about, library=library, call_helper=helper, objectmode=False, lifted=(),
        typing_error=None, metadata={})
