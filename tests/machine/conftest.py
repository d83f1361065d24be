"""Random programs, for the properties that every well-formed program has."""

from enum import IntEnum

import pytest
from hypothesis import strategies as st

from machine.formats import FORMATS, Kind
from machine.opcodes import OPCODES, Alu, Opcode
from machine.program import (
    LOOP_LEVELS,
    NO_LEVEL,
    REGISTERS,
    Capability,
    Edge,
    Gather,
    Group,
    Instruction,
    Layout,
    Operand,
    Predicate,
    Program,
    Queue,
    QueueKind,
    Space,
    Stream,
    Symbol,
    SymbolKind,
    Token,
)

ELEMENTS = sorted(name for name, row in FORMATS.items() if row.kind is not Kind.BLOCK)
NAMES = st.from_regex(r"[a-z_][a-z0-9_./-]{0,5}", fullmatch=True)
REGISTER = st.integers(0, REGISTERS - 1)
NOT_ZERO = st.integers(-(2**31), 2**31 - 1).filter(bool)


@st.composite
def operands(draw, name, count):
    """An operand in normal form; others are numbered 0 to `count` - 1."""
    rank = draw(st.integers(1, 4))
    levels = draw(st.lists(st.integers(0, 7), unique=True, max_size=8))
    edges = tuple(draw(st.none() | edge()) for _ in range(rank))
    other = st.integers(0, count - 1)
    group = st.builds(Group, st.integers(0, rank - 1), st.integers(1, 256),
                      st.none() | other, st.none() | other)
    gather = st.builds(Gather, st.integers(0, rank - 1), other, st.integers(1, 64))
    return Operand(
        name=name,
        space=draw(st.sampled_from(Space)),
        address_bytes=draw(st.integers(0, 2**40)),
        shape=tuple(draw(st.lists(st.integers(1, 4096), min_size=rank, max_size=rank))),
        strides=tuple(draw(st.lists(st.integers(-(2**40), 2**40), min_size=rank,
                                    max_size=rank))),
        format=draw(st.sampled_from(ELEMENTS)),
        layout=draw(st.sampled_from(Layout)),
        base_register=draw(st.none() | REGISTER),
        loop_strides=tuple((level, draw(NOT_ZERO)) for level in sorted(levels)),
        edges=edges if any(edges) else (),
        group=draw(st.none() | group),
        gather=draw(st.none() | gather),
    )


@st.composite
def edge(draw):
    register = draw(st.none() | REGISTER)
    bound = 0 if register is not None else draw(st.integers(-(2**31), 2**31 - 1))
    steps = draw(st.lists(st.tuples(st.integers(0, 7), NOT_ZERO), max_size=2))
    return Edge(bound, tuple(steps), register)


def field_values(field):
    """Every value the text form can write for a field, but its default."""
    if isinstance(field.kind, type) and issubclass(field.kind, IntEnum):
        values = st.sampled_from([member.value for member in field.kind])
    elif field.kind == "register":
        values = REGISTER
    else:
        values = st.integers(*field.range)
    return values.filter(lambda value: value != field.default)


@st.composite
def fields(draw, opcode, launch_entries):
    if opcode == Opcode.LOOP:
        by_register = draw(st.booleans())
        count = draw(REGISTER if by_register else st.integers(0, 2**32 - 1))
        found = {"count": count, "count_is_register": int(by_register)}
    elif opcode == Opcode.SCALAR:
        found = draw(scalar_fields(launch_entries))
    else:
        chosen = [f for f in OPCODES[opcode].fields if f.name == "vop" or draw(st.booleans())]
        found = {f.name: draw(field_values(f)) for f in chosen}
    return {name: value for name, value in found.items() if value or name not in (
        "count", "count_is_register", "alu", "rd", "ra", "b", "b_is_register")}


@st.composite
def scalar_fields(draw, launch_entries):
    known = [alu for alu in Alu if alu != Alu.LAUNCH or launch_entries]
    alu = draw(st.sampled_from(known))
    found = {"alu": alu.value, "rd": draw(REGISTER)}
    if alu == Alu.LAUNCH:
        return found | {"b": draw(st.integers(0, launch_entries - 1))}
    if alu == Alu.INDEX:
        return found | {"b": draw(st.integers(0, LOOP_LEVELS - 1))}
    if alu != Alu.SET:
        found["ra"] = draw(REGISTER)
    if draw(st.booleans()):
        return found | {"b_is_register": 1, "b": draw(REGISTER)}
    return found | {"b": draw(st.integers(-(2**63), 2**63 - 1))}


@st.composite
def instructions(draw, kind, tokens, ops, count, launch_entries):
    legal = [op for op, spec in OPCODES.items() if not spec.queues or kind in spec.queues]
    opcode = draw(st.sampled_from(legal))
    pairs = st.lists(st.tuples(st.integers(0, tokens - 1), st.integers(1, 255)), max_size=4)
    return Instruction(
        opcode=opcode,
        unit_mask=draw(st.integers(0, 2**32 - 1)),
        waits=tuple(draw(pairs)) if tokens else (),
        signals=tuple(draw(pairs)) if tokens else (),
        predicate=draw(st.none() | st.builds(Predicate, REGISTER, st.booleans())),
        op_id=draw(st.integers(0, max(ops - 1, 0))),
        layer_id=draw(st.integers(0, 2**16 - 1)),
        layer_level=draw(st.sampled_from([NO_LEVEL, *range(LOOP_LEVELS)])),
        operands={role.name: draw(st.integers(0, count - 1)) for role in OPCODES[opcode].roles
                  if count and (role.required or draw(st.booleans()))},
        fields=draw(fields(opcode, launch_entries)),
    )


@st.composite
def random_programs(draw):
    """A program in normal form that both forms can hold; it need not make sense to run."""
    distinct = st.lists(NAMES, unique=True, max_size=4)
    tokens, ops, launch, named = (draw(distinct) for _ in range(4))
    queues = draw(st.lists(st.builds(Queue, st.sampled_from(QueueKind), st.integers(0, 20),
                                     st.integers(0, 3)), unique=True, max_size=3))
    sizes = st.lists(st.integers(0, 2**20), max_size=5).map(tuple)
    symbols = draw(st.lists(st.builds(
        Symbol, NAMES, st.sampled_from(SymbolKind), st.sampled_from(Space),
        st.integers(0, 2**48), sizes, st.sampled_from(sorted(FORMATS)), st.sampled_from(Layout),
        st.integers(0, 3), st.just("") | NAMES), unique_by=lambda s: s.name, max_size=3))
    return Program(
        name=draw(NAMES),
        capabilities=frozenset(draw(st.sets(st.sampled_from(Capability)))),
        chips=draw(st.integers(1, 4)),
        symbols=tuple(symbols),
        launch=tuple(launch),
        tokens=tuple(Token(name, draw(st.integers(0, 2**16))) for name in tokens),
        ops=tuple(ops),
        operands=tuple(draw(operands(name, len(named))) for name in named),
        streams=tuple(
            Stream(queue, tuple(draw(st.lists(instructions(
                queue.kind, len(tokens), len(ops), len(named), len(launch)), max_size=4))))
            for queue in queues),
    )


@pytest.fixture(scope="session")
def programs():
    """The strategy of random programs."""
    return random_programs()
