"""What the benchmark of the demo's strategies reads from a sweep that is over."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from serving import finish, serve

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def live() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield import_module("live")


def test_half_widths_against_what_was_spent(live: ModuleType, tmp_path: Path) -> None:
    with serve(tmp_path) as served:
        sweep = served.client.sweep(finish(served))
        fits = served.client.fits(sweep.id)
        path = live.path(served.client, sweep)
    assert [half for _, half in path] == [fit.predictions["small"].relative for fit in fits]
    spent = [flops for flops, _ in path]
    assert spent == sorted(spent) and spent[-1] == pytest.approx(sweep.spent.flops)


def outcome(live: ModuleType, *path: tuple[float, float]) -> object:
    return live.Outcome("informative", 0, 8, 4.0, 1.0, list(path))


def test_flops_to_a_half_width(live: ModuleType) -> None:
    one = outcome(live, (1.0, 0.3), (2.0, 0.1), (3.0, 0.2), (4.0, 0.1), (5.0, 0.05))
    assert live.needed(one, 0.1) == (2.0, 4.0)
    assert live.needed(one, 0.3) == (1.0, 1.0)
    assert live.needed(one, 0.01) == (math.inf, math.inf)
    left = outcome(live, (1.0, 0.1), (2.0, 0.3))
    assert live.needed(left, 0.2) == (1.0, math.inf)


def test_half_width_by_the_time_so_much_was_spent(live: ModuleType) -> None:
    one = outcome(live, (1.0, 0.3), (2.0, 0.2), (2.0, 0.1))
    assert math.isnan(live.at(one, 0.5))
    assert (live.at(one, 1.5), live.at(one, 2.0)) == (0.3, 0.1)
