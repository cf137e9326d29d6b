"""A stacked step as straight-line code.

``vmap`` and autograd decide anew at every step what every operation of every layer becomes; for small models
that takes most of the time. A trace decides once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

logger = logging.getLogger(__name__)

Weights: TypeAlias = dict[str, Tensor]
Gradients: TypeAlias = Callable[[Weights, Tensor, Tensor], tuple[Weights, Tensor]]

aten = torch.ops.aten
RESHAPES = frozenset(
    {aten.view.default, aten.expand.default, aten._unsafe_view.default, aten.reshape.default}
)


def traced(function: Gradients, weights: Weights, inputs: Tensor, targets: Tensor) -> Gradients:
    """The same function as straight-line code, or as it is where it cannot be traced."""
    try:
        graph = make_fx(function)(weights, inputs, targets)
        simplify(graph)
    except Exception as error:
        logger.warning("not traced, stacks as it is: %s", " ".join(str(error).split())[:500])
        return function
    return graph


def simplify(graph: GraphModule) -> None:
    """Takes out what changes nothing: half of what stacking leaves are reshapes to the same shape."""
    for node in graph.graph.nodes:
        if node.op != "call_function":
            continue
        same = _same(node)
        if same is not None:
            node.replace_all_uses_with(same)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _same(node: Node) -> Node | None:
    """What a node could be replaced by, bit for bit; None where there is nothing."""
    source = node.args[0] if node.args else None
    if not isinstance(source, Node):
        return None
    if node.target in RESHAPES and _shape(node) is not None and _shape(node) == _shape(source):
        return source
    if node.target is aten.mul.Scalar and node.args[1] == 1:
        return source
    if node.target is aten.transpose.int and source.target is aten.transpose.int:
        inner, turned = source.args[0], {*node.args[1:]} == {*source.args[1:]}
        return inner if turned and isinstance(inner, Node) else None
    return None


def _shape(node: Node) -> tuple[int, ...] | None:
    known: Any = node.meta.get("tensor_meta") or node.meta.get("val")
    return None if known is None else tuple(known.shape)
