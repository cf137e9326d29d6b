"""What is known of a kind of proxy before one is built: its axes, their defaults and its derived settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class AxisRule:
    """What an axis of a proxy may hold.

    Args:
        integer: only whole numbers make sense.
        lower, upper: inclusive bounds.
        default: used where a specification leaves the axis out; None where it must be given.
    """

    integer: bool
    lower: float
    upper: float
    default: float | None


@dataclass(frozen=True)
class Kind:
    """A kind of proxy: its axes and the metrics its trainer reports, with their units."""

    axes: Mapping[str, AxisRule]
    metrics: Mapping[str, str]
    datasets: tuple[str, ...]


GPT = Kind(
    axes=MappingProxyType(
        {
            "width": AxisRule(True, 4, 65536, None),
            "depth": AxisRule(True, 1, 1024, None),
            "resolution": AxisRule(True, 8, 1 << 20, 64),
            "tokens": AxisRule(True, 1, 1e15, None),
            "lr": AxisRule(False, 1e-8, 10.0, 3e-3),
            "batch": AxisRule(True, 1, 1 << 24, 16),
            "weight_decay": AxisRule(False, 0.0, 10.0, 0.1),
            "beta2": AxisRule(False, 0.0, 0.99999, 0.95),
            "init_scale": AxisRule(False, 1e-3, 1e3, 1.0),
            "seed": AxisRule(True, 0, 1 << 31, 0),
        }
    ),
    metrics=MappingProxyType({"val_loss": "nats/byte", "train_loss": "nats/byte"}),
    datasets=("stdlib",),
)

KINDS: Mapping[str, Kind] = MappingProxyType({"gpt": GPT})

HEAD_WIDTH = 16


def heads(width: int, given: int | None = None) -> int:
    """Number of attention heads for a width.

    Without a given number it is the largest one whose heads are at least 16 wide, even (rotary
    positions turn pairs) and divide the width; one head below a width of 32.

    Args:
        width: of the residual stream.
        given: number stated by the user, returned as it is.
    """
    if given is not None:
        return given
    for count in range(max(1, width // HEAD_WIDTH), 1, -1):
        if width % count == 0 and (width // count) % 2 == 0:
            return count
    return 1
