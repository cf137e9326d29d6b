"""The built networks are what ``sweeps.kinds`` counts from their shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from sweeps.cost import Cost
from sweeps.data import DIGITS, GLYPHS, STDLIB, TEACHER, Source
from sweeps.kinds import BUILT_IN
from sweeps.proxy import Proxy
from sweeps.spec import Config
from workers.proxies import build
from workers.proxies.model import Model, groups, roles

COLOURED = replace(GLYPHS, name="coloured", channels=3, outputs=5)
VALUED = replace(GLYPHS, name="valued", task="values", outputs=2)
Shape = tuple[Config, Proxy, Source]


@st.composite
def shapes(draw: st.DrawFn, kind: str) -> Shape:
    """Small shapes of a kind, of one step."""
    heads = draw(st.integers(1, 3))
    images = [GLYPHS, COLOURED, VALUED, DIGITS]
    learnt = {"gpt": [STDLIB, replace(STDLIB, outputs=50)], "mlp": [TEACHER, *images]}
    source = draw(st.sampled_from(learnt.get(kind, images)))
    patch, side = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    resolution = {"gpt": draw(st.integers(8, 24)), "convnet": 4 * side, "vit": patch * side}.get(kind, side)
    if source.features is not None:
        resolution = 1
    elif source.resolution is not None:
        resolution, patch = source.resolution, draw(st.sampled_from([1, 2, 4]))
    multiple = {"gpt": 2 * heads, "vit": heads}.get(kind, 1)
    group_width = draw(st.integers(0, 3)) if kind == "convnet" else 0
    config = {
        "width": float(multiple * (group_width or 1) * draw(st.integers(4, 9))),
        "depth": float(draw(st.integers(1, 3))),
        "resolution": float(resolution),
        "batch": float(draw(st.integers(1, 3))),
        "init_scale": 1.0,
        "patch": float(patch),
        "group_width": float(group_width),
    }
    config["tokens"] = config["batch"] * (config["resolution"] if kind == "gpt" else 1.0)
    return config, Proxy(kind, source.name, heads if kind in ("gpt", "vit") else None), source


ANY = st.sampled_from([*BUILT_IN]).flatmap(shapes)


def cost(shape: Shape) -> Cost:
    config, proxy, source = shape
    found = BUILT_IN[proxy.kind].cost(config, proxy, source)
    return Cost(**{name: float(value) for name, value in found.items()})


def built(shape: Shape, seed: int = 0) -> Model:
    return build(*shape, torch.Generator().manual_seed(seed))


def batch(shape: Shape, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs and what is to be predicted of them."""
    config, _, source = shape
    size, resolution = int(config["batch"]), int(config["resolution"])
    random = torch.Generator().manual_seed(seed)
    if source.task == "tokens":
        text = torch.randint(0, source.outputs, (size, resolution + 1), generator=random)
        return text[:, :-1], text[:, 1:]
    row = (source.features,) if source.features else (source.channels, resolution, resolution)
    inputs = torch.randn(size, *row, generator=random)
    if source.task == "values":
        return inputs, torch.randn(size, source.outputs, generator=random)
    return inputs, torch.randint(0, source.outputs, (size,), generator=random)


def loss_of(outputs: Tensor, wanted: Tensor) -> Tensor:
    if wanted.is_floating_point():
        return F.mse_loss(outputs, wanted)
    return F.cross_entropy(outputs.flatten(0, -2), wanted.flatten())


@settings(max_examples=60)
@given(ANY)
def test_parameters_by_group_are_those_of_the_built_model(shape: Shape) -> None:
    counted, model = cost(shape), built(shape)
    assert groups(model) == {name: getattr(counted, name) for name in groups(model)}
    assert sum(groups(model).values()) == counted.params_total == sum(w.numel() for w in model.parameters())


@settings(max_examples=60)
@given(ANY)
def test_flops_are_those_of_every_product_that_runs(shape: Shape) -> None:
    """The counter leaves out what a first layer's inputs would take backward, and takes the backward pass of
    grouped convolutions for that of others; the cost has neither."""
    config, proxy, _ = shape
    model, (inputs, wanted) = built(shape), batch(shape)
    entering: list[Tensor] = []
    model.embedding.register_forward_pre_hook(lambda _, args: entering.extend(args))
    with sdpa_kernel(SDPBackend.MATH):  # products, not a kernel's name
        with FlopCounterMode(display=False) as forward:
            outputs = model(inputs)
        with FlopCounterMode(display=False) as backward:
            loss_of(outputs, wanted).backward()
    total = forward.get_total_flops()
    assert 3 * total == cost(shape).flops
    if proxy.kind == "convnet" and config["group_width"] > 0:
        return
    with torch.no_grad(), FlopCounterMode(display=False) as first:
        model.embedding(entering[0])
    assert backward.get_total_flops() == 2 * total - first.get_total_flops()


@settings(max_examples=60)
@given(ANY)
def test_activations_are_the_numbers_autograd_keeps(shape: Shape) -> None:
    model, (inputs, wanted) = built(shape), batch(shape)
    given = [*model.parameters(), *model.buffers(), inputs, wanted]
    own = {tensor.untyped_storage().data_ptr() for tensor in given}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.is_floating_point() and tensor.ndim > 0 and storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = loss_of(model(inputs), wanted)
    assert sum(kept.values()) == cost(shape).activations
    assert loss.requires_grad  # the graph, and so every storage, was alive until here


@pytest.mark.parametrize("kind", BUILT_IN)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_members_of_a_stack_train_as_alone(kind: str, data: st.DataObject) -> None:
    """Traced and over stacked parameters, as a trainer of many at once runs them."""
    shape = data.draw(shapes(kind))
    models, given_batches = (
        [built(shape, seed) for seed in range(2)],
        [batch(shape, seed) for seed in range(2)],
    )
    with torch.no_grad():
        for model in models:
            model.head.weight.normal_(generator=torch.Generator().manual_seed(9))
    stacked, _ = stack_module_state(list[nn.Module](models))
    inputs, wanted = (torch.stack(part) for part in zip(*given_batches, strict=True))

    def loss(weights: dict[str, Tensor], inputs: Tensor, wanted: Tensor) -> Tensor:
        return loss_of(functional_call(models[0], weights, (inputs,)), wanted)

    with sdpa_kernel(SDPBackend.MATH):  # the CPU's flash kernel is not for stacks
        step = make_fx(vmap(grad_and_value(loss)))(stacked, inputs, wanted)
        gradients, losses = step(stacked, inputs, wanted)
    for member, model in enumerate(models):
        alone = loss_of(model(inputs[member]), wanted[member])
        alone.backward()
        torch.testing.assert_close(losses[member], alone.detach())
        for name, weight in model.named_parameters():
            torch.testing.assert_close(gradients[name][member], weight.grad, rtol=1e-4, atol=1e-5)


@settings(max_examples=30)
@given(ANY)
def test_the_first_loss_is_that_of_guessing(shape: Shape) -> None:
    model, (inputs, wanted) = built(shape), batch(shape)
    source = shape[2]
    assert not model(inputs).any()
    if source.task != "values":
        assert loss_of(model(inputs), wanted).item() == pytest.approx(source.guessing, rel=1e-6)


@settings(max_examples=30)
@given(ANY)
def test_roles_say_which_sides_of_a_weight_grow(shape: Shape) -> None:
    """Twice the width doubles the fan-in of hidden and output weights and of no others, groups not."""
    config, proxy, source = shape
    wider = (config | {"width": 2 * config["width"]}, proxy, source)
    small, large = roles(built(shape)), roles(built(wider))
    shapes_of = [{name: w.shape for name, w in built(one).named_parameters()} for one in (shape, wider)]
    assert small.keys() == large.keys() == shapes_of[0].keys()
    for name, weight in small.items():
        out = shapes_of[1][name][0] / shapes_of[0][name][0]
        grown = large[name].fan_in / weight.fan_in
        if weight.role == "vector":
            assert weight.fan_in == large[name].fan_in == 1
        elif isinstance(built(shape).get_submodule(name.rpartition(".")[0]), nn.Embedding):
            assert (weight.role, weight.fan_in) == ("input", 1)
        else:
            assert (out, grown) == {"input": (2, 1), "hidden": (2, 2), "output": (1, 2)}[weight.role]


@pytest.mark.parametrize("kind", BUILT_IN)
def test_init_scale_multiplies_hidden_matrices_only(kind: str) -> None:
    source = STDLIB if kind == "gpt" else GLYPHS
    config = {
        "width": 16.0,
        "depth": 2.0,
        "resolution": 8.0,
        "init_scale": 1.0,
        "patch": 4.0,
        "group_width": 0.0,
    }
    once, thrice = (built((config | {"init_scale": s}, Proxy(kind), source)) for s in (1.0, 3.0))
    for (name, a), b in zip(once.named_parameters(), thrice.parameters(), strict=True):
        torch.testing.assert_close(a * (3 if roles(once)[name].role == "hidden" else 1), b)


MEASURED = [
    ("mlp", TEACHER, {"width": 64, "depth": 3, "resolution": 1, "batch": 32}),
    ("mlp", GLYPHS, {"width": 32, "depth": 2, "resolution": 16, "batch": 256}),
    ("mlp", DIGITS, {"width": 8, "depth": 4, "resolution": 8, "batch": 512}),
    ("convnet", GLYPHS, {"width": 8, "depth": 1, "resolution": 16, "batch": 32}),
    ("convnet", GLYPHS, {"width": 16, "depth": 3, "resolution": 8, "batch": 16}),
    ("convnet", GLYPHS, {"width": 8, "depth": 2, "resolution": 32, "batch": 8, "group_width": 4}),
    ("convnet", GLYPHS, {"width": 48, "depth": 1, "resolution": 8, "batch": 2}),
    ("vit", GLYPHS, {"width": 16, "depth": 2, "resolution": 16, "batch": 32}),
    ("vit", GLYPHS, {"width": 64, "depth": 1, "resolution": 32, "batch": 8}),
    ("vit", DIGITS, {"width": 32, "depth": 4, "resolution": 8, "batch": 16, "patch": 2}),
    ("gpt", STDLIB, {"width": 16, "depth": 3, "resolution": 64, "batch": 8}),
]


@pytest.mark.parametrize(("kind", "source", "at"), MEASURED)
def test_memory_is_the_measured_peak_of_a_step(kind: str, source: Source, at: dict[str, float]) -> None:
    """Within 9 %."""
    config = {"patch": 4.0, "group_width": 0.0, "init_scale": 1.0, "tokens": 1e6} | at
    shape = (config, Proxy(kind, source.name), source)
    model, (inputs, wanted) = built(shape), batch(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        torch.autograd.backward(loss_of(model(inputs), wanted))
        optimizer.step()
        optimizer.zero_grad()

    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    peak = used = 0
    for event in sorted(
        (event for event in events if event.name() == "[memory]"), key=lambda event: event.start_ns()
    ):
        used += event.nbytes()
        peak = max(peak, used)
    moments = sum(part.nbytes for parts in optimizer.state.values() for part in parts.values())
    standing = sum(weight.nbytes for weight in model.parameters()) + moments + inputs.nbytes + wanted.nbytes
    assert cost(shape).memory == pytest.approx(standing + peak, rel=0.09)
