"""Faults to plant into a healthy run, and what names them rightly.

What is right was written down before any rule was asked: `right` names the cause,
`also` is a true symptom of it. A finding of neither is a false one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ._net import Net, Residual
from ._trace import Change

LATE = 20
"""The step at which faults begin that do not begin at the start."""


def _everywhere(net: Net) -> bool:
    return True


@dataclass(frozen=True)
class Fault(Change):
    """One thing that goes wrong.

    Attributes:
        right: Codes of pathologies that name it rightly.
        also: Codes of what is true besides: a consequence that can be seen.
        fits: Whether it is a fault in this network.
        seen_at: The first step at which it can be seen.
    """

    right: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()
    fits: Callable[[Net], bool] = _everywhere
    seen_at: int = 0


def _weights(model: nn.Module) -> list[nn.Parameter]:
    kinds = (nn.Linear, nn.Conv2d, nn.RNNBase)
    layers = [m for m in model.modules() if isinstance(m, kinds)]
    return [p for m in layers for p in m._parameters.values() if p is not None]


def _scale(factor: float) -> Callable[[nn.Module], None]:
    def plant(model: nn.Module) -> None:
        with torch.no_grad():
            for p in _weights(model)[:-2]:
                if p.ndim > 1:
                    p.mul_(factor)

    return plant


def _replace(model: nn.Module, kinds: type | tuple[type, ...], new: type) -> None:
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, kinds):
                setattr(parent, name, new())


def _sigmoids(model: nn.Module) -> None:
    acts = (nn.ReLU, nn.Tanh, nn.GELU, nn.SELU, nn.LeakyReLU, nn.ELU, nn.SiLU)
    _replace(model, acts, nn.Sigmoid)


def _torch_init(model: nn.Module) -> None:
    """PyTorch's own initialization, gain √(1/3), under ReLU: too small for depth."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.reset_parameters()


def _no_residual(model: nn.Module) -> None:
    """Neither skips nor normalization: a plain deep stack."""
    _replace(model, (nn.LayerNorm, nn.RMSNorm, nn.BatchNorm2d), nn.Identity)
    for module in model.modules():
        if isinstance(module, Residual):
            module.skips = False


def _activated(model: nn.Module) -> list[nn.Module]:
    """The layers with a bias that a ReLU comes after."""
    kinds = (nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)
    return [
        layer
        for stack in model.modules()
        if isinstance(stack, nn.Sequential)
        for layer, after in zip(stack, list(stack)[1:], strict=False)
        if isinstance(layer, kinds)
        and isinstance(after, nn.ReLU)
        and layer.bias is not None
    ]


def _dead(model: nn.Module) -> None:
    layers = _activated(model)
    with torch.no_grad():
        layers[len(layers) // 2].get_parameter("bias").fill_(-30.0)


def _middle(model: nn.Module) -> nn.Module:
    """A part in the middle that owns parameters, or the body of a recurrent network."""
    owners = [m for m in model.children() if next(m.parameters(), None) is not None]
    if not isinstance(model, nn.Sequential):
        leaves = (nn.Linear, nn.Conv2d)
        owners = [m for m in model.modules() if isinstance(m, leaves)]
    return owners[(len(owners) - 1) // 2]


def _detached(module: nn.Module, args: object, out: Tensor) -> Tensor:
    return out.detach()


def _detach(model: nn.Module) -> None:
    _middle(model).register_forward_hook(_detached)


def _rooted(module: nn.Module, args: object, out: Tensor) -> Tensor:
    return out + (out * 0).square().sum().sqrt()


def _bad_root(model: nn.Module, step: int) -> None:
    """A root of zero beside a layer: finite forward, NaN backward."""
    if step == LATE:
        _middle(model).register_forward_hook(_rooted)


def _freeze(model: nn.Module, step: int) -> None:
    if step == LATE:
        _middle(model).requires_grad_(False)
        for p in _middle(model).parameters():
            p.grad = None


def _log_of_zero(step: int, loss: Tensor, output: Tensor) -> Tensor:
    return loss + (output * 0).abs().log().mean() if step >= LATE else loss


def _float16(model: nn.Module) -> None:
    """Gradients that went through float16 without a loss scale, 1e-7 in size."""
    for p in model.parameters():
        if p.grad is not None:
            p.grad.copy_((p.grad * 3e-6).half())


def _zero_layer(model: nn.Module) -> None:
    with torch.no_grad():
        for p in _middle(model).parameters():
            p.zero_()


def _spectral_radius(factor: float) -> Callable[[nn.Module], None]:
    def plant(model: nn.Module) -> None:
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "weight_hh" in name:
                    p.copy_(torch.eye(p.shape[0]) * factor)

    return plant


def _inputs(factor: float, since: int = 0) -> Callable[..., tuple[Tensor, Tensor]]:
    def data(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return (x * factor if step >= since else x), y

    return data


def _noise(model: nn.Module) -> None:
    """The gradient of the middle is noise of the right size, as of a wrong backward."""
    for p in _middle(model).parameters():
        if p.grad is not None:
            noise = torch.randn_like(p.grad)
            p.grad.copy_(noise * (p.grad.norm() / noise.norm()))


def _depth(net: Net) -> int:
    return sum(p.ndim > 1 for p in _weights(net.build()))


def _plain_and_deep(least: int) -> Callable[[Net], bool]:
    return lambda net: net.plain and _depth(net) >= least


def _has(*kinds: type) -> Callable[[Net], bool]:
    return lambda net: any(isinstance(m, kinds) for m in net.build().modules())


def _is_relu_rnn(net: Net) -> bool:
    cells = [m for m in net.build().modules() if isinstance(m, nn.RNN)]
    return any(cell.nonlinearity == "relu" for cell in cells)


def _set(*codes: str) -> frozenset[str]:
    return frozenset(codes)


UNSTABLE = _set("update_too_large", "sudden_growth", "non_finite")
TOO_STEEP = UNSTABLE | _set("exploding", "exploding_activations")
AFTERMATH = _set("dead_units", "saturated_units")

FAULTS: tuple[Fault, ...] = (
    Fault(
        "sigmoid_depth",
        plant=_sigmoids,
        fits=_plain_and_deep(6),
        right=_set("vanishing"),
        also=_set("update_too_small"),
    ),
    Fault(
        "tiny_init",
        plant=_scale(0.2),
        fits=_plain_and_deep(6),
        right=_set("vanishing"),
        also=_set("update_too_small", "update_too_large"),
    ),
    Fault(
        "torch_init_in_depth",
        plant=_torch_init,
        # SELU and GELU are no ReLU: there the gain of 1 / √3 may be enough.
        fits=lambda net: _plain_and_deep(10)(net) and _has(nn.ReLU)(net),
        right=_set("vanishing"),
        also=_set("update_too_small"),
    ),
    Fault(
        "no_residual",
        plant=_no_residual,
        fits=lambda net: _has(Residual)(net) and _depth(net) >= 8,
        right=_set("vanishing"),
        also=_set("update_too_small"),
    ),
    Fault(
        "huge_init",
        plant=_scale(5.0),
        fits=_plain_and_deep(5),
        right=TOO_STEEP | _set("saturated_units"),
        also=AFTERMATH,
    ),
    Fault(
        "learning_rate_x300",
        learning_rate=300.0,
        right=UNSTABLE,
        also=AFTERMATH | TOO_STEEP | _set("noise_dominated"),
    ),
    Fault(
        "learning_rate_x100",
        learning_rate=100.0,
        right=UNSTABLE,
        also=AFTERMATH | TOO_STEEP | _set("noise_dominated"),
    ),
    Fault("learning_rate_x1e-7", learning_rate=1e-7, right=_set("update_too_small")),
    Fault(
        "dead_relu",
        plant=_dead,
        fits=lambda net: bool(_activated(net.build())),
        right=_set("dead_units"),
        also=_set("update_too_small"),
    ),
    Fault(
        "saturated_tanh",
        data=_inputs(100.0),
        fits=_has(nn.Tanh),
        right=_set("vanishing", "saturated_units"),
    ),
    Fault(
        "broken_inputs",
        data=_inputs(1e4, LATE),
        fits=_plain_and_deep(4),
        right=TOO_STEEP | _set("saturated_units"),
        also=AFTERMATH,
        seen_at=LATE,
    ),
    Fault("frozen_layer", at_step=_freeze, right=_set("disconnected"), seen_at=LATE),
    Fault("detached_branch", plant=_detach, right=_set("disconnected")),
    Fault(
        "zero_layer",
        plant=_zero_layer,
        # Behind a tanh a layer of zeros recovers by itself.
        fits=lambda net: net.plain and bool(_activated(net.build())),
        right=_set("dead_units"),
        also=_set("update_too_small"),
    ),
    Fault(
        "float16_underflow",
        grads=_float16,
        right=_set("underflow"),
        also=_set("update_too_small", "dead_units"),
    ),
    Fault("log_of_zero", loss=_log_of_zero, right=_set("non_finite"), seen_at=LATE),
    Fault("bad_root", at_step=_bad_root, right=_set("non_finite"), seen_at=LATE),
    Fault(
        "spectral_radius_3",
        plant=_spectral_radius(3.0),
        fits=_is_relu_rnn,
        right=TOO_STEEP,
        also=AFTERMATH,
    ),
    Fault(
        "spectral_radius_1.6",
        plant=_spectral_radius(1.6),
        fits=lambda net: _is_relu_rnn(net) and not net.adapts,
        right=TOO_STEEP,
        also=AFTERMATH,
    ),
    Fault(
        "clipped_to_nothing",
        clip=0.01,
        right=_set("clipping_always_on"),
        also=_set("update_too_small"),
    ),
    Fault(
        "noise_for_a_gradient",
        grads=_noise,
        right=_set("noise_dominated"),
    ),
)
"""Every fault."""
