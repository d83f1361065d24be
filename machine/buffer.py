"""On-chip buffers: banked memories with ports that units share."""

from typing import Literal

from machine.config import Analytic, config, require

__all__ = ["BufferConfig", "PortConfig"]


@config
class PortConfig:
    """`count` equal ports; instance i of a client uses port i mod `count`.

    A port grants one word a cycle. Clients that are active together share it round-robin.
    """

    name: str
    clients: tuple[str, ...]  # unit kinds: "array", "vector", "dma", "link", "pim"
    access: Literal["read", "write", "both"] = "both"
    count: int = 1

    def __post_init__(self) -> None:
        require(bool(self.clients), "clients", "at least one unit kind", self.clients)
        for client in self.clients:
            kinds = ("array", "vector", "dma", "link", "pim")
            require(client in kinds, "clients", f"among {', '.join(kinds)}", client)
        require(self.count >= 1, "count", "at least 1", self.count)


@config
class BufferConfig:
    """A buffer of `bytes` bytes in `banks` banks, one word wide a port."""

    bytes: int  # capacity
    word_bytes: int  # moved by one port in one cycle
    ports: tuple[PortConfig, ...]
    banks: int = 1  # each bank serves one word a cycle; word i lies in bank i mod `banks`
    latency_cycles: int = 1  # from a granted read to its word
    clock: str = "core"
    fidelity: Analytic = "analytic"

    def __post_init__(self) -> None:
        for name in ("bytes", "word_bytes", "banks", "latency_cycles"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        require(
            self.bytes % (self.word_bytes * self.banks) == 0,
            "bytes",
            f"a multiple of {self.banks} banks x {self.word_bytes} word_bytes",
            self.bytes,
        )
        require(bool(self.ports), "ports", "at least one port", self.ports)

    def port_of(self, client: str, instance: int, *, write: bool) -> tuple[str, int] | None:
        """Return (port name, number) that serves `client`'s `instance`; None if no port does."""
        wanted = "write" if write else "read"
        for port in self.ports:
            if client in port.clients and port.access in (wanted, "both"):
                return port.name, instance % port.count
        return None
