"""Heads and costs of transformer blocks, causal or not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sweeps.errors import Problem
from sweeps.kinds.base import Array, Tie
from sweeps.proxy import Proxy

HEAD_WIDTH = 16


def heads(width: int, given: int | None = None) -> int:
    """Number of attention heads for a width.

    Without a given number it is the largest one whose heads are at least 16 wide, even (rotary
    positions turn pairs) and divide the width; one head below a width of 32.

    Args:
        width: of the residual stream.
        given: number stated by the user, returned as it is.
    """
    if given is not None:
        return given
    for count in range(max(1, width // HEAD_WIDTH), 1, -1):
        if width % count == 0 and (width // count) % 2 == 0:
            return count
    return 1


def head_counts(width: Array, proxy: Proxy) -> Array:
    """Heads of each width, (n,) or a number."""
    widths, of = np.unique(width, return_inverse=True)
    return np.array([float(heads(int(one), proxy.heads)) for one in widths])[of]


def block_weights(width: Array) -> Array:
    """Of one block: attention 4 d^2, feed-forward 8 d^2 (Kaplan et al. 2020, arXiv 2001.08361, table 1)."""
    return 12 * width**2


def block_kept(width: Array, head_count: Array) -> Array:
    """Numbers that autograd keeps of one block, by position.

    18 d (the stream before and after attention 2 d, both normalised 2 d, queries, keys and values 3 d,
    queries and keys as attention takes them 2 d, attended d, feed-forward before and after its nonlinearity
    8 d), two norms, and two norms and a log-sum a head.
    """
    return 18 * width + 3 * head_count + 2


def parts(pairs: bool) -> Tie:
    """That heads divide the width.

    Args:
        pairs: whether the parts must be even, since rotary positions turn pairs of numbers.
    """

    def problem(proxy: Proxy, at: Mapping[str, int]) -> Problem | None:
        width = at["width"]
        count = heads(width, proxy.heads)
        if width < 1 or (width % count == 0 and not (pairs and (width // count) % 2)):
            return None
        if proxy.heads is None:
            return Problem("width", str(width), "an even number, since attention turns pairs of numbers")
        even = " into even parts" if pairs else ""
        return Problem(
            "proxy.heads", f"{count} heads for width {width}", f"heads that divide every width{even}"
        )

    return Tie(("width",), problem)
