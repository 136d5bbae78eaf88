"""What the code of a Function reads tells what it cares for."""

from typing import Any

import torch

from gradlab.checks._promises import mentions, names_read


def cast(g: Any, x: Any):
    return g.to(x.dtype)


class Casts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        return x * 1

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return cast(grad_y, ctx)


class Inherits(Casts):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y


def test_in_a_function_that_is_called_and_in_a_base_too():
    assert mentions(Casts, ["dtype"])
    assert mentions(Casts, ["dtype"], ["backward"])
    assert mentions(Inherits, ["dtype"])


def test_not_in_another_method_and_not_in_torch():
    assert not mentions(Casts, ["dtype"], ["forward"])
    assert not mentions(Casts, ["needs_input_grad", "set_materialize_grads"])


def test_under_a_decorator():
    wrapped = torch.amp.custom_fwd(cast, device_type="cpu")
    assert "dtype" in names_read(wrapped)
