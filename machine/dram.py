"""DRAM: the external memory's organisation, timing, currents and controller; its rule table."""

from dataclasses import fields
from typing import Literal, NamedTuple

from machine.config import Analytic, config, require

__all__ = [
    "BUS",
    "COMMANDS",
    "FIELDS",
    "PRECONDITIONS",
    "Deadline",
    "DramConfig",
    "DramPower",
    "DramTiming",
    "Rule",
    "deadlines",
    "rules",
]

FIELDS = ("ro", "ra", "bg", "ba", "ch", "co")  # row, rank, bank group, bank, channel, burst column


@config
class DramTiming:
    """JEDEC timings in clock cycles under their standard names; S and L are short and long."""

    tck_ps: int
    cl_cycles: int  # RD to its first data
    cwl_cycles: int  # WR to its first data
    rcd_rd_cycles: int  # ACT to RD
    rcd_wr_cycles: int  # ACT to WR
    rp_cycles: int  # PRE to ACT
    ras_cycles: int  # ACT to PRE
    rtp_cycles: int  # RD to PRE
    wr_cycles: int  # end of write data to PRE
    ccd_s_cycles: int  # column command to column command, other bank group
    ccd_l_cycles: int  # the same, same bank group
    rrd_s_cycles: int  # ACT to ACT, other bank group
    rrd_l_cycles: int  # the same, same bank group
    faw_cycles: int  # ACT to the fourth ACT after it, one rank
    wtr_s_cycles: int  # end of write data to RD, other bank group
    wtr_l_cycles: int  # the same, same bank group
    rtrs_cycles: int  # idle cycles of the data bus when its driver changes
    rfc_cycles: int  # REF to any command of the rank
    refi_cycles: int  # average interval of REF, one rank
    # What not every standard has; 0: as the one named.
    row_cycles: int = 0  # tRC; 0: tRAS + tRP
    rp_all_cycles: int = 0  # PREA to ACT or REF; 0: tRP
    ccd_l_wr_cycles: int = 0  # tCCD_L of writes; 0: tCCD_L
    ppd_cycles: int = 0  # precharge to precharge, one rank; 0: no rule

    def __post_init__(self) -> None:
        for field in fields(self):
            name, optional = field.name, field.name == "rtrs_cycles" or field.default == 0
            least = 0 if optional else 1
            require(getattr(self, name) >= least, name, f"at least {least}", getattr(self, name))
        self._agree()
        busy = self.rfc_cycles + self.ras_cycles + 2 * self.rp_cycles
        require(
            self.refi_cycles > busy,
            "refi_cycles",
            f"more than {busy} of refresh, one row and two precharges",
            self.refi_cycles,
        )

    def _agree(self) -> None:
        """Refuse timings that contradict each other."""
        if self.row_cycles:
            row = self.ras_cycles + self.rp_cycles
            what = f"at least {row} of ras_cycles {self.ras_cycles} and rp_cycles {self.rp_cycles}"
            require(self.row_cycles >= row, "row_cycles", what, self.row_cycles)
        pairs = [("ras_cycles", "rcd_rd_cycles"), ("faw_cycles", "rrd_s_cycles")]
        pairs += [(f"{name}_l_cycles", f"{name}_s_cycles") for name in ("ccd", "rrd", "wtr")]
        pairs += [("rp_all_cycles", "rp_cycles")] if self.rp_all_cycles else []
        for name, least in pairs:
            what = f"at least {least} {getattr(self, least)}"
            require(getattr(self, name) >= getattr(self, least), name, what, getattr(self, name))

    @property
    def rc_cycles(self) -> int:
        """ACT to ACT of one bank: tRC, or tRAS + tRP."""
        return self.row_cycles or self.ras_cycles + self.rp_cycles


@config
class DramPower:
    """Supply and currents of one device, as data sheets give them (IDD, one device)."""

    vdd_mv: int
    idd0_ma: int  # one bank opened and closed every tRC
    idd2n_ma: int  # standby, all banks closed
    idd3n_ma: int  # standby, a bank open
    idd4r_ma: int  # reading without a gap
    idd4w_ma: int  # writing without a gap
    idd5_ma: int  # all-bank refresh
    devices: int = 1  # of a rank, in lockstep

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))


@config
class DramConfig:
    """The external memory: equal channels, each with its own controller and command queue.

    Latencies are from a request's arrival to the end of its data. Throughput is one burst per
    ``max(burst_cycles, ccd)`` cycles and channel, less refresh and turnaround.
    Energies are in picojoule per command, over the standby energy that every cycle costs; the
    method is Micron's (TN-46-03, "Calculating Memory System Power"), as DRAMsim3 applies it.
    """

    channels: int
    ranks: int  # of a channel
    bank_groups: int  # of a rank
    banks_per_group: int
    rows: int  # of a bank
    columns: int  # of a row, each as wide as the bus
    bus_bits: int  # of a channel
    burst_length: int  # columns moved by one command
    mapping: str  # address fields from the highest bits to the lowest
    timing: DramTiming
    power: DramPower | None = None  # None: energy is not modelled
    command_bus: Literal["shared", "row+column"] = "shared"
    page_policy: Literal["open"] = "open"
    refresh: Literal["all_bank_staggered", "off"] = "all_bank_staggered"
    queue_entries: int = 32  # requests a channel chooses among
    columns_per_cycle: int = 2  # moved in one cycle of the clock of `timing`; 2: double data rate
    two_cycle: tuple[str, ...] = ()  # commands that hold the command bus for two cycles
    overtakes_max: int = 64  # requests that may pass the oldest one; 0: data in order of arrival
    clock: str = "dram"
    fidelity: Analytic = "analytic"

    def __post_init__(self) -> None:
        names = ("channels", "ranks", "bank_groups", "banks_per_group", "rows", "columns")
        for name in (*names, "burst_length", "bus_bits", "columns_per_cycle"):
            value = getattr(self, name)
            power_of_two = value >= 1 and value & (value - 1) == 0
            require(power_of_two, name, "a power of two", value)
        least = max(2, self.columns_per_cycle)
        require(self.burst_length >= least, "burst_length", f"at least {least}", self.burst_length)
        known = set(self.two_cycle) <= set(COMMANDS)
        require(known, "two_cycle", f"among {', '.join(COMMANDS)}", self.two_cycle)
        require(self.bus_bits >= 8, "bus_bits", "at least 8", self.bus_bits)
        fits = f"at least burst_length {self.burst_length}"
        require(self.columns >= self.burst_length, "columns", fits, self.columns)
        require(self.banks <= 64, "banks of a channel", "at most 64", self.banks)
        parts = tuple(self.mapping[i : i + 2] for i in range(0, len(self.mapping), 2))
        order = f"{' '.join(FIELDS)} in any order, without spaces"
        require(sorted(parts) == sorted(FIELDS), "mapping", order, self.mapping)
        require(self.queue_entries >= 1, "queue_entries", "at least 1", self.queue_entries)
        require(self.overtakes_max >= 0, "overtakes_max", "at least 0", self.overtakes_max)

    @property
    def banks(self) -> int:
        """Banks of one channel; bank = (rank * bank_groups + group) * banks_per_group + bank."""
        return self.ranks * self.bank_groups * self.banks_per_group

    @property
    def burst_bytes(self) -> int:
        """Bytes one column command moves."""
        return self.bus_bits // 8 * self.burst_length

    @property
    def burst_cycles(self) -> int:
        """Cycles one burst holds the data bus."""
        return self.burst_length // self.columns_per_cycle

    def slots(self, command: str) -> int:
        """Return the cycles `command` holds its command bus."""
        return 2 if command in self.two_cycle else 1

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of one bank (a page)."""
        return self.columns * self.bus_bits // 8

    @property
    def capacity_bytes(self) -> int:
        """Bytes of all channels together."""
        return self.channels * self.banks * self.rows * self.row_bytes

    @property
    def peak_bytes_per_cycle(self) -> int:
        """Bytes all data buses together move in one cycle."""
        return self.channels * self.burst_bytes // self.burst_cycles

    @property
    def fields(self) -> dict[str, tuple[int, int]]:
        """(lowest bit, number of bits) of each address field, bit 0 being one burst."""
        sizes = {
            "ro": self.rows,
            "ra": self.ranks,
            "bg": self.bank_groups,
            "ba": self.banks_per_group,
            "ch": self.channels,
            "co": self.columns // self.burst_length,
        }
        found, low = {}, 0
        for at in range(len(self.mapping) - 2, -1, -2):
            name = self.mapping[at : at + 2]
            bits = sizes[name].bit_length() - 1
            found[name] = (low, bits)
            low += bits
        return found

    def place(self, address_bytes: int) -> dict[str, int]:
        """Return the value of every address field for the burst that holds `address_bytes`."""
        burst = address_bytes // self.burst_bytes
        return {f: burst >> low & ((1 << bits) - 1) for f, (low, bits) in self.fields.items()}

    @property
    def hit_latency_cycles(self) -> int:
        """Read of an open row, unloaded: CL + burst, and a second cycle of RD if it has one."""
        return self.slots("RD") - 1 + self.timing.cl_cycles + self.burst_cycles

    @property
    def read_latency_cycles(self) -> int:
        """Read of a closed bank, unloaded: tRCD + CL + burst, and the second cycle of ACT."""
        shift = self.slots("ACT") - self.slots("RD")
        return shift + self.timing.rcd_rd_cycles + self.hit_latency_cycles

    @property
    def write_latency_cycles(self) -> int:
        """Write to a closed bank, unloaded: tRCD + CWL + burst, and the second cycle of ACT."""
        first = self.slots("ACT") - 1 + self.timing.rcd_wr_cycles
        return first + self.timing.cwl_cycles + self.burst_cycles

    def first_refresh_cycle(self, rank: int) -> int:
        """Return when `rank` is first due: ranks take turns, spread evenly over tREFI."""
        return self.timing.refi_cycles * (rank + 1) // self.ranks

    def _pj(self, ma_cycles: int) -> float | None:
        if self.power is None:
            return None
        fj = self.power.vdd_mv * self.power.devices * ma_cycles * self.timing.tck_ps
        return fj / 1_000_000

    @property
    def activate_pj(self) -> float | None:
        """One ACT and its PRE: VDD (IDD0 tRC - IDD3N tRAS - IDD2N tRP)."""
        if (p := self.power) is None:
            return None
        t = self.timing
        standby = p.idd3n_ma * t.ras_cycles + p.idd2n_ma * t.rp_cycles
        return self._pj(p.idd0_ma * t.rc_cycles - standby)

    @property
    def read_pj(self) -> float | None:
        """One RD, without the interface: VDD (IDD4R - IDD3N) burst."""
        p = self.power
        return None if p is None else self._pj((p.idd4r_ma - p.idd3n_ma) * self.burst_cycles)

    @property
    def write_pj(self) -> float | None:
        """One WR, without the interface: VDD (IDD4W - IDD3N) burst."""
        p = self.power
        return None if p is None else self._pj((p.idd4w_ma - p.idd3n_ma) * self.burst_cycles)

    @property
    def refresh_pj(self) -> float | None:
        """One all-bank REF: VDD (IDD5 - IDD3N) tRFC; its tRFC counts as active standby."""
        p = self.power
        return None if p is None else self._pj((p.idd5_ma - p.idd3n_ma) * self.timing.rfc_cycles)

    @property
    def active_standby_pj_per_cycle(self) -> float | None:
        """One cycle of one rank with a row open: VDD IDD3N."""
        return None if self.power is None else self._pj(self.power.idd3n_ma)

    @property
    def precharge_standby_pj_per_cycle(self) -> float | None:
        """One cycle of one rank with every bank closed: VDD IDD2N."""
        return None if self.power is None else self._pj(self.power.idd2n_ma)


# The commands. PREA and REF go to all banks of a rank, the others to one bank.
COMMANDS = ("ACT", "PRE", "PREA", "REF", "RD", "WR")
BUS = {"ACT": "row", "PRE": "row", "PREA": "row", "REF": "row", "RD": "column", "WR": "column"}
PRECONDITIONS = {  # state that a command asks of its target
    "ACT": "bank closed",
    "PRE": "any",
    "PREA": "any",
    "REF": "rank closed",
    "RD": "row open",
    "WR": "row open",
}


class Rule(NamedTuple):
    """`before` waits until `cycles` after the `nth` previous `after` in the same `scope`.

    `edge` says between which points: ``issue`` command to command, ``data_end`` last data to
    command, ``data`` last data to first data, all three from the last cycle of a command on its
    bus; ``slot`` from the first to the first. `other_ranks` are all ranks of the channel but the
    one of `after`.
    """

    name: str
    after: str
    before: str
    scope: Literal["bank", "bank_group", "rank", "other_ranks", "channel"]
    cycles: int
    edge: Literal["issue", "data_end", "data", "slot"] = "issue"
    nth: int = 1
    buffer: str = "row"  # the row buffer it concerns
    condition: str = ""  # when it holds; empty: always

    def gap_cycles(self, cfg: DramConfig) -> int:
        """Return the least distance from issue to issue; 0 or less never delays."""
        latency = {"RD": cfg.timing.cl_cycles, "WR": cfg.timing.cwl_cycles}
        gap = self.cycles
        if self.edge != "slot":
            gap += cfg.slots(self.after) - cfg.slots(self.before)
        if self.edge in ("data_end", "data"):
            gap += latency[self.after] + cfg.burst_cycles
        if self.edge == "data":
            gap -= latency[self.before]
        return gap


class Deadline(NamedTuple):
    """`end` comes at most `cycles` after `start`, in `scope`."""

    name: str
    start: str
    end: str
    scope: Literal["bank", "rank"]
    cycles: int


def rules(cfg: DramConfig) -> tuple[Rule, ...]:
    """Return the rule table of `cfg`.

    Which rules there are: JESD79-4 (DDR4) and JESD235 (HBM) as DRAMsim3's timing.cc reads them
    (NeuPIMs' copy at f299af3 for the change of rank and direction). tPPD, and that a command of
    two cycles acts with its last one: Ramulator 2.1, python/ramulator/dram/{ddr5,spec}.py.
    """
    t = cfg.timing
    rp_all, ccd_l_wr = t.rp_all_cycles or t.rp_cycles, t.ccd_l_wr_cycles or t.ccd_l_cycles
    close = ("PRE", "PREA")
    return (
        # One bank.
        Rule("tRCDRD", "ACT", "RD", "bank", t.rcd_rd_cycles),
        Rule("tRCDWR", "ACT", "WR", "bank", t.rcd_wr_cycles),
        Rule("tRAS", "ACT", "PRE", "bank", t.ras_cycles),
        Rule("tRC", "ACT", "ACT", "bank", t.rc_cycles),
        Rule("tRP", "PRE", "ACT", "bank", t.rp_cycles),
        Rule("tRTP", "RD", "PRE", "bank", t.rtp_cycles),
        Rule("tWR", "WR", "PRE", "bank", t.wr_cycles, "data_end"),
        # All banks of a rank.
        Rule("tRAS", "ACT", "PREA", "rank", t.ras_cycles),
        Rule("tRTP", "RD", "PREA", "rank", t.rtp_cycles),
        Rule("tWR", "WR", "PREA", "rank", t.wr_cycles, "data_end"),
        Rule("tRP", "PREA", "ACT", "rank", rp_all),
        Rule("tRP", "PREA", "REF", "rank", rp_all),
        Rule("tRP", "PRE", "REF", "rank", t.rp_cycles),
        *(Rule("tRFC", "REF", c, "rank", t.rfc_cycles) for c in ("ACT", "PRE", "PREA", "REF")),
        # Activates near each other.
        Rule("tRRD_L", "ACT", "ACT", "bank_group", t.rrd_l_cycles),
        Rule("tRRD_S", "ACT", "ACT", "rank", t.rrd_s_cycles),
        Rule("tFAW", "ACT", "ACT", "rank", t.faw_cycles, "issue", 4),
        # Column commands near each other.
        Rule("tCCD_L", "RD", "RD", "bank_group", t.ccd_l_cycles),
        Rule("tCCD_L", "WR", "WR", "bank_group", ccd_l_wr),
        Rule("tCCD_S", "RD", "RD", "rank", t.ccd_s_cycles),
        Rule("tCCD_S", "WR", "WR", "rank", t.ccd_s_cycles),
        Rule("burst", "RD", "RD", "channel", 0, "data"),
        Rule("burst", "WR", "WR", "channel", 0, "data"),
        # The data bus changes direction or rank.
        Rule("tRTW", "RD", "WR", "channel", t.rtrs_cycles, "data"),
        Rule("tWTR_L", "WR", "RD", "bank_group", t.wtr_l_cycles, "data_end"),
        Rule("tWTR_S", "WR", "RD", "rank", t.wtr_s_cycles, "data_end"),
        Rule("tRTRS", "RD", "RD", "other_ranks", t.rtrs_cycles, "data"),
        Rule("tRTRS", "WR", "RD", "other_ranks", t.rtrs_cycles, "data"),
        # What a standard adds.
        *(Rule("tPPD", a, b, "rank", t.ppd_cycles) for a in close for b in close if t.ppd_cycles),
        *(
            Rule("slots", after, before, "channel", 2, "slot")
            for after in cfg.two_cycle
            for before in COMMANDS
            if cfg.command_bus == "shared" or BUS[after] == BUS[before]
        ),
    )


def deadlines(cfg: DramConfig) -> tuple[Deadline, ...]:
    """Return the deadlines of `cfg`; none with refresh off.

    Eight refreshes may be postponed and tRAS max is 9 tREFI (JESD79-4; memory, unverified).
    """
    if cfg.refresh == "off":
        return ()
    longest = 9 * cfg.timing.refi_cycles
    return (
        Deadline("tREFI", "REF", "REF", "rank", longest),
        Deadline("tRAS max", "ACT", "PRE", "bank", longest),
    )
