"""Deliberately wrong Functions, each with the one diagnosis that must claim it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradlab.checks import MatchesFiniteDifferences, MatchesReference
from gradlab.diagnoses import Diagnosis
from gradlab.subject import Mismatch, build


@dataclass(frozen=True)
class Mutant:
    """A wrong backward and what must be said about it.

    Attributes:
        name: The mistake.
        diagnosis: The class that must claim it.
        says: What its sentence must contain.
        function: The Function.
        inputs: What it is checked with.
        of: The input whose gradient is wrong.
    """

    name: str
    diagnosis: str
    says: str
    function: Callable[..., Any]
    inputs: tuple[Any, ...]
    of: int = 0

    @cached_property
    def mismatch(self) -> Mismatch:
        """What the value check finds of the wrong input."""
        subject = build(self.function, self.inputs)
        found = [
            mismatch
            for check in (MatchesReference(), MatchesFiniteDifferences())
            for mismatch in check(subject)
            if mismatch.place == self.of
        ]
        assert len(found) == 1, f"{self.name} is not found to be wrong"
        return found[0]


def wrong(forward: Callable[..., Any], backward: Callable[..., Any]) -> Any:
    """A Function of a forward, and a backward (ctx, *grad_outputs) of its own."""

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            result = forward(*args)
            ctx.args = args
            ctx.y = result
            return result

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            result = backward(*ctx.args, ctx.y, *grads)
            result = result if isinstance(result, tuple) else (result,)
            return result + (None,) * (len(ctx.args) - len(result))

    return Wrong


def t(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """A normal tensor that requires grad."""
    generator = torch.Generator().manual_seed(seed + 17 * len(shape))
    return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()


def p(*shape: int, seed: int = 0) -> Tensor:
    """A positive one."""
    return (t(*shape, seed=seed).detach().abs() + 0.5).requires_grad_()


def _sum_last(v: Tensor) -> Tensor:
    return v.sum(-1, keepdim=True)


def _layer_norm(x: Tensor) -> Tensor:
    mu = x.mean(-1, keepdim=True)
    centred = x - mu
    var = (centred * centred).mean(-1, keepdim=True)
    return centred / torch.sqrt(var + 1e-5)


def _rstd(x: Tensor) -> Tensor:
    return torch.rsqrt(x.var(-1, correction=0, keepdim=True) + 1e-5)


def _mean_last(v: Tensor) -> Tensor:
    return v.mean(-1, keepdim=True)


def _without_mean(x: Tensor, y: Tensor, v: Tensor) -> Tensor:
    return _rstd(x) * (v - y * _mean_last(v * y))


def _var_sign(x: Tensor, y: Tensor, v: Tensor) -> Tensor:
    return _rstd(x) * (v - _mean_last(v) + y * _mean_last(v * y))


def _var_sum(x: Tensor, y: Tensor, v: Tensor) -> Tensor:
    return _rstd(x) * (v - _mean_last(v) - y * _sum_last(v * y))


def _statistics_constant(x: Tensor, y: Tensor, v: Tensor) -> Tensor:
    return _rstd(x) * v


def _rms_norm(x: Tensor, w: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True)) * w


def _rms_wrong(x: Tensor, w: Tensor, y: Tensor, v: Tensor) -> Tensor:
    r = torch.rsqrt((x * x).mean(-1, keepdim=True))
    n = x * r
    # w is applied twice in the second term only.
    return r * (v * w - n * _mean_last(v * w * w * n))


class Noisy(torch.autograd.Function):
    """Draws another mask in the backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.exp()

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        generator = torch.Generator()
        generator.seed()
        return v * torch.rand(v.shape, generator=generator, dtype=v.dtype)


def _exp_unseen(x: Tensor) -> Tensor:
    return x.exp() + 0.3 * x


_targets = torch.tensor([2, 0, 3, -100, 1])


def _ce_wrong(x: Tensor, target: Tensor, y: Tensor, v: Tensor) -> Tensor:
    valid = (target != -100).unsqueeze(1)
    one_hot = F.one_hot(target.clamp(min=0), x.shape[1])
    return v * (x.softmax(-1) - one_hot) * valid / target.numel()


def say(diagnosis: Diagnosis, function: Any, *inputs: Any, of: int = 0) -> str:
    """What one diagnosis says about a wrong function; empty when it is silent."""
    return diagnosis(Mutant("", "", "", function, inputs, of).mismatch) or ""


def _by_hand(x: Tensor) -> Tensor:
    e = torch.exp(x - x.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


def _of_data(x: Tensor) -> Tensor:
    y = x.data.clone()
    y.mul_(torch.rsqrt(y.square().sum(-1, keepdim=True)))
    return y


def _scan(x: Tensor, w: Tensor) -> Tensor:
    h = torch.zeros_like(x[0])
    for row in x:
        h = torch.tanh(row + h @ w)
    return h


def _scan_wrong(x: Tensor, w: Tensor, y: Tensor, v: Tensor) -> Tensor:
    # Only the last step reaches x.
    grad_x = torch.zeros_like(x)
    grad_x[-1] = v * (1 - y * y)
    return grad_x


mutants = (
    Mutant(
        "sign",
        "SignFlip",
        "sign is flipped",
        wrong(torch.reciprocal, lambda x, y, v: v * y * y),
        (p(3, 4),),
    ),
    Mutant(
        "mean without 1/N",
        "ConstantFactor",
        r"12 times the true one: N = 12",
        wrong(lambda x: (x * x).mean(), lambda x, y, v: 2 * x * v),
        (t(3, 4),),
    ),
    Mutant(
        "1/sqrt(d) forgotten",
        "ConstantFactor",
        r"√d with d = 5 \(q.shape\[1\]\)|√d with d = 5",
        wrong(lambda q, k: q @ k.mT / k.shape[1] ** 0.5, lambda q, k, y, v: v @ k),
        (t(3, 5), t(4, 5, seed=1)),
    ),
    Mutant(
        "variance over n",
        "ConstantFactor",
        r"3/4, as \(n − 1\)/n of n = 4",
        wrong(
            lambda x: x.var(-1),
            lambda x, y, v: v[:, None] * 2 * (x - _mean_last(x)) / x.shape[-1],
        ),
        (t(3, 4),),
    ),
    Mutant(
        "ignored tokens counted",
        "ConstantFactor",
        r"0\.8 times the true one: 4/5, the count of",
        wrong(F.cross_entropy, _ce_wrong),
        (t(5, 4), _targets),
    ),
    Mutant(
        "argument applied once too often",
        "ConstantFactor",
        r"3\.5 times the true one: .* = 3\.5",
        wrong(lambda x, beta: x.exp() * beta, lambda x, b, y, v: v * y * b),
        (t(3, 4), 3.5),
    ),
    Mutant(
        "None",
        "MissingGradient",
        "returns None",
        wrong(lambda x, w: x * w, lambda x, w, y, v: (v * w, None)),
        (t(3, 4), t(4)),
        1,
    ),
    Mutant(
        "zeros",
        "MissingGradient",
        "returns zeros",
        wrong(lambda x: x.sin(), lambda x, y, v: torch.zeros_like(x)),
        (t(3, 4),),
    ),
    Mutant("noise", "NotDeterministic", "not deterministic", Noisy, (t(3, 4),)),
    Mutant(
        "ones assumed",
        "IgnoresGradOutput",
        "grad_output of ones",
        wrong(torch.sin, lambda x, y, v: x.cos()),
        (t(3, 4),),
    ),
    Mutant(
        "one output dropped",
        "DroppedOutput",
        "output 1 of 2 is dropped",
        wrong(lambda x: (x.sin(), x.exp()), lambda x, y, u, v: u * x.cos()),
        (t(3, 4),),
    ),
    Mutant(
        "outputs exchanged",
        "DroppedOutput",
        "0 and 1 are exchanged",
        wrong(
            lambda x: (x.sin(), x.exp()), lambda x, y, u, v: v * x.cos() + u * x.exp()
        ),
        (t(3, 4),),
    ),
    Mutant(
        "inputs swapped",
        "SwappedInputs",
        r"\(input 1\)",
        wrong(
            lambda a, b: a * b.sin(), lambda a, b, y, v: (v * a * b.cos(), v * b.sin())
        ),
        (t(3, 4), t(3, 4, seed=1)),
    ),
    Mutant(
        "kernel not flipped",
        "UnflippedKernel",
        "not flipped along axes 2 and 3",
        wrong(
            lambda x, w: F.conv2d(x, w, padding=1),
            lambda x, w, y, v: F.conv2d(v, w.transpose(0, 1), padding=1),
        ),
        (t(2, 3, 5, 5), t(4, 3, 3, 3)),
    ),
    Mutant(
        "gradient transposed",
        "Transposed",
        "transpose of the true one",
        wrong(lambda x: torch.linalg.det(x), lambda x, y, v: v * y * x.inverse()),
        (t(4, 4),),
    ),
    Mutant(
        "weight transposed",
        "Transposed",
        "transposed",
        wrong(lambda x, w: x @ w, lambda x, w, y, v: v @ w),
        (t(3, 4), t(4, 4)),
    ),
    Mutant(
        "flip not undone",
        "Transposed",
        "flipped along axis 1",
        wrong(lambda x: x.flip(1) ** 3, lambda x, y, v: v * 3 * x.flip(1) ** 2),
        (t(3, 4),),
    ),
    Mutant(
        "one late",
        "OffByOne",
        r"shifted by \+1 along axis 1",
        wrong(
            lambda x: x.cumsum(1),
            lambda x, y, v: F.pad(v.flip(1).cumsum(1).flip(1)[:, :-1], (1, 0)),
        ),
        (t(3, 6),),
    ),
    Mutant(
        "scan not reversed",
        "WrongDirection",
        "along axis 1 in the direction of the forward",
        wrong(lambda x: x.cumsum(1), lambda x, y, v: v.cumsum(1)),
        (t(3, 6),),
    ),
    Mutant(
        "first entry only",
        "FirstElementOnly",
        "first entry",
        wrong(torch.sin, lambda x, y, v: v.reshape(-1)[0] * x.cos()),
        (t(3, 4),),
    ),
    Mutant(
        "mean of grad_output",
        "FirstElementOnly",
        "mean of grad_output",
        wrong(torch.sin, lambda x, y, v: v.mean() * x.cos()),
        (t(3, 4),),
    ),
    Mutant(
        "clamped",
        "NonlinearGradOutput",
        r"clamped to ±0\.7",
        wrong(torch.sin, lambda x, y, v: v.clamp(-0.7, 0.7) * x.cos()),
        (t(3, 4),),
    ),
    Mutant(
        "squared",
        "NonlinearGradOutput",
        "squared",
        wrong(torch.sin, lambda x, y, v: v * v * x.cos()),
        (t(3, 4),),
    ),
    Mutant(
        "normalised",
        "NonlinearGradOutput",
        "norm",
        wrong(torch.sin, lambda x, y, v: v / v.norm() * x.cos()),
        (t(3, 4),),
    ),
    Mutant(
        "grad_output transposed",
        "MisreadGradOutput",
        r"grad_output is misread",
        wrong(torch.sin, lambda x, y, v: v.T * x.cos()),
        (t(4, 4),),
    ),
    Mutant(
        "no conjugate",
        "MissingConjugate",
        "conjugate",
        wrong(torch.sin, lambda x, y, v: v * x.cos()),
        (t(3, 4, dtype=torch.complex128),),
    ),
    Mutant(
        "bias summed over the wrong dim",
        "Unreduced",
        "sum over dim 1; it is the sum over dim 0",
        wrong(lambda b, x: x * x + b, lambda b, x, y, v: (v.sum(1), 2 * x * v)),
        (t(4), t(4, 4)),
    ),
    Mutant(
        "last slice instead of the sum",
        "Unreduced",
        "last slice along dim 0",
        wrong(lambda w, x: x * w.exp(), lambda w, x, y, v: ((v * y)[-1], v * w.exp())),
        (t(4), t(3, 4)),
    ),
    Mutant(
        "softmax over the other dim",
        "Unreduced",
        "dim 0",
        wrong(
            lambda x: x.softmax(-1),
            lambda x, y, v: y * (v - (v * y).sum(0, keepdim=True)),
        ),
        (t(4, 4),),
    ),
    Mutant(
        "weight applied twice",
        "ExtraFactor",
        "too (much|often)",
        wrong(
            lambda x, w: x.exp() * w,
            lambda x, w, y, v: (v * y * w, (v * x.exp()).sum(0)),
        ),
        (t(3, 4), t(4)),
    ),
    Mutant(
        "weight not applied",
        "ExtraFactor",
        "lacks|missing|not applied",
        wrong(lambda x, w: (x * w).exp(), lambda x, w, y, v: v * y),
        (t(3, 4), t(4)),
    ),
    Mutant(
        "1 - y forgotten",
        "ExtraFactor",
        "lacks the factor 1 − output",
        wrong(torch.sigmoid, lambda x, y, v: v * y),
        (t(3, 4),),
    ),
    Mutant(
        "y for x",
        "WrongOperand",
        "output is used where",
        wrong(lambda x: x**3 + x, lambda x, y, v: v * (3 * y * y + 1)),
        (t(3, 4),),
    ),
    Mutant(
        "eps argument",
        "MissingEps",
        "0.01 is missing",
        wrong(
            lambda x, eps: x * torch.log(x + eps),
            lambda x, eps, y, v: v * (torch.log(x) + 1),
        ),
        (p(3, 4), 0.01),
    ),
    Mutant(
        "eps in the code",
        "MissingEps",
        "0.001 is missing",
        wrong(
            lambda x: x * torch.log(x + 1e-3),
            lambda x, y, v: v * (torch.log(x) + 1),
        ),
        (p(3, 4),),
    ),
    Mutant(
        "mean constant",
        "MissingTerm",
        r"`mean`.*mu = x.mean\(-1, keepdim=True\)`\) is missing",
        wrong(_layer_norm, _without_mean),
        (t(3, 6),),
    ),
    Mutant(
        "sign of the variance term",
        "MissingTerm",
        r"var = .*has the wrong sign",
        wrong(_layer_norm, _var_sign),
        (t(3, 6),),
    ),
    Mutant(
        "sum for mean in the variance term",
        "MissingTerm",
        r"var = .*multiplied by 6: N = 6",
        wrong(_layer_norm, _var_sum),
        (t(3, 6),),
    ),
    Mutant(
        "both statistics constant",
        "MissingTerm",
        "two paths",
        wrong(_layer_norm, _statistics_constant),
        (t(3, 6),),
    ),
    Mutant(
        "fused softmax without its sum",
        "MissingTerm",
        "inside `softmax`.*is missing",
        wrong(lambda x: F.softmax(x, -1), lambda x, y, v: y * v),
        (t(3, 4),),
    ),
    Mutant(
        "weight twice in one term",
        "AlteredTerm",
        "too much",
        wrong(_rms_norm, _rms_wrong),
        (t(3, 6), t(6)),
    ),
    Mutant(
        "delta not used",
        "WrongArgument",
        r"= 0\.6 is not what the backward uses: .* = 1",
        wrong(
            lambda x, delta: delta * torch.tanh(x / delta),
            lambda x, d, y, v: v * (1 - torch.tanh(x) ** 2),
        ),
        (t(3, 4), 0.6),
    ),
    Mutant(
        "grad_output passed on",
        "MissingDerivative",
        "grad_output itself",
        wrong(lambda x: x**3 + x.sin(), lambda x, y, v: v.clone()),
        (t(3, 4),),
    ),
    Mutant(
        "leaks through the mask",
        "PartialFactor",
        "the true gradient is 0 in 8 of 12 entries",
        wrong(lambda x, m: x.exp() * m + 1, lambda x, m, y, v: v * x.exp()),
        (t(3, 4), torch.arange(12).view(3, 4) % 3 == 0),
    ),
    Mutant(
        "half on the negative side",
        "PartialFactor",
        "0.5 times the true one in",
        wrong(
            torch.sin,
            lambda x, y, v: v * x.cos() * torch.where(x < 0, 0.5, 1.0),
        ),
        (t(3, 4),),
    ),
    Mutant(
        "x in the rule for y",
        "WrongOperand",
        r"inputs\[0\] is used where the output is meant",
        wrong(torch.tanh, lambda x, y, v: v * (1 - x * x)),
        (t(3, 4),),
    ),
    Mutant(
        "operand left out",
        "ExtraFactor",
        "left out: the gradient is the true one for .* = 0",
        wrong(
            lambda z, n, h: n + torch.sigmoid(z) * (h - n),
            lambda z, n, h, y, v: (
                -v * n * torch.sigmoid(z) * (1 - torch.sigmoid(z)),
                v * (1 - torch.sigmoid(z)),
                v * torch.sigmoid(z),
            ),
        ),
        (t(3, 4), t(3, 4, seed=1), t(3, 4, seed=2)),
    ),
    Mutant(
        "softmax by hand without its sum",
        "MissingTerm",
        r"`sum` .*is missing",
        wrong(_by_hand, lambda x, y, v: y * v),
        (t(3, 4),),
    ),
    Mutant(
        "a path through .data",
        "MissingTerm",
        r"`sum` .*is missing",
        wrong(_of_data, lambda x, y, v: v * y / x),
        (t(3, 4),),
    ),
    Mutant(
        "a loop cut short",
        "MissingTerm",
        r"`matmul` .*h @ w.*is missing",
        wrong(_scan, _scan_wrong),
        (t(4, 3), t(3, 3)),
    ),
    Mutant(
        "permuted again",
        "WrongIndex",
        r"at \[0, 0\] it is grad_output\[0, 2\], and grad_output\[0, 1\] is meant",
        wrong(
            lambda x, i: x.index_select(1, i), lambda x, i, y, v: v.index_select(1, i)
        ),
        (t(3, 5), torch.tensor([2, 0, 3, 4, 1])),
    ),
)
