"""Models built from their shape."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from sweeps.data import Source
from sweeps.spec import Proxy
from workers.proxies import gpt


def build(config: Mapping[str, float], proxy: Proxy, source: Source, generator: torch.Generator) -> nn.Module:
    """The model of one configuration, on the CPU."""
    return gpt.build(config, proxy, generator)
