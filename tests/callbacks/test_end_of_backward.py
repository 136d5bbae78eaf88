"""When a backward pass is over, of passes that run inside another too."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradlab.callbacks._end_of_backward import EndOfBackward


class Blocks(nn.Module):
    """Three layers, each of which may be recomputed in a pass of its own."""

    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if self.reentrant is None:
                x = layer(x)
            else:
                x = checkpoint(layer, x, use_reentrant=self.reentrant)
        return x


def calls_in(model: nn.Module, steps: int) -> list[list[int]]:
    """At each call of each step, how many parameters had got all of their gradient."""
    ready: list[list[int]] = []
    grads: list[Tensor | None] = []

    def called() -> None:
        now = [p.grad for p in model.parameters()]
        ready[-1].append(sum(g is not None for g in now))
        grads[:] = [None if g is None else g.clone() for g in now]

    end = EndOfBackward(model.parameters(), lambda: True, called)
    for _ in range(steps):
        ready.append([])
        model.zero_grad()
        model(torch.ones(2, 3, requires_grad=True)).sum().backward()
        for p, seen in zip(model.parameters(), grads, strict=True):
            assert seen is not None
            assert torch.equal(seen, p.grad)
        end.step_taken()
    end.remove()
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
    return ready


def test_a_pass_has_one_end() -> None:
    assert calls_in(Blocks(), steps=3) == [[6], [6], [6]]


def test_recomputation_without_reentry_has_one_end() -> None:
    assert calls_in(Blocks(reentrant=False), steps=2) == [[6], [6]]


def test_of_passes_inside_another_the_last_counts_and_is_learned() -> None:
    assert calls_in(Blocks(reentrant=True), steps=3) == [[2, 4, 6], [6], [6]]


def test_nothing_is_called_for_a_pass_that_is_not_wanted() -> None:
    model, called = Blocks(), list[int]()
    end = EndOfBackward(model.parameters(), lambda: False, lambda: called.append(1))
    model(torch.ones(2, 3)).sum().backward()
    end.step_taken()
    end.remove()
    assert not called


def test_another_parameter_is_found_when_the_last_is_frozen() -> None:
    model, called = Blocks(), list[int]()
    end = EndOfBackward(model.parameters(), lambda: True, lambda: called.append(step))
    for step in range(5):
        if step == 2:
            (hooked,) = [p for p in model.parameters() if p._post_accumulate_grad_hooks]
            hooked.requires_grad_(False)
        model(torch.ones(2, 3)).sum().backward()
        end.step_taken()
    assert called == [0, 1, 3, 4]
    end.remove()
