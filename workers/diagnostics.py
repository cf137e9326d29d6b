"""What a model at hand tells of its training: how sharp its loss is, how large its matrices are."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sweeps.data import Task
from workers.objective import mean_loss
from workers.proxies.model import Model, roles

ITERATIONS, TOLERANCE = 100, 1e-4  # products of a Lanczos run at most, and the relative error it ends at


def sharpness(task: Task, model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """The largest eigenvalue of the Hessian of the mean loss in all parameters, in float32.

    Under a parametrisation that transfers, its course over the steps does not depend on the width (Noci et
    al. 2024, arXiv 2402.17457). Each product with the Hessian costs about two backward passes.

    Args:
        inputs, targets: (batch, ...), all at once.

    Returns:
        In units of the loss by squared units of the weights; nan where the loss or a product is not finite.
    """
    weights = list(model.parameters())
    with sdpa_kernel(SDPBackend.MATH):  # fused attention cannot be differentiated twice
        loss = mean_loss(task, model(inputs), targets)
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
    flat = torch.cat([gradient.flatten() for gradient in gradients])

    def apply(direction: Tensor) -> Tensor:
        products = torch.autograd.grad(flat, weights, direction, retain_graph=True)
        return torch.cat([product.flatten() for product in products])

    return top_eigenvalue(apply, len(flat), flat.device)


def top_singular_value(model: nn.Module) -> float | None:
    """The mean over hidden matrices of their largest singular values; None of a model without any.

    Convolutions are matrices of (outputs, inputs x places).
    """
    assert isinstance(model, Model)
    parts = roles(model)
    found = [
        _top_singular_value(weight.detach().flatten(1))
        for name, weight in model.named_parameters()
        if parts[name].role == "hidden"
    ]
    return float(np.mean(found)) if found else None


def _top_singular_value(matrix: Tensor) -> float:
    squared = top_eigenvalue(lambda right: (matrix @ right) @ matrix, matrix.shape[1], matrix.device)
    return math.sqrt(max(0.0, squared)) if math.isfinite(squared) else math.nan


def top_eigenvalue(apply: Callable[[Tensor], Tensor], size: int, device: torch.device) -> float:
    """The largest eigenvalue of a symmetric matrix, by Lanczos (1950) from a fixed random vector.

    Unlike power iteration it tells the largest eigenvalue from the most negative one, and converges where the
    next eigenvalues are close, as those of random matrices are. Three vectors are held: what rounding does to
    the others' orthogonality repeats eigenvalues that were found and invents none (Paige 1980).

    Args:
        apply: the matrix times a vector, (size) to (size).

    Returns:
        It, to a relative error of about ``TOLERANCE``; nan where a product is not finite.
    """
    vector = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device)
    vector /= vector.norm()
    before, between, top = torch.zeros_like(vector), 0.0, 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(ITERATIONS):
        product = apply(vector)
        diagonal.append(float(vector @ product))
        product = product - diagonal[-1] * vector - between * before
        between = float(product.norm())
        if not math.isfinite(diagonal[-1] + between):
            return math.nan
        values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
        top = float(values[-1])
        # the residual bounds the distance to an eigenvalue, which the square of it over a gap makes smaller
        if between * abs(vectors[-1, -1]) <= TOLERANCE * abs(top) or len(diagonal) == size:
            break
        beside.append(between)
        before, vector = vector, product / between
    return top
