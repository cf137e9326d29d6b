"""The picture of a sweep, as PNG and as interactive HTML: the law, the runs, the target, its verification."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from sweeps.ensemble import Ensemble
from sweeps.laws.base import Array
from sweeps.posterior import Quantiles, posterior
from sweeps.predict import Prediction, frontier, predict, with_best
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
    view = posterior(spec, ensemble)
    targets = {target.name: predict(spec, ensemble, target.at) for target in spec.targets}
    runs = []
    for seen in observations:
        expected = view.mean_loss(view.columns(seen.config)).median
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
            shapes = [{"width": s.width, "depth": s.depth, "tokens": max(1.0, s.tokens)} for s in splits]
            best = [view.best_interval(view.columns(with_best(view, shape)), "lr") for shape in shapes]
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
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


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
