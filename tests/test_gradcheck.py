"""`gradcheck` from end to end: verdicts, blame, bad input, and nothing left behind."""

import json
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab import GradientMismatchError, Report, gradcheck


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return grad_y * 3 * x**2


class WrongCube(Cube):
    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return grad_y * 2.9 * x**2


class NearlyCube(Cube):
    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return grad_y * 3.0003 * x**2


class SingleCube(Cube):
    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return (grad_y.float() * 3 * x.float() ** 2).to(grad_y.dtype)


class ViewCube(Cube):
    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return (grad_y.view(-1) * 3 * x.reshape(-1) ** 2).view(x.shape)


class RaisingCube(Cube):
    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        raise RuntimeError("no gradient today")


class Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return grad_y


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return -0.5 * grad_y


class Noisy(torch.autograd.Function):
    """Its forward leaves torch: only finite differences can say what is right."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.from_numpy(x.detach().numpy() ** 2)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return 2 * grad_y * x


def leaf(*shape: int, **options: Any) -> Tensor:
    return torch.randn(*shape, requires_grad=True, **options)


@pytest.mark.parametrize(
    ("function", "verdict"),
    [
        (Cube, "correct"),
        (WrongCube, "wrong"),
        (NearlyCube, "approximate"),
        (SingleCube, "approximate"),
        (ViewCube, "fragile"),
        (RaisingCube, "wrong"),
        (Round, "surrogate"),
        (Reverse, "surrogate"),
        (Noisy, "correct"),
    ],
    ids=lambda given: getattr(given, "__name__", given),
)
def test_verdict(function: Any, verdict: str) -> None:
    report = gradcheck(function, leaf(3, 4))
    assert report.verdict == verdict, str(report)
    assert report.ok is (verdict == "correct")


def test_a_choice_is_named_and_may_be_declared() -> None:
    report = gradcheck(Reverse, leaf(3, 4), declared="surrogate")
    assert report.ok
    assert "reversal: -0.5 times" in str(report)
    assert not gradcheck(Reverse, leaf(3, 4), declared="approximate").ok
    assert gradcheck(SingleCube, leaf(3), declared=("approximate", "surrogate")).ok


def test_a_declared_choice_does_not_excuse_a_broken_contract() -> None:
    class KeepsGrad(Round):
        @staticmethod
        def backward(ctx: Any, grad_y: Tensor) -> Any:
            return grad_y.view(-1).view(grad_y.shape)

    assert not gradcheck(KeepsGrad, leaf(3, 4), declared="surrogate").ok


class Model(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function.apply(self.norm(self.linear(x))).sum()


def test_a_module_report_names_the_function_inside() -> None:
    report = gradcheck(Model(WrongCube), leaf(3, 4))
    values = [f for f in report.findings if f.severity == "error"]
    assert [f.function for f in values] == ["WrongCube"], str(report)
    assert "0.966667" in values[0].cause
    assert report.functions == ("WrongCube",)
    assert any(name.startswith("linear.weight: ") for name in report.inputs)


def test_what_a_function_hides_from_another_is_found() -> None:
    # .sum() only ever sends an expanded gradient.
    assert gradcheck(lambda x: ViewCube.apply(x).sum(), leaf(3, 4)).verdict == "fragile"


def test_reference() -> None:
    assert gradcheck(Cube, leaf(3, 4), lambda x: x * x * x).ok
    report = gradcheck(Cube, leaf(3, 4), lambda x: x**3 + 1, level="value")
    assert report.verdict == "wrong"
    assert "the forward differs from the reference" in report.findings[0].message
    report = gradcheck(Noisy, leaf(3, 4), torch.square)
    assert (report.verdict, report.reference) == ("correct", "the reference given")


def test_levels() -> None:
    class AtZero(Cube):
        @staticmethod
        def backward(ctx: Any, grad_y: Tensor) -> Any:
            (x,) = ctx.saved_tensors
            return grad_y * 3 * x**3 / x

    assert gradcheck(AtZero, leaf(3, 4), level="value").ok
    assert gradcheck(AtZero, leaf(3, 4), level="contract").ok
    report = gradcheck(AtZero, leaf(3, 4), level="full")
    assert report.verdict == "wrong"
    assert "zeros" in report.findings[0].where
    assert gradcheck(ViewCube, leaf(3, 4), level="value").ok


def test_arguments_of_any_kind() -> None:
    def weighted(x: Tensor, parts: dict[str, Any], *, scale: float) -> Any:
        return {"out": [Cube.apply(x) * parts["w"][0] * scale], "n": 3}

    x, w = leaf(3, 4), leaf(4)
    report = gradcheck(weighted, (x, {"w": [w, None]}), kwargs={"scale": 2.0})
    assert report.ok, str(report)
    assert [name.split(":")[0] for name in report.inputs] == ["x", "parts['w'][0]"]
    assert gradcheck(weighted, {"x": x, "parts": {"w": [w]}, "scale": 1.0}).ok


REAL = (torch.float32, torch.float64, torch.bfloat16)
KINDS = [
    # The backward of Cube is that of a real function.
    *((call, d) for call in (Cube, Cube.apply, lambda x: Cube.apply(x)) for d in REAL),
    *((call, d) for call in (nn.Tanh(), torch.tanh) for d in (*REAL, torch.complex64)),
]


@pytest.mark.parametrize(("call", "dtype"), KINDS)
def test_every_kind_of_function_in_every_dtype(call: Any, dtype: torch.dtype) -> None:
    report = gradcheck(call, torch.randn(3, 4).to(dtype).requires_grad_())
    assert report.ok, str(report)
    assert report.dtype == "float64"


def test_a_function_of_float32_alone_is_checked_in_float32() -> None:
    class Only(Cube):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            if x.dtype != torch.float32:
                raise TypeError("the kernel is written for float32")
            return Cube.forward(ctx, x)

    report = gradcheck(Only, leaf(3, 4))
    assert (report.verdict, report.dtype) == ("correct", "float32"), str(report)


BAD = {
    "no grad": (torch.tanh, torch.randn(3), ValueError, "does not require grad"),
    "integers": (torch.tanh, torch.tensor([1]), ValueError, "have no gradient"),
    "no tensor": (torch.tanh, [], ValueError, "no tensor among"),
    "wrong kind": (torch.tanh, 3, TypeError, "a tensor, a tuple"),
    "not callable": (3, leaf(3), TypeError, "fn must be a callable"),
    "a Module class": (nn.Tanh, leaf(3), TypeError, "fn must be a callable"),
    "returns no tensor": (lambda x: 3, leaf(3), TypeError, "returned int"),
    "detaches": (lambda x: x.detach(), leaf(3), ValueError, "must be differentiable"),
    "returns integers": (torch.argmax, leaf(3), ValueError, "int64"),
    "raises": (lambda x: x @ x, leaf(3, 4), ValueError, r"x: float32 \[3, 4\]"),
    "meta": (torch.tanh, leaf(3, device="meta"), ValueError, "meta device"),
    "two devices": (
        torch.add,
        (leaf(3), leaf(3, device="meta")),
        ValueError,
        r"one device, got .* on cpu, .* on meta",
    ),
    "sparse": (
        torch.tanh,
        torch.eye(3).to_sparse().requires_grad_(),
        ValueError,
        "must be dense",
    ),
}


@pytest.mark.parametrize(("fn", "inputs", "error", "match"), BAD.values(), ids=BAD)
def test_bad_input(fn: Any, inputs: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        gradcheck(fn, inputs)


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="value, contract, full, got 'all'"):
        gradcheck(Cube, leaf(3), level="all")
    with pytest.raises(ValueError, match="declared must be"):
        gradcheck(Cube, leaf(3), declared="wrong")


@pytest.mark.parametrize("raises", [False, True])
def test_everything_is_as_it_was(raises: bool) -> None:
    model = Model(RaisingCube if raises else Cube).train()
    x = leaf(3, 4)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    before, values = torch.get_rng_state(), x.detach().clone()
    python = random.getstate()
    with torch.no_grad():
        if raises:
            with pytest.raises(ValueError, match="must run on the inputs"):
                gradcheck(lambda x: model(x) + nn.functional.dropout(x) @ x, x)
        gradcheck(model, x)
        assert not torch.is_grad_enabled()
    assert torch.equal(before, torch.get_rng_state())
    assert python == random.getstate()
    assert torch.equal(values, x)
    assert x.grad is None
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert "forward" not in vars(Cube) or Cube.forward(OwnCtx(), x) is not None


class OwnCtx:
    def save_for_backward(self, *tensors: Tensor) -> None:
        pass


def test_the_class_under_test_is_as_it_was() -> None:
    before = dict(vars(WrongCube)), dict(vars(Cube))
    gradcheck(WrongCube, leaf(3, 4))
    assert (dict(vars(WrongCube)), dict(vars(Cube))) == before


def test_progress_names_the_steps() -> None:
    steps: list[str] = []
    gradcheck(Cube, leaf(3), progress=steps.append)
    assert "matches_reference" in steps
    assert "holds_at_other_points" in steps


def test_a_report_is_data() -> None:
    report = gradcheck(WrongCube, leaf(3, 4))
    data = json.loads(report.to_json())
    assert (data["verdict"], data["ok"]) == ("wrong", False)
    again = Report.from_dict(data)
    assert str(again) == str(report)
    with pytest.raises(GradientMismatchError, match="not the derivative") as caught:
        report.raise_if_failed()
    assert caught.value.report is report
    assert gradcheck(Cube, leaf(3)).raise_if_failed().ok
    assert all(len(line) <= 88 for line in str(report).splitlines())


def test_gradlabs_own_layers_under_inference_mode() -> None:
    x = leaf(3, 4)
    with torch.inference_mode():
        assert gradcheck(gradlab.layers.gelu, x, level="contract").ok
