"""Sharpness against the dense Hessian, singular values against a decomposition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd.functional import hessian
from torch.func import functional_call

from sweeps.data import SOURCES
from sweeps.proxy import Proxy
from workers.diagnostics import sharpness, top_eigenvalue, top_singular_value
from workers.objective import mean_loss
from workers.proxies import build
from workers.proxies.model import Model, roles

TINY: dict[str, tuple[str, dict[str, float]]] = {
    "mlp": ("digits", {"width": 4, "depth": 3}),
    "convnet": ("digits", {"width": 4, "depth": 1}),
    "vit": ("digits", {"width": 4, "depth": 1}),
    "gpt": ("stdlib", {"width": 4, "depth": 1}),
}


def tiny(kind: str) -> tuple[Model, Any, Tensor, Tensor]:
    dataset, shape = TINY[kind]
    config = {"resolution": 8.0, "init_scale": 1.0, "patch": 4.0, "group_width": 0.0} | shape
    source, random = SOURCES[dataset], torch.Generator().manual_seed(0)
    model = build(config, Proxy(kind, dataset), source, random)
    with torch.no_grad():
        model.head.weight.normal_(generator=random)
    shown = (3, 8) if kind == "gpt" else (3, 1, 8, 8)
    inputs = (
        torch.randint(256, shown, generator=random) if kind == "gpt" else torch.randn(shown, generator=random)
    )
    targets = torch.randint(10, shown if kind == "gpt" else (3,), generator=random)
    return model, source.task, inputs, targets


@pytest.mark.parametrize("kind", ["mlp", "vit"])
def test_sharpness_is_the_largest_eigenvalue_of_the_hessian(kind: str) -> None:
    model, task, inputs, targets = tiny(kind)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    sizes = [weight.numel() for weight in weights.values()]

    def loss(flat: Tensor) -> Tensor:
        parts = zip(weights.items(), torch.split(flat, sizes), strict=True)
        given = {name: part.view_as(weight) for (name, weight), part in parts}
        return mean_loss(task, functional_call(model, given, (inputs,)), targets)

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        dense = hessian(loss, torch.cat([weight.flatten() for weight in weights.values()]))
    expected = torch.linalg.eigvalsh(dense.double())[-1].item()
    assert sharpness(task, model, inputs, targets) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", TINY)
def test_every_kind_has_a_sharpness_and_keeps_its_weights(kind: str) -> None:
    model, task, inputs, targets = tiny(kind)
    before = [weight.clone() for weight in model.parameters()]
    assert sharpness(task, model, inputs, targets) > 0.0
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    assert all(weight.grad is None for weight in model.parameters())


def test_what_is_not_finite_has_no_sharpness() -> None:
    model, task, inputs, targets = tiny("mlp")
    with torch.no_grad():
        model.head.weight.fill_(math.inf)
    assert math.isnan(sharpness(task, model, inputs, targets))


@pytest.mark.parametrize("kind", TINY)
def test_singular_values_are_those_of_a_decomposition(kind: str) -> None:
    model = tiny(kind)[0]
    parts = roles(model)
    expected = [
        torch.linalg.svdvals(weight.detach().flatten(1))[0].item()
        for name, weight in model.named_parameters()
        if parts[name].role == "hidden"
    ]
    assert top_singular_value(model) == pytest.approx(np.mean(expected), rel=1e-3)


def test_large_random_matrices_converge() -> None:
    """Their largest singular values lie close to each other."""
    matrix = torch.randn(400, 300, generator=torch.Generator().manual_seed(0))
    expected = torch.linalg.svdvals(matrix)[0].item()
    found = math.sqrt(top_eigenvalue(lambda v: (matrix @ v) @ matrix, 300, matrix.device))
    assert found == pytest.approx(expected, rel=2e-3)


def test_a_model_without_hidden_matrices_has_no_singular_value() -> None:
    config = {"width": 4.0, "depth": 1.0, "resolution": 8.0, "init_scale": 1.0}
    model = build(config, Proxy("mlp", "digits"), SOURCES["digits"], torch.Generator())
    assert top_singular_value(model) is None


@pytest.mark.parametrize("values", [[3.0, -5.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -4.0]])
def test_the_largest_eigenvalue_is_not_the_largest_in_size(values: list[float]) -> None:
    diagonal = torch.tensor(values)
    found = top_eigenvalue(lambda v: diagonal * v, 3, diagonal.device)
    assert found == pytest.approx(max(values), abs=1e-4)
