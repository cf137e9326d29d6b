"""Which weights decay, and the learning rate at every step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sweeps.data import STDLIB
from sweeps.proxy import Proxy
from sweeps.trainer import Trainer
from workers import optimizer
from workers.parametrisation import rules
from workers.proxies.gpt import GPT, build

CONFIG = {
    "width": 8.0,
    "depth": 1.0,
    "resolution": 8.0,
    "init_scale": 1.0,
    "lr": 0.5,
    "beta2": 0.9,
    "weight_decay": 0.2,
}


def model() -> GPT:
    return build(CONFIG, Proxy(), STDLIB, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_look_up_tables_do_not_decay(name: str) -> None:
    net = model()
    made = optimizer.make(net, CONFIG, Trainer(optimizer=name), rules(net, CONFIG, Proxy(), name))  # type: ignore[arg-type]
    decay = {id(w): group["weight_decay"] for group in made.param_groups for w in group["params"]}
    assert {decay[id(w)] for w in net.parameters() if w is not net.embedding.weight} == {0.2}
    assert decay[id(net.embedding.weight)] == 0.0
    assert len(decay) == len(list(net.parameters()))


def test_adamw_takes_beta2_and_decays_apart_from_the_gradient() -> None:
    net = model()
    made = optimizer.make(net, CONFIG, Trainer(), rules(net, CONFIG, Proxy(), "adamw"))
    before = net.blocks[0].up.weight.detach().clone()
    for weight in net.parameters():
        weight.grad = torch.zeros_like(weight)
    made.step()
    assert made.param_groups[0]["betas"] == (0.9, 0.9)
    torch.testing.assert_close(net.blocks[0].up.weight.detach(), before * (1 - 0.5 * 0.2))


@given(
    st.integers(1, 500),
    st.sampled_from(["cosine", "constant"]),
    st.floats(0, 0.5),
    st.floats(0, 1),
)
def test_the_rate_rises_then_falls_and_never_passes_the_peak(
    steps: int, schedule: str, warmup: float, decay: float
) -> None:
    trainer = Trainer(schedule=schedule, warmup=warmup, decay=decay)  # type: ignore[arg-type]
    rates = [optimizer.rate(trainer, step, steps) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_a_cosine_ends_at_a_tenth_and_a_linear_decay_one_step_before_zero() -> None:
    assert optimizer.rate(Trainer(), 99, 100) == pytest.approx(0.1)
    constant = Trainer(schedule="constant", decay=0.2)
    assert optimizer.rate(constant, 79, 100) == 1.0
    assert optimizer.rate(constant, 99, 100) == pytest.approx(1 / 20)
