"""When a sweep is looked at again."""

from __future__ import annotations

import math

import pytest

from store.service import Standing
from workers.advancer import Look

SEEN = Standing(revision=0, ended=10, queued=50)
LAST = Look(SEEN, math.inf, begun=100.0, took=1.0)


def standing(ended: int = 11, queued: int = 49, revision: int = 0) -> Standing:
    return Standing(revision, ended, queued)


@pytest.mark.parametrize(
    ("now", "moment", "due"),
    [
        (SEEN, 1e9, False),  # nothing has changed
        (standing(queued=8), 101.0, False),  # enough wait in line
        (standing(queued=2), 101.0, True),
        (standing(revision=1), 101.0, True),
        (standing(), 109.9, False),
        (standing(), 110.0, True),  # a tenth of the time
        (standing(ended=85, queued=140), 105.0, False),  # 15 runs a second: work for more than two looks
        (standing(ended=85, queued=29), 105.0, True),
    ],
)
def test_a_look_waits_while_enough_runs_do(now: Standing, moment: float, due: bool) -> None:
    assert LAST.due(now, 3, moment) is due


def test_a_look_that_wrote_nothing_or_failed_is_tried_again_in_its_time() -> None:
    for last in (Look(SEEN, 105.0, begun=100.0, took=1.0), Look(None, 105.0, 1)):
        assert not last.due(SEEN, 3, 104.9)
        assert last.due(SEEN, 3, 105.0)
