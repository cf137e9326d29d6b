"""The kinds of proxies, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sweeps.kinds.base import Kind
from sweeps.kinds.convnet import CONVNET
from sweeps.kinds.gpt import GPT
from sweeps.kinds.mlp import MLP
from sweeps.kinds.own import MODULE, TRAINER
from sweeps.kinds.vit import VIT

BUILT_IN: Mapping[str, Kind] = MappingProxyType({"mlp": MLP, "convnet": CONVNET, "vit": VIT, "gpt": GPT})
KINDS: Mapping[str, Kind] = MappingProxyType({**BUILT_IN, "own": TRAINER, "module": MODULE})
