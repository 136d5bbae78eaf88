"""Every seeded bug is one, and every healthy twin is healthy by torch's own checks."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from experiments.bench.seeded_bugs import BUGS, KINDS, SeededBug
from gradlab._opinfo import make_tensors
from gradlab.diagnoses import diagnoses

CAUSES = {type(diagnosis).__name__ for diagnosis in diagnoses}
VALUE_BUGS = [bug for bug in BUGS if bug.kind in ("value", "grad_output")]


def by_name(bug: SeededBug) -> str:
    return bug.name


def leaves(inputs: tuple[Any, ...]) -> list[Tensor]:
    return [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]


def outputs(function: Callable[..., Any], inputs: tuple[Any, ...]) -> list[Tensor]:
    y = function(*inputs)
    ys = y if isinstance(y, tuple) else (y,)
    return [y for y in ys if y.requires_grad]


def vjp(
    function: Callable[..., Any], inputs: tuple[Any, ...], create_graph: bool = False
) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    ys = outputs(function, inputs)
    grads = [torch.randn(y.shape, generator=generator, dtype=y.dtype) for y in ys]
    return torch.autograd.grad(
        ys,
        leaves(inputs),
        [grad.requires_grad_(create_graph) for grad in grads],
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )


def declared_once_differentiable(bug: SeededBug, inputs: tuple[Any, ...]) -> bool:
    grads = vjp(bug.healthy, inputs, create_graph=True)
    return any("Error" in type(grad.grad_fn).__name__ for grad in grads)


def test_names_are_unique() -> None:
    names = [bug.name for bug in BUGS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)


def test_kinds_causes_and_patterns_are_known() -> None:
    for bug in BUGS:
        assert bug.kind in KINDS, bug.name
        assert bug.cause is None or bug.cause in CAUSES, bug.name
        assert bool(bug.says) <= bool(bug.cause), bug.name
        assert bug.source, bug.name
        re.compile(bug.says)


def test_value_bugs_are_many() -> None:
    assert len(VALUE_BUGS) >= 60


@pytest.mark.parametrize("bug", BUGS, ids=by_name)
def test_healthy_twin_passes_gradcheck(bug: SeededBug) -> None:
    inputs = bug.inputs(make_tensors(torch.float64))
    assert gradcheck(bug.healthy, inputs)
    if not declared_once_differentiable(bug, inputs):
        assert gradgradcheck(bug.healthy, inputs)


@pytest.mark.parametrize("bug", VALUE_BUGS, ids=by_name)
def test_bug_changes_the_gradient_alone(bug: SeededBug) -> None:
    inputs = bug.inputs(make_tensors(torch.float64))
    healthy, wrong = outputs(bug.healthy, inputs), outputs(bug.wrong, inputs)
    torch.testing.assert_close(wrong, healthy, rtol=0, atol=0)
    pairs = zip(vjp(bug.wrong, inputs), vjp(bug.healthy, inputs), strict=True)
    assert any(
        (wrong - right).abs().max() > 1e-6 * right.abs().max() for wrong, right in pairs
    )
