"""The text form of a program, read: see docs/instruction-set.md for the form.

``machine.disassembly`` writes it. Blank lines and comments (from ``;`` on) are skipped.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from machine.assembly_instructions import Names, parse_instruction
from machine.errors import UserError, must_be
from machine.formats import format_named
from machine.lines import Line
from machine.program import (
    VERSION,
    Capability,
    Edge,
    Gather,
    Group,
    Layout,
    Operand,
    Program,
    Queue,
    QueueKind,
    Space,
    Stream,
    Symbol,
    SymbolKind,
    Token,
)

__all__ = ["parse"]

_QUEUE = re.compile(r"chip(\d+)\.([a-z]+)(\d+)")
_EDGE = re.compile(r"(\d+):(r\d+|-?\d+)((?:-\d+\*-?\d+)*)")
_STEP = re.compile(r"-(\d+)\*(-?\d+)")


def parse(text: str, where: str = "program") -> Program:
    """Return the program that `text` describes; `where` (a file's name) opens every error.

    Raises `UserError`, ``file:line: ... must be ..., not ...``, with the nearest known name for
    one that is misspelt. What a program means is checked by ``machine.verify``.
    """
    draft = _Draft()
    for number, raw in enumerate(text.splitlines(), 1):
        words = raw.partition(";")[0].split()
        if words:
            draft.read(Line(f"{where}:{number}", words))
    if not draft.name:
        raise UserError(f"{where}: program must begin with a line 'program NAME version {VERSION}'")
    return draft.finish()


@dataclass
class _Draft:
    """A program as far as it is read. Operands and instructions wait until all names are known."""

    name: str = ""
    chips: int = 1
    capabilities: set[Capability] = field(default_factory=set)
    tokens: dict[str, Token] = field(default_factory=dict)
    symbols: dict[str, Symbol] = field(default_factory=dict)
    launch: list[str] = field(default_factory=list)
    ops: list[str] = field(default_factory=list)
    operands: dict[str, Line] = field(default_factory=dict)
    streams: dict[Queue, list[Line]] = field(default_factory=dict)

    def read(self, line: Line) -> None:
        """Take in one line."""
        keyword = line.words[0]
        if not self.name and keyword != "program":
            raise line.error("first line", f"'program NAME version {VERSION}'", keyword)
        if keyword in _DECLARATIONS:
            if self.streams and keyword != "stream":
                raise UserError(f"{line.where}: {keyword} must stand before the first stream")
            line.take("keyword")
            _DECLARATIONS[keyword](self, line)
            return
        if not self.streams:
            known = ", ".join(_DECLARATIONS)
            raise line.error("line before the first stream", f"one of {known}", keyword)
        next(reversed(self.streams.values())).append(line)

    def finish(self) -> Program:
        """Return the program, every name replaced by its index."""
        numbers = {name: index for index, name in enumerate(self.operands)}
        known = Names(
            tokens={name: index for index, name in enumerate(self.tokens)},
            ops={name: index for index, name in enumerate(self.ops)},
            operands=numbers,
            launch={name: index for index, name in enumerate(self.launch)},
        )
        operands = [_operand(name, line, numbers) for name, line in self.operands.items()]
        return Program(
            name=self.name,
            capabilities=frozenset(self.capabilities),
            chips=self.chips,
            symbols=tuple(self.symbols.values()),
            launch=tuple(self.launch),
            tokens=tuple(self.tokens.values()),
            ops=tuple(self.ops),
            operands=tuple(operands),
            streams=tuple(
                Stream(queue, tuple(parse_instruction(line, known) for line in lines))
                for queue, lines in self.streams.items()
            ),
        )


def _program(draft: _Draft, line: Line) -> None:
    if draft.name:
        raise UserError(f"{line.where}: program must be named once")
    draft.name = line.name("program", line.take("name"))
    line.expect("version")
    version = line.integer("version", line.take("version"))
    if version != VERSION:
        raise line.error("version", str(VERSION), version)
    line.done()


def _needs(draft: _Draft, line: Line) -> None:
    while line.left:
        word = line.take("capability")
        draft.capabilities.add(Capability(line.member("capability", word, Capability)))


def _chips(draft: _Draft, line: Line) -> None:
    draft.chips = line.integer("chips", line.take("number"), low=1)
    line.done()


def _launch(draft: _Draft, line: Line) -> None:
    while line.left:
        draft.launch.append(line.name("launch entry", line.take("name"), draft.launch))


def _token(draft: _Draft, line: Line) -> None:
    name = line.name("token", line.take("name"), draft.tokens)
    initial = line.integer("count", line.take("count"), low=0) if line.left else 0
    line.done()
    draft.tokens[name] = Token(name, initial)


def _op(draft: _Draft, line: Line) -> None:
    draft.ops.append(line.name("op", line.take("name"), draft.ops))
    line.done()


def _symbol(draft: _Draft, line: Line) -> None:
    name = line.name("symbol", line.take("name"), draft.symbols)
    space = Space(line.member("space", line.take("space"), Space))
    address = line.integer("address", line.take("address"), low=0)
    form = format_named(line.take("format"), where=line.where).name
    shape = line.sizes("shape", line.take("shape"))
    kind = SymbolKind(line.member("kind", line.take("kind"), SymbolKind))
    layout, chip, transform = Layout.ROW, 0, ""
    while line.left:
        key, value = line.option(("layout", "chip", "transform"), "symbol")
        if key == "layout":
            layout = Layout(line.member("layout", value, Layout))
        elif key == "chip":
            chip = line.integer("chip", value, low=0)
        else:
            transform = line.name("transform", value)
    draft.symbols[name] = Symbol(name, kind, space, address, shape, form, layout, chip, transform)


def _operand_line(draft: _Draft, line: Line) -> None:
    draft.operands[line.name("operand", line.take("name"), draft.operands)] = line


def _stream(draft: _Draft, line: Line) -> None:
    word = line.take("queue")
    match = _QUEUE.fullmatch(word)
    if not match:
        raise line.error("queue", "like chip0.dma0", word)
    kind = QueueKind(line.member("queue kind", match[2], QueueKind))
    queue = Queue(kind, int(match[3]), int(match[1]))
    if queue in draft.streams:
        raise line.error("queue", "one that has no stream yet", word)
    line.done()
    draft.streams[queue] = []


_DECLARATIONS: dict[str, Callable[[_Draft, Line], None]] = {
    "program": _program, "needs": _needs, "chips": _chips, "launch": _launch, "token": _token,
    "op": _op, "symbol": _symbol, "operand": _operand_line, "stream": _stream,
}


def _operand(name: str, line: Line, numbers: dict[str, int]) -> Operand:
    """Return the operand of a line whose keyword and name are taken."""
    space = Space(line.member("space", line.take("space"), Space))
    address = line.integer("address", line.take("address"), low=0)
    form = format_named(line.take("format"), where=line.where).name
    shape = line.sizes("shape", line.take("shape"))
    line.expect("stride")
    strides = line.sizes("stride", line.take("stride"))
    if len(strides) != len(shape):
        raise line.error("stride", f"{len(shape)} numbers, one a dimension", len(strides))
    base: int | None = None
    layout = Layout.ROW
    loops: tuple[tuple[int, int], ...] = ()
    edges: tuple[Edge | None, ...] = ()
    group: Group | None = None
    gather: Gather | None = None
    while line.left:
        word = line.take("option")
        if word == "base":
            base = line.register("base", line.take("register"))
        elif word.startswith("layout="):
            layout = Layout(line.member("layout", word.partition("=")[2], Layout))
        elif word == "loop":
            loops = _loops(line)
        elif word == "edge":
            edges = _edges(line, len(shape))
        elif word == "group":
            group = _group(line, numbers)
        elif word == "gather":
            gather = _gather(line, numbers)
        else:
            raise line.error("word", "one of base, layout=, loop, edge, group, gather", word)
    return Operand(name, space, address, shape, strides, form, layout, base, loops, edges, group,
                   gather)


def _loops(line: Line) -> tuple[tuple[int, int], ...]:
    found: dict[int, int] = {}
    while ":" in line.coming:
        word = line.take("level:stride")
        match = re.fullmatch(r"([0-7]):(-?\d+)", word)
        if not match or int(match[1]) in found or not int(match[2]):
            raise line.error("loop stride", "a new level 0 to 7, a colon and a stride, not 0", word)
        found[int(match[1])] = int(match[2])
    return tuple(sorted(found.items()))


def _edges(line: Line, dimensions: int) -> tuple[Edge | None, ...]:
    found: dict[int, Edge] = {}
    while ":" in line.coming:
        word = line.take("edge")
        match = _EDGE.fullmatch(word)
        if not match:
            raise line.error("edge", "dimension:bound-level*step, like 0:37-1*8", word)
        axis = int(match[1])
        if axis >= dimensions or axis in found:
            raise line.error("dimension of edge", f"a new one below {dimensions}", axis)
        steps = tuple((int(level), int(step)) for level, step in _STEP.findall(match[3]))
        if len(steps) > 2 or any(level > 7 or not step for level, step in steps):
            raise line.error("edge", "of at most 2 steps, levels 0 to 7, none of 0", word)
        if match[2].startswith("r"):
            found[axis] = Edge(0, steps, line.register("bound", match[2]))
        else:
            found[axis] = Edge(int(match[2]), steps)
    return tuple(found.get(axis) for axis in range(dimensions)) if found else ()


def _group(line: Line, numbers: dict[str, int]) -> Group:
    values: dict[str, int] = {}
    while "=" in line.coming and not line.coming.startswith("layout="):
        key, value = line.option(("axis", "size", "scale", "zero"), "group")
        values[key] = (line.integer(key, value, low=0) if key in ("axis", "size")
                       else line.reference(key, value, numbers))
    _complete(line, values, ("axis", "size"), "group")
    return Group(values["axis"], values["size"], values.get("scale"), values.get("zero"))


def _gather(line: Line, numbers: dict[str, int]) -> Gather:
    values: dict[str, int] = {"granule": 1}
    while "=" in line.coming and not line.coming.startswith("layout="):
        key, value = line.option(("axis", "index", "granule"), "gather")
        values[key] = (line.reference(key, value, numbers) if key == "index"
                       else line.integer(key, value, low=0))
    _complete(line, values, ("axis", "index"), "gather")
    return Gather(values["axis"], values["index"], values["granule"])


def _complete(line: Line, values: dict[str, int], needed: tuple[str, ...], what: str) -> None:
    for key in needed:
        if key not in values:
            raise must_be(f"{key} of {what}", "given", None, where=line.where)
