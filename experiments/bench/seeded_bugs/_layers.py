"""Layers done right, which the bugs of several files inherit their forward from."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def wide(x: Tensor) -> Tensor:
    """Returns half precision as float32, in which torch's own kernels accumulate."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def sum_to(grad: Tensor, x: Tensor) -> Tensor:
    """Sums `grad` over the axes that `x` was broadcast along, in the dtype of `x`."""
    extra = grad.dim() - x.dim()
    axes = [
        axis
        for axis, size in enumerate(grad.shape)
        if axis < extra or (x.shape[axis - extra] == 1 and size != 1)
    ]
    total = grad.sum(axes, keepdim=True) if axes else grad
    if total.is_complex() and not x.is_complex():
        total = total.real
    return total.reshape(x.shape).to(x.dtype)


def needed(ctx: Any, *grads: Any) -> tuple[Any, ...]:
    """Returns `grads` with None for the inputs that need no gradient."""
    wanted = zip(grads, ctx.needs_input_grad, strict=True)
    return tuple(grad if need else None for grad, need in wanted)


def rows(x: Tensor) -> Tensor:
    """Returns x as a matrix: all axes but the last in one."""
    return x.reshape(-1, x.shape[-1])


class Linear(Function):
    """y = x Wᵀ + b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        return (wide(x) @ wide(weight).t() + wide(bias)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, bias = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        g = wide(grad_y)
        grad_x = grad_weight = grad_bias = None
        if need_x:
            grad_x = (g @ wide(weight)).to(x.dtype)
        if need_weight:
            grad_weight = (rows(g).t() @ rows(wide(x))).to(weight.dtype)
        if need_bias:
            grad_bias = sum_to(g, bias)
        return grad_x, grad_weight, grad_bias


class LayerNorm(Function):
    """y = (x - mean) / sqrt(var + eps) * weight + bias over the last axis."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        mean = wide(x).mean(-1, keepdim=True)
        centred = wide(x) - mean
        var = centred.square().mean(-1, keepdim=True)
        y = centred * torch.rsqrt(var + eps)
        return (y * wide(weight) + wide(bias)).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, weight, bias, ctx.eps = inputs
        ctx.save_for_backward(x, weight, bias)

    @staticmethod
    def normalise(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Returns (x - mean) / std and 1 / std."""
        centred = wide(x) - wide(x).mean(-1, keepdim=True)
        rstd = torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
        return centred * rstd, rstd

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, bias = ctx.saved_tensors
        x_hat, rstd = LayerNorm.normalise(x, ctx.eps)
        g = wide(grad_y)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            gw = g * wide(weight)
            mean = gw.mean(-1, keepdim=True)
            slope = (gw * x_hat).mean(-1, keepdim=True)
            grad_x = sum_to((gw - mean - x_hat * slope) * rstd, x)
        if ctx.needs_input_grad[1]:
            grad_weight = sum_to(g * x_hat, weight)
        if ctx.needs_input_grad[2]:
            grad_bias = sum_to(g, bias)
        return grad_x, grad_weight, grad_bias, None


class RmsNorm(Function):
    """y = x / sqrt(mean(x²) + eps) * weight over the last axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        rstd = torch.rsqrt(wide(x).square().mean(-1, keepdim=True) + eps)
        return (wide(x) * rstd * wide(weight)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        rstd = torch.rsqrt(wide(x).square().mean(-1, keepdim=True) + ctx.eps)
        x_hat = wide(x) * rstd
        g = wide(grad_y)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            gw = g * wide(weight)
            slope = (gw * x_hat).mean(-1, keepdim=True)
            grad_x = sum_to((gw - x_hat * slope) * rstd, x)
        if ctx.needs_input_grad[1]:
            grad_weight = sum_to(g * x_hat, weight)
        return grad_x, grad_weight, None


class RmsNormByRows(RmsNorm):
    """The same, two rows at a time into a buffer: autograd cannot follow it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        x_rows = rows(wide(x))
        y = torch.empty_like(x_rows)
        for start in range(0, len(x_rows), 2):
            chunk = x_rows[start : start + 2]
            rstd = chunk.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
            torch.mul(chunk * rstd, wide(weight), out=y[start : start + 2])
        return y.reshape(x.shape).to(x.dtype)


class BatchNorm(Function):
    """Normalises each channel, axis 1, over the batch and all places."""

    @staticmethod
    def axes(x: Tensor) -> list[int]:
        """Returns the axes that the statistics are taken over."""
        return [axis for axis in range(x.dim()) if axis != 1]

    @staticmethod
    def per_channel(v: Tensor, x: Tensor) -> Tensor:
        """Returns v shaped to broadcast along axis 1 of x."""
        return wide(v).reshape(-1, *[1] * (x.dim() - 2))

    @staticmethod
    def normalise(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Returns (x - mean) / std and 1 / std."""
        axes = BatchNorm.axes(x)
        centred = wide(x) - wide(x).mean(axes, keepdim=True)
        var = centred.square().mean(axes, keepdim=True)
        rstd = torch.rsqrt(var + eps)
        return centred * rstd, rstd

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.eps = eps
        axes = BatchNorm.axes(x)
        centred = wide(x) - wide(x).mean(axes, keepdim=True)
        var = wide(x).var(axes, correction=0, keepdim=True)
        y = centred / torch.sqrt(var + eps)
        y = y * BatchNorm.per_channel(weight, x) + BatchNorm.per_channel(bias, x)
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, bias = ctx.saved_tensors
        axes = BatchNorm.axes(x)
        x_hat, rstd = BatchNorm.normalise(x, ctx.eps)
        g = wide(grad_y)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            gw = g * BatchNorm.per_channel(weight, x)
            mean = gw.mean(axes, keepdim=True)
            slope = (gw * x_hat).mean(axes, keepdim=True)
            grad_x = ((gw - mean - x_hat * slope) * rstd).to(x.dtype)
        if ctx.needs_input_grad[1]:
            grad_weight = (g * x_hat).sum(axes).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            grad_bias = g.sum(axes).to(bias.dtype)
        return grad_x, grad_weight, grad_bias, None


class Softmax(Function):
    """y = softmax(x) along `dim`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, dim: int) -> Tensor:
        return torch.softmax(x, dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.dim = inputs[1]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        g = wide(grad_y) * wide(y)
        return (g - wide(y) * g.sum(ctx.dim, keepdim=True)).to(y.dtype), None


class CrossEntropy(Function):
    """torch's cross entropy, classes last, `reduction` being none, sum or mean."""

    @staticmethod
    def wanted(
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None,
        ignore_index: int,
        smoothing: float,
    ) -> tuple[Tensor, Tensor]:
        """Returns the weighted distribution to predict and what `mean` divides by."""
        dtype, count = wide(logits).dtype, logits.shape[-1]
        hit = target.unsqueeze(-1) == torch.arange(count, device=logits.device)
        kept = (target != ignore_index).unsqueeze(-1).to(dtype)
        hit = hit.to(dtype) * kept
        wanted = hit * (1 - smoothing) + kept * (smoothing / count)
        if weight is None:
            return wanted, kept.sum()
        return wanted * weight.to(dtype), (hit * weight.to(dtype)).sum()

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> Tensor:
        ctx.save_for_backward(logits, target, weight)
        ctx.options, ctx.reduction = (ignore_index, smoothing), reduction
        wanted, total = CrossEntropy.wanted(logits, target, weight, *ctx.options)
        log_p = torch.log_softmax(wide(logits), -1).masked_fill(wanted == 0, 0)
        losses = -(wanted * log_p).sum(-1)
        if reduction == "mean":
            losses = losses.sum() / total
        elif reduction == "sum":
            losses = losses.sum()
        return losses.to(logits.dtype)

    @staticmethod
    def rows_grad(ctx: Any) -> tuple[Tensor, Tensor]:
        """Returns the gradient of each row's loss and what `mean` divides by."""
        logits, target, weight = ctx.saved_tensors
        wanted, total = CrossEntropy.wanted(logits, target, weight, *ctx.options)
        p = torch.softmax(wide(logits), -1)
        return p * wanted.sum(-1, keepdim=True) - wanted, total

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        dtype = ctx.saved_tensors[0].dtype
        rows_grad, total = CrossEntropy.rows_grad(ctx)
        g = wide(grad_loss)
        if ctx.reduction == "none":
            g = g.unsqueeze(-1)
        elif ctx.reduction == "mean":
            g = g / total.masked_fill(total == 0, 1)
        return (g * rows_grad).to(dtype), *[None] * 5


class LinearCrossEntropy(Function):
    """Cross entropy of x Wᵀ per row, two rows at a time: no logits are kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, target)
        losses = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for i in range(0, len(x), 2):
            logits = wide(x[i : i + 2]) @ wide(weight).t()
            log_p = torch.log_softmax(wide(logits), -1)
            picked = log_p.gather(-1, target[i : i + 2].unsqueeze(-1))
            losses[i : i + 2] = picked.squeeze(-1).neg_()
        return losses

    @staticmethod
    def logits_grad(x: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        """Returns the gradient of each row's loss by its logits."""
        logits = wide(x) @ wide(weight).t()
        classes = torch.arange(len(weight), device=x.device)
        hit = target.unsqueeze(-1) == classes
        return torch.softmax(wide(logits), -1) - hit.to(wide(x).dtype)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        x, weight, target = ctx.saved_tensors
        grad_weight = torch.zeros_like(wide(weight))
        grad_x = [wide(x)[:0]]
        for i in range(0, len(x), 2):
            some = slice(i, i + 2)
            d = LinearCrossEntropy.logits_grad(x[some], weight, target[some])
            d = d * wide(grad_loss)[some].unsqueeze(-1)
            if ctx.needs_input_grad[0]:
                grad_x.append(d @ wide(weight))
            if ctx.needs_input_grad[1]:
                grad_weight = grad_weight + d.t() @ wide(x[some])
        return (
            torch.cat(grad_x).to(x.dtype) if ctx.needs_input_grad[0] else None,
            grad_weight.to(weight.dtype) if ctx.needs_input_grad[1] else None,
            None,
        )


class Attention(Function):
    """softmax(q kᵀ / sqrt(d)) v."""

    generate_vmap_rule = True

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = wide(q) @ wide(k).transpose(-2, -1) * q.shape[-1] ** -0.5
        return (torch.softmax(scores, -1).to(wide(v)) @ wide(v)).to(q.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def weights(q: Tensor, k: Tensor) -> Tensor:
        """Returns the attention weights."""
        scores = wide(q) @ wide(k).transpose(-2, -1) * q.shape[-1] ** -0.5
        return torch.softmax(wide(scores), -1)

    @staticmethod
    def scores_grad(p: Tensor, grad_p: Tensor) -> Tensor:
        """Returns the gradient of the scores: softmax's rule."""
        return p * (grad_p - (p * grad_p).sum(-1, keepdim=True))

    @staticmethod
    def from_scores(ctx: Any, g: Tensor, p: Tensor, grad_scores: Tensor) -> Any:
        """Returns the three gradients, given the one of the scaled scores."""
        q, k, v = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        need_q, need_k, need_v = ctx.needs_input_grad
        return (
            sum_to(grad_scores @ wide(k) * scale, q) if need_q else None,
            sum_to(grad_scores.transpose(-2, -1) @ wide(q) * scale, k)
            if need_k
            else None,
            sum_to(p.transpose(-2, -1) @ g, v) if need_v else None,
        )

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        q, k, v = ctx.saved_tensors
        g, p = wide(grad_y), Attention.weights(q, k)
        grad_p = g @ wide(v).transpose(-2, -1)
        return Attention.from_scores(ctx, g, p, Attention.scores_grad(p, grad_p))


class Conv1d(Function):
    """Cross-correlation along the last axis, stride 1, as a product with windows."""

    generate_vmap_rule = True

    @staticmethod
    def windows(x: Tensor, size: int, padding: int) -> Tensor:
        """Returns all windows of the last axis, along a new axis."""
        return F.pad(wide(x), (padding, padding)).unfold(-1, size, 1)

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
        windows = Conv1d.windows(x, weight.shape[-1], padding)
        y = torch.einsum("...clk,ock->...ol", windows, wide(weight))
        return (y + wide(bias).unsqueeze(-1)).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, weight, bias, ctx.padding = inputs
        ctx.save_for_backward(x, weight, bias)

    @staticmethod
    def grad_x(g: Tensor, kernel: Tensor, padding: int) -> Tensor:
        """Returns g correlated with `kernel`, which the caller has flipped."""
        windows = Conv1d.windows(g, kernel.shape[-1], kernel.shape[-1] - 1 - padding)
        return torch.einsum("...olk,ock->...cl", windows, wide(kernel))

    @staticmethod
    def grad_weight(x: Tensor, g: Tensor, size: int, padding: int) -> Tensor:
        """Returns x correlated with g."""
        windows = Conv1d.windows(x, size, padding)
        return torch.einsum("...clk,...ol->...ock", windows, wide(g))

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, bias = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = Conv1d.grad_x(grad_y, weight.flip(-1), ctx.padding).to(x.dtype)
        if ctx.needs_input_grad[1]:
            size = weight.shape[-1]
            each = Conv1d.grad_weight(x, grad_y, size, ctx.padding)
            grad_weight = sum_to(each, weight)
        if ctx.needs_input_grad[2]:
            grad_bias = sum_to(wide(grad_y).sum(-1), bias)
        return grad_x, grad_weight, grad_bias, None


class MaxPool1d(Function):
    """Maxima of windows along the last axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, stride: int, padding: int) -> Tensor:
        padded = F.pad(x, (padding, padding), value=-torch.inf)
        y, index = padded.unfold(-1, size, stride).max(-1)
        index += stride * torch.arange(index.shape[-1], device=x.device)
        ctx.save_for_backward(index)
        ctx.padding, ctx.shape, ctx.length = padding, padded.shape, x.shape[-1]
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (index,) = ctx.saved_tensors
        padded = grad_y.new_zeros(ctx.shape).scatter_add_(-1, index, grad_y)
        return padded.narrow(-1, ctx.padding, ctx.length), None, None, None


class LstmCell(Function):
    """The pointwise half of an LSTM cell: (gates, c) to (h', c')."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(gates, c)
        i, f, z, o = wide(gates).chunk(4, -1)
        c_new = torch.sigmoid(f) * wide(c) + torch.sigmoid(i) * torch.tanh(z)
        h_new = torch.sigmoid(o) * torch.tanh(c_new)
        return h_new.to(c.dtype), c_new.to(c.dtype)

    @staticmethod
    def gates(ctx: Any) -> tuple[Tensor, ...]:
        """Returns the gates after their activation, and tanh(c')."""
        gates, c = ctx.saved_tensors
        i, f, z, o = wide(gates).chunk(4, -1)
        i, f, z, o = i.sigmoid(), f.sigmoid(), z.tanh(), o.sigmoid()
        return i, f, z, o, torch.tanh(f * wide(c) + i * z)

    @staticmethod
    def backward(ctx: Any, grad_h: Tensor, grad_c: Tensor) -> Any:
        i, f, z, o, t = LstmCell.gates(ctx)
        gates, c = ctx.saved_tensors
        gh = wide(grad_h)
        gc = wide(grad_c) + gh * o * (1 - t * t)
        grad_gates = None
        need_gates, need_c = ctx.needs_input_grad
        if need_gates:
            parts = (
                gc * z * i * (1 - i),
                gc * wide(c) * f * (1 - f),
                gc * i * (1 - z * z),
                gh * t * o * (1 - o),
            )
            grad_gates = sum_to(torch.cat(parts, -1), gates)
        return grad_gates, sum_to(gc * f, c) if need_c else None


class Swish(Function):
    """y = x sigmoid(x)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return (wide(x) * torch.sigmoid(wide(x))).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(wide(x))
        return (wide(grad_y) * (s + wide(x) * s * (1 - s))).to(x.dtype)


class SwiGlu(Function):
    """y = gate sigmoid(gate) up."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return (wide(gate) * torch.sigmoid(wide(gate)) * wide(up)).to(gate.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        gate, up = ctx.saved_tensors
        s = torch.sigmoid(wide(gate))
        g, silu = wide(grad_y), wide(gate) * s
        grad_gate = grad_up = None
        if ctx.needs_input_grad[0]:
            grad_gate = sum_to(g * wide(up) * (s + silu * (1 - s)), gate)
        if ctx.needs_input_grad[1]:
            grad_up = sum_to(g * silu, up)
        return grad_gate, grad_up


class Rnn(Function):
    """y_t = tanh(x_t + W y_{t-1}) along axis 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        y = torch.empty_like(wide(x))
        h = torch.zeros_like(wide(x)[:, 0])
        for t in range(x.shape[1]):
            h = torch.tanh(wide(x)[:, t] + (h @ wide(weight).t()).to(h.dtype))
            y[:, t] = h
        y = y.to(x.dtype)
        ctx.save_for_backward(y, weight)
        return y

    @staticmethod
    def through_time(ctx: Any, grad_y: Tensor, memory: float) -> Any:
        """Returns both gradients; `memory` scales what each step hands back."""
        y, weight = ctx.saved_tensors
        y, w, g = wide(y), wide(weight), wide(grad_y)
        carry = torch.zeros_like(g[:, 0])
        steps, grad_weight = [], torch.zeros_like(w)
        for t in reversed(range(y.shape[1])):
            d = (g[:, t] + memory * carry) * (1 - y[:, t].square())
            carry = d @ w
            steps.insert(0, d)
            if t > 0 and ctx.needs_input_grad[1]:
                grad_weight = grad_weight + rows(d).t() @ rows(y[:, t - 1])
        return (
            torch.stack(steps, 1).to(grad_y.dtype) if ctx.needs_input_grad[0] else None,
            grad_weight.to(weight.dtype) if ctx.needs_input_grad[1] else None,
        )

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return Rnn.through_time(ctx, grad_y, 1.0)
