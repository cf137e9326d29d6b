"""AdamW and SGD over rows of weights, one row a member with rates, decay and clipping of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from workers.engines.base import Plan
from workers.optimizer import EPSILON, MOMENTUM
from workers.parametrisation import Rule

FUSED_FROM = 1024  # weights a call of the fused kernel; with fewer, calls take longer than passes they save


class Update(Protocol):
    """One step of an optimiser.

    Args:
        moments: what it remembers of each weight, by PyTorch's names: (members, weights).
        steps: made so far.
    """

    moments: dict[str, Tensor]
    steps: int

    def set(self, step: int) -> None:
        """Puts what differs from step to step where the next call reads it. The call is a CUDA graph's."""

    def __call__(self, weights: Tensor, gradients: Tensor) -> Tensor:
        """Changes the weights, (members, weights).

        Returns:
            Norms of the gradients before they were clipped, (members,).
        """

    def keep(self, rows: Tensor) -> None:
        """Goes on with some of the members."""


def make_update(plan: Plan, shapes: Mapping[str, torch.Size]) -> Update:
    """The update that a trainer asks for.

    Args:
        shapes: of the parameters, in the order in which a row holds them.
    """
    if plan.trainer.optimizer != "adamw":
        return SGD(plan, shapes)
    weights, rules = sum(shape.numel() for shape in shapes.values()), len(spans(plan, shapes))
    by_row = plan.device.type == "cpu" and weights >= FUSED_FROM * rules
    return FusedAdamW(plan, shapes) if by_row else AdamW(plan, shapes)


def spans(plan: Plan, shapes: Mapping[str, torch.Size]) -> list[tuple[Rule, int, int]]:
    """Parts of a row whose weights follow one rule, from where to before where."""
    found: list[tuple[Rule, int, int]] = []
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + shape.numel()
        if found and found[-1][0] == plan.rules[name]:
            begin = found.pop()[1]
        found.append((plan.rules[name], begin, end))
    return found


class _Base:
    """What both have: rates by step and member, decay and multipliers by weight, clipping."""

    def __init__(self, plan: Plan, shapes: Mapping[str, torch.Size], moments: tuple[str, ...]) -> None:
        device, members = plan.device, len(plan.configs)
        sizes = torch.tensor([shape.numel() for shape in shapes.values()])
        rules = [plan.rules[name] for name in shapes]
        rate = torch.tensor([rule.rate for rule in rules]).repeat_interleave(sizes)
        decay = torch.tensor([rule.decay for rule in rules]).repeat_interleave(sizes)
        asked = torch.tensor([float(config["weight_decay"]) for config in plan.configs])
        self.steps = 0
        self.moments = {name: torch.zeros(members, int(sizes.sum()), device=device) for name in moments}
        self._clip = plan.trainer.clip
        self._rates = plan.rates.float().to(device)
        self._rate = None if bool((rate == 1.0).all()) else rate.to(device)
        self._now = torch.zeros(members, 1, device=device)  # rate of the step
        self._decay = decay.to(device)
        self._asked = asked.to(device)[:, None]

    def keep(self, rows: Tensor) -> None:
        """Goes on with some of the members."""
        self.moments = {name: moment[rows] for name, moment in self.moments.items()}
        self._rates = self._rates[:, rows]
        self._now = self._now[rows]
        self._asked = self._asked[rows]

    def _clipped(self, gradients: Tensor) -> Tensor:
        """Scales each row in place as ``clip_grad_norm_`` does; its norm before."""
        norms = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
        gradients.mul_((self._clip / (norms + 1e-6)).clamp_(max=1.0))
        before: Tensor = norms[:, 0]
        return before

    def set(self, step: int) -> None:
        """The rate of a step."""
        self.steps += 1
        self._now.copy_(self._rates[step][:, None])

    def _rate_now(self) -> Tensor:
        """(members, 1), or (members, weights) where weights learn at rates of their own."""
        return self._now if self._rate is None else self._now * self._rate


class AdamW(_Base):
    """Loshchilov and Hutter 2019 (arXiv 1711.05101), as ``torch.optim.AdamW`` computes it."""

    def __init__(self, plan: Plan, shapes: Mapping[str, torch.Size]) -> None:
        super().__init__(plan, shapes, ("exp_avg", "exp_avg_sq"))
        self._beta1 = plan.betas(0)[0]
        self._beta2 = torch.tensor([plan.betas(m)[1] for m in range(len(plan.configs))], device=plan.device)[
            :, None
        ]
        self._started = torch.zeros((), device=plan.device)  # how far the means have come from their zeros
        self._scale = torch.zeros_like(self._beta2)

    def set(self, step: int) -> None:
        """The rate of a step, and how much its means are still too small."""
        super().set(step)
        self._started.fill_(1.0 - self._beta1**self.steps)
        self._scale.copy_((1.0 - self._beta2**self.steps).sqrt_())

    def __call__(self, weights: Tensor, gradients: Tensor) -> Tensor:
        norms = self._clipped(gradients)
        rate = self._rate_now()
        mean, square = self.moments["exp_avg"], self.moments["exp_avg_sq"]
        weights.mul_(1.0 - rate * self._asked * self._decay)
        mean.lerp_(gradients, 1.0 - self._beta1)
        square.lerp_(gradients.square_(), 1.0 - self._beta2)
        size = torch.sqrt(square, out=gradients).div_(self._scale).add_(EPSILON)
        weights.addcdiv_(mean * (rate / self._started), size, value=-1.0)
        return norms

    def keep(self, rows: Tensor) -> None:
        """Goes on with some of the members."""
        super().keep(rows)
        self._beta2, self._scale = self._beta2[rows], self._scale[rows]


class FusedAdamW(AdamW):
    """The same by PyTorch's kernel, a call for each row and rule: one pass over the memory instead of ten."""

    def __init__(self, plan: Plan, shapes: Mapping[str, torch.Size]) -> None:
        super().__init__(plan, shapes)
        self._spans = spans(plan, shapes)
        self._step = torch.zeros(())
        self._limit = plan.trainer.clip
        self._alone = [
            (plan.betas(member)[1], float(config["weight_decay"]))
            for member, config in enumerate(plan.configs)
        ]
        self._members = list(range(len(plan.configs)))
        self._table: list[list[float]] = plan.rates.tolist()
        self._told = self._table[0]
        self._of: tuple[Tensor, ...] = ()
        self._cut: list[tuple[int, Rule, list[list[Tensor]]]] = []

    def set(self, step: int) -> None:
        """The rates of a step, as numbers: the kernel takes no tensor of them."""
        self.steps += 1
        self._step.fill_(float(self.steps))
        self._told = self._table[step]

    def __call__(self, weights: Tensor, gradients: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(gradients, dim=1)
        divisors = ((norms + 1e-6) / self._limit).clamp_(min=1.0)
        rates, divisor_of = self._told, divisors.unbind()
        for row, rule, parts in self._parts(weights, gradients):
            beta2, decay = self._alone[row]
            torch._fused_adamw_(
                parts[0],
                parts[1],
                parts[2],
                parts[3],
                [],
                [self._step],
                lr=rates[self._members[row]] * rule.rate,
                beta1=self._beta1,
                beta2=beta2,
                weight_decay=decay * rule.decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
                grad_scale=divisor_of[row],
            )
        before: Tensor = norms
        return before

    def _parts(self, weights: Tensor, gradients: Tensor) -> list[tuple[int, Rule, list[list[Tensor]]]]:
        """Views of what each call takes; cut once as long as the tensors stay the same."""
        of = (weights, gradients, *self.moments.values())
        if len(self._of) != len(of) or any(one is not other for one, other in zip(of, self._of, strict=True)):
            self._of = of
            self._cut = [
                (row, rule, [[one[row, begin:end]] for one in of])
                for row in range(len(weights))
                for rule, begin, end in self._spans
            ]
        return self._cut

    def keep(self, rows: Tensor) -> None:
        """Goes on with some of the members."""
        super().keep(rows)
        self._alone = [self._alone[row] for row in rows.tolist()]
        self._members = [self._members[row] for row in rows.tolist()]


class SGD(_Base):
    """With momentum, and decay added to the gradient, as ``torch.optim.SGD`` computes it."""

    def __init__(self, plan: Plan, shapes: Mapping[str, torch.Size]) -> None:
        super().__init__(plan, shapes, ("momentum_buffer",))

    def __call__(self, weights: Tensor, gradients: Tensor) -> Tensor:
        norms = self._clipped(gradients)
        momentum = self.moments["momentum_buffer"]
        gradients.addcmul_(weights, self._asked * self._decay)
        momentum.mul_(MOMENTUM).add_(gradients)
        weights.sub_(momentum * self._rate_now())
        return norms
