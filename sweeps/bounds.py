"""Whether a space and its targets lie within what a kind of proxy takes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from sweeps.axis import FORMS, Axis
from sweeps.errors import Problem
from sweeps.kinds.base import AxisRule, Kind
from sweeps.proxy import Proxy
from sweeps.wording import choices, short

MAX_CONFIGURATIONS = 10**12
ENUMERATED = 1 << 20  # configurations of a space up to which every one may be chosen
SAMPLED = 1 << 18  # that may be chosen of a larger one

Space = Mapping[str, Axis]
Targets = Sequence[tuple[str, Mapping[str, float]]]  # name, configuration


def configurations(space: Space) -> int:
    """Points of the grid of all axes."""
    return math.prod(len(axis.values) for axis in space.values())


def problems(rules: Mapping[str, AxisRule], space: Space, targets: Targets) -> Iterator[Problem]:
    """What is wrong with axes and targets, each value by itself."""
    yield from _of_space(rules, space)
    yield from _of_targets(rules, targets)


def untied(
    kind: Kind, proxy: Proxy, rules: Mapping[str, AxisRule], space: Space, targets: Targets
) -> Iterator[Problem]:
    """What is wrong with values together, such as heads that do not divide a width."""
    default = {name: [] if rule.default is None else [rule.default] for name, rule in rules.items()}
    spanned = default | {name: [*axis.values] for name, axis in space.items()}
    asked = [
        (f"targets.{i}.at", spanned | {n: [v] for n, v in at.items()}) for i, (_, at) in enumerate(targets)
    ]
    for path, values in [("space", spanned), *asked]:
        for problem in kind.problems(proxy, values):
            inside = f"{path}.{problem.field}" if problem.field in rules else problem.field
            yield Problem(inside, problem.given, problem.allowed)


def _of_space(rules: Mapping[str, AxisRule], space: Space) -> Iterator[Problem]:
    for name, axis in space.items():
        rule = rules.get(name)
        if rule is None:
            yield Problem(
                f"space.{name}", f"unknown axis {name!r}", choices(name, [*rules], "one of the axes")
            )
            continue
        if axis.scale == "log" and min(axis.values) <= 0:
            yield Problem(f"space.{name}", short(list(axis.values)), "values above 0 on a log scale")
        wrong = (problem for value in axis.values for problem in _of_value(f"space.{name}", value, rule))
        yield from islice(wrong, 1)
    for name, rule in rules.items():
        if rule.default is None and name not in space:
            yield Problem(f"space.{name}", "nothing", FORMS)
    size = configurations(space)
    if size > MAX_CONFIGURATIONS:
        most = max(space, key=lambda name: len(space[name].values))
        allowed = (
            f"at most {MAX_CONFIGURATIONS:.0e}; use fewer steps per axis, "
            f"such as in {most}, which has {len(space[most].values):,}"
        )
        yield Problem("space", f"{size:.3g} configurations", allowed)


def _of_targets(rules: Mapping[str, AxisRule], targets: Targets) -> Iterator[Problem]:
    names = [name for name, _ in targets]
    for index, (own, at) in enumerate(targets):
        path = f"targets.{index}"
        if names.count(own) > 1:
            yield Problem(f"{path}.name", repr(own), "a name of its own for every target")
        for name, value in at.items():
            rule = rules.get(name)
            if rule is None:
                allowed = choices(name, [*rules], "one of the axes")
                yield Problem(f"{path}.at.{name}", f"unknown axis {name!r}", allowed)
            else:
                yield from _of_value(f"{path}.at.{name}", value, rule)
        for name, rule in rules.items():
            if rule.default is None and name not in at:
                yield Problem(f"{path}.at.{name}", "nothing", f"the target's {name}, a number")


def _of_value(path: str, value: float, rule: AxisRule) -> Iterator[Problem]:
    if not rule.lower <= value <= rule.upper:
        only = rule.lower == rule.upper
        allowed = f"{rule.lower:g}" if only else f"a number from {rule.lower:g} to {rule.upper:g}"
        yield Problem(path, f"{value:g}", allowed)
    elif rule.integer and value != round(value):
        yield Problem(path, f"{value:g}", "a whole number")
