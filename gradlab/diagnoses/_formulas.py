"""Fused ops spelled out, so that the terms inside them can be told apart.

Softmax as exp(x − logsumexp(x)), layer_norm as mean, variance and quotient: each path
is a term of the gradient, and a handwritten backward forgets one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def _softmax(x: Tensor, dim: int = -1, *_: Any, **__: Any) -> Tensor:
    return torch.exp(x - torch.logsumexp(x, dim, keepdim=True))


def _log_softmax(x: Tensor, dim: int = -1, *_: Any, **__: Any) -> Tensor:
    return x - torch.logsumexp(x, dim, keepdim=True)


def _logsumexp(x: Tensor, dim: int, keepdim: bool = False) -> Tensor | None:
    if keepdim:
        return None  # `Unreduced` follows it as one step.
    m = x.detach().amax(dim, keepdim=True)
    return (m + torch.log(torch.sum(torch.exp(x - m), dim, keepdim=True))).squeeze(dim)


def _cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    valid = target != ignore_index
    safe = torch.where(valid, target, 0).unsqueeze(-1)
    losses = -_log_softmax(x).gather(-1, safe).squeeze(-1) * valid
    if reduction == "none":
        return losses
    return losses.sum() / (valid.sum() if reduction == "mean" else 1)


def _layer_norm(
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    return _standardised(x, tuple(range(-len(shape), 0)), weight, bias, eps)


def _rms_norm(
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    dims = tuple(range(-len(shape), 0))
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    y = x * torch.rsqrt(torch.mean(x * x, dims, keepdim=True) + eps)
    return y if weight is None else y * weight


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    dims = tuple(d for d in range(x.ndim) if d != 1)
    channels = [1, -1] + [1] * (x.ndim - 2)
    w = None if weight is None else weight.view(channels)
    b = None if bias is None else bias.view(channels)
    return _standardised(x, dims, w, b, eps)


def _standardised(
    x: Tensor,
    dims: tuple[int, ...],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    centred = x - torch.mean(x, dims, keepdim=True)
    variance = torch.mean(centred * centred, dims, keepdim=True)
    y = centred * torch.rsqrt(variance + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _normalize(
    x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None
) -> Tensor:
    return x / torch.sqrt(torch.sum(x * x, dim, keepdim=True))


def _var(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    dim = kwargs.get("dim", args[0] if args else None)
    dims = tuple(range(x.ndim)) if dim is None or isinstance(dim, bool) else dim
    unbiased = kwargs.get("unbiased", kwargs.get("correction", 1))
    unbiased = args[1] if len(args) > 1 else unbiased
    centred = x - torch.mean(x, dims, keepdim=True)
    axes = (dims,) if isinstance(dims, int) else dims
    count = math.prod(x.shape[d] for d in axes) - int(unbiased)
    keep = kwargs.get("keepdim", args[2] if len(args) > 2 else False)
    return torch.sum(centred * centred, dims, keepdim=keep) / count


def _std(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return torch.sqrt(_var(x, *args, **kwargs))


def _gelu(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "none":
        return x * (0.5 * (1 + torch.erf(x / math.sqrt(2))))
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    return 0.5 * x * (1 + torch.tanh(inner))


def _silu(x: Tensor, inplace: bool = False) -> Tensor:
    return x * torch.sigmoid(x)


def _mse_loss(
    x: Tensor, target: Tensor, *_: Any, reduction: str = "mean", **__: Any
) -> Tensor:
    d = x - target
    losses = d * d
    return {"none": lambda t: t, "sum": torch.sum, "mean": torch.mean}[reduction](
        losses
    )


def _cosine_similarity(a: Tensor, b: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    norm_a = torch.sqrt(torch.sum(a * a, dim))
    norm_b = torch.sqrt(torch.sum(b * b, dim))
    return torch.sum(a * b, dim) / (norm_a * norm_b)


def _attention(
    q: Tensor, k: Tensor, v: Tensor, mask: None = None, *_: Any, **kwargs: Any
) -> Tensor:
    scale = kwargs.get("scale") or 1 / math.sqrt(q.shape[-1])
    scores = q @ k.mT * scale
    if kwargs.get("is_causal"):
        above = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(above.to(q.device), -math.inf)
    return _softmax(scores) @ v


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    y = x @ weight.mT
    return y if bias is None else y + bias


FORMULAS: Mapping[str, Callable[..., Any]] = {
    "linear": _linear,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "logsumexp": _logsumexp,
    "cross_entropy": _cross_entropy,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "batch_norm": _batch_norm,
    "normalize": _normalize,
    "var": _var,
    "std": _std,
    "gelu": _gelu,
    "silu": _silu,
    "mse_loss": _mse_loss,
    "cosine_similarity": _cosine_similarity,
    "scaled_dot_product_attention": _attention,
}
"""By the name of the op, with its arguments. A formula is used only where it gives the
value that the op gives: options that it does not know do no harm."""
