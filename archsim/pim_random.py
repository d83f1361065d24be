"""Random mixes of host requests and PIM tiles, to hold two executions of a channel together."""

import random

from archsim.pim import HostRequest
from machine.dram import DramConfig
from machine.pim import PimConfig
from machine.pim_macros import PimOp

__all__ = ["random_host", "random_mix"]

Mix = tuple[list[PimOp], list[int], list[HostRequest]]


def random_mix(dram: DramConfig, pim: PimConfig, seed: int, *, tiles: int = 12,
               requests: int = 60) -> Mix:
    """Return PIM entries, the cycles they are offered from, and host requests, both in order.

    Vectors, tiles of every size and explicit precharges come in bursts with gaps; the host works
    on few rows, so that it hits, misses and conflicts.
    """
    rng = random.Random(seed)
    columns = min(pim.row_columns(dram), pim.buffer_columns)
    ops = [PimOp("GWRITE", row=rng.randrange(dram.rows), bank=rng.randrange(dram.banks))]
    for _ in range(tiles):
        kind = rng.randrange(8)
        if kind == 0:
            ops.append(PimOp("GWRITE", row=rng.randrange(dram.rows),
                             bank=rng.randrange(dram.banks)))
        elif kind == 1:
            ops.append(PimOp("PIMPRE"))
        ops += _tile(rng, dram, pim, columns)
    cycles, now = [], 0
    for op in ops:
        if op.kind in ("HEADER", "GWRITE") and rng.random() < 0.3:
            now += rng.randrange(300)
        elif rng.random() < 0.1:
            now += rng.randrange(20)
        cycles.append(now)
    return ops, cycles, random_host(dram, seed, requests)


def _tile(rng: random.Random, dram: DramConfig, pim: PimConfig, columns: int) -> list[PimOp]:
    row, reads = rng.randrange(dram.rows), rng.randint(1, 3)
    dots = rng.randint(1, max(1, columns // reads))
    reads = min(reads, columns // dots)
    ops = [PimOp("HEADER", row=row, dots=reads * dots, reads=reads)]
    for read in range(reads):
        at = read * dots
        if pim.row_buffers == 2:
            ops.append(PimOp("GEMV", row=row, column=at, slot=at, dots=dots))
            continue
        ops += [PimOp("DOT", row=row, column=at + j, slot=at + j, dots=1, first=j == 0)
                for j in range(dots)]
        ops.append(PimOp("READRES", row=row))
    return ops


def random_host(dram: DramConfig, seed: int, requests: int) -> list[HostRequest]:
    """Return host requests in order of arrival, in bursts with gaps, on few rows of each bank."""
    rng = random.Random(-1 - seed)
    now, found = 0, []
    bursts = dram.columns // dram.burst_length
    few = [rng.randrange(dram.rows) for _ in range(3)]
    for _ in range(requests):
        if rng.random() < 0.2:
            now += rng.randrange(400)
        found.append(HostRequest(now, rng.random() < 0.4, rng.randrange(dram.banks),
                                 rng.choice(few), rng.randrange(bursts)))
    return found
