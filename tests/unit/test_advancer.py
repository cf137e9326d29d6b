"""When a sweep is looked at again."""

from __future__ import annotations

import math

import pytest

from store.service import Standing
from workers.advancer import Look

SEEN = Standing(revision=0, ended=10, in_hand=50)
LAST = Look(SEEN, math.inf, begun=100.0, took=1.0)


def standing(ended: int = 11, in_hand: int = 49, revision: int = 0) -> Standing:
    return Standing(revision, ended, in_hand)


@pytest.mark.parametrize(
    ("now", "moment", "due"),
    [
        (SEEN, 1e9, False),  # nothing has changed
        (standing(in_hand=3), 101.0, False),  # there is no slot to fill
        (standing(in_hand=2), 101.0, True),
        (standing(revision=1), 101.0, True),
        (standing(), 109.9, False),
        (standing(), 110.0, True),  # a tenth of the time
        (standing(ended=85, in_hand=140), 105.0, False),  # 15 runs a second: work for more than two looks
        (standing(ended=85, in_hand=29), 105.0, True),
    ],
)
def test_a_look_that_can_start_nothing_waits(now: Standing, moment: float, due: bool) -> None:
    assert LAST.due(now, 3, moment) is due


def test_a_look_that_wrote_nothing_or_failed_is_tried_again_in_its_time() -> None:
    for last in (Look(SEEN, 105.0, begun=100.0, took=1.0), Look(None, 105.0, 1)):
        assert not last.due(SEEN, 3, 104.9)
        assert last.due(SEEN, 3, 105.0)
