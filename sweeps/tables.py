"""Any table of finished runs as named quantities: what is derived, and what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sweeps.errors import Problem, Warning
from sweeps.laws.base import Array
from sweeps.laws.quantities import OF_ROWS, QUANTITIES, quantity
from sweeps.mapping import ALIASES, Mapped, TableError, Term, format_mapping, parse_mapping
from sweeps.wording import choices, short

__all__ = ["Observed", "TableError", "Warning", "group", "observe", "parse_mapping", "read"]

MIN_ROWS, MAX_ROWS, MAX_GROUPS = 4, 100_000, 200
SHOWN = 5  # rows or names that a message lists
UNITS = {1e3: "thousands", 1e6: "millions", 1e9: "billions", 1e12: "trillions"}
COMMON, TYPICAL = 3e8, 20.0  # parameters, and tokens a parameter, to guess a unit by
GAP = 4.5  # decades without a value that no honest column has


@dataclass(frozen=True)
class Observed:
    """A table of runs as quantities (see ``sweeps.laws.quantities``).

    Args:
        columns: quantities, always ``loss`` among them, each (n,) and finite.
        derived: how those were come by that the table does not hold.
        notes: what is odd about the table.
        mapping: as text.
    """

    columns: dict[str, Array]
    derived: dict[str, str] = field(default_factory=dict)
    notes: tuple[Warning, ...] = ()
    mapping: str = ""

    def __len__(self) -> int:
        return len(self.columns["loss"])


def observe(
    columns: Mapping[str, ArrayLike],
    mapping: str | Mapped | None = None,
    *,
    to_fit: bool = True,
) -> Observed:
    """Reads a table of runs and derives the quantities that it leaves out.

    Args:
        columns: by name, each (n,).
        mapping: which is what; None where every column is a quantity of that name.
        to_fit: False for rows that are only held against a fit: any number of them will do.

    Raises:
        TableError: with a problem per column that cannot be used. No row is ever left out.
    """
    if mapping is None:
        mapping = {ALIASES.get(name, name): Term(name) for name in columns}
    elif isinstance(mapping, str):
        mapping = parse_mapping(mapping)
    table = read(columns, mapping, least=MIN_ROWS if to_fit else 1, labels=("run",))
    if to_fit and np.ptp(table["loss"]) == 0.0:
        given = f"{table['loss'][0]:g} in every row"
        raise TableError(
            [Problem(f"loss={mapping['loss']}", given, "losses that differ; map another column")]
        )
    derived = _derive(table)
    _refuse(_outside(table, lambda name: f"{name} ({derived[name]})", derived))
    spare = [name for name in columns if name not in {term.column for term in mapping.values()}]
    own = [name for name in mapping if name not in OF_ROWS]
    notes = [*_unknown(mapping), *_units(table, mapping), *copies(table, own, spare)]
    if to_fit:
        notes += _constant(table, mapping)
    return Observed(table, derived, tuple(notes), format_mapping(mapping))


def read(
    columns: Mapping[str, ArrayLike],
    mapping: Mapped,
    *,
    least: int = 1,
    free: Collection[str] = (),
    labels: Collection[str] = (),
) -> dict[str, Array]:
    """The mapped quantities of a table as finite numbers in their valid ranges, nothing derived.

    Args:
        least: rows that there must be.
        free: quantities that no law reads and whose range is checked elsewhere.
        labels: quantities that may be words; they are numbered from 1.

    Raises:
        TableError: with a problem per column that cannot be used.
    """
    problems = [
        Problem(f"map.{name}", short(term.column), choices(term.column, [*columns], "a column of the table:"))
        for name, term in mapping.items()
        if term.column not in columns
    ]
    if "loss" not in mapping:
        problems.append(Problem("map", ", ".join(mapping) or "nothing", "a mapping with loss=COLUMN"))
    _refuse(problems)
    values = {name: np.asarray(columns[term.column]) for name, term in mapping.items()}
    _check_rows(values, least)
    values |= {name: _codes(values[name]) for name in labels if name in values}
    table = {}
    for name, term in mapping.items():
        numbers, problem = _numbers(f"{name}={term}", values[name])
        table[name] = numbers * term.factor
        problems += [problem] if problem else []
    _refuse(problems)
    checked = [name for name in table if name not in free]
    _refuse(_outside(table, lambda name: f"{name}={mapping[name]}", checked))
    return table


def group(columns: Mapping[str, ArrayLike], name: str) -> dict[str, dict[str, NDArray[Any]]]:
    """The rows of a table by the values of one of its columns, in the order in which they first come.

    Raises:
        TableError: there is no such column, it has gaps, or too many values.
    """
    if name not in columns:
        raise TableError([Problem("group", short(name), choices(name, [*columns], "a column of the table:"))])
    table = {key: np.asarray(column) for key, column in columns.items()}
    if gaps := [row for row, value in enumerate(table[name], 1) if value is None or value != value]:
        raise TableError([Problem("group", f"{name} empty in {rows_in_words(gaps)}", "a value in every row")])
    labels = np.array([str(value) for value in table[name]], dtype=object)
    groups = list(dict.fromkeys(labels))
    if len(groups) > MAX_GROUPS:
        given = f"{name} with {len(groups):,} values"
        raise TableError([Problem("group", given, f"a column with at most {MAX_GROUPS} values")])
    return {label: {key: column[labels == label] for key, column in table.items()} for label in groups}


def copies(table: Mapping[str, Array], names: Sequence[str], spare: Sequence[str] = ()) -> Iterator[Warning]:
    """Warns of rows that are there twice, and speaks of configurations that are.

    Args:
        names: of the columns that make a row.
        spare: columns of the table that are not used.
    """
    places = np.column_stack([np.zeros_like(table["loss"]), *(table[n] for n in names if n != "loss")])
    _, place, runs = np.unique(places, axis=0, return_inverse=True, return_counts=True)
    rows = np.column_stack([place.astype(float), table["loss"]])
    distinct, kept = np.unique(rows, axis=0, return_index=True)
    again = np.setdiff1d(np.arange(len(rows)), kept) + 1
    if again.size:
        words = f"copies of other rows, loss included, count twice: {rows_in_words(again)}; take them out"
        yield Warning("duplicates", words)
    if len(distinct) > len(runs):
        words = (
            f"{len(rows):,} rows of {len(runs):,} configuration{'s' * (len(runs) != 1)}: those with other "
            "losses are taken as replicates, which tell the noise between seeds"
        )
        if spare:
            more = ", ..." if len(spare) > SHOWN else ""
            words += (
                f"; if they differ in a column that is not mapped ({', '.join(spare[:SHOWN])}{more}), map it"
            )
        yield Warning("replicates", words)


def rows_in_words(rows: Collection[int]) -> str:
    """Rows in words, counted from 1 without the header."""
    more = f" and {len(rows) - SHOWN:,} more" if len(rows) > SHOWN else ""
    return f"row{'s' * (len(rows) != 1)} {', '.join(str(row) for row in list(rows)[:SHOWN])}{more}"


def _refuse(problems: Sequence[Problem]) -> None:
    if problems:
        raise TableError(list(problems))


def _check_rows(values: Mapping[str, NDArray[Any]], least: int) -> None:
    if any(column.ndim != 1 for column in values.values()) or len({len(v) for v in values.values()}) > 1:
        shapes = ", ".join(f"{name} {column.shape}" for name, column in values.items())
        raise TableError([Problem("table", f"columns of the shapes {shapes}", "columns of one length")])
    rows = len(values["loss"])
    if rows < least:
        allowed = f"at least {least}" + ("; no law can be told from fewer" if least > 1 else "")
        raise TableError([Problem("table", f"{rows} row{'s' * (rows != 1)}", allowed)])
    if rows > MAX_ROWS:
        every = math.ceil(rows / MAX_ROWS)
        allowed = f"at most {MAX_ROWS:,}; keep one row a run (the last of its curve), or one row in {every}"
        raise TableError([Problem("table", f"{rows:,} rows", allowed)])


def _codes(labels: NDArray[Any]) -> Array:
    """Labels numbered from 1; NaN where there is none."""
    codes = 1.0 + np.unique([str(label) for label in labels], return_inverse=True)[1]
    blank = [label is None or label != label or not str(label).strip() for label in labels]
    return np.where(blank, np.nan, codes)


def _numbers(label: str, values: NDArray[Any]) -> tuple[Array, Problem | None]:
    """A column as numbers, and what is wrong with it."""
    if values.dtype.kind in "iuf":
        column = values.astype(float)
    else:
        column, words = np.full(len(values), np.nan), []
        for row, value in enumerate(values):
            try:
                blank = value is None or value != value or not str(value).strip()
                if isinstance(value, bool | np.bool_):
                    raise TypeError
                column[row] = math.nan if blank else float(value)
            except (TypeError, ValueError):
                words.append(row)
        if words:
            given = f"{short(values[words[:1]].tolist()[0])} in {rows_in_words([row + 1 for row in words])}"
            return column, Problem(label, given, "numbers such as 1.5e9; map a column that holds them")
    bad = np.flatnonzero(~np.isfinite(column)) + 1
    if not bad.size:
        return column, None
    gaps = int(np.isnan(column).sum())
    kinds = ((gaps, "missing or NaN"), (len(bad) - gaps, "infinite"))
    given = " and ".join(f"{count:,} {kind}" for count, kind in kinds if count)
    allowed = "a finite number in every row; fill them in, or take those rows (such as diverged runs) out"
    return column, Problem(label, f"{given} in {rows_in_words(bad)}", allowed)


def _outside(
    table: Mapping[str, Array], label: Callable[[str], str], names: Collection[str]
) -> list[Problem]:
    """Quantities that leave their valid ranges."""
    problems = []
    for name in names:
        known, column = quantity(name), table[name]
        inside = np.isfinite(column) & (column > 0.0) & (column >= known.low) & (column <= known.high)
        bad = np.flatnonzero(~inside) + 1
        if bad.size:
            bounds = (
                f"{known.low:g} to {known.high:g}" if math.isfinite(known.high) else f"from {known.low:g}"
            )
            allowed = bounds if known.low > 0.0 else "above 0 and finite, since laws take its logarithm"
            advice = "" if name in QUANTITIES else "; leave it out of the mapping if no law is to read it"
            given = f"{column[bad[0] - 1]:g} in {rows_in_words(bad)}"
            problems.append(Problem(label(name), given, f"{known.unit}: {allowed}{advice}"))
    return problems


def _derive(table: dict[str, Array]) -> dict[str, str]:
    """Adds what follows from the rest to a table; how, by quantity."""
    size = "active_params" if "active_params" in table else "params"
    rules: tuple[tuple[str, tuple[str, str], str, Callable[[Array, Array], Array]], ...] = (
        ("tokens", ("steps", "batch"), "steps * batch", lambda s, b: s * b),
        ("tokens", ("flops", size), f"flops / (6 {size})", lambda c, n: c / (6.0 * n)),
        ("flops", (size, "tokens"), f"6 {size} tokens", lambda n, d: 6.0 * n * d),
        (size, ("flops", "tokens"), "flops / (6 tokens)", lambda c, d: c / (6.0 * d)),
        ("steps", ("tokens", "batch"), "tokens / batch", lambda d, b: d / b),
        ("batch", ("tokens", "steps"), "tokens / steps", lambda d, s: d / s),
    )
    derived: dict[str, str] = {}
    for name, (one, other), words, rule in rules:
        if name not in table and one in table and other in table:
            with np.errstate(all="ignore"):
                table[name] = rule(table[one], table[other])
            derived[name] = words
    return derived


def _unknown(mapping: Mapped) -> Iterator[Warning]:
    for name in mapping:
        meant = choices(name, [*QUANTITIES], "").partition("(did you mean ")[2].removesuffix("?)")
        if name not in QUANTITIES and meant:
            words = f"{name} is no quantity of the catalogue and stays a column of its own"
            yield Warning("unknown_quantity", f"{words}; did you mean {meant}?")


def _units(table: Mapping[str, Array], mapping: Mapped) -> Iterator[Warning]:
    """Warns of numbers that look as if given in another unit."""
    for name in (one for one in ("params", "tokens", "flops") if one in mapping and len(table[one]) > 1):
        digits = np.log10(table[name])
        ordered = np.sort(digits)
        wide = int(np.argmax(np.diff(ordered)))
        if ordered[wide + 1] - ordered[wide] > GAP:
            ends = f"{10 ** ordered[wide]:.3g} and {10 ** ordered[wide + 1]:.3g}"
            low = rows_in_words(np.flatnonzero(digits <= ordered[wide]) + 1)
            words = f"{name} has nothing between {ends}: {low} look as if in another unit"
            yield Warning("units", f"{words}; give every row in the same")
            return
    middle = {name: float(np.median(column)) for name, column in table.items()}
    if "params" in mapping and "tokens" in mapping:
        n, d = middle["params"], middle["tokens"]
        given = f"{d:.3g} tokens to {n:.3g} parameters in the middle"
        if n < 1e3 and d < 1e3:
            yield from _both(mapping, given, n, d)
        elif n < 1e3 and d > 1e3 * n:
            yield _scaled("params", mapping, given, d / TYPICAL / n)
        elif d < n / 1e3:
            yield _scaled("tokens", mapping, given, TYPICAL * n / d)
    size = "active_params" if "active_params" in mapping else "params"
    if {size, "tokens", "flops"} <= set(mapping):
        share = float(np.median(table["flops"] / (6.0 * table[size] * table["tokens"])))
        if not 0.1 < share < 10.0:
            words = f"flops is {share:.3g} times 6 {size} tokens in the middle; check the units of the three"
            yield Warning("units", words)


def _scaled(name: str, mapping: Mapped, given: str, ratio: float) -> Warning:
    unit = min(UNITS, key=lambda one: abs(math.log(one / ratio)))
    term = Term(mapping[name].column, mapping[name].factor * unit)
    return Warning("units", f"{given}: {name} looks as if given in {UNITS[unit]}: map {name}={term}")


def _both(mapping: Mapped, given: str, n: float, d: float) -> Iterator[Warning]:
    """Parameters and tokens that are both small: the likeliest pair of units."""

    def odd(units: tuple[float, float]) -> float:
        u, v = units
        return abs(math.log(u * n / COMMON)) + abs(math.log(v * d / (u * n * TYPICAL)))

    u, v = min(product(UNITS, UNITS), key=odd)
    yield _scaled("params", mapping, given, u)
    yield _scaled("tokens", mapping, given, v)


def _constant(table: Mapping[str, Array], mapping: Mapped) -> Iterator[Warning]:
    for name in mapping:
        if name not in ("loss", *OF_ROWS) and np.ptp(table[name]) <= 1e-12 * abs(table[name][0]):
            words = f"{name} is {table[name][0]:.4g} in every row: laws of it cannot be fitted"
            yield Warning("constant", f"{words}; add runs where it differs, or leave it out")
