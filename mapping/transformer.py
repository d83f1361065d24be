"""A transformer on a machine: symbols, kernels in order, and the launch that runs them.

One program serves every step of a phase: the number of cached tokens, and an encoder's number of
tokens, are launch entries.
"""

from dataclasses import dataclass, replace

from machine.chip import Machine
from machine.errors import must_be
from machine.formats import format_named
from machine.program import Capability, Launch, Program, Symbol, SymbolKind
from machine.vector import VectorOp
from mapping.attention import write_attention
from mapping.attention_kernel import AttentionKernel
from mapping.builder import ProgramBuilder
from mapping.fit import DoesNotFit, Unfit, enlarged
from mapping.formats import Formats
from mapping.gemm import GemmKernel, write_gemm
from mapping.heads import HeadsKernel, Part, write_heads
from mapping.lut import CODE_FORMAT, TABLE_K, find_lookup_tiling, lookup_array
from mapping.model import Model
from mapping.plan import FEW_ROWS, MANY_ROWS, Plan, Rows, Tensor
from mapping.rows import EmbedKernel, RowKernel, write_embed, write_rows
from mapping.tiling import Gemm, GemmTiling, find_tiling
from mapping.workload import Phase

__all__ = ["STRETCHED", "Mapped", "Weight", "map_model"]

HIDDEN = "float16"  # activations between quantised products
CODE = "int8"  # activations as the arrays read them, where they are quantised
ATTEMPTS = 12  # enlargements tried for what does not fit
PAGE_BYTES = 1024  # neighbouring pages of addresses lie in neighbouring channels (npu-hbm2)
STRETCHED = ("linear", "llama3")  # kinds of rope scaling that a program computes
CAPABILITIES = frozenset({Capability.SYSTOLIC, Capability.VECTOR, Capability.INDIRECT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """How one matrix of the program is made from a model's parameters, offline."""

    symbol: Symbol  # [layers,] n blocks, k blocks, k, n
    sources: tuple[str, ...]  # names in mapping.parameters, put side by side along n
    layered: bool
    tile: tuple[int, int]  # k, n
    halves: bool  # gate and up alternate by half a tile
    scale: Symbol | None  # FP32 of every column, padded to whole tiles; None: floating point
    bias: Symbol | None
    planes: int = 0  # bits of a code by planes, which look up; 0: codes of `symbol` multiply


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """A program with what its user must give it."""

    program: Program
    model: Model
    phase: Phase
    formats: Formats
    weights: tuple[Weight, ...]
    vectors: tuple[tuple[Symbol, tuple[str, ...]], ...]  # gains, biases, tables and their sources
    tilings: tuple[tuple[str, GemmTiling], ...]
    dram_bytes: int

    def launch(self, tokens: tuple[int, ...] = (), *, position: int | None = None) -> Launch:
        """Return the launch of one step: `tokens` of all sequences, after `position` cached ones.

        Without `tokens` every token is number 0; a run for timing alone needs no more. Only an
        encoder's single sequence may be shorter than the phase. Raises `UserError` for too many
        or too few tokens, and for a position that the cache has no room for.
        """
        phase = self.phase
        rows = phase.tokens
        given = len(tokens) or rows
        at = phase.position_base if position is None else position
        shorter = phase.kind == "encode" and phase.batch == 1
        if given > rows or (given < rows and not shorter):
            raise must_be("tokens", f"{'at most ' if shorter else ''}{rows}", given)
        if not 0 <= at <= phase.position_base:
            raise must_be("position", f"from 0 to {phase.position_base}", at)
        per_sequence = given // phase.batch
        learned = self.model.position.offset + at
        tensors = {
            "token_index": [*(tokens or [0] * rows), *[0] * (rows - given)],
            "position_index": [learned + i % per_sequence for i in range(rows)],
            "type_index": [0] * rows,
        }
        names = {s.name for s in self.program.symbols}
        values = {"position": at, "keys": at + per_sequence, "tokens": given}
        return Launch(
            values={k: v for k, v in values.items() if k in self.program.launch},
            tensors={k: v for k, v in tensors.items() if k in names},
        )


def map_model(
    model: Model, phase: Phase, machine: Machine, formats: Formats
) -> Mapped | DoesNotFit:
    """Return the program of `model` in `phase` on `machine`, or the record of what does not fit.

    The record's first lever, where it begins with ``--set``, was tried: all of it makes it fit.
    Raises `UserError` for formats that the arrays do not multiply.
    """
    _check_formats(formats)
    try:
        return _Mapper(model, phase, machine, formats).run()
    except Unfit as unfit:
        record = unfit.record
    settings, miss = {}, record
    for _ in range(ATTEMPTS):
        settings[miss.resource] = miss.demand
        machine = enlarged(machine, miss)
        try:
            _Mapper(model, phase, machine, formats).run()
        except Unfit as unfit:
            miss = unfit.record
            continue
        lever = " ".join(f"--set {key}={value}" for key, value in settings.items())
        return replace(record, levers=(lever, *record.levers[1:]))
    return replace(record, levers=record.levers[1:])


def _check_formats(formats: Formats) -> None:
    """Refuse what the kernels do not write: floats beside codes, codes wider than the arrays'."""
    w, a, kv = (formats.of(role) for role in ("weight", "activation", "kv"))
    floats = {w.name, a.name, kv.name} == {HIDDEN}
    weights = w.name in (f"int{bits}" for bits in range(2, 9))
    codes = weights and a.name == CODE and kv.name in (CODE, HIDDEN)
    if not floats and not codes:
        raise must_be("--formats", "W2 to W8 with A8 and KV8 or KV16, or W16A16KV16", str(formats))


def _noted(model: Model) -> Model:
    """Return `model` with a note on what its program leaves out."""
    scaling = model.position.scaling
    if scaling is None or scaling.kind in STRETCHED:
        return model
    note = f"rope scaling {scaling.kind} is not modelled: the rotation is the unscaled one"
    return replace(model, notes=(*model.notes, note))


class _Mapper:
    """Writes one program; each method writes one kernel and returns the tensor it made."""

    def __init__(self, model: Model, phase: Phase, machine: Machine, formats: Formats):
        self.model, self.phase, self.machine, self.formats = model, phase, machine, formats
        self.builder = ProgramBuilder(f"{model.name}-{phase.kind}")
        varying = "tokens" if model.kind == "encoder" and phase.batch == 1 else None
        entries = ("position",) if model.kind == "encoder" else ("position", "keys")
        self.plan = Plan(
            self.builder, machine, entries=(*entries, varying) if varying else entries,
            regions=MANY_ROWS if phase.tokens > machine.systolic.rows else FEW_ROWS)
        self.weights: list[Weight] = []
        self.vectors: list[tuple[Symbol, tuple[str, ...]]] = []
        self.tilings: list[tuple[str, GemmTiling]] = []
        self.rows = Rows(phase.tokens, varying)
        self.queries = Rows(phase.q_len, varying)
        self.keys = Rows(phase.kv_len, "keys" if model.kind == "decoder" else varying)
        self.quantised = not formats.of("activation").is_float
        if model.kind == "encoder":
            self.x = self._scratch("hidden", (phase.tokens, model.d_model), HIDDEN,
                                   kind=SymbolKind.OUTPUT)
        else:
            self.x = self._rows("hidden", model.d_model, HIDDEN)

    def run(self) -> Mapped:
        """Write everything; raises `Unfit` where something does not fit."""
        with self.plan.loop(1):
            self._embedding()
        with self.plan.loop(self.model.layers):
            self._layer()
        if self.model.kind == "decoder":
            with self.plan.loop(1):
                self._head()
        self._check_capacity()
        lookup = {Capability.LUT} if any(w.planes for w in self.weights) else set()
        return Mapped(
            program=self.builder.build(CAPABILITIES | lookup), model=_noted(self.model),
            phase=self.phase, formats=self.formats, weights=tuple(self.weights),
            vectors=tuple(self.vectors), tilings=tuple(self.tilings),
            dram_bytes=self.builder.dram_bytes,
        )

    def _check_capacity(self) -> None:
        dram, need = self.machine.dram, self.builder.dram_bytes
        if need > dram.capacity_bytes:
            channels = -(-need // (dram.capacity_bytes // dram.channels))
            channels = 1 << (channels - 1).bit_length()  # a power of two
            raise Unfit(DoesNotFit(
                f"{self.model.name}, weights and cache of {need} bytes", "dram.channels", channels,
                dram.channels, "channels", (f"--set dram.channels={channels}",
                                            "fewer bits an element (--formats)",
                                            "a smaller batch (--batch)")))

    def _scratch(self, name: str, shape: tuple[int, ...], form: str, *,
                 kind: SymbolKind = SymbolKind.SCRATCH) -> Tensor:
        return Tensor.of(self.builder.symbol(name, kind, shape, form))

    def _vector(self, name: str, width: int, *sources: str, form: str = "float32",
                layered: bool = True) -> Tensor:
        """Place a constant vector of every layer, made from the parameters `sources`."""
        shape = (self.model.layers, width) if layered else (width,)
        symbol = self.builder.symbol(name, SymbolKind.CONST, shape, form)
        self.vectors.append((symbol, sources))
        return Tensor.of(symbol, layered=layered)

    def _embedding(self) -> None:
        model, d = self.model, self.model.d_model
        kinds = [("token", model.vocab)]
        if model.position.kind == "learned":
            kinds.append(("position", model.position.rows))
        if model.type_vocab:
            kinds.append(("type", model.type_vocab))
        tables = []
        for kind, entries in kinds:
            table = self.builder.symbol(f"embed.{kind}", SymbolKind.CONST, (entries, d), HIDDEN)
            index = self.builder.symbol(f"{kind}_index", SymbolKind.LAUNCH, (self.rows.most,),
                                        "int32")
            self.vectors.append((table, (f"embed.{kind}.weight",)))
            tables.append((Tensor.of(table), Tensor.of(index)))
        with self.builder.accounting("embedding"):
            write_embed(self.plan, EmbedKernel(
                name="embed", rows=self.rows, width=d, tables=tuple(tables), out=self.x))
        post = model.norm.placement == "post"
        self.codes, self.codes_scale = self._codes("codes", d)
        if model.norm.embedding:
            self._norm("embed_norm", "embed.norm", self.x, keep=self.x, layered=False,
                       quantise=post)
        elif post and self.quantised:
            self._quantise("embed_codes", self.x, d, self.codes, self.codes_scale)

    def _rows(self, name: str, width: int, form: str) -> Tensor:
        """Place the rows of one operator's result.

        A row that is an even number of channels' pages is followed by a gap of one page, so that
        a block of its columns lies in every channel and not in a few.
        """
        page = PAGE_BYTES * 8 // format_named(form).bits
        pitch = width + page if self.rows.most > 1 and width % (2 * page) == 0 else width
        symbol = self.builder.symbol(name, SymbolKind.SCRATCH, (self.rows.most, pitch), form)
        return Tensor(symbol, (pitch, 1))

    def _codes(self, name: str, width: int) -> tuple[Tensor, Tensor | None]:
        """Place a tensor of activations as the arrays read them, and its row scales."""
        codes = self._rows(name, width, self.formats.of("activation").name)
        if not self.quantised:
            return codes, None
        return codes, self._scratch(f"{name}.scale", (self.rows.most,), "float32")

    def _norm(self, name: str, stem: str, x: Tensor, *, keep: Tensor | None, layered: bool = True,
              quantise: bool = True, rows: Rows | None = None,
              to: tuple[Tensor, Tensor | None] | None = None) -> None:
        """Normalise `x`; keep the result, quantise it, or both."""
        norm, d = self.model.norm, self.model.d_model
        codes, scale = to or (self.codes, self.codes_scale)
        if not self.quantised:
            keep = keep if keep is not None else codes
        gain = self._vector(f"{stem}.gain", d, f"{stem}.weight", layered=layered)
        bias = None
        if norm.kind == "layernorm":
            bias = self._vector(f"{stem}.bias", d, f"{stem}.bias", layered=layered)
        vop = VectorOp.LAYERNORM if norm.kind == "layernorm" else VectorOp.RMSNORM
        quantise = quantise and self.quantised
        with self.builder.accounting(name, 0, 0):
            write_rows(self.plan, RowKernel(
                name=name, rows=rows or self.rows, width=d, x=x, norm=vop, gain=gain, bias=bias,
                eps=norm.eps, keep=keep, quantised=codes if quantise else None,
                quantised_scale=scale if quantise else None))

    def _quantise(self, name: str, x: Tensor, width: int, codes: Tensor, scale: Tensor | None, *,
                  rows: Rows | None = None) -> None:
        with self.builder.accounting(name, 0, 0):
            write_rows(self.plan, RowKernel(
                name=name, rows=rows or self.rows, width=width, x=x, quantised=codes,
                quantised_scale=scale))

    def _product(self, name: str, a: Tensor, a_scale: Tensor | None, k: int, n: int,
                 sources: tuple[str, ...], out: Tensor, *, bias: bool, rows: Rows | None = None,
                 residual: Tensor | None = None, activation: str | None = None,
                 halves: bool = False, layered: bool = True) -> None:
        """Write one product with its weights and epilogue."""
        rows = rows or self.rows
        form = self.formats.of("weight")
        gemm = Gemm(rows.most, n, k, self.formats.of("activation").bits, form.bits, 16,
                    scales=self.quantised + bias, residual=residual is not None, halves=halves)
        array = lookup_array(self.machine, gemm.a_bits, gemm.w_bits) if self.quantised else None
        if array is not None:
            tiling = find_lookup_tiling(gemm, self.machine, array, self.plan.slots, name=name)
            tile: tuple[int, ...] = (form.bits, tiling.n, tiling.k // TABLE_K)
        else:
            tiling = find_tiling(gemm, self.machine, self.plan.slots, name=name,
                                 one_part=rows.entry is not None)
            tile = (tiling.k, tiling.n)
        self.tilings.append((name, tiling))
        blocks = (-(-n // tiling.n), -(-k // tiling.k), *tile)
        lead = (self.model.layers,) if layered else ()
        symbol = self.builder.symbol(f"{name}.weight", SymbolKind.CONST, (*lead, *blocks),
                                     form.name if array is None else CODE_FORMAT)
        padded = blocks[0] * tiling.n
        scale_symbol, extra = None, {}
        for key, wanted in (("scale", self.quantised), ("bias", bias)):
            if wanted:
                made = self.builder.symbol(f"{name}.{key}", SymbolKind.CONST, (*lead, padded),
                                           "float32")
                extra[key] = made
        scale_symbol = extra.get("scale")
        self.weights.append(Weight(
            symbol=symbol, sources=sources, layered=layered, tile=(tiling.k, tiling.n),
            halves=halves, scale=scale_symbol, bias=extra.get("bias"),
            planes=0 if array is None else form.bits))
        tensors = {key: Tensor.of(s, layered=layered) for key, s in extra.items()}
        with self.builder.accounting(name, 0, 0):
            write_gemm(self.plan, GemmKernel(
                name=name, shape=gemm, tiling=tiling, rows=rows, a=a, a_scale=a_scale,
                w=Tensor.of(symbol, layered=layered), w_scale=tensors.get("scale"),
                bias=tensors.get("bias"), out=out, residual=residual, activation=activation,
                table_format=array.tables.format if array is not None else ""))

    def _layer(self) -> None:
        """Write one layer; every layer runs the same instructions."""
        model, attention, ffn, d = self.model, self.model.attention, self.model.ffn, \
            self.model.d_model
        post = model.norm.placement == "post"
        source = self.x if post and not self.quantised else self.codes
        if not post:
            self._norm("attention_norm", "layer.attention_norm", self.x, keep=None)
        width = attention.q_width + 2 * attention.kv_width
        qkv = self._rows("qkv", width, HIDDEN)
        self._product("qkv", source, self.codes_scale, d, width, ("layer.q", "layer.k", "layer.v"),
                      qkv, bias=attention.qkv_bias)
        heads = self._rows("attended", attention.q_width, HIDDEN)
        self._attention(qkv, heads)
        codes, scale = heads, None
        if self.quantised:
            codes, scale = self._codes("attended_codes", attention.q_width)
            self._quantise("attended_codes", heads, attention.q_width, codes, scale)
        total = self._rows("sum", d, HIDDEN) if post else self.x
        self._product("out", codes, scale, attention.q_width, d, ("layer.out",), total,
                      bias=attention.out_bias, residual=self.x)
        if post:
            self._norm("attention_norm", "layer.attention_norm", total, keep=self.x)
        else:
            self._norm("ffn_norm", "layer.ffn_norm", self.x, keep=None)
        inner = self._rows("inner", ffn.width, HIDDEN)
        up = ("layer.gate", "layer.up") if ffn.gated else ("layer.up",)
        self._product("up", source, self.codes_scale, d, ffn.width * len(up), up, inner,
                      bias=ffn.bias, activation=ffn.activation, halves=ffn.gated)
        codes, scale = inner, None
        if self.quantised:
            codes, scale = self._codes("inner_codes", ffn.width)
            self._quantise("inner_codes", inner, ffn.width, codes, scale)
        self._product("down", codes, scale, ffn.width, d, ("layer.down",), total, bias=ffn.bias,
                      residual=self.x)
        if post:
            self._norm("ffn_norm", "layer.ffn_norm", total, keep=self.x)

    def _attention(self, qkv: Tensor, out: Tensor) -> None:
        """Split and rotate the heads, append to the cache, attend."""
        model, a, phase = self.model, self.model.attention, self.phase
        batch, d, layers = phase.batch, a.head_dim, model.layers
        kv = self.formats.of("kv")
        coded = self.quantised and not kv.is_float
        q_form = self.formats.of("activation").name if coded else kv.name
        state = SymbolKind.SCRATCH if model.kind == "encoder" else SymbolKind.STATE

        def place(name: str, heads: int, tokens: int, form: str) -> tuple[Tensor, Tensor | None]:
            lead, kind = ((layers,), state) if name != "q" else ((), SymbolKind.SCRATCH)
            shape = (*lead, batch, heads, tokens, d)
            codes = Tensor.of(self.builder.symbol(name, kind, shape, form), layered=name != "q")
            if not coded:
                return codes, None
            scale = self.builder.symbol(f"{name}.scale", kind, shape[:-1], "float32")
            return codes, Tensor.of(scale, layered=name != "q")

        q, q_scale = place("q", a.heads, phase.q_len, q_form)
        k, k_scale = place("k_cache", a.kv_heads, phase.kv_len, kv.name)
        v, v_scale = place("v_cache", a.kv_heads, phase.kv_len, kv.name)
        rotate = model.position.kind == "rope"
        gains = dict.fromkeys("qk")
        if a.qk_norm:
            gains = {n: self._vector(f"{n}_norm", d, f"layer.{n}_norm.weight") for n in "qk"}
        parts = (
            Part(name="q", first=0, heads=a.heads, out=q, scale=q_scale, gain=gains["q"],
                 rotate=rotate),
            Part(name="k", first=a.q_width, heads=a.kv_heads, out=k, scale=k_scale,
                 gain=gains["k"], rotate=rotate, append=True),
            Part(name="v", first=a.q_width + a.kv_width, heads=a.kv_heads, out=v, scale=v_scale,
                 append=True),
        )
        pitch = qkv.strides[0]
        per_request = replace(qkv, strides=(phase.q_len * pitch, pitch, 1))
        with self.builder.accounting("heads", 0, 0):
            write_heads(self.plan, HeadsKernel(
                name="heads", batch=batch, tokens=self.queries, head_dim=d,
                qkv=per_request, parts=parts, theta=model.position.theta, steps=self._rope_steps(),
                eps=model.norm.eps))
        pitch = out.strides[0]
        out = replace(out, strides=(phase.q_len * pitch, pitch, 1))
        with self.builder.accounting("attention", 0, 0):
            write_attention(self.plan, AttentionKernel(
                name="attention", batch=batch, queries=self.queries, keys=self.keys,
                heads=a.heads, kv_heads=a.kv_heads, head_dim=d, q=q, k=k, v=v, out=out,
                q_scale=q_scale, k_scale=k_scale, v_scale=v_scale,
                causal=model.kind == "decoder" and (phase.q_len > 1 or a.window is not None),
                window=a.window))

    def _rope_steps(self) -> Tensor | None:
        """Place the steps of a stretched rotation; None where the base alone gives them."""
        position, d = self.model.position, self.model.attention.head_dim
        scaling = position.scaling
        if position.kind != "rope" or scaling is None or scaling.kind not in STRETCHED:
            return None
        numbers: tuple[float | None, ...] = (d, position.theta, scaling.factor)
        name = "rotary"
        if scaling.kind == "llama3":
            name = "rotary_bands"
            numbers += (scaling.low_freq_factor, scaling.high_freq_factor,
                        scaling.original_max_positions)
        return Tensor.of(self.builder.symbol(
            "rope_steps", SymbolKind.CONST, (d,), "int32",
            transform="/".join((name, *map(str, numbers)))))

    def _head(self) -> None:
        """Normalise each sequence's last token and project it onto the vocabulary."""
        model, phase, d = self.model, self.phase, self.model.d_model
        pitch = self.x.strides[0]
        last = replace(self.x, strides=(phase.q_len * pitch, 1), offset=(phase.q_len - 1) * pitch)
        rows = Rows(phase.batch)
        form = self.formats.of("activation").name
        codes = self._scratch("last", (phase.batch, d), form)
        scale = self._scratch("last.scale", (phase.batch,), "float32") if self.quantised else None
        if model.norm.final:
            self._norm("final_norm", "final_norm", last, keep=None, layered=False, rows=rows,
                       to=(codes, scale))
        elif self.quantised:
            self._quantise("last", last, d, codes, scale, rows=rows)
        else:
            codes = last
        logits = self._scratch("logits", (phase.batch, model.vocab), HIDDEN,
                               kind=SymbolKind.OUTPUT)
        source = "embed.token" if model.tied_embeddings else "lm_head"
        self._product("lm_head", codes, scale, d, model.vocab, (source,), logits, bias=False,
                      rows=rows, layered=False)
