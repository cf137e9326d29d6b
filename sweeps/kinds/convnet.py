"""Residual convolutional networks in three stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sweeps.data import Source
from sweeps.errors import Problem
from sweeps.kinds.base import Array, AxisRule, Columns, Counted, Counts, Tie, axes, pixels
from sweeps.proxy import Proxy

STAGES = 3  # each with depth blocks; a later one has twice the width at half the resolution
HALVED = 1 << (STAGES - 1)
KERNEL = 9  # 3 x 3
DOWN = 4  # 2 x 2, with stride 2
GROUP_WIDTH = AxisRule(True, 0, 65536, 0)  # channels of a group; 0 is ungrouped


def count(columns: Columns, _: Proxy, source: Source) -> Counts:
    """What residual convolutional networks hold and do, one row a configuration.

    A 3 x 3 stem, then stages of ``depth`` pre-activation blocks of two 3 x 3 convolutions each, with a 2 x 2
    convolution of stride 2 between them. Stage k has width 2^k w at resolution r / 2^k, so that ungrouped
    blocks of all stages take the same FLOPs: flops ~ d w^2 r^2, parameters ~ d w^2, activations ~ d w r^2
    (Dollar, Singh and Girshick 2021, arXiv 2103.06877). Autograd keeps of a block its input, both
    nonlinearities' outputs and what lies between the convolutions, with mean and deviation of two norms.
    Memory peaks where the backward pass begins, or at the ends of a stage, with a copy of a weight.

    Args:
        columns: width w, depth d, resolution r (pixels along a side), group_width, each (n,) or a number.
        source: its channels and outputs are read.
    """
    w, d, r, group = (
        np.asarray(columns[name], dtype=float) for name in ("width", "depth", "resolution", "group_width")
    )
    outputs, stem = float(source.outputs), KERNEL * source.channels * w
    stages = [_stage(2**k * w, d, (r / 2**k) ** 2, group, first=k == 0) for k in range(STAGES)]
    last, places = HALVED * w, (r / HALVED) ** 2
    head, end = last * outputs, 2 * last * places + 2 + last + outputs
    body, kept = sum((one.weights for one in stages), 0.0 * w), sum((one.kept for one in stages), end)
    peaks, gradients, before = [(0.0 * w, kept + 2 * outputs)], head, kept - end
    for one in reversed(stages):
        peaks.append((gradients + one.matrix, before + 2 * one.stream))
        gradients, before = gradients + one.weights, before - one.kept
        peaks.append((gradients + one.matrix, before + 3 * one.stream))
    return Counts(
        embedding=stem,
        body=body,
        head=head,
        table=0.0,
        tokens=1.0,
        layers=STAGES * d,
        forward=sum((one.forward for one in stages), 2 * (stem * r**2 + head)),
        kept=kept,
        peaks=peaks,
    )


@dataclass(frozen=True)
class _Stage:
    """Of one stage: its weights, those of one convolution, and by image FLOPs forward, numbers that autograd
    keeps and those of the stream."""

    weights: Array
    matrix: Array
    forward: Array
    kept: Array
    stream: Array


def _stage(width: Array, depth: Array, places: Array, group: Array, *, first: bool) -> _Stage:
    matrix = KERNEL * width * np.where(group > 0, group, width)
    down = 0.0 if first else DOWN * width * width / 2
    weights, stream = 2 * depth * matrix + down, width * places
    entered = 0.0 if first else 2 * stream  # half the width at four times the places
    kept = depth * (4 * stream + 4) + entered
    return _Stage(weights, matrix, 2 * places * weights, kept, stream)


def _groups(_: Proxy, at: Mapping[str, int]) -> Problem | None:
    if at["group_width"] == 0 or at["width"] % at["group_width"] == 0:
        return None
    given = f"groups of {at['group_width']} for width {at['width']}"
    return Problem("group_width", given, "numbers that divide every width, or 0 for no groups")


def _halves(_: Proxy, at: Mapping[str, int]) -> Problem | None:
    if at["resolution"] % HALVED == 0:
        return None
    return Problem("resolution", str(at["resolution"]), f"multiples of {HALVED}, since it is halved twice")


CONVNET = Counted(
    tasks=("classes", "values"),
    images=True,
    axes=lambda source: axes(pixels(source, HALVED, 4096), group_width=GROUP_WIDTH),
    count=count,
    step=lambda columns, _: np.maximum(columns["group_width"], 1.0),
    places=lambda _: float(HALVED),
    ties=(Tie(("group_width", "width"), _groups), Tie(("resolution",), _halves)),
)
