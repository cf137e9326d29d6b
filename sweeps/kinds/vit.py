"""Vision transformers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sweeps.data import Source
from sweeps.errors import Problem
from sweeps.kinds.base import AxisRule, Columns, Counted, Counts, Tie, axes, pixels
from sweeps.kinds.transformer import block_kept, block_weights, head_counts, parts
from sweeps.proxy import Proxy

PATCH = AxisRule(True, 1, 256, 4)  # pixels along a side


def count(columns: Columns, proxy: Proxy, source: Source) -> Counts:
    """What vision transformers hold and do, one row a configuration.

    Of T = (r / p)^2 patches: p^2 C d weights embed each, 12 d^2 a layer and 2 T d numbers a layer in
    attention follow, and the mean over patches is read out (Dosovitskiy et al. 2021, arXiv 2010.11929,
    without the class token). Positions are fixed sines, which are no parameters. Beside its blocks autograd
    keeps the patches once cut (a copy, but for those that lie in order already), the last stream with its
    norm, the mean and the outputs. Memory peaks where the backward pass begins, in the last block's
    feed-forward part, or behind the first block.

    Args:
        columns: width d, depth l, resolution r and patch p (pixels along a side), each (n,) or a number.
        source: its channels C and outputs are read.
    """
    d, l, r, p = (
        np.asarray(columns[name], dtype=float) for name in ("width", "depth", "resolution", "patch")
    )
    patches, outputs = (r / p) ** 2, float(source.outputs)
    embedding, body, head = p**2 * source.channels * d, l * block_weights(d), outputs * d
    single = np.asarray(columns["batch"], dtype=float) == 1
    in_order = (p == r) | ((p == 1) & ((source.channels == 1) | single))
    cut = np.where(in_order, 0.0, source.channels * r**2)
    blocks = patches * (l * block_kept(d, head_counts(d, proxy)) + d + 1) + cut
    kept = blocks + d + outputs
    return Counts(
        embedding=embedding,
        body=body,
        head=head,
        table=0.0,
        tokens=1.0,
        layers=l,
        forward=patches * (2 * (embedding + body) + 4 * l * patches * d) + 2 * head,
        kept=kept,
        peaks=[(0.0, kept + 2 * outputs), (head, blocks + 5 * d * patches), (body + head, 6 * d * patches)],
    )


def _patches(_: Proxy, at: Mapping[str, int]) -> Problem | None:
    if at["patch"] and at["resolution"] % at["patch"] == 0:
        return None
    given = f"patches of {at['patch']} for resolution {at['resolution']}"
    return Problem("patch", given, "numbers that divide every resolution")


VIT = Counted(
    tasks=("classes", "values"),
    images=True,
    attention=True,
    axes=lambda source: axes(pixels(source, 1, 4096), patch=PATCH),
    count=count,
    step=lambda _, proxy: float(proxy.heads or 1),
    places=lambda columns: columns["patch"],
    ties=(parts(pairs=False), Tie(("patch", "resolution"), _patches)),
)
