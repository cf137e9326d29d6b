"""Decoder-only transformers over tokens."""

from __future__ import annotations

import numpy as np

from sweeps.data import Source
from sweeps.kinds.base import AxisRule, Columns, Counted, Counts, axes
from sweeps.kinds.transformer import block_kept, block_weights, head_counts, parts
from sweeps.proxy import Proxy

CONTEXT = AxisRule(True, 8, 1 << 20, 64)


def count(columns: Columns, proxy: Proxy, source: Source) -> Counts:
    """What decoder-only transformers hold and do, one row a configuration.

    Per token the forward pass multiplies with 12 d^2 weights a layer, with 2 s d numbers a layer in attention
    (scores and values over all s positions, as the kernels compute them) and with V d weights in the head; a
    multiply-add is 2 FLOPs (Kaplan et al. 2020, arXiv 2001.08361, section 2.1, with attention and head
    counted). Beside its blocks autograd keeps the stream as it is at the end and normalised, its norm and V
    log-probabilities. Memory peaks where the backward pass begins, with the gradients of log-probabilities
    and logits (2 V a token); widths above 256 need up to 10 % more, inside the feed-forward part.

    Args:
        columns: width d, depth l, resolution s (tokens of a sequence), each (n,) or a number.
        source: its vocabulary is V.
    """
    d, l, s = (np.asarray(columns[name], dtype=float) for name in ("width", "depth", "resolution"))
    vocabulary = float(source.outputs)
    table, body, head = vocabulary * d, l * block_weights(d), vocabulary * d
    kept = l * block_kept(d, head_counts(d, proxy)) + 2 * d + 1 + vocabulary
    return Counts(
        embedding=table,
        body=body,
        head=head,
        table=table,
        tokens=s,
        layers=l,
        forward=2 * (body + head) + 4 * l * s * d,
        kept=kept,
        peaks=[(0.0, kept + 2 * vocabulary)],
    )


GPT = Counted(
    tasks=("tokens",),
    attention=True,
    axes=lambda _: axes(CONTEXT),
    count=count,
    step=lambda _, proxy: 2.0 * (proxy.heads or 1),  # attention turns pairs of numbers
    places=lambda _: 1.0,
    ties=(parts(pairs=True),),
)
