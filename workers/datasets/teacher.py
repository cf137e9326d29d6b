"""Synthetic values whose scaling exponents are known, so that a fitted law can be held against the truth.

An example is of kind k = 1, 2, ...; kinds beyond the w-th are (4 w + 1)^-a of all examples. Its inputs say
which of the first m kinds it is (one-hot; all 0 for the kinds beyond). Its m values are the k-th of m
orthogonal vectors, those of the discrete cosine transform; for the kinds beyond they are one of these vectors
at random, with a random sign.

What a network with w units in its last hidden layer can give lies on a plane of w dimensions, whatever comes
before that layer, so its mean squared error is at least the sum of all but the w largest variances of the
values (Eckart and Young 1936). That sum lies between (4 w + 5)^-a and (4 w + 1)^-a, as the output's biases
save up to one kind. Against w + 1/2, as which the parameters of one hidden layer grow, it falls with an
exponent of 0.98 a to a. Of D examples, the kinds rarer than about 1 / D are yet to be learned, which leaves
about D^(-a / (1 + a)) (Hutter 2021, arXiv 2102.04074; Michaud et al. 2023, arXiv 2303.13506, who derive both
exponents from one such model).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sweeps.data import Source
from workers.datasets.base import ENDLESS, Examples, Subset, described, spread
from workers.datasets.counter import below, mix, weyl
from workers.datasets.subsets import choose

VERSION = "1"
STEEP = 4  # kinds beyond the w-th are (STEEP w + 1)^-a of all
DRAWS = 4  # counters of an example: its kind, a vector for kinds beyond, one for noise, and both signs


@dataclass(frozen=True)
class Teacher:
    """``Examples`` that are made up as they are asked for.

    Args:
        vectors: (m, m), float32, each of mean square 1.
        exponent: a above.
        noise: variance of values beside what their kind says.
        unique: so many training examples are seen again and again; 0 for no end.
    """

    hashes: Mapping[str, str]
    vectors: Tensor
    exponent: float
    noise: float
    unique: int = 0
    resident: bool = True

    @property
    def places(self) -> dict[str, int]:
        return {"train": self.unique or ENDLESS, "held_out": ENDLESS}

    def take(self, split: str, places: Tensor) -> tuple[Tensor, Tensor]:
        kinds = len(self.vectors)
        counter = (places + (ENDLESS if split == "held_out" else 0)) * DRAWS
        # Held-out chances are evenly spread, so that a few thousand examples have rare kinds in proportion.
        kind = self.kind(weyl(places) if split == "held_out" else mix(counter))
        beyond = kind >= kinds
        signs = mix(counter + 3)
        sign = torch.where(beyond, 1.0 - 2.0 * (signs & 1), 1.0)
        values = self.vectors[torch.where(beyond, below(counter + 1, kinds), kind)] * sign[..., None]
        if self.noise > 0:
            sign = 1.0 - 2.0 * (signs >> 1 & 1)
            noise = self.vectors[below(counter + 2, kinds)] * sign[..., None]
            values = values + self.noise**0.5 * noise
        inputs = torch.zeros(*places.shape, kinds + 1, device=places.device)
        # Variance 1 on average over the features, as other data sets have.
        inputs.scatter_(-1, kind[..., None], kinds**0.5)
        return inputs[..., :kinds], values

    def kind(self, bits: Tensor) -> Tensor:
        """Kinds of 64 even bits, counted from 0, int64; m for all that the inputs do not tell apart."""
        chance = ((bits >> 11 & (1 << 53) - 1).double() + 0.5) * 2.0**-53
        reach = (chance.pow(-1.0 / self.exponent) - 1.0) / STEEP
        return reach.clamp(max=float(len(self.vectors))).long()

    def evaluation(self, examples: int) -> Tensor:
        return spread(ENDLESS, examples, self.vectors.device)


def examples(source: Source, _resolution: int, device: torch.device, subset: Subset) -> Examples:
    """Examples of the exponent and noise that the source's options say."""
    choose(source, subset, ENDLESS, None)  # refuses what cannot be
    exponent, noise = (float(source.options[name]) for name in ("exponent", "noise"))
    vectors = _cosines(source.outputs).to(device)
    return Teacher(described(source, VERSION), vectors, exponent, noise, subset.unique)


def _cosines(count: int) -> Tensor:
    """Orthogonal vectors with a mean square of 1, (count, count)."""
    numbers = torch.arange(count, dtype=torch.float64)
    angles = torch.pi / count * numbers[:, None] * (numbers + 0.5)
    vectors: Tensor = torch.cos(angles) * 2.0**0.5
    vectors[0] = 1.0
    return vectors.to(torch.float32)
