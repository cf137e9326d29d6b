"""What a sweep, or a fixed ladder over its space, would cost."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body

import sweeps.plan
from api.deps import Store
from api.routes.sweeps import SpecBody
from store import service
from sweeps.ladder import Ladder, LadderPlan, plan_ladder
from sweeps.plan import Plan

router = APIRouter(prefix="/v1", tags=["sweeps"])


@router.post("/plan")
def plan(spec: SpecBody, store: Store) -> Plan:
    """Runs, FLOPs, device seconds and memory of a sweep; nothing is started or stored.

    Seconds come from calibrations and past runs, each run as if it trained alone, and are null before there
    are any.
    """
    return sweeps.plan.plan(spec, service.durations(store, spec))


@router.post("/ladder")
def ladder(
    spec: SpecBody,
    store: Store,
    ladder: Annotated[Ladder, Body(examples=[{"kind": "multiples", "tokens_per_param": [5, 10, 20]}])],
) -> LadderPlan:
    """Rungs, cost and expected intervals of a fixed ladder; nothing is started or stored.

    Beside it stands what the strategy `informative` would spend for intervals as narrow.
    """
    known = service.durations(store, spec)
    return plan_ladder(spec, ladder, None if known is None else known.alone)
