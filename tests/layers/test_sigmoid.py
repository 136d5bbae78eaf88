import pytest
import torch

from gradlab.layers import sigmoid


def test_complex_values_conjugate_what_they_saved() -> None:
    x = torch.randn(6, dtype=torch.complex128, requires_grad=True)
    assert torch.autograd.gradcheck(sigmoid, (x,))
    assert torch.autograd.gradgradcheck(sigmoid, (x,))


@pytest.mark.parametrize("create_graph", [False, True])
def test_saturates_to_a_zero_gradient_and_never_to_nan(create_graph: bool) -> None:
    x = torch.tensor([-1e4, 1e4, -torch.inf, torch.inf], requires_grad=True)
    (grad,) = torch.autograd.grad(sigmoid(x).sum(), x, create_graph=create_graph)
    assert grad.tolist() == [0.0, 0.0, 0.0, 0.0]


def test_integers_give_the_default_dtype() -> None:
    y = sigmoid(torch.tensor([0, 1]))
    assert torch.equal(y, torch.sigmoid(torch.tensor([0, 1])))
