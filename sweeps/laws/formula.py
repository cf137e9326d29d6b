"""Laws written as a formula: gradients by automatic differentiation, starts by variable projection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd import make_vjp
from scipy.stats import norm, qmc

from sweeps.laws.base import (
    EXPONENT_MEAN,
    EXPONENT_SD,
    Array,
    Centre,
    Columns,
    Law,
    Parameter,
    own,
    solve_positive,
)

STARTS = 512  # prior draws a start is looked for among
KEPT = 6
LEAST = 1e-6  # of a linear constant, relative to the loss

# Constants and results are arrays, or what automatic differentiation puts in their place.
Formula = Callable[[Mapping[str, Any], Columns], Any]
Unit = Callable[[Mapping[str, Any], Centre], Any]


class Kind(StrEnum):
    POSITIVE = "positive"  # internal coordinate: its logarithm
    SHARE = "share"  # between 0 and 1: its logit
    REAL = "real"  # any number: itself


@dataclass(frozen=True)
class Constant:
    """A constant of a formula.

    Args:
        name: in the formula.
        meaning: in words.
        mean, sd: normal prior of the internal coordinate, with columns and loss in units of their
            geometric means.
        kind: which numbers it may be.
        unit: ln of the constant's own unit, from the constants without a unit and the centres; None for
            a pure number. ``E`` has ``centre["loss"]``; ``A`` of ``A N^-alpha`` has
            ``centre["loss"] + alpha * centre["params"]``.
        linear: whether the loss is a sum over such constants times functions of the others.
    """

    name: str
    meaning: str
    mean: float
    sd: float
    kind: Kind = Kind.POSITIVE
    unit: Unit | None = None
    linear: bool = False


def floor(name: str = "E") -> Constant:
    """The irreducible loss."""
    return Constant(
        name, "the irreducible loss", -0.5, 0.7, unit=lambda _, centre: centre["loss"], linear=True
    )


def term(name: str, column: str, power: str, meaning: str) -> Constant:
    """A of a term A x^-power, in which ``power`` is positive: the size of the term at the centre."""
    return Constant(
        name,
        meaning,
        -1.5,
        1.2,
        unit=lambda p, centre: centre["loss"] + p[power] * centre[column],
        linear=True,
    )


def power(name: str, of: str) -> Constant:
    """A positive exponent, around 0.35."""
    return Constant(name, f"the exponent of {of}", EXPONENT_MEAN, EXPONENT_SD)


def scale(name: str, column: str, meaning: str, mean: float = 0.0, sd: float = 2.0) -> Constant:
    """A value of a column at which something changes."""
    return Constant(name, meaning, mean, sd, unit=lambda _, centre: centre[column])


def law(
    name: str,
    formula: str,
    source: str,
    columns: Sequence[str],
    constants: Sequence[Constant],
    loss: Formula,
    *,
    natural: Callable[[Array, Centre], dict[str, Array]] | None = None,
    internal: Callable[[Mapping[str, float], Centre], Array] | None = None,
    split: Callable[[Array, Centre, Array], Array] | None = None,
    measures: str = "loss",
) -> Law:
    """A law from its formula.

    Args:
        loss: (constants by name (..., 1), columns by name (n,)) -> loss (..., n), above 0. It is written
            with operators and ``autograd.numpy`` so that it can be differentiated. Columns and loss come
            in units of their geometric means: constants with units are converted. Under ``own(column)``
            a column comes in its own unit, for a law to which that matters.
        natural, internal: conversions of a law whose constants no unit converts.
        split, measures, others: as in ``Law``.
    """
    given = tuple(constants)
    read = [name for column in columns for name in (column, own(column))]

    def values(theta: Any) -> dict[str, Any]:
        return {one.name: _value(one.kind, theta[i]) for i, one in enumerate(given)}

    def evaluate(theta: Array, x: Columns) -> tuple[Array, Array]:
        units = {name: np.exp(x[name]) for name in read}
        n = x[columns[0]].shape[-1]
        # One copy of every constant for each row: a single backward pass then gives all gradients.
        own_values = [_value(one.kind, theta[..., i, None]) for i, one in enumerate(given)]
        copies = tuple(np.broadcast_to(value, (*theta.shape[:-1], n)) for value in own_values)

        def log_loss(rows: Any) -> Any:
            return anp.log(loss({one.name: rows[i] for i, one in enumerate(given)}, units))

        pull, value = make_vjp(log_loss)(copies)
        slopes = zip(pull(np.ones_like(value)), own_values, given, strict=True)
        gradient = [slope * _slope(one.kind, value) for slope, value, one in slopes]
        return value, np.stack(gradient, axis=-1)

    def value(theta: Array, x: Columns) -> Array:
        constants = values(np.moveaxis(theta, -1, 0)[..., None])
        return np.asarray(np.log(loss(constants, {name: np.exp(x[name]) for name in read})))

    def start(x: Columns, observed: Array, weight: Array) -> Array:
        units = {name: np.exp(x[name]) for name in read}
        return _start(given, loss, units, observed, weight)

    def by_units(theta: Array, centre: Centre) -> dict[str, Array]:
        found = values(np.moveaxis(np.asarray(theta, dtype=float), -1, 0))
        for one in given:
            if one.unit is not None:
                found[one.name] = found[one.name] * np.exp(one.unit(found, centre))
        return found

    def without_units(found: Mapping[str, float], centre: Centre) -> Array:
        known = {one.name: np.asarray(found[one.name], dtype=float) for one in given}
        units = [1.0 if one.unit is None else np.exp(one.unit(known, centre)) for one in given]
        return np.array(
            [
                float(_coordinate(one.kind, known[one.name] / unit))
                for one, unit in zip(given, units, strict=True)
            ]
        )

    return Law(
        name=name,
        formula=formula,
        source=source,
        columns=tuple(columns),
        parameters=tuple(Parameter(one.name, one.meaning, one.mean, one.sd) for one in given),
        evaluate=evaluate,
        start=start,
        natural=natural or by_units,
        internal=internal or without_units,
        split=split,
        measures=measures,
        value=value,
    )


def _value(kind: Kind, theta: Any) -> Any:
    if kind is Kind.POSITIVE:
        return anp.exp(theta)
    return 1.0 / (1.0 + anp.exp(-theta)) if kind is Kind.SHARE else theta


def _slope(kind: Kind, value: Array) -> Array | float:
    """Derivative of a constant in its coordinate."""
    if kind is Kind.POSITIVE:
        return value
    return value * (1.0 - value) if kind is Kind.SHARE else 1.0


def _coordinate(kind: Kind, value: Array) -> Array:
    if kind is Kind.POSITIVE:
        return np.log(value)
    return np.log(value) - np.log1p(-value) if kind is Kind.SHARE else value


def _start(given: Sequence[Constant], loss: Formula, x: Columns, observed: Array, weight: Array) -> Array:
    """The best of a low-discrepancy sample of the prior, linear constants solved for; (k, p)."""
    mean, sd = (np.array([getattr(one, name) for one in given]) for name in ("mean", "sd"))
    share = weight / weight.sum()
    sample = qmc.Sobol(len(given), rng=0).random(STARTS)
    theta = mean + sd * norm.ppf(0.02 + 0.96 * sample)
    linear = [i for i, one in enumerate(given) if one.linear]
    constants = {one.name: _value(one.kind, theta[:, i, None]) for i, one in enumerate(given)}
    with np.errstate(all="ignore"):  # draws that overflow are left out below
        if linear:
            alone = constants | {given[i].name: np.zeros((STARTS, 1)) for i in linear}
            one = np.ones((STARTS, 1))
            parts = [
                np.broadcast_to(loss(alone | {given[i].name: one}, x), (STARTS, len(observed)))
                for i in linear
            ]
            basis = np.stack(parts, axis=1) * (np.sqrt(share) / observed)
            length = np.sqrt(np.sum(basis**2, axis=2))
            usable = np.all(np.isfinite(length) & (length > 0), axis=1)
            if not usable.any():
                return mean[None]
            theta, basis, length = theta[usable], basis[usable], length[usable]
            basis /= length[..., None]
            least = np.full(len(linear), LEAST)
            found, error = solve_positive(basis @ np.swapaxes(basis, 1, 2), basis @ np.sqrt(share), least)
            theta[:, linear] = np.log(found / length)
        else:
            rest = np.log(loss(constants, x)) - np.log(observed)
            error = np.sum(share * rest**2, axis=-1)
    order = np.argsort(np.where(np.isfinite(error), error, np.inf), kind="stable")
    return np.asarray(theta[order[:KEPT]])
