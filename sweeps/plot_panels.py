"""Lines over a budget, panel beside panel, as PNG and as interactive HTML: how strategies compare."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter
from plotly.subplots import make_subplots

from sweeps.laws.base import Array

COLORS = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#9d755d", "#bab0ac", "#eeca3b")


@dataclass(frozen=True)
class Line:
    """A figure over a budget.

    Args:
        name: whose it is.
        x, y: (n,) each.
        worst: (n,) that it reaches at its worst; None where it has none.
    """

    name: str
    x: Array
    y: Array
    worst: Array | None = None


@dataclass(frozen=True)
class Panel:
    """Lines with common axes; the horizontal one is logarithmic.

    Args:
        title: of the vertical axis.
        log: whether that is logarithmic.
        lines: each name has one colour in all panels.
    """

    title: str
    log: bool
    lines: tuple[Line, ...]


def panels_png(panels: Sequence[Panel], title: str, x: str) -> bytes:
    """The panels as PNG."""
    figure = Figure(figsize=(1.0 + 5.5 * len(panels), 5.0), layout="constrained")
    figure.suptitle(title)
    colors, ticks = _colors(panels), _ticks(panels)
    for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        for line in panel.lines:
            color = colors[line.name]
            axes.plot(line.x, line.y, color=color, marker="o", ms=4, label=line.name)
            if line.worst is not None:
                axes.plot(line.x, line.worst, color=color, lw=0.8, ls=":")
        axes.set(xscale="log", yscale="log" if panel.log else "linear", xlabel=x, ylabel=panel.title)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(ScalarFormatter())
        dotted = any(line.worst is not None for line in panel.lines)
        axes.legend(fontsize=8, title="mean; dotted: worst" if dotted else None, title_fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def panels_html(panels: Sequence[Panel], title: str, x: str) -> str:
    """The panels as one HTML page that needs no network."""
    figure = make_subplots(rows=1, cols=len(panels))
    colors, ticks = _colors(panels), _ticks(panels)
    told: set[str] = set()
    for col, panel in enumerate(panels, 1):
        for line in panel.lines:
            color, fresh = colors[line.name], line.name not in told
            told.add(line.name)
            same = {"x": line.x, "legendgroup": line.name}
            mean = {"mode": "lines+markers", "line": {"color": color}, "name": line.name, "showlegend": fresh}
            figure.add_trace(go.Scatter(y=line.y, **same, **mean), row=1, col=col)
            if line.worst is None:
                continue
            worst = {
                "mode": "lines",
                "line": {"color": color, "width": 1, "dash": "dot"},
                "showlegend": False,
            }
            figure.add_trace(
                go.Scatter(y=line.worst, name=f"{line.name}, worst", **same, **worst), row=1, col=col
            )
        figure.update_xaxes(title=x, type="log", tickvals=ticks, row=1, col=col)
        figure.update_yaxes(title=panel.title, type="log" if panel.log else "linear", row=1, col=col)
    figure.update_layout(title=title, template="plotly_white", height=550)
    return str(figure.to_html(include_plotlyjs=True, full_html=True))


def _ticks(panels: Sequence[Panel]) -> list[float]:
    return sorted({float(x) for panel in panels for line in panel.lines for x in line.x})


def _colors(panels: Sequence[Panel]) -> dict[str, str]:
    names = dict.fromkeys(line.name for panel in panels for line in panel.lines)
    return {name: COLORS[i % len(COLORS)] for i, name in enumerate(names)}
