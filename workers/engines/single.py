"""One member as a plain module with PyTorch's own optimiser."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from workers import optimizer
from workers.engines.base import Plan, State
from workers.objective import mean_loss, wrong

logger = logging.getLogger(__name__)


class Single:
    """The engine of one member.

    Args:
        plan: of a cohort of one.
        model: on the device.
    """

    def __init__(self, plan: Plan, model: nn.Module) -> None:
        self._plan = plan
        self._model = model
        quick = plan.trainer.execution == "compiled"
        # Averages the gradients of the processes while the backward pass goes on.
        shared = model if plan.team is None else _shared(model, plan.device)
        self._forward = Compiled(shared, plan.device) if quick else shared
        self._optimizer = optimizer.make(model, plan.configs[0], plan.trainer, plan.rules)
        self._rates = plan.rates[:, 0].tolist()
        self.norms = torch.zeros(1, device=plan.device)

    def step(self, step: int, inputs: Tensor, targets: Tensor) -> Tensor:
        """One optimiser step, see ``Engine``."""
        plan = self._plan
        optimizer.set_rate(self._optimizer, self._rates[step])
        with plan.precision():
            loss = mean_loss(plan.task, self._forward(inputs[0]), targets[0])
        torch.autograd.backward(loss)
        self.norms = nn.utils.clip_grad_norm_(self._model.parameters(), plan.trainer.clip)[None]
        self._optimizer.step()
        self._optimizer.zero_grad()  # here, so that the forward pass does not find old gradients in memory
        return loss.detach()[None]

    def evaluate(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss and share of wrong classes, each (1,)."""
        with torch.inference_mode(), self._plan.precision():
            outputs = self._model(inputs)
            task = self._plan.task
            return mean_loss(task, outputs, targets)[None], wrong(task, outputs, targets)[None]

    def state(self, member: int) -> State:  # noqa: ARG002
        """Weights and moments by name."""
        known = self._optimizer.state
        return {
            name: {"weight": weight.detach()} | {k: v for k, v in known[weight].items() if k != "step"}
            for name, weight in self._model.named_parameters()
        } | {"step": next((int(one["step"]) for one in known.values() if "step" in one), 0)}

    def load(self, member: int, state: State) -> None:  # noqa: ARG002
        """Takes the member to where a state stands."""
        device = self._plan.device
        with torch.no_grad():
            for name, weight in self._model.named_parameters():
                weight.copy_(state[name]["weight"])
                moments = {k: v.to(device).clone() for k, v in state[name].items() if k != "weight"}
                if self._plan.trainer.optimizer == "adamw":
                    moments["step"] = torch.tensor(float(state["step"]), device=device)
                self._optimizer.state[weight].update(moments)

    def keep(self, members: Sequence[int]) -> None:
        """A cohort of one keeps its member."""

    def model(self, member: int) -> nn.Module:  # noqa: ARG002
        """The member."""
        return self._model


def _shared(model: nn.Module, device: torch.device) -> nn.Module:
    where = None if device.type == "cpu" else [torch.cuda.current_device()]
    return DistributedDataParallel(
        model, device_ids=where, forward_sync_buffers=False, gradient_as_bucket_view=True
    )


class Compiled(nn.Module):
    """A model through ``torch.compile`` (alone on a GPU with CUDA graphs), or as it is where that fails."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self._plain = model
        graphs = device.type == "cuda" and not isinstance(model, DistributedDataParallel)
        self._use: Callable[[Tensor], Tensor] = torch.compile(
            model, mode="reduce-overhead" if graphs else "default"
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Tries the compiled model, and says once why it cannot be had."""
        try:
            outputs = self._use(inputs)
        except Exception as error:
            if self._use is self._plain:
                raise
            logger.warning("not compiled, trains as it is: %s", " ".join(str(error).split())[:500])
            self._use = self._plain
            outputs = self._use(inputs)
        return outputs
