"""What a law must satisfy before it may be fitted: shapes, gradient, constants, starts."""

from __future__ import annotations

import numpy as np

from sweeps.errors import SweepError
from sweeps.laws.base import Array, Law, own
from sweeps.laws.quantities import quantity

ROWS, STEP, TOLERANCE = 24, 1e-6, 1e-4
LOW, HIGH = 1e3, 1e6  # of made-up columns, within the valid range of their quantity
MEASURES = ("loss", "error", "score")


class LawError(SweepError, ValueError):
    """A law cannot be used."""


def check(law: object) -> Law:
    """Tries a law on made-up columns, at the middle of its priors.

    Raises:
        LawError: it is none, or what it computes does not fit together; the message says what.
    """
    if not isinstance(law, Law):
        raise LawError(
            f"given {law!r:.80}; allowed: a sweeps.laws.base.Law, as sweeps.laws.formula.law makes"
        )
    if not law.name.isidentifier():
        raise LawError(f"given the name {law.name!r}; allowed: letters, digits and underscores")
    if not law.columns or not law.parameters or any(p.sd <= 0.0 for p in law.parameters):
        raise LawError(f"{law.name}: it reads no column, or has no parameter with a prior of sd above 0")
    if law.measures not in MEASURES:
        raise LawError(f"{law.name}: given measures={law.measures!r}; allowed: one of {', '.join(MEASURES)}")
    x, centre = _columns(law)
    theta = np.array([[p.mean, p.mean + 0.1 * p.sd] for p in law.parameters]).T
    try:
        with np.errstate(all="ignore"):
            _values(law, theta, x)
            _constants(law, theta[0], centre)
            _starts(law, theta[0], x)
    except LawError:
        raise
    except Exception as error:  # whatever a user's code may raise
        raise LawError(f"{law.name}: it fails on made-up columns: {type(error).__name__}: {error}") from error
    return law


def _columns(law: Law) -> tuple[dict[str, Array], dict[str, float]]:
    """Columns as a fit sees them, and their centres."""
    rng, given = np.random.default_rng(0), {}
    for name in law.columns:
        known = quantity(name)
        low, high = (LOW, HIGH) if known.centred else (1.0, 64.0)
        low, high = max(low, known.low), min(high, known.high)
        given[name] = np.exp(rng.uniform(np.log(min(low, 0.1 * high)), np.log(high), ROWS))
        given[name] = np.maximum(given[name], known.low)
    if {"unique_tokens", "tokens"} <= set(given):
        given["unique_tokens"] = np.minimum(given["unique_tokens"], given["tokens"])
    centre = {"loss": 0.7}
    for name in law.columns:
        like = quantity(name).like
        base = given[like if like in given else name]
        centre[name] = float(np.mean(np.log(base))) if quantity(name).centred else 0.0
    x = {name: np.log(given[name]) - centre[name] for name in law.columns}
    return x | {own(name): np.log(given[name]) for name in law.columns}, centre


def _values(law: Law, theta: Array, x: dict[str, Array]) -> None:
    """ln L and its gradient, against central differences."""
    count, p = theta.shape
    value, gradient = law.evaluate(theta, x)
    for what, found, shape in (("ln L", value, (count, ROWS)), ("gradient", gradient, (count, ROWS, p))):
        if np.shape(found) != shape:
            raise LawError(
                f"{law.name}: given theta {theta.shape} its {what} is {np.shape(found)}, not {shape}"
            )
        if not np.all(np.isfinite(found)):
            raise LawError(f"{law.name}: its {what} is not finite at the middle of its priors")
    if not np.allclose(law.evaluate(theta[0], x)[0], value[0], rtol=1e-8, atol=1e-8):
        raise LawError(f"{law.name}: one theta gives another ln L than several at once")
    if not np.allclose(law.log_loss(theta, x), value, rtol=1e-8, atol=1e-8):
        raise LawError(f"{law.name}: its value is another ln L than that of evaluate")
    for i, parameter in enumerate(law.parameters):
        shift = STEP * np.eye(p)[i]
        slope = (law.evaluate(theta + shift, x)[0] - law.evaluate(theta - shift, x)[0]) / (2.0 * STEP)
        off = np.abs(gradient[..., i] - slope) / (1.0 + np.abs(slope).max())
        if off.max() > TOLERANCE:
            row = np.unravel_index(int(np.argmax(off)), off.shape)
            raise LawError(
                f"{law.name}: its gradient in {parameter.name} is {gradient[..., i][row]:.6g} "
                f"where differences of ln L give {slope[row]:.6g}"
            )


def _constants(law: Law, theta: Array, centre: dict[str, float]) -> None:
    constants = {name: float(value) for name, value in law.natural(theta, centre).items()}
    back = np.asarray(law.internal(constants, centre), dtype=float)
    if back.shape != theta.shape or not np.allclose(back, theta, rtol=1e-6, atol=1e-6):
        raise LawError(f"{law.name}: internal does not undo natural: {theta} becomes {back}")


def _starts(law: Law, theta: Array, x: dict[str, Array]) -> None:
    loss = np.exp(law.evaluate(theta, x)[0])
    found = np.asarray(law.start(x, loss, np.ones(ROWS)), dtype=float)
    if found.ndim != 2 or found.shape[1] != len(theta) or not np.all(np.isfinite(found)):
        shape = f"(k, {len(theta)}) finite numbers"
        raise LawError(f"{law.name}: its starts are {found.shape}; allowed: {shape}")
