"""The attention of a decode step in memory that computes: every channel, layer by layer, in time.

Of each request of a channel q K and p V of its heads are GEMVs of the channel's banks, in NeuPIMs'
layout. The scores of a request are taken to be through the softmax when its p V comes: all q K of
a layer come before the first p V. A layer begins in all channels at once, when the last has ended
the one before. Beside it the host reads blocks of rows that are not PIM's.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from archsim.pim import CLASSES, PimChannel
from machine.config import require
from machine.dram import DramConfig
from machine.pim import PIM_COMMANDS, PimConfig
from machine.pim_macros import GemvShape, attend_shape, logit_shape
from mapping.pim import attention_cycles

__all__ = ["HOST_ROWS", "AttentionStep", "decode_attention", "random_lengths", "round_robin"]

HOST_ROWS = 1024  # of every bank, the last ones: what the host reads
VECTOR_ROWS = 64  # before them, of bank 0: what is copied to the global buffer
BLOCK_BURSTS = 64  # the host asks for so many at once, as a DMA does; assumed


@dataclass(frozen=True, slots=True)
class AttentionStep:
    """What a decode step's attention took; sums are over all channels."""

    cycles: int  # from the start to the last command's end
    layer_cycles: list[int]
    counts: dict[str, int]  # commands by name
    classes: dict[str, int]  # cycles of the units by class
    host_bursts: int
    refresh_late_cycles: int
    simulated_channels: int  # those with a list of lengths of their own


def random_lengths(batch: int, seed: int, *, prompt: float = 80.29, output: float = 294.99,
                   most: int = 2048) -> list[int]:
    """Return the tokens that each of `batch` requests attends to in the middle of its output.

    Prompt and output are exponential with these means (ShareGPT's in NeuPIMs' artifact; the
    distribution is assumed), the progress is uniform; none is longer than `most`.
    """
    rng = random.Random(seed)
    return [min(most, 1 + int(rng.expovariate(1 / prompt)
                              + rng.random() * rng.expovariate(1 / output)))
            for _ in range(batch)]


def round_robin(lengths: Sequence[int], channels: int) -> list[list[int]]:
    """Return the requests of each channel, dealt out in turn."""
    return [list(lengths[channel::channels]) for channel in range(channels)]


def decode_attention(dram: DramConfig, pim: PimConfig, lengths: Sequence[Sequence[int]], *,
                     heads: int, depth: int, layers: int,
                     host_share: float = 0.0) -> AttentionStep:
    """Simulate the attention of one decode step; ``lengths[channel]`` are its requests' tokens.

    `heads` of `depth` a layer and device. The host takes `host_share` of a channel's peak
    bandwidth for about as long as NeuPIMs' scheduler estimates the layer (`mapping.pim`). Channels
    with the same requests are simulated once. Raises ``ValueError`` if the caches do not fit.
    """
    require(0 <= host_share < 1, "host_share", "at least 0 and below 1", host_share)
    alike = sorted({tuple(of_channel) for of_channel in lengths})
    tiles = {key: _tiles(dram, pim, key, heads, depth, layers) for key in alike}
    channels = {key: PimChannel(dram, pim, record=False) for key in alike}
    bursts = {key: _blocks(dram, key, heads, depth, host_share) for key in alike}
    start, layer_cycles = 0, list[int]()
    for layer in range(layers):
        for key, channel in channels.items():
            offered = tiles[key].copy()
            offered[offered[:, 2] > 0, 1] += layer * _rows(dram, pim, key, heads, depth)
            channel.offer_tiles(offered, start)
            asked = bursts[key].copy()
            asked[:, 0] += start
            channel.ask_all(asked)
        end = max([start, *(channel.finish() for channel in channels.values())])
        for channel in channels.values():
            channel.clear()
        layer_cycles.append(end - start)
        start = end
    times = [sum(tuple(of_channel) == key for of_channel in lengths) for key in alike]
    ended = list(zip(times, channels.values(), strict=True))
    return AttentionStep(
        start, layer_cycles,
        {name: sum(n * channel.counts()[name] for n, channel in ended) for name in PIM_COMMANDS},
        {name: sum(n * channel.classes[name] for n, channel in ended) for name in CLASSES},
        layers * sum(n * len(bursts[key]) for n, key in zip(times, alike, strict=True)),
        max((channel.refresh_late_cycles for channel in channels.values()), default=0), len(alike))


def _shapes(dram: DramConfig, pim: PimConfig, length: int, heads: int,
            depth: int) -> list[GemvShape]:
    """Return the GEMVs of one request in a layer: q K of all heads, p V of each."""
    return [logit_shape(dram, pim, heads=heads, depth=depth, length=length),
            *[attend_shape(dram, pim, depth=depth, length=length)] * heads]


def _rows(dram: DramConfig, pim: PimConfig, lengths: Sequence[int], heads: int, depth: int) -> int:
    """Return the rows of every bank that a layer's caches take in a channel."""
    return sum(shape.chunks * shape.tiles for length in lengths
               for shape in _shapes(dram, pim, length, heads, depth))


def _tiles(dram: DramConfig, pim: PimConfig, lengths: Sequence[int], heads: int, depth: int,
           layers: int) -> np.ndarray:
    """Return the queue entries of a channel in its first layer, as `PimChannel.offer_tiles`."""
    taken, room = layers * _rows(dram, pim, lengths, heads, depth), _first_vector(dram)
    require(taken <= room, "rows of the caches", f"at most {room} of every bank", taken)
    found, row, vector = list[tuple[int, int, int, int]](), 0, 0
    each = [_shapes(dram, pim, length, heads, depth) for length in lengths]
    for shape in [shapes[0] for shapes in each] + [one for shapes in each for one in shapes[1:]]:
        for chunk in range(shape.chunks):
            last = chunk == shape.chunks - 1
            reads = shape.last_reads if last else shape.reads
            dots = shape.last_dots if last else shape.dots
            found.append((0, _first_vector(dram) + vector % VECTOR_ROWS, 0, 0))
            found += [(0, row + tile, reads, dots) for tile in range(shape.tiles)]
            row, vector = row + shape.tiles, vector + 1
    return np.array(found, np.int64).reshape(-1, 4)


def _first_vector(dram: DramConfig) -> int:
    return dram.rows - HOST_ROWS - VECTOR_ROWS


def _blocks(dram: DramConfig, lengths: Sequence[int], heads: int, depth: int,
            share: float) -> np.ndarray:
    """Return the host's reads in a layer, from its start: blocks of the bursts of a row after row.

    int [N, 5] as the fields of `archsim.pim.HostRequest`.
    """
    cycles = sum(attention_cycles(heads=heads, depth=depth, length=length) for length in lengths)
    blocks = int(share * cycles / (BLOCK_BURSTS * dram.burst_cycles))
    number = np.arange(blocks * BLOCK_BURSTS)
    in_row = dram.columns // dram.burst_length
    asked = np.zeros((len(number), 5), np.int64)
    asked[:, 0] = number // BLOCK_BURSTS * cycles // max(blocks, 1)
    asked[:, 2] = number // in_row % dram.banks
    asked[:, 3] = dram.rows - HOST_ROWS + number // (in_row * dram.banks) % HOST_ROWS
    asked[:, 4] = number % in_row
    return asked
