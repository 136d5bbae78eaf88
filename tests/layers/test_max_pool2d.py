import torch
import torch.nn.functional as F
from torch import Tensor

from gradlab.layers import max_pool2d


def test_of_equal_maxima_the_first_gets_the_whole_gradient() -> None:
    x, same = (torch.zeros(1, 1, 4, 4, requires_grad=True) for _ in range(2))
    max_pool2d(x, 2).sum().backward()
    F.max_pool2d(same, 2).sum().backward()
    assert torch.equal(x.grad, same.grad)
    assert x.grad.sum() == 4


def test_nan_wins_and_minus_infinity_loses_like_in_torch() -> None:
    x = torch.full((1, 1, 4, 4), -torch.inf)
    x[0, 0, 0, 1] = torch.nan
    y, k = max_pool2d(x, 3, 1, 1, return_indices=True)
    expected, where = F.max_pool2d(x, 3, 1, 1, return_indices=True)
    torch.testing.assert_close(y, expected, equal_nan=True)
    assert torch.equal(k, where)


def test_the_input_is_not_kept() -> None:
    kept: list[tuple[int, ...]] = []

    def pack(t: Tensor) -> Tensor:
        kept.append((t.untyped_storage().data_ptr(), t.element_size()))
        return t

    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = max_pool2d(x, 2)
    assert x.untyped_storage().data_ptr() not in dict(kept)
    y.sum().backward()
    assert x.grad.sum() == y.numel()


def test_channels_last_input_has_the_same_gradient() -> None:
    x = torch.randn(2, 3, 8, 8)
    grads = []
    for layout in (torch.contiguous_format, torch.channels_last):
        leaf = x.contiguous(memory_format=layout).requires_grad_()
        y = max_pool2d(leaf, 3, 2, 1)
        grads.append(
            torch.autograd.grad(y, leaf, torch.arange(y.numel()).view_as(y) * 1.0)
        )
    torch.testing.assert_close(*grads)
