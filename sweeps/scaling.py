"""One size that sets many axes: compound scaling of a base shape, or an expression for each axis."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sweeps.arithmetic import Expression, parse_expression
from sweeps.data import Source
from sweeps.errors import Problem, SpecError
from sweeps.kinds.base import Array, AxisRule, Columns, Kind
from sweeps.proxy import Proxy
from sweeps.shapes import RESOLUTION_MULTIPLE, STRATEGIES, WIDTH_MULTIPLE, Strategy, fast
from sweeps.wording import choices

SIZE = "size"
SIZES = AxisRule(False, 1e-6, 1e12, None)
DIAL = "dial"  # the rule that has an expression for each axis
SHAPE = ("width", "depth", "resolution")
ALPHA = 0.8  # share of the growth that dWr gives to the width
ALPHAS = AxisRule(False, 0.0, 1.0, ALPHA)
PARTS = 4  # widths are multiples of a quarter of the base, where that is less than WIDTH_MULTIPLE

Given: TypeAlias = Mapping[str, float | str]
Values: TypeAlias = Mapping[str, Sequence[float]]  # that each axis may hold


def derived(given: Given) -> tuple[str, ...]:
    """The axes that a scaling sets."""
    own = [name for name in given if name not in ("rule", "alpha", *SHAPE)]
    return (*(name for name in SHAPE if given.get("rule") != DIAL or name in given), *own)


def canonical(given: Given) -> dict[str, float | str]:
    """With its defaults filled in."""
    return {"alpha": ALPHA, **given} if given["rule"] == "dWr" else dict(given)


def derive(proxy: Proxy, kind: Kind, source: Source, columns: Columns) -> dict[str, Array]:
    """What sizes set, each (n,).

    Under a strategy of ``sweeps.shapes`` depth, width and resolution of the base grow by powers of the size,
    which is then about the factor in FLOPs an example; along one dimension, as of text, the resolution grows
    by twice the power that it has along two. Widths are rounded to multiples of 8 (of less for small bases,
    see ``PARTS``), resolutions to those of 4; a group is the divisor of the width nearest to one that grew
    like it. Under a dial whole numbers are rounded. Either way heads divide widths, and patches resolutions.

    Args:
        columns: the size, and axes that rounding depends on (patch, group_width), each (n,) or a number.
    """
    given, rules = proxy.scaling or {}, kind.axes(source)
    size = np.atleast_1d(np.asarray(columns[SIZE], dtype=float))
    free = {"group_width": 0.0, **{n: column for n, column in columns.items() if n not in derived(given)}}
    step = np.asarray(kind.step(free, proxy), dtype=int)
    places = np.asarray(1.0 if kind.places is None else kind.places(columns), dtype=int)
    if given["rule"] == DIAL:
        whole = {name: 1 for name, rule in rules.items() if rule.integer} | {
            "width": step,
            "resolution": places,
        }
        return {name: _dialled(name, given[name], whole.get(name), size) for name in derived(given)}
    base = {name: _base(given, name, rules) for name in derived(given)}
    strategy = _strategy(given)
    width = _nearest(base["width"] * size**strategy.width, np.lcm(step, _finest(base["width"])))
    found = {"width": width, "depth": _nearest(base["depth"] * size**strategy.depth, 1.0)}
    found["resolution"] = np.full(len(size), base["resolution"])
    if strategy.resolution:
        power = strategy.resolution * (2.0 if source.task == "tokens" else 1.0)
        multiple = np.lcm(places, int(np.gcd(int(base["resolution"]), RESOLUTION_MULTIPLE)))
        found["resolution"] = _nearest(base["resolution"] * size**power, multiple)
    if "group_width" in base:
        wanted = base["group_width"] * size**strategy.width
        groups = [_group(int(one), float(group)) for one, group in zip(width, wanted, strict=True)]
        found["group_width"] = np.array(groups)
    return found


def problems(proxy: Proxy, kind: Kind, source: Source) -> Iterator[Problem]:
    """What is wrong with a scaling itself."""
    given, rules, allowed = proxy.scaling or {}, kind.axes(source), [*STRATEGIES, DIAL]
    rule = given.get("rule")
    if rule not in allowed:
        told = "nothing" if rule is None else repr(rule)
        yield Problem("proxy.scaling.rule", told, choices(rule, allowed))
    elif rule == DIAL:
        if len(given) == 1:
            yield Problem("proxy.scaling", "no axis", "expressions by axis, such as width: 16*size")
        for name in derived(given):
            yield from _of_expression(name, given[name], rules)
    else:
        found = [*_of_base(given, rules)]
        yield from found or _of_resolution(given, kind, rules)


def misplaced(proxy: Proxy, path: str, names: Collection[str]) -> Iterator[Problem]:
    """Axes that the scaling sets and that are given all the same."""
    for name in derived(proxy.scaling or {}):
        if name in names:
            allowed = f"nothing, since proxy.scaling sets {name} by {SIZE}"
            yield Problem(f"{path}.{name}", "an axis", allowed)


def unfit(proxy: Proxy, kind: Kind, source: Source, path: str, values: Values) -> Iterator[Problem]:
    """The first size that sets what the kind does not take.

    Args:
        path: of the sizes.
        values: what every axis may hold that is not set by size, sizes among them.
    """
    sizes = [size for size in values[SIZE] if SIZES.lower <= size <= SIZES.upper]
    every = (problem for size in sizes for problem in _unfit(proxy, kind, source, path, values, size))
    yield from islice(every, 1)


def _unfit(
    proxy: Proxy, kind: Kind, source: Source, path: str, values: Values, size: float
) -> Iterator[Problem]:
    rules = kind.axes(source)
    columns = {name: one[0] for name, one in values.items() if one} | {SIZE: size}
    try:
        found = {name: float(of[0]) for name, of in derive(proxy, kind, source, columns).items()}
    except SpecError as error:
        yield from error.problems
        return
    for name, value in found.items():
        if not rules[name].lower <= value <= rules[name].upper:
            allowed = f"sizes that set {name} from {rules[name].lower:g} to {rules[name].upper:g}"
            yield Problem(path, f"{size:g}, which sets {name} to {value:g}", allowed)
    for problem in kind.problems(proxy, {**values, **{name: [value] for name, value in found.items()}}):
        yield Problem(path, f"{size:g}, which sets {', '.join(found)} ({problem.given})", problem.allowed)


@lru_cache(maxsize=256)
def _expression(name: str, text: str) -> Expression:
    return parse_expression(text, field=f"proxy.scaling.{name}")


def _dialled(name: str, given: float | str, multiple: NDArray[np.int_] | int | None, size: Array) -> Array:
    if isinstance(given, str):
        value = _expression(name, given)({SIZE: size}, len(size))
    else:
        value = np.full(len(size), float(given))
    return value if multiple is None else _nearest(value, multiple, least=0.0)


def _strategy(given: Given) -> Strategy:
    if given["rule"] == "dWr":
        return fast(float(given.get("alpha", ALPHA)))
    return STRATEGIES[str(given["rule"])]


def _base(given: Given, name: str, rules: Mapping[str, AxisRule]) -> float:
    default = rules[name].default
    return float(given[name]) if name in given or default is None else default


def _nearest(value: Array, multiple: NDArray[np.int_] | float, least: float = 1.0) -> Array:
    """The nearest multiples, at least so many of it; a tie goes up."""
    return np.asarray(np.maximum(least, np.floor(value / multiple + 0.5)) * multiple)


def _finest(width: float) -> int:
    """The power of two up to 8 and up to a quarter of the base, or what the base shares with it."""
    return int(np.gcd(int(width), min(WIDTH_MULTIPLE, 1 << int(np.log2(max(width / PARTS, 1.0))))))


@lru_cache(maxsize=4096)
def _group(width: int, wanted: float) -> float:
    """The divisor of a width nearest to what is wanted, by their ratio; 0 where that is."""
    if not wanted:
        return 0.0
    parts = np.arange(1, width + 1)
    divisors = parts[width % parts == 0]
    return float(divisors[np.argmin(np.abs(np.log(divisors / wanted)))])


def _of_expression(name: str, given: float | str, rules: Mapping[str, AxisRule]) -> Iterator[Problem]:
    path = f"proxy.scaling.{name}"
    if name not in rules:
        yield Problem(path, f"unknown axis {name!r}", choices(name, [*rules], "one of the axes"))
    elif isinstance(given, str):
        try:
            read = _expression(name, given).names
        except SpecError as error:
            yield from error.problems
            return
        if {*read} - {SIZE}:
            yield Problem(path, repr(given), f"an expression over {SIZE} alone")


def _of_base(given: Given, rules: Mapping[str, AxisRule]) -> Iterator[Problem]:
    bounds = {name: rules[name] for name in (*SHAPE, "group_width") if name in rules}
    bounds |= {"alpha": ALPHAS} if given["rule"] == "dWr" else {}
    for name, value in given.items():
        path, bound = f"proxy.scaling.{name}", bounds.get(name)
        if name == "rule":
            continue
        if bound is None:
            yield Problem(path, f"unknown key {name!r}", choices(name, ["rule", *bounds], "the keys"))
        elif (
            isinstance(value, str) or not bound.lower <= value <= bound.upper or (value % 1 and bound.integer)
        ):
            what = "a whole number" if bound.integer else "a number"
            yield Problem(path, repr(value), f"{what} from {bound.lower:g} to {bound.upper:g}")
    for name in ("width", "depth"):
        if name not in given:
            yield Problem(f"proxy.scaling.{name}", "nothing", f"the {name} of the base, a whole number")


def _of_resolution(given: Given, kind: Kind, rules: Mapping[str, AxisRule]) -> Iterator[Problem]:
    """A resolution can only grow where it is free, and where more than the first layer sees it."""
    rule = rules["resolution"]
    if not _strategy(given).resolution or (kind.places is not None and rule.lower < rule.upper):
        return
    flat = [name for name, one in STRATEGIES.items() if not one.resolution]
    why = "only the first layer sees the resolution" if kind.places is None else "the resolution is fixed"
    allowed = f"one of {', '.join([*flat, DIAL])}, since {why}"
    yield Problem("proxy.scaling.rule", repr(given["rule"]), allowed)
