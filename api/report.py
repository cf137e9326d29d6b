"""What a fit to a table of runs says: as one JSON document, in tables, and as a chart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from api import render
from sweeps.errors import FitError
from sweeps.laws import LAWS
from sweeps.plot import Chart, Curve, Mark
from sweeps.study import Forecast, Study, predict
from sweeps.tables import Observed

Document = dict[str, Any]

AMOUNTS = 5  # of compute on the frontier
REACH = 10.0  # of the frontier beyond the largest run where no target is given
GRID = 24  # points of a line
SHOWN = 12  # rows of a test that are printed
SLIGHT = 0.005  # weight of a law below which its constants are not printed


def document(study: Study, target: Mapping[str, float] | None, test: Observed | None) -> Document:
    """Everything a fit says.

    Args:
        target: quantities asked about.
        test: runs held against it.
    """
    at = focus(study, target, test)
    allocations, reason = frontier(study, at)
    return {
        "rows": len(study.observed),
        "mapping": study.observed.mapping,
        "derived": dict(study.observed.derived),
        "scales": list(study.scales),
        "laws": list(_laws(study)),
        "predictions": [asdict(one) | {"at": dict(target)} for one in predict(study, target)]
        if target
        else [],
        "frontier": [asdict(one) for one in allocations],
        "no_frontier": reason,
        "settings_at": at if study.checklist["hyperparameters"] else {},
        "settings": {name: asdict(one) for name, one in study.settings(at).items()},
        "test": tested(study, test) if test is not None else None,
        "warnings": [asdict(one) for one in study.warnings] + list(_notes(test)),
        "checklist": study.checklist,
    }


def _notes(test: Observed | None) -> Iterator[Document]:
    for one in test.notes if test else ():
        yield {"code": one.code, "message": f"in the test: {one.message}"}


def focus(study: Study, target: Mapping[str, float] | None, test: Observed | None) -> dict[str, float]:
    """The scales that frontier and settings are told at: the target's, else the largest run's to be told."""
    names = study.scales
    if target:
        return {name: target[name] for name in names if name in target}
    columns = (test or study.observed).columns
    largest = int(np.argmax(columns["flops" if "flops" in columns else names[0]]))
    return {name: float(columns[name][largest]) for name in names if name in columns}


def frontier(study: Study, at: Mapping[str, float]) -> tuple[list[Any], str | None]:
    """The compute-optimal split for a few amounts of compute, or why there is none."""
    seen = study.observed.columns.get("flops")
    if seen is None:
        return [], "the table does not tell compute"
    top = REACH * float(seen.max())
    if {"params", "tokens"} <= set(at):
        factor = float(
            np.median(seen / (study.observed.columns["params"] * study.observed.columns["tokens"]))
        )
        top = factor * at["params"] * at["tokens"]
    low = float(np.exp(np.mean(np.log(seen))))
    try:
        return study.frontier([float(f"{c:.3g}") for c in np.geomspace(min(low, top), top, AMOUNTS)]), None
    except FitError as error:
        return [], str(error)


def tested(study: Study, test: Observed) -> Document:
    """Errors and coverage on runs that were not fitted, by row and in sum."""
    loss = test.columns["loss"]
    found = predict(study, {name: column for name, column in test.columns.items() if name != "loss"})
    rows = [
        {"row": row, "measured": float(value), **asdict(one)}
        | {"error": one.loss / float(value) - 1.0, "inside": bool(one.low <= value <= one.high)}
        for row, (one, value) in enumerate(zip(found, loss, strict=True), 1)
    ]
    return {"rows": rows, "summary": _summary(found, loss)}


def _summary(found: Sequence[Forecast], loss: np.ndarray[Any, np.dtype[np.float64]]) -> Document:
    predicted = np.array([one.loss for one in found])
    error = predicted / loss - 1.0
    spread = float(np.sum((loss - loss.mean()) ** 2))
    inside = [one.low <= value <= one.high for one, value in zip(found, loss, strict=True)]
    return {
        "rows": len(loss),
        "mean_relative_error": float(np.mean(np.abs(error))),
        "max_relative_error": float(np.max(np.abs(error))),
        "bias": float(np.mean(error)),
        "r2": 1.0 - float(np.sum((loss - predicted) ** 2)) / spread if spread > 0.0 else None,
        "coverage": float(np.mean(inside)),
    }


def _laws(study: Study) -> Iterator[Document]:
    """Every law once, with the constants of its likeliest fit, the weightiest first."""
    by_law: dict[str, list[Any]] = {}
    for member in study.members:
        by_law.setdefault(member.fit.law, []).append(member)
    for name, members in sorted(by_law.items(), key=lambda item: -sum(one.weight for one in item[1])):
        best = max(members, key=lambda one: one.weight).fit
        yield {
            "law": name,
            "weight": sum(one.weight for one in members),
            "holdout": members[0].holdout,
            "formula": LAWS[name].formula if name in LAWS else None,
            "source": LAWS[name].source if name in LAWS else None,
            "constants": {
                constant: {"value": value, "low": low, "high": high}
                for constant, (value, low, high) in best.constants.items()
            },
            "residual": best.residual,
            "noise": asdict(best.noise),
            "converged": best.converged,
            "basins": best.basins,
        }


def recount(
    study: Study, other: Study, target: Mapping[str, float] | None, test: Observed | None
) -> Document:
    """The same table under another count of parameters, and how far that moves the answers.

    The target is translated by the ratio of the two counts: between runs by interpolation over the size,
    beyond them by that of the nearest run.

    Args:
        study, other: fits under the first and under the other count.
        target, test: as in ``document``; the test has the other count already.
    """
    ours, theirs = study.observed.columns["params"], other.observed.columns["params"]
    order = np.argsort(ours, kind="stable")
    asked = dict(target) if target else None
    if asked and "params" in asked:
        logs = np.log(theirs / ours)[order]
        size = np.log(asked["params"])
        asked["params"] *= float(np.exp(np.interp(size, np.log(ours[order]), logs)))
        asked.pop("flops", None)
    found = document(other, asked, test)
    before, after = {one["law"]: one for one in _laws(study)}, {one["law"]: one for one in found["laws"]}
    moved: Document = {
        "constants": {
            law: {
                name: [value["value"], after[law]["constants"][name]["value"]]
                for name, value in one["constants"].items()
                if name in after[law]["constants"]
            }
            for law, one in before.items()
            if law in after
        },
        "loss": None,
    }
    if target:
        moved["loss"] = found["predictions"][0]["loss"] / predict(study, target)[0].loss - 1.0
    ratio = {"low": float(np.min(theirs / ours)), "high": float(np.max(theirs / ours))}
    return {"ratio": ratio, "moved": moved, **found}


def tables(found: Document, title: str) -> RenderableType:
    """A document for people."""
    derived = ", ".join(f"{name} = {how}" for name, how in found["derived"].items())
    rows: list[tuple[str, RenderableType]] = [("table", f"{title}: {found['rows']:,} runs")]
    rows.append(("mapping", found["mapping"] + (f"; {derived}" if derived else "")))
    parts: list[RenderableType] = [render.facts(rows), "", *_law_tables(found["laws"])]
    for one in found["predictions"]:
        parts += ["", Text("at the target", "bold"), render.facts(_forecast(one))]
    if found["frontier"]:
        parts += ["", Text("compute-optimal", "bold"), _frontier(found["frontier"])]
    elif found["no_frontier"]:
        parts += ["", Text(f"no compute-optimal split: {found['no_frontier']}", "bright_black")]
    if found["settings"]:
        parts += ["", Text(f"hyperparameters at {render.at(found['settings_at'])}", "bold"), _settings(found)]
    if found["test"]:
        parts += ["", Text("test", "bold"), *_test(found["test"])]
    if found.get("recount"):
        parts += ["", *_recount(found["recount"])]
    if found["warnings"]:
        parts += [
            "",
            render.facts((f"warning {w['code']}", Text(w["message"], "yellow")) for w in found["warnings"]),
        ]
    return Group(*parts)


def _law_tables(laws: Sequence[Document]) -> Iterator[RenderableType]:
    made = render.table(
        "law", "weight", "hold-out error", "residual", right=("weight", "hold-out error", "residual")
    )
    for one in laws:
        held = "-" if one["holdout"] is None else f"{one['holdout']:.2%}"
        made.add_row(one["law"], f"{one['weight']:.1%}", held, f"{one['residual']:.2%}")
    yield made
    for one in laws:
        if one["weight"] >= SLIGHT:
            constants = render.table("constant", "value", "90 % interval", right=("value",))
            for name, value in one["constants"].items():
                constants.add_row(name, render.number(value["value"]), _range(value))
            yield from ("", Text(f"{one['law']}: {one['formula'] or ''}", "bold"), constants)


def _forecast(one: Document) -> list[tuple[str, RenderableType]]:
    relative = (one["high"] - one["low"]) / (2.0 * one["loss"])
    rows: list[tuple[str, RenderableType]] = [
        ("at", render.at(one["at"])),
        ("loss", f"{one['loss']:.4f}"),
        ("90 % interval", f"{one['low']:.4f} to {one['high']:.4f} for a new run (+-{relative:.2%})"),
        ("", f"{one['mean_low']:.4f} to {one['mean_high']:.4f} for the mean"),
        ("distance", f"{one['extrapolation']:.3g} times the compute of the largest run"),
        ("by law", ", ".join(f"{law} {loss:.4f}" for law, loss in one["by_law"].items())),
    ]
    return rows + [(f"warning {w['code']}", Text(w["message"], "yellow")) for w in one["warnings"]]


def _frontier(rows: Sequence[Document]) -> RenderableType:
    columns = ("FLOPs", "parameters", "90 %", "tokens", "90 % ", "loss", "interval")
    made = render.table(*columns, right=columns)
    for one in rows:
        made.add_row(
            render.number(one["flops"]),
            render.number(one["params"]),
            _range(one, "params_low", "params_high"),
            render.number(one["tokens"]),
            _range(one, "tokens_low", "tokens_high"),
            f"{one['loss']:.4f}",
            f"{one['low']:.4f} to {one['high']:.4f}",
        )
    return made


def _settings(found: Document) -> RenderableType:
    made = render.table(
        "setting", "best", "90 % interval", "loss within 0.1 %", "within 0.25 %", right=("best",)
    )
    for name, one in found["settings"].items():
        flat, wide = ("{} to {}".format(*map(render.number, one[key])) for key in ("plateau", "wide_plateau"))
        made.add_row(name, render.number(one["value"]), _range(one), flat, wide)
    return made


def _test(test: Document) -> Iterator[RenderableType]:
    total = test["summary"]
    r2 = "-" if total["r2"] is None else f"{total['r2']:.4f}"
    yield render.facts(
        [
            ("rows", f"{total['rows']:,}"),
            (
                "relative error",
                f"{total['mean_relative_error']:.3%} in the mean, {total['max_relative_error']:.3%} at most",
            ),
            ("bias", f"{total['bias']:+.3%}"),
            ("R^2", r2),
            ("coverage", f"{total['coverage']:.1%} of the 90 % intervals hold the run"),
        ]
    )
    rows = sorted(test["rows"], key=lambda one: -abs(one["error"]))[:SHOWN]
    if len(rows) < len(test["rows"]):
        yield Text(f"the {SHOWN} worst; all are in --json", "bright_black")
    made = render.table(
        "row", "measured", "predicted", "90 %", "error", "", right=("row", "measured", "predicted", "error")
    )
    for one in sorted(rows, key=lambda one: int(one["row"])):
        inside = "inside" if one["inside"] else "outside"
        interval = f"{one['low']:.4f} to {one['high']:.4f}"
        made.add_row(
            str(one["row"]),
            f"{one['measured']:.4f}",
            f"{one['loss']:.4f}",
            interval,
            f"{one['error']:+.3%}",
            inside,
        )
    yield made


def _recount(found: Document) -> Iterator[RenderableType]:
    ratio = found["ratio"]
    words = f"{render.number(ratio['low'])} to {render.number(ratio['high'])} times the params above"
    yield Text(f"under the count {found['mapping']}", "bold")
    rows: list[tuple[str, RenderableType]] = [("count", words)]
    for one in found["predictions"]:
        rows.append(("loss", f"{one['loss']:.4f}  ({one['low']:.4f} to {one['high']:.4f})"))
        rows.append(("moved", f"{found['moved']['loss']:+.3%}, at {render.at(one['at'])}"))
    yield render.facts(rows)
    made = render.table("law", "constant", "was", "is", right=("was", "is"))
    weights = {one["law"]: one["weight"] for one in found["laws"]}
    for law, constants in found["moved"]["constants"].items():
        for name, (was, now) in constants.items():
            if weights[law] >= SLIGHT:
                made.add_row(law, name, render.number(was), render.number(now))
    yield made


def _range(one: Document, low: str = "low", high: str = "high") -> str:
    return f"{render.number(one[low])} to {render.number(one[high])}"


def chart(study: Study, found: Document, test: Observed | None, title: str) -> Chart:
    """The fit as a picture: the loss over compute, or over the main scale of a table without it."""
    columns = study.observed.columns
    scale = "flops" if "flops" in columns else study.scales[0]
    seen = columns[scale]
    marks: dict[str, list[Mark]] = {}
    if found["predictions"] and (scale == "flops" or scale in found["predictions"][0]["at"]):
        one = found["predictions"][0]
        x = one["extrapolation"] * study.ensemble.largest_flops if scale == "flops" else one["at"][scale]
        marks["target"] = [Mark(x, one["loss"], one["low"], one["high"])]
    if test is not None and scale in test.columns:
        rows = zip(found["test"]["rows"], test.columns[scale], strict=True)
        marks["test"] = [Mark(float(x), r["loss"], r["low"], r["high"], r["measured"]) for r, x in rows]
    ends = [*(one.x for group in marks.values() for one in group), float(seen.max()) * 2.0]
    grid = np.geomspace(float(seen.min()), max(ends), GRID)
    law, line = _line(study, scale, grid)
    name = "training FLOPs" if scale == "flops" else scale
    return Chart(title, name, (seen, columns["loss"]), law, line, marks)


def _line(study: Study, scale: str, grid: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[Curve | None, str]:
    """The compute-optimal loss, or the loss along the only scale."""
    if scale == "flops":
        try:
            best = study.frontier([float(one) for one in grid])
            loss, low, high = (np.array([getattr(one, k) for one in best]) for k in ("loss", "low", "high"))
            return Curve(grid, loss, low, high), "compute-optimal, 90 % for the mean"
        except FitError:
            pass
    if study.scales != (scale,):
        return None, ""
    along = predict(study, {scale: grid})
    loss, low, high = (
        np.array([getattr(one, k) for one in along]) for k in ("loss", "mean_low", "mean_high")
    )
    return Curve(grid, loss, low, high), "law, 90 % for the mean"
