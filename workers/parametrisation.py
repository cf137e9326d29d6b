"""How fast each parameter learns and how it decays, relative to what a run asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from sweeps.proxy import Proxy
from workers.proxies.model import Model, Multiples, Weight, multiples, roles


@dataclass(frozen=True)
class Rule:
    """Of one parameter.

    Args:
        rate: times the run's learning rate.
        decay: times the run's weight decay.
    """

    rate: float = 1.0
    decay: float = 1.0


def rules(model: nn.Module, config: Mapping[str, float], proxy: Proxy, optimizer: str) -> Mapping[str, Rule]:
    """Of every parameter by name, standard or, where the axis ``mup`` is 1, of maximal update.

    Of networks of the user's own nothing is known but their shapes: they are standard. Matrices of matrix
    products decay, look-up tables and vectors do not.

    Args:
        config: width, depth and mup are read.
        proxy: says the base width and depth, at which both are one.
        optimizer: ``adamw`` or ``sgd``.
    """
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    known = (multiples(config, proxy), roles(model)) if isinstance(model, Model) else None
    found = {}
    for name, weight in model.named_parameters():
        rule = Rule()
        if known is not None:
            times, parts = known
            rule = _adam(parts[name], times) if optimizer == "adamw" else _sgd(parts[name], times, name)
        decays = weight.ndim >= 2 and id(weight) not in tables
        found[name] = Rule(rule.rate, rule.decay if decays else 0.0)
    return found


def _adam(weight: Weight, times: Multiples) -> Rule:
    """Yang et al. 2022, arXiv 2203.03466, table 8, with AdamW's decay by arXiv 2510.15262.

    Adam moves each number by about the rate, whatever its gradient. Moves of the numbers that one output sums
    over agree in sign, so where their count grows with the width the rate is over the width; the readout has
    its multiplier for that. In a branch multiplied by depth^(-1/2) the moves of depth branches add up to rate
    depth^(1/2), so the rate there is over sqrt(depth) (Dey et al. 2025, arXiv 2505.01618, table 1 at alpha =
    1/2).

    PyTorch's AdamW shrinks weights by rate x decay a step, which comes to rest against the moves at a root
    mean square of sqrt(rate / decay). The top singular value of a hidden matrix then goes as sqrt(rate /
    decay) width^(3/4), and with the rate over the width the decay must go as sqrt(width) to keep it (arXiv
    2510.15262; rate x decay goes as width^(-1/2)). Numbers of inputs and readouts rest at sqrt(rate / decay),
    which does not know the width: their decay is that of the standard parametrisation.
    """
    hidden = weight.role == "hidden"
    rate = 1.0 / times.width if hidden else 1.0
    if weight.branch:
        rate /= math.sqrt(times.depth)
    return Rule(rate, math.sqrt(times.width) if hidden else 1.0)


def _sgd(weight: Weight, times: Multiples, name: str) -> Rule:
    """Yang et al. 2022, arXiv 2203.03466, table 8: hidden x 1, all else x width.

    Gradients of hidden numbers are of order 1 / width and their inputs' moves add up over the width. Inputs
    and biases have the same gradients with nothing to add up, readouts a multiplier over the width twice, in
    the forward pass and in the gradient. The bias of the readout knows no width. Branches multiplied by
    depth^(-1/2) have gradients of that order too: depth of them add up to one at one rate (Bordelon et al.
    2023, arXiv 2309.16620). Decay is over the multiple of the rate, so that rate x decay is the same at every
    width, as in microsoft/mup's MuSGD.
    """
    own = weight.role == "hidden" or (weight.role == "vector" and name.startswith("head."))
    rate = 1.0 if own else times.width
    return Rule(rate, 1.0 / rate)
