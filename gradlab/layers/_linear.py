"""Linear: the affine map of a fully connected layer (Rumelhart et al., 1986).

Forward     y = x Wᵀ + b               x (*, in), W (out, in), b (out), y (*, out)
Locally     y_no = Σᵢ W_oi x_ni + b_o, so ∂y_no/∂x_ni = W_oi, ∂y_no/∂W_oi = x_ni,
            ∂y_no/∂b_o = 1
Backward    x̄ = ȳ W                    x̄_ni = Σₒ ȳ_no W_oi
            W̄ = ȳᵀ x                   W̄_oi = Σₙ ȳ_no x_ni, n over all leading axes
            b̄ = Σₙ ȳ_n
Forward mode  ẏ = ẋ Wᵀ + x Ẇᵀ + ḃ
Saved       x and W: what autograd saves too. Complex values conjugate what they saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Inexact
from torch import Tensor

from gradlab._function import Function
from gradlab._opinfo import ErrorInput, Make, ModuleInput, OpInfo, SampleInput

from . import _arguments as arguments


def linear_reference(
    input: Inexact[Tensor, "*batch in_features"],
    weight: Inexact[Tensor, "out_features in_features"],
    bias: Inexact[Tensor, " out_features"] | None = None,
) -> Inexact[Tensor, "*batch out_features"]:
    """The equation in torch ops: y = x Wᵀ + b."""
    y = input @ weight.T
    return y if bias is None else y + bias


class LinearFunction(Function):
    """y = x Wᵀ + b with its backward pass; `linear` is the public entry."""

    autocast = {"cpu": "lower_precision", "cuda": "lower_precision"}

    @staticmethod
    def forward(x: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
        return torch.nn.functional.linear(x, W, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, W, _ = inputs
        ctx.save_for_backward(x, W)
        ctx.save_for_forward(x, W)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, W = ctx.saved_tensors
        wants_x, wants_W, wants_b = ctx.needs_input_grad
        n = x.shape[:-1].numel()
        rows = grad_y.reshape(n, W.shape[0])
        # x̄ = ȳ W
        grad_x = grad_y @ W.conj() if wants_x else None
        # W̄ = ȳᵀ x
        grad_W = rows.T @ x.reshape(n, W.shape[1]).conj() if wants_W else None
        # b̄ = Σₙ ȳ_n
        grad_b = rows.sum(0) if wants_b else None
        return grad_x, grad_W, grad_b

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        x, W = ctx.saved_tensors
        dx, dW, db = tangents
        # ẏ = ẋ Wᵀ + x Ẇᵀ + ḃ, of which at least one is there
        dy = x.new_zeros(*x.shape[:-1], W.shape[0])
        dy = dy if dx is None else dy + dx @ W.T
        dy = dy if dW is None else dy + x @ dW.T
        return dy if db is None else dy + db


def linear(
    input: Inexact[Tensor, "*batch in_features"],
    weight: Inexact[Tensor, "out_features in_features"],
    bias: Inexact[Tensor, " out_features"] | None = None,
) -> Inexact[Tensor, "*batch out_features"]:
    """Computes y = x Wᵀ + b with an explicit backward pass.

    Args:
        input: x, of shape (*, in_features); any number of leading axes, also none.
        weight: W, of shape (out_features, in_features).
        bias: b, of shape (out_features), or None.

    Returns:
        y, of shape (*, out_features).

    Raises:
        TypeError: When an argument is not a tensor.
        RuntimeError: When the shapes, dtypes or devices do not fit together.

    Example:
        >>> x, W = torch.ones(1, 2), torch.tensor([[1.0, 2.0]], requires_grad=True)
        >>> linear(x, W).backward()
        >>> W.grad
        tensor([[1., 1.]])
    """
    arguments.tensors("linear", input=input, weight=weight)
    if bias is not None:
        arguments.tensors("linear", bias=bias)
    arguments.alike("linear", input=input, weight=weight, bias=bias)
    if weight.ndim != 2 or input.ndim == 0 or input.shape[-1] != weight.shape[1]:
        raise RuntimeError(
            "linear: the last axis of input must have in_features entries, with weight "
            f"of shape (out_features, in_features); got input {tuple(input.shape)} and "
            f"weight {tuple(weight.shape)}. Is a flatten or a transpose missing?"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise RuntimeError(
            f"linear: bias must have shape (out_features,) = ({weight.shape[0]},), got "
            f"{tuple(bias.shape)}"
        )
    return LinearFunction.call(input, weight, bias)


class Linear(torch.nn.Linear):
    """`torch.nn.Linear` with the explicit backward pass of `linear`.

    Constructor, parameters, `state_dict` and initialisation are torch's.

    Example:
        >>> Linear(3, 2)(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def forward(
        self, input: Inexact[Tensor, "*batch in_features"]
    ) -> Inexact[Tensor, "*batch out_features"]:
        """Computes y = x Wᵀ + b; shapes as in `linear`."""
        return linear(input, self.weight, self.bias)


def sample_inputs(make: Make) -> Iterator[SampleInput]:
    """Every rank, no bias, empty and single batches, no input features."""
    yield SampleInput("2d", make(5, 3), make(4, 3), make(4))
    yield SampleInput("no_bias", make(5, 3), make(4, 3))
    yield SampleInput("1d", make(3), make(4, 3), make(4))
    yield SampleInput("4d", make(2, 3, 2, 5), make(7, 5), make(7))
    yield SampleInput("one_by_one", make(1, 1), make(1, 1), make(1))
    yield SampleInput("empty_batch", make(0, 3), make(4, 3), make(4))
    yield SampleInput("no_features", make(5, 0), make(4, 0), make(4))


def module_inputs(make: Make) -> Iterator[ModuleInput]:
    """With and without a bias."""
    yield ModuleInput(Linear, 3, 4).on(make(5, 3))
    yield ModuleInput(Linear, 3, 4, bias=False).on(make(2, 5, 3))


def bench_inputs(make: Make) -> Iterator[SampleInput]:
    """A small classifier's layer, a transformer's projection, its wide MLP."""
    for n, features, out in ((64, 64, 64), (512, 512, 512), (2048, 1024, 4096)):
        name = f"{n}x{features}->{out}"
        yield SampleInput(name, make(n, features), make(out, features), make(out))


def error_inputs(make: Make) -> Iterator[ErrorInput]:
    """Features that do not match, a bias of the wrong length, mixed dtypes."""
    x, W = make(5, 3), make(4, 3)
    features = SampleInput("features", make(5, 4), W)
    yield ErrorInput(features, RuntimeError, "in_features")
    yield ErrorInput(SampleInput("bias", x, W, make(3)), RuntimeError, "bias must have")
    sample = SampleInput("dtype", x.half(), W)
    yield ErrorInput(sample, RuntimeError, "must have one dtype")
    sample = SampleInput("list", x, [[1.0, 2.0, 3.0]])
    yield ErrorInput(sample, TypeError, "weight must be a torch.Tensor, got list")
    yield ErrorInput(SampleInput("none", None, W), TypeError, "input must be a torch")


opinfo = OpInfo(
    linear,
    linear_reference,
    torch.nn.functional.linear,
    sample_inputs,
    module_inputs,
    bench_inputs,
    error_inputs,
)
