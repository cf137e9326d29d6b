"""Whether a space and its targets lie within what a kind of proxy takes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from sweeps.axis import FORMS, Axis
from sweeps.errors import Problem
from sweeps.recipe import AxisRule, Kind, heads
from sweeps.wording import choices, short

MAX_CONFIGURATIONS = 10**12
ENUMERATED = 1 << 20  # configurations of a space up to which every one may be chosen
SAMPLED = 1 << 18  # that may be chosen of a larger one

Space = Mapping[str, Axis]
Targets = Sequence[tuple[str, Mapping[str, float]]]  # name, configuration


def configurations(space: Space) -> int:
    """Points of the grid of all axes."""
    return math.prod(len(axis.values) for axis in space.values())


def problems(kind: Kind, head_count: int | None, space: Space, targets: Targets) -> Iterator[Problem]:
    """What is wrong with axes, targets and attention heads.

    Args:
        head_count: of every width; None for those of the recipe.
    """
    yield from _of_space(kind.axes, space)
    yield from _of_targets(kind.axes, targets)
    yield from _of_heads(head_count, space, targets)


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
        yield Problem(path, f"{value:g}", f"a number from {rule.lower:g} to {rule.upper:g}")
    elif rule.integer and value != round(value):
        yield Problem(path, f"{value:g}", "a whole number")


def _of_heads(head_count: int | None, space: Space, targets: Targets) -> Iterator[Problem]:
    """Heads must divide every width into even parts (rotary positions turn pairs of numbers)."""
    axis = space.get("width")
    places = [("space.width", value) for value in (axis.values if axis else ())]
    places += [(f"targets.{i}.at.width", at["width"]) for i, (_, at) in enumerate(targets) if "width" in at]
    for path, width in places:
        if width < 1 or width != round(width):
            continue
        count = heads(int(width), head_count)
        if width % count == 0 and (width // count) % 2 == 0:
            continue
        if head_count is None:
            yield Problem(path, f"{width:g}", "an even number, since attention turns pairs of numbers")
        else:
            given = f"{count} heads for {path} {width:g}"
            yield Problem("proxy.heads", given, "heads that divide every width into even parts")
