import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gradlab.layers import cross_entropy


def both(x: Tensor, *args: object, **kwargs: object) -> None:
    results = []
    for op in (cross_entropy, F.cross_entropy):
        leaf = x.detach().clone().requires_grad_()
        loss = op(leaf, *args, **kwargs)
        results.append([loss, *torch.autograd.grad(loss.sum(), leaf)])
    torch.testing.assert_close(*results, equal_nan=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_extremes_do_what_torch_does(smoothing: float, reduction: str) -> None:
    options = {"label_smoothing": smoothing, "reduction": reduction}
    y = torch.tensor([0, 1])
    both(torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]]), y, **options)
    both(torch.randn(2, 3), torch.tensor([-100, -100]), **options)
    both(torch.randn(2, 3), y, torch.tensor([0.0, 1.0, 2.0]), **options)
    both(torch.randn(3), torch.tensor(2), **options)


def test_bytes_are_class_indices_too() -> None:
    y = torch.tensor([0, 2, 1], dtype=torch.uint8)
    both(torch.randn(3, 4), y)
    both(torch.randn(3, 4), y, ignore_index=2, label_smoothing=0.1)
    both(torch.randn(4), torch.tensor(3, dtype=torch.uint8))


def test_a_masked_class_gets_no_gradient() -> None:
    x = torch.tensor([[0.0, -torch.inf, 1.0]])
    both(x, torch.tensor([2]))
    leaf = x.clone().requires_grad_()
    cross_entropy(leaf, torch.tensor([2])).backward()
    assert leaf.grad[0, 1] == 0


def test_what_is_saved_is_only_what_is_alive_anyway() -> None:
    x, y = torch.randn(64, 100, requires_grad=True), torch.arange(64)
    for op, extra in ((cross_entropy, 0), (F.cross_entropy, x.numel() * 4)):
        saved: dict[int, int] = {}

        def pack(t: Tensor, saved: dict[int, int] = saved) -> Tensor:
            saved[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            op(x, y).backward()
        alive = {t.untyped_storage().data_ptr() for t in (x, y)}
        assert sum(n for p, n in saved.items() if p not in alive) in range(
            extra, extra + 64
        )


def test_the_count_of_rows_is_exact_in_bfloat16() -> None:
    x = torch.zeros(3000, 2, dtype=torch.bfloat16, requires_grad=True)
    cross_entropy(x, torch.zeros(3000, dtype=torch.int64)).backward()
    expected = torch.tensor([-0.5, 0.5]) / 3000
    torch.testing.assert_close(x.grad[0].float(), expected, rtol=2**-8, atol=0)
