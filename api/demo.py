"""The main job from end to end: predict a large run from small ones, then train it and compare."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

import conf
from api import render
from api.client import Client, connect
from api.live import say, wait, watch
from api.up import Service, UpError, free_port, home_override, interruptible, port_is_free, service
from store.service import FitHeader
from sweeps.answers import Optimum
from sweeps.errors import SweepError
from sweeps.plan import Plan
from sweeps.runs import Role, Run, RunState, Sweep, SweepState

API_PORT, MLFLOW_PORT = 8000, 5000
CALIBRATION_SECONDS = 20.0  # longest wait for it; a plan without seconds is shown after that


class DemoError(SweepError):
    """The demo did not come to its end."""


def demo(home: Path, preset: str, keep: bool, console: Console) -> None:
    """Runs the main job on a service of its own, and leaves its result and pictures beside the home folder.

    Args:
        home: data folder of the service; what an earlier demo left there is thrown away.
        preset: sweep to submit.
        keep: the service stays up until Ctrl-C.

    Raises:
        DemoError: the sweep did not finish or the target could not be trained.
    """
    begun, ports = time.monotonic(), free_ports()
    with served(home, ports, console) as (running, client):
        spec = conf.sweep(preset)
        console.rule("plan")
        console.print(render.plan(planned(client, spec)))
        sweep = client.submit(spec)
        console.rule(f"sweep {sweep.id}: {sweep.name}")
        sweep = watch(client, sweep.id, console)
        if sweep.state != SweepState.FINISHED:
            raise DemoError(f"the sweep is {sweep.state}: {sweep.reason}")
        target = sweep.spec.targets[0].name
        best = client.optimum(sweep.id, {"target": target})
        console.rule(f"answer for {target}")
        console.print(render.optimum(sweep.spec, best))
        console.rule(f"verification: {target} is trained with these settings")
        run, measured = verified(client, sweep, console)
        seconds = time.monotonic() - begun
        _save(client, sweep, _result(client, sweep, best, run, measured, seconds), home.parent)
        _compare(console, best, measured, seconds)
        _what_next(console, running, home, ports)
        if keep:
            say(console, "\nThe service stays up until Ctrl-C.")
            _stay(running)


@contextmanager
def served(home: Path, ports: Sequence[str], console: Console) -> Iterator[tuple[Service, Client]]:
    """A service on a folder without what was there before, ready to answer, and a client of it."""
    overrides = [home_override(home), *ports]
    with interruptible(), service(overrides, lambda line: say(console, line), fresh=True) as running:
        running.wait_until_ready()
        client = connect(running.url, running.settings["api"]["token"])
        with client.http:
            yield running, client


def verified(client: Client, sweep: Sweep, console: Console) -> tuple[Run, float]:
    """Trains the first target with the predicted settings.

    Returns:
        The run and its loss.

    Raises:
        DemoError: it did not finish.
    """
    run = wait(client, client.verify(sweep.id, sweep.spec.targets[0].name).id, console)
    if run.state != RunState.FINISHED or run.loss is None:
        raise DemoError(f"the target's run {run.id} is {run.state}: {run.reason}")
    return run, run.loss


def planned(client: Client, spec: dict[str, Any]) -> Plan:
    """The plan, once the orchestrator has timed this machine."""
    end = time.monotonic() + CALIBRATION_SECONDS
    plan = client.plan(spec)
    while plan.seconds is None and time.monotonic() < end:
        time.sleep(0.5)
        plan = client.plan(spec)
    return plan


def free_ports() -> list[str]:
    """Settings of other ports where the usual ones are taken."""
    found = []
    if not port_is_free(API_PORT):
        found.append(f"api.port={free_port()}")
    if not port_is_free(MLFLOW_PORT):
        found.append(f"tracking.uri=http://127.0.0.1:{free_port()}")
    return found


def _result(
    client: Client, sweep: Sweep, best: Optimum, run: Run, measured: float, seconds: float
) -> dict[str, Any]:
    """What ``result.json`` holds."""
    target = sweep.spec.targets[0]
    one, fits = best.prediction, client.fits(sweep.id)
    first, last = _first(client, sweep, fits).predictions[target.name], fits[-1].predictions[target.name]
    return {
        "runs": int(sweep.spent.runs),
        "seconds": round(seconds, 1),
        "flops": sweep.spent.flops,
        "predicted": one.loss,
        "low": one.low,
        "high": one.high,
        "measured": measured,
        "inside": one.low <= measured <= one.high,
        "interval_first": first.high - first.low,
        "interval_last": last.high - last.low,
        "lr": one.at["lr"],
        "batch": int(one.at["batch"]),
        "target": dict(target.at),
        "relative_error": abs(one.loss / measured - 1.0),
        "extrapolation": one.extrapolation,
        "diverged": sweep.counts[RunState.DIVERGED],
        "fits": len(fits),
        "target_seconds": run.seconds,
    }


def _first(client: Client, sweep: Sweep, fits: list[FitHeader]) -> FitHeader:
    """The first fit that rests on every run of the first batch that has a result."""
    batch = client.runs(sweep.id, role=Role.PROXY)[: sweep.spec.strategy.first_batch]
    needed = {run.id for run in batch if run.state == RunState.FINISHED}
    target = sweep.spec.targets[0].name
    return next(fit for fit in fits if needed <= set(fit.predictions[target].runs))


def _save(client: Client, sweep: Sweep, result: dict[str, Any], folder: Path) -> None:
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    for kind in ("png", "html"):
        (folder / f"law.{kind}").write_bytes(client.picture(sweep.id, kind))


def _compare(console: Console, best: Optimum, measured: float, seconds: float) -> None:
    one = best.prediction
    inside = one.low <= measured <= one.high
    console.print(
        render.facts(
            [
                ("predicted", f"{one.loss:.4f}  ({one.low:.4f} to {one.high:.4f})"),
                ("measured", f"{measured:.4f}  ({measured / one.loss - 1.0:+.2%})"),
                ("", Text("inside the interval", "green") if inside else Text("OUTSIDE the interval", "red")),
                ("took", render.duration(seconds)),
            ]
        )
    )


def _what_next(console: Console, running: Service, home: Path, ports: list[str]) -> None:
    folder = home.parent
    say(console, f"\n{folder}/result.json, law.png and law.html hold the result.")
    say(console, "To look at the runs in MLflow and to ask further questions, keep the service up with")
    say(console, f"  scalewise up {' '.join(['--home', str(home), *ports])}")
    say(console, f"then open {running.settings['tracking']['uri']} and {running.url}/docs")


def _stay(running: Service) -> None:
    """Until Ctrl-C, or until a process cannot be kept up."""
    try:
        while running.failed is None:
            time.sleep(0.5)
    except KeyboardInterrupt:
        return
    raise UpError(running.failed)
