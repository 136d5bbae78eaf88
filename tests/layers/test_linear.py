import torch
import torch.nn.functional as F

from gradlab.layers import Linear, linear


def test_complex_values_conjugate_what_they_saved() -> None:
    x, W, b = (
        torch.randn(*shape, dtype=torch.complex128, requires_grad=True)
        for shape in ((5, 3), (4, 3), (4,))
    )
    assert torch.autograd.gradcheck(linear, (x, W, b))
    assert torch.autograd.gradgradcheck(linear, (x, W, b))


def test_a_weight_used_twice_gets_both_gradients() -> None:
    layer = Linear(3, 3, dtype=torch.float64)
    x = torch.randn(5, 3, dtype=torch.float64)
    layer(layer(x)).sum().backward()
    W, b = (p.detach().clone().requires_grad_() for p in layer.parameters())
    F.linear(F.linear(x, W, b), W, b).sum().backward()
    torch.testing.assert_close(layer.weight.grad, W.grad)
    torch.testing.assert_close(layer.bias.grad, b.grad)
