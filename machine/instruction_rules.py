"""The rules that one instruction obeys as written, by the tables of ``machine.opcodes``."""

from collections.abc import Iterator
from enum import IntEnum

from machine.errors import UserError, nearest
from machine.faults import Fault, FaultKind, fault_at, listed
from machine.formats import FORMATS, check_matmul
from machine.opcodes import OPCODES, Alu, Field, KOrder, Opcode, OpcodeSpec
from machine.program import LOOP_LEVELS, NO_LEVEL, REGISTERS, Instruction, Program, Queue
from machine.vector import OPERANDS, VectorOp

__all__ = ["instruction_faults", "vector_sources"]

Found = Iterator[tuple[FaultKind, str]]

# Executed by the queue itself: they take no part in waiting and signalling.
_CONTROL = (Opcode.HALT, Opcode.LOOP, Opcode.END, Opcode.SCALAR)
_NO_REGISTER = 31  # the default of a register field of five bits
# A source that a constant in the field `value` may stand for.
_CONSTANT = ("factor",)


def instruction_faults(program: Program, stream: int, pc: int) -> Iterator[Fault]:
    """Yield the faults of one instruction that its own text shows."""
    instruction = program.streams[stream].instructions[pc]
    try:
        opcode = Opcode(instruction.opcode)
    except ValueError:
        yield fault_at(program, stream, pc, FaultKind.OPCODE, "opcode must be a known one, "
                                                              f"not {instruction.opcode}")
        return
    spec, queue = OPCODES[opcode], program.streams[stream].queue
    for kind, message in (
        *_queue_faults(queue, spec),
        *_role_faults(program, instruction, spec),
        *_field_faults(instruction, spec),
        *_register_faults(instruction),
        *_token_faults(program, instruction, opcode),
        *_accounting_faults(program, instruction),
        *_EXTRA.get(opcode, _nothing)(program, instruction, queue),
    ):
        yield fault_at(program, stream, pc, kind, message)


def _queue_faults(queue: Queue, spec: OpcodeSpec) -> Found:
    if spec.queues and queue.kind not in spec.queues:
        kinds = listed([kind.name.lower() for kind in spec.queues])
        yield FaultKind.QUEUE, f"queue must be {kinds}, not {queue.kind.name.lower()}"


def _role_faults(program: Program, instruction: Instruction, spec: OpcodeSpec) -> Found:
    roles = {role.name: role for role in spec.roles}
    for role in spec.roles:
        if role.required and role.name not in instruction.operands:
            yield FaultKind.ROLE, f"operand {role.name} must be given"
    for name, number in instruction.operands.items():
        if name not in roles:
            near = nearest(name, roles)
            hint = f"; did you mean {near!r}?" if near else ""
            yield FaultKind.ROLE, f"role must be one of {listed(list(roles))}, not {name!r}{hint}"
        elif not 0 <= number < len(program.operands):
            yield FaultKind.ROLE, (f"{name} must be an operand below {len(program.operands)}, "
                                  f"not {number}")
        elif (space := program.operands[number].space) not in roles[name].spaces:
            allowed = listed([one.name.lower() for one in roles[name].spaces])
            yield FaultKind.SPACE, f"{name} must be in {allowed}, not {space.name.lower()}"


def _field_faults(instruction: Instruction, spec: OpcodeSpec) -> Found:
    fields = {field.name: field for field in spec.fields}
    for name, value in instruction.fields.items():
        if name not in fields:
            near = nearest(name, fields)
            hint = f"; did you mean {near!r}?" if near else ""
            yield FaultKind.FIELD, (f"field must be one of {listed(list(fields))}, "
                                   f"not {name!r}{hint}")
        else:
            yield from _value_faults(fields[name], value)


def _value_faults(field: Field, value: int) -> Found:
    low, high = field.range
    if isinstance(field.kind, type) and issubclass(field.kind, IntEnum):
        if value not in [member.value for member in field.kind]:
            known = listed([member.name.lower() for member in field.kind])
            yield FaultKind.FIELD, f"{field.name} must be one of {known}, not {value}"
    elif field.kind == "register":
        if not 0 <= value < REGISTERS and value != field.default:
            yield FaultKind.REGISTER, f"{field.name} must be below {REGISTERS}, not {value}"
    elif not low <= value <= high:
        yield FaultKind.FIELD, f"{field.name} must be {low} to {high}, not {value}"


def _register_faults(instruction: Instruction) -> Found:
    predicate = instruction.predicate
    if predicate is not None and not 0 <= predicate.register < REGISTERS:
        yield FaultKind.REGISTER, f"predicate must be below {REGISTERS}, not {predicate.register}"


def _token_faults(program: Program, instruction: Instruction, opcode: Opcode) -> Found:
    for verb, pairs in (("wait", instruction.waits), ("signal", instruction.signals)):
        if pairs and opcode in _CONTROL:
            yield FaultKind.CONTROL, f"{opcode.name.lower()} must not {verb}"
        for token, count in pairs:
            if not 0 <= token < len(program.tokens):
                yield FaultKind.TOKEN, (f"{verb} must name a token below {len(program.tokens)}, "
                                       f"not {token}")
            if count < 1:
                yield FaultKind.TOKEN, f"count of {verb} must be at least 1, not {count}"


def _accounting_faults(program: Program, instruction: Instruction) -> Found:
    if not 0 <= instruction.op_id < max(1, len(program.ops)):
        yield FaultKind.FIELD, f"op must be below {len(program.ops)}, not {instruction.op_id}"
    level = instruction.layer_level
    if level != NO_LEVEL and not 0 <= level < LOOP_LEVELS:
        yield FaultKind.FIELD, f"level of layer must be below {LOOP_LEVELS}, not {level}"


def _nothing(program: Program, instruction: Instruction, queue: Queue) -> Found:
    return iter(())


def _loop_faults(program: Program, instruction: Instruction, queue: Queue) -> Found:
    count = instruction.fields.get("count", 0)
    if instruction.fields.get("count_is_register") and not 0 <= count < REGISTERS:
        yield FaultKind.REGISTER, f"count must be a register below {REGISTERS}, not {count}"


def _scalar_faults(program: Program, instruction: Instruction, queue: Queue) -> Found:
    get = instruction.fields.get
    alu, b = get("alu", 0), get("b", 0)
    if get("b_is_register") and not 0 <= b < REGISTERS:
        yield FaultKind.REGISTER, f"b must be a register below {REGISTERS}, not {b}"
    if alu in (Alu.LAUNCH, Alu.INDEX) and get("b_is_register"):
        yield FaultKind.FIELD, f"b of {Alu(alu).name.lower()} must be a number, not a register"
    if alu in (Alu.SET, Alu.LAUNCH, Alu.INDEX) and get("ra"):
        yield FaultKind.FIELD, f"ra of {Alu(alu).name.lower()} must be 0, not {get('ra')}"
    if alu == Alu.LAUNCH and not 0 <= b < len(program.launch):
        yield FaultKind.FIELD, f"launch entry must be below {len(program.launch)}, not {b}"
    if alu == Alu.INDEX and not 0 <= b < LOOP_LEVELS:
        yield FaultKind.FIELD, f"level must be below {LOOP_LEVELS}, not {b}"


def _formats(program: Program, instruction: Instruction) -> dict[str, str]:
    """Return the format of every operand whose number and format are known, by role."""
    return {
        role: program.operands[number].format
        for role, number in instruction.operands.items()
        if 0 <= number < len(program.operands) and program.operands[number].format in FORMATS
    }


def _matmul_faults(program: Program, instruction: Instruction, queue: Queue) -> Found:
    formats, get = _formats(program, instruction), instruction.fields.get
    level = get("set_level", NO_LEVEL)
    if level != NO_LEVEL and level >= LOOP_LEVELS:
        yield FaultKind.FIELD, f"set_level must be below {LOOP_LEVELS}, not {level}"
    yield from _order_faults(instruction)
    if "acc" not in formats or "w" not in instruction.operands:
        if get("group_end") or get("tables"):
            yield FaultKind.ROLE, "operand w must be given for group_end and tables"
        return
    if get("group_end"):
        group = program.operands[instruction.operands["w"]].group \
            if "w" in formats else None
        if "w" in formats and (group is None or group.scale is None):
            yield FaultKind.ROLE, "w must have a group with a scale for group_end"
        if formats["acc"] != "float32":
            yield FaultKind.FORMAT, f"acc must be float32 for group_end, not {formats['acc']}"
    elif not get("tables") and {"a", "w"} <= formats.keys():
        try:
            check_matmul(FORMATS[formats["a"]], FORMATS[formats["w"]], formats["acc"])
        except UserError as error:
            yield FaultKind.FORMAT, str(error)


def _order_faults(instruction: Instruction) -> Found:
    get = instruction.fields.get
    order, size = get("k_order", KOrder.SEQUENTIAL), get("k_size", 0)
    if order not in (KOrder.DESCENDING, KOrder.INTERLEAVED):
        if size:
            yield FaultKind.FIELD, f"k_size must be 0 for sequential, not {size}"
        return
    name = KOrder(order).name.lower()
    if size < 1:
        yield FaultKind.FIELD, f"k_size must be at least 1 for {name}, not {size}"
    for other in ("group_end", "tables"):
        if get(other):
            yield FaultKind.FIELD, f"k_order must be sequential for {other}, not {name}"


def vector_sources(vop: VectorOp) -> dict[str, str]:
    """Return the role of each source of `vop`: x, x1, x2, x3 in order, ``state`` for the state."""
    roles = iter(("x", "x1", "x2", "x3"))
    names = [name.strip("[]") for name in OPERANDS[vop]]
    return {name: "state" if name == "state" else next(roles) for name in names}


def _vector_faults(program: Program, instruction: Instruction, queue: Queue) -> Found:
    number = instruction.fields.get("vop", 0)
    if number not in [vop.value for vop in VectorOp]:
        if "vop" not in instruction.fields:
            yield FaultKind.FIELD, "vop must be given"
        return
    vop = VectorOp(number)
    sources = vector_sources(vop)
    for name, role in sources.items():
        required = name in OPERANDS[vop] and name not in _CONSTANT
        if required and role not in instruction.operands:
            yield FaultKind.ROLE, f"operand {role} ({name}) must be given for {vop.name.lower()}"
    taken = {*sources.values(), "x", "y", "scale"}
    for role in instruction.operands:
        if role not in taken and role in ("x1", "x2", "x3", "state"):
            yield FaultKind.ROLE, f"operand {role} must be absent from {vop.name.lower()}"


def _link_faults(program: Program, instruction: Instruction, queue: Queue) -> Found:
    peer = instruction.fields.get("peer", 0)
    if peer >= program.chips or peer == queue.chip:
        yield FaultKind.FIELD, f"peer must be another chip below {program.chips}, not {peer}"


def _read_faults(program: Program, instruction: Instruction, queue: Queue) -> Found:
    source = _formats(program, instruction).get("src")
    if source is not None and not source.startswith(("int", "uint")):
        yield FaultKind.FORMAT, f"src must have an integer format, not {source}"


_EXTRA = {
    Opcode.LOOP: _loop_faults,
    Opcode.SCALAR: _scalar_faults,
    Opcode.MATMUL: _matmul_faults,
    Opcode.VECTOR: _vector_faults,
    Opcode.SEND: _link_faults,
    Opcode.RECV: _link_faults,
    Opcode.READ: _read_faults,
}
