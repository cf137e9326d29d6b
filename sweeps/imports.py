"""Past runs in the axes of a sweep, so that its laws can be fitted to them beside its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sweeps.errors import Problem
from sweeps.laws.base import Array
from sweeps.mapping import Mapped, TableError, Term, parse_mapping
from sweeps.runs import Observation
from sweeps.space import tabulate
from sweeps.spec import SweepSpec
from sweeps.tables import Warning, read, rows_in_words
from sweeps.wording import choices

CLOSE = 0.05  # relative difference up to which two counts of parameters or FLOPs are the same
WHOLE = 1000.0  # a number from here up may be rounded: a token more or less is no matter
BESIDE = ("loss", "params", "flops", "batch_tokens")  # what may be mapped beside axes


@dataclass(frozen=True)
class Imported:
    """Past runs as observations of a sweep.

    Args:
        observations: in the order of the rows.
        notes: what is odd about them.
    """

    observations: tuple[Observation, ...]
    notes: tuple[Warning, ...]


def past_runs(
    spec: SweepSpec,
    columns: Mapping[str, ArrayLike],
    mapping: str | Mapped | None,
    source: str,
    first: int = 1,
) -> Imported:
    """Reads past runs.

    Every axis that the sweep varies has to be there; the others are filled in as for the sweep's own runs.
    In place of ``batch`` (sequences or samples a step) ``batch_tokens`` may be given, in place of ``width``
    ``params`` by the count that the sweep's laws read, and in place of ``tokens`` ``flops``, as 6 N D. Where
    ``params`` or ``flops`` are given beside what they follow from, the two are compared.

    Args:
        columns: by name, each (n,).
        mapping: which is what; None where every column is called what it is.
        source: where the rows are from, for their provenance.
        first: number of the first row in the source.

    Raises:
        TableError: with a problem per column that is missing or does not fit.
    """
    if mapping is None:
        mapping = {name: Term(name) for name in columns}
    elif isinstance(mapping, str):
        mapping = parse_mapping(mapping, {})
    rules = spec.axes
    known = [*rules, *BESIDE]
    _refuse(Problem("map", repr(name), choices(name, known)) for name in mapping if name not in known)
    free = [name for name, rule in rules.items() if rule.lower <= 0.0]
    table = read(columns, mapping, free=free)
    axes = _axes(spec, table)
    _refuse(_missing(spec, axes, table))
    notes: list[Warning] = []
    if "width" in rules and "width" not in axes and "params" in table:
        axes["width"], notes = _widths(spec, axes, table)
    axes = {name: _whole(column) if rules[name].integer else column for name, column in axes.items()}
    _refuse(_check(spec, axes))
    found = tabulate(spec, axes)
    notes += [
        *_compare(found.columns, table, mapping),
        *_off_space(spec, axes),
        *_copies(axes, table),
    ]
    observations = tuple(
        Observation(
            found.config(row),
            found.cost(row),
            float(table["loss"][row]),
            provenance=f"{source}, row {first + row}",
        )
        for row in range(len(found))
    )
    return Imported(observations, tuple(notes))


def _refuse(problems: Iterator[Problem]) -> None:
    if found := list(problems):
        raise TableError(found)


def _axes(spec: SweepSpec, table: Mapping[str, Array]) -> dict[str, Array]:
    """The axes that the table gives, or that follow from it without the shape."""
    axes = {name: column for name, column in table.items() if name not in BESIDE}
    if "batch" in spec.axes and "batch" not in axes and "batch_tokens" in table:
        each = axes.get("resolution", np.array(spec.complete({}).get("resolution", np.nan)))
        axes["batch"] = table["batch_tokens"] / (each if spec.source.task == "tokens" else 1.0)
    if "tokens" in spec.axes and "tokens" not in axes and "flops" in table and "params" in table:
        axes["tokens"] = table["flops"] / (6.0 * table["params"])
    return axes


def _missing(spec: SweepSpec, axes: Mapping[str, Array], table: Mapping[str, Array]) -> Iterator[Problem]:
    rules = spec.axes
    instead = {"batch": "batch_tokens", "width": "params", "tokens": "flops and params"}
    filled = spec.complete({})
    for name in rules:
        varied = name in spec.space and len(spec.space[name].values) > 1
        if name in axes or (name in filled and not varied) or (name == "width" and "params" in table):
            continue
        other = f" or {instead[name]}" if name in instead else ""
        allowed = f"{name}=COLUMN{other}, since the sweep varies it" if varied else f"{name}=COLUMN{other}"
        if name not in ("width", "tokens"):
            allowed += (
                "; rows that do not tell it cannot be placed: fit them on their own with `scalewise fit`"
            )
        yield Problem(f"map.{name}", "nothing", allowed)


def _widths(
    spec: SweepSpec, axes: Mapping[str, Array], table: Mapping[str, Array]
) -> tuple[Array, list[Warning]]:
    """The width at which each row's shape has its parameters, by the count the laws read."""
    wanted, count = table["params"], f"params_{spec.laws.count}"
    given = {name: column for name, column in (spec.complete({}) | dict(axes)).items() if name != "width"}
    rule = spec.axes["width"]

    def params(width: Array) -> Array:
        return np.broadcast_to(spec.costs(given | {"width": width})[count], width.shape)

    low, high = np.full(len(wanted), float(rule.lower)), np.full(len(wanted), float(rule.upper))
    for _ in range(60):
        middle = np.sqrt(low * high)
        above = params(middle) > wanted
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    step = np.asarray(spec.kind.step(given, spec.proxy), dtype=float)
    width = np.maximum(step * np.round(np.sqrt(low * high) / step), step * np.ceil(rule.lower / step))
    off = np.abs(params(width) / wanted - 1.0)
    bad = np.flatnonzero(off > CLOSE)
    if bad.size:
        found = f"{wanted[bad[0]]:.4g} in {rows_in_words(bad + 1)}"
        allowed = f"parameters that some width has (the nearest: {params(width)[bad[0]]:.4g}), or map width"
        raise TableError([Problem("map.params", found, allowed)])
    words = f"width is taken from params ({spec.laws.count} count), to within {off.max():.2%}"
    return width, [Warning("width_solved", words)]


def _whole(column: Array) -> Array:
    """Whole numbers where they were meant; small ones that are not stay as they are, to be refused."""
    rounded = np.round(column)
    return np.where((column >= WHOLE) | (np.abs(rounded - column) <= 1e-6 * np.abs(column)), rounded, column)


def _check(spec: SweepSpec, axes: Mapping[str, Array]) -> Iterator[Problem]:
    found = [*_out_of_bounds(spec, axes)]
    yield from found or _untied(spec, axes)


def _untied(spec: SweepSpec, axes: Mapping[str, Array]) -> Iterator[Problem]:
    """What rows hold together that does not fit, such as a width that heads do not divide."""
    filled: Mapping[str, ArrayLike] = {**spec.complete({}), **axes}
    filled, rows = {**filled, **spec.derive(filled)}, len(next(iter(axes.values())))
    for tie in spec.kind.ties:
        columns = [np.broadcast_to(np.asarray(filled[name]), rows).tolist() for name in tie.axes]
        held = [dict(zip(tie.axes, map(int, row), strict=True)) for row in zip(*columns, strict=True)]
        found = [tie.problem(spec.proxy, row) for row in held]
        bad = [row for row, problem in enumerate(found) if problem is not None]
        if bad and (first := found[bad[0]]):
            given = f"{first.given} in {rows_in_words(np.array(bad) + 1)}"
            yield Problem(f"map.{tie.axes[0]}", given, first.allowed)


def _out_of_bounds(spec: SweepSpec, axes: Mapping[str, Array]) -> Iterator[Problem]:
    for name, column in axes.items():
        rule = spec.axes[name]
        bad = np.flatnonzero((column < rule.lower) | (column > rule.upper))
        allowed = f"a number from {rule.lower:g} to {rule.upper:g}"
        if not bad.size and rule.integer:
            bad, allowed = np.flatnonzero(column != np.round(column)), "a whole number"
        if bad.size:
            yield Problem(f"map.{name}", f"{column[bad[0]]:g} in {rows_in_words(bad + 1)}", allowed)


def _compare(cost: Mapping[str, Array], table: Mapping[str, Array], mapping: Mapped) -> Iterator[Warning]:
    """Warns where params or flops of the table are not those of the shape, by any count."""
    counts = {
        "params": ("params_total", "params_body", "params_active"),
        "flops": ("flops", "flops_6nd"),
    }
    for name, fields in counts.items():
        if name not in mapping:
            continue
        off = {one: float(np.median(np.abs(table[name] / cost[one] - 1.0))) for one in fields}
        best = min(off, key=lambda one: off[one])
        if off[best] > CLOSE:
            words = f"{name} differs by {off[best]:.0%} in the middle from what these shapes have ({best})"
            yield Warning(f"{name}_differ", f"{words}; the shape counts. Is {mapping[name]} of other models?")


def _off_space(spec: SweepSpec, axes: Mapping[str, Array]) -> Iterator[Warning]:
    """Warns where a run differs from the sweep's own in what these do not vary."""
    filled = spec.complete({})
    for name, column in axes.items():
        varied = name in spec.space and len(spec.space[name].values) > 1
        differ = np.flatnonzero(column != filled.get(name, column))
        if not varied and name != "seed" and differ.size:
            words = f"{name} is {column[differ[0]]:g} in {rows_in_words(differ + 1)}, not {filled[name]:g}"
            yield Warning("off_space", f"{words} as in the sweep; its laws cannot tell what that changes")


def _copies(axes: Mapping[str, Array], table: Mapping[str, Array]) -> Iterator[Warning]:
    rows = np.column_stack([*axes.values(), table["loss"]])
    _, kept = np.unique(rows, axis=0, return_index=True)
    again = np.setdiff1d(np.arange(len(rows)), kept) + 1
    if again.size:
        yield Warning(
            "duplicates", f"copies of other rows, loss included, are stored once: {rows_in_words(again)}"
        )
