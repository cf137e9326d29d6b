"""What the laws say: fits, decisions, predictions, and their verification."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

import sweeps.answers as answers
from api import questions
from api.deps import After, Id, Limit, Page, Store, page
from store import service
from store.service import FitHeader
from sweeps.answers import Optimum, Prediction, Split
from sweeps.ensemble import to_dict
from sweeps.runs import Decision, Run
from sweeps.shape_choice import Choice, choose_in_sweep

router = APIRouter(prefix="/v1", tags=["answers"])

MAX_AMOUNTS = 100
QUESTION: dict[str, Any] = {
    "parameters": [
        {
            "name": "at",
            "in": "query",
            "description": "Axes by name, such as `width=256&depth=4&tokens=2e7`, or `target=NAME`; "
            "the first target without. Learning rate and batch are best left to the prediction.",
            "style": "form",
            "explode": True,
            "schema": {"type": "object", "additionalProperties": {"type": "number"}},
            "example": {"width": 256, "depth": 4, "tokens": 2e7},
        }
    ]
}


@dataclass(frozen=True)
class Law:
    """One law of a fit.

    Args:
        weight: share in every answer.
        holdout: root mean square relative error on larger runs held out; None with too few runs.
        fit: parameters, their covariance, noise and diagnostics; bootstrap draws are left out.
    """

    weight: float
    holdout: float | None
    fit: dict[str, Any]


@dataclass(frozen=True)
class Fit:
    """A fit with its laws.

    Args:
        n_observations: finished runs it rests on.
        predictions: by target name.
        stop: why the scheduler then started nothing further, None when it went on.
    """

    id: int
    sweep_id: int
    n_observations: int
    predictions: dict[str, Prediction]
    stop: str | None
    created_at: datetime
    laws: list[Law]


class Verification(BaseModel):
    """A target to train with the predicted settings.

    Args:
        target: by name, the first one without.
        overrides: axes to set instead of predicting them.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"target": "big"}]})
    target: Annotated[str | None, Field(max_length=200)] = None
    overrides: Annotated[dict[str, float], Field(max_length=32)] = Field(default_factory=dict)


@router.get("/sweeps/{id}/fits")
def list_fits(id: Id, store: Store, after: After = None, limit: Limit = 100) -> Page[FitHeader]:
    """Fits of a sweep, oldest first, with their predictions at the targets."""
    service.get_sweep(store, id)
    return page(service.list_fits(store, id, after, limit + 1), limit, lambda header: header.id)


@router.get("/fits/{fit}")
def get_fit(fit: Id, store: Store) -> Fit:
    """A fit with the parameters of its laws, their uncertainty and diagnostics."""
    stored = service.get_fit(store, fit)
    laws = [
        Law(
            member["weight"],
            member["holdout"],
            {name: value for name, value in member["fit"].items() if name != "draws"},
        )
        for member in to_dict(stored.ensemble)["members"]
    ]
    return Fit(
        id=stored.id,
        sweep_id=stored.sweep_id,
        n_observations=stored.n_observations,
        predictions=stored.predictions,
        stop=stored.stop,
        created_at=stored.created_at,
        laws=laws,
    )


@router.get("/sweeps/{id}/decisions")
def list_decisions(id: Id, store: Store, after: After = None, limit: Limit = 100) -> Page[Decision]:
    """What the scheduler chose and why, oldest first."""
    service.get_sweep(store, id)
    found = service.list_decisions(store, id, after, limit + 1)
    return page(found, limit, lambda decision: decision.id)


@router.get("/sweeps/{id}/predict", openapi_extra=QUESTION)
def predict(id: Id, request: Request, store: Store) -> Prediction:
    """The loss at a configuration, with a 90 % interval; open settings are taken at their optimum."""
    sweep, ensemble = questions.fitted(store, id)
    at = questions.asked(sweep.spec, request.query_params.multi_items())
    return answers.predict(sweep.spec, ensemble, at, questions.diverged(store, id))


@router.get("/sweeps/{id}/optimum", openapi_extra=QUESTION)
def optimum(id: Id, request: Request, store: Store) -> Optimum:
    """The best settings at a configuration, with intervals and plateaus, and the best use of its compute."""
    sweep, ensemble = questions.fitted(store, id)
    at = questions.asked(sweep.spec, request.query_params.multi_items())
    return answers.optimum(sweep.spec, ensemble, at, questions.diverged(store, id))


@router.get("/sweeps/{id}/frontier")
def frontier(
    id: Id,
    store: Store,
    flops: Annotated[
        list[Annotated[float, Field(gt=0, allow_inf_nan=False)]],
        Query(min_length=1, max_length=MAX_AMOUNTS, description="training FLOPs; give it several times"),
    ],
) -> list[Split]:
    """The compute-optimal parameters and tokens for amounts of compute, and the loss they reach."""
    sweep, ensemble = questions.fitted(store, id)
    return answers.frontier(sweep.spec, ensemble, flops)


@router.get("/sweeps/{id}/shapes", openapi_extra=QUESTION)
def shapes(
    id: Id,
    request: Request,
    store: Store,
    factor: Annotated[float, Query(gt=0, le=1e4, allow_inf_nan=False, description="times the budget")],
    budget: Annotated[Literal["flops", "activations"], Query(description="what grows")] = "flops",
) -> list[Choice]:
    """Ways to scale the shape of a configuration, lowest predicted loss first, with the seconds they take."""
    sweep, ensemble = questions.fitted(store, id)
    given = request.query_params.multi_items()
    at = questions.asked(sweep.spec, [(n, value) for n, value in given if n not in ("factor", "budget")])
    known = service.durations(store, sweep.spec)
    how: dict[str, Any] = {"budget": budget, "seconds": None if known is None else known.alone}
    how["diverged"] = questions.diverged(store, id)
    return choose_in_sweep(sweep.spec, ensemble, at, factor, **how)


@router.post("/sweeps/{id}/verifications", status_code=202)
def verify(id: Id, given: Verification, response: Response, store: Store) -> Run:
    """Trains a target with the predicted settings, to hold the prediction against. Never used in a fit."""
    sweep, _ = questions.fitted(store, id)
    target = questions.find_target(sweep.spec, given.target)
    questions.check(sweep.spec, target.at | given.overrides)
    run = service.verify(store, id, target.name, given.overrides)
    response.headers["Location"] = f"/v1/runs/{run.id}"
    return run
