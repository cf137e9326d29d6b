"""Multilayer perceptrons over rows of numbers, or over flattened images."""

from __future__ import annotations

import numpy as np

from sweeps.data import Source
from sweeps.kinds.base import AxisRule, Columns, Counted, Counts, axes, pixels
from sweeps.proxy import Proxy

ROW = AxisRule(True, 1, 1, 1)  # a row has no resolution


def count(columns: Columns, _: Proxy, source: Source) -> Counts:
    """What multilayer perceptrons hold and do, one row a configuration.

    An input layer, depth - 1 hidden layers and a readout, each with biases: the forward pass multiplies once
    with every weight. Autograd keeps each layer's output after its nonlinearity, and the outputs (as
    log-probabilities, or to compare them with values). Memory peaks where the backward pass begins, behind
    the readout, or behind the input layer.

    Args:
        columns: width, depth, resolution (pixels along a side, or 1), each (n,) or a number.
        source: its rows are the inputs.
    """
    w, l, r = (np.asarray(columns[name], dtype=float) for name in ("width", "depth", "resolution"))
    inputs, outputs = source.inputs(1.0) * r**2, float(source.outputs)
    first, hidden, last = inputs * w, (l - 1) * w**2, w * outputs
    body, head, kept = hidden + (l - 1) * w, last + outputs, l * w + outputs
    return Counts(
        embedding=first + w,
        body=body,
        head=head,
        table=0.0,
        tokens=1.0,
        layers=l,
        forward=2 * (first + hidden + last),
        kept=kept,
        peaks=[(0.0, kept + 2 * outputs), (head, kept - outputs + 2 * w), (body + head, 3 * w)],
    )


MLP = Counted(
    tasks=("classes", "values"),
    axes=lambda source: axes(pixels(source, 1, 4096) if source.channels else ROW),
    count=count,
    step=lambda *_: 1.0,
)
