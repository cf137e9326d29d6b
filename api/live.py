"""A sweep as it happens: a live view on a terminal, one line per event elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from api import render
from api.client import Client
from store.service import FitHeader
from sweeps.runs import TERMINAL, Decision, Event, Run, RunState, Sweep, SweepState

LOOK_SECONDS = 1.0
DECISIONS = 4
OVER = (SweepState.FINISHED, SweepState.CANCELLED)


@dataclass
class View:
    """What is known of a sweep while it is watched.

    ``ended`` and ``flops`` count the runs whose end was told, so that an old event is told as it was.
    """

    sweep: Sweep
    ended: int = 0
    flops: float = 0.0
    running: list[Run] = field(default_factory=list)
    fits: list[FitHeader] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def refresh(self, client: Client) -> None:
        """Reads what is new."""
        id = self.sweep.id
        self.fits += client.fits(id, self.fits[-1].id if self.fits else 0)
        last = self.decisions[-1].id if self.decisions else None
        self.decisions += client.decisions(id, last or 0)
        self.running = client.runs(id, RunState.RUNNING)
        self.sweep = client.sweep(id)


def watch(client: Client, id: int, console: Console) -> Sweep:
    """Shows a sweep until it is over.

    Returns:
        The sweep as it then stands.
    """
    view = View(client.sweep(id))
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4, transient=False) as live:
            while True:
                view.refresh(client)
                live.update(_panel(view), refresh=True)
                if view.sweep.state in OVER and not view.running:
                    return view.sweep
                time.sleep(LOOK_SECONDS)
    for event in client.events(id):
        line = _line(client, view, event)
        if line is not None:
            seconds = (event.at - view.sweep.created_at).total_seconds()
            say(console, f"[{seconds:7.1f} s] {line}")
    return client.sweep(id)


def wait(client: Client, id: int, console: Console) -> Run:
    """Shows the progress of one run until it ends."""
    run, shown = client.run(id), -1.0
    words = f"run {id}" + (f", target {run.target}" if run.target else "")
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4) as live:
            while True:
                run = client.run(id)
                live.update(_progress(words, run), refresh=True)
                if run.state in TERMINAL:
                    return run
                time.sleep(LOOK_SECONDS)
    while run.state not in TERMINAL:
        share = run.step / run.cost.steps
        if share - shown >= 0.1 or (shown < 0 <= share):
            shown = share
            loss = "" if run.loss is None else f", loss {run.loss:.4f}"
            say(console, f"{words} {run.state}: {run.step} of {run.cost.steps:.0f} steps{loss}")
        time.sleep(LOOK_SECONDS)
        run = client.run(id)
    return run


def say(console: Console, line: str) -> None:
    """A line as it is, however long."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _line(client: Client, view: View, event: Event) -> str | None:
    """An event in words; None for those that say nothing new."""
    data, kind = event.data, event.kind
    if kind == "run_queued":
        return None  # its decision says more
    if kind == "decision":
        return f"run {event.run_id} chosen: {data['reason']}"
    if kind == "fit":
        if not any(fit.id == data["fit_id"] for fit in view.fits):
            view.refresh(client)
        return _fit_line(view, [fit for fit in view.fits if fit.id <= int(str(data["fit_id"]))])
    if kind.startswith("run_"):
        return f"run {event.run_id} {_run_words(view, kind.removeprefix('run_'), data)}"
    reason = f": {data['reason']}" if data.get("reason") else ""
    return f"sweep {event.sweep_id} {kind.removeprefix('sweep_')}{reason}"


def _run_words(view: View, verb: str, data: dict[str, object]) -> str:
    settings, loss = data.get("config"), data.get("loss")
    if verb == "started":
        words = render.config(view.sweep.spec, settings) if isinstance(settings, dict) else ""
        return f"started   {words}"
    if verb in TERMINAL and isinstance(settings, dict):
        view.ended += 1
        view.flops += view.sweep.spec.cost(settings).flops
    words = f"{verb:<9} loss {loss:.4f}" if isinstance(loss, float) else verb
    return f"{words}, {data['reason']}" if data.get("reason") else words


def _fit_line(view: View, fits: list[FitHeader]) -> str:
    """The prediction after a fit, how it narrowed, and what it has cost so far."""
    parts = [_narrowed(fits, target.name) for target in view.sweep.spec.targets]
    budget = view.sweep.spec.budget
    spent = f"{view.ended} of {budget.runs} runs"
    if budget.flops is not None:
        spent += f", {render.number(view.flops)} of {render.number(budget.flops)} FLOPs"
    return f"fit on {fits[-1].n_observations} runs: {'; '.join(parts)} | spent {spent}"


def _narrowed(fits: list[FitHeader], target: str) -> str:
    first, last = fits[0].predictions[target], fits[-1].predictions[target]
    words = f"{target} {render.interval(last)}"
    if len(fits) > 1:
        words += f", first +-{first.relative:.1%}"
    return words


def _panel(view: View) -> RenderableType:
    sweep = view.sweep
    title = Text.assemble(
        (f"sweep {sweep.id} ", "bold"), sweep.name, "  ", render.state(sweep.state), f"  {sweep.reason or ''}"
    )
    budget = Table(box=None, pad_edge=False, show_header=False)
    for name, used, given, text in render.spent(sweep):
        budget.add_row(name, ProgressBar(total=given, completed=min(used, given), width=40), text)
    parts: list[RenderableType] = [title, Text(render.counts(sweep)), budget, ""]
    for target in sweep.spec.targets:
        parts.append(Text(_narrowed(view.fits, target.name) if view.fits else f"{target.name}  no fit yet"))
    parts.append("")
    for run in view.running:
        parts.append(_progress(f"run {run.id:>3}  {render.config(sweep.spec, run.config)}", run))
    parts.append("")
    for decision in view.decisions[-DECISIONS:]:
        parts.append(Text(f"run {decision.run_id} chosen: {decision.reason}", "bright_black"))
    return Group(*parts)


def _progress(words: str, run: Run) -> RenderableType:
    row = Table(box=None, pad_edge=False, show_header=False)
    loss = "" if run.loss is None else f"loss {run.loss:.4f}"
    done = run.cost.steps if run.state == RunState.FINISHED else min(float(run.step), run.cost.steps)
    row.add_row(words, ProgressBar(total=run.cost.steps, completed=done, width=20), str(run.state), loss)
    return row
