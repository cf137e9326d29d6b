"""The maximal update parametrisation: its rules, its constants, and where it is the standard one."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any, Literal

import pytest
import torch
from torch.nn import functional as F

from sweeps.data import SOURCES
from sweeps.proxy import Proxy
from sweeps.spec import Config, SweepSpec, parse, spec_hash, to_dict, warnings
from sweeps.trainer import Trainer
from workers import optimizer as optimizers
from workers.parametrisation import Rule, rules
from workers.proxies import build
from workers.proxies.model import Branch, Model
from workers.proxies.transformer import Block

DATASETS = {"mlp": "digits", "convnet": "digits", "vit": "digits", "gpt": "stdlib"}
OPTIMIZERS = ("adamw", "sgd")


def built(kind: str, mup: int, width: int = 32, depth: int = 2, **own: Any) -> tuple[Model, Config, Proxy]:
    base = {name: own.pop(name) for name in ("base_width", "base_depth", "heads") if name in own}
    proxy = Proxy(kind, DATASETS[kind], **{"base_width": 32, "base_depth": 2} | base)
    config = {"width": float(width), "depth": float(depth), "resolution": 8.0, "init_scale": 1.0}
    config |= {"patch": 4.0, "group_width": 0.0, "mup": float(mup)} | own
    source = SOURCES[proxy.dataset]
    return build(config, proxy, source, torch.Generator().manual_seed(0)), config, proxy


def ruled(kind: str, optimizer: str, **shape: Any) -> dict[str, Rule]:
    return dict(rules(*built(kind, 1, **shape), optimizer))


@pytest.mark.parametrize("kind", DATASETS)
def test_at_the_base_shape_both_are_one(kind: str) -> None:
    (standard, *given), (mup, *mine) = built(kind, 0), built(kind, 1)
    for one, other in zip(standard.parameters(), mup.parameters(), strict=True):
        assert torch.equal(one, other)
    for model in (standard, mup):
        with torch.no_grad():
            model.head.weight.normal_(generator=torch.Generator().manual_seed(1))
    inputs = torch.randint(256, (2, 8)) if kind == "gpt" else torch.randn(2, 1, 8, 8)
    assert torch.equal(standard(inputs), mup(inputs))
    for optimizer in OPTIMIZERS:
        assert rules(standard, *given, optimizer) == rules(mup, *mine, optimizer)


def test_rules_of_adam() -> None:
    """Rates over the width of hidden matrices only; their decay times its root."""
    found = ruled("mlp", "adamw", width=128, depth=3)
    assert found == {
        "embedding.weight": Rule(1.0, 1.0),
        "embedding.bias": Rule(1.0, 0.0),
        "blocks.0.weight": Rule(0.25, 2.0),
        "blocks.0.bias": Rule(1.0, 0.0),
        "blocks.1.weight": Rule(0.25, 2.0),
        "blocks.1.bias": Rule(1.0, 0.0),
        "head.weight": Rule(1.0, 1.0),
        "head.bias": Rule(1.0, 0.0),
    }
    assert ruled("gpt", "adamw", width=128)["embedding.weight"] == Rule(1.0, 0.0)  # a look-up table


def test_rules_of_sgd() -> None:
    """Rates times the width of all but hidden matrices and the readout's bias; rate x decay stays."""
    found = ruled("mlp", "sgd", width=128, depth=2)
    assert found == {
        "embedding.weight": Rule(4.0, 0.25),
        "embedding.bias": Rule(4.0, 0.0),
        "blocks.0.weight": Rule(1.0, 1.0),
        "blocks.0.bias": Rule(4.0, 0.0),
        "head.weight": Rule(4.0, 0.25),
        "head.bias": Rule(1.0, 0.0),
    }


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_trains_as_the_form_without_a_multiplier(optimizer: Literal["adamw", "sgd"]) -> None:
    """Yang et al. 2022, table 3: the readout learns at a rate over m instead, from weights over m.

    Adam's epsilon follows the readout's gradients, which are m times as large there.
    """
    m, steps, lr = 4.0, 8, 0.01
    model, config, proxy = built("mlp", 1, width=128, depth=3)
    model.double()
    plain = deepcopy(model)
    plain.head.multiplier = 1.0
    rated = rules(model, config, proxy, optimizer)
    ours = optimizers.make(
        model, config | {"lr": lr, "beta2": 0.95, "weight_decay": 0.0}, Trainer(optimizer=optimizer), rated
    )
    optimizers.set_rate(ours, lr)
    wide, hidden = {"adamw": (lr, lr / m), "sgd": (lr * m, lr)}[optimizer]
    groups = [
        {"params": [weight], "lr": hidden if name.startswith("blocks") and weight.ndim > 1 else wide}
        for name, weight in plain.named_parameters()
        if not name.startswith("head")
    ]
    groups += [
        {"params": [plain.head.weight], "lr": lr / m, "eps": optimizers.EPSILON * m},
        {"params": [plain.head.bias], "lr": lr},
    ]
    theirs: torch.optim.Optimizer = (
        torch.optim.Adam(groups, betas=(optimizers.BETA1, 0.95), eps=optimizers.EPSILON)
        if optimizer == "adamw"
        else torch.optim.SGD(groups, momentum=optimizers.MOMENTUM)
    )
    random = torch.Generator().manual_seed(2)
    for _ in range(steps):
        inputs = torch.randn(16, 64, generator=random, dtype=torch.float64)
        labels = torch.randint(10, (16,), generator=random)
        lost = []
        for one, by in ((model, ours), (plain, theirs)):
            loss = F.cross_entropy(one(inputs), labels)
            by.zero_grad()
            torch.autograd.backward(loss)
            by.step()
            lost.append(loss.item())
        assert lost[0] == pytest.approx(lost[1], rel=1e-10)
    assert lost[0] != pytest.approx(math.log(10), rel=1e-3)  # of guessing: they have moved


@pytest.mark.parametrize("kind", ["convnet", "vit", "gpt"])
def test_deeper_models_have_weaker_branches_and_adam_is_slower_there(kind: str) -> None:
    model, *given = built(kind, 1, depth=8)
    branches = [part for part in model.modules() if isinstance(part, Branch)]
    assert {part.multiplier for part in branches} == {0.5}
    inside = {id(weight) for part in branches for weight in part.parameters()}
    adam, sgd = (rules(model, *given, optimizer) for optimizer in OPTIMIZERS)
    for name, weight in model.named_parameters():
        assert adam[name].rate == (0.5 if id(weight) in inside else 1.0)
        assert sgd[name].rate == 1.0
    shallow = built(kind, 1)[0]
    last = "second" if kind == "convnet" else "down"
    deviations = [
        dict(one.named_parameters())[f"blocks.0.{last}.weight"].std().item() for one in (shallow, model)
    ]
    assert deviations[0] == pytest.approx(deviations[1], rel=0.1)  # the multiplier does it


def test_the_readout_is_multiplied_and_its_bias_is_not() -> None:
    model, *_ = built("mlp", 1, width=128)
    with torch.no_grad():
        model.head.weight.fill_(1.0)
        model.head.bias.fill_(1.0)
    read = model.head(torch.ones(1, 128))
    torch.testing.assert_close(read, torch.full((1, 10), 128 / 4 + 1.0))


def test_convolutions_count_channels_and_groups_of_a_fixed_width_do_not_grow() -> None:
    whole = ruled("convnet", "adamw", width=128)
    assert {name: rule.rate for name, rule in whole.items()} == {
        name: 1.0 if name.startswith(("embedding", "head")) else 0.25 for name in whole
    }
    grouped = ruled("convnet", "adamw", width=128, group_width=16.0)
    between = {"blocks.2.weight", "blocks.5.weight"}  # these sum over all channels
    assert {name for name, rule in grouped.items() if rule.rate != 1.0} == between
    assert ruled("convnet", "sgd", width=128, group_width=16.0)["blocks.0.first.weight"].rate == 4.0


@pytest.mark.parametrize("kind", ["vit", "gpt"])
def test_logits_are_bounded_alike_at_every_head_width(kind: str) -> None:
    for heads, width, expected in [(None, 128, None), (2, 32, None), (2, 128, math.sqrt(16) / 64)]:
        model, *_ = built(kind, 1, width=width, heads=heads)
        assert {part.scale for part in model.modules() if isinstance(part, Block)} == {expected}
    model, *_ = built(kind, 0, width=128, heads=2)
    assert {part.scale for part in model.modules() if isinstance(part, Block)} == {None}


def test_the_rate_follows_the_batch() -> None:
    rules: tuple[Literal["none", "linear", "sqrt"], ...] = ("none", "linear", "sqrt")
    found = {rule: float(Trainer(batch_rule=rule).rates(1e-3, 64.0)) for rule in rules}
    assert found == pytest.approx({"none": 1e-3, "linear": 4e-3, "sqrt": 2e-3})
    assert float(Trainer(batch_rule="sqrt", base_batch=64).rates(1.0, 16.0)) == 0.5


def spec(**given: Any) -> SweepSpec:
    space = {"width": [16, 32], "depth": 2, "tokens": [1e5, 2e5]} | given.pop("space", {})
    at = {"width": 64, "depth": 2, "tokens": 4e5}
    return parse({"name": "mup", "space": space, "targets": [{"at": at}]} | given)


def test_what_is_left_at_its_default_is_not_said() -> None:
    told = to_dict(spec())
    assert not {"base_width", "base_depth"} & told["proxy"].keys()
    assert not {"batch_rule", "base_batch", "diagnostics"} & told["trainer"].keys()
    own = {"batch_rule": "sqrt", "base_batch": 8, "diagnostics": ["sharpness"]}
    given = spec(proxy={"base_width": 32, "base_depth": 4}, trainer=own)
    assert own.items() <= to_dict(given)["trainer"].items()
    assert to_dict(given)["proxy"] | {"base_width": 32, "base_depth": 4} == to_dict(given)["proxy"]
    assert parse(to_dict(given)) == given and spec_hash(given) != spec_hash(spec())


def test_a_rate_is_not_carried_over_twice() -> None:
    twice = [
        warning
        for mup in (0, 1)
        for warning in warnings(spec(space={"mup": mup}, laws={"transfer": "mup"}))
        if "already see to" in warning
    ]
    assert len(twice) == 1
