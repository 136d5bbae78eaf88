"""What is checked, and how a reference is called with the arguments of a Function."""

from typing import Any

import torch
from torch import Tensor

from gradlab import layers
from gradlab.monitor._known_functions import known_functions


class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, by: float) -> Tensor:
        ctx.by = by
        return x * by

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, None]:
        return grad_y * ctx.by, None


def test_every_layer_is_known() -> None:
    known = known_functions([])
    assert [one.name for one in known] == [info.name for info in layers.opinfos]
    for one in known:
        assert f"_{one.name}.py:" in one.where


def test_a_registered_one_takes_the_place_of_ours() -> None:
    (gelu,) = (one for one in known_functions([]) if one.name == "gelu")
    known = known_functions([(gelu.function, layers.gelu), *layers.opinfos[:1]])
    assert [one.function for one in known].count(gelu.function) == 1
    assert known[0].reference is layers.gelu


def test_arguments_go_by_name_where_the_reference_has_it() -> None:
    def reference(input: Tensor, offset: float = 7.0, by: float = 1.0) -> Tensor:
        return input * by + 0 * offset

    x = torch.ones(2)
    (known, *_) = known_functions([(Scale, reference)])
    assert known.autograd(x, 3.0).tolist() == [3.0, 3.0]
    (known, *_) = known_functions([(Scale, torch.mul)])
    assert known.autograd(x, 3.0).tolist() == [3.0, 3.0]
    (known, *_) = known_functions([Scale])
    assert known.autograd(x, 3.0).tolist() == [3.0, 3.0]


def test_the_reference_of_cross_entropy_gets_its_options() -> None:
    (known,) = (one for one in known_functions([]) if one.name == "cross_entropy")
    x, t = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    found = known.autograd(x, t, torch.tensor([1.0, 2.0, 3.0]), 1, "sum", 0.1)
    assert known.peer is not None
    theirs = known.peer(x, t, torch.tensor([1.0, 2.0, 3.0]), 1, "sum", 0.1)
    torch.testing.assert_close(found, theirs)
