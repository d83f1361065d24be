"""Memory that computes: the unit beside the banks, the channel's vector buffer, timing rules."""

from typing import Literal

from machine.config import config, require
from machine.dram import COMMANDS, DramConfig, Rule, rules
from machine.formats import FORMATS

__all__ = ["PIM_COMMANDS", "PROGRAM_LANES", "BankUnitConfig", "PimConfig", "pim_rules"]

MASK_BITS = 32  # of a program's channel mask
PROGRAM_LANES = 16  # products that a program's pim_gemv adds as one column: docs/numerics.md

# GWRITE copies a bank's row to the global buffer. GACT opens a row in a group of banks (or in all).
# DOT multiplies a column in every bank. READRES reads the latches. HEADER announces what follows.
# GEMV is dot products and a result read in one command. PIMPRE closes a PIM row buffer.
Scope = Literal["bank", "bank_group", "rank", "other_ranks", "channel"]
PIM_COMMANDS = (*COMMANDS, "GWRITE", "GACT", "DOT", "READRES", "HEADER", "GEMV", "PIMPRE")


@config
class BankUnitConfig:
    """Dot products of one column by a slice of the vector: products, adder tree, accumulator.

    Latency is ``latency_cycles``, throughput one column a cycle. Order of addition:
    docs/numerics.md.
    """

    lanes: int = 16  # products per cycle; a power of two
    format: Literal["float16", "bfloat16", "int8"] = "float16"
    fidelity: Literal["rtl"] = "rtl"

    def __post_init__(self) -> None:
        power_of_two = self.lanes >= 2 and self.lanes & (self.lanes - 1) == 0
        require(power_of_two, "lanes", "a power of two, at least 2", self.lanes)

    @property
    def acc_format(self) -> str:
        """Format of the tree's sums, the accumulator and the result latch."""
        return "int32" if self.format == "int8" else "float32"

    @property
    def element_bits(self) -> int:
        """Bits of an element of the matrix and of the vector."""
        return FORMATS[self.format].bits

    @property
    def column_bytes(self) -> int:
        """Bytes of a column: one element a lane."""
        return self.lanes * self.element_bits // 8

    @property
    def tree_levels(self) -> int:
        """Levels of the adder tree."""
        return self.lanes.bit_length() - 1

    @property
    def latency_cycles(self) -> int:
        """A column to its sum in the latch: products, a register a level, the accumulator."""
        return self.tree_levels + 2


@config
class PimConfig:
    """What turns a DRAM channel into one that computes; the channel itself is a `DramConfig`."""

    unit: BankUnitConfig
    buffer_bytes: int  # global vector buffer of a channel
    gwrite_cycles: int  # GWRITE holds its bank and the buffer
    dot_cycles: int  # dot product to dot product; more than the burst: limited by power
    fill_dots: int = 6  # a composite lasts as long as at least so many dot products
    row_buffers: Literal[1, 2] = 1  # of a bank: shared with the host, or one of PIM's own
    host: Literal["blocked", "concurrent"] = "concurrent"  # while PIM commands wait
    admission: Literal["paper", "exact"] = "paper"  # estimate a header or GWRITE is admitted by
    bundle_banks: int = 1  # banks of one unit; 1: in the bank; more: on the logic die
    activate: Literal["group", "all"] = "group"  # banks a GACT opens: four, or the channel's
    activate_window: bool = True  # a GACT takes the whole tFAW of its rank
    precharge: Literal["bank", "all"] = "bank"  # banks a PIMPRE closes
    hold: Literal["issue", "last_dot"] = "last_dot"  # a composite keeps rows and buffer until
    host_entries: int = 4  # host requests the channel chooses among
    slack_min_cycles: int = 10  # less left before refresh: nothing is put between PIM commands
    latch_bytes: int = 4096  # results the controller of a channel holds for the program
    queues: int = 1  # PIM queues of a chip; each has its share of neighbouring channels
    outstanding: int = 8  # instructions of a PIM queue under way at once
    fidelity: Literal["paper:NeuPIMs"] = "paper:NeuPIMs"  # of the queues; the unit has its own

    def __post_init__(self) -> None:
        for name in ("buffer_bytes", "gwrite_cycles", "dot_cycles", "fill_dots", "host_entries",
                     "latch_bytes", "queues", "outstanding"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        require(self.slack_min_cycles >= 0, "slack_min_cycles", "at least 0", self.slack_min_cycles)
        power_of_two = self.bundle_banks >= 1 and self.bundle_banks & (self.bundle_banks - 1) == 0
        require(power_of_two, "bundle_banks", "a power of two", self.bundle_banks)
        column = self.unit.column_bytes
        fits = f"a multiple of {column}, a column of {self.unit.lanes} {self.unit.format}"
        require(self.buffer_bytes % column == 0, "buffer_bytes", fits, self.buffer_bytes)

    def check(self, dram: DramConfig) -> None:
        """Raise ``ValueError`` naming the numbers if a channel of `dram` cannot be this."""
        column, per_rank = self.unit.column_bytes, dram.bank_groups * dram.banks_per_group
        fits = f"a multiple of {column}, a column of {self.unit.lanes} {self.unit.format}"
        require(dram.row_bytes % column == 0, "row_bytes", fits, dram.row_bytes)
        most = f"at most {per_rank}, the banks of a rank"
        require(self.bundle_banks <= per_rank, "bundle_banks", most, self.bundle_banks)
        least = dram.burst_bytes // column * dram.burst_cycles if column > dram.burst_bytes else 1
        require(self.dot_cycles >= least, "dot_cycles", f"at least {least}", self.dot_cycles)

    def check_machine(self, dram: DramConfig) -> None:
        """Raise ``ValueError`` naming the numbers if `dram` cannot be a program's memory that
        computes: the last row of every bank is kept for vectors on their way to the buffer."""
        self.check(dram)
        require(dram.mapping.startswith("ro"), "dram.mapping",
                "one with ro first, as PIM keeps the last row of all banks", dram.mapping)
        require(dram.rows >= 2, "dram.rows", "at least 2: PIM keeps the last", dram.rows)
        most = f"at most {MASK_BITS}, the bits of a channel mask"
        require(dram.channels <= MASK_BITS, "dram.channels", most, dram.channels)
        shares = f"a divisor of {dram.channels}, the channels"
        require(dram.channels % self.queues == 0, "pim.queues", shares, self.queues)
        most = f"at most {dram.banks}, the banks of a channel: each holds one vector"
        require(self.outstanding <= dram.banks, "pim.outstanding", most, self.outstanding)

    def channels_of(self, dram: DramConfig, queue: int) -> range:
        """Return the channels that one PIM queue drives."""
        each = dram.channels // self.queues
        return range(queue * each, (queue + 1) * each)

    def usable_bytes(self, dram: DramConfig) -> int:
        """Return the bytes of `dram` that programs have: all but the last row of every bank."""
        return dram.capacity_bytes // dram.rows * (dram.rows - 1)

    def row_columns(self, dram: DramConfig) -> int:
        """Return the columns of a row, each as wide as the unit."""
        return dram.row_bytes // self.unit.column_bytes

    @property
    def buffer_columns(self) -> int:
        """Columns the global buffer holds."""
        return self.buffer_bytes // self.unit.column_bytes

    def units(self, dram: DramConfig) -> int:
        """Return the units of a channel, which work in step."""
        return dram.banks // self.bundle_banks

    def composite_cycles(self, dots: int) -> int:
        """Return the cycles from a composite of `dots` dot products to the next one."""
        return self.dot_cycles * (max(dots, self.fill_dots) + 1)

    def effect_cycles(self, dram: DramConfig, command: str, dots: int) -> int:
        """Return the cycles from the command that ends an entry to its effect.

        A row is open or closed, the buffer holds the vector, the last result is in the controller:
        read behind the composite's last dot product, as a READRES of its own.
        """
        t = dram.timing
        result = t.cl_cycles + dram.burst_cycles
        match command:
            case "GACT":
                return t.rcd_rd_cycles
            case "PIMPRE":
                return t.rp_cycles
            case "GWRITE":
                return self.gwrite_cycles
            case "GEMV":
                return self.composite_cycles(dots) - self.dot_cycles + result
            case _:
                return result

    def held_cycles(self, dots: int) -> int:
        """Return the cycles from a composite to its last dot product, 0 if it holds nothing."""
        return self.dot_cycles * (dots - 1) if self.hold == "last_dot" else 0


def pim_rules(dram: DramConfig, pim: PimConfig) -> tuple[Rule, ...]:
    """Return the rules of a channel that computes: those of `dram`, then those of its PIM commands.

    Condition ``composite`` adds `PimConfig.composite_cycles` of the earlier GEMV to the rule's
    cycles, ``held`` adds `PimConfig.held_cycles`. A rule of a command that reaches a whole channel
    has the scope of the channel. Ref: NeuPIMs (arXiv 2403.00579), its simulator's timing.cc at
    f299af3, unless a line says otherwise.
    """
    host = tuple(rule for rule in rules(dram) if rule.gap_cycles(dram) > 0)
    named = (*_activation(dram, pim), *_columns(dram, pim), *_results(dram, pim),
             *_gwrites(dram, pim), *_precharges(dram, pim))
    return (*host, *(rule for rule in named if rule.cycles > 0 or rule.condition))


def _activation(dram: DramConfig, pim: PimConfig) -> tuple[Rule, ...]:
    t = dram.timing
    wide: Scope = "channel" if pim.activate == "all" else "bank_group"
    reach: Scope = "channel" if pim.activate == "all" else "rank"
    row = t.rrd_l_cycles if pim.row_buffers == 2 else t.rc_cycles
    window = t.faw_cycles if pim.activate_window else t.rrd_s_cycles
    name = "tFAW" if pim.activate_window else "tRRD_S"
    return (
        Rule("row", "ACT", "GACT", "channel" if wide == "channel" else "bank", row),
        Rule("tRRD_L", "ACT", "GACT", wide, t.rrd_l_cycles),
        Rule("tRRD_S", "ACT", "GACT", reach, t.rrd_s_cycles),
        Rule("row", "GACT", "ACT", wide, row),
        Rule(name, "GACT", "ACT", reach, window),
        Rule("tRC", "GACT", "GACT", wide, t.rc_cycles),
        Rule(name, "GACT", "GACT", reach, window),
        *(Rule("tRCDRD", "GACT", c, "channel", t.rcd_rd_cycles)
          for c in ("DOT", "GEMV", "READRES")),
        Rule("tRFC", "REF", "GACT", "channel" if reach == "channel" else "rank", t.rfc_cycles),
    )


def _columns(dram: DramConfig, pim: PimConfig) -> tuple[Rule, ...]:
    """Host columns before PIM's: the same bank or group shares its row buffer, or does not.

    A PIM column goes to every bank, so the rule of a shared row buffer holds for the channel.
    """
    t, burst = dram.timing, dram.burst_cycles
    read, write = max(burst, t.ccd_l_cycles), t.cwl_cycles + burst + t.wtr_l_cycles
    rules_ = []
    for command in ("DOT", "GEMV", "READRES"):
        if pim.row_buffers == 1:
            rules_ += [Rule("tCCD_L", "RD", command, "channel", read),
                       Rule("tWTR_L", "WR", command, "channel", write)]
    # The latches leave by the host's data bus: another driver than the write before.
    rules_ += [Rule("tRTRS", "RD", "READRES", "channel", burst + t.rtrs_cycles),
               Rule("tRTRS", "WR", "READRES", "channel",
                    t.cwl_cycles + burst + t.rtrs_cycles - t.cl_cycles)]
    return tuple(rules_)


def _results(dram: DramConfig, pim: PimConfig) -> tuple[Rule, ...]:
    t, dot, burst = dram.timing, pim.dot_cycles, dram.burst_cycles
    to_write = t.cl_cycles + burst + t.rtrs_cycles - t.cwl_cycles
    switch = burst + t.rtrs_cycles
    return (
        Rule("dot", "DOT", "DOT", "channel", dot),
        # The last sum must be in the latch (ours; the source asks it of the first dot only).
        Rule("latch", "DOT", "READRES", "channel", max(dot, pim.unit.latency_cycles)),
        *(Rule("dot", "READRES", c, "channel", dot) for c in ("DOT", "READRES", "GEMV")),
        Rule("dot", "DOT", "GEMV", "channel", max(dot, pim.unit.latency_cycles)),
        Rule("composite", "GEMV", "GEMV", "channel", 0, condition="composite"),
        *(Rule("composite", "GEMV", c, "channel", 0, condition="composite")
          for c in ("DOT", "READRES") if pim.hold == "last_dot"),
        *(Rule("dot", "GEMV", c, "channel", dot)
          for c in ("DOT", "READRES") if pim.hold == "issue"),
        *(Rule("tCCD_S", c, "RD", "channel", max(burst, t.ccd_s_cycles))
          for c in ("DOT", "READRES")),
        Rule("tRTRS", "GEMV", "RD", "channel", switch),
        *(Rule("tRTW", c, "WR", "channel", to_write) for c in ("DOT", "READRES", "GEMV")),
    )


def _gwrites(dram: DramConfig, pim: PimConfig) -> tuple[Rule, ...]:
    t, burst, busy = dram.timing, dram.burst_cycles, pim.gwrite_cycles
    long, short = max(burst, t.ccd_l_cycles), max(burst, t.ccd_s_cycles)
    turn = t.cl_cycles + burst + t.rtrs_cycles - t.cwl_cycles
    return (
        Rule("tRCDRD", "ACT", "GWRITE", "bank", t.rcd_rd_cycles),
        Rule("tCCD_L", "RD", "GWRITE", "bank_group", long),
        Rule("tCCD_S", "RD", "GWRITE", "rank", short),
        Rule("tWTR_L", "WR", "GWRITE", "bank_group", t.cwl_cycles + burst + t.wtr_l_cycles),
        Rule("tWTR_S", "WR", "GWRITE", "rank", t.cwl_cycles + burst + t.wtr_s_cycles),
        *(Rule("gwrite", "GWRITE", c, "bank", busy) for c in ("RD", "WR", "PRE")),
        Rule("gwrite", "GWRITE", "PREA", "rank", busy),
        *(Rule("gwrite", "GWRITE", c, "channel", busy)
          for c in ("GWRITE", "DOT", "GEMV", "READRES", "HEADER", "GACT", "PIMPRE")),
        Rule("tCCD_L", "GWRITE", "RD", "bank_group", long),
        Rule("tCCD_S", "GWRITE", "RD", "rank", short),
        Rule("tRTW", "GWRITE", "WR", "rank", turn),
        *(Rule("tCCD_S", c, "GWRITE", "channel", short) for c in ("DOT", "READRES")),
        Rule("held", "GEMV", "GWRITE", "channel", short, condition="held"),
    )


def _precharges(dram: DramConfig, pim: PimConfig) -> tuple[Rule, ...]:
    t = dram.timing
    place: Scope = "channel" if pim.precharge == "all" else "bank"
    group: Scope = "channel" if pim.activate == "all" or pim.precharge == "all" else "bank_group"
    rank: Scope = "channel" if pim.precharge == "all" else "rank"
    opened: Scope = "channel" if pim.activate == "all" else "bank_group"
    shared: tuple[Rule, ...] = ()
    if pim.row_buffers == 1:  # the host's precharge closes what PIM opened
        closes = ("PRE", "PREA")
        shared = (
            *(Rule("tRTP", a, c, "channel", t.rtp_cycles)
              for a in ("DOT", "READRES") for c in closes),
            *(Rule("tRTP", "GEMV", c, "channel", t.rtp_cycles, condition="held") for c in closes),
            Rule("tRAS", "GACT", "PRE", opened, t.ras_cycles),
            Rule("tRAS", "GACT", "PREA", "channel" if opened == "channel" else "rank",
                 t.ras_cycles),
            Rule("tRP", "PRE", "GACT", "channel" if opened == "channel" else "bank", t.rp_cycles),
            Rule("tRP", "PREA", "GACT", "channel" if opened == "channel" else "rank",
                 t.rp_cycles),
        )
    return (
        *shared,
        Rule("tRAS", "GACT", "PIMPRE", group, t.ras_cycles),
        Rule("tRP", "PIMPRE", "GACT", "channel" if opened == "channel" else place, t.rp_cycles),
        Rule("tRP", "PIMPRE", "REF", rank, t.rp_cycles),
        *(Rule("tRTP", c, "PIMPRE", "channel", t.rtp_cycles) for c in ("DOT", "READRES")),
        Rule("tRTP", "GEMV", "PIMPRE", "channel", t.rtp_cycles, condition="held"),
        *(Rule("tRTP", c, "GACT", "channel", t.rtp_cycles + t.rp_cycles) for c in ("READRES",)),
        Rule("tRTP", "GEMV", "GACT", "channel", t.rtp_cycles + t.rp_cycles, condition="held"),
    )
