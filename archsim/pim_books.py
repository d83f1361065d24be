"""The books of channels that compute: ticks by class, commands, energy of what they did."""

from collections.abc import Iterable, Iterator

from archsim.accounting import CLASSES
from archsim.dram.channels import DramCounters, DramEnergy
from archsim.pim import PimChannel
from machine.dram import DramConfig
from machine.pim import PimConfig

__all__ = ["channel_accounts", "counters", "energy_of", "pim_energies", "total"]

# The classes of `archsim.pim` and `archsim.pim_host` in those of a run.
_UNITS = {"dot": "busy", "drain": "drain", "gwrite": "fill", "refresh": "refresh",
          "row_conflict": "row_conflict", "gwrite_row": "row_miss", "turnaround": "turnaround",
          "activation": "row_miss", "idle": "unused"}
_HOST = {"busy": "busy", "refresh": "refresh", "pim_conflict": "pim_conflict",
         "turnaround": "turnaround", "bus_conflict": "bus_conflict", "row_miss": "row_miss",
         "idle": "unused"}
PimEnergy = tuple[str, int, str, float | None, str]  # operation, count, unit, pJ, source


def channel_accounts(channel: PimChannel, period: int, total: int) -> dict[str, dict[str, int]]:
    """Return the ticks of the host's data bus (``dram``) and of the units (``bank_units``).

    The channel has come to the end of the run; what is left of `total` ticks is unused.
    """
    found = {}
    for name, counts, names in (("dram", channel.host_classes, _HOST),
                                ("bank_units", channel.classes, _UNITS)):
        row = dict.fromkeys(CLASSES, 0)
        for cause, cycles in counts.items():
            row[names[cause]] += cycles * period
        row["unused"] += total - sum(row.values())
        found[name] = row
    return found


def counters(channel: PimChannel) -> DramCounters:
    """Return what the host's side of a channel did; ACT and PRE of a vector's row included.

    A column that needed no ACT is a hit. `late` is what waited for PIM; rows opened for PIM are
    not in these counts.
    """
    counts, classes = channel.counts(), channel.host_classes
    columns = counts["RD"] + counts["WR"]
    active = _active_cycles(channel)
    conflicts = min(counts["PRE"], counts["ACT"])
    return DramCounters(
        activates=counts["ACT"], reads=counts["RD"], writes=counts["WR"],
        precharges=counts["PRE"] + counts["PREA"], refreshes=counts["REF"],
        row_hits=max(0, columns - counts["ACT"]), row_misses=counts["ACT"] - conflicts,
        row_conflicts=conflicts, active_rank_cycles=active, busy_cycles=classes["busy"],
        idle_cycles=classes["idle"], refresh_cycles=classes["refresh"],
        row_miss_cycles=classes["row_miss"], turnaround_cycles=classes["turnaround"],
        late_cycles=classes["pim_conflict"], bus_conflict_cycles=classes["bus_conflict"],
        precharged_rank_cycles=channel.now * channel.dram.ranks - active, cycles=channel.now)


def _active_cycles(channel: PimChannel) -> int:
    """Return the cycles in which a rank had a row open or was in refresh, over all ranks."""
    device, wide = channel.device, channel.device.per_rank
    opened: list[set[tuple[int, int]]] = [set() for _ in range(channel.dram.ranks)]
    since = [0] * channel.dram.ranks
    cycles = 0
    for at, command, bank, _, _, _ in device.trace:
        rank = bank // wide
        if command == "REF":
            cycles += min(channel.dram.timing.rfc_cycles, channel.now - at)
        if command not in ("ACT", "GACT", "PRE", "PREA", "PIMPRE"):
            continue
        own = command in ("GACT", "PIMPRE") and channel.pim.row_buffers == 2
        rows = {(bank, own) for bank in device.reach(command, bank)}
        before = bool(opened[rank])
        if command in ("ACT", "GACT"):
            opened[rank] |= rows
        else:
            opened[rank] -= rows
        if opened[rank] and not before:
            since[rank] = at
        elif before and not opened[rank]:
            cycles += at - since[rank]
    return cycles + sum(channel.now - begin for begin, rows in zip(since, opened, strict=True)
                        if rows)


def total(each: Iterable[DramCounters]) -> DramCounters:
    """Return the sum of counters."""
    rows = list(each)
    names = DramCounters.__dataclass_fields__
    return DramCounters(*(sum(getattr(row, name) for row in rows) for name in names))


def energy_of(count: DramCounters, dram: DramConfig) -> DramEnergy:
    """Return the energy of the host's commands and of the ranks' standby."""
    standby = None
    active, closed = dram.active_standby_pj_per_cycle, dram.precharge_standby_pj_per_cycle
    if active is not None and closed is not None:
        standby = count.active_rank_cycles * active + count.precharged_rank_cycles * closed
    return DramEnergy(
        activate_pj=_times(count.activates, dram.activate_pj),
        read_pj=_times(count.reads, dram.read_pj), write_pj=_times(count.writes, dram.write_pj),
        refresh_pj=_times(count.refreshes, dram.refresh_pj), standby_pj=standby)


def _times(count: int, each: float | None) -> float | None:
    return None if each is None else count * each


def pim_energies(channels: Iterable[PimChannel], dram: DramConfig,
                 pim: PimConfig) -> Iterator[PimEnergy]:
    """Yield the energy of PIM's commands in all channels.

    Ratios to the host's commands as NeuPIMs' simulator has them: an activated bank is an ACT, a dot
    product of 32 banks four RD, a vector copied a RD a burst of its row, a result read 16 bits a
    bank. The units' arithmetic has no number.
    """
    counts = dict.fromkeys(("GACT", "dots", "GWRITE", "reads"), 0)
    for channel in channels:
        for command in channel.device.trace:
            if command.command in ("GACT", "GWRITE"):
                counts[command.command] += 1
            elif command.command in ("DOT", "GEMV"):
                counts["dots"] += max(command.dots, 1)
            counts["reads"] += command.command in ("GEMV", "READRES")
    source = "NeuPIMs' simulator's ratios to ACT and RD; IDD currents of the machine's dram.power"
    group = dram.banks if pim.activate == "all" else dram.banks_per_group
    bursts = dram.row_bytes // dram.burst_bytes
    for operation, count, unit, each, ratio in (
        ("grouped activation", counts["GACT"] * group, "bank", dram.activate_pj, 1.0),
        ("dot product", counts["dots"], "all-bank column", dram.read_pj, 4 * dram.banks / 32),
        ("vector copy", counts["GWRITE"], "command", dram.read_pj, float(bursts)),
        ("result read", counts["reads"], "command", dram.read_pj,
         dram.banks * 16 / (8 * dram.burst_bytes)),
    ):
        yield operation, count, unit, _times(count, None if each is None else each * ratio), source
    yield "unit arithmetic", counts["dots"] * pim.units(dram), "column of a unit", None, ""
