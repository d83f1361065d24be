"""The limits of DMA engines and of the crossbar."""

from dataclasses import replace

import pytest

from machine.dma import CrossbarConfig, DmaConfig

DMA = DmaConfig(count=1)
CROSSBAR = CrossbarConfig(bytes_per_cycle=32, latency_cycles=1)


@pytest.mark.parametrize(("config", "field", "least"), [
    (DMA, "count", 1), (DMA, "outstanding", 1), (DMA, "setup_cycles", 0),
    (CROSSBAR, "bytes_per_cycle", 1), (CROSSBAR, "latency_cycles", 0)])
def test_least_value_is_legal_and_one_less_is_not(config, field, least):
    assert getattr(replace(config, **{field: least}), field) == least
    with pytest.raises(ValueError, match=f"{field} must be at least {least}, not {least - 1}"):
        replace(config, **{field: least - 1})
