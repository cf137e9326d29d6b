"""Commands on tables of runs: fit one without a service, give one to a sweep."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import ArrayLike
from rich.text import Text

from api.arguments import UsageError, numbers, read_settings
from api.tables import Columns, read_table
from api.terminal import Json, Sweep, client, console, print_json
from sweeps.errors import FitError, SpecError
from sweeps.laws import load
from sweeps.laws.check import LawError
from sweeps.mapping import ALIASES, Term, parse_mapping, parse_term

PLOTS = (".html", ".png")
CHUNK = 2_000  # rows that are sent at once

Table = Annotated[Path, typer.Argument(help="Table of runs: .csv, .tsv, .txt, .parquet, .jsonl or .json.")]
Map = Annotated[
    str,
    typer.Option(
        "--map", help='Column of each quantity: "params=N, tokens=1e9*D, loss=loss"; odd names in quotes.'
    ),
]
Laws = Annotated[str, typer.Option(help="Names with commas, or auto for all that fit the table.")]
Seed = Annotated[int, typer.Option(help="Of the draws behind the intervals.", min=0)]
Transfer = Annotated[
    str, typer.Option(help="Prior of how optima move with scale: none, mup, step_law or deepseek.")
]
Own = Annotated[
    list[str] | None, typer.Option("--law", help="A law of your own as module:NAME; may be repeated.")
]


def fit(
    file: Table,
    map_: Map,
    test: Annotated[Path | None, typer.Option(help="Runs to hold the fit against; never fitted.")] = None,
    target: Annotated[str | None, typer.Option(help="What is asked about: params=25e9,tokens=5e11.")] = None,
    group: Annotated[str | None, typer.Option(help="Column whose values are fitted apart.")] = None,
    laws: Laws = "auto",
    law: Own = None,
    count: Annotated[
        str | None, typer.Option(help="Column with another count of parameters: fits that too.")
    ] = None,
    plot: Annotated[
        list[Path] | None, typer.Option(help="Picture to write, .html or .png; may be repeated.")
    ] = None,
    objective: Annotated[
        str, typer.Option(help="student (tails learned), huber (as the field fits) or squares.")
    ] = "student",
    intervals: Annotated[str, typer.Option(help="posterior or bootstrap (over runs).")] = "posterior",
    transfer: Transfer = "none",
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Fits scaling laws to any table of finished runs; no service is needed.

    Example: scalewise fit runs.csv --map "params=N, tokens=D, loss=loss" --target params=25e9,tokens=5e11
    """
    from sweeps.tables import group as split

    with usage():
        mapping, asked, own = parse_mapping(map_), quantities(target), own_laws(law)
        names = "auto" if laws == "auto" else [name.strip() for name in laws.split(",")]
        other = None if count is None else mapping | {"params": parse_term(count)}
        plots = [picture(path) for path in plot or []]
        table, held = read_table(file), None if test is None else read_table(test)
        how = {"objective": objective, "intervals": intervals, "transfer": transfer}
        parts = {"": table} if group is None else split(table, group)
        tests = {} if held is None else {"": held} if group is None else split(held, group)
        if stray := [label for label in tests if label not in parts]:
            allowed = ", ".join([*parts][:20])
            raise UsageError(f"given the test's {group} {', '.join(stray[:20])}; allowed: {allowed}")
        found: dict[str, Any] = {}
        for label, columns in parts.items():
            title = file.name + (f", {group} {label}" if label else "")
            with named(title if label else ""):
                one = _fit(
                    columns, tests.get(label), mapping, other, asked, names, how, seed, plots, title, label
                )
            if unused := [name for name in own if name not in {told["law"] for told in one["laws"]}]:
                words = f"{', '.join(unused)} takes no part in this fit; name it in --laws"
                one["warnings"].append({"code": "law_unused", "message": words})
            found[label] = {"file": str(file), "group": label or None, **one}
            if not json:
                _print(found[label], title, last=len(found) == len(parts))
    if json:
        print_json(found[""] if group is None else {"group": group, "groups": found})


def import_(
    context: typer.Context,
    sweep: Sweep,
    file: Table,
    map_: Map,
    source: Annotated[
        str | None, typer.Option(help="Where the runs are from; the file's name without.")
    ] = None,
    json: Json = False,
) -> None:
    """Adds past runs to what the laws of a sweep are fitted to; importing them again changes nothing.

    Every axis that the sweep varies has to be mapped; batch_tokens may stand for batch, params for width and
    flops for tokens.

    Example: scalewise import 3 old_runs.csv --map "width=d_model, tokens=1e6*Mtok, lr=lr, loss=loss"
    """
    from sweeps.imports import past_runs

    service = client(context)
    spec = service.sweep(sweep).spec
    with usage():
        read_settings()
        mapping = parse_mapping(map_, {})
        columns = read_table(file)
        checked = past_runs(spec, columns, mapping, file.name)
    used = {term.column: columns[term.column].tolist() for term in mapping.values()}
    added = known = 0
    for start in range(0, len(checked.observations), CHUNK):
        rows = {name: values[start : start + CHUNK] for name, values in used.items()}
        body = {"columns": rows, "map": map_, "source": source or file.name, "first_row": start + 1}
        received = service.import_runs(sweep, body)
        added, known, imported = added + received.added, known + received.known, received.imported
    whole = replace(received, added=added, known=known, imported=imported, warnings=checked.notes)
    if json:
        print_json(whole)
        return
    words = f"sweep {sweep} has {imported} imported runs: {added} new, {known} known already"
    console().print(words + ("; its laws are fitted again at the next look" if added else ""))
    for warning in whole.warnings:
        console().print(f"warning {warning.code}: {warning.message}", style="yellow", soft_wrap=True)


def _fit(
    columns: Columns,
    held: Columns | None,
    mapping: Mapping[str, Term],
    other: Mapping[str, Term] | None,
    target: dict[str, float] | None,
    laws: str | list[str],
    how: Mapping[str, str],
    seed: int,
    plots: list[Path],
    title: str,
    label: str,
) -> dict[str, Any]:
    """Fits one table, and the same under another count of parameters."""
    from api import report
    from sweeps.laws.quantities import OF_ROWS
    from sweeps.plot import chart_html, chart_png
    from sweeps.study import Study
    from sweeps.study import fit as learn
    from sweeps.tables import Observed, observe

    def study(by: Mapping[str, Term]) -> tuple[Study, Observed | None]:
        observed = observe(columns, by)
        test = None
        if held is not None:
            there = {name: term for name, term in by.items() if name not in OF_ROWS or term.column in held}
            test = observe(held, there, to_fit=False)
        asked: dict[str, ArrayLike] = {**target} if target else {}
        if test is not None and not asked:
            asked = {name: column for name, column in test.columns.items() if name != "loss"}
        return learn(observed, laws=laws, target=asked or None, seed=seed, **how), test

    made, test = study(mapping)
    asked, notes = _ask(made, target)
    found = report.document(made, asked, test)
    found["warnings"] += notes
    found["recount"] = None
    if other is not None:
        second, again = study(other)
        found["recount"] = report.recount(made, second, asked, again)
    for path in plots:
        drawn = report.chart(made, found, test, title)
        content = chart_png(drawn) if path.suffix.lower() == ".png" else chart_html(drawn).encode()
        of_group(path, label).write_bytes(content)
    return found


def _ask(study: Any, target: dict[str, float] | None) -> tuple[dict[str, float] | None, list[dict[str, str]]]:
    """The target with what it leaves open: given compute alone, the best split of it."""
    if target is None:
        return None, []
    notes = []
    seen = study.observed.columns
    for name, value in target.items():
        if name in seen and not float(np.min(seen[name])) / 1e3 <= value <= float(np.max(seen[name])) * 1e6:
            ends = f"{np.min(seen[name]):.3g} to {np.max(seen[name]):.3g}"
            words = (
                f"the target's {name}, {value:.3g}, is far from the table's {ends}; is it in the same unit?"
            )
            notes.append({"code": "target_units", "message": words})
    if (
        "flops" in target
        and set(study.scales) == {"params", "tokens"}
        and not {"params", "tokens"} & set(target)
    ):
        (best,) = study.frontier([target["flops"]])
        words = f"the target gives compute alone: taken are its best {best.params:.4g} params"
        notes.append({"code": "target_split", "message": f"{words} and {best.tokens:.4g} tokens"})
        return target | {"params": best.params, "tokens": best.tokens}, notes
    return target, notes


def _print(found: Mapping[str, Any], title: str, last: bool) -> None:
    from api import report

    console().print(report.tables(dict(found), title))
    if not last:
        console().print(Text("-" * 40, "bright_black"))


def quantities(text: str | None) -> dict[str, float] | None:
    """Quantities above 0 from ``params=25e9,tokens=5e11``."""
    if text is None:
        return None
    given = numbers([part.strip() for part in text.split(",")])
    for name, value in given.items():
        if not 0.0 < value < float("inf"):
            raise UsageError(f"given the target's {name}={value:g}; allowed: a number above 0")
    return {ALIASES.get(name, name): value for name, value in given.items()}


def own_laws(given: list[str] | None) -> list[str]:
    """Registers laws of the user's own and tells their names; the current directory is looked in first.

    Laws of the operator's settings are registered as well.
    """
    read_settings()
    if given and (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    return [law.name for law in load(given or [])]


def picture(path: Path) -> Path:
    """A file that a picture can be written to."""
    if path.suffix.lower() not in PLOTS or not path.parent.is_dir():
        allowed = f"a file that ends with {' or '.join(PLOTS)}, in a folder that exists"
        raise UsageError(f"given --plot {path}; allowed: {allowed}")
    return path


def of_group(path: Path, label: str) -> Path:
    """The file of a group's picture; the same where there are no groups."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", label)
    return path.with_stem(f"{path.stem}-{name}") if label else path


@contextmanager
def usage() -> Iterator[None]:
    """Bad input is one message and the status 2."""
    try:
        yield
    except (SpecError, FitError, LawError, UsageError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


@contextmanager
def named(title: str) -> Iterator[None]:
    """Says which group an error is about."""
    try:
        yield
    except (SpecError, FitError) as error:
        if not title:
            raise
        raise UsageError(f"{title}: {error}") from None
