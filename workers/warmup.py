"""What a worker does before its first run, so that no run's seconds hold it."""

from __future__ import annotations

import torch
from torch import nn

from sweeps.data import STDLIB
from sweeps.resources import Resources
from workers import device
from workers.datasets import load
from workers.engines import stacked  # noqa: F401  what tracing imports takes a second


def warm_up(resources: Resources) -> None:
    """Imports, reads the text that most sweeps train on, and measures how fast matrix products are.

    The first step of an optimiser imports for two seconds what no step of ours uses.
    """
    chosen = device.pick(resources)
    device.keep_to(chosen, resources)
    layer = nn.Linear(2, 2)
    torch.autograd.backward(layer(torch.ones(1, 2)).sum())
    torch.optim.AdamW(layer.parameters(), fused=True).step()
    device.peak_flops(chosen.type, "float32", torch.get_num_threads())
    load(STDLIB, 1, chosen)
