import pytest
import torch
import torch.nn.functional as F

from gradlab.layers import log_softmax


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_constant_added_to_all_scores_gets_no_gradient(create_graph: bool) -> None:
    x = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    v = torch.randn(4, 7, dtype=torch.float64)
    (grad,) = torch.autograd.grad(log_softmax(x, 1), x, v, create_graph=create_graph)
    assert grad.sum(1).abs().max() < 1e-14


def test_masked_scores_do_what_torch_does() -> None:
    values = [[-torch.inf, 0.0, 1.0], [-torch.inf, -torch.inf, -torch.inf]]
    x, same = (torch.tensor(values, requires_grad=True) for _ in range(2))
    y, expected = log_softmax(x, 1), F.log_softmax(same, 1)
    v = torch.tensor([[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    y.backward(v)
    expected.backward(v)
    torch.testing.assert_close(y, expected, equal_nan=True)
    torch.testing.assert_close(x.grad, same.grad, equal_nan=True)


def test_no_axis_warns_and_chooses_like_torch() -> None:
    for shape in ((), (3,), (2, 3), (2, 3, 4), (2, 3, 4, 5)):
        x = torch.randn(shape)
        with pytest.warns(UserWarning, match="dim=None is deprecated"):
            y = log_softmax(x)
        with pytest.warns(UserWarning, match="Implicit dimension"):
            assert torch.equal(y, F.log_softmax(x))


def test_the_scores_are_cast_first() -> None:
    x = torch.randn(3, dtype=torch.bfloat16, requires_grad=True)
    y = log_softmax(x, 0, dtype=torch.float32)
    y[0].backward()
    assert y.dtype == torch.float32
    assert x.grad.dtype == torch.bfloat16
    assert torch.equal(y, F.log_softmax(x, 0, dtype=torch.float32))
