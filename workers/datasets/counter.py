"""Random numbers that are a function of a counter: the same on every machine, in any order, on any device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# splitmix64 (Steele et al. 2014, "Fast splittable pseudorandom number generators"), in two's complement.
_STEP, _FIRST, _SECOND = (
    number - (1 << 64) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
UNIT = 2.0**-24


def mix(counter: Tensor) -> Tensor:
    """64 random bits of each counter, int64 for int64; no two counters have the same."""
    bits = counter * _STEP
    bits = (bits ^ _right(bits, 30)) * _FIRST
    bits = (bits ^ _right(bits, 27)) * _SECOND
    return bits ^ _right(bits, 31)


def weyl(counter: Tensor) -> Tensor:
    """64 bits of each counter that are more even than random over consecutive ones, int64."""
    return counter * _STEP


def uniform(counter: Tensor, count: int) -> Tensor:
    """Numbers in [0, 1) with 24 bits each.

    Args:
        counter: int64, (*s).
        count: numbers for each counter.

    Returns:
        float32, (*s, count).
    """
    each = counter[..., None] * count + torch.arange(count, device=counter.device)
    return _right(mix(each), 40).float() * UNIT


def below(counter: Tensor, limit: int) -> Tensor:
    """Whole numbers from 0 to below a limit of at most 2^31, int64."""
    return _right(mix(counter), 33) * limit >> 31


def normal(counter: Tensor) -> Tensor:
    """Nearly normal numbers of mean 0 and variance 1: sums of four even ones, which ends at 3.46; float32."""
    bits = mix(counter)
    total = (bits & 0xFFFF) + (bits >> 16 & 0xFFFF) + (bits >> 32 & 0xFFFF) + (bits >> 48 & 0xFFFF)
    return (total.float() - 2 * 0xFFFF) * (math.sqrt(3.0) / 0x10000)


def shuffled(count: int) -> Tensor:
    """The places 0 to count - 1 in a fixed random order, int64, (count) on the host."""
    return torch.argsort(mix(torch.arange(count)))


def _right(bits: Tensor, by: int) -> Tensor:
    """Shift to the right that fills up with zeros."""
    return bits >> by & (1 << 64 - by) - 1
