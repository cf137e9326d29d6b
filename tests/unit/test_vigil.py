"""What counts as divergence, and what as a spike."""

from __future__ import annotations

import math

import pytest

from workers.vigil import Vigil


def see(vigil: Vigil, losses: list[float], warm: bool = True) -> str | None:
    found = [vigil.see(loss, step, 100, warm, 2.0) for step, loss in enumerate(losses, 1)]
    return next((why for why in found if why is not None), None)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_diverges_at_its_step(loss: float) -> None:
    assert see(Vigil(), [5.0, loss, 5.0], warm=False) == f"the training loss is {loss} at step 2 of 100"


def test_a_few_bad_steps_are_not_a_divergence_but_many_are() -> None:
    assert see(Vigil(), ([9.0] * 19 + [1.0]) * 3) is None
    why = see(Vigil(), [1.0] + [9.0] * 20)
    assert why is not None
    assert "has been above 2.5 for 20 steps; guessing loses 2" in why


def test_high_losses_while_the_rate_rises_say_nothing() -> None:
    assert see(Vigil(), [9.0] * 50, warm=False) is None


def test_spikes_are_counted_and_forgotten_by_the_mean() -> None:
    vigil = Vigil()
    assert see(vigil, [1.0] * 30 + [2.0] + [1.0] * 30 + [2.0]) is None
    assert vigil.spikes == 2
    assert see(vigil, [1.2] * 30) is None
    assert vigil.spikes == 2


def test_the_mean_is_that_since_it_was_last_asked_for() -> None:
    vigil = Vigil()
    see(vigil, [1.0, 2.0])
    assert vigil.mean() == 1.5
    see(vigil, [4.0])
    assert vigil.mean() == 4.0
