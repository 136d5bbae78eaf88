"""Max pooling over windows of an image (Yamaguchi et al. 1990; LeNet's successor).

Forward     y_o = max x_i over i in window(o), k(o) the i where it is reached first
            x (N, C, H, W) or (C, H, W); y has one o a window
Locally     ∂y_o/∂x_i = 1 if i = k(o), else 0
Backward    x̄_i = Σ ȳ_o over the o with k(o) = i     windows that overlap add up
Forward mode  ẏ_o = ẋ_k(o)
Saved       k, and of x only its shape.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Literal, overload

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from gradlab._function import Function
from gradlab._opinfo import ErrorInput, Make, ModuleInput, OpInfo, SampleInput

from . import _arguments as arguments
from ._arguments import Pair, pair

aten = torch.ops.aten


def max_pool2d_reference(
    input: Shaped[Tensor, "*batch channels height width"],
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The equation in torch ops: gather every window, then its maximum."""
    kh, kw = pair("max_pool2d", "kernel_size", kernel_size)
    sh, sw = pair("max_pool2d", "stride", stride or kernel_size)
    ph, pw = pair("max_pool2d", "padding", padding)
    dh, dw = pair("max_pool2d", "dilation", dilation)
    H, W = input.shape[-2:]
    _, where = aten.max_pool2d_with_indices(
        input.detach(), (kh, kw), (sh, sw), (ph, pw), (dh, dw), ceil_mode
    )
    arange = functools.partial(torch.arange, device=input.device)
    rows = arange(where.shape[-2])[:, None] * sh - ph + arange(kh)[None, :] * dh
    cols = arange(where.shape[-1])[:, None] * sw - pw + arange(kw)[None, :] * dw
    # inside: [out_h, out_w, kh, kw], whether that element of the window is in the image
    inside = ((rows >= 0) & (rows < H))[:, None, :, None]
    inside = inside & ((cols >= 0) & (cols < W))[None, :, None, :]
    rows, cols = rows.clamp(0, H - 1), cols.clamp(0, W - 1)
    windows = input[..., rows[:, None, :, None], cols[None, :, None, :]]
    y = windows.masked_fill(~inside, -torch.inf).amax((-2, -1))
    return (y, where) if return_indices else y


class MaxPool2dFunction(Function):
    """Max pooling with its backward pass; `max_pool2d` is the public entry."""

    @staticmethod
    def forward(
        x: Tensor,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        ceil_mode: bool,
    ) -> tuple[Tensor, Tensor]:
        return aten.max_pool2d_with_indices(
            x, kernel, stride, padding, dilation, ceil_mode
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, *ctx.window = inputs
        _, k = output
        ctx.shape = x.shape
        ctx.mark_non_differentiable(k)
        ctx.save_for_backward(k)
        ctx.save_for_forward(k)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, _: None) -> tuple[Tensor | None, ...]:
        (k,) = ctx.saved_tensors
        # x̄_i = Σ ȳ_o over the o with k(o) = i
        *batch, H, W = ctx.shape
        windows = (*batch, k.shape[-2] * k.shape[-1])
        grad_x = grad_y.new_zeros(*batch, H * W)
        grad_x = grad_x.scatter_add(-1, k.reshape(windows), grad_y.reshape(windows))
        return grad_x.reshape(ctx.shape), None, None, None, None, None

    @staticmethod
    def fused_backward(ctx: Any, grad_y: Tensor, _: None) -> tuple[Tensor | None, ...]:
        (k,) = ctx.saved_tensors
        # The kernel reads no value of x: one number, expanded, has its shape.
        x = grad_y.new_empty(()).expand(ctx.shape)
        grad_x = aten.max_pool2d_with_indices_backward(grad_y, x, *ctx.window, k)
        return grad_x, None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, *_: None) -> tuple[Tensor, None]:
        (k,) = ctx.saved_tensors
        # ẏ_o = ẋ_k(o)
        return dx.flatten(-2).gather(-1, k.flatten(-2)).reshape(k.shape), None


@overload
def max_pool2d(
    input: Shaped[Tensor, "*batch channels height width"],
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
) -> Shaped[Tensor, "*batch channels out_height out_width"]: ...


@overload
def max_pool2d(
    input: Shaped[Tensor, "*batch channels height width"],
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[
    Shaped[Tensor, "*batch channels out_height out_width"],
    Int[Tensor, "*batch channels out_height out_width"],
]: ...


def max_pool2d(
    input: Shaped[Tensor, "*batch channels height width"],
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> (
    Shaped[Tensor, "*batch channels out_height out_width"]
    | tuple[
        Shaped[Tensor, "*batch channels out_height out_width"],
        Int[Tensor, "*batch channels out_height out_width"],
    ]
):
    """Computes the maximum of every window with an explicit backward pass.

    Args:
        input: x, of shape (N, C, H, W) or (C, H, W).
        kernel_size: Height and width of a window, in pixels.
        stride: From one window to the next, in pixels; the kernel size by default.
        padding: Pixels of −∞ around the image, at most half a window.
        dilation: From one element of a window to the next, in pixels.
        ceil_mode: Keep the last windows that reach beyond the image.
        return_indices: Return k too, as indices into the H·W pixels of a channel.

    Returns:
        y, of shape (N, C, H', W') or (C, H', W'); with `return_indices`, y and k.

    Raises:
        TypeError: When an argument is of another kind.
        RuntimeError: When x has another rank, or no window fits.

    Example:
        >>> x = torch.tensor([[[1.0, 2.0], [4.0, 3.0]]], requires_grad=True)
        >>> max_pool2d(x, 2).sum().backward()
        >>> x.grad
        tensor([[[0., 0.],
                 [1., 0.]]])
    """
    arguments.tensors("max_pool2d", input=input)
    stride = kernel_size if stride is None or stride == [] else stride
    if input.ndim not in (3, 4):
        raise RuntimeError(
            "max_pool2d: input must have shape (N, C, H, W) or (C, H, W), got "
            f"{tuple(input.shape)}"
        )
    y, k = MaxPool2dFunction.call(
        input,
        pair("max_pool2d", "kernel_size", kernel_size),
        pair("max_pool2d", "stride", stride),
        pair("max_pool2d", "padding", padding),
        pair("max_pool2d", "dilation", dilation),
        ceil_mode,
    )
    return (y, k) if return_indices else y


class MaxPool2d(torch.nn.MaxPool2d):
    """`torch.nn.MaxPool2d` with the explicit backward pass of `max_pool2d`.

    Example:
        >>> MaxPool2d(2)(torch.zeros(1, 1, 4, 4)).shape
        torch.Size([1, 1, 2, 2])
    """

    def forward(self, input: Shaped[Tensor, "*batch channels height width"]) -> Any:
        """Computes the maximum of every window."""
        window = self.kernel_size, self.stride, self.padding, self.dilation
        if self.return_indices:
            return max_pool2d(input, *window, self.ceil_mode, return_indices=True)
        return max_pool2d(input, *window, self.ceil_mode)


def sample_inputs(make: Make) -> Iterator[SampleInput]:
    """Tiles, overlaps, gaps, padding, dilation, half windows, no batch, no rows."""
    yield SampleInput("tiles", make(2, 3, 4, 6), 2)
    yield SampleInput("overlap", make(1, 2, 5, 5), 3, 1, 1)
    yield SampleInput("gaps", make(1, 2, 5, 7), 2, 3)
    yield SampleInput("rectangle", make(1, 2, 5, 6), (3, 2), (2, 1), (1, 0))
    yield SampleInput("dilation", make(1, 1, 6, 6), 2, 1, 0, 2)
    yield SampleInput("ceil_mode", make(1, 2, 5, 5), 2, ceil_mode=True)
    yield SampleInput("unbatched", make(2, 4, 4), 2)
    yield SampleInput("return_indices", make(1, 1, 4, 4), 2, return_indices=True)
    yield SampleInput("empty_batch", make(0, 3, 4, 4), 2)


def module_inputs(make: Make) -> Iterator[ModuleInput]:
    """Plain, and with every option."""
    yield ModuleInput(MaxPool2d, 2).on(make(2, 3, 4, 6))
    options = {"padding": 1, "dilation": 1, "ceil_mode": True, "return_indices": True}
    yield ModuleInput(MaxPool2d, 3, 2, **options).on(make(2, 3, 7, 7))


def bench_inputs(make: Make) -> Iterator[SampleInput]:
    """The first pooling of a digit, a CIFAR and an ImageNet network."""
    for n, c, size in ((16, 8, 8), (32, 32, 32), (16, 64, 112)):
        yield SampleInput(f"{n}x{c}x{size}x{size}", make(n, c, size, size), 2)


def error_inputs(make: Make) -> Iterator[ErrorInput]:
    """No channel axis, a window larger than the image."""
    sample = SampleInput("rank", make(4, 4), 2)
    yield ErrorInput(sample, RuntimeError, "shape .N, C, H, W.")
    sample = SampleInput("word", make(1, 1, 4, 4), "2")
    yield ErrorInput(sample, TypeError, "one or two whole numbers, got '2'")
    sample = SampleInput("kernel", make(1, 1, 4, 4), (2, 2, 2))
    yield ErrorInput(sample, RuntimeError, "must be one or two numbers")
    sample = SampleInput("window", make(1, 1, 2, 2), 3)
    yield ErrorInput(sample, RuntimeError, "Output size is too small")


opinfo = OpInfo(
    max_pool2d,
    max_pool2d_reference,
    torch.nn.functional.max_pool2d,
    sample_inputs,
    module_inputs,
    bench_inputs,
    error_inputs,
)
