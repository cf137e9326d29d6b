"""Shapes of networks: how depth, width and resolution grow or shrink together, and which fits.

With s times the flops, a stage of d layers, w channels and r x r positions has flops ~ d w^2 r^2,
parameters ~ d w^2 and activations ~ d w r^2 (Dollar, Singh and Girshick 2021, arXiv 2103.06877).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import isfinite
from types import MappingProxyType

import numpy as np
from scipy.optimize import nnls

from sweeps.laws.base import Array

WIDTH_MULTIPLE, RESOLUTION_MULTIPLE = 8, 4
DOLLAR, TAN = "Dollar et al. 2021, arXiv 2103.06877", "Tan and Le 2019, arXiv 1905.11946, equation 3"


@dataclass(frozen=True)
class Multipliers:
    """Factors of depth, width and resolution."""

    depth: float = 1.0
    width: float = 1.0
    resolution: float = 1.0


@dataclass(frozen=True)
class Strategy:
    """Exponents of the factor s in flops: depth s^depth, width s^width, resolution s^resolution.

    Those of one strategy fulfil depth + 2 width + 2 resolution = 1.
    """

    depth: float
    width: float
    resolution: float
    source: str = DOLLAR

    @property
    def params(self) -> float:
        """Exponent of the parameters."""
        return self.depth + 2.0 * self.width

    @property
    def activations(self) -> float:
        """Exponent of the activations, which run time on memory-bound hardware follows."""
        return self.depth + self.width + 2.0 * self.resolution

    def at(self, times: float) -> Multipliers:
        """For so many times the flops."""
        return Multipliers(times**self.depth, times**self.width, times**self.resolution)


def shares(depth: float, width: float, resolution: float) -> Strategy:
    """The strategy that gives depth, width and resolution such shares of the growth in flops.

    arXiv 2103.06877: d = s^e_d, w = s^(e_w / 2), r = s^(e_r / 2) with e_d + e_w + e_r = 1.

    Args:
        depth, width, resolution: in any unit, at least one above 0.
    """
    total = depth + width + resolution
    if min(depth, width, resolution) < 0 or not total > 0:
        raise ValueError(f"shares are {depth:g}, {width:g}, {resolution:g}; give none below 0 and one above")
    return Strategy(depth / total, 0.5 * width / total, 0.5 * resolution / total)


def fast(alpha: float = 0.8) -> Strategy:
    """Fast compound scaling dWr: the share alpha to width, the rest halved (arXiv 2103.06877)."""
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha is {alpha:g}; give one between 0 and 1")
    return shares(0.5 * (1.0 - alpha), alpha, 0.5 * (1.0 - alpha))


_SHARES = {"d": (1, 0, 0), "w": (0, 1, 0), "r": (0, 0, 1), "dw": (1, 1, 0), "dr": (1, 0, 1), "wr": (0, 1, 1)}
# Compound scaling: depth 1.2^phi, width 1.1^phi, resolution 1.15^phi, flops nearly 2^phi.
_COMPOUND = replace(shares(np.log(1.2), 2.0 * np.log(1.1), 2.0 * np.log(1.15)), source=TAN)
STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {name: shares(*given) for name, given in _SHARES.items()}
    | {"dwr": shares(1, 1, 1), "dWr": fast(), "efficientnet": _COMPOUND}
)

# Small models, relative to EfficientNet-B0 at 224 (Han et al. 2020, arXiv 2010.14819): resolution and depth
# are kept rather than width.
TINYNET: Mapping[str, Multipliers] = MappingProxyType(
    {
        "C": Multipliers(0.85, 0.54, 0.825),
        "D": Multipliers(0.695, 0.54, 0.68),
        "E": Multipliers(0.60, 0.51, 0.475),
    }
)


def rounded(value: float, multiple: int) -> int:
    """The nearest multiple, at least one of it; a tie goes up."""
    return max(multiple, int(value / multiple + 0.5) * multiple)


@dataclass(frozen=True)
class Stage:
    """Layers of equal width at one resolution; a channel out sees ``group`` channels in, or all of them."""

    depth: int
    width: int
    stride: int = 2
    group: int | None = None


@dataclass(frozen=True)
class Shape:
    """Stages in order, on square inputs of ``channels`` with ``resolution`` positions along a side."""

    resolution: int
    stages: tuple[Stage, ...]
    channels: int = 3
    kernel: int = 3

    def scaled(self, by: Multipliers) -> Shape:
        """Every stage scaled: widths to multiples of 8, resolution to one of 4, groups to divide widths."""
        stages = []
        for stage in self.stages:
            width = rounded(stage.width * by.width, WIDTH_MULTIPLE)
            group = stage.group
            if group is not None:
                wanted, divisors = group * by.width, [one for one in range(1, width + 1) if width % one == 0]
                group = divisors[int(np.argmin(np.abs(np.log(np.array(divisors) / wanted))))]
            stages.append(Stage(rounded(stage.depth * by.depth, 1), width, stage.stride, group))
        resolution = rounded(self.resolution * by.resolution, RESOLUTION_MULTIPLE)
        return Shape(resolution, tuple(stages), self.channels, self.kernel)


@dataclass(frozen=True)
class Complexity:
    """What a shape takes for one input, forward: FLOPs (2 a multiply-add), parameters, activations."""

    flops: float
    params: float
    activations: float


def complexity(shape: Shape) -> Complexity:
    """Of the convolutions, without normalisation and head; activations are the outputs of each layer."""
    flops = params = activations = 0
    side, before = shape.resolution, shape.channels
    for stage in shape.stages:
        side = -(-side // stage.stride)
        for _ in range(stage.depth):
            weights = shape.kernel**2 * min(stage.group or before, before) * stage.width
            params += weights
            flops += 2 * weights * side**2
            activations += stage.width * side**2
            before = stage.width
    return Complexity(float(flops), float(params), float(activations))


@dataclass(frozen=True)
class Seconds:
    """Time of a pass: fixed + per_activation a + per_flop f."""

    fixed: float
    per_activation: float
    per_flop: float

    def __call__(self, of: Complexity) -> float:
        return self.fixed + self.per_activation * of.activations + self.per_flop * of.flops


def fit_seconds(measured: Sequence[tuple[Complexity, float]]) -> Seconds:
    """From three measured times or more, by least squares of relative errors, no coefficient below 0."""
    if len(measured) < 3:
        raise ValueError(f"{len(measured)} times are given; measure three shapes at least")
    seconds = np.array([time for _, time in measured])
    columns: Array = np.array([[1.0, one.activations, one.flops] for one, _ in measured])
    size = columns.max(axis=0)
    found = nnls(columns / size / seconds[:, None], np.ones(len(seconds)))[0] / size
    return Seconds(*map(float, found))


@dataclass(frozen=True)
class Caps:
    """The most a shape may take; unlimited by default."""

    flops: float = np.inf
    params: float = np.inf
    activations: float = np.inf
    seconds: float = np.inf

    def hold(self, of: Complexity, seconds: float) -> bool:
        """Whether a shape fits."""
        within = of.flops <= self.flops and of.params <= self.params and of.activations <= self.activations
        return within and seconds <= self.seconds


@dataclass(frozen=True)
class Ranked:
    """A shape that fits; ``best_for_time`` when none that is as fast has a lower predicted loss."""

    shape: Shape
    complexity: Complexity
    seconds: float
    loss: float
    best_for_time: bool


def enumerate_shapes(
    base: Shape, depths: Iterable[float], widths: Iterable[float], resolutions: Iterable[float]
) -> Iterator[Shape]:
    """All products of multipliers of a base shape, each rounded shape once."""
    grid = product(depths, widths, resolutions)
    yield from dict.fromkeys(base.scaled(Multipliers(*one)) for one in grid)


def rank(
    shapes: Iterable[Shape],
    caps: Caps,
    loss: Callable[[Shape, Complexity], float],
    seconds: Callable[[Complexity], float] = lambda _: 0.0,
) -> list[Ranked]:
    """The shapes within the caps, lowest predicted loss first, then fastest.

    Args:
        loss: predicted; a shape without a finite one is left out.
        seconds: such as a ``Seconds``.
    """
    fitting = []
    for shape in shapes:
        size = complexity(shape)
        time = seconds(size)
        if not caps.hold(size, time):
            continue
        predicted = loss(shape, size)
        if isfinite(predicted):
            fitting.append((predicted, time, shape, size))
    fitting.sort(key=lambda one: one[:2])
    ranked, fastest = [], np.inf
    for predicted, time, shape, size in fitting:
        ranked.append(Ranked(shape, size, time, predicted, time < fastest))
        fastest = min(fastest, time)
    return ranked
