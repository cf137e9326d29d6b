"""Spaces too large to compare candidate by candidate: screened, sampled, refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from synthetic import World

from sweeps import scheduler
from sweeps.bounds import ENUMERATED, SAMPLED, configurations
from sweeps.choice import Situation
from sweeps.cost import SecondsModel
from sweeps.errors import SpecError
from sweeps.model import frame
from sweeps.plan import plan
from sweeps.prices import Prices
from sweeps.ruled_out import RuledOut
from sweeps.runs import Observation, Spent
from sweeps.scheduler import Look, decide, step
from sweeps.screen import BEST, CHEAPEST, EVEN, Outlook, screen
from sweeps.space import BLOCK, at_places, blocks, candidates, cover, places_of
from sweeps.spec import SweepSpec, parse
from sweeps.stacks import Durations

SPACE: dict[str, Any] = {
    "width": [8, 16, 24, 32, 48, 64],
    "depth": [1, 2, 4, 8],
    "tokens": {"from": 1e5, "to": 1e7, "steps": 10},
    "lr": [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2, 0.1],
    "batch": [8, 12, 16, 24, 32, 40, 48, 64],
}
MILLION = SPACE | {
    "width": [8 * i for i in range(1, 11)],
    "depth": [*range(1, 11)],
    "tokens": {"from": 1e5, "to": 1e7, "steps": 20},
    "lr": [float(f"{lr:.4g}") for lr in np.geomspace(1e-3, 0.1, 50)],
    "batch": [*range(8, 18)],
}
BILLIONS = MILLION | {
    "lr": {"from": 1e-3, "to": 0.1, "steps": 100},
    "batch": [*range(8, 72)],
    "weight_decay": {"from": 0.01, "to": 0.5, "steps": 40},
}


ONE_LAW = {"names": ["chinchilla"]}  # where how many are compared matters, not by how many laws


def spec(space: dict[str, Any], **changes: Any) -> SweepSpec:
    raw = {
        "name": "large",
        "space": space,
        "targets": [{"name": "big", "at": {"width": 256, "depth": 16, "tokens": 1e9}}],
        "budget": {"runs": 64, "flops": 1e14},
    }
    return parse(raw | changes)


def look(asked: SweepSpec, n: int = 24, **changes: Any) -> Look:
    """After some runs on the cheaper half of the space."""
    rng, table = np.random.default_rng(1), cover(asked)
    half = np.argsort(table["flops"])[: len(table) // 2]
    configs = [table.config(int(row)) for row in rng.choice(half, n, replace=False)]
    seen = [
        Observation(config, asked.cost(config), World().loss(asked, config, rng), i)
        for i, config in enumerate(configs, 1)
    ]
    limit = asked.budget.flops or np.inf
    return Look(
        asked, seen, [], [], [], Spent(asked.budget.runs, limit, np.inf), 64, **{"durations": None} | changes
    )


@pytest.fixture(scope="module")
def fitted() -> Any:
    """A space of 15,360 points after some runs: just small enough to compare every candidate."""
    at = look(spec(SPACE))
    return at, step(replace(at, slots=0), np.random.default_rng(0)).ensemble


def chosen(at: Look, ensemble: Any, wanted: int) -> list[dict[str, float]]:
    found, _ = decide(at, ensemble, frame(at.spec), wanted, np.random.default_rng(0))
    return [{**one.config, "after": one.expected["half_width_after"]} for one in found]


def asks(at: Look, ensemble: Any) -> Situation:
    """What a strategy is given."""
    seen: list[Situation] = []

    def keep(given: Situation) -> Any:
        seen.append(given)
        return iter(())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler, "STRATEGIES", {"informative": keep})
        decide(at, ensemble, frame(at.spec), 4, np.random.default_rng(0))
    return seen[0]


def test_blocks_are_the_candidates_in_order() -> None:
    asked = spec(SPACE, budget={"runs": 64, "flops_per_run": 1e12})
    everything, parts = candidates(asked), list(blocks(asked))
    assert configurations(asked.space) == 15_360 > BLOCK
    assert sum(len(places) for places, _ in parts) == len(everything) < 15_360
    places = np.concatenate([places for places, _ in parts])
    assert np.all(np.diff(places) > 0)
    assert np.array_equal(places, places_of(asked, everything))
    again = at_places(asked, places)
    assert all(np.array_equal(again[name], everything[name]) for name in everything.columns)


def test_what_lies_beside_the_grid_has_no_place() -> None:
    asked = spec(SPACE)
    table = at_places(asked, np.array([0, 7, 15_359]))
    moved = replace(table, columns=table.columns | {"lr": table["lr"] * np.array([1.0, 1.01, 2.0])})
    assert list(places_of(asked, moved)) == [0, -1, -1]


def test_screening_finds_runs_nearly_as_good_as_comparing_all(
    fitted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, ensemble = fitted
    exact = chosen(at, ensemble, 16)
    monkeypatch.setattr(scheduler, "EXACT", 0)
    screened = chosen(at, ensemble, 16)
    assert screened[-1]["after"] <= 1.1 * exact[-1]["after"]


def test_the_quick_score_is_the_exact_one_for_one_law(fitted: Any) -> None:
    """Before any pick and after the same picks, runs under way included, to single precision."""
    at, ensemble = fitted
    pending = [at.observations[i].config for i in (0, 5)]
    situation = asks(replace(at, pending=pending), ensemble)
    heaviest = max(situation.family, key=lambda belief: belief.weight)
    alone = replace(situation, family=[replace(heaviest, weight=1.0)])
    table = candidates(at.spec).take(np.arange(0, 15_000, 7))
    outlook = Outlook.of(situation, table, Prices(table["flops"], np.zeros(len(table))))
    exact = replace(alone, candidates=alone.frame.columns(table)).prospect
    for gains, ahead in zip(outlook.gains(table), outlook.ahead, strict=True):
        assert np.allclose(gains[0], exact.gain(), rtol=1e-3, atol=1e-3 * exact.gain().max())
        told, answers = exact.rows @ ahead, exact.asked.rows @ ahead
        cross, own = exact.cross - told @ answers.T, exact.own - np.sum(told**2, axis=1)
        after = (cross**2 @ exact.asked.price) / (exact.variance + own)
        assert np.allclose(gains[-1], after, rtol=0.05, atol=0.02 * after.max())


def test_screening_keeps_little_and_nothing_that_is_not_to_be_chosen(fitted: Any) -> None:
    at, ensemble = fitted
    asked = at.spec
    tried = [one.config for one in at.observations]
    out = RuledOut.of(asked, tried, [], [])
    seen: list[int] = []

    def open_() -> Any:
        for places, table in blocks(asked):
            free = out.open(table, places)
            seen.append(int(free.sum()))
            yield places[free], table.take(free)

    def priced(table: Any) -> Prices:
        return Prices(table["flops"], np.zeros(len(table)))

    situation = asks(at, ensemble)
    kept = screen(open_(), situation, priced, cover(asked))
    assert EVEN < len(kept) < sum(seen)
    assert not np.isin(kept, places_of(asked, at_places(asked, out.places))).any()
    cheapest = candidates(asked)["flops"].min()
    assert at_places(asked, kept)["flops"].min() == cheapest
    plain = screen(open_(), situation, priced, None)
    assert len(plain) <= EVEN + CHEAPEST < 4 * BEST + EVEN
    share = [np.mean(at_places(asked, plain)[name] == SPACE[name][0]) for name in ("width", "lr", "batch")]
    assert np.allclose(share, [1 / 6, 1 / 8, 1 / 8], atol=0.05)


def test_a_million_candidates_give_a_batch() -> None:
    """How long that takes is for benchmarks/decisions.py."""
    asked = spec(MILLION, stop={"patience": 0.0}, budget={"runs": 64, "flops": 1e15}, laws=ONE_LAW)
    assert configurations(asked.space) == 1_000_000 <= ENUMERATED
    at = look(asked)
    ensemble, frame_ = step(replace(at, slots=0), np.random.default_rng(0)).ensemble, frame(asked)
    found, stop = decide(at, ensemble, frame_, 64, np.random.default_rng(0))
    assert stop is None and len(found) > 16
    assert len({tuple(one.config.items()) for one in found}) == len(found)
    assert sum(one.cost.flops for one in found) <= asked.budget.flops


def test_larger_spaces_are_sampled_and_say_so() -> None:
    asked = spec(BILLIONS, strategy={"name": "random", "first_batch": 8}, seed=3)
    assert configurations(asked.space) > 1e8
    told = plan(asked)
    assert 0.5 * SAMPLED < told.candidates < 1.1 * SAMPLED
    (warning,) = [one for one in told.warnings if one.startswith("space:")]
    assert "262,144" in warning and "seed 3" in warning
    places = np.concatenate([places for places, _ in blocks(asked)])
    assert np.array_equal(places, np.concatenate([places for places, _ in blocks(asked)]))
    other = np.concatenate([places for places, _ in blocks(replace(asked, seed=4))])
    assert len(np.intersect1d(places, other)) < 0.1 * len(places)
    table = cover(asked)
    for name in ("width", "tokens", "lr", "batch", "weight_decay"):
        values = np.array(asked.space[name].values)
        assert {values[0], values[-1]} <= set(table[name])
        assert abs(np.mean(table[name] <= np.median(values)) - 0.5) < 0.06
    lowest = {name: asked.space[name].values[0] for name in asked.space}
    assert places_of(asked, candidates(asked)).min() >= 0
    assert 0 in places or asked.cost(asked.complete(lowest)).steps < 10


def test_a_sampled_space_is_chosen_from() -> None:
    asked = spec(BILLIONS, laws=ONE_LAW)
    at = look(asked)
    ensemble, frame_ = step(replace(at, slots=0), np.random.default_rng(0)).ensemble, frame(asked)
    found, _ = decide(at, ensemble, frame_, 8, np.random.default_rng(0))
    assert len(found) == 8 and len({tuple(one.config.items()) for one in found}) == 8


def test_absurd_spaces_are_refused() -> None:
    many = {"from": 1e-3, "to": 0.1, "steps": 10_000}
    with pytest.raises(SpecError) as caught:
        spec(BILLIONS | {"lr": many, "weight_decay": many})
    (problem,) = caught.value.problems
    assert problem.field == "space"
    assert "at most 1e+12" in problem.allowed and "lr, which has 10,000" in problem.allowed


def test_seconds_count_in_large_spaces(fitted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    at, ensemble = fitted
    monkeypatch.setattr(scheduler, "EXACT", 0)
    seconds = SecondsModel(1e-3, 0.0, 1e-11, 0.1, 5)
    limited = replace(at, durations=Durations(seconds), remaining=replace(at.remaining, device_seconds=20.0))
    found, _ = decide(limited, ensemble, frame(at.spec), 8, np.random.default_rng(0))
    assert found and sum(seconds(one.cost) for one in found) <= 20.0
