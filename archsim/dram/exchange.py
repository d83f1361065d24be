"""Command traces in the text forms of Ramulator 2.1 and DRAMsim3, written and read."""

from collections.abc import Iterable

from archsim.dram.trace import Command
from machine.errors import must_be

__all__ = ["from_dramsim3", "from_ramulator", "to_dramsim3", "to_ramulator"]

# Ref: CMU-SAFARI/ramulator2 @ 38c51d4, controller/plugin/impl/cmd_trace_recorder.cpp, text mode,
# and python/ramulator/dram/ddr5.py for names.
RAMULATOR = {"ACT": "ACT", "PRE": "PREpb", "PREA": "PREab", "REF": "REFab", "RD": "RD", "WR": "WR"}
LEVELS = ("Channel", "Rank", "BankGroup", "Bank", "Row", "Column")
TYPES = {"RD": 0, "WR": 1}  # of the request; -1 is maintenance, and here all that is not its end

# Ref: DRAMsim3, src/common.cc, operator<< of a command, after the clock in src/controller.cc. It
# has no PREA: here a precharge without a bank.
DRAMSIM3 = {"ACT": "activate", "PRE": "precharge", "PREA": "precharge", "REF": "refresh",
            "RD": "read", "WR": "write"}  # fmt: skip


def to_ramulator(commands: Iterable[Command]) -> str:
    """Return `commands` of one channel as Ramulator's recorder writes them: a file a channel.

    Type and source of the request are not known to a command: 0 for a read, 1 for a write, else
    -1, and -1.
    """
    lines = [f"clock,command,{','.join(LEVELS)},type,source"]
    for c in commands:
        place = ",".join(map(str, (c.channel, *c[3:])))
        lines.append(f"{c.cycle},{RAMULATOR[c.command]},{place},{TYPES.get(c.command, -1)},-1")
    return "\n".join(lines) + "\n"


def from_ramulator(text: str) -> list[Command]:
    """Return the commands of a recorded file; a standard without ranks has rank 0.

    What a command has no use for (a bank of REF, the row of PRE and RD) is left as it stands.
    Raises `UserError` naming the line.
    """
    head, *lines = text.splitlines() or [""]
    names = head.split(",")
    known = {"clock", "command", *LEVELS, "type", "source"}
    if not {"clock", "command", "Channel", "Bank", "Row"} <= set(names) <= known:
        raise must_be("line 1", "clock,command, levels, type,source as Ramulator writes them", head)
    back = {name: command for command, name in RAMULATOR.items()}
    found = []
    for number, line in enumerate(lines, 2):
        values = dict(zip(names, line.split(","), strict=False))
        if len(values) != len(names) or values["command"] not in back:
            what = f"{len(names)} values, the second of {', '.join(back)}"
            raise must_be(f"line {number}", what, line)
        fields = [values.get(level, "0") for level in LEVELS]
        cycle, channel, *place = _integers(number, line, [values["clock"], *fields])
        found.append(Command(cycle, channel, back[values["command"]], *place))
    return found


def to_dramsim3(commands: Iterable[Command]) -> str:
    """Return `commands` as DRAMsim3 writes them; rows and columns are hexadecimal."""
    lines = []
    for c in commands:
        place = " ".join(f"{n:>3}" for n in (c.channel, c.rank, c.bank_group, c.bank))
        name = DRAMSIM3[c.command]
        lines.append(f"{c.cycle:<18} {name:<20} {place} {c.row:>#8x} {c.column:>#8x}\n")
    return "".join(lines)


def from_dramsim3(text: str) -> list[Command]:
    """Return the commands of a trace of DRAMsim3. Raises `UserError` naming the line."""
    back = {name: command for command, name in DRAMSIM3.items() if command != "PREA"}
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if len(words) != 8 or words[1] not in back:
            what = f"8 values, the second of {', '.join(back)}"
            raise must_be(f"line {number}", what, line)
        cycle, channel, *place = _integers(number, line, [words[0], *words[2:]])
        command = back[words[1]]
        if command == "PRE" and place[2] < 0:
            command = "PREA"
        found.append(Command(cycle, channel, command, *place))
    return found


def _integers(number: int, line: str, words: Iterable[str]) -> list[int]:
    try:
        return [int(word, 0) for word in words]
    except ValueError:
        raise must_be(f"line {number}", "integers but for the command", line) from None
