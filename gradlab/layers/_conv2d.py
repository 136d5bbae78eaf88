"""Conv2d: the same small linear map at every place of an image (LeCun et al. 1989).

Forward     y_nol = Σ_k W_ok X_nkl + b_o, X = unfold(x)
            x (N, C, H, W), W (O, C/groups, kh, kw), b (O), y (N, O, H', W')
            l runs over the H'·W' places of the window, k over its C/groups·kh·kw
            entries; X, the windows of x as columns, is linear in x; a group of
            channels is a convolution of its own
Locally     a linear layer for each column: ∂y_nol/∂X_nkl = W_ok, ∂y_nol/∂W_ok = X_nkl
Backward    X̄_nkl = Σₒ W_ok ȳ_nol, x̄ = fold(X̄)   fold, the transpose of unfold, adds
                                                    what overlapping windows share
            W̄_ok = Σ_nl ȳ_nol X_nkl, b̄_o = Σ_nl ȳ_nol
Forward mode  ẏ = conv(ẋ, W) + conv(x, Ẇ) + ḃ
Saved       x and W: what autograd saves too. X is never formed in ordinary training.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Inexact
from torch import Tensor

from gradlab._function import Function
from gradlab._opinfo import ErrorInput, Make, ModuleInput, OpInfo, SampleInput

from . import _arguments as arguments
from ._arguments import Pair, pair

aten = torch.ops.aten


def conv2d_reference(
    input: Inexact[Tensor, "*batch channels height width"],
    weight: Inexact[Tensor, "out_channels group_channels kh kw"],
    bias: Inexact[Tensor, " out_channels"] | None = None,
    stride: Pair = 1,
    padding: str | Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Inexact[Tensor, "*batch out_channels out_height out_width"]:
    """The equation in torch ops: shift the image under every entry of the window."""
    sh, sw = pair("conv2d", "stride", stride)
    dh, dw = pair("conv2d", "dilation", dilation)
    O, C, kh, kw = weight.shape
    if isinstance(padding, str):
        same = padding == "same"
        tall, wide = (dh * (kh - 1), dw * (kw - 1)) if same else (0, 0)
        pads = (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2)
    else:
        ph, pw = pair("conv2d", "padding", padding)
        pads = (pw, pw, ph, ph)
    x = F.pad(input, pads)
    height = (x.shape[-2] - dh * (kh - 1) - 1) // sh + 1
    width = (x.shape[-1] - dw * (kw - 1) - 1) // sw + 1
    W = weight.reshape(groups, O // groups, C, kh, kw)
    y: Any = 0
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * dh, i * dh + (height - 1) * sh + 1, sh)
            columns = slice(j * dw, j * dw + (width - 1) * sw + 1, sw)
            seen = x[..., rows, columns].unflatten(-3, (groups, C))
            y = y + torch.einsum("goc,...gchw->...gohw", W[..., i, j], seen)
    y = y.flatten(-4, -3)
    return y if bias is None else y + bias[:, None, None]


class Conv2dFunction(Function):
    """The convolution of a batch with its backward pass; `conv2d` is the entry."""

    autocast = {"cpu": "lower_precision", "cuda": "lower_precision"}

    @staticmethod
    def forward(
        x: Tensor,
        W: Tensor,
        b: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        groups: int,
    ) -> Tensor:
        return F.conv2d(x, W, b, stride, padding, dilation, groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, W, _, *ctx.geometry = inputs
        ctx.save_for_backward(x, W)
        ctx.save_for_forward(x, W)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, W = ctx.saved_tensors
        wants_x, wants_W, wants_b, *_ = ctx.needs_input_grad
        stride, padding, dilation, groups = ctx.geometry
        (N, C), (O, _) = x.shape[:2], W.shape[:2]
        image, window = tuple(x.shape[2:]), tuple(W.shape[2:])
        places = grad_y.shape[2] * grad_y.shape[3]
        entries = C // groups * window[0] * window[1]
        W = W.reshape(groups, O // groups, entries)
        columns = grad_y.reshape(N, groups, O // groups, places)
        grad_x = grad_W = None
        if wants_x:
            # X̄_nkl = Σₒ W_ok ȳ_nol, x̄ = fold(X̄)
            grad_X = (W.mT.conj() @ columns).reshape(N, groups * entries, places)
            grad_x = F.fold(grad_X, image, window, dilation, padding, stride)
        if wants_W:
            # W̄_ok = Σ_nl ȳ_nol X_nkl
            X = F.unfold(x, window, dilation, padding, stride)
            X = X.reshape(N, groups, entries, places)
            grad_W = (columns @ X.mT.conj()).sum(0).reshape(O, C // groups, *window)
        # b̄_o = Σ_nl ȳ_nol
        grad_b = grad_y.sum((0, 2, 3)) if wants_b else None
        return grad_x, grad_W, grad_b, None, None, None, None

    @staticmethod
    def fused_backward(ctx: Any, grad_y: Tensor) -> Any:
        if grad_y.is_complex():
            return NotImplemented
        x, W = ctx.saved_tensors
        wants = ctx.needs_input_grad[:3]
        stride, padding, dilation, groups = ctx.geometry
        grads = aten.convolution_backward(
            *(grad_y, x, W, W.shape[:1], stride, padding, dilation),
            *(False, (0, 0), groups, wants),
        )
        return *grads, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        x, W = ctx.saved_tensors
        dx, dW, db, *_ = tangents
        # ẏ = conv(ẋ, W) + conv(x, Ẇ) + ḃ
        terms = [] if db is None else [db[:, None, None]]
        dx = torch.zeros_like(x) if dx is None else dx
        terms.append(F.conv2d(dx, W, None, *ctx.geometry))
        if dW is not None:
            terms.append(F.conv2d(x, dW, None, *ctx.geometry))
        return sum(terms)  # type: ignore[return-value]


def conv2d(
    input: Inexact[Tensor, "*batch channels height width"],
    weight: Inexact[Tensor, "out_channels group_channels kh kw"],
    bias: Inexact[Tensor, " out_channels"] | None = None,
    stride: Pair = 1,
    padding: str | Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Inexact[Tensor, "*batch out_channels out_height out_width"]:
    """Computes a 2-D convolution (a cross-correlation) with an explicit backward pass.

    Args:
        input: x, of shape (N, C, H, W) or (C, H, W).
        weight: W, of shape (O, C / groups, kh, kw).
        bias: b, of shape (O), or None.
        stride: From one window to the next, in pixels.
        padding: Pixels of zeros around the image, or `"same"` or `"valid"`.
        dilation: From one entry of the window to the next, in pixels.
        groups: Number of convolutions that the channels are divided among.

    Returns:
        y, of shape (N, O, H', W') or (O, H', W').

    Raises:
        TypeError: When an argument is of another kind.
        RuntimeError: When the shapes, dtypes, devices or options do not fit together.

    Example:
        >>> x = torch.ones(1, 1, 3, 3)
        >>> W = torch.zeros(1, 1, 2, 2, requires_grad=True)
        >>> conv2d(x, W).sum().backward()
        >>> W.grad
        tensor([[[[4., 4.],
                  [4., 4.]]]])
    """
    arguments.tensors("conv2d", input=input, weight=weight)
    if bias is not None:
        arguments.tensors("conv2d", bias=bias)
    arguments.alike("conv2d", input=input, weight=weight, bias=bias)
    if weight.ndim != 4 or input.ndim not in (3, 4):
        raise RuntimeError(
            "conv2d: input must have shape (N, C, H, W) or (C, H, W) and weight (O, "
            f"C/groups, kh, kw); got {tuple(input.shape)} and {tuple(weight.shape)}"
        )
    C, O = input.shape[-3], weight.shape[0]
    if groups < 1 or weight.shape[1] * groups != C or O % groups:
        raise RuntimeError(
            f"conv2d: with groups={groups}, input must have weight.shape[1] * groups = "
            f"{weight.shape[1] * groups} channels and weight.shape[0] must divide by "
            f"groups; got {C} channels and a weight of shape {tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise RuntimeError(
            f"conv2d: bias must have shape (out_channels,) = ({O},), got "
            f"{tuple(bias.shape)}"
        )
    x = input if input.ndim == 4 else input[None]
    stride = pair("conv2d", "stride", stride)
    dilation = pair("conv2d", "dilation", dilation)
    if isinstance(padding, str):
        x, padding = _pad(x, weight, stride, padding, dilation)
    geometry = stride, pair("conv2d", "padding", padding), dilation, groups
    y = Conv2dFunction.call(x, weight, bias, *geometry)
    return y if input.ndim == 4 else y[0]


def _pad(
    x: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: str,
    dilation: tuple[int, int],
) -> tuple[Tensor, tuple[int, int]]:
    """The padding that a word asks for, after an odd last row or column."""
    if padding == "valid":
        return x, (0, 0)
    if padding != "same" or stride != (1, 1):
        raise RuntimeError(
            "conv2d: padding must be numbers, 'valid', or 'same' with a stride of 1; "
            f"got padding={padding!r} and stride={stride}"
        )
    height, width = (
        d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)
    )
    if height % 2 or width % 2:
        x = F.pad(x, (0, width % 2, 0, height % 2))
    return x, (height // 2, width // 2)


class Conv2d(torch.nn.Conv2d):
    """`torch.nn.Conv2d` with the explicit backward pass of `conv2d`.

    Constructor, parameters, `state_dict`, initialisation and padding modes are torch's.

    Example:
        >>> Conv2d(3, 8, kernel_size=3, padding=1)(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 8, 8, 8])
    """

    def _conv_forward(
        self, input: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            pads = self._reversed_padding_repeated_twice
            input, padding = F.pad(input, pads, mode=self.padding_mode), 0
        return conv2d(
            input, weight, bias, self.stride, padding, self.dilation, self.groups
        )


def sample_inputs(make: Make) -> Iterator[SampleInput]:
    """Every option alone and some together, odd sizes, no batch axis, no rows."""
    W, b = make(4, 2, 3, 3), make(4)
    yield SampleInput("plain", make(2, 2, 4, 5), W, b)
    yield SampleInput("no_bias", make(1, 2, 4, 5), W)
    yield SampleInput("pointwise", make(2, 3, 2, 2), make(4, 3, 1, 1), b)
    yield SampleInput("stride", make(1, 2, 5, 6), W, b, 2)
    yield SampleInput("padding", make(1, 2, 3, 3), W, b, 1, (1, 2))
    yield SampleInput("dilation", make(1, 2, 5, 6), W, b, 1, 0, 2)
    yield SampleInput("groups", make(1, 4, 4, 4), W, b, groups=2)
    yield SampleInput("depthwise", make(2, 4, 3, 3), make(4, 1, 2, 2), b, groups=4)
    yield SampleInput("same", make(1, 2, 4, 4), make(3, 2, 1, 3), padding="same")
    yield SampleInput("valid", make(1, 2, 4, 4), W, b, padding="valid")
    yield SampleInput("all", make(1, 4, 7, 7), W, b, (2, 1), (1, 2), (2, 1), 2)
    yield SampleInput("unbatched", make(2, 4, 4), W, b)
    yield SampleInput("empty_batch", make(0, 2, 4, 4), W, b)


def module_inputs(make: Make) -> Iterator[ModuleInput]:
    """Plain, every option, every padding mode."""
    x = make(2, 2, 5, 6)
    yield ModuleInput(Conv2d, 2, 4, 3).on(x)
    options = {"stride": 2, "padding": 1, "dilation": 2, "groups": 2, "bias": False}
    yield ModuleInput(Conv2d, 2, 4, 2, **options).on(x)
    for mode in ("reflect", "replicate", "circular"):
        yield ModuleInput(Conv2d, 2, 4, 3, padding=1, padding_mode=mode).on(x)
    yield ModuleInput(Conv2d, 2, 4, (1, 3), padding="same").on(x)


def bench_inputs(make: Make) -> Iterator[SampleInput]:
    """A first layer, and the middle of a CIFAR and of an ImageNet network."""
    for n, c, out, size in ((8, 3, 16, 16), (16, 32, 32, 32), (16, 64, 64, 56)):
        x, W, b = make(n, c, size, size), make(out, c, 3, 3), make(out)
        yield SampleInput(f"{n}x{c}x{size}x{size}->{out}", x, W, b, padding=1)


def error_inputs(make: Make) -> Iterator[ErrorInput]:
    """Ranks, channels, groups, bias, a word for a padding that does not exist."""
    x, W = make(1, 2, 4, 4), make(4, 2, 3, 3)
    sample = SampleInput("rank", make(4, 4), W)
    yield ErrorInput(sample, RuntimeError, "shape .N, C, H, W.")
    sample = SampleInput("channels", make(1, 3, 4, 4), W)
    yield ErrorInput(sample, RuntimeError, "= 2 channels .* got 3")
    yield ErrorInput(SampleInput("bias", x, W, make(3)), RuntimeError, "bias must have")
    yield ErrorInput(SampleInput("dtype", x.float(), W), RuntimeError, "one dtype")
    yield ErrorInput(SampleInput("none", x, None), TypeError, "weight must be a torch")
    sample = SampleInput("stride", x, W, stride=(1, 2, 3))
    yield ErrorInput(sample, RuntimeError, "stride must be one or two numbers")
    sample = SampleInput("same", x, W, stride=2, padding="same")
    yield ErrorInput(sample, RuntimeError, "'same' with a stride of 1")
    sample = SampleInput("window", make(1, 2, 2, 2), W)
    yield ErrorInput(sample, RuntimeError, "[Kk]ernel size")


opinfo = OpInfo(
    conv2d,
    conv2d_reference,
    F.conv2d,
    sample_inputs,
    module_inputs,
    bench_inputs,
    error_inputs,
)
