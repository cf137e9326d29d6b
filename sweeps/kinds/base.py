"""What every kind of proxy tells before one is built: its axes, what it can learn and what a run costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sweeps.data import SOURCES, Source, Task
from sweeps.errors import Problem
from sweeps.proxy import Proxy

Array = NDArray[np.float64]
Columns: TypeAlias = Mapping[str, ArrayLike]

BYTES = 4  # float32
KEPT_COPIES = 3  # of every parameter: weight and AdamW's two moments; the gradient comes and goes
PIXELS = 16  # along a side, where neither the specification nor the source says


@dataclass(frozen=True)
class AxisRule:
    """What an axis of a proxy may hold.

    Args:
        integer: only whole numbers make sense.
        lower, upper: inclusive bounds.
        default: used where a specification leaves the axis out; None where it must be given.
    """

    integer: bool
    lower: float
    upper: float
    default: float | None


SCALE = ("size", "width", "depth", "tokens", "unique", "fraction", "kept")  # axes that have no best value

SHARE = AxisRule(False, 1e-6, 1.0, 1.0)
SHAPE: Mapping[str, AxisRule] = MappingProxyType(
    {"width": AxisRule(True, 4, 65536, None), "depth": AxisRule(True, 1, 1024, None)}
)
TRAINING: Mapping[str, AxisRule] = MappingProxyType(
    {
        "tokens": AxisRule(True, 1, 1e15, None),  # training tokens; where there are none, samples seen
        "lr": AxisRule(False, 1e-8, 10.0, 3e-3),
        "batch": AxisRule(True, 1, 1 << 24, 16),  # sequences or samples a step
        "weight_decay": AxisRule(False, 0.0, 10.0, 0.1),
        "beta2": AxisRule(False, 0.0, 0.99999, 0.95),
        "init_scale": AxisRule(False, 1e-3, 1e3, 1.0),
        "seed": AxisRule(True, 0, 1 << 31, 0),
        "mup": AxisRule(True, 0, 1, 0),  # parametrisation: 0 standard, 1 maximal update
        "unique": AxisRule(True, 0, 1e15, 0),  # distinct training tokens or samples; 0 is all
        "fraction": SHARE,  # of the training split
        "kept": SHARE,  # of the training examples after pruning by score
    }
)


def pixels(source: Source, least: int, most: int) -> AxisRule:
    """The rule of the resolution of images: the source's own where it has one.

    Args:
        least, most: pixels along a side that the kind takes.
    """
    if source.resolution is not None:
        return AxisRule(True, source.resolution, source.resolution, source.resolution)
    return AxisRule(True, least, most, max(least, PIXELS))


@dataclass(frozen=True)
class Tie:
    """What the values of some axes must be together.

    Args:
        axes: that it reads; a problem is told of the first.
        problem: of whole values of these axes, its field the name of the axis or a path from ``proxy``.
    """

    axes: tuple[str, ...]
    problem: Callable[[Proxy, Mapping[str, int]], Problem | None]


@dataclass(frozen=True)
class Counts:
    """What a model holds and does; a token is a token of text, or a sample of anything else.

    Args:
        embedding, body, head: parameters by group.
        table: of them in a look-up table, which is in no matrix product.
        tokens: of one example.
        layers: that follow one another.
        forward: FLOPs of every matrix product of the forward pass, by token.
        kept: numbers that autograd keeps for the backward pass, by token.
        peaks: moments of the backward pass that may need most memory: gradients of parameters that are there
            by then, and numbers that are alive, by token.
    """

    embedding: Array
    body: Array
    head: Array
    table: Array | float
    tokens: Array | float
    layers: Array
    forward: Array
    kept: Array
    peaks: Sequence[tuple[Array | float, Array]]


def costs(counts: Counts, columns: Columns, source: Source) -> dict[str, Array]:
    """The fields of ``sweeps.cost.Cost`` of a training, each (n,) or a number.

    The backward pass counts as twice the forward one, that of the first layer too, whose inputs need no
    gradient. Memory peaks in the backward pass, or in the optimiser with every gradient; the batch is there
    all the time.

    Args:
        columns: tokens, batch and resolution are read, each (n,) or a number.
        source: of the batch.
    """
    fed = np.asarray(columns["batch"], dtype=float) * source.example_bytes(columns["resolution"])
    a_step = np.asarray(columns["batch"], dtype=float) * counts.tokens
    steps = np.maximum(1.0, np.round(np.asarray(columns["tokens"], dtype=float) / a_step))
    seen = steps * a_step
    total = counts.embedding + counts.body + counts.head
    activations = a_step * counts.kept
    backward = total
    for gradients, alive in counts.peaks:
        backward = np.maximum(backward, gradients + a_step * alive)
    return {
        "params_embedding": counts.embedding,
        "params_body": counts.body,
        "params_head": counts.head,
        "params_total": total,
        "params_active": total - counts.table,
        "tokens_seen": seen,
        "steps": steps,
        "flops": 3.0 * counts.forward * seen,
        "flops_6nd": 6.0 * total * seen,
        "activations": activations,
        "memory": BYTES * (KEPT_COPIES * total + backward) + fed,
        "layers": counts.layers,
    }


@dataclass(frozen=True, kw_only=True)
class Kind(ABC):
    """A kind of proxy.

    Args:
        axes: of it on a source, by name.
        step: what widths are multiples of, by columns of the other axes.
        places: what resolutions are multiples of, likewise; None where only the first layer sees them.
        attention: whether ``proxy.heads`` means something.
        ties: what its axes must be together.
    """

    axes: Callable[[Source], Mapping[str, AxisRule]]
    step: Callable[[Columns, Proxy], ArrayLike]
    places: Callable[[Columns], ArrayLike] | None = None
    attention: bool = False
    ties: tuple[Tie, ...] = ()

    @abstractmethod
    def learns(self, source: Source, /) -> bool:
        """Whether it can be trained on a source."""

    @abstractmethod
    def cost(self, columns: Columns, proxy: Proxy, source: Source, /) -> dict[str, Array]:
        """The fields of ``sweeps.cost.Cost`` by columns of the axes, each (n,) or a number."""

    @property
    def datasets(self) -> list[str]:
        """Names of the sources it can be trained on."""
        return [name for name, source in SOURCES.items() if self.learns(source)]

    def problems(self, proxy: Proxy, values: Mapping[str, Sequence[float]]) -> Iterator[Problem]:
        """What ties forbid, once for each tie; values that are no whole numbers are for others to refuse.

        Args:
            values: of every axis, each with each of the others.
        """
        for tie in self.ties:
            whole = [
                [int(v) for v in dict.fromkeys(values[name]) if v >= 0 and v == round(v)] for name in tie.axes
            ]
            found = (tie.problem(proxy, dict(zip(tie.axes, one, strict=True))) for one in product(*whole))
            yield from [problem for problem in found if problem is not None][:1]


@dataclass(frozen=True, kw_only=True)
class Counted(Kind):
    """A kind of which every matrix product is known before it is built.

    Args:
        tasks: that it can learn.
        count: what models hold and do, by columns of the axes, each (n,) or a number.
        images: whether it takes nothing but images.
    """

    tasks: tuple[Task, ...]
    count: Callable[[Columns, Proxy, Source], Counts]
    images: bool = False

    def learns(self, source: Source, /) -> bool:
        """Whether it can be trained on a source."""
        return source.task in self.tasks and (source.channels > 0 or not self.images)

    def cost(self, columns: Columns, proxy: Proxy, source: Source, /) -> dict[str, Array]:
        """The fields of ``sweeps.cost.Cost`` from what is counted, each (n,) or a number."""
        return costs(self.count(columns, proxy, source), columns, source)


def axes(resolution: AxisRule, **own: AxisRule) -> Mapping[str, AxisRule]:
    """The common axes with the resolution and further ones of a kind."""
    return MappingProxyType({**SHAPE, "resolution": resolution, **own, **TRAINING})


def metrics(source: Source) -> dict[str, str]:
    """Metrics that a trainer reports of a source, with their units."""
    losses = {"val_loss": source.unit, "train_loss": source.unit}
    return losses | ({"val_error": "share"} if source.task == "classes" else {})
