"""How a run is trained, as a specification says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import ConfigDict, Field

from sweeps.axis import STRICT
from sweeps.kinds.base import Array

SILENCE = 600.0


@dataclass(frozen=True)
class Trainer:
    """How a run is trained.

    Args:
        optimizer: ``adamw`` (betas 0.9, 0.95) or ``sgd`` (momentum 0.9).
        schedule: ``cosine`` to a tenth of the peak, or ``constant`` and a linear decay at the end.
        warmup: steps with a rising rate; below 1 a share of the steps of each run.
        decay: share of the steps with a falling rate (``constant`` only).
        precision: of matrix products; ``tf32`` and ``bfloat16`` where the device has them.
        evaluations: evaluation points, log-spaced over the steps.
        eval_tokens: held-out tokens (of images and rows: examples) an evaluation reads.
        clip: gradient norm that is clipped to.
        retries: further attempts after a failure.
        silence: seconds without a report after which a trainer of one's own counts as hung.
        execution: ``compiled`` runs the model through torch.compile, with CUDA graphs on a GPU.
        kernels: ``deterministic`` gives the same numbers bit for bit on a GPU too, at its price.
        batch_rule: how the learning rate follows the batch: in proportion (SGD), by the square root (Adam:
            Granziol et al. 2020, arXiv 2006.09092), or not at all.
        base_batch: at which the rate is the one asked for: ``lr`` of configurations, fits and answers is the
            rate at this batch.
        diagnostics: reported at every evaluation: ``sharpness``, the largest eigenvalue of the training
            loss's Hessian, and ``singular_value``, the mean largest singular value of hidden matrices.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    optimizer: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: Annotated[float, Field(ge=0, le=1e6)] = 0.1
    decay: Annotated[float, Field(ge=0, le=1)] = 0.2
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    evaluations: Annotated[int, Field(ge=1, le=1000)] = 8
    eval_tokens: Annotated[int, Field(ge=64)] = 65_536
    clip: Annotated[float, Field(gt=0)] = 1.0
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    silence: Annotated[float, Field(gt=0, le=1e6, exclude_if=lambda given: given == SILENCE)] = SILENCE
    execution: Annotated[Literal["plain", "compiled"], Field(exclude_if=lambda given: given == "plain")] = (
        "plain"
    )
    kernels: Annotated[Literal["fast", "deterministic"], Field(exclude_if=lambda given: given == "fast")] = (
        "fast"
    )
    batch_rule: Annotated[
        Literal["none", "linear", "sqrt"], Field(exclude_if=lambda given: given == "none")
    ] = "none"
    base_batch: Annotated[int, Field(ge=1, exclude_if=lambda given: given == 16)] = 16
    diagnostics: Annotated[
        tuple[Literal["sharpness", "singular_value"], ...], Field(exclude_if=lambda given: not given)
    ] = ()

    @property
    def batch_power(self) -> float:
        """Of the batch that the rate goes with.

        The noise of a mean over the batch has a variance over the batch. SGD moves by rate x gradient, so
        with the rate in proportion to the batch an epoch moves as far with as much noise (Goyal et al. 2017,
        arXiv 1706.02677); Adam divides by the gradient's size, so its noise goes as rate / sqrt(batch)
        (Granziol et al. 2020, arXiv 2006.09092). Both hold below the critical batch.
        """
        return {"none": 0.0, "linear": 1.0, "sqrt": 0.5}[self.batch_rule]

    def rates(self, lr: ArrayLike, batch: ArrayLike) -> Array:
        """The peak learning rates of trainings: those at the base batch, each (n,) or a number, scaled."""
        times = np.asarray(batch, dtype=float) / self.base_batch
        return np.asarray(np.asarray(lr, dtype=float) * times**self.batch_power)
