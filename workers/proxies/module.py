"""Networks that the user's code builds."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import torch
from torch import nn

from sweeps.data import Source
from sweeps.errors import SweepError
from sweeps.proxy import Proxy


class EntryError(SweepError):
    """The user's code cannot be used as it is."""


def build(config: Mapping[str, float], proxy: Proxy, source: Source, generator: torch.Generator) -> nn.Module:
    """What the entry makes of a configuration: a plain module from inputs to logits or values.

    Args:
        config: complete; whole numbers are given as ints.
        proxy: names the entry, which is called with the configuration and the source.
        generator: gives PyTorch's own the seed of the initial weights.

    Raises:
        EntryError: there is no such function, or it builds no module with parameters.
    """
    name, _, function = (proxy.entry or "").partition(":")
    try:
        entry = getattr(importlib.import_module(name), function)
    except (ImportError, AttributeError) as error:
        raise EntryError(f"proxy.entry: given {proxy.entry!r}; allowed: a function ({error})") from None
    plain = {axis: int(value) if value == int(value) else value for axis, value in config.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        made = entry(plain, source)
    if not isinstance(made, nn.Module) or not any(True for _ in made.parameters()):
        given = f"{proxy.entry}, which made a {type(made).__name__}"
        raise EntryError(f"proxy.entry: given {given}; allowed: a torch.nn.Module with parameters")
    return made
