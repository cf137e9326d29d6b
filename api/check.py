"""``scalewise check``: gates to pass before small runs are trusted to speak for large ones."""

from __future__ import annotations

import json as jsons
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType

from api import render
from api.arguments import UsageError, read_spec
from api.terminal import Json, show_found
from sweeps.coordinates import THRESHOLD, Coordinate, Slopes, judge, panels

app = typer.Typer(no_args_is_help=True)

WRONG = 2  # exit status of the measurement where the specification is wrong
WIDTHS = {"convnet": "8,16,32,64"}  # whose last stage is four times as wide
KINDS: dict[str, tuple[str, dict[str, float]]] = {
    "mlp": ("digits", {"depth": 3}),
    "convnet": ("digits", {"depth": 1}),
    "vit": ("digits", {"depth": 2}),
    "gpt": ("stdlib", {"depth": 2, "resolution": 32}),
}
RATES = {"adamw": 3e-3, "sgd": 0.1}


@app.callback()
def gates() -> None:
    """Gates to pass before small runs speak for large ones.

    Example: scalewise check coords --kind gpt
    """


@app.command()
def coords(
    source: Annotated[
        str | None, typer.Argument(help="A preset of conf/sweep, or a .yaml or .json file; else --kind.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to it, such as proxy.base_width=32.")
    ] = None,
    kind: Annotated[
        str, typer.Option(help="Proxy to check without a sweep: mlp, convnet, vit or gpt.")
    ] = "mlp",
    optimizer: Annotated[str, typer.Option(help="Without a sweep: adamw or sgd.")] = "adamw",
    widths: Annotated[str | None, typer.Option(help="Of the models, such as 32,64,128,256.")] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps.", min=2, max=100)] = 4,
    seeds: Annotated[int, typer.Option(help="Models of each width.", min=1, max=32)] = 3,
    plot: Annotated[
        list[Path] | None, typer.Option(help="Picture to write, .html or .png; may be repeated.")
    ] = None,
    json: Json = False,
) -> None:
    """Checks that every layer's output moves by as much at every width with mup = 1.

    Trains models of each width for a few steps on one batch, standard and mup. The exit status is 1 where a
    slope under mup is too steep.

    Example: scalewise check coords --kind gpt --plot coords.html
    """
    for path in plot or []:
        if path.suffix.lower() not in (".html", ".png"):
            raise UsageError(f"given --plot {path}; allowed: a name that ends in .html or .png")
    given = read_spec(source, overrides) if source else _spec(kind, optimizer)
    given = _at_widths(given, _widths(widths or WIDTHS.get(kind, "32,64,128,256")))
    spec, rows = _measured(given, steps, seeds)
    found = [judge(rows, mup) for mup in (0, 1)]
    drawn = panels(rows)
    for path in plot or []:
        from sweeps.plot_panels import panels_html, panels_png

        title, x = f"coordinate check: {spec['proxy']['kind']}, {steps} steps", "width"
        is_png = path.suffix.lower() == ".png"
        path.write_bytes(panels_png(drawn, title, x) if is_png else panels_html(drawn, title, x).encode())
    answer = {
        "threshold": THRESHOLD,
        "passes": found[1].passes,
        "slopes": [asdict(one) for one in found],
        "coordinates": [asdict(row) for row in rows],
    }
    show_found(answer, json, lambda: _shown(found))
    if not found[1].passes:
        raise typer.Exit(1)


def _spec(kind: str, optimizer: str) -> dict[str, Any]:
    """Of a sweep over widths alone."""
    if kind not in KINDS:
        raise UsageError(f"given --kind {kind}; allowed: {', '.join(KINDS)}")
    if optimizer not in RATES:
        raise UsageError(f"given --optimizer {optimizer}; allowed: {' or '.join(RATES)}")
    dataset, shape = KINDS[kind]
    return {
        "name": f"coordinate check of {kind}",
        "proxy": {"kind": kind, "dataset": dataset},
        "space": shape | {"tokens": 1e6, "lr": RATES[optimizer]},
        "targets": [{"at": shape | {"tokens": 1e6}}],
        "trainer": {"optimizer": optimizer},
    }


def _at_widths(given: dict[str, Any], widths: list[int]) -> dict[str, Any]:
    """The same sweep at other widths; its budget, which may not pay for them, is not spent."""
    space = given.get("space")
    if not isinstance(space, dict):
        raise UsageError("the sweep has no space")
    targets = [one | {"at": one["at"] | {"width": max(widths)}} for one in given.get("targets", [])]
    kept = {name: value for name, value in given.items() if name not in ("budget", "stop", "strategy")}
    return kept | {"space": space | {"width": widths}, "targets": targets}


def _widths(text: str) -> list[int]:
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = []
    if len(found) < 2 or found[0] < 1:
        raise UsageError(f"given --widths {text}; allowed: two whole numbers at least, such as 32,64,128,256")
    return found


def _measured(given: dict[str, Any], steps: int, seeds: int) -> tuple[dict[str, Any], list[Coordinate]]:
    """What a process that may train measures; this one may not."""
    request = jsons.dumps({"spec": given, "steps": steps, "seeds": seeds})
    command = [sys.executable, "-m", "workers.check"]
    done = subprocess.run(command, input=request, capture_output=True, text=True, check=False)
    if done.returncode == WRONG:
        raise UsageError(done.stderr.strip())
    if done.returncode != 0:
        raise UsageError(f"the measurement broke: {(done.stderr.strip().splitlines() or ['killed'])[-1]}")
    answer = jsons.loads(done.stdout)
    return answer["spec"], [Coordinate(**row) for row in answer["coordinates"]]


def _shown(found: list[Slopes]) -> RenderableType:
    """Slopes by layer, the verdict in words."""
    names = ("layer", *(one.parametrisation for one in found))
    made = render.table(*names, right=names[1:])
    for layer in found[0].change:
        made.add_row(layer, *(f"{one.change[layer]:+.2f}" for one in found))
    rows = [
        (
            one.parametrisation,
            f"{'passes' if one.passes else 'fails'}: steepest {one.change[one.steepest]:+.2f}, "
            f"of {one.steepest}; allowed up to {THRESHOLD:g}",
        )
        for one in found
    ]
    return Group("slope of ln |change of output| by ln width", made, "", render.facts(rows))
