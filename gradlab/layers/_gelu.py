"""GELU: the Gaussian error linear unit (Hendrycks & Gimpel 2016, arXiv:1606.08415).

Forward     y = x Φ(x), Φ(x) = ½ (1 + erf(x/√2))                       x, y (*)
            "tanh": Φ(x) ≈ ½ (1 + tanh u), u = √(2/π) (x + 0.044715 x³)
Locally     ∂y/∂x = Φ(x) + x Φ'(x), by the product rule
            Φ'(x) = φ(x) = exp(−x²/2) / √(2π); "tanh": ½ (1 − tanh² u) u'
Backward    x̄ = ȳ · (Φ(x) + x Φ'(x))
Forward mode  ẏ = ẋ · (Φ(x) + x Φ'(x))
Saved       x: y does not determine it, since GELU is not monotonic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab._function import Function
from gradlab._opinfo import ErrorInput, Make, ModuleInput, OpInfo, SampleInput

from . import _arguments as arguments

aten = torch.ops.aten
_SLOPE, _CUBIC = math.sqrt(2 / math.pi), 0.044715


def gelu_reference(
    input: Float[Tensor, "*shape"], approximate: str = "none"
) -> Float[Tensor, "*shape"]:
    """The equation in torch ops: y = x Φ(x)."""
    if approximate == "tanh":
        u = _SLOPE * (input + _CUBIC * input**3)
        return input * 0.5 * (1 + torch.tanh(u))
    return input * 0.5 * (1 + torch.erf(input / math.sqrt(2)))


def _derivative(x: Tensor, approximate: str) -> Tensor:
    """∂y/∂x = Φ(x) + x Φ'(x)."""
    if approximate == "tanh":
        t = torch.tanh(_SLOPE * (x + _CUBIC * x**3))
        slope = 0.5 * (1 - t * t) * _SLOPE * (1 + 3 * _CUBIC * x * x)
        return 0.5 * (1 + t) + x * slope
    phi = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * phi


class GELUFunction(Function):
    """y = x Φ(x) with its backward pass; `gelu` is the public entry."""

    @staticmethod
    def forward(x: Tensor, approximate: str) -> Tensor:
        return aten.gelu(x, approximate=approximate)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, ctx.approximate = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        # x̄ = ȳ · (Φ(x) + x Φ'(x))
        return grad_y * _derivative(x, ctx.approximate), None

    @staticmethod
    def fused_backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return aten.gelu_backward(grad_y, x, approximate=ctx.approximate), None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, _: None) -> Tensor:
        (x,) = ctx.saved_tensors
        return dx * _derivative(x, ctx.approximate)


def gelu(
    input: Float[Tensor, "*shape"], approximate: str = "none"
) -> Float[Tensor, "*shape"]:
    """Computes y = x Φ(x) with an explicit backward pass.

    Args:
        input: x, of any shape, floating point.
        approximate: `"none"` for the exact Φ, `"tanh"` for its approximation.

    Returns:
        y, of the shape of x.

    Raises:
        TypeError: When x is not a tensor.
        RuntimeError: When `approximate` is neither of the two.

    Example:
        >>> x = torch.tensor([0.0], requires_grad=True)
        >>> gelu(x).backward()
        >>> x.grad
        tensor([0.5000])
    """
    arguments.tensors("gelu", input=input)
    if approximate not in ("none", "tanh"):
        raise RuntimeError(
            f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}"
        )
    return GELUFunction.call(input, approximate)


class GELU(torch.nn.GELU):
    """`torch.nn.GELU` with the explicit backward pass of `gelu`.

    Example:
        >>> GELU(approximate="tanh")(torch.zeros(2))
        tensor([0., 0.])
    """

    def forward(self, input: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Computes y = x Φ(x)."""
        return gelu(input, self.approximate)


def sample_inputs(make: Make) -> Iterator[SampleInput]:
    """Every rank, both forms of Φ, and values in both tails."""
    yield SampleInput("scalar", make())
    yield SampleInput("1d", make(7))
    yield SampleInput("4d", make(2, 3, 1, 5))
    yield SampleInput("tanh", make(7), approximate="tanh")
    yield SampleInput("empty", make(0, 3))
    yield SampleInput("tails", make(5, scale=10.0))
    yield SampleInput("tanh_tails", make(5, scale=10.0), approximate="tanh")


def module_inputs(make: Make) -> Iterator[ModuleInput]:
    """Both forms of Φ."""
    yield ModuleInput(GELU).on(make(5, 3))
    yield ModuleInput(GELU, approximate="tanh").on(make(5, 3))


def bench_inputs(make: Make) -> Iterator[SampleInput]:
    """64 KiB, 4 MiB and 64 MiB of float32."""
    for rows in (16, 1024, 16384):
        yield SampleInput(f"{rows}x1024", make(rows, 1024))


def error_inputs(make: Make) -> Iterator[ErrorInput]:
    """An approximation that does not exist, a number."""
    yield ErrorInput(SampleInput("number", 1.0), TypeError, "input must be a torch")
    sample = SampleInput("approximate", make(3), approximate="erf")
    yield ErrorInput(sample, RuntimeError, "'none' or 'tanh', got 'erf'")


opinfo = OpInfo(
    gelu,
    gelu_reference,
    torch.nn.functional.gelu,
    sample_inputs,
    module_inputs,
    bench_inputs,
    error_inputs,
)
