"""The processes of a worker on Ray: one, or several on one placement group that train one run together."""

from __future__ import annotations

import contextlib
import functools
import math
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util import get_placement_group, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sweeps.resources import Resources
from workers.host import Host, Mates

NAMESPACE = "scalewise"

_Worker: Any = ray.remote(Host)


@dataclass
class Crew:
    """The processes of a worker.

    Args:
        first: that the pool talks to.
        others: of the same training.
        group: their placement group.
        watches: calls to the others that end when something is wrong with them; with their number.
    """

    first: Any
    others: list[Any] = field(default_factory=list)
    group: Any = None
    watches: dict[Any, int] = field(default_factory=dict)

    def prepare(self) -> Any:
        """The call that ends when the first process is ready; the others get ready as they are watched."""
        if not self.others:
            return self.first.prepare.remote()
        self.watch()
        leave = functools.partial(remove_placement_group, self.group)
        return self.first.prepare.remote(Mates(self.others, ray.util.get_node_ip_address, leave))

    def watch(self) -> None:
        """Begins to listen whether the others are well."""
        self.watches |= {other.watch.remote(): rank for rank, other in enumerate(self.others, 1)}

    def trouble(self) -> str | None:
        """What is wrong with one of the others; None as long as nothing is."""
        if not self.watches:
            return None
        over, _ = ray.wait(list(self.watches), num_returns=len(self.watches), timeout=0)
        for ref in over:
            rank = self.watches.pop(ref)
            try:
                return f"process {rank} of the run broke: {ray.get(ref)}"
            except RayError as error:
                return f"process {rank} of the run died: {' '.join(str(error).split())[:300]}"
        return None

    def dismiss(self) -> None:
        """Ends all of them and frees what they hold."""
        with contextlib.suppress(RayError):
            for actor in [self.first, *self.others]:
                ray.kill(actor)
            if self.group is not None:
                remove_placement_group(self.group)


def parts(resources: Resources) -> dict[str, float]:
    """What one process of a run asks for."""
    count = resources.processes
    # Ray counts in ten-thousandths.
    return {
        "CPU": math.floor(resources.cpus / count * 1e4) / 1e4,
        "GPU": resources.gpus / count,
    }


def hire(name: str, resources: Resources, detached: bool) -> Crew:
    """Starts the processes of a worker.

    Args:
        name: by which they are found again.
        detached: they outlive this process.

    Raises:
        ValueError: Ray cannot give such resources.
    """
    asked, count = parts(resources), resources.processes
    options: dict[str, Any] = {"lifetime": "detached"} if detached else {}
    group = None
    if count > 1:
        bundle = {kind: amount for kind, amount in asked.items() if amount > 0}
        group = placement_group([bundle] * count, strategy="PACK", name=name, **options)
    actors = []
    for rank in range(count):
        place = (
            {} if group is None else {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, rank)}
        )
        made = _Worker.options(
            name=_name(name, rank),
            namespace=NAMESPACE,
            num_cpus=asked["CPU"],
            num_gpus=asked["GPU"],
            max_concurrency=4,
            **options,
            **place,
        )
        actors.append(made.remote(resources, lonely=detached))
    return Crew(actors[0], actors[1:], group)


def find(name: str, first: Any, resources: Resources) -> Crew:
    """The crew of a live first process.

    Raises:
        ValueError: another process of it is gone.
    """
    if resources.processes == 1:
        return Crew(first)
    others = [ray.get_actor(_name(name, rank), namespace=NAMESPACE) for rank in range(1, resources.processes)]
    crew = Crew(first, others, get_placement_group(name))
    crew.watch()
    return crew


def clear(name: str) -> None:
    """Frees what a worker held whose first process is gone."""
    with contextlib.suppress(ValueError, RayError):
        remove_placement_group(get_placement_group(name))


def _name(worker: str, rank: int) -> str:
    return f"{worker}/{rank}" if rank else worker
