"""Questions put to the latest fit, checked the way a specification is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from store.db import Sessions
from store.service import get_sweep, latest_fit, list_runs
from sweeps.ensemble import Ensemble
from sweeps.errors import IllegalTransition, NotFound, Problem, SpecError
from sweeps.runs import TERMINAL, RunState, Sweep, SweepState
from sweeps.spec import Config, SweepSpec, Target, parse, to_dict

MANY = 1_000_000  # more than a sweep has runs


def fitted(sessions: Sessions, sweep_id: int) -> tuple[Sweep, Ensemble]:
    """A sweep with its latest fit.

    Raises:
        NotFound: there is no such sweep.
        IllegalTransition: it has no fit yet.
    """
    sweep = get_sweep(sessions, sweep_id)
    fit = latest_fit(sessions, sweep_id)
    if fit is None:
        raise IllegalTransition(_no_fit(sweep))
    return sweep, fit.ensemble


def diverged(sessions: Sessions, sweep_id: int) -> list[Config]:
    """Configurations of a sweep that diverged, trained targets among them."""
    return [run.config for run in list_runs(sessions, sweep_id, state=RunState.DIVERGED, limit=MANY)]


def find_target(spec: SweepSpec, name: str | None) -> Target:
    """A target by name, the first one without.

    Raises:
        NotFound: the sweep has no target of this name.
    """
    for target in spec.targets:
        if name is None or target.name == name:
            return target
    names = ", ".join(target.name for target in spec.targets)
    raise NotFound(f"given the target {name!r}; this sweep has {names}")


def asked(spec: SweepSpec, given: Iterable[tuple[str, str]]) -> Config:
    """The configuration a query asks about.

    Args:
        given: pairs of a query. ``target`` names one of the sweep's targets, which is also the start
            where nothing else is given; every other key is an axis.

    Raises:
        SpecError: a key is no axis of the sweep's proxy, or a value does not fit its axis.
        NotFound: there is no such target.
    """
    pairs = list(given)
    names = [value for name, value in pairs if name == "target"]
    values = {name: value for name, value in pairs if name != "target"}
    if names or not values:
        start = find_target(spec, names[-1] if names else None).at
        return check(spec, start | numbers(spec, values))
    return check(spec, numbers(spec, values))


def numbers(spec: SweepSpec, values: Mapping[str, str]) -> Config:
    """Values of axes as numbers.

    Raises:
        SpecError: a name is no axis, or a value no number.
    """
    axes = spec.axes
    found: Config = {}
    problems = []
    for name, value in values.items():
        try:
            found[name] = float(value)
        except ValueError:
            problems.append(Problem(name, repr(value), "a number"))
        if name not in axes:
            problems.append(Problem(name, f"unknown key {name!r}", f"target, or an axis: {', '.join(axes)}"))
    if problems:
        raise SpecError(problems)
    return found


def check(spec: SweepSpec, at: Config) -> Config:
    """A configuration that could be a target of this sweep.

    Raises:
        SpecError: with a problem per axis that is missing or does not fit.
    """
    try:
        parse(to_dict(replace(spec, targets=(Target(at=at, name="query"),))))
    except SpecError as error:
        raise SpecError([_without_path(problem) for problem in error.problems]) from None
    return at


def _without_path(problem: Problem) -> Problem:
    prefix = "targets.0.at."
    return Problem(problem.field.removeprefix(prefix), problem.given.replace(prefix, ""), problem.allowed)


def _no_fit(sweep: Sweep) -> str:
    done = sum(count for state, count in sweep.counts.items() if state in TERMINAL)
    if sweep.state in (SweepState.FINISHED, SweepState.CANCELLED):
        return f"no fit: the sweep is {sweep.state} after {done} runs, too few of them with a result"
    return f"no fit yet: {done} of {sweep.spec.strategy.first_batch} runs of the first batch are done"
