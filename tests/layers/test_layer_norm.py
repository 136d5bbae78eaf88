import torch
import torch.nn.functional as F

from gradlab.layers import layer_norm


def test_the_gradient_has_no_part_along_ones_or_along_the_output() -> None:
    x = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    y = layer_norm(x, (7,), eps=0.0)
    (grad,) = torch.autograd.grad(y, x, torch.randn_like(x))
    assert grad.sum(1).abs().max() < 1e-14
    assert (grad * y).sum(1).abs().max() < 1e-14


def test_a_constant_row_is_held_up_by_eps() -> None:
    x, same = (torch.full((2, 5), 3.0, requires_grad=True) for _ in range(2))
    v = torch.randn(2, 5)
    layer_norm(x, (5,)).backward(v)
    F.layer_norm(same, (5,)).backward(v)
    assert x.grad.isfinite().all()
    torch.testing.assert_close(x.grad, same.grad)


def test_half_precision_input_with_float32_parameters() -> None:
    x = torch.randn(4, 8, dtype=torch.bfloat16)
    w, b, v = torch.randn(8), torch.randn(8), torch.randn(4, 8, dtype=torch.bfloat16)
    results = []
    for op in (layer_norm, F.layer_norm):
        leaves = [t.clone().requires_grad_() for t in (x, w, b)]
        y = op(leaves[0], (8,), *leaves[1:])
        results.append([y, *torch.autograd.grad(y, leaves, v)])
    torch.testing.assert_close(*results)


def test_more_rows_than_sixteen_bits_count() -> None:
    x = torch.randn(2**16 + 3, 2, requires_grad=True)
    w = torch.ones(2, requires_grad=True)
    same, v = w.detach().clone().requires_grad_(), torch.randn(2**16 + 3, 2)
    layer_norm(x, (2,), w).backward(v)
    F.layer_norm(x.detach(), (2,), same).backward(v)
    torch.testing.assert_close(w.grad, same.grad)
