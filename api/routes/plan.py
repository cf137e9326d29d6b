"""What a sweep would cost."""

from __future__ import annotations

from fastapi import APIRouter

import sweeps.plan
from api.deps import Store
from api.routes.sweeps import SpecBody
from store import service
from sweeps.plan import Plan

router = APIRouter(prefix="/v1", tags=["sweeps"])


@router.post("/plan")
def plan(spec: SpecBody, store: Store) -> Plan:
    """Runs, FLOPs, device seconds and memory of a sweep; nothing is started or stored.

    Seconds come from calibrations and past runs, and are null before there are any.
    """
    return sweeps.plan.plan(spec, service.seconds_model(store))
