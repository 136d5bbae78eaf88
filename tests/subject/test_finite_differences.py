"""Differences with an error bar: sharp where it is smooth, honest where it is not."""

import pytest
import torch
from torch import Tensor

from gradlab.subject import Subject, build, derivative, gradient, truth

X = [0.3, -1.2, 2.0, 0.7]


def subject(fn: object, dtype: torch.dtype = torch.float64) -> Subject:
    return build(fn, torch.tensor(X, dtype=dtype).requires_grad_())


def along(given: Subject, direction: list[float]) -> tuple[list[Tensor], Tensor]:
    u = torch.tensor(direction).to(given.tensors[0])
    return [torch.ones_like(given.outputs[0])], u


def test_smooth() -> None:
    given = subject(torch.sin)
    v, u = along(given, [1.0, 0.0, 2.0, -1.0])
    seen = derivative(given, v, [u])
    true = float((given.tensors[0].cos() * u).sum())
    assert abs(seen.value - true) <= 20 * seen.bar < 1e-8
    assert seen.smooth
    assert seen.allows(true)
    assert not seen.allows(true * (1 + 1e-6))


def test_kink_allows_what_is_between_the_sides() -> None:
    given = build(torch.relu, torch.zeros(1, dtype=torch.float64).requires_grad_())
    seen = derivative(given, [torch.ones(1)], [torch.ones(1, dtype=torch.float64)])
    assert (seen.left, seen.right) == pytest.approx((0.0, 1.0))
    assert not seen.smooth
    assert [seen.allows(g) for g in (-0.1, 0.0, 0.5, 1.0, 1.1)] == [
        *(False, True, True, True, False)
    ]


def test_infinite() -> None:
    given = build(torch.sqrt, torch.zeros(1, dtype=torch.float64).requires_grad_())
    one = torch.ones(1, dtype=torch.float64)
    assert not derivative(given, [one], [one]).finite


def test_entry_by_entry() -> None:
    given = subject(torch.exp)
    v = [torch.arange(4.0, dtype=torch.float64)]
    true = v[0] * given.tensors[0].exp()
    assert torch.allclose(gradient(given, v, 0), true, rtol=1e-9)


def test_complex() -> None:
    z = torch.randn(3, dtype=torch.complex128, requires_grad=True)
    given = build(lambda z: z * z.conj() * z, z)
    (g,) = given.gradients[0]
    assert g is not None
    assert torch.allclose(gradient(given, given.cotangents[0], 0), g, rtol=1e-8)
    assert truth(given).kind == "autograd of its own forward"


def test_a_detached_path_is_not_the_truth() -> None:
    given = subject(lambda x: x * x.detach())
    found = truth(given)
    assert found.kind == "finite differences"
    assert "along a random direction" in found.rejected[0]


def test_symmetric_matrices_move_symmetrically() -> None:
    a = torch.randn(4, 4, dtype=torch.float64)
    given = build(torch.linalg.eigvalsh, (a + a.mT).requires_grad_())
    assert truth(given).symmetric == (True,)
    assert truth(given).gradients is not None
