"""``scalewise``, the command line."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from api import allocate, check, compare, curves, fits, ladder, render, replay, shapes
from api.arguments import UsageError, numbers, pairs, read_spec
from api.client import Client
from api.terminal import Json, Options, Sweep, print_json, show_found
from api.terminal import client as _client
from api.terminal import console as _console
from sweeps.errors import SweepError
from sweeps.runs import RunState, SweepState

app = typer.Typer(
    name="scalewise",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Source = Annotated[str, typer.Argument(help="A preset of conf/sweep, or a .yaml or .json file.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Changes to it, such as budget.runs=40.")]
At = Annotated[
    list[str] | None,
    typer.Argument(
        help="Axes as key=value, or target=NAME; the first target without.", metavar="[KEY=VALUE]..."
    ),
]


@app.callback()
def options(
    context: typer.Context,
    url: Annotated[
        str | None, typer.Option(help="Address of the service (SCALEWISE_URL, else http://127.0.0.1:8000).")
    ] = None,
    token: Annotated[str | None, typer.Option(help="Token of the service (SCALEWISE_TOKEN).")] = None,
) -> None:
    """Plans a big training run from many small ones.

    Start the service with `scalewise up`, submit a question with `scalewise submit`, follow it with
    `scalewise watch`, read the answer with `scalewise optimum`.
    """
    context.obj = Options(url, token)


@app.command()
def up(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings, such as api.port=8001 or cluster.slots=2.")
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Data folder (SCALEWISE_HOME, else .scalewise).")] = None,
) -> None:
    """Runs the service on this machine: API, orchestrator with a local Ray, MLflow. Ctrl-C ends all.

    Example: scalewise up --home data api.port=8001
    """
    from api import up as embedded

    console = _console()
    given = [*([embedded.home_override(home)] if home else []), *(overrides or [])]
    try:
        with (
            embedded.interruptible(),
            embedded.service(given, lambda line: console.print(line, soft_wrap=True)) as running,
        ):
            running.wait_until_ready()
            settings = running.settings
            rows = [("API", f"{running.url}/docs"), ("data", settings["home"])]
            if settings["tracking"]["uri"]:
                rows.insert(1, ("MLflow", settings["tracking"]["uri"]))
            console.print(render.facts([*rows, ("Ray", settings["cluster"]["address"] or "local")]))
            console.print("Ctrl-C ends the service.")
            while running.failed is None:
                time.sleep(0.5)
            raise embedded.UpError(running.failed)
    except KeyboardInterrupt:
        console.print("The service has ended.")
    except ValueError as error:
        raise UsageError(str(error)) from None


@app.command()
def demo(
    home: Annotated[Path, typer.Option(help="Data folder; the result is written beside it.")] = Path(
        "demo/.scalewise"
    ),
    preset: Annotated[str, typer.Option(help="Sweep to submit.")] = "gpt_stdlib",
    keep: Annotated[bool, typer.Option("--keep", help="Keep the service up afterwards.")] = False,
) -> None:
    """Runs the main job from end to end: predicts a large run from small ones, trains it, compares.

    Example: scalewise demo --keep
    """
    from api.demo import demo as run

    run(home, preset, keep, _console())


@app.command()
def submit(
    context: typer.Context,
    source: Source,
    overrides: Overrides = None,
    key: Annotated[str | None, typer.Option(help="Submitting twice with one key gives one sweep.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends.")] = False,
    json: Json = False,
) -> None:
    """Submits a sweep.

    Example: scalewise submit gpt_stdlib budget.runs=40
    """
    client = _client(context)
    sweep = client.submit(read_spec(source, overrides), key)
    if json:
        print_json(sweep)
    else:
        _console().print(
            f"sweep {sweep.id} is {sweep.state}: {render.counts(sweep)}\n"
            f"follow it with: scalewise watch {sweep.id}"
        )
        for warning in sweep.warnings:
            _console().print(f"warning: {warning}", style="yellow")
    if watch:
        _follow(client, sweep.id)


@app.command()
def plan(context: typer.Context, source: Source, overrides: Overrides = None, json: Json = False) -> None:
    """Says what a sweep would cost; nothing is started.

    Example: scalewise plan gpt_stdlib budget.flops=1e13
    """
    found = _client(context).plan(read_spec(source, overrides))
    show_found(found, json, lambda: render.plan(found))


@app.command("list")
def list_(
    context: typer.Context,
    state: Annotated[SweepState | None, typer.Option(help="Only these.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=500)] = 50,
    json: Json = False,
) -> None:
    """Lists sweeps, newest first.

    Example: scalewise list --state running
    """
    found = _client(context).sweeps(state, limit)
    show_found(found, json, lambda: render.sweeps(found))


@app.command()
def show(context: typer.Context, sweep: Sweep, json: Json = False) -> None:
    """Shows a sweep: its state, what it has spent, what it predicts.

    Example: scalewise show 1
    """
    client = _client(context)
    found = client.sweep(sweep)
    if json:
        print_json(found)
        return
    fits = client.fits(sweep)
    _console().print(render.sweep(found, fits[-1].predictions if fits else {}))


@app.command()
def watch(context: typer.Context, sweep: Sweep) -> None:
    """Follows a sweep live until it ends; one line per event where the output is no terminal.

    Example: scalewise watch 1
    """
    _follow(_client(context), sweep)


@app.command()
def runs(
    context: typer.Context,
    sweep: Sweep,
    state: Annotated[RunState | None, typer.Option(help="Only these.")] = None,
    json: Json = False,
) -> None:
    """Lists the runs of a sweep.

    Example: scalewise runs 1 --state diverged
    """
    client = _client(context)
    found = client.runs(sweep, state)
    show_found(found, json, lambda: render.runs(client.sweep(sweep).spec, found))


@app.command()
def decisions(context: typer.Context, sweep: Sweep, json: Json = False) -> None:
    """Lists why each run was chosen and how far it was expected to narrow the interval at the target.

    Example: scalewise decisions 1
    """
    found = _client(context).decisions(sweep)
    show_found(found, json, lambda: render.decisions(found))


@app.command()
def optimum(context: typer.Context, sweep: Sweep, at: At = None, json: Json = False) -> None:
    """Answers: the best settings at a configuration, the loss they reach, the best use of its compute.

    Example: scalewise optimum 1 width=256 depth=4 tokens=2e7
    """
    client = _client(context)
    found = client.optimum(sweep, pairs(at))
    show_found(found, json, lambda: render.optimum(client.sweep(sweep).spec, found))


@app.command()
def predict(context: typer.Context, sweep: Sweep, at: At = None, json: Json = False) -> None:
    """Predicts the loss at a configuration, with its interval.

    Example: scalewise predict 1 width=256 depth=4 tokens=2e7 lr=0.003
    """
    client = _client(context)
    found = client.predict(sweep, pairs(at))
    show_found(found, json, lambda: render.prediction(client.sweep(sweep).spec, found))


@app.command()
def frontier(
    context: typer.Context,
    sweep: Sweep,
    flops: Annotated[list[float], typer.Argument(help="Training FLOPs.")],
    json: Json = False,
) -> None:
    """Tells the compute-optimal parameters and tokens for amounts of compute.

    Example: scalewise frontier 1 1e12 1e13 1e14
    """
    found = _client(context).frontier(sweep, flops)
    show_found(found, json, lambda: render.frontier(found))


@app.command()
def verify(
    context: typer.Context,
    sweep: Sweep,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Axes to set instead of predicting them.", metavar="[KEY=VALUE]..."),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Name of the target; the first one without.")] = None,
    json: Json = False,
) -> None:
    """Trains a target with the predicted settings, to hold the prediction against.

    Example: scalewise verify 1 --target big
    """
    from api.live import wait

    client = _client(context)
    given = numbers(overrides)
    run = wait(client, client.verify(sweep, target, given).id, Console(stderr=True) if json else _console())
    show_found(run, json, lambda: render.runs(client.sweep(sweep).spec, [run]))
    if run.state != RunState.FINISHED:
        raise typer.Exit(1)


@app.command()
def pause(context: typer.Context, sweep: Sweep) -> None:
    """Starts no further run; those that train go on.

    Example: scalewise pause 1
    """
    _act(context, sweep, "pause")


@app.command()
def resume(context: typer.Context, sweep: Sweep) -> None:
    """Goes on after a pause.

    Example: scalewise resume 1
    """
    _act(context, sweep, "resume")


@app.command()
def cancel(context: typer.Context, sweep: Sweep) -> None:
    """Ends a sweep and its runs for good.

    Example: scalewise cancel 1
    """
    _act(context, sweep, "cancel")


@app.command()
def extend(
    context: typer.Context,
    sweep: Sweep,
    runs: Annotated[int | None, typer.Option(help="Runs in all.", min=1)] = None,
    flops: Annotated[float | None, typer.Option(help="Training FLOPs in all.")] = None,
    device_seconds: Annotated[float | None, typer.Option(help="Device seconds in all.")] = None,
    tolerance: Annotated[float | None, typer.Option(help="Relative half-width to stop at.")] = None,
) -> None:
    """Gives a sweep another budget or tolerance; a finished one goes on.

    Example: scalewise extend 1 --runs 60
    """
    limits = {"runs": runs, "flops": flops, "device_seconds": device_seconds}
    budget = {name: value for name, value in limits.items() if value is not None}
    change: dict[str, Any] = {"budget": budget} if budget else {}
    if tolerance is not None:
        change["tolerance"] = tolerance
    if not change:
        raise UsageError("nothing to change; give --runs, --flops, --device-seconds or --tolerance")
    found = _client(context).change(sweep, **change)
    _console().print(f"sweep {found.id} is {found.state}")


app.command("fit")(fits.fit)
app.command("import")(fits.import_)
app.command("curves")(curves.curves)
app.command("forecast")(curves.forecast)
app.command("compare")(compare.command)
app.command("allocate")(allocate.command)
app.command("shapes")(shapes.command)
app.command("ladder")(ladder.command)
app.add_typer(check.app, name="check")
app.command("replay")(replay.command)


def main() -> NoReturn:
    """Runs a command; a problem is one line (and one for each wrong field), not a traceback."""
    try:
        app()
    except SweepError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(0)


def _follow(client: Client, id: int) -> None:
    from api.live import watch as follow

    console = _console()
    try:
        sweep = follow(client, id, console)
    except KeyboardInterrupt:
        console.print(f"\nThe sweep goes on; follow it again with: scalewise watch {id}")
        raise
    console.print(f"sweep {sweep.id} is {sweep.state}: {sweep.reason}", soft_wrap=True)


def _act(context: typer.Context, id: int, action: str) -> None:
    sweep = _client(context).change(id, action=action)
    _console().print(f"sweep {sweep.id} is {sweep.state}")


if __name__ == "__main__":
    main()
