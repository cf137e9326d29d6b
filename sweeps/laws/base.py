"""What a law is: a functional form of the loss with its parameters, their weak priors and its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Columns = Mapping[str, Array]
Evaluate = Callable[[Array, Columns], tuple[Array, Array]]
Centre = Mapping[str, float]


@dataclass(frozen=True)
class Parameter:
    """One internal coordinate of a law.

    Internal coordinates are unbounded and centred on the data (see ``Law``), so that one weak prior
    serves every data set.

    Args:
        name: in formulas.
        meaning: in words, as a decision's reason says it.
        mean, sd: of the normal prior.
    """

    name: str
    meaning: str
    mean: float
    sd: float


@dataclass(frozen=True)
class Law:
    """A functional form of ln L.

    Columns come in centred: ln(column) less its centre, which is its mean over the observations that are
    fitted (see ``sweeps.laws.quantities`` for those that are not centred), so that levels and exponents
    are kept apart; under ``own(name)`` the same without the centre taken off. So does ln L, less
    ``centre["loss"]``. A law is written down in its natural constants and the columns' own units;
    ``natural`` and ``internal`` translate.

    Args:
        name: key in ``LAWS``.
        formula: in natural constants, losses in the table's unit.
        source: paper and equation.
        columns: quantities that it reads.
        parameters: internal coordinates; p of them.
        evaluate: (theta (..., p), columns of (n,)) -> ln L (..., n) and its gradient (..., n, p).
        start: (columns, loss (n,), weight (n,)) -> candidate starts (k, p), best first.
        natural: (theta (..., p), centre) -> constants of the formula, each (...).
        internal: the inverse: (constants, centre) -> theta (p,).
        split: (theta (..., p), centre, ln of N*D (...)) -> ln N of the lowest loss at that product;
            None where it has no closed form.
        measures: what it is a law of: ``loss``, ``error`` or ``score``.
        value: ``evaluate`` without the gradient, where that is worth having.
    """

    name: str
    formula: str
    source: str
    columns: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    evaluate: Evaluate
    start: Callable[[Columns, Array, Array], Array]
    natural: Callable[[Array, Centre], dict[str, Array]]
    internal: Callable[[Mapping[str, float], Centre], Array]
    split: Callable[[Array, Centre, Array], Array] | None = None
    measures: str = "loss"
    value: Callable[[Array, Columns], Array] | None = None

    def log_loss(self, theta: Array, x: Columns) -> Array:
        """ln L (..., n) alone."""
        return self.evaluate(theta, x)[0] if self.value is None else self.value(theta, x)

    def at(self, constants: Mapping[str, float], columns: Columns) -> Array:
        """The formula itself: the loss with given natural constants.

        Args:
            constants: by the names in the formula.
            columns: in their own units, each (n,).

        Returns:
            (n,).

        Raises:
            KeyError: a constant or a column is missing.
        """
        centre = dict.fromkeys((*self.columns, "loss"), 0.0)
        x = {name: np.log(np.atleast_1d(np.asarray(columns[name], dtype=float))) for name in self.columns}
        x |= {own(name): column for name, column in x.items()}
        return np.exp(self.evaluate(self.internal(constants, centre), x)[0])


def own(name: str) -> str:
    """The key of ln of a column in its own unit, for laws to which the unit matters."""
    return f"ln {name}"


LEVEL = Parameter("c", "the level of the reducible loss", -0.9, 1.0)
FLOOR = Parameter("e", "the irreducible loss", -0.5, 0.7)
EXPONENT_MEAN, EXPONENT_SD = float(np.log(0.35)), 0.5


def exponent(name: str, of: str) -> Parameter:
    """ln of an exponent, around 0.35 (one standard deviation: 0.21 to 0.58)."""
    return Parameter(name, f"the exponent of {of}", EXPONENT_MEAN, EXPONENT_SD)


def solve_positive(gram: Array, right: Array, least: Array) -> tuple[Array, Array]:
    """Least-squares coefficients, kept positive, of many small problems at once.

    Args:
        gram: (k, m, m), of a problem whose right-hand side has the squared length 1.
        right: (k, m).
        least: (m,), smallest coefficients.

    Returns:
        Coefficients (k, m) and squared residuals (k,).
    """
    ridge = 1e-10 * np.trace(gram, axis1=1, axis2=2)[:, None, None] * np.eye(gram.shape[1])
    found = np.maximum(np.linalg.solve(gram + ridge, right[..., None])[..., 0], least)
    fitted = np.einsum("ki,kij,kj->k", found, gram, found)
    return found, 1.0 - 2.0 * np.einsum("ki,ki->k", found, right) + fitted
