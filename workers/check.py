"""``python -m workers.check``: what the coordinate check measures, as a process of its own.

Reads one JSON object from the standard input: ``spec``, whose axis ``width`` has the widths, ``steps`` and
``seeds``. Writes JSON to the standard output: the specification and a list of ``Coordinate``. The exit status
is 2 where the specification is wrong; the standard error then says how.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial

import torch
from torch import Tensor, nn

import conf
from sweeps import registry
from sweeps.coordinates import Coordinate
from sweeps.errors import SweepError
from sweeps.spec import SweepSpec, parse, to_dict
from workers import proxies
from workers.datasets import load
from workers.datasets.base import spread
from workers.engines.base import Plan
from workers.engines.single import Single
from workers.parametrisation import rules
from workers.proxies.model import Branch

EXAMPLES = 64  # of the one batch
LEAVES = (nn.Linear, nn.Conv2d, nn.Embedding)


def coordinates(spec: SweepSpec, steps: int, seeds: int) -> list[Coordinate]:
    """Sizes and changes of every layer's output by parametrisation, width and step, means over seeds.

    Every step trains on the same examples at the full rate, without warm-up, clipping or rounding to low
    precision, all of which could hide a rule that is wrong. Other axes take their least value.

    Args:
        spec: its axis ``width`` has the widths.
        steps: that are made; the readout starts at zero, so that others move from the second one on.
        seeds: models of each width.
    """
    least = {name: min(axis.values) for name, axis in spec.space.items()}
    found = []
    for mup in (0, 1):
        for width in spec.space["width"].values:
            config = spec.complete(least | {"mup": float(mup), "width": width})
            tables = [_sizes(spec, config | {"seed": float(seed)}, steps) for seed in range(seeds)]
            for step in range(steps + 1):
                for layer in tables[0][step]:
                    size, change = (
                        sum(table[step][layer][part] for table in tables) / seeds for part in (0, 1)
                    )
                    found.append(Coordinate(mup, int(width), step, layer, size, change))
    return found


def _sizes(spec: SweepSpec, config: Mapping[str, float], steps: int) -> list[dict[str, tuple[float, float]]]:
    """Size and change by layer, before the first step and after each."""
    device = torch.device("cpu")
    examples = load(spec.source, int(config.get("resolution", 1)), device)
    inputs, targets = examples.take("train", spread(examples.places["train"], EXAMPLES, device))
    random = torch.Generator().manual_seed(int(config["seed"]))
    model = proxies.build(config, spec.proxy, spec.source, random)
    trainer = replace(
        spec.trainer,
        schedule="constant",
        warmup=0.0,
        decay=0.0,
        clip=math.inf,
        precision="float32",
        execution="plain",
    )
    told = rules(model, config, spec.proxy, trainer.optimizer)
    engine = Single(Plan(spec.source.task, trainer, [dict(config)], [steps], told, device), model)
    first, found = _outputs(model, inputs), []
    for step in range(steps + 1):
        now = _outputs(model, inputs)
        found.append({layer: (_mean(now[layer]), _mean(now[layer] - first[layer])) for layer in now})
        if step < steps:
            engine.step(step, inputs[None], targets[None])
    return found


def _outputs(model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """What every layer with weights gives, and every block, by name."""
    found: dict[str, Tensor] = {}
    handles = [
        part.register_forward_hook(partial(_keep, found, name))
        for name, part in model.named_modules()
        if isinstance(part, (*LEAVES, Branch))
    ]
    with torch.inference_mode():
        model(inputs)
    for handle in handles:
        handle.remove()
    return found


def _keep(into: dict[str, Tensor], name: str, _module: nn.Module, _inputs: object, output: Tensor) -> None:
    into[name] = output


def _mean(output: Tensor) -> float:
    return float(output.abs().mean())


def main() -> int:
    """The process."""
    request = json.load(sys.stdin)
    try:
        registry.load(conf.load())
        spec = parse(request["spec"])
        found = coordinates(spec, int(request["steps"]), int(request["seeds"]))
    except (SweepError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    json.dump({"spec": to_dict(spec), "coordinates": [asdict(one) for one in found]}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
