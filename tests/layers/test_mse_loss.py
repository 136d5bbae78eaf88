import pytest
import torch
import torch.nn.functional as F

from gradlab.layers import mse_loss


def test_shapes_that_broadcast_warn_and_agree_with_torch() -> None:
    x, same = (torch.ones(3, 1, requires_grad=True) for _ in range(2))
    with pytest.warns(UserWarning, match=r"got \(3, 1\) and \(3,\)"):
        mse_loss(x, torch.arange(3.0)).backward()
    with pytest.warns(UserWarning, match="target size"):
        F.mse_loss(same, torch.arange(3.0)).backward()
    torch.testing.assert_close(x.grad, same.grad)


def test_dtypes_are_promoted_like_torchs() -> None:
    x = torch.randn(3, requires_grad=True)
    for target in (torch.randn(3, dtype=torch.float64), torch.tensor([1, 2, 3])):
        loss = mse_loss(x, target)
        loss.backward()
        assert loss.dtype == F.mse_loss(x, target).dtype
        torch.testing.assert_close(loss, F.mse_loss(x, target))


def test_the_mean_of_nothing_is_nan_with_an_empty_gradient() -> None:
    x = torch.zeros(0, 3, requires_grad=True)
    loss = mse_loss(x, torch.zeros(0, 3))
    for create_graph in (False, True):
        (grad,) = torch.autograd.grad(
            loss, x, create_graph=create_graph, retain_graph=True
        )
        assert grad.shape == (0, 3)
    assert loss.isnan()


@pytest.mark.parametrize(
    ("flags", "reduction"),
    [
        ({"size_average": False}, "sum"),
        ({"reduce": False}, "none"),
        ({"size_average": True, "reduce": True}, "mean"),
    ],
)
def test_deprecated_flags_mean_what_they_meant(
    flags: dict[str, bool], reduction: str
) -> None:
    x, t = torch.randn(4), torch.randn(4)
    with pytest.warns(UserWarning, match=f"use reduction='{reduction}'"):
        loss = mse_loss(x, t, **flags)
    assert torch.equal(loss, F.mse_loss(x, t, reduction=reduction))
