"""The loss around the optimal hyperparameters: a bowl added to ln L.

For an axis h with optimum ln h* = c + a ln N + b ln D (the form of Step Law, Li et al. 2025,
arXiv 2503.04715, equation 1) let o = ln h - ln h*. Each axis adds a wall

    depth k z^2 F(s z),  F(t) = 2 (e^t - 1 - t) / t^2,  z = o + r o',

which is k z^2 near the optimum, exponential where s z > 0 and linear on the other side. The walls of rate
and batch lean, o' being the other's offset. Two such walls are what remains of three exponential ones (too
little progress, too much noise, instability) that balance at the optimum when the first is slow: a rate
too low costs like fewer tokens, which is linear in its logarithm. Far out either has a weaker second wall
on the other side: there is little progress with a rate far too low, and too few steps with a batch far too
large.

The bowl is zero at its foot: the optimum at the centre of scales if it lies among the values tried, else the
nearest of them. Beyond what was tried nobody has seen how high the walls are, and a law of the loss at the
optimum would be one of settings that no run had.

The depth is a power of N and D times the share of the loss that tokens still move, a logistic of ln(D/N):
the less there is to learn from more tokens, the less a bad setting costs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sweeps.hyperaxis import HyperAxis
from sweeps.kinds.base import SCALE
from sweeps.laws import LAWS
from sweeps.laws.base import Array, Columns, Parameter
from sweeps.scaling import SIZE
from sweeps.space import Table
from sweeps.spec import SweepSpec
from sweeps.transfer import Moves, less, slopes

SCALE_AXES = frozenset({*SCALE, "seed"})

# Slopes of the optimum: centre and width of what the field has published (Step Law: lr N^-.71 D^.31,
# batch D^.57; DeepSeek: lr C^-.125, batch C^.33; Porian et al.: lr N^-.33), weak enough for any of them.
# Resolutions grow as N^.06 under dWr, N^.25 where all grow alike, N^.37 under EfficientNet's rule.
SLOPES: Mapping[str, tuple[tuple[str, float, float], ...]] = {
    "lr": (("params", -0.4, 0.3), ("tokens", 0.1, 0.3)),
    "batch": (("params", 0.1, 0.2), ("tokens", 0.4, 0.3)),
    "resolution": (("params", 0.2, 0.15),),
}
# What more details are worth may differ with more layers and with wider ones: these stand in where laws read
# both. Under EfficientNet's rule and where all grow alike resolutions grow as (w d)^.5, under dWr hardly.
BY_SHAPE: Mapping[str, Moves] = {"resolution": (("width", 0.3, 0.3), ("depth", 0.3, 0.3))}
# Steep towards high rates and small batches, where steps are too large or too noisy.
BENDS = {"lr": (0.8, 0.25), "batch": (-0.6, 0.25)}
# Noise is alike along about lr ~ sqrt(batch) (for Adam; Granziol et al. 2020, arXiv 2006.09092).
LEANS = {"lr": ("batch", 0.1, 0.15), "batch": ("lr", -0.6, 0.15)}
# Second walls: curvature, bend and lean (on the other of the two).
FAR = {"lr": (0.002, -0.8, -0.6), "batch": (0.001, 1.2, 0.0)}
SHARE = 0.6  # exponent of D/N that parts parameters from tokens in the coupled law (0.35 / 0.6)
DEPTH = (
    Parameter("depth by params", "how the cost of bad settings moves with params", -0.1, 0.2),
    Parameter("depth by tokens", "how the cost of bad settings moves with tokens", -0.1, 0.2),
    Parameter("depth share", "the tokens per parameter beyond which bad settings cost less", 1.5, 0.75),
)
STEEP = 3.0  # s z from where a wall is linear: the loss of a run that diverges is bounded
SMALL = 0.03  # |s z| below which differences cancel and a series is used
BLOCK = 16_384  # values evaluated at once
REACH, HALVINGS = 12.0, 40  # e-folds within which the best rate at a batch is sought


@dataclass(frozen=True)
class Wall:
    """One wall of a bowl at given parameters.

    Args:
        axis, other: that its coordinate is made of; no other axis where it does not lean.
        k, bend, lean: (..., 1) each, or constants; bend None for a symmetric wall.
        places: of ln k, bend and lean among the surface's parameters; None for constants.
    """

    axis: str
    other: str | None
    k: Array
    bend: Array | float | None
    lean: Array | float
    places: tuple[int, int | None, int | None]


def rise(t: Array) -> tuple[Array, Array, Array]:
    """F(t) = 2 (e^t - 1 - t) / t^2 with e^t linear beyond ``STEEP``, its derivative, and (e^t - 1) / t."""
    near = np.nonzero(np.abs(t) < SMALL)
    small = t[near]
    t = t.copy()
    t[near] = 1.0
    capped = np.minimum(t, STEEP)
    grown = np.expm1(capped)
    slope = grown / t
    value = 2.0 * (grown - capped + grown * (t - capped)) / t**2
    change = 2.0 * (slope - value) / t
    value[near] = 1.0 + small / 3 * (1.0 + small / 4 * (1.0 + small / 5 * (1.0 + small / 6)))
    change[near] = 1 / 3 + small / 6 * (1.0 + 3 * small / 10 * (1.0 + 2 * small / 9))
    slope[near] = 1.0 + small / 2 * (1.0 + small / 3 * (1.0 + small / 4 * (1.0 + small / 5)))
    return value, change, slope


@dataclass(frozen=True)
class Surface:
    """The bowl over all axes with an optimum; without axes it is flat.

    The rate comes last: its best value depends on the batch at hand.
    """

    axes: tuple[HyperAxis, ...]

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """All parameters, axis by axis, then the depth's."""
        own = tuple(parameter for axis in self.axes for parameter in axis.parameters)
        return own + DEPTH if self.axes else own

    @cached_property
    def offsets(self) -> dict[str, int]:
        """Where the parameters of each axis begin."""
        found, offset = {}, 0
        for axis in self.axes:
            found[axis.name] = offset
            offset += len(axis.parameters)
        return found

    def optimum(self, theta: Array, x: Columns) -> dict[str, Array]:
        """Centred coordinate of every axis's optimum; the rate's at the batch of the rows.

        Args:
            theta: (..., q).
            x: centred columns, (n,); nothing follows those that are not there.

        Returns:
            name -> (..., n).
        """
        found = self.joint(theta, x)
        if "lr" in found and "batch" in found:
            found["lr"] = found["lr"] + self._follow(theta, x["batch"] - found["batch"])
        return found

    def joint(self, theta: Array, x: Columns) -> dict[str, Array]:
        """As ``optimum``, with every axis at its own."""
        found = {}
        for axis in self.axes:
            offset = self.offsets[axis.name]
            best = theta[..., offset, None]
            for i, (column, _, _) in enumerate(axis.slopes, start=1):
                if column in x:
                    best = best + theta[..., offset + i, None] * x[column]
            found[axis.name] = best
        return found

    def curvature(self, theta: Array) -> dict[str, Array]:
        """Half the second derivative of ln L by axis at the optimum and the centre of scales; each (...)."""
        found = {axis.name: np.zeros((*theta.shape[:-1], 1)) for axis in self.axes}
        for wall in self._walls(theta):
            found[wall.axis] = found[wall.axis] + wall.k
            if wall.other:
                found[wall.other] = found[wall.other] + wall.k * wall.lean**2
        return {name: value[..., 0] for name, value in found.items()}

    def evaluate(self, theta: Array, x: Columns) -> tuple[Array, Array]:
        """Height of the bowl above its foot and its gradient.

        Args:
            theta: (..., q).
            x: centred columns and coordinates, (n,).

        Returns:
            (..., n) and (..., n, q).
        """
        n = len(next(iter(x.values())))
        shape = (*theta.shape[:-1], n)
        if not self.axes:
            return np.zeros(shape), np.zeros((*shape, theta.shape[-1]))
        if theta.ndim > 1 and len(theta) > 1 and len(theta) * n > BLOCK:  # in parts that fit the cache
            height, gradient = np.empty(shape), np.empty((*shape, theta.shape[-1]))
            rows = max(BLOCK // n, 1)
            for i in range(0, len(theta), rows):
                height[i : i + rows], gradient[i : i + rows] = self.evaluate(theta[i : i + rows], x)
            return height, gradient
        depth, by_depth = self._depth(theta, x)
        height, gradient = self._climb(
            theta, {name: x[name] - best for name, best in self.joint(theta, x).items()}
        )
        for axis in self.axes:
            at = self.offsets[axis.name]
            for i, (column, _, _) in enumerate(axis.slopes, start=1):
                gradient[..., at + i] = gradient[..., at] * x.get(column, 0.0)
        foot = {axis.name: self._foot(theta, axis) for axis in self.axes}
        if any(offset.any() for offset in foot.values()):
            low, slope = self._climb(theta, foot)
            for name, offset in foot.items():  # among the values tried the foot moves with the optimum
                slope[..., self.offsets[name]] *= offset != 0.0
            height -= low
            gradient -= slope
        height *= depth
        gradient *= depth[..., None]
        for i, derivative in enumerate(by_depth):
            gradient[..., i - len(DEPTH)] = height * derivative
        return height, gradient

    def _foot(self, theta: Array, axis: HyperAxis) -> Array:
        """Offset of the foot on an axis from the optimum at the centre of scales, (..., 1)."""
        best = theta[..., self.offsets[axis.name], None]
        return np.asarray(np.clip(best, -axis.reach, axis.reach) - best)

    def _climb(self, theta: Array, offset: Mapping[str, Array]) -> tuple[Array, Array]:
        """The walls' sum at offsets from the optimum, (..., n) each, for a depth of 1, and its gradient in
        everything but slopes and depth."""
        shape = next(iter(offset.values())).shape
        height, gradient = np.zeros(shape), np.zeros((*shape, theta.shape[-1]))
        pull = {name: np.zeros(shape) for name in offset}  # derivative of the height in the offset
        for wall in self._walls(theta):
            z = offset[wall.axis]
            if wall.other:
                z = z + wall.lean * offset[wall.other]
            value, change, slope = (1.0, 0.0, 1.0) if wall.bend is None else rise(wall.bend * z)
            lift, push = wall.k * z**2 * value, 2.0 * wall.k * z * slope
            height += lift
            pull[wall.axis] += push
            if wall.other:
                pull[wall.other] += push * wall.lean
            at_k, at_bend, at_lean = wall.places
            gradient[..., at_k] = lift
            if at_bend is not None:
                gradient[..., at_bend] = wall.k * z**3 * change
            if at_lean is not None and wall.other:
                gradient[..., at_lean] = push * offset[wall.other]
        for name, slope in pull.items():
            gradient[..., self.offsets[name]] = -slope
        return height, gradient

    def _walls(self, theta: Array) -> Iterator[Wall]:
        for axis in self.axes:
            at = self.offsets[axis.name] + 1 + len(axis.slopes)
            other = axis.lean[0] if axis.lean else None
            at_bend = at + 1 if axis.bend else None
            at_lean = at + 1 + bool(axis.bend) if axis.lean else None
            bend = None if at_bend is None else theta[..., at_bend, None]
            lean = 0.0 if at_lean is None else theta[..., at_lean, None]
            yield Wall(axis.name, other, np.exp(theta[..., at, None]), bend, lean, (at, at_bend, at_lean))
            if axis.far:
                last = self.offsets[axis.name] + len(axis.parameters) - 1
                leans = other if axis.far[2] else None
                k = np.exp(theta[..., last, None])
                yield Wall(axis.name, leans, k, *axis.far[1:], (last, None, None))

    def _follow(self, theta: Array, batch: Array) -> Array:
        """Offset of the best rate where the batch is off its optimum by ``batch``, (..., n).

        The bowl is convex in the rate, so halving an interval finds its bottom.
        """
        walls = [wall for wall in self._walls(theta) if "lr" in (wall.axis, wall.other)]
        low = np.full(np.broadcast_shapes((*theta.shape[:-1], 1), batch.shape), -REACH)
        high = -low
        for _ in range(HALVINGS):
            offset = {"lr": 0.5 * (low + high), "batch": batch}
            pull = np.zeros_like(low)
            for wall in walls:
                z = offset[wall.axis] + (wall.lean * offset[wall.other] if wall.other else 0.0)
                slope = 1.0 if wall.bend is None else rise(wall.bend * z)[2]
                pull += wall.k * z * slope * (1.0 if wall.axis == "lr" else wall.lean)
            low = np.where(pull > 0.0, low, offset["lr"])
            high = np.where(pull > 0.0, offset["lr"], high)
        return np.asarray(0.5 * (low + high))

    def _depth(self, theta: Array, x: Columns) -> tuple[Array, tuple[Array, Array, Array]]:
        """Depth of the bowl, 1 at the centre of scales, and the derivatives of its logarithm."""
        nothing = np.zeros(len(next(iter(x.values()))))
        params, tokens = x.get("params", nothing), x.get("tokens", nothing)
        by_params, by_tokens, place = (theta[..., i - len(DEPTH), None] for i in range(len(DEPTH)))
        share = 1.0 / (1.0 + np.exp(SHARE * (tokens - params) - place))
        centre = 1.0 / (1.0 + np.exp(-place))
        depth = np.exp(by_params * params + by_tokens * tokens) * share / centre
        return depth, (params, tokens, centre - share)


def surface(spec: SweepSpec) -> Surface:
    """The axes of a sweep whose optimum is to be found: all that vary but scale and seed."""
    varied = {name: axis.values for name, axis in spec.space.items() if len(axis.values) > 1}
    axes = {name: values for name, values in varied.items() if name not in SCALE_AXES}
    depths = spec.derive({**spec.complete({}), SIZE: varied.get(SIZE, ())}).get("depth", ())
    one_depth = "depth" not in varied and len({*depths}) <= 1
    read = {column for name in spec.laws.names if name in LAWS for column in LAWS[name].columns}
    return surface_over(
        axes, spec.laws.transfer, one_depth=one_depth, batch_power=spec.batch_power, read=read
    )


def surface_over(
    varied: Mapping[str, Sequence[float]],
    transfer: str = "none",
    *,
    one_depth: bool = False,
    batch_power: float = 0.0,
    read: Collection[str] = (),
) -> Surface:
    """The surface over given axes.

    Args:
        varied: values of each axis, ascending, at least two.
        transfer: rule of ``sweeps.transfer`` that centres the priors of the slopes.
        one_depth: whether all models have the same depth.
        batch_power: runs are trained with the rate of the axis times the batch to this power. The rates that
            are published are those of training: priors are carried over to the axis.
        read: columns of the laws.

    Raises:
        FitError: there is no such rule.
    """
    axes = []
    power = batch_power if "batch" in varied else 0.0
    for name in sorted(varied, key=lambda name: (name == "lr", name)):  # the rate follows the batch
        values = varied[name]
        log = values[0] > 0
        spread = 1.0 if log else max(abs(values[0]), abs(values[-1]), values[-1] - values[0])
        ends = np.log(values) if log else np.array(values) / spread
        moves = _moves(name, transfer if log else "none", one_depth)
        if name == "lr" and power:
            moves = less(moves, _moves("batch", transfer, one_depth), power)
        axis = HyperAxis(
            name,
            log,
            centre=float(ends[0] + ends[-1]) / 2,
            spread=spread,
            reach=float(ends[-1] - ends[0]) / 2,
            slopes=_by_shape(name, read) or tuple(m for m in moves if m[0] in ("params", "tokens", *varied)),
            bend=BENDS.get(name),
            lean=_lean(name, power) if name in LEANS and LEANS[name][0] in varied else None,
            far=_far(name, power),
        )
        axes.append(axis)
    return Surface(tuple(axes))


def _moves(name: str, transfer: str, one_depth: bool) -> Moves:
    return slopes(transfer, name, SLOPES.get(name, ()), one_depth=one_depth)


def _by_shape(name: str, read: Collection[str]) -> Moves:
    """Slopes by width and depth where laws read both; none else."""
    moves = BY_SHAPE.get(name, ())
    return moves if all(column in read for column, *_ in moves) else ()


def _lean(name: str, power: float) -> tuple[str, float, float]:
    """Offsets of the rate in training are those of the axis and ``power`` times those of the batch."""
    other, mean, sd = LEANS[name]
    return (other, mean + power, sd) if name == "lr" else (other, mean / (1.0 + mean * power), sd)


def _far(name: str, power: float) -> tuple[float, float, float] | None:
    if name != "lr" or power == 0.0:
        return FAR.get(name)
    k, bend, lean = FAR[name]
    return k, bend, lean + power


def coordinates(surface: Surface, table: Mapping[str, Array] | Table) -> dict[str, Array]:
    """Centred coordinate of every axis of the surface for the rows of a table, each (n,)."""
    return {axis.name: axis.coordinate(table[axis.name]) for axis in surface.axes}
