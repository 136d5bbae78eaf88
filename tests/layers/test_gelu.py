import pytest
import torch

from gradlab.layers import gelu


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("create_graph", [False, True])
def test_is_the_identity_far_right_and_zero_far_left(
    approximate: str, create_graph: bool
) -> None:
    x = torch.tensor([-1e3, -30.0, 0.0, 30.0, 1e3], requires_grad=True)
    y = gelu(x, approximate)
    (grad,) = torch.autograd.grad(y.sum(), x, create_graph=create_graph)
    torch.testing.assert_close(y.detach(), torch.tensor([0.0, 0.0, 0.0, 30.0, 1e3]))
    torch.testing.assert_close(grad.detach(), torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))


def test_the_derivative_leaves_the_unit_interval() -> None:
    x = torch.linspace(-4, 4, 801, requires_grad=True)
    (grad,) = torch.autograd.grad(gelu(x).sum(), x)
    assert grad.min() < -0.1
    assert grad.max() > 1.1
