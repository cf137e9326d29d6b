"""The picture of a sweep, as PNG and as interactive HTML: the law, the runs, the target, its verification."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from plotly.subplots import make_subplots

from sweeps.answers import Prediction, frontier, predict, view_of, with_best
from sweeps.ensemble import Ensemble
from sweeps.laws.base import Array
from sweeps.posterior import Quantiles
from sweeps.runs import Observation
from sweeps.spec import SweepSpec

matplotlib.use("Agg")

RUNS, LAW, TARGET, MEASURED = "#4c78a8", "#54606e", "#e45756", "#2ca02c"


@dataclass(frozen=True)
class Trace:
    """One finished run on the picture."""

    flops: float
    loss: float
    predicted: float
    lr: float
    text: str


@dataclass(frozen=True)
class Curve:
    """A line with a band over compute, each (n,)."""

    flops: Array
    middle: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Picture:
    """Everything that is drawn, in the sweep's units.

    Args:
        title: of the whole.
        unit: of the loss.
        runs: finished proxies.
        law: loss of the compute-optimal split; None where no law tells parameters from tokens.
        lr: optimal learning rate along it; None where the rate does not vary.
        targets: predictions.
        measured: loss of each verified target by the target's name.
        history: half-width of the first target's interval after each fit, relative: (runs, value).
    """

    title: str
    unit: str
    runs: list[Trace]
    law: Curve | None
    lr: Curve | None
    targets: dict[str, Prediction]
    measured: dict[str, float]
    history: list[tuple[int, float]]


def picture(
    spec: SweepSpec,
    ensemble: Ensemble,
    observations: Sequence[Observation],
    measured: dict[str, float] | None = None,
    history: Sequence[tuple[int, float]] = (),
) -> Picture:
    """Gathers what is drawn.

    Args:
        measured: loss of verified targets by name.
        history: (observations, relative half-width at the first target) of each fit so far.
    """
    view = view_of(spec, ensemble)
    targets = {target.name: predict(spec, ensemble, target.at) for target in spec.targets}
    runs = []
    for seen in observations:
        expected = view.mean_loss(view.columns(seen.config)).first().median
        text = "<br>".join(f"{name} {value:.4g}" for name, value in sorted(seen.config.items()))
        runs.append(Trace(seen.cost.flops, seen.loss, expected, seen.config["lr"], text))
    top = max([ensemble.largest_flops, *(p.flops for p in targets.values())]) * 2.0
    grid = np.geomspace(min(run.flops for run in runs), top, 24)
    law, lr = None, None
    if view.split(0.0) is not None:
        splits = frontier(spec, ensemble, [float(flops) for flops in grid])
        law = _curve(grid, [Quantiles(split.loss, split.low, split.high) for split in splits])
        axis = view.axis("lr")
        if axis is not None:
            best = [view.best_interval(view.columns(with_best(view, s.shape)), "lr").first() for s in splits]
            ends = [[float(axis.value(np.array(v))) for v in (q.median, q.low, q.high)] for q in best]
            lr = _curve(grid, [Quantiles(*end) for end in ends])
    return Picture(
        title=f"{spec.name}: {ensemble.n} runs",
        unit=spec.metric.unit or "",
        runs=runs,
        law=law,
        lr=lr,
        targets=targets,
        measured=dict(measured or {}),
        history=list(history),
    )


def _curve(grid: Array, values: Sequence[Quantiles]) -> Curve:
    middle, low, high = (np.array([getattr(v, name) for v in values]) for name in ("median", "low", "high"))
    return Curve(grid, middle, low, high)


def png(drawn: Picture) -> bytes:
    """The picture as PNG."""
    figure = Figure(figsize=(12, 8.5), layout="constrained")
    (loss, fit), (rate, narrowing) = figure.subplots(2, 2)
    figure.suptitle(drawn.title)
    flops = [run.flops for run in drawn.runs]
    loss.scatter(flops, [run.loss for run in drawn.runs], s=18, color=RUNS, label="runs", zorder=3)
    if drawn.law:
        loss.fill_between(drawn.law.flops, drawn.law.low, drawn.law.high, color=LAW, alpha=0.2, lw=0)
        loss.plot(drawn.law.flops, drawn.law.middle, color=LAW, label="compute-optimal, 90 %")
    for name, at in drawn.targets.items():
        bars = [[max(0.0, at.loss - at.low)], [max(0.0, at.high - at.loss)]]
        loss.errorbar(
            [at.flops], [at.loss], yerr=bars, color=TARGET, marker="o", capsize=4, label=f"{name}, 90 %"
        )
        if name in drawn.measured:
            value = drawn.measured[name]
            loss.scatter(
                [at.flops], [value], marker="*", s=160, color=MEASURED, zorder=5, label=f"{name} measured"
            )
            fit.scatter([at.loss], [value], marker="*", s=160, color=MEASURED, zorder=5)
    loss.set(
        xscale="log",
        yscale="log",
        xlabel="training FLOPs",
        ylabel=f"loss ({drawn.unit})",
        title="Law and runs",
    )
    loss.legend(fontsize=8)
    fit.scatter([run.predicted for run in drawn.runs], [run.loss for run in drawn.runs], s=18, color=RUNS)
    ends = [min(run.loss for run in drawn.runs), max(run.loss for run in drawn.runs)]
    fit.plot(ends, ends, color=LAW, lw=1)
    fit.set(xlabel=f"fitted ({drawn.unit})", ylabel=f"measured ({drawn.unit})", title="Fitted and measured")
    rate.scatter(flops, [run.lr for run in drawn.runs], s=18, color=RUNS)
    if drawn.lr:
        rate.fill_between(drawn.lr.flops, drawn.lr.low, drawn.lr.high, color=LAW, alpha=0.2, lw=0)
        rate.plot(drawn.lr.flops, drawn.lr.middle, color=LAW)
    rate.set(
        xscale="log",
        yscale="log",
        xlabel="training FLOPs",
        ylabel="learning rate",
        title="Optimal learning rate",
    )
    narrowing.plot(
        [n for n, _ in drawn.history], [100 * w for _, w in drawn.history], color=TARGET, marker="."
    )
    narrowing.set(
        xlabel="finished runs", ylabel="half-width (%)", title="Interval at the target", yscale="log"
    )
    _plain(loss)
    _plain(narrowing)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _plain(axes: Axes) -> None:
    """Numbers as they are on a logarithmic axis that spans less than a few decades."""
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter())


def html(drawn: Picture) -> str:
    """The picture as one HTML page that needs no network."""
    titles = ("Law and runs", "Fitted and measured", "Optimal learning rate", "Interval at the target")
    figure = make_subplots(rows=2, cols=2, subplot_titles=titles)
    flops, text = [run.flops for run in drawn.runs], [run.text for run in drawn.runs]

    def add(row: int, col: int, **what: object) -> None:
        figure.add_trace(go.Scatter(**what), row=row, col=col)

    def band(row: int, col: int, curve: Curve, name: str) -> None:
        around = {
            "x": np.concatenate([curve.flops, curve.flops[::-1]]),
            "y": np.concatenate([curve.high, curve.low[::-1]]),
        }
        add(
            row,
            col,
            **around,
            fill="toself",
            line={"width": 0},
            fillcolor="rgba(84,96,110,.2)",
            showlegend=False,
        )
        add(row, col, x=curve.flops, y=curve.middle, mode="lines", line={"color": LAW}, name=name)

    if drawn.law:
        band(1, 1, drawn.law, "compute-optimal, 90 %")
    dots = {"mode": "markers", "marker": {"color": RUNS}, "text": text, "name": "runs"}
    add(1, 1, x=flops, y=[run.loss for run in drawn.runs], **dots)
    add(
        1,
        2,
        x=[run.predicted for run in drawn.runs],
        y=[run.loss for run in drawn.runs],
        **dots,
        showlegend=False,
    )
    for name, at in drawn.targets.items():
        bars = {"type": "data", "array": [at.high - at.loss], "arrayminus": [at.loss - at.low]}
        add(
            1,
            1,
            x=[at.flops],
            y=[at.loss],
            error_y=bars,
            mode="markers",
            marker={"color": TARGET},
            name=f"{name}, 90 %",
        )
        if name in drawn.measured:
            star = {
                "mode": "markers",
                "marker": {"color": MEASURED, "symbol": "star", "size": 14},
                "name": f"{name} measured",
            }
            add(1, 1, x=[at.flops], y=[drawn.measured[name]], **star)
            add(1, 2, x=[at.loss], y=[drawn.measured[name]], **star, showlegend=False)
    if drawn.lr:
        band(2, 1, drawn.lr, "optimal learning rate, 90 %")
    add(2, 1, x=flops, y=[run.lr for run in drawn.runs], **dots, showlegend=False)
    steps, widths = [n for n, _ in drawn.history], [100 * w for _, w in drawn.history]
    add(2, 2, x=steps, y=widths, mode="lines+markers", line={"color": TARGET}, showlegend=False)
    for row, col, x, y in (
        (1, 1, "training FLOPs", f"loss ({drawn.unit})"),
        (1, 2, f"fitted ({drawn.unit})", f"measured ({drawn.unit})"),
        (2, 1, "training FLOPs", "learning rate"),
        (2, 2, "finished runs", "half-width (%)"),
    ):
        figure.update_xaxes(title=x, type="log" if x == "training FLOPs" else "linear", row=row, col=col)
        figure.update_yaxes(title=y, type="linear" if (row, col) == (1, 2) else "log", row=row, col=col)
    figure.update_layout(title=drawn.title, template="plotly_white", height=900)
    return str(figure.to_html(include_plotlyjs=True, full_html=True))


@dataclass(frozen=True)
class Mark:
    """A prediction on the chart of a table, and what was measured there, None where nothing was."""

    x: float
    loss: float
    low: float
    high: float
    measured: float | None = None


@dataclass(frozen=True)
class Chart:
    """A fit to a table of runs.

    Args:
        title: of the whole.
        scale: name of the horizontal axis.
        runs: scale and loss of what was fitted, (n,) each.
        law: loss along the scale with its band; None where no line says it.
        line: what the line is.
        marks: predictions by what they are of, such as ``target`` and ``test``.
    """

    title: str
    scale: str
    runs: tuple[Array, Array]
    law: Curve | None
    line: str
    marks: dict[str, list[Mark]]


MARKS = ("#e45756", "#f58518", "#72b7b2", "#b279a2")


def chart_png(drawn: Chart) -> bytes:
    """The chart as PNG."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    axes.scatter(*drawn.runs, s=14, color=RUNS, alpha=0.7, label="runs", zorder=2)
    if drawn.law:
        axes.fill_between(drawn.law.flops, drawn.law.low, drawn.law.high, color=LAW, alpha=0.2, lw=0)
        axes.plot(drawn.law.flops, drawn.law.middle, color=LAW, label=drawn.line)
    for color, (name, marks) in zip(MARKS, drawn.marks.items(), strict=False):
        x, y = [one.x for one in marks], [one.loss for one in marks]
        bars = [[one.loss - one.low for one in marks], [one.high - one.loss for one in marks]]
        label = f"{name}: predicted, 90 %"
        axes.errorbar(x, y, yerr=bars, color=color, fmt="o", ms=4, capsize=3, label=label, zorder=3)
        seen = [(one.x, one.measured) for one in marks if one.measured is not None]
        if seen:
            x, y = [at for at, _ in seen], [value for _, value in seen]
            axes.scatter(x, y, marker="*", s=60, color=MEASURED, label=name, zorder=4)
    axes.set(xscale="log", yscale="log", xlabel=drawn.scale, ylabel="loss", title=drawn.title)
    _plain(axes)
    axes.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def chart_html(drawn: Chart) -> str:
    """The chart as one HTML page that needs no network."""
    figure = go.Figure()

    def add(**what: object) -> None:
        figure.add_trace(go.Scatter(**what))

    if drawn.law:
        around = np.concatenate([drawn.law.flops, drawn.law.flops[::-1]])
        band = np.concatenate([drawn.law.high, drawn.law.low[::-1]])
        fill = {"fill": "toself", "fillcolor": "rgba(84,96,110,.2)", "line": {"width": 0}}
        add(x=around, y=band, showlegend=False, hoverinfo="skip", **fill)
        add(x=drawn.law.flops, y=drawn.law.middle, mode="lines", line={"color": LAW}, name=drawn.line)
    add(x=drawn.runs[0], y=drawn.runs[1], mode="markers", marker={"color": RUNS}, name="runs")
    for color, (name, marks) in zip(MARKS, drawn.marks.items(), strict=False):
        x = [one.x for one in marks]
        bars = {
            "type": "data",
            "array": [one.high - one.loss for one in marks],
            "arrayminus": [one.loss - one.low for one in marks],
        }
        what = {"mode": "markers", "marker": {"color": color}, "name": f"{name}: predicted, 90 %"}
        add(x=x, y=[one.loss for one in marks], error_y=bars, **what)
        if any(one.measured is not None for one in marks):
            star = {"color": MEASURED, "symbol": "star", "size": 10}
            add(x=x, y=[one.measured for one in marks], mode="markers", marker=star, name=name)
    figure.update_xaxes(title=drawn.scale, type="log")
    figure.update_yaxes(title="loss", type="log")
    figure.update_layout(title=drawn.title, template="plotly_white", height=650)
    return str(figure.to_html(include_plotlyjs=True, full_html=True))
