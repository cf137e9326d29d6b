"""``scalewise shapes``: how networks are scaled, and which way the laws of a table or of a sweep prefer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Group, RenderableType
from rich.text import Text

from api import render
from api.arguments import UsageError, pairs
from api.fits import Laws, Own, Seed, own_laws, quantities, usage
from api.tables import read_table
from api.terminal import Json, client, show_found
from sweeps.mapping import parse_mapping
from sweeps.selection import compute
from sweeps.shape_choice import BUDGETS, Choice, choose, grown
from sweeps.shapes import STRATEGIES
from sweeps.study import fit
from sweeps.tables import observe, read


def command(
    context: typer.Context,
    factor: Annotated[float, typer.Argument(help="Times the budget; below 1 to shrink.")],
    file: Annotated[Path | None, typer.Argument(help="Table of runs whose laws choose.")] = None,
    map_: Annotated[
        str | None,
        typer.Option(
            "--map",
            help='As of scalewise fit, such as "width=d, depth=l, params=N, loss=loss"; seconds too.',
        ),
    ] = None,
    sweep: Annotated[int | None, typer.Option(help="Number of a sweep whose laws choose.", min=1)] = None,
    base: Annotated[
        str | None,
        typer.Option(help="What is scaled: width=512,depth=8,...; the largest run, or the first target."),
    ] = None,
    budget: Annotated[str, typer.Option(help="What grows by the factor: flops or activations.")] = "flops",
    laws: Laws = "auto",
    law: Own = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Tells how strategies scale depth, width and resolution; with a table or a sweep, which is best.

    Example: scalewise shapes 4 runs.csv --map "width=d, depth=l, params=N, tokens=D, loss=loss"
    """
    with usage():
        if not 0.0 < factor < float("inf"):
            raise UsageError(f"given {factor:g}; allowed: a number above 0")
        if budget not in BUDGETS:
            raise UsageError(f"given --budget {budget}; allowed: {' or '.join(BUDGETS)}")
        if file is not None and sweep is not None:
            raise UsageError("allowed: a table or --sweep, not both")
        if (file is None) != (map_ is None):
            raise UsageError("allowed: a table together with --map")
        if sweep is not None:
            at = pairs([part.strip() for part in base.split(",")]) if base else {}
            found = client(context).shapes(sweep, factor, budget, at)
        elif file is not None and map_ is not None:
            own_laws(law)
            names = "auto" if laws == "auto" else [name.strip() for name in laws.split(",")]
            found = _by_table(file, map_, factor, budget, quantities(base), names, seed)
        else:
            rows = _strategies(factor, budget)
            show_found(rows, json, lambda: _listed(rows))
            return
    show_found(found, json, lambda: _chosen(found))


def _by_table(
    file: Path,
    map_: str,
    factor: float,
    budget: str,
    base: dict[str, float] | None,
    laws: str | list[str],
    seed: int,
) -> list[Choice]:
    mapping, columns = parse_mapping(map_), read_table(file)
    timed = mapping.pop("seconds", None)
    observed = observe(columns, mapping)
    seconds = None if timed is None else read(columns, {"loss": mapping["loss"], "seconds": timed})["seconds"]
    seen = observed.columns | compute(observed.columns, observed.columns)
    there = {name: np.array([value]) for name, value in base.items()} if base else seen
    most = (there | compute(there, seen)).get("flops")  # the laws are asked to hold at the budget
    target = None if most is None else {"flops": factor * most.max()}
    study = fit(observed, laws=laws, target=target, seed=seed)
    return choose(study, factor, budget=budget, base=base, seconds=seconds)


def _strategies(factor: float, budget: str) -> list[dict[str, Any]]:
    """Every strategy without laws."""
    found = []
    for name, one in STRATEGIES.items():
        by, times = grown(one, factor, budget)
        sizes = {size: times[size] for size in ("flops", "params", "activations")}
        found.append({"strategy": name, **vars(by), **sizes, "source": one.source})
    return found


def _listed(rows: list[dict[str, Any]]) -> RenderableType:
    made = render.table(*rows[0], right=[*rows[0]][1:-1])
    for row in rows:
        made.add_row(*(render.number(v) if isinstance(v, float) else str(v) for v in row.values()))
    return made


def _chosen(found: list[Choice]) -> RenderableType:
    """Strategies by loss, the best one in words, what speaks against them."""
    best, timed = found[0], found[0].seconds is not None
    sizes = ("depth", "width", "resolution", "FLOPs", "params", "activations")
    names = ("strategy", *sizes, *(("seconds",) if timed else ()), "loss")
    made = render.table(*names, "mean", "a new run", "", right=names[1:])
    for one in found:
        marks = ["best"] * one.best + ["best for its time"] * (one.best_for_time and not one.best)
        made.add_row(
            one.strategy,
            *map(render.number, (*vars(one.by).values(), one.flops, one.params, one.activations)),
            *([render.number(one.seconds)] if timed else []),
            f"{one.loss:.4f}",
            f"{one.mean_low:.4f} to {one.mean_high:.4f}",
            f"{one.low:.4f} to {one.high:.4f}",
            " ".join(marks),
            style="green" if one.best else None,
        )
    rows: list[tuple[str, RenderableType]] = [(best.strategy, render.at(best.at))]
    rows += [(f"warning {w.code}", Text(w.message, "yellow")) for w in best.warnings]
    return Group(made, "", render.facts(rows))
