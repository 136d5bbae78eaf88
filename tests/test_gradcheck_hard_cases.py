"""Cases that once went wrong: coincidences, state beside ctx, empty or NaN inputs."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab import gradcheck


def function(
    forward: Callable[..., Tensor], backward: Callable[..., Any]
) -> type[torch.autograd.Function]:
    """A Function that saves its arguments; `backward` gets ȳ and them."""

    class Made(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Tensor) -> Tensor:
            ctx.save_for_backward(*args)
            return forward(*args)

        @staticmethod
        def backward(ctx: Any, grad_y: Tensor) -> Any:
            return backward(grad_y, *ctx.saved_tensors)

    return Made


def leaf(*shape: int) -> Tensor:
    return torch.randn(*shape, requires_grad=True)


class InPlaceReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        x.relu_()
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return grad_y * (y > 0)


@pytest.mark.parametrize(
    "fn",
    [
        InPlaceReLU,
        lambda x: InPlaceReLU.apply(x * 1.0),
        lambda x: gradlab.layers.relu(x * 1, inplace=True),
    ],
)
def test_in_place(fn: Any) -> None:
    report = gradcheck(fn, leaf(3, 4))
    assert report.ok, str(report)


def test_in_place_and_wrong() -> None:
    class Wrong(InPlaceReLU):
        @staticmethod
        def backward(ctx: Any, grad_y: Tensor) -> Any:
            return 2 * InPlaceReLU.backward(ctx, grad_y)

    assert gradcheck(lambda x: Wrong.apply(x * 1.0), leaf(3, 4)).verdict == "wrong"


ones, zeros = torch.ones(3, 4).requires_grad_(), torch.zeros(3, 4).requires_grad_()
COINCIDENCES = {
    "weight of one": (
        function(lambda x, w: x * w, lambda g, x, w: (-g, g * x)),
        (leaf(3, 4), ones),
    ),
    "bias of zero": (
        function(lambda x, b: x + b, lambda g, x, b: (0.5 * g, g)),
        (leaf(3, 4), zeros),
    ),
    "relu of positive numbers": (
        function(torch.relu, lambda g, x: 2 * g * (x > 0)),
        torch.rand(3, 4).requires_grad_(),
    ),
    "cube of one": (function(lambda x: x**3, lambda g, x: 2 * g * x * x), ones),
}


@pytest.mark.parametrize(("fn", "inputs"), COINCIDENCES.values(), ids=COINCIDENCES)
def test_what_is_the_identity_by_chance_is_not_a_choice(fn: Any, inputs: Any) -> None:
    assert gradcheck(fn, inputs, level="value").verdict == "wrong"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", [(3,), (3, 4)])
def test_a_step_is_seen_whatever_the_seed(seed: int, shape: tuple[int, ...]) -> None:
    torch.manual_seed(seed)
    spike = function(lambda x: (x > 0).to(x.dtype), lambda g, x: g / (1 + x.abs()) ** 2)
    report = gradcheck(spike, leaf(*shape), level="value", seed=seed)
    assert report.verdict == "surrogate", str(report)


class MaskOnClass(torch.autograd.Function):
    mask: Any = None

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        MaskOnClass.mask = x > 0
        return x.relu()

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return grad_y * MaskOnClass.mask


class ScaleOnClass(torch.autograd.Function):
    scale: Any = None

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Any) -> Tensor:
        ScaleOnClass.scale = scale
        return x * scale

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return grad_y * ScaleOnClass.scale, None


@pytest.mark.parametrize(
    ("fn", "inputs"),
    [
        (MaskOnClass, leaf(3, 4)),
        (ScaleOnClass, (leaf(3, 4), torch.randn(3, 4))),
        (ScaleOnClass, (leaf(3, 4), 2.5)),
    ],
    ids=["mask", "tensor", "number"],
)
def test_state_beside_ctx_is_found_by_another_forward(fn: Any, inputs: Any) -> None:
    report = gradcheck(fn, inputs)
    assert "repeatable" in {f.code for f in report.findings}, str(report)


def test_nothing_is_proved_of_no_numbers() -> None:
    wrong = function(lambda x: x**3, lambda g, x: 2 * g * x)
    for number in (math.nan, math.inf):
        with pytest.raises(ValueError, match=r"inputs must be finite .* 1 NaN or inf"):
            gradcheck(wrong, torch.tensor([1.0, number]).requires_grad_())
    report = gradcheck(wrong, torch.empty(0, 4).requires_grad_())
    assert report.verdict == "inconclusive"
    assert not report.ok


def swish(grad_y: Tensor, x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return grad_y * s * (1 + x * (1 - s))


Swish = function(lambda x: x * torch.sigmoid(x), swish)


def test_a_bias_before_batch_norm_has_no_gradient_but_rounding() -> None:
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(288, 4),
    )

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: Tensor) -> Tensor:
            return Swish.apply(self.body(x))

    report = gradcheck(Net(), torch.randn(2, 3, 8, 8))
    assert report.ok, str(report)


BAD_REFERENCES = {
    "no callable": (3, TypeError, "a differentiable callable"),
    "wrong arity": (lambda a, b: a, ValueError, "must run on the inputs of fn"),
    "raises": (lambda x: 1 / 0, ValueError, "ZeroDivisionError"),
    "no tensor": (lambda x: 3, TypeError, "must return a floating point tensor"),
}


@pytest.mark.parametrize(
    ("reference", "error", "match"), BAD_REFERENCES.values(), ids=BAD_REFERENCES
)
def test_bad_reference(reference: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        gradcheck(Swish, leaf(3), reference)


def test_more_bad_input() -> None:
    with pytest.raises(TypeError, match="seed must be an int, got str"):
        gradcheck(Swish, leaf(3), seed="a")
    with pytest.raises(ValueError, match="weight of LazyLinear gets one in the first"):
        gradcheck(nn.LazyLinear(2), leaf(3, 2))


def test_an_interrupt_leaves_nothing_behind() -> None:
    class Interrupted(Swish):
        @staticmethod
        def backward(ctx: Any, grad_y: Tensor) -> Any:
            raise KeyboardInterrupt

    x = leaf(3)
    before, state = dict(vars(Interrupted)), torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        gradcheck(Interrupted, x)
    assert dict(vars(Interrupted)) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() == torch.float32


def test_json_is_strict() -> None:
    overflow = function(torch.sigmoid, lambda g, x: g * x.exp() / (1 + x.exp()) ** 2)
    report = gradcheck(overflow, leaf(3, 4))
    assert not report.ok
    json.loads(report.to_json(), parse_constant=lambda name: pytest.fail(name))
    assert report.from_dict(json.loads(report.to_json())).verdict == report.verdict


def test_the_function_inside_is_named_at_other_points_too() -> None:
    def without_tail(grad_y: Tensor, x: Tensor) -> Tensor:
        grad_x = grad_y * x.cos()
        whole = len(x) // 4 * 4
        return torch.cat([grad_x[:whole], 0 * grad_x[whole:]])

    Chunked = function(torch.sin, without_tail)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.tanh(Chunked.apply(self.a(x))))

    report = gradcheck(Net(), leaf(8, 4))
    errors = [f for f in report.findings if f.severity == "error"]
    assert [f.function for f in errors] == ["Made"], str(report)
