"""Specifications as they are stored."""

from __future__ import annotations

import json
from functools import lru_cache

from store.models import Json
from sweeps.spec import SweepSpec, parse

KEPT = 64  # that are not read again, which takes a millisecond each


def to_spec(stored: Json) -> SweepSpec:
    """The specification in a row."""
    return _read(json.dumps(stored))


@lru_cache(KEPT)
def _read(text: str) -> SweepSpec:
    return parse(json.loads(text), stored=True)
