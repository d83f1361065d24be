"""The form every machine configuration takes: a frozen, strict, keyword-only dataclass."""

from typing import Literal, dataclass_transform

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

__all__ = ["Analytic", "Fidelity", "config", "require"]

Analytic = Literal["analytic"]  # the only fidelity of a block without RTL and without a peer
Fidelity = str  # "rtl", "analytic", "peer:<tool>" or "paper:<name>"


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
def config(cls: type) -> type:
    """Make `cls` a configuration: frozen, keyword-only, slotted, strict, unknown keys refused."""
    return dataclass(
        config=ConfigDict(extra="forbid", strict=True), frozen=True, kw_only=True, slots=True
    )(cls)


def require(holds: bool, name: str, what: str, value: object) -> None:
    """Raise ``ValueError`` with the sentence ``name must be what, not value`` unless `holds`."""
    if not holds:
        raise ValueError(f"{name} must be {what}, not {value!r}")
