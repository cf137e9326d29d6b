"""Proxies as networks, each what ``sweeps.kinds`` counts from its shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import nn

from sweeps.data import Source
from sweeps.proxy import Proxy
from workers.proxies import convnet, gpt, mlp, module, vit

Build = Callable[[Mapping[str, float], Proxy, Source, torch.Generator], nn.Module]

BUILDS: Mapping[str, Build] = MappingProxyType(
    {"mlp": mlp.build, "convnet": convnet.build, "vit": vit.build, "gpt": gpt.build, "module": module.build}
)


def build(config: Mapping[str, float], proxy: Proxy, source: Source, generator: torch.Generator) -> nn.Module:
    """The model of one configuration, on the CPU.

    Args:
        config: complete, of the axes of the proxy's kind.
        proxy: says which kind.
        source: says what goes in and comes out.
        generator: of the initial weights.
    """
    return BUILDS[proxy.kind](config, proxy, source, generator)
