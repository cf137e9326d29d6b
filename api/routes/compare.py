"""Two sweeps compared: their losses at a target, where their curves cross, what one is worth in compute."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from api import questions
from api.deps import MAX_ID, Store
from store.db import Sessions
from sweeps.compare import Comparison, compare
from sweeps.errors import IllegalTransition, Problem, SpecError
from sweeps.paths import Recipe, of_sweep
from sweeps.runs import Sweep

router = APIRouter(prefix="/v1", tags=["answers"])

OWN = ("sweeps", "hours")
QUESTION: dict[str, Any] = {
    "parameters": [
        {
            "name": "at",
            "in": "query",
            "description": "Axes by name, such as `width=256&depth=4&tokens=2e7`, or `target=NAME` of the "
            "first sweep; its first target without. Learning rate and batch are best left open.",
            "style": "form",
            "explode": True,
            "schema": {"type": "object", "additionalProperties": {"type": "number"}},
            "example": {"width": 256, "depth": 4, "tokens": 2e7},
        }
    ]
}


@router.get("/compare", openapi_extra=QUESTION)
def compare_sweeps(
    request: Request,
    store: Store,
    sweeps: Annotated[str, Query(max_length=50, description="two of them: 1,2", examples=["1,2"])],
    hours: Annotated[
        str | None,
        Query(max_length=100, description="FLOPs an accelerator-hour of each", examples=["3e17,2e17"]),
    ] = None,
) -> Comparison:
    """Which of two sweeps is better at a configuration, by the latest fits; where they cross on the way.

    A ranking at one scale never comes alone: `compute` says how likely the curves cross over a range of
    FLOPs, each sweep at its compute-optimal split, and `hours` the same over accelerator-hours.
    """
    ids = _numbers("sweeps", sweeps, "two different sweeps, such as 1,2")
    if ids[0] == ids[1] or not all(1 <= id <= MAX_ID and id == int(id) for id in ids):
        raise SpecError([Problem("sweeps", repr(sweeps), "two different sweeps, such as 1,2")])
    rates = (
        None if hours is None else _numbers("hours", hours, "FLOPs an accelerator-hour of each: 3e17,2e17")
    )
    (one, first), (two, second) = _fitted(store, int(ids[0])), _fitted(store, int(ids[1]))
    if one.spec.metric != two.spec.metric:
        metrics = " and ".join(f"{s.spec.metric.name} in {s.spec.metric.unit}" for s in (one, two))
        raise SpecError([Problem("sweeps", f"{sweeps}, which measure {metrics}", "two of the same metric")])
    given = [pair for pair in request.query_params.multi_items() if pair[0] not in OWN]
    at = questions.check(two.spec, questions.asked(one.spec, given))
    return compare(first, second, at, hours=rates)


def _fitted(store: Sessions, id: int) -> tuple[Sweep, Recipe]:
    try:
        sweep, ensemble = questions.fitted(store, id)
    except IllegalTransition as error:
        raise IllegalTransition(f"sweep {id}: {error}") from None
    return sweep, of_sweep(sweep.spec, ensemble, f"sweep {id}")


def _numbers(name: str, text: str, allowed: str) -> tuple[float, float]:
    try:
        first, second = (float(part) for part in text.split(","))
    except ValueError:
        raise SpecError([Problem(name, repr(text), allowed)]) from None
    if not (0.0 < first < float("inf") and 0.0 < second < float("inf")):
        raise SpecError([Problem(name, repr(text), allowed)])
    return first, second
