"""Faults to plant into a healthy run, and what names them rightly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradlab import Monitor, Snapshot
from gradlab.quantities import (
    GradNonFinite,
    GradNorm,
    GradRMS,
    GradZeros,
    ParamNorm,
    Quantity,
    Saturation,
    UpdateRatio,
)

from ._zoo import Net

QUANTITIES: tuple[Quantity, ...] = (
    GradNorm(),
    GradRMS(),
    GradNonFinite(),
    GradZeros(),
    ParamNorm(),
    UpdateRatio(),
    Saturation(),
)


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        name: Its name.
        right: Codes of pathologies that name it rightly.
        fits: Whether it is one in this network.
        plant: Changes the new model.
        at_step: Changes the model before a step.
        loss: Changes the loss, from the step, the loss and the output.
        grads: Changes the gradients before the optimizer sees them.
        learning_rate: What the learning rate is multiplied by.
        inputs: What the inputs are multiplied by.
        seen_at: The first step at which it can be seen.
    """

    name: str
    right: frozenset[str]
    fits: Callable[[Net], bool] = lambda net: True
    plant: Callable[[nn.Sequential], None] = lambda model: None
    at_step: Callable[[nn.Sequential, int], None] = lambda model, step: None
    loss: Callable[[int, Tensor, Tensor], Tensor] = lambda step, loss, output: loss
    grads: Callable[[nn.Module], None] = lambda model: None
    learning_rate: float = 1.0
    inputs: float = 1.0
    seen_at: int = 0


def trace(net: Net, seed: int, steps: int, fault: Fault | None) -> Iterator[Snapshot]:
    """Train, and yield the snapshot of each step.

    Args:
        net: What to train.
        seed: Of its weights and its batches.
        steps: How many.
        fault: What to plant; None for a control.
    """
    fault = fault or Fault("none", frozenset())
    torch.manual_seed(seed)
    maker = torch.Generator().manual_seed(seed + 1000)
    model = net.build()
    fault.plant(model)
    optimizer = net.optimizer(model, fault.learning_rate)
    seen: list[Snapshot] = []
    with Monitor(
        model,
        optimizer,
        quantities=QUANTITIES,
        activations=True,
        sinks=[seen.append],
    ):
        for step in range(steps):
            fault.at_step(model, step)
            x, y = net.batch(maker)
            optimizer.zero_grad()
            output = model(x if fault.inputs == 1 else x * fault.inputs)
            loss = nn.functional.cross_entropy(output, y)
            fault.loss(step, loss, output).backward()
            fault.grads(model)
            optimizer.step()
            yield from seen
            seen.clear()


def _weights(model: nn.Module) -> list[nn.Parameter]:
    kinds = (nn.Linear, nn.Conv2d, nn.RNNBase)
    layers = [m for m in model.modules() if isinstance(m, kinds)]
    return [p for m in layers for p in m._parameters.values() if p is not None]


def _scale(factor: float) -> Callable[[nn.Sequential], None]:
    def plant(model: nn.Sequential) -> None:
        with torch.no_grad():
            for p in _weights(model)[:-2]:
                if p.ndim > 1:
                    p.mul_(factor)

    return plant


def _sigmoids(model: nn.Sequential) -> None:
    for i, layer in enumerate(model):
        if isinstance(layer, nn.ReLU | nn.Tanh | nn.GELU):
            model[i] = nn.Sigmoid()


def _torch_init(model: nn.Sequential) -> None:
    """PyTorch's own initialization, gain √(1/3), under ReLU: too small for depth."""
    for layer in model:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.reset_parameters()


def _activated(model: nn.Sequential) -> list[int]:
    """Places of the layers with a bias that a ReLU comes after."""
    kinds = (nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)
    pairs = zip(model, list(model)[1:], strict=False)
    return [
        i
        for i, (layer, after) in enumerate(pairs)
        if isinstance(layer, kinds) and isinstance(after, nn.ReLU)
    ]


def _dead(model: nn.Sequential) -> None:
    places = _activated(model)
    layer = model[places[len(places) // 2]]
    assert isinstance(layer, nn.Linear | nn.Conv2d | nn.BatchNorm1d | nn.BatchNorm2d)
    with torch.no_grad():
        assert layer.bias is not None
        layer.bias.fill_(-30.0)


def _middle(model: nn.Sequential) -> nn.Module:
    """A layer in the middle, or the body of a recurrent network."""
    owners = [m for m in model if next(m.parameters(), None) is not None]
    return owners[(len(owners) - 1) // 2]


def _detach(model: nn.Sequential) -> None:
    _middle(model).register_forward_hook(lambda module, args, out: out.detach())


def _bad_root(model: nn.Sequential, step: int) -> None:
    """From step 20 a root of zero beside a layer: finite forward, NaN backward."""
    if step == 20:
        _middle(model).register_forward_hook(
            lambda module, args, out: out + (out * 0).square().sum().sqrt()
        )


def _freeze(model: nn.Sequential, step: int) -> None:
    if step == 20:
        _middle(model).requires_grad_(False)
        for p in _middle(model).parameters():
            p.grad = None


def _log_of_zero(step: int, loss: Tensor, output: Tensor) -> Tensor:
    return loss + (output * 0).abs().log().mean() if step >= 20 else loss


def _float16(model: nn.Module) -> None:
    """Gradients that went through float16 without a loss scale, 1e-7 in size."""
    for p in model.parameters():
        if p.grad is not None:
            p.grad.copy_((p.grad * 3e-6).half())


def _zero_layer(model: nn.Sequential) -> None:
    with torch.no_grad():
        for p in _middle(model).parameters():
            p.zero_()


def _spectral_radius(model: nn.Sequential) -> None:
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "weight_hh" in name:
                p.copy_(torch.eye(p.shape[0]) * 3.0)


def _depth(net: Net) -> int:
    return sum(p.ndim > 1 for p in _weights(net.build()))


def _set(*codes: str) -> frozenset[str]:
    return frozenset(codes)


UNSTABLE = _set("update_too_large", "sudden_growth", "non_finite")

FAULTS: tuple[Fault, ...] = (
    Fault(
        "sigmoid_depth",
        _set("vanishing"),
        lambda net: net.plain and _depth(net) >= 6,
        plant=_sigmoids,
    ),
    Fault(
        "tiny_init",
        _set("vanishing"),
        lambda net: net.plain and _depth(net) >= 6,
        plant=_scale(0.2),
    ),
    Fault(
        "torch_init_in_depth",
        _set("vanishing"),
        lambda net: net.plain and _depth(net) >= 10,
        plant=_torch_init,
    ),
    Fault(
        "huge_init",
        _set("exploding", "saturated_units", *UNSTABLE),
        lambda net: net.plain and _depth(net) >= 5,
        plant=_scale(5.0),
    ),
    Fault("learning_rate_x300", UNSTABLE | _set("dead_units"), learning_rate=300.0),
    Fault("learning_rate_x1e-7", _set("update_too_small"), learning_rate=1e-7),
    Fault(
        "dead_relu",
        _set("dead_units"),
        lambda net: bool(_activated(net.build())),
        plant=_dead,
    ),
    Fault(
        "saturated_tanh",
        _set("vanishing", "saturated_units"),
        lambda net: any(isinstance(m, nn.Tanh) for m in net.build()),
        inputs=100.0,
    ),
    Fault("frozen_layer", _set("disconnected"), at_step=_freeze, seen_at=20),
    Fault("detached_branch", _set("disconnected"), plant=_detach),
    Fault(
        "zero_layer",
        _set("dead_units"),
        # Behind a tanh a layer of zeros recovers by itself.
        lambda net: net.plain and bool(_activated(net.build())),
        plant=_zero_layer,
    ),
    Fault("float16_underflow", _set("underflow"), grads=_float16),
    Fault("log_of_zero", _set("non_finite"), loss=_log_of_zero, seen_at=20),
    Fault("bad_root", _set("non_finite"), at_step=_bad_root, seen_at=20),
    Fault(
        "spectral_radius_3",
        UNSTABLE,
        lambda net: net.name == "rnn_relu",
        plant=_spectral_radius,
    ),
)
"""Every fault."""
