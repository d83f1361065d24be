"""A second opinion on a channel's commands in RTL: ages against the rule table, rows, limits.

It shares the table and the form of a command with the controller, and nothing else.
"""

from collections import defaultdict
from collections.abc import Iterator
from enum import IntFlag

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.pim_queue import command_layout
from machine.dram import DramConfig, Rule, deadlines
from machine.pim import PIM_COMMANDS, PimConfig, pim_rules

__all__ = ["CommandCheck", "Fault", "banks_reached", "fault_layout", "places_of"]

ALL = ("DOT", "GEMV", "READRES", "HEADER")  # what goes to every bank


class Fault(IntFlag):
    """What a command can be illegal for."""

    TIMING = 1  # a rule of the table
    STATE = 2  # a row that is not open, or is
    LIMIT = 4  # past the end of the row or of the global buffer, or no command at all
    REFRESH = 8  # a rank was not refreshed in time
    DATA = 16  # a write without its data


def fault_layout(dram: DramConfig, pim: PimConfig) -> data.StructLayout:
    """Return what is told of illegal commands.

    `kinds` (`Fault`) and `rules` (bit j: rule j of ``pim_rules``) gather what all of them were
    illegal for; `command` and `bank` are those of the command in whose cycle the first fault was.
    """
    command = command_layout(dram, pim)
    return data.StructLayout({"kinds": max(Fault).bit_length(),
                              "command": command["command"].width, "bank": command["bank"].width,
                              "rules": len(pim_rules(dram, pim))})


def places_of(dram: DramConfig) -> dict[str, int]:
    """Return how many banks a place of each scope has."""
    rank = dram.bank_groups * dram.banks_per_group
    return {"bank": 1, "bank_group": dram.banks_per_group, "rank": rank, "other_ranks": rank,
            "channel": dram.banks}


def banks_reached(dram: DramConfig, pim: PimConfig, command: str) -> int:
    """Return how many banks `command` changes or reads; they begin at a multiple of it."""
    wide = places_of(dram)
    if command in ALL:
        return dram.banks
    if command == "GACT":
        return wide["channel" if pim.activate == "all" else "bank_group"]
    if command == "PIMPRE":
        return wide["channel" if pim.precharge == "all" else "bank"]
    return wide["rank" if command in ("PREA", "REF") else "bank"]


class CommandCheck(wiring.Component):
    """Says of each command whether it is legal, and keeps what was not until reset.

    For each earlier command and place it keeps an age: the cycles since that command, counted up
    to the greatest gap of its rules. Reset: every command is long ago, no fault.

    Members
    -------
    i : In(stream)
        Commands (`command_layout`), each in the cycle in which it is issued. Always ready.
    host_open : In(bits)
        Banks with a row open in the host's buffer, before this cycle's command.
    host_rows : In(bits)
        That row, bank by bank.
    pim_open : In(bits)
        Banks with a row open in PIM's buffer; with one buffer the same.
    pim_rows : In(bits)
        That row, bank by bank.
    no_data : In(1)
        A write's data is due in this cycle and is not there.
    o : Out(stream)
        Faults (`fault_layout`): ``valid`` from the cycle after the first illegal command on;
        ``ready`` is not looked at.
    """

    def __init__(self, dram: DramConfig, pim: PimConfig):
        self.dram = dram
        self.pim = pim
        banks, row = dram.banks, bits_for(dram.rows - 1)
        super().__init__({
            "i": In(stream.Signature(command_layout(dram, pim).size)), "host_open": In(banks),
            "host_rows": In(banks * row), "pim_open": In(banks), "pim_rows": In(banks * row),
            "no_data": In(1), "o": Out(stream.Signature(fault_layout(dram, pim).size)),
        })

    def elaborate(self, platform):
        m = Module()
        command = data.View(command_layout(self.dram, self.pim), self.i.payload)
        seen = data.View(fault_layout(self.dram, self.pim), self.o.payload)
        m.d.comb += self.i.ready.eq(1)
        self.here = {name: self.i.valid & (command.command == number)
                     for number, name in enumerate(PIM_COMMANDS)}

        # What is wrong in this cycle.
        rules = Signal(len(seen.rules))
        m.d.comb += rules.eq(Cat(self._broken(m, command)))
        kinds = {Fault.TIMING: rules.any(), Fault.STATE: self._state(m, command),
                 Fault.LIMIT: self._limit(command), Fault.REFRESH: self._refresh(m, command),
                 Fault.DATA: self.no_data}
        now = Signal(len(seen.kinds))
        m.d.comb += now.eq(Cat(kinds[kind] for kind in Fault))

        # What was wrong since reset.
        m.d.comb += self.o.valid.eq(seen.kinds.any())
        m.d.sync += [seen.kinds.eq(seen.kinds | now), seen.rules.eq(seen.rules | rules)]
        with m.If(~seen.kinds.any()):
            m.d.sync += [seen.command.eq(command.command), seen.bank.eq(command.bank)]
        return m

    def _meets(self, command: data.View, name: str, wide: int, place: int) -> Value:
        """Return whether command `name` goes to a bank of a place of `wide` banks."""
        most = max(wide, banks_reached(self.dram, self.pim, name))
        return command.bank >> most.bit_length() - 1 == place * wide // most

    def _broken(self, m: Module, command: data.View) -> Iterator[Value]:
        """Yield for each rule whether this cycle's command is too early for it."""
        dots = Signal.like(command.dots)
        with m.If(self.here["GEMV"]):
            m.d.sync += dots.eq(command.dots)
        ages = self._ages(m, command)
        wide, near = places_of(self.dram), dict[tuple[str, int, int], Signal]()
        for rule in pim_rules(self.dram, self.pim):
            banks, nth = wide[rule.scope], rule.nth - 1
            line = [ages[rule.after, banks, place][nth]
                    for place in range(self.dram.banks // banks)]
            gap, most = self._gap(rule, dots), line[0][1]
            if rule.scope != "other_ranks" and banks_reached(
                    self.dram, self.pim, rule.before) <= banks:
                # One place holds all banks the command goes to.
                key = rule.after, banks, nth
                if key not in near:
                    near[key] = Signal.like(line[0][0], name=f"{rule.after}_{banks}_near_{nth}")
                    place = command.bank >> banks.bit_length() - 1
                    m.d.comb += near[key].eq(Array(age for age, _ in line)[place])
                age = near[key]
                early = (age < gap) & (age != most)
            else:
                early = Cat(
                    (self._meets(command, rule.before, banks, place) ^ (
                        rule.scope == "other_ranks")) & (age < gap) & (age != most)
                    for place, (age, _) in enumerate(line)).any()
            yield self.here[rule.before] & early

    def _ages(self, m: Module, command: data.View) -> dict[tuple[str, int, int],
                                                           list[tuple[Signal, int]]]:
        """Return the ages, the last one first, by command, banks of the place and place."""
        wide = places_of(self.dram)
        most: defaultdict[tuple[str, int], int] = defaultdict(int)
        count: defaultdict[tuple[str, int], int] = defaultdict(int)
        for rule in pim_rules(self.dram, self.pim):
            key = rule.after, wide[rule.scope]
            most[key] = max(most[key], self._greatest(rule))
            count[key] = max(count[key], rule.nth)
        ages = {}
        for (after, banks), limit in most.items():
            for place in range(self.dram.banks // banks):
                line = [Signal(range(limit + 1), init=limit, name=f"{after}_{banks}_{place}_{k}")
                        for k in range(count[after, banks])]
                older = [Mux(age == limit, limit, age + 1) for age in line]
                again = self.here[after] & self._meets(command, after, banks, place)
                for k, age in enumerate(line):
                    m.d.sync += age.eq(Mux(again, older[k - 1] if k else 1, older[k]))
                ages[after, banks, place] = [(age, limit) for age in line]
        return ages

    def _gap(self, rule: Rule, dots: Value) -> Value:
        gap, slot = rule.gap_cycles(self.dram), self.pim.dot_cycles
        if rule.condition == "composite":
            least = self.pim.fill_dots
            return Mux(dots < least, least, dots) * slot + slot + gap
        if rule.condition == "held" and self.pim.hold == "last_dot":
            return Mux(dots == 0, 0, dots - 1) * slot + gap
        return Const(gap)

    def _greatest(self, rule: Rule) -> int:
        gap, dots = rule.gap_cycles(self.dram), (1 << bits_for(self.pim.row_columns(self.dram)))
        return gap + (dots + self.pim.fill_dots) * self.pim.dot_cycles if rule.condition else gap

    def _state(self, m: Module, command: data.View) -> Value:
        """Return whether a bank that the command goes to is not in the state it asks for."""
        banks, width, two = self.dram.banks, len(command.row), self.pim.row_buffers == 2
        host, own = Signal(banks, name="host_right"), Signal(banks, name="pim_right")
        for rows, is_open, right in ((self.host_rows, self.host_open, host),
                                     (self.pim_rows, self.pim_open, own)):
            m.d.comb += right.eq(Cat(
                is_open[b] & (rows.word_select(b, width) == command.row) for b in range(banks)))
        bad = {
            "ACT": self.host_open | (own if two else 0), "RD": ~host, "WR": ~host,
            "GWRITE": ~host, "GACT": self.pim_open | (host if two else 0), "DOT": ~own,
            "GEMV": ~own, "READRES": ~own, "REF": self.host_open | self.pim_open,
            "PIMPRE": Const(0 if two else -1, banks),
        }
        found = []
        for name, wrong in bad.items():
            reached = Cat(self._meets(command, name, 1, b) for b in range(banks))
            found.append(self.here[name] & (wrong & reached).any())
        return Cat(found).any()

    def _limit(self, command: data.View) -> Value:
        """Return whether the command goes past an end, or is none."""
        columns, bursts = self.pim.row_columns(self.dram), (
            self.dram.columns // self.dram.burst_length)
        dots = Mux(self.here["GEMV"], command.dots, 1)
        outside = (command.column + dots > columns) | (
            command.slot + dots > self.pim.buffer_columns)
        dot = self.here["DOT"] | self.here["GEMV"]
        host = self.here["RD"] | self.here["WR"]
        past = self.here["GWRITE"] & (
            (command.column >= columns) | (command.slot >= self.pim.buffer_columns))
        return (dot & (outside | (dots == 0)) | host & (command.column >= bursts) | past
                | self.i.valid & (command.command >= len(PIM_COMMANDS)))

    def _refresh(self, m: Module, command: data.View) -> Value:
        """Return whether a rank's deadline has passed."""
        late = []
        per_rank = places_of(self.dram)["rank"]
        for limit in deadlines(self.dram):
            if limit.end != "REF":  # a row open for long: a refresh closes it before
                continue
            for rank in range(self.dram.ranks):
                since = Signal(range(limit.cycles + 2), name=f"refreshed_{rank}")
                late.append(since > limit.cycles)
                again = self.here["REF"] & self._meets(command, "REF", per_rank, rank)
                m.d.sync += since.eq(Mux(again, 1, Mux(late[-1], since, since + 1)))
        return Cat(late).any() if late else Const(0)
