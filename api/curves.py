"""Commands on loss curves: fit recorded ones without a service, forecast a run of a sweep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from api import curve_report as report
from api.arguments import UsageError
from api.fits import PLOTS, usage
from api.tables import read_table
from api.terminal import Json, Sweep, client, console, print_json, show_found
from sweeps.curves.recorded import Recorded, curve_mapping, parse_schedule, record
from sweeps.curves.study import study
from sweeps.errors import Problem
from sweeps.mapping import Mapped, TableError, format_mapping
from sweeps.tables import Warning

MAPPING = "step=step, lr=lr, loss=loss"

Files = Annotated[
    list[Path],
    typer.Argument(help="One run a file, a row for every logged step: .csv, .parquet, .jsonl and others."),
]
Level = Annotated[float, typer.Option(help="Probability of the intervals.")]


def curves(
    files: Files,
    map_: Annotated[
        str, typer.Option("--map", help='Column of each: "step=iteration, lr=lr, loss=train_loss".')
    ] = MAPPING,
    predict: Annotated[
        list[Path] | None,
        typer.Option(help="Run whose curve is predicted and held against its losses; never fitted."),
    ] = None,
    schedule: Annotated[
        list[str] | None,
        typer.Option(help="Schedule to ask about: cosine:72000,peak=3e-4,end=3e-5,warmup=2160."),
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(help="Steps of a warm-up that was over before the first row.", min=0)
    ] = None,
    level: Level = 0.9,
    plot: Annotated[
        list[Path] | None, typer.Option(help="Picture to write, .html or .png; may be repeated.")
    ] = None,
    json: Json = False,
) -> None:
    """Fits laws of loss curves to runs of one model, and predicts other schedules and final losses.

    A file whose last rows have a rate but no loss is a running run, and its final loss is forecast. Kinds of
    schedules: constant, cosine, linear, wsd, wsd_exponential (decay_from=STEP), two_stage (change_at=STEP).

    Example: scalewise curves a.csv b.csv --predict c.csv --schedule wsd:9000,peak=3e-4,end=0,decay_from=7000
    """
    from sweeps.plot import chart_html, chart_png

    with usage():
        _check(level, plot or [])
        mapping = curve_mapping(map_)
        asked = {text: parse_schedule(text) for text in schedule or []}
        names = _names([*files, *(predict or [])])
        fitted = [_read(path, names[path], mapping, warmup, measured=True) for path in files]
        held = [_read(path, names[path], mapping, warmup, measured=False) for path in predict or []]
        learned = study(fitted, held, asked)
        found = report.document(learned, format_mapping(mapping), level)
        for path in plot or []:
            drawn = report.chart(learned, ", ".join(one.name for one in fitted))
            png = path.suffix.lower() == ".png"
            path.write_bytes(chart_png(drawn) if png else chart_html(drawn).encode())
    show_found(found, json, lambda: report.tables(found))


def forecast(
    context: typer.Context,
    sweep: Sweep,
    run: Annotated[int, typer.Argument(help="Number of the run.", min=1)],
    until: Annotated[
        int | None, typer.Option(help="Forget what it measured after so many steps.", min=1)
    ] = None,
    level: Level = 0.9,
    json: Json = False,
) -> None:
    """Forecasts the final loss of a run from its curve so far.

    Example: scalewise forecast 1 12
    """
    with usage():
        _check(level, [])
    found = client(context).forecast(sweep, run, until, level)
    if json:
        print_json(found)
    else:
        console().print(report.run_forecast(found))


def _check(level: float, plots: list[Path]) -> None:
    if not 0 < level < 1:
        raise UsageError(f"given --level {level:g}; allowed: between 0 and 1")
    for path in plots:
        if path.suffix.lower() not in PLOTS or not path.parent.is_dir():
            allowed = f"a file that ends with {' or '.join(PLOTS)}, in a folder that exists"
            raise UsageError(f"given --plot {path}; allowed: {allowed}")


def _names(paths: list[Path]) -> dict[Path, str]:
    """A name for every file: its stem where that is enough."""
    if twice := sorted({str(path) for path in paths if paths.count(path) > 1}):
        raise UsageError(f"given {', '.join(twice)} more than once; allowed: each file once")
    stems = [path.stem for path in paths]
    return {path: path.stem if stems.count(path.stem) == 1 else str(path) for path in paths}


def _read(path: Path, name: str, mapping: Mapped, warmup: int | None, *, measured: bool) -> Recorded:
    columns = read_table(path)
    known = mapping
    if not measured and "loss" in mapping and mapping["loss"].column not in columns:
        known = {key: term for key, term in mapping.items() if key != "loss"}
    if measured and "loss" not in mapping:
        raise TableError([Problem("map", format_mapping(mapping), "a mapping with loss=COLUMN")])
    found = record(name, columns, known, warmup=warmup)
    if len(known) < len(mapping):
        words = f"{name} has no column {mapping['loss'].column}: only its schedule is read"
        return replace(found, notes=(*found.notes, Warning("no_loss", words)))
    if measured and not len(found.steps):
        allowed = "at least one measured loss; a schedule without losses goes to --predict"
        raise TableError([Problem(f"{name}: loss={mapping['loss']}", "no loss in any row", allowed)])
    return found
