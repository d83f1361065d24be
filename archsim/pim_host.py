"""What the host asks of a channel that computes, and what its oldest request waits for."""

from typing import NamedTuple

from archsim.pim_device import PimDevice

__all__ = ["HOST_CLASSES", "HostRequest", "host_reason"]

# What a cycle of the host's data bus was for, seen from the commands; the first that holds counts.
HOST_CLASSES = (
    "busy",  # a burst
    "refresh",  # the oldest request's rank refreshes or is about to
    "pim_conflict",  # its bank, its row or the command bus is PIM's
    "turnaround",  # the bus changes direction or rank
    "bus_conflict",  # commands of other requests stand too close
    "row_miss",  # its row is not open yet
    "idle",  # no request
)
_CAUSES = {"REF": "refresh", "host": "row_miss", "bus": "bus_conflict"}


class HostRequest(NamedTuple):
    """A burst the host asks for, offered from `cycle`; `bank` is flat, `column` counts bursts."""

    cycle: int
    write: bool
    bank: int
    row: int
    column: int


def host_reason(device: PimDevice, request: HostRequest, now: int, *, issued: bool, pending: int,
                gwriting: int, reserved: int) -> str:
    """Return the class of a cycle without data in which `request` is the oldest.

    `issued`: a command went in it. `pending` is the rank that is due for refresh, `gwriting` the
    bank of the vector copied, `reserved` the row of the tile under way; -1 for none.
    """
    two, bank, opened = device.pim.row_buffers == 2, request.bank, device.rows[request.bank]
    if bank // device.per_rank == pending:
        return "refresh"
    hit = opened == request.row
    if bank == gwriting or (request.row == reserved if two else not hit and reserved >= 0):
        return "pim_conflict"
    if hit:
        command = "WR" if request.write else "RD"
    else:
        command = "PRE" if opened >= 0 else "ACT"
    ready, cause = device.ready(command, bank)
    if ready <= now or (cause == "bus" and issued):
        # Legal, but the bus was another's, or PIM goes first.
        ours = issued and device.owner == "host" and device.trace[-1].command in _HOSTS
        return "bus_conflict" if ours else "pim_conflict"
    if cause in ("RD", "WR"):
        return "bus_conflict" if cause == command or not hit else "turnaround"
    return _CAUSES.get(cause, "pim_conflict")


_HOSTS = ("ACT", "PRE", "RD", "WR")
