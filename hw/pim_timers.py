"""What a PIM channel's controller keeps of the past: timing counters, open rows, refresh."""

from collections import defaultdict

from amaranth.hdl import Array, Cat, Const, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from machine.dram import DramConfig, Rule
from machine.pim import PIM_COMMANDS, PimConfig, pim_rules

__all__ = ["COMMAND_BITS", "NUMBER", "ActivateWindow", "Deadlines", "Rows", "Timers",
           "left_shape", "may", "reach"]

# By scope, place and later command: by earlier command and whether it is there, its gaps.
Loads = defaultdict[tuple[str, int, str], defaultdict[tuple[str, bool], list[Value]]]
NUMBER = {name: place for place, name in enumerate(PIM_COMMANDS)}
COMMAND_BITS = bits_for(len(PIM_COMMANDS) - 1)


def reach(dram: DramConfig, pim: PimConfig, command: str) -> int:
    """Return how many banks `command` goes to; they begin at a multiple of it."""
    all_banks, rank = dram.banks, dram.bank_groups * dram.banks_per_group
    return {
        "DOT": all_banks, "GEMV": all_banks, "READRES": all_banks, "HEADER": all_banks,
        "GACT": all_banks if pim.activate == "all" else dram.banks_per_group,
        "PIMPRE": all_banks if pim.precharge == "all" else 1, "PREA": rank, "REF": rank,
    }.get(command, 1)


def left_shape(dram: DramConfig) -> Shape:
    """Return the shape of the cycles left until a refresh is due."""
    return signed(bits_for(2 * dram.timing.refi_cycles) + 1)


def may(ready: Value, banks: int, name: str, bank: Value | int) -> Value:
    """Return the bit of ``Timers.ready`` for the command `name` to `bank`."""
    if isinstance(bank, int):
        return ready[NUMBER[name] * banks + bank]
    return ready.word_select(NUMBER[name], banks).bit_select(bank, 1)


class ActivateWindow(wiring.Component):
    """The last four activates of a rank; the fourth before the next must be tFAW old.

    Members
    -------
    act : In(1)
        A bank is activated in this cycle.
    ready : Out(1)
        Another one may be.
    """

    def __init__(self, dram: DramConfig):
        self.window = dram.timing.faw_cycles
        super().__init__({"act": In(1), "ready": Out(1)})

    def elaborate(self, platform):
        m = Module()
        ages = [Signal(range(self.window), name=f"to_go_{k}") for k in range(4)]
        older = [Mux(age == 0, 0, age - 1) for age in ages]
        for k, age in enumerate(ages):
            after = older[k + 1] if k < 3 else self.window - 1
            m.d.sync += age.eq(Mux(self.act, after, older[k]))
        m.d.comb += self.ready.eq(ages[0] == 0)
        return m


class Timers(wiring.Component):
    """A counter for each rule's place and later command; a command is ready where all are zero.

    A command issued in cycle t counts from cycle t + 1 on. Reset: everything is ready.

    Members
    -------
    en : In(1)
        A command is issued in this cycle.
    command : In(4)
        Its number in ``machine.pim.PIM_COMMANDS``.
    bank : In(bits)
        The first bank it goes to.
    dots : In(bits)
        Dot products of a composite.
    ready : Out(bits)
        Bit ``number * banks + bank``: the command may go to the bank in this cycle.
    """

    def __init__(self, dram: DramConfig, pim: PimConfig):
        self.dram = dram
        self.pim = pim
        super().__init__({
            "en": In(1), "command": In(COMMAND_BITS), "bank": In(bits_for(dram.banks - 1)),
            "dots": In(bits_for(pim.row_columns(dram))),
            "ready": Out(len(PIM_COMMANDS) * dram.banks),
        })

    def elaborate(self, platform):
        m = Module()
        widths = self._widths()

        # One counter for each place and later command. One command goes in a cycle, so the loads of
        # its rules never meet: the counter takes the greatest of its own and that one.
        loads: Loads = defaultdict(lambda: defaultdict(list))
        for rule in pim_rules(self.dram, self.pim):
            if rule.nth == 1:
                inside = rule.scope != "other_ranks"
                scope = str(rule.scope) if inside else "rank"
                for place in range(self.dram.banks // widths[scope]):
                    loads[scope, place, rule.before][rule.after, inside].append(self._gap(rule))
        running: dict[tuple[str, int, str], Value] = {}
        for (scope, place, before), some in loads.items():
            name = f"{scope}_{place}_{before}"
            most = max(self._largest(gap) for gaps in some.values() for gap in gaps)
            count, load = (Signal(range(most + 1), name=f"{name}_{end}")
                           for end in ("count", "load"))
            here = self.bank >> (widths[scope].bit_length() - 1) == place
            with m.Switch(self.command):
                for after in dict.fromkeys(after for after, _ in some):
                    with m.Case(NUMBER[after]):
                        gaps = [Mux(here if inside else ~here, self._most(some[after, inside]), 0)
                                for inside in (True, False) if (after, inside) in some]
                        m.d.comb += load.eq(sum(gaps[1:], gaps[0]))
            with m.If(self.en & (load > count)):
                m.d.sync += count.eq(load - 1)
            with m.Elif(count != 0):
                m.d.sync += count.eq(count - 1)
            running[scope, place, before] = count != 0

        # Four activates in a window of each rank.
        for rank in range(self.dram.ranks):
            m.submodules[f"window_{rank}"] = window = ActivateWindow(self.dram)
            here = self.bank // widths["rank"] == rank
            m.d.comb += window.act.eq(self.en & (self.command == NUMBER["ACT"]) & here)
            running["window", rank, "ACT"] = ~window.ready

        # A command waits for every place that overlaps what it reaches.
        for name, number in NUMBER.items():
            wide = reach(self.dram, self.pim, name)
            for bank in range(self.dram.banks):
                first = bank // wide * wide
                waits = [running[key] for key in self._keys(name, range(first, first + wide))
                         if key in running]
                m.d.comb += self.ready[number * self.dram.banks + bank].eq(
                    ~Cat(waits).any() if waits else 1)
        return m

    def _widths(self) -> dict[str, int]:
        rank = self.dram.bank_groups * self.dram.banks_per_group
        return {"bank": 1, "bank_group": self.dram.banks_per_group, "rank": rank,
                "channel": self.dram.banks}

    def _gap(self, rule: Rule) -> Value:
        pim, gap = self.pim, rule.gap_cycles(self.dram)
        most = pim.dot_cycles * (pim.row_columns(self.dram) + pim.fill_dots + 1) + gap
        if rule.condition == "composite":
            dots = Mux(self.dots > pim.fill_dots, self.dots, pim.fill_dots)
            total = (dots + 1) * pim.dot_cycles + gap
        elif rule.condition == "held" and pim.hold == "last_dot":
            total = (self.dots - 1) * pim.dot_cycles + gap
        else:
            return Const(gap)
        return total.as_unsigned()[: bits_for(most)]

    def _most(self, gaps: list[Value]) -> Value:
        """Return the greatest gap; one that depends on the dots is the only one of its rule."""
        if all(isinstance(gap, Const) for gap in gaps):
            return max(gaps, key=lambda gap: gap.value)
        assert len(gaps) == 1
        return gaps[0]

    def _largest(self, gap: Value) -> int:
        return gap.value if isinstance(gap, Const) else (1 << len(gap)) - 1

    def _keys(self, name, banks):
        for scope, wide in self._widths().items():
            for place in sorted({bank // wide for bank in banks}):
                yield scope, place, name
        yield "window", banks[0] // self._widths()["rank"], name


class Rows(wiring.Component):
    """The rows that are open, of the host's buffers and of PIM's; one set if they share them.

    A command issued in cycle t shows from cycle t + 1 on. Reset closes all.

    Members
    -------
    en : In(1)
        A command is issued in this cycle.
    command : In(4)
        Its number.
    bank : In(bits)
        The first bank it goes to.
    row : In(bits)
        Row it opens.
    host_open : Out(bits)
        Banks with a row open in the host's buffer.
    host_rows : Out(bits)
        That row, bank by bank.
    pim_open : Out(bits)
        Banks with a row open in PIM's buffer.
    pim_rows : Out(bits)
        That row, bank by bank.
    """

    def __init__(self, dram: DramConfig, pim: PimConfig):
        self.dram = dram
        self.pim = pim
        banks, row = dram.banks, bits_for(dram.rows - 1)
        super().__init__({
            "en": In(1), "command": In(COMMAND_BITS), "bank": In(bits_for(banks - 1)),
            "row": In(row), "host_open": Out(banks), "host_rows": Out(banks * row),
            "pim_open": Out(banks), "pim_rows": Out(banks * row),
        })

    def elaborate(self, platform):
        m = Module()
        shared = self.pim.row_buffers == 1
        sides: list[tuple[list[str], list[str], Signal, Signal]] = [
            (["ACT"], ["PRE", "PREA"], self.host_open, self.host_rows),
            (["GACT"], ["PIMPRE"], self.pim_open, self.pim_rows)]
        if shared:
            m.d.comb += [self.pim_open.eq(self.host_open), self.pim_rows.eq(self.host_rows)]
            sides = [(["ACT", "GACT"], ["PRE", "PREA", "PIMPRE"], self.host_open, self.host_rows)]
        for opens, closes, is_open, rows in sides:
            for bank in range(self.dram.banks):
                for name in (*opens, *closes):
                    wide = reach(self.dram, self.pim, name)
                    here = self.bank // wide == bank // wide
                    with m.If(self.en & (self.command == NUMBER[name]) & here):
                        m.d.sync += is_open[bank].eq(name in opens)
                        if name in opens:
                            m.d.sync += rows.word_select(bank, len(self.row)).eq(self.row)
        return m


class Deadlines(wiring.Component):
    """When each rank is due for refresh; a rank that is due stays so until it is refreshed.

    Members
    -------
    refreshed : In(1)
        The rank that is due is refreshed in this cycle.
    due : Out(1)
        A rank is due.
    rank : Out(bits)
        That rank; the lowest of those due when none was.
    left : Out(signed)
        Cycles until the next rank is due; means nothing while one is.
    """

    def __init__(self, dram: DramConfig):
        self.dram = dram
        super().__init__({"refreshed": In(1), "due": Out(1),
                          "rank": Out(bits_for(max(dram.ranks - 1, 1))),
                          "left": Out(left_shape(dram))})

    def elaborate(self, platform):
        m = Module()
        refi, ranks = self.dram.timing.refi_cycles, range(self.dram.ranks)
        if self.dram.refresh == "off":
            m.d.comb += self.left.eq(2 * refi)
            return m
        to_go = [Signal(self.left.shape(), init=self.dram.first_refresh_cycle(r),
                        name=f"to_go_{r}") for r in ranks]
        waits, waiting = Signal(), Signal(len(self.rank))
        first = Signal(len(self.rank))
        for r in reversed(ranks):
            with m.If(to_go[r] <= 0):
                m.d.comb += first.eq(r)
        m.d.comb += [self.due.eq(waits | Cat(count <= 0 for count in to_go).any()),
                     self.rank.eq(Mux(waits, waiting, first))]
        m.d.sync += [waits.eq(self.due & ~self.refreshed), waiting.eq(self.rank)]
        for r in ranks:
            back = self.refreshed & (self.rank == r)
            m.d.sync += to_go[r].eq(to_go[r] - 1 + Mux(back, refi, 0))
        least = Array(to_go)[0]
        for count in to_go[1:]:
            least = Mux(count < least, count, least)
        m.d.comb += self.left.eq(least)
        return m
