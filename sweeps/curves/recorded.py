"""Loss curves from tables of logged steps, and schedules from text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sweeps.curves import schedule
from sweeps.curves.schedule import Curve, Steps, refuse
from sweeps.errors import Problem
from sweeps.laws.base import Array
from sweeps.mapping import Mapped, TableError, Term, parse_mapping
from sweeps.tables import Warning, rows_in_words
from sweeps.wording import choices, short

QUANTITIES = ("step", "lr", "loss")
ALIASES = {"steps": "step", "learning_rate": "lr"}
MAX_STEPS = 10_000_000
WHOLE = 1e-6


@dataclass(frozen=True)
class Recorded:
    """A run as it was logged; losses may end before the rate does, or be missing altogether.

    Args:
        name: of the run.
        lr: learning rate of every step from 0 to the last row, (t,).
        steps: with a measured loss, (n,).
        loss: (n,).
        notes: what was assumed, and what was left out.
    """

    name: str
    lr: Array
    steps: Steps
    loss: Array
    notes: tuple[Warning, ...] = ()

    @property
    def running(self) -> bool:
        """Whether its schedule goes on after its last loss."""
        return len(self.steps) > 0 and int(self.steps[-1]) < len(self.lr) - 1

    def curve(self, run: str = "") -> Curve:
        """What laws are fitted to.

        Raises:
            FitError: there is no loss.
        """
        return Curve(self.name, self.steps, self.loss, self.lr, run)


def curve_mapping(text: str) -> dict[str, Term]:
    """Reads which column is which: ``step=iteration, lr=lr, loss=train_loss``.

    Raises:
        TableError: with a problem per part that is wrong.
    """
    found = parse_mapping(text, ALIASES)
    problems = [
        Problem("map", name, choices(name, QUANTITIES, "only")) for name in found if name not in QUANTITIES
    ]
    problems += [
        Problem("map", ", ".join(found), f"a mapping with {name}=COLUMN")
        for name in ("step", "lr")
        if name not in found
    ]
    if problems:
        raise TableError(problems)
    return found


def record(
    name: str, columns: Mapping[str, ArrayLike], mapping: str | Mapped, *, warmup: int | None = None
) -> Recorded:
    """Reads one run's table: a row for every logged step, the rate in each, the loss up to some row.

    Rates between rows are interpolated, those before the first row rise in a straight line from 0.

    Args:
        columns: by name, each (n,).
        mapping: of step, lr and loss; without the loss only the schedule is read.
        warmup: how many steps that line took, if it was over before the first row.

    Raises:
        TableError: with a problem per column that cannot be used.
    """
    mapped = curve_mapping(mapping) if isinstance(mapping, str) else mapping
    labels = {key: f"{name}: {key}={term}" for key, term in mapped.items()}
    missing = [key for key, term in mapped.items() if term.column not in columns]
    _refuse(
        Problem(f"{name}: map.{key}", short(mapped[key].column), choices(mapped[key].column, [*columns]))
        for key in missing
    )
    lengths = {key: len(np.atleast_1d(np.asarray(columns[term.column]))) for key, term in mapped.items()}
    if len(set(lengths.values())) > 1 or not lengths["step"]:
        given = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise TableError([Problem(f"{name}: rows", given, "columns of one length, at least 1")])
    values: dict[str, Array] = {}
    problems: list[Problem] = []
    for key, term in mapped.items():
        column, problem = _numbers(labels[key], np.asarray(columns[term.column]), gaps=key == "loss")
        values[key] = column * term.factor
        problems += [problem] if problem else []
    _refuse(problems)
    loss = values.get("loss", np.full(len(values["step"]), np.nan))
    _refuse(_wrong(labels, values["step"], values["lr"], loss))
    return _recorded(name, np.rint(values["step"]).astype(np.int64), values["lr"], loss, warmup)


def _numbers(label: str, values: NDArray[Any], *, gaps: bool) -> tuple[Array, Problem | None]:
    """A column as numbers, NaN where it is empty, and what is wrong with it."""
    found, words = np.full(len(values), np.nan), []
    for row, value in enumerate(values.tolist()):
        try:
            if isinstance(value, bool):
                raise TypeError
            found[row] = np.nan if value is None or not str(value).strip() else float(value)
        except (TypeError, ValueError):
            words.append(row + 1)
    if words:
        given = f"{short(values.tolist()[words[0] - 1])} in {rows_in_words(words)}"
        return found, Problem(label, given, "numbers such as 3e-4; map a column that holds them")
    bad = np.flatnonzero(np.isinf(found) if gaps else ~np.isfinite(found)) + 1
    if bad.size:
        kind = "infinite values" if gaps or np.isinf(found[bad - 1]).all() else "gaps or NaN"
        return found, Problem(label, f"{kind} in {rows_in_words(bad)}", "a finite number in every row")
    return found, None


def _wrong(labels: Mapping[str, str], step: Array, lr: Array, loss: Array) -> Iterator[Problem]:
    odd = np.flatnonzero((np.abs(step - np.rint(step)) > WHOLE) | (step < 0)) + 1
    if odd.size:
        given = f"{step[odd[0] - 1]:g} in {rows_in_words(odd)}"
        yield Problem(labels["step"], given, "whole steps from 0")
    back = np.flatnonzero(np.diff(np.rint(step)) <= 0) + 2
    if back.size:
        given = f"{step[back[0] - 1]:g} after {step[back[0] - 2]:g} in {rows_in_words(back)}"
        allowed = "steps that rise from row to row; sort the rows, and keep one of each step"
        yield Problem(labels["step"], given, allowed)
    if step.max() >= MAX_STEPS:
        allowed = f"below {MAX_STEPS:,}; map thousands of steps, as step=0.001*{labels['step'].split('=')[1]}"
        yield Problem(labels["step"], f"{step.max():g}", allowed)
    negative = np.flatnonzero(lr < 0) + 1
    if negative.size:
        given = f"{lr[negative[0] - 1]:g} in {rows_in_words(negative)}"
        yield Problem(labels["lr"], given, "learning rates of 0 or more")
    elif not lr.any():
        yield Problem(labels["lr"], "0 in every row", "a learning rate above 0 in some row")
    if "loss" not in labels:
        return
    known = np.isfinite(loss)
    low = np.flatnonzero(known & ~(loss > 0)) + 1
    if low.size:
        given = f"{loss[low[0] - 1]:g} in {rows_in_words(low)}"
        yield Problem(labels["loss"], given, "losses above 0, since laws take their logarithm")
    last = int(np.flatnonzero(known)[-1]) if known.any() else -1
    gaps = np.flatnonzero(~known[: last + 1]) + 1
    if gaps.size:
        allowed = (
            f"a loss in every row up to the last one that has any (row {last + 1}); take these rows out. "
            "Rows after it may be empty: they tell the schedule of a running run"
        )
        yield Problem(labels["loss"], f"gaps or NaN in {rows_in_words(gaps)}", allowed)


def _recorded(name: str, step: Steps, rate: Array, loss: Array, warmup: int | None) -> Recorded:
    notes, first = [], int(step[0])
    lr = _between(step, rate)
    if first > 0:
        rise = first if warmup is None else min(warmup, first)
        lr[:first] = rate[0]
        lr[:rise] = rate[0] * np.arange(rise) / rise if rise else 0.0
        if warmup is None:
            words = (
                f"{name}: the rate before step {first:,} is not recorded and taken as a straight rise from 0 "
                f"to {rate[0]:g}; give --warmup STEPS if its warm-up was shorter"
            )
            notes.append(Warning("warmup_assumed", words))
    usable = np.isfinite(loss) & (np.cumsum(lr)[step] > 0)
    idle = int(np.sum(np.isfinite(loss) & ~usable))
    if idle:
        words = f"{name}: {idle} loss{'es' * (idle > 1)} before the first positive rate left out"
        notes.append(Warning("before_training", words))
    return Recorded(name, lr, step[usable], loss[usable], tuple(notes))


def _between(step: Steps, rate: Array) -> Array:
    """Rates of all steps: straight lines between rows, a jump midway where it is flat on both sides."""
    lr = np.interp(np.arange(int(step[-1]) + 1), step, rate)
    flat = np.diff(rate) == 0
    for row in np.flatnonzero(flat[:-2] & ~flat[1:-1] & flat[2:]) + 1:
        start, end = int(step[row]), int(step[row + 1])
        lr[start:end] = np.where(np.arange(start, end) < (start + end + 1) // 2, rate[row], rate[row + 1])
    return lr


def _refuse(problems: Iterator[Problem] | list[Problem]) -> None:
    found = list(problems)
    if found:
        raise TableError(found)


Shape = tuple[tuple[str, ...], Callable[..., Array]]

SHAPES: dict[str, Shape] = {
    "constant": (("peak",), schedule.constant),
    "cosine": (("peak", "end"), schedule.cosine),
    "linear": (("peak", "end"), schedule.linear),
    "wsd": (("peak", "end", "decay_from"), schedule.wsd),
    "wsd_exponential": (
        ("peak", "end", "decay_from"),
        lambda steps, **given: schedule.wsd(steps, exponential=True, **given),
    ),
    "two_stage": (("peak", "end", "change_at"), schedule.two_stage),
}
FORM = "KIND:STEPS,peak=RATE,..., such as cosine:72000,peak=3e-4,end=3e-5,warmup=2160"
COUNTS = ("warmup", "decay_from", "change_at")  # in steps, or below 1 as a share of them


def parse_schedule(text: str) -> Array:
    """A schedule by its name and numbers, such as ``cosine:72000,peak=3e-4,end=3e-5,warmup=2160``; (steps,).

    Raises:
        FitError: it is none; the message says what is missing.
    """
    head, *rest = (part.strip() for part in text.split(","))
    kind, _, length = (part.strip() for part in head.partition(":"))
    if kind not in SHAPES:
        raise refuse("schedule", short(text), f"{choices(kind, [*SHAPES], FORM + '; KIND is one of')}")
    needed, build = SHAPES[kind]
    try:
        steps = int(float(length))
        given = {key.strip(): float(value) for key, _, value in (part.partition("=") for part in rest)}
    except (ValueError, OverflowError):
        raise refuse("schedule", short(text), FORM) from None
    keys = (*needed, "warmup")
    if set(needed) - set(given) or set(given) - set(keys) or len(given) < len(rest):
        raise refuse("schedule", short(text), f"{kind}:STEPS with each of {', '.join(needed)}, and warmup")
    if not 1 <= steps <= MAX_STEPS or not np.isfinite([*given.values()]).all():
        raise refuse("schedule", short(text), f"1 to {MAX_STEPS:,} steps, and finite numbers")
    counts = {
        key: int(round(given[key] * steps) if given[key] < 1 else given[key])
        for key in COUNTS
        if key in given
    }
    return build(steps, **{**given, **counts})
