import pytest
import torch

from gradlab.layers import ReLU, relu


def test_at_zero_and_beyond_the_numbers_it_does_what_torch_does() -> None:
    values = [0.0, -0.0, torch.nan, torch.inf, -torch.inf, 1e-45]
    for grad_y in (1.0, torch.inf, torch.nan):
        x, same = (torch.tensor(values, requires_grad=True) for _ in range(2))
        y, expected = relu(x), torch.relu(same)
        v = torch.full_like(y, grad_y)
        torch.testing.assert_close(y, expected, equal_nan=True)
        (grad,) = torch.autograd.grad(expected, same, v)
        for options in ({"retain_graph": True}, {"create_graph": True}):
            ours = torch.autograd.grad(y, x, v, **options)
            torch.testing.assert_close(ours, (grad,), equal_nan=True)


def test_a_closed_gate_stops_an_infinite_gradient() -> None:
    x = torch.tensor([-1.0], requires_grad=True)
    for create_graph in (False, True):
        (grad,) = torch.autograd.grad(
            relu(x), x, torch.tensor([torch.inf]), create_graph=create_graph
        )
        assert grad.item() == 0


def test_in_place_overwrites_and_differentiates_like_torchs() -> None:
    a, b = (torch.linspace(-2, 2, 5, requires_grad=True) for _ in range(2))
    x, same = a * 3, b * 3
    y, expected = ReLU(inplace=True)(x), torch.nn.ReLU(inplace=True)(same)
    assert y.data_ptr() == x.data_ptr()
    assert torch.equal(y, expected)
    assert torch.equal(x, y)
    y.square().sum().backward()
    expected.square().sum().backward()
    assert torch.equal(a.grad, b.grad)
    leaf = torch.zeros(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf Variable"):
        relu(leaf, inplace=True)


def test_in_place_works_in_forward_mode_and_in_torch_func() -> None:
    x = torch.linspace(-2, 2, 5)
    tangent = torch.func.jvp(
        lambda x: relu(x * 3, inplace=True), (x,), (torch.ones(5),)
    )[1]
    expected = torch.tensor([0.0, 0.0, 0.0, 3.0, 3.0])
    assert torch.equal(tangent, expected)
    grad = torch.func.grad(lambda x: relu(x * 3, inplace=True).sum())(x)
    assert torch.equal(grad, expected)


def test_in_place_compiles() -> None:
    torch._dynamo.reset()
    x = torch.linspace(-2, 2, 5, requires_grad=True)
    compiled = torch.compile(
        lambda x: relu(x * 3, inplace=True), fullgraph=True, backend="aot_eager"
    )
    compiled(x).sum().backward()
    assert torch.equal(x.grad, torch.tensor([0.0, 0.0, 0.0, 3.0, 3.0]))


def test_integers_have_no_gradient_and_a_value() -> None:
    assert relu(torch.tensor([-1, 2])).tolist() == [0, 2]
