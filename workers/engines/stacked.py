"""Members of equal shape as one stacked model: every operation does the work of all of them.

The step of one member, gradients included, is written for a plain module; ``vmap`` makes it that of all, and
tracing it once leaves straight-line code: most of the time of small models would go into dispatching.
All weights of a member lie in one row, so that clipping and the optimiser take a handful of operations.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from workers.engines.base import Plan, State
from workers.engines.graphs import WARM_STEPS, Body, captured
from workers.engines.tracing import Gradients, Weights, traced
from workers.engines.updates import Update, make_update
from workers.objective import mean_loss_by_gather, wrong

_choosing = threading.Lock()


class Stacked:
    """The engine of any number of members.

    Args:
        plan: of the cohort.
        models: one a member, equal in shape; they are read once.
    """

    def __init__(self, plan: Plan, models: Sequence[nn.Module]) -> None:
        self._plan = plan
        order = {rule: place for place, rule in enumerate(dict.fromkeys(plan.rules.values()))}
        self._shapes = {  # in a row weights of one rule lie side by side
            name: weight.shape
            for name, weight in sorted(
                models[0].named_parameters(), key=lambda one: order[plan.rules[one[0]]]
            )
        }
        self._skeleton = deepcopy(models[0]).to("meta")
        self._buffers = {name: buffer.to(plan.device) for name, buffer in models[0].named_buffers()}
        named = [dict(model.named_parameters()) for model in models]
        rows = [torch.cat([one[name].detach().flatten() for name in self._shapes]) for one in named]
        self._flat = torch.stack(rows).to(plan.device)
        self._slope = torch.empty_like(self._flat)
        self._update: Update = make_update(plan, self._shapes)
        self._gradients: Gradients | None = None
        self._quick = plan.trainer.execution == "compiled" and plan.device.type == "cuda"
        self._body: Body = self._whole
        self._warm = 0  # steps since shapes or tensors were others
        self._shape: tuple[torch.Size, torch.Size] | None = None
        self.norms = torch.zeros(len(models), device=plan.device)

    def step(self, step: int, inputs: Tensor, targets: Tensor) -> Tensor:
        """One optimiser step of every member, see ``Engine``."""
        if self._gradients is None or self._shape != (inputs.shape, targets.shape):
            all_at_once = vmap(grad_and_value(lambda own, x, y: self._measures(own, x, y)[0]))
            self._gradients = traced(all_at_once, self._weights(), inputs, targets)
            self._shape = inputs.shape, targets.shape
            self._body, self._warm = self._whole, 0
        with torch.no_grad():
            self._update.set(step)
            if self._quick and self._warm == WARM_STEPS:
                self._body = captured(self._whole, inputs, targets)
            losses, self.norms = self._body(inputs, targets)
        self._warm += 1
        return losses

    def _whole(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What every step does alike: losses and norms, each (members,)."""
        assert self._gradients is not None
        gradients, losses = self._gradients(self._weights(), inputs, targets)
        parts = [gradients.pop(name).flatten(1) for name in self._shapes]
        torch.cat(parts, dim=1, out=self._slope)
        del parts
        return losses.detach(), self._update(self._flat, self._slope)

    def evaluate(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss and share of wrong classes, each (members,)."""
        with torch.no_grad():
            return vmap(self._measures, in_dims=(0, None, None))(self._weights(), inputs, targets)

    def state(self, member: int) -> State:
        """Weights and moments by name."""
        rows = {"weight": self._flat[member]} | {k: v[member] for k, v in self._update.moments.items()}
        # Copies: what writes a view to disk writes all that it is a view of.
        split = {kind: self._split(row.clone()) for kind, row in rows.items()}
        named = {name: {kind: split[kind][name] for kind in split} for name in self._shapes}
        return named | {"step": self._update.steps}

    def load(self, member: int, state: State) -> None:
        """Takes a member to where a state stands."""
        self._update.steps = state["step"]
        for kind, rows in {"weight": self._flat, **self._update.moments}.items():
            found = [state[name].get(kind) for name in self._shapes]
            if found[0] is not None:
                rows[member] = torch.cat([part.flatten() for part in found]).to(rows.device)

    def keep(self, members: Sequence[int]) -> None:
        """Goes on with some of the members only."""
        rows = torch.tensor(members, device=self._flat.device)
        self._flat = self._flat[rows]
        self._slope = torch.empty_like(self._flat)
        self._update.keep(rows)
        self._gradients = None
        self.norms = self.norms[rows]

    def model(self, member: int) -> nn.Module:
        """A copy of a member as a plain module."""
        model = deepcopy(self._skeleton).to_empty(device=self._plan.device)
        model.load_state_dict({**self._split(self._flat[member]), **self._buffers}, strict=False)
        for name, buffer in model.named_buffers():
            buffer.copy_(self._buffers[name])
        return model

    def _measures(self, weights: Weights, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        task = self._plan.task
        # Fused attention has no rule for a further axis; this form has. Which forms are allowed is the
        # process's: two threads that leave in another order than they came would leave it changed.
        with _choosing, self._plan.precision(), sdpa_kernel(SDPBackend.MATH):
            outputs = functional_call(self._skeleton, {**weights, **self._buffers}, (inputs,))
            return mean_loss_by_gather(task, outputs, targets), wrong(task, outputs, targets)

    def _weights(self) -> Weights:
        return self._split(self._flat)

    def _split(self, flat: Tensor) -> Weights:
        """Views of each parameter: (..., all) to (..., *shape)."""
        parts = torch.split(flat, [shape.numel() for shape in self._shapes.values()], dim=-1)
        return {
            name: part.view(*flat.shape[:-1], *shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }
