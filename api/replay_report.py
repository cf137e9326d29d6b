"""What a replay says: as one JSON document, in tables, and as a chart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from api import render
from sweeps.plot_panels import Line, Panel
from sweeps.replay import Task
from sweeps.replay_score import Score, Spread, Summary, Unanswered, equal, summarise

Document = dict[str, Any]
Columns = tuple[tuple[str, Callable[[Any], str], str], ...]  # head, how a figure is written, its key

REFERENCE = "informative"  # held against the others at equal error, where it takes part


def document(task: Task, scores: Sequence[Score | Unanswered], strategies: Sequence[str]) -> Document:
    """Everything a replay says."""
    summaries = summarise(scores)
    reference = REFERENCE if REFERENCE in strategies else strategies[0]
    observed = task.problem.observed
    return {
        "rows": len(observed),
        "mapping": observed.mapping,
        "derived": dict(observed.derived),
        "laws": [model.law.name for model in task.problem.models],
        "results": [asdict(one) for one in summaries],
        "equal": {"reference": reference, "needs": [asdict(one) for one in equal(summaries, reference)]},
        "replays": [asdict(one) for one in scores if isinstance(one, Score)],
        "unanswered": [asdict(one) for one in scores if isinstance(one, Unanswered)],
        "warnings": [asdict(one) for one in observed.notes],
    }


def tables(found: Document, title: str) -> RenderableType:
    """A document for people."""
    hidden = f", {_percent(found['leave_out'])} hidden in each repeat" if found["leave_out"] else ""
    rows: list[tuple[str, RenderableType]] = [
        ("table", f"{title}: {found['rows']:,} runs{hidden}"),
        ("mapping", found["mapping"]),
        ("cost", f"{found['cost']['expression']}, {render.number(found['cost']['total'])} in all"),
        ("asked", found["asked"]["words"]),
        ("laws", ", ".join(found["laws"])),
    ]
    parts: list[RenderableType] = [render.facts(rows)]
    if any(one[key] is not None for one in found["results"] for _, _, key in ANSWERS):
        parts += ["", Text("answers", "bold"), _results(found["results"], ANSWERS)]
    parts += ["", Text("intervals and compute", "bold"), _results(found["results"], COMPUTE)]
    if needs := found["equal"]["needs"]:
        parts += _equal(needs, found["equal"]["reference"])
    notes = [(f"warning {one['code']}", Text(one["message"], "yellow")) for one in found["warnings"]]
    notes += [
        ("no answer", Text(f"{strategy} at {share:.3g} of the cost: {reason}", "yellow"))
        for strategy, share, reason in dict.fromkeys(
            (one["strategy"], one["share"], one["reason"]) for one in found["unanswered"]
        )
    ]
    if notes:
        parts += ["", render.facts(notes)]
    return Group(*parts)


def _results(results: Sequence[Document], columns: Columns) -> RenderableType:
    """One line for each strategy and budget, without the figures that none of them has."""
    shown = [one for one in columns if any(line[one[2]] is not None for line in results)]
    names = ["strategy", "budget", *(name for name, _, _ in shown)]
    made = render.table(*names, right=names[1:])
    for line in results:
        cells = ["-" if line[key] is None else of(line[key]) for _, of, key in shown]
        made.add_row(line["strategy"], _percent(line["share"]), *cells)
    return made


def _percent(value: float) -> str:
    return f"{100.0 * value:.3g}%"


def _both(form: str) -> Callable[[Mapping[str, float]], str]:
    return lambda spread: f"{spread['mean']:{form}} ({spread['worst']:{form}})"


def _seconds(value: float) -> str:
    return f"{1e3 * value:.3g} ms" if value < 1.0 else f"{value:.3g} s"


ANSWERS: Columns = (
    ("R^2 (worst)", _both(".3f"), "r2"),
    ("error (worst)", _both(".2%"), "error"),
    ("regret % (worst)", _both(".3f"), "regret"),
)
COMPUTE: Columns = (
    ("+-", lambda spread: f"{spread['mean']:.2%}", "width"),
    ("in 90 %", lambda value: f"{value:.0%}", "coverage"),
    ("best in", lambda value: f"{value:.0%}", "best_held"),
    ("runs", lambda value: f"{value:.0f}", "runs"),
    ("spent", _percent, "spent"),
    ("decision", _seconds, "seconds"),
    ("refit", _seconds, "refit"),
)


def _equal(needs: Sequence[Document], reference: str) -> Iterator[RenderableType]:
    """Compute of each strategy for the reference's answer, over the reference's."""
    for measure in dict.fromkeys(one["measure"] for one in needs):
        of = [one for one in needs if one["measure"] == measure]
        shares = list(dict.fromkeys(one["share"] for one in of))
        yield ""
        yield Text(f"compute for the {measure} of {reference}, over what it spent", "bold")
        heads = [f"at {_percent(share)}" for share in shares]
        made = render.table("strategy", *heads, right=heads)
        for strategy in dict.fromkeys(one["strategy"] for one in of):
            cells = {one["share"]: _times(one) for one in of if one["strategy"] == strategy}
            made.add_row(strategy, *(cells.get(share, "-") for share in shares))
        yield made


def _times(one: Document) -> str:
    sign = {"least": "> ", "most": "<= ", None: ""}[one["bound"]]
    return f"{sign}{one['times']:.3g}"


def panels(summaries: Sequence[Summary]) -> list[Panel]:
    """The figures over the budget in per cent; intervals where there is no truth."""
    told = [
        Panel("R^2", False, _lines(summaries, lambda one: one.r2)),
        Panel("relative error (%)", True, _lines(summaries, lambda one: one.error, 100.0)),
        Panel("regret of rate and batch (%)", False, _lines(summaries, lambda one: one.regret)),
    ]
    if not told[1].lines:
        told.append(
            Panel("half of the 90 % interval (%)", True, _lines(summaries, lambda one: one.width, 100.0))
        )
    return [panel for panel in told if panel.lines]


def _lines(
    summaries: Sequence[Summary], of: Callable[[Summary], Spread | None], times: float = 1.0
) -> tuple[Line, ...]:
    found = []
    for strategy in dict.fromkeys(one.strategy for one in summaries):
        pairs = [(100.0 * one.share, of(one)) for one in summaries if one.strategy == strategy]
        known = [(x, times * y.mean, times * y.worst) for x, y in pairs if y is not None]
        if known:
            x, mean, worst = np.array(known).T
            found.append(Line(strategy, x, mean, worst))
    return tuple(found)
