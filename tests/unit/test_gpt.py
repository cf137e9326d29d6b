"""What only the causal transformer is; tests/unit/test_proxies.py has what all kinds are."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.data import STDLIB
from sweeps.proxy import Proxy
from sweeps.spec import Config
from workers.objective import mean_loss
from workers.proxies.gpt import GPT, build

Shape = tuple[Config, Proxy]


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    count = draw(st.integers(1, 3))
    config = {
        "width": 2.0 * count * draw(st.integers(2, 6)),
        "depth": float(draw(st.integers(1, 3))),
        "resolution": float(draw(st.integers(8, 24))),
        "batch": float(draw(st.integers(1, 3))),
        "init_scale": 1.0,
    }
    config["tokens"] = config["batch"] * config["resolution"]  # one step
    return config, Proxy(heads=count)


def built(shape: Shape, seed: int = 0) -> GPT:
    return build(*shape, STDLIB, torch.Generator().manual_seed(seed))


def tokens(config: Config, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (int(config["batch"]), int(config["resolution"])), generator=generator)


@settings(max_examples=10)
@given(shapes(), st.integers(0, 1000))
def test_a_prediction_does_not_see_later_bytes(shape: Shape, seed: int) -> None:
    model = built(shape)
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(1))
        text = tokens(shape[0], seed)
        changed = text.clone()
        changed[:, -1] = 255 - changed[:, -1]
        torch.testing.assert_close(model(text)[:, :-1], model(changed)[:, :-1])
        assert not torch.equal(model(text)[:, -1], model(changed)[:, -1])


def test_the_first_loss_is_that_of_guessing() -> None:
    config = {"width": 16.0, "depth": 2.0, "resolution": 16.0, "batch": 2.0, "init_scale": 1.0}
    model = built((config, Proxy()))
    text = tokens(config)
    assert mean_loss("tokens", model(text), text).item() == pytest.approx(math.log(256), rel=1e-6)


def test_init_scale_multiplies_hidden_matrices_only() -> None:
    config = {"width": 32.0, "depth": 2.0, "resolution": 8.0, "init_scale": 1.0}
    once, thrice = built((config, Proxy())), built((config | {"init_scale": 3.0}, Proxy()))
    torch.testing.assert_close(once.embedding.weight, thrice.embedding.weight)
    for a, b in zip(once.blocks.parameters(), thrice.blocks.parameters(), strict=True):
        torch.testing.assert_close(3 * a, b)
    deviation = {name: weight.std().item() for name, weight in once.blocks[0].named_parameters()}
    assert deviation["up.weight"] == pytest.approx(1 / math.sqrt(32), rel=0.1)
    assert deviation["down.weight"] == pytest.approx(1 / math.sqrt(128) / 2, rel=0.1)


def test_the_seed_decides_the_weights() -> None:
    config = {"width": 8.0, "depth": 1.0, "resolution": 8.0, "init_scale": 1.0}
    first, same, other = (built((config, Proxy()), seed) for seed in (0, 0, 1))
    assert torch.equal(first.embedding.weight, same.embedding.weight)
    assert not torch.equal(first.embedding.weight, other.embedding.weight)


def test_weights_of_a_seed_are_what_they_were() -> None:
    config = {"width": 32.0, "depth": 2.0, "resolution": 16.0, "init_scale": 1.0}
    state = built((config, Proxy()), 3).state_dict()
    digest = hashlib.sha256(
        b"".join(name.encode() + weight.numpy().tobytes() for name, weight in state.items())
    )
    assert digest.hexdigest()[:12] == "6eabba7421f4"
