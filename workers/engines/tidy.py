"""Leaves out of straight-line code what changes no number: for small models every operation counts."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

aten = torch.ops.aten
RESHAPES = {aten.view.default, aten._unsafe_view.default, aten.expand.default, aten.reshape.default}


def tidy(graph: fx.GraphModule) -> fx.GraphModule:
    """Drops reshapes to the same shape, products with 1, transpositions that undo one another, everything
    that is computed twice and everything that nobody reads; the graph must be free of chance and writes."""
    known: dict[Any, fx.Node] = {}
    for node in list(graph.graph.nodes):
        if node.op != "call_function":
            continue
        same = _same(node)
        if same is None:
            key = (node.target, str(node.args), str(node.kwargs))
            same = known.setdefault(key, node)
        if same is not node:
            node.replace_all_uses_with(same)
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _same(node: fx.Node) -> fx.Node | None:
    """The operand that the node's value equals in every number, shape and stride."""
    of = node.args[0] if node.args else None
    if not isinstance(of, fx.Node):
        return None
    if node.target in RESHAPES and _layout(node) == _layout(of):
        return of
    if node.target is aten.mul.Scalar and node.args[1] == 1 and _layout(node) == _layout(of):
        return of
    undone = of.args[0] if of.target is aten.transpose.int and node.target is aten.transpose.int else None
    if isinstance(undone, fx.Node) and sorted(of.args[1:]) == sorted(node.args[1:]):  # type: ignore[type-var]
        return undone
    return None


def _layout(node: fx.Node) -> object:
    told = node.meta.get("tensor_meta")
    return None if told is None else (told.shape, told.stride, told.dtype)
