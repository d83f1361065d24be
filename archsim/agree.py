"""Do golden and the simulator execute the same instructions of a program?

The program is verified, then run in golden on random data and in the simulator with the values
golden's READs gave. Every queue of both must have executed the same instructions, in the same
order: program counter, loop indices, layer, operation and units. Golden has no clock, so no time
is compared.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from archsim.diff_exec import Difference, first_difference
from archsim.engine.simulate import simulate
from archsim.job import launch_table, read_program
from archsim.log import InstructionLog
from archsim.random_data import random_tensors
from golden.execute import Executed, execute
from machine.encoding import require_capabilities
from machine.errors import UserError
from machine.faults import FaultKind
from machine.load import read_machine
from machine.verify import check, verify

__all__ = ["agree", "compare", "golden_log"]


def agree(
    program_path: Path, machine: str, *, launch: Mapping[str, int | Sequence[int]] | None = None,
    overrides: Sequence[str] = (), seed: int = 0,
) -> dict[str, Any]:
    """Run the text program at `program_path` in golden and in the simulator; compare the logs.

    Returns ``agree``, ``sentence``, ``program``, ``machine``, ``seed``, ``instructions`` (golden's,
    by queue), ``ticks``, and ``first_difference``: None, or queue, sequence, pc, indices, issue
    tick, field, and the field's value in golden and in the simulator. `launch` is as in
    ``prepare_program``. Raises `UserError` for a wrong program, launch or machine, for a fault
    that the verifier finds, and for data that the program cannot run on.
    """
    chip = read_machine(machine, overrides)
    program = read_program(program_path)
    given = launch_table(program, launch or {})
    tensors = random_tensors(program, seed)
    require_capabilities(program, chip.capabilities)
    # Only data can tell what some READs give; all else must be right before anything runs.
    faults = verify(program, given, chip)
    if any(fault.kind is not FaultKind.READ for fault in faults):
        check(program, given, chip)
    try:
        executed = execute(program, tensors, given, log=True)
    except ValueError as error:
        raise UserError(f"in golden, on random data: {error}") from None
    check(program, given, chip, executed.value_trace)
    timed = simulate(program, chip, given, executed.value_trace)
    queues = [str(stream.queue) for stream in program.streams]
    return {
        "program": program.name, "machine": chip.name, "seed": seed, "ticks": timed.ticks,
        "instructions": {
            queue: sum(entry.queue == queue for entry in executed.log) for queue in queues},
        **compare(golden_log(executed.log, queues), timed.log, f"{program.name} on {chip.name}"),
    }


def golden_log(executed: Iterable[Executed], queues: Sequence[str]) -> InstructionLog:
    """Return what golden executed as an instruction log whose times are unknown."""
    entries = list(executed)
    unknown = np.full(len(entries), -1, np.int64)
    return InstructionLog(
        queues, queue=[queues.index(entry.queue) for entry in entries],
        pc=[entry.pc for entry in entries], indices=[entry.indices for entry in entries],
        layer=[entry.layer for entry in entries], op=[entry.op for entry in entries],
        mask=[entry.mask for entry in entries], issue=unknown, start=unknown, completion=unknown)


def compare(golden: InstructionLog, timed: InstructionLog, title: str) -> dict[str, Any]:
    """Return ``agree``, ``sentence`` and ``first_difference`` of the two logs of one program."""
    # The simulator's log is first: its times say which difference is the earliest.
    found = first_difference(timed, golden, times=False)
    if found is None:
        counts = f"{_number(len(timed), 'instruction')} of {_number(len(timed.queues), 'queue')}"
        sentence = f"{title}: golden and the simulator agree on {counts}"
        return {"agree": True, "sentence": sentence, "first_difference": None}
    return {"agree": False, "sentence": f"{title}: {_told(found)}",
            "first_difference": _plain(found)}


def _number(count: int, of: str) -> str:
    return f"{count:,} {of}" + ("" if count == 1 else "s")


def _told(found: Difference) -> str:
    """Say where the simulator (left) and golden (right) part."""
    entry = found.entry
    at = f"{found.queue}[{entry.pc}] at iteration {','.join(map(str, entry.indices)) or '-'}"
    at = f"instruction {found.sequence} of {at}"
    if found.field == "entry":
        has, lacks = "golden", "the simulator"
        if found.left is not None:
            has, lacks = lacks, has
        return f"{at} is executed by {has} and not by {lacks}"
    return f"{at}: {found.field} is {found.right} in golden and {found.left} in the simulator"


def _plain(found: Difference) -> dict[str, Any]:
    entry, whole = found.entry, found.field == "entry"
    return {
        "queue": found.queue, "sequence": found.sequence, "pc": entry.pc,
        "indices": list(entry.indices), "issue_ticks": entry.issue, "field": found.field,
        "golden": found.right is not None if whole else found.right,
        "simulator": found.left is not None if whole else found.left,
    }
