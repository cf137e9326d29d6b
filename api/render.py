"""Records as text and tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweeps.answers import Optimum, Prediction, Setting, Split
from sweeps.plan import Plan
from sweeps.runs import TERMINAL, Decision, Run, RunState, Sweep
from sweeps.spec import Config, SweepSpec

USUAL = {"mup": 0.0, "unique": 0.0, "fraction": 1.0, "kept": 1.0}  # standard, and all of the data
COLORS = {
    "queued": "bright_black",
    "running": "cyan",
    "paused": "yellow",
    "finished": "green",
    "diverged": "yellow",
    "failed": "red",
    "cancelled": "bright_black",
}


def number(value: float | None) -> str:
    """A number in a few characters: 12, 0.0032, 1.15e6."""
    if value is None or math.isnan(value):
        return "-"
    if 1e4 <= abs(value) < 1e5:
        return f"{value:.0f}"
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def duration(seconds: float | None) -> str:
    """Seconds for people: 48 s, 3 min 20 s, 2 h 5 min."""
    if seconds is None:
        return "unknown"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def config(spec: SweepSpec, values: Mapping[str, float]) -> str:
    """What varies about a configuration."""
    varied = [name for name, axis in spec.space.items() if len(axis.values) > 1 and name in values]
    return "  ".join(f"{name} {number(values[name])}" for name in varied)


def at(values: Config) -> str:
    """A configuration, without what is as it is nearly always."""
    shown = {name: value for name, value in values.items() if USUAL.get(name) != value}
    return "  ".join(f"{name} {number(value)}" for name, value in shown.items())


def interval(one: Prediction) -> str:
    """A predicted loss with its interval."""
    return f"{one.loss:.4f}  ({one.low:.4f} to {one.high:.4f}, +-{one.relative:.1%})"


def spent(sweep: Sweep) -> list[tuple[str, float, float, str]]:
    """Each limit of the budget: its name, what is spent, what is given, both in words."""
    used, budget = sweep.spent, sweep.spec.budget
    rows = [("runs", float(used.runs), float(budget.runs), f"{used.runs:.0f} of {budget.runs}")]
    if budget.flops is not None:
        text = f"{number(used.flops)} of {number(budget.flops)}"
        rows.append(("FLOPs", used.flops, budget.flops, text))
    if budget.device_seconds is not None:
        text = f"{used.device_seconds:.0f} of {budget.device_seconds:.0f}"
        rows.append(("device seconds", used.device_seconds, budget.device_seconds, text))
    return rows


def counts(sweep: Sweep) -> str:
    """How many runs are in which state."""
    return ", ".join(f"{count} {state}" for state, count in sweep.counts.items() if count) or "no runs"


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """An empty table in the house style."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    return made


def facts(rows: Iterable[tuple[str, RenderableType]]) -> Table:
    """Names with values, one a line."""
    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column()
    for row in rows:
        made.add_row(*row)
    return made


def state(name: str) -> Text:
    """A state in its color."""
    return Text(name, COLORS[name])


def sweeps(found: Sequence[Sweep]) -> Table:
    """A list of sweeps."""
    made = table("id", "state", "name", "runs", "FLOPs", "submitted", right=("id", "runs", "FLOPs"))
    for sweep in found:
        runs = f"{sum(sweep.counts[s] for s in TERMINAL)}/{sweep.spec.budget.runs}"
        submitted = f"{sweep.created_at.astimezone():%Y-%m-%d %H:%M}"
        made.add_row(
            str(sweep.id), state(sweep.state), sweep.name, runs, number(sweep.spent.flops), submitted
        )
    return made


def sweep(one: Sweep, predictions: Mapping[str, Prediction]) -> RenderableType:
    """One sweep with what it predicts."""
    status = state(one.state)
    if one.reason:
        status.append(f": {one.reason}", "default")
    rows: list[tuple[str, RenderableType]] = [(f"sweep {one.id}", one.name), ("state", status)]
    rows.append(("runs", counts(one)))
    rows += [(name, text) for name, _, _, text in spent(one)[1:]]
    for target in one.spec.targets:
        found = predictions.get(target.name)
        rows.append((f"target {target.name}", at(target.at)))
        rows.append(("", interval(found) if found else "no fit yet"))
    rows += [("warning", Text(text, "yellow")) for text in one.warnings]
    return facts(rows)


def runs(spec: SweepSpec, found: Sequence[Run]) -> RenderableType:
    """A list of runs, and why some of them ended as they did."""
    axes = [name for name, axis in spec.space.items() if len(axis.values) > 1]
    numbers = ("run", *axes, "FLOPs", "done", "seconds", "loss")
    made = table("run", "state", *axes, "FLOPs", "done", "seconds", "loss", "", right=numbers)
    for run in found:
        done = "100%" if run.state == RunState.FINISHED else f"{min(1.0, run.step / run.cost.steps):.0%}"
        made.add_row(
            str(run.id),
            state(run.state),
            *(number(run.config.get(name)) for name in axes),
            number(run.cost.flops),
            done,
            f"{run.seconds:.1f}",
            "-" if run.loss is None else f"{run.loss:.4f}",
            _remark(run),
        )
    reasons = [Text(f"run {run.id}: {run.reason}") for run in found if run.reason]
    return Group(made, "", *reasons) if reasons else made


def _remark(run: Run) -> str:
    if run.target is not None:
        return f"target {run.target}"
    return "" if run.branch is None else f"from run {run.branch.run_id}, step {run.branch.step}"


def decisions(found: Sequence[Decision]) -> Table:
    """Why runs were chosen; strategies that do not ask what a run will tell leave two columns empty."""
    made = table("run", "expected half-width", "of what was left", right=("run", "of what was left"))
    made.add_column("why")
    for one in found:
        told = one.expected
        narrowing = f"{told['half_width_before']:.2%} to {told['half_width_after']:.2%}" if told else "-"
        share = f"{told['budget_share']:.2%}" if told else "-"
        made.add_row(str(one.run_id), narrowing, share, one.reason)
    return made


def prediction(spec: SweepSpec, one: Prediction) -> RenderableType:
    """A prediction with what it rests on."""
    laws = ", ".join(f"{name} {weight:.0%}" for name, weight in one.laws.items())
    rows: list[tuple[str, RenderableType]] = [
        ("at", at(one.at)),
        ("loss", f"{one.loss:.4f} {spec.metric.unit or ''}".rstrip()),
        ("90 % interval", f"{one.low:.4f} to {one.high:.4f} for one run (+-{one.relative:.1%})"),
        ("", f"{one.mean_low:.4f} to {one.mean_high:.4f} for the mean over seeds"),
        *rate(spec, one),
        ("compute", f"{number(one.flops)} FLOPs, {number(one.params)} parameters"),
        ("distance", f"{one.extrapolation:.3g} times the compute of the largest run"),
        ("rests on", f"{len(one.runs)} runs; {laws}"),
    ]
    rows += [(f"warning {w.code}", Text(w.message, "yellow")) for w in one.warnings]
    return facts(rows)


def rate(spec: SweepSpec, one: Prediction) -> list[tuple[str, RenderableType]]:
    """Which rate ``lr`` is, where the one of a training is another."""
    if one.lr_used is None:
        return []
    batch = number(one.at["batch"])
    told = (
        f"{number(one.lr_used)} in training at batch {batch}; lr is that at batch {spec.trainer.base_batch}"
    )
    return [("rate used", told)]


def optimum(spec: SweepSpec, one: Optimum) -> RenderableType:
    """The best settings, the loss they reach and the best use of the compute."""
    made = table("setting", "best", "90 % interval", "plateau (loss within 0.25 %)", right=("best",))
    varied = {name: found for name, found in one.settings.items() if found.low is not None}
    for name, found in varied.items():
        made.add_row(name, number(found.value), _range(found.low, found.high), plateau(found))
    parts: list[RenderableType] = [prediction(spec, one.prediction)]
    if varied:
        parts += ["", made]
    if one.split is not None:
        parts += ["", Text("compute-optimal at the same FLOPs", "bold"), facts(split(one.split))]
    return Group(*parts)


def plateau(found: Setting) -> str:
    """Where a setting is as good as optimal."""
    return "-" if found.plateau is None else _range(*found.plateau)


def split(one: Split) -> list[tuple[str, RenderableType]]:
    """The best use of compute."""
    return [
        (
            "parameters",
            f"{number(one.params)}  (90 %: {_range(one.params_low, one.params_high)})",
        ),
        ("tokens", f"{number(one.tokens)}  (90 %: {_range(one.tokens_low, one.tokens_high)})"),
        ("shape", f"width {one.width}, depth {one.depth}"),
        ("loss", f"{one.loss:.4f}  ({one.low:.4f} to {one.high:.4f})"),
    ]


def frontier(found: Sequence[Split]) -> Table:
    """The compute-optimal split for amounts of compute."""
    columns = ("FLOPs", "parameters", "90 %", "tokens", "width", "depth", "loss", "interval")
    made = table(*columns, right=columns)
    for one in found:
        made.add_row(
            number(one.flops),
            number(one.params),
            _range(one.params_low, one.params_high),
            number(one.tokens),
            str(one.width),
            str(one.depth),
            f"{one.loss:.4f}",
            f"{one.low:.4f} to {one.high:.4f}",
        )
    return made


def plan(one: Plan) -> RenderableType:
    """What a sweep would cost."""
    seconds = duration(one.seconds)
    if one.seconds is not None and one.seconds_error is not None:
        seconds += f" on one device (+-{one.seconds_error:.0%})"
    if duration(one.seconds_together) != duration(one.seconds):
        seconds += f", {duration(one.seconds_together)} where runs of one shape train together"
    branches = f", {one.branches} of them from checkpoints of others" if one.branches else ""
    rows: list[tuple[str, RenderableType]] = [
        ("runs", f"{one.runs} of {one.candidates} candidates{branches}"),
        ("FLOPs", f"{number(one.flops)}  (a run: {number(one.cheapest)} to {number(one.dearest)})"),
        ("time", seconds),
        ("memory", f"{_size(one.memory)} for the largest run"),
    ]
    for target in one.targets:
        words = (
            f"{number(target.params)} parameters, {number(target.flops)} FLOPs "
            f"({target.extrapolation:.3g} times the dearest run)"
        )
        if target.seconds is not None:
            words += f", {duration(target.seconds)}"
        rows.append((f"target {target.name}", f"{words}, {_size(target.memory)}"))
    rows += [("warning", Text(text, "yellow")) for text in one.warnings]
    return facts(rows)


def _size(memory: float) -> str:
    """Of one's own code nobody counts it."""
    return size(memory) if memory > 0 else "unknown memory"


def _range(low: float | None, high: float | None) -> str:
    return f"{number(low)} to {number(high)}"
