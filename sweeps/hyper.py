"""Published rules for learning rate and batch, the fit of Step Law, and what a setting costs.

Batches are in tokens, N without embeddings, throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator

from sweeps.errors import FitError
from sweeps.laws.base import Array

SEQUENCE = 2048  # tokens, in which the rules that count sequences do
MARGIN = 0.0025  # relative loss above a cell's best that still counts as optimal in Step Law
LEAST = 6  # cells that a fit of Step Law takes
NEAR = 0.02  # relative loss above a cell's best up to which its runs are interpolated


@dataclass(frozen=True)
class Recipe:
    """A learning rate (of Adam) and a batch (tokens)."""

    lr: float
    batch: float


def step_law(params: float, tokens: float) -> Recipe:
    """Li et al. 2025, arXiv 2503.04715, equation 1."""
    return Recipe(1.79 * params**-0.713 * tokens**0.307, 0.58 * tokens**0.571)


def deepseek(params: float, tokens: float) -> Recipe:
    """DeepSeek LLM 2024, arXiv 2401.02954, equation 1, of compute; here C = 6 N D."""
    flops = 6.0 * params * tokens
    return Recipe(0.3118 * flops**-0.1250, 0.2920 * flops**0.3271)


def porian(params: float, _tokens: float) -> Recipe:
    """Porian et al. 2024, arXiv 2406.19146, tuned at 20 tokens a parameter; of N alone."""
    ratio = params / 108e6
    return Recipe(0.0047 * ratio ** (-1 / 3), 160.0 * SEQUENCE * ratio ** (2 / 3))


RULES: Mapping[str, Callable[[float, float], Recipe]] = {
    "step_law": step_law,
    "deepseek": deepseek,
    "porian": porian,
}


@dataclass(frozen=True)
class Runs:
    """Runs over scales, rates and batches.

    Args:
        params, tokens, lr, batch, loss: (n,) each; the batch in tokens.
    """

    params: Array
    tokens: Array
    lr: Array
    batch: Array
    loss: Array

    def take(self, rows: NDArray[np.intp]) -> Runs:
        """Some of the runs."""
        return Runs(*(column[rows] for column in vars(self).values()))

    def cells(self) -> list[Runs]:
        """The runs of each (N, D), by N, then D."""
        pairs = np.stack([self.params, self.tokens], axis=1)
        _, cell = np.unique(pairs, axis=0, return_inverse=True)
        return [self.take(np.flatnonzero(cell == i)) for i in range(int(cell.max()) + 1)]


@dataclass(frozen=True)
class Edge:
    """A cell whose best run lies on the edge of what was tried.

    Args:
        params, tokens: of the cell.
        axes: that are at their lowest or highest value.
    """

    params: float
    tokens: float
    axes: tuple[str, ...]


@dataclass(frozen=True)
class StepLaw:
    """lr = c N^a D^b and batch = c D^b.

    Args:
        lr: ln c, a, b.
        batch: ln c, b.
        lr_draws, batch_draws: (b, 3) and (b, 2), refits to resampled points.
        cells, points: that it rests on.
        edges: cells that were left out.
    """

    lr: Array
    batch: Array
    lr_draws: Array
    batch_draws: Array
    cells: int
    points: int
    edges: tuple[Edge, ...]

    def __call__(self, params: float, tokens: float) -> Recipe:
        x = np.array([1.0, np.log(params), np.log(tokens)])
        return Recipe(float(np.exp(self.lr @ x)), float(np.exp(self.batch @ x[[0, 2]])))


def edge(cell: Runs) -> tuple[str, ...]:
    """Axes of which the best run of a cell has the lowest or highest value tried."""
    best = int(np.argmin(cell.loss))
    ends = {name: getattr(cell, name) for name in ("lr", "batch")}
    return tuple(name for name, values in ends.items() if values[best] in (values.min(), values.max()))


def fit_step_law(
    runs: Runs,
    rng: np.random.Generator,
    *,
    margin: float = MARGIN,
    least: int = 1,
    keep_edges: bool = False,
    draws: int = 1000,
) -> StepLaw:
    """The procedure of Li et al. 2025: least squares over all runs within a margin of their cell's best.

    Args:
        margin: relative.
        least: runs of a cell that counts.
        keep_edges: whether cells whose best run lies on the edge count too; such a run is no optimum.

    Raises:
        FitError: when fewer than 6 cells are left.
    """
    cells = [cell for cell in runs.cells() if len(cell.loss) >= least]
    on_edge = [(cell, axes) for cell in cells if (axes := edge(cell))]
    edges = [Edge(float(cell.params[0]), float(cell.tokens[0]), axes) for cell, axes in on_edge]
    kept = cells if keep_edges else [cell for cell in cells if not edge(cell)]
    if len(kept) < LEAST:
        raise FitError(
            f"{len(kept)} cells have their best run inside the grid; Step Law takes at least {LEAST}"
        )
    near = [cell.take(np.flatnonzero(cell.loss <= (1.0 + margin) * cell.loss.min())) for cell in kept]
    joined = [np.concatenate([getattr(cell, name) for cell in near]) for name in vars(runs)]
    params, tokens, lr, batch = (np.log(column) for column in joined[:4])
    x = np.stack([np.ones_like(params), params, tokens], axis=1)
    n = len(params)
    some = rng.integers(0, n, (draws, n))
    return StepLaw(
        lr=_least_squares(x, lr),
        batch=_least_squares(x[:, [0, 2]], batch),
        lr_draws=np.array([_least_squares(x[i], lr[i]) for i in some]).reshape(draws, 3),
        batch_draws=np.array([_least_squares(x[i][:, [0, 2]], batch[i]) for i in some]).reshape(draws, 2),
        cells=len(kept),
        points=n,
        edges=() if keep_edges else tuple(edges),
    )


def _least_squares(x: Array, y: Array) -> Array:
    return np.asarray(np.linalg.lstsq(x, y, rcond=None)[0])


@dataclass(frozen=True)
class Regret:
    """What a setting costs against a cell's best run, in per cent of loss.

    Args:
        interpolated: between the runs around it; the nearest run's where it lies outside of all good ones.
        nearest: of the run nearest to it.
    """

    interpolated: float
    nearest: float


def regret(cell: Runs, lr: float, batch: float) -> Regret:
    """Loss at a setting by linear interpolation among a cell's near-optimal runs, less the cell's best.

    Args:
        cell: runs of one (N, D).
        batch: tokens.
    """
    places = np.log(np.stack([cell.lr, cell.batch], axis=1))
    at = np.log([lr, batch])
    above = 100.0 * (cell.loss / cell.loss.min() - 1.0)
    nearest = float(above[np.argmin(np.sum((places - at) ** 2, axis=1))])
    good = above <= 100.0 * NEAR
    flat = np.linalg.matrix_rank(places[good] - places[good].mean(axis=0), tol=1e-6) < 2
    found = np.nan if flat else float(LinearNDInterpolator(places[good], above[good])(at)[0])
    return Regret(nearest if np.isnan(found) else found, nearest)
