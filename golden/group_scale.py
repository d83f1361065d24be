"""What scaling the sums of groups and adding them up gives."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from golden.formats import decode, encode
from machine.formats import FORMATS, format_named
from machine.group_scale import GroupScaleConfig

__all__ = ["Group", "scaled_totals"]


class Group(NamedTuple):
    """What the word of a group says of its rows."""

    rows: int
    first: bool  # totals start from +0
    last: bool  # totals are sent


def scaled_totals(
    cfg: GroupScaleConfig, groups: Sequence[Group], sums: np.ndarray, scales: np.ndarray
) -> np.ndarray:
    """Return the rows of totals sent, codes of float32 as int64 [rows of last groups, cols].

    `sums` [rows of all groups, cols] are integers, or codes of float32; `scales` [groups, cols] are
    codes. total + float32(sum) * scale: conversion, product and addition round once each. Totals
    that are kept start as +0, as after power-up.
    """
    total = FORMATS["float32"]
    kept = np.zeros((cfg.rows, cfg.cols), np.float32)
    sent, at = [np.zeros((0, cfg.cols), np.int64)], 0
    for group, codes in zip(groups, scales, strict=True):
        rows = sums[at : at + group.rows]
        at += group.rows
        with np.errstate(over="ignore", invalid="ignore"):
            scale = decode(codes, format_named(cfg.scale_format)).astype(np.float32)
            whole = rows if cfg.converts else decode(rows & 0xFFFF_FFFF, total)
            product = whole.astype(np.float32) * scale
            start = np.float32(0) if group.first else kept[: group.rows]
            added = start + product
        if group.last:
            sent.append(encode(added, total).astype(np.int64))
        else:
            kept[: group.rows] = added
    return np.concatenate(sent)
