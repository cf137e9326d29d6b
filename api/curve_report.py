"""What fitted loss curves say: as one JSON document, in tables, and as a chart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from api import render
from sweeps.curves.forecast import Forecast, forecast
from sweeps.curves.running import RunForecast
from sweeps.curves.schedule import Curve, Steps, settled
from sweeps.curves.study import SLIGHT, Asked, Study, longest
from sweeps.plot import Chart, Mark
from sweeps.plot import Curve as Line

Document = dict[str, Any]

LINE = 64  # points of a forecast curve
SCORED = 2_000  # measured points that a forecast is held against
DOTS, MARKED, SHOWN = 400, 12, 4  # points of a run, marks of a forecast and forecasts on the chart
PICTURED = 0.9  # level of the chart's intervals


def document(found: Study, mapping: str, level: float) -> Document:
    """Everything the curves say."""
    return {
        "mapping": mapping,
        "level": level,
        "curves": [_curve(one) for one in found.curves],
        "laws": [
            {
                "law": fit.law.name,
                "weight": float(weight),
                "formula": fit.law.formula,
                "source": fit.law.source,
                "constants": fit.constants,
                "noise": asdict(fit.noise),
                "converged": fit.converged,
            }
            for fit, weight in zip(found.ensemble.fits, found.ensemble.weights, strict=True)
        ],
        "forecasts": [_forecast(one, found.curves, level) for one in found.asked],
        "warnings": [asdict(one) for one in found.warnings],
    }


def _curve(one: Curve) -> Document:
    return {
        "name": one.name,
        "run": one.run or one.name,
        "points": len(one.steps),
        "first": int(one.steps[0]),
        "last": int(one.steps[-1]),
        "steps": len(one.lr),
        "peak": float(one.lr.max()),
        "end": float(one.lr[-1]),
        "loss": float(one.loss[-1]),
    }


def _forecast(one: Asked, curves: Sequence[Curve], level: float) -> Document:
    last = len(one.lr) - 1
    start = min(max(one.start, int(np.argmax(one.lr > 0))), last)
    grid = [np.linspace(start, last, LINE // 2), np.geomspace(start + 1, last + 1, LINE // 2) - 1]
    steps = np.unique(np.concatenate(grid).round().astype(np.int64))
    found = forecast(one.ensemble, one.lr, steps, level=level)
    line = _columns(found)
    return {
        "name": one.name,
        "kind": one.kind,
        "steps": len(one.lr),
        "peak": float(one.lr.max()),
        "end": float(one.lr[-1]),
        "final": {key: column[-1] for key, column in line.items()},
        "extrapolation": float(one.lr.sum()) / longest(curves),
        "laws": {name: weight for name, weight in found.weights.items() if weight > 0},
        "curve": line,
        "measured": _scored(one, level) if len(one.steps) else None,
    }


def _columns(found: Forecast) -> dict[str, list[float]]:
    named = {
        "step": found.steps,
        "loss": found.loss,
        "low": found.point_low,
        "high": found.point_high,
        "mean_low": found.low,
        "mean_high": found.high,
    }
    return {name: column.tolist() for name, column in named.items()}


def _scored(one: Asked, level: float) -> Document | None:
    """A forecast beside what was measured once warm-up was over; evenly thinned where that is much."""
    usable = np.flatnonzero(one.steps >= settled(one.lr))
    if not len(usable):
        return None
    kept = usable[_spread(len(usable), SCORED)]
    steps, loss = one.steps[kept], one.loss[kept]
    found = forecast(one.ensemble, one.lr, steps, level=level)
    error = found.loss - loss
    worst = int(np.argmax(np.abs(error / loss)))
    return {
        "points": len(steps),
        "in_warmup": len(one.steps) - len(usable),
        "thinned": len(usable) - len(steps),
        "mae": float(np.mean(np.abs(error))),
        "mean_relative_error": float(np.mean(np.abs(error / loss))),
        "worst_relative_error": float(abs(error[worst] / loss[worst])),
        "worst_step": int(steps[worst]),
        "coverage": float(np.mean((found.point_low <= loss) & (loss <= found.point_high))),
        "last": {"step": int(steps[-1]), "measured": float(loss[-1]), "predicted": float(found.loss[-1])},
    }


def tables(found: Document) -> RenderableType:
    """A document for people."""
    made = render.table("curve", "points", "steps", "rate", "last loss", "", right=("points", "last loss"))
    for one in found["curves"]:
        rate = f"{render.number(one['peak'])} to {render.number(one['end'])}"
        state = "running" if one["last"] < one["steps"] - 1 else ""
        span = f"{one['first']} to {one['last']} of {one['steps']}"
        made.add_row(one["name"], str(one["points"]), span, rate, f"{one['loss']:.4f}", state)
    parts: list[RenderableType] = [made]
    for law in found["laws"]:
        if law["weight"] >= SLIGHT:
            parts += ["", Text(f"{law['law']} {law['weight']:.1%}: {law['formula']}", "bold")]
            parts.append(
                "  ".join(f"{key} {render.number(value)}" for key, value in law["constants"].items())
            )
    if found["forecasts"]:
        parts += ["", *_forecasts(found)]
    if found["warnings"]:
        rows = ((f"warning {w['code']}", Text(w["message"], "yellow")) for w in found["warnings"])
        parts += ["", render.facts(rows)]
    return Group(*parts)


def _forecasts(found: Document) -> Iterator[RenderableType]:
    made = render.table(
        "forecast", "kind", "last step", "loss", f"{100 * found['level']:.4g} % interval", "S1 ratio"
    )
    for one in found["forecasts"]:
        end = one["final"]
        ends = f"{_loss(end['low'])} to {_loss(end['high'])}"
        ratio = f"{one['extrapolation']:.3g}"
        made.add_row(one["name"], one["kind"], str(end["step"]), _loss(end["loss"]), ends, ratio)
    yield made
    held = [one for one in found["forecasts"] if one["measured"]]
    if held:
        made = render.table("held against", "points", "MAE", "mean error", "worst error", "at", "inside")
        for one in held:
            m = one["measured"]
            shares = (f"{m['mean_relative_error']:.3%}", f"{m['worst_relative_error']:.3%}")
            inside = f"{m['coverage']:.1%}"
            row = (f"{m['points']}", f"{m['mae']:.5f}", *shares, f"step {m['worst_step']}", inside)
            made.add_row(one["name"], *row)
        yield from ("", made)


def _loss(value: float) -> str:
    return f"{value:.4f}" if value < 1e4 else f"{value:.3g}"


def run_forecast(one: RunForecast) -> RenderableType:
    """The forecast of a run for people."""
    known = f", {one.last:.4f} measured at step {one.step}" if one.state != "finished" else ""
    rows: list[tuple[str, RenderableType]] = [
        (f"run {one.run_id}", f"{one.state}: {one.step} of {one.steps} steps{known}"),
        ("final loss", f"{one.loss:.4f}"),
        (
            f"{100 * one.level:.4g} % interval",
            f"{_loss(one.low)} to {_loss(one.high)} for the {one.metric} measured there",
        ),
        ("", f"{_loss(one.mean_low)} to {_loss(one.mean_high)} for the curve it scatters about"),
    ]
    if one.measured is not None:
        inside = "inside" if one.low <= one.measured <= one.high else "outside"
        rows.append(("measured", f"{one.measured:.4f}, {inside} the interval"))
    laws = ", ".join(f"{name} {weight:.0%}" for name, weight in one.laws.items())
    others = f" and runs {', '.join(map(str, one.companions))}" if one.companions else ""
    rows.append(("rests on", f"{one.points} points of its own{others}; {laws}"))
    rows += [(f"warning {w.code}", Text(w.message, "yellow")) for w in one.warnings]
    return render.facts(rows)


def chart(found: Study, title: str) -> Chart:
    """All measured points; the first forecast as a line with its band, each as marks with 90 % intervals."""
    kept = [_spread(len(c.steps), DOTS) for c in found.curves]
    pairs = list(zip(found.curves, kept, strict=True))
    x = np.concatenate([curve.steps[at] + 1.0 for curve, at in pairs])
    y = np.concatenate([curve.loss[at] for curve, at in pairs])
    marks: dict[str, list[Mark]] = {}
    for one in found.asked[:SHOWN]:
        marks[one.name] = list(_marks(one))
    line = None
    if found.asked:
        at = _forecast(found.asked[0], found.curves, PICTURED)["curve"]
        columns = (np.array(at[key]) for key in ("loss", "low", "high"))
        line = Line(np.array(at["step"]) + 1.0, *columns)
    return Chart(title, "step", (x, y), line, found.asked[0].name if found.asked else "", marks)


def _marks(one: Asked) -> Iterator[Mark]:
    """Where something was measured, evenly spread, and the end."""
    usable = np.flatnonzero(one.steps >= settled(one.lr))
    at = usable[_spread(len(usable), MARKED)]
    steps = np.unique(np.append(one.steps[at], len(one.lr) - 1))
    known = dict(zip(one.steps.tolist(), one.loss.tolist(), strict=True))
    found = forecast(one.ensemble, one.lr, steps, level=PICTURED)
    rows = zip(steps.tolist(), found.loss, found.point_low, found.point_high, strict=True)
    for step, loss, low, high in rows:
        yield Mark(step + 1.0, float(loss), float(low), float(high), known.get(step))


def _spread(count: int, most: int) -> Steps:
    """At most so many places among ``count``, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, max(count - 1, 0), min(most, count)).round().astype(np.int64))
