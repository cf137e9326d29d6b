"""Sweeps: submit, list, look at, steer."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from api.deps import After, Id, Limit, Page, Store, page
from store import service
from sweeps.errors import Problem, SpecError
from sweeps.runs import Sweep, SweepState
from sweeps.spec import Budget, SweepSpec, parse

router = APIRouter(prefix="/v1/sweeps", tags=["sweeps"])

EXAMPLE: dict[str, Any] = {
    "name": "gpt on the standard library",
    "space": {
        "width": [8, 16, 32, 64],
        "depth": [1, 2, 4],
        "tokens": {"from": 1e5, "to": 1.6e6, "steps": 5, "scale": "log"},
        "lr": {"from": 1e-3, "to": 3.2e-2, "steps": 6, "scale": "log"},
        "batch": [8, 16, 32],
    },
    "targets": [{"name": "big", "at": {"width": 96, "depth": 4, "tokens": 1.15e6}}],
    "budget": {"runs": 40, "flops": 5e12},
    "stop": {"tolerance": 0.02},
}


def _parse(given: Any) -> SweepSpec:
    if not isinstance(given, dict):
        raise SpecError([Problem("body", type(given).__name__, "a JSON object, the specification")])
    return parse(given)


SpecBody = Annotated[
    SweepSpec, PlainValidator(_parse, json_schema_input_type=SweepSpec), Body(examples=[EXAMPLE])
]


class BudgetChange(BaseModel):
    """New limits; those left out stay as they are, null takes a limit away."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    runs: Annotated[int, Field(ge=1, le=100_000)] = 32
    flops: Annotated[float, Field(gt=0)] | None = None
    device_seconds: Annotated[float, Field(gt=0)] | None = None
    flops_per_run: Annotated[float, Field(gt=0)] | None = None


class Change(BaseModel):
    """What to change about a sweep."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={"examples": [{"action": "pause"}, {"budget": {"runs": 60}, "tolerance": 0.01}]},
    )
    action: Literal["pause", "resume", "cancel"] | None = None
    budget: BudgetChange | None = None
    tolerance: Annotated[float, Field(gt=0, lt=1)] | None = None


@router.post("", status_code=201, responses={200: {"model": Sweep, "description": "Submitted before"}})
def create_sweep(
    spec: SpecBody,
    response: Response,
    store: Store,
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=200,
            description="the same key with the same specification is the same sweep, however often sent",
        ),
    ] = None,
) -> Sweep:
    """Submits a sweep; its first runs are planned at once."""
    sweep, created = service.create_sweep(store, spec, key)
    response.status_code = 201 if created else 200
    response.headers["Location"] = f"/v1/sweeps/{sweep.id}"
    return sweep


@router.get("")
def list_sweeps(
    store: Store, after: After = None, limit: Limit = 50, state: Annotated[SweepState | None, Query()] = None
) -> Page[Sweep]:
    """Sweeps, newest first."""
    return page(service.list_sweeps(store, after, limit + 1, state), limit, lambda sweep: sweep.id)


@router.get("/{id}")
def get_sweep(id: Id, store: Store) -> Sweep:
    """A sweep: its state, its specification as it stands, what it has spent."""
    return service.get_sweep(store, id)


@router.patch("/{id}")
def change_sweep(id: Id, change: Change, store: Store) -> Sweep:
    """Pauses, resumes or cancels a sweep, or gives it other limits.

    A finished sweep that gets more budget or a tighter tolerance goes on.
    """
    if not change.model_fields_set:
        raise SpecError([Problem("body", "nothing", "action, budget or tolerance")])
    sweep = service.get_sweep(store, id)
    if change.budget is not None or change.tolerance is not None:
        sweep = service.extend(store, id, _budget(sweep, change.budget), change.tolerance)
    if change.action is not None:
        act = {"pause": service.pause, "resume": service.resume, "cancel": service.cancel}[change.action]
        sweep = act(store, id)
    return sweep


def _budget(sweep: Sweep, change: BudgetChange | None) -> Budget | None:
    if change is None:
        return None
    return replace(sweep.spec.budget, **change.model_dump(exclude_unset=True))
