import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from gradlab import Function


class Square(Function):
    """y = x². The fused spelling is 3 x ȳ on purpose, to tell which of the two ran."""

    autocast = {"cpu": "lower_precision"}

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return x * x, x + 1

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, _: None) -> Tensor:
        assert not torch.is_autocast_enabled("cpu")
        (x,) = ctx.saved_tensors
        assert x.dtype not in (torch.bfloat16, torch.float16)
        return 2 * x * grad_y

    @staticmethod
    def fused_backward(ctx: Any, grad_y: Tensor, _: None) -> Any:
        (x,) = ctx.saved_tensors
        return 3 * x * grad_y

    @staticmethod
    def jvp(ctx: Any, dx: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return 5 * x * dx, None


def square(x: Tensor) -> Tensor:
    return Square.call(x)[0]


@pytest.fixture
def x() -> Tensor:
    return torch.tensor([1.0, 2.0, -4.0], requires_grad=True)


def slope(grad: Tensor, x: Tensor) -> float:
    ratio = (grad / x).detach()
    assert torch.allclose(ratio, ratio.flatten()[0])
    return float(ratio.flatten()[0])


def test_the_fused_spelling_runs_in_ordinary_training_only(x: Tensor) -> None:
    y = square(x)
    (grad,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    assert slope(grad, x) == 3
    (grad,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert slope(grad, x) == 2
    (rows,) = torch.autograd.grad(y, x, torch.eye(3), is_grads_batched=True)
    assert slope(rows.diagonal(), x) == 2
    assert slope(torch.func.grad(lambda x: square(x).sum())(x), x) == 2
    vs = torch.ones(2, 3)
    y = square(x)
    rows = torch.func.vmap(
        lambda v: torch.autograd.grad(y, x, v, retain_graph=True)[0]
    )(vs)
    assert slope(rows[1], x) == 2


def test_compiled_code_runs_the_fused_spelling_and_keeps_forward_mode(
    x: Tensor,
) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(square, fullgraph=True, backend="aot_eager")
    (grad,) = torch.autograd.grad(compiled(x).sum(), x)
    assert slope(grad, x) == 3
    tangent = torch.func.jvp(square, (x.detach(),), (torch.ones(3),))[1]
    assert slope(tangent, x) == 5


def test_compiled_func_grad_asks_for_the_gradient_of_an_argument_of_its_own() -> None:
    class Product(Function):
        @staticmethod
        def forward(x: Tensor, w: Tensor) -> Tensor:
            return x * w

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
            x, w = ctx.saved_tensors
            wants_x, wants_w = ctx.needs_input_grad
            return grad_y * w if wants_x else None, grad_y * x if wants_w else None

    def loss(v: Tensor, w: Tensor) -> Tensor:
        # Beside 2 v, an intermediate tensor, Dynamo says that w needs no gradient.
        return Product.call(2 * v, w).square().sum()

    points = torch.randn(3), torch.randn(3)
    grad = torch.func.grad(loss, (0, 1))
    compiled = torch.compile(grad, backend="aot_eager")
    torch.testing.assert_close(compiled(*points), grad(*points))


@pytest.mark.parametrize("compiled", [False, True])
def test_autocast_casts_the_inputs_and_is_off_inside(x: Tensor, compiled: bool) -> None:
    torch._dynamo.reset()
    op = torch.compile(square, fullgraph=True, backend="eager") if compiled else square
    with torch.autocast("cpu", torch.bfloat16):
        y = op(x)
        (grad,) = torch.autograd.grad(y.sum(), x)
        (rule,) = torch.autograd.grad(square(x).sum(), x, create_graph=True)
    assert y.dtype == torch.bfloat16
    assert grad.dtype == rule.dtype == torch.float32
    assert slope(rule, x) == 2
    double = x.double()
    with torch.autocast("cpu", torch.bfloat16):
        assert square(double).dtype == torch.float64


def test_the_rule_computes_in_float32_on_half_precision(x: Tensor) -> None:
    low = x.detach().bfloat16().requires_grad_()
    (grad,) = torch.autograd.grad(square(low).sum(), low, create_graph=True)
    assert grad.dtype == torch.bfloat16


def test_gradients_that_nobody_sent_cost_nothing(x: Tensor) -> None:
    seen: list[Any] = []

    class Two(Function):
        @staticmethod
        def forward(x: Tensor) -> tuple[Tensor, Tensor]:
            return x * 2, x * 3

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, grad_a: Tensor | None, grad_b: Tensor | None) -> Any:
            seen.append((grad_a, grad_b))
            assert grad_b is not None
            return grad_b * 3

    Two.call(x)[1].sum().backward()
    assert seen[0][0] is None
    assert torch.equal(x.grad, torch.full((3,), 3.0))


def test_not_implemented_falls_back_to_the_rule(x: Tensor) -> None:
    class Unfused(Square):
        @staticmethod
        def backward(ctx: Any, grad_y: Tensor, _: None) -> Tensor:
            (x,) = ctx.saved_tensors
            return 2 * x * grad_y

        @staticmethod
        def fused_backward(ctx: Any, grad_y: Tensor, _: None) -> Any:
            return NotImplemented

    (grad,) = torch.autograd.grad(Unfused.call(x)[0].sum(), x)
    assert slope(grad, x) == 2
    tangent = torch.func.jvp(Unfused.call, (x.detach(),), (torch.ones(3),))[1][0]
    assert slope(tangent, x) == 5, "a subclass inherits the jvp"


@pytest.mark.parametrize("missing", ["forward", "setup_context", "backward"])
def test_a_missing_method_is_named(missing: str) -> None:
    methods = {
        name: Square.__dict__[name] for name in ("forward", "setup_context", "backward")
    }
    del methods[missing]
    with pytest.raises(TypeError, match=f"Broken must define the .* `{missing}`"):
        type("Broken", (Function,), methods)


def test_nothing_that_was_saved_outlives_the_graph(x: Tensor) -> None:
    intermediate = x * 2
    alive = weakref.ref(intermediate)
    y = square(intermediate)
    del intermediate
    y.sum().backward()
    gc.collect()
    assert alive() is None


def test_something_else_than_a_tensor_is_named() -> None:
    with pytest.raises(TypeError, match=r"must be a torch\.Tensor, got nothing"):
        Square.call()
    with pytest.raises(TypeError, match=r"must be a torch\.Tensor, got list"):
        Square.call([1.0])
