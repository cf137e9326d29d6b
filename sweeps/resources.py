"""What a run asks Ray for, and what it is given of that."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from sweeps.axis import STRICT

PARTS = 1e4  # of a device that Ray tells apart


@dataclass(frozen=True)
class Resources:
    """What one run asks Ray for, all of its processes together.

    Args:
        processes: that train the run together, each on its share of every batch; 1 is as many as GPUs.
        sharing: ``measured`` lets several runs share the GPU that each asks for, where what was measured
            says that they fit into its memory and are faster together.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    cpus: Annotated[float, Field(gt=0, le=1024)] = 1.0
    gpus: Annotated[float, Field(ge=0, le=64)] = 0.0
    processes: Annotated[int, Field(ge=1, le=64, exclude_if=lambda given: given == 1)] = 1
    sharing: Annotated[Literal["none", "measured"], Field(exclude_if=lambda given: given == "none")] = "none"

    @property
    def threads(self) -> int:
        """Of each process."""
        return max(1, int(self.cpus / self.processes))

    @property
    def sharers(self) -> int:
        """Workers with these resources that fit on one GPU."""
        return int(1.0 / self.gpus + 1e-9) if 0.0 < self.gpus < 1.0 else 1

    def shared(self, sharers: int) -> Resources:
        """What one of so many workers gets that have the same place; of one it is all that was asked for."""
        gpus = self.gpus if sharers == 1 else math.floor(self.gpus / sharers * PARTS) / PARTS
        return replace(self, gpus=gpus, sharing="none")

    @property
    def undivided(self) -> Resources:
        """With whole GPUs in place of a share."""
        return replace(self, gpus=float(math.ceil(self.gpus)), sharing="none")
