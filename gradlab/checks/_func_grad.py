"""torch.func differentiates the function as autograd does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from gradlab._report import Level
from gradlab.subject import Crash, Mismatch, Subject, attempt, functions, largest_entry

from ._refusal import lacks_setup_context, raised_inside, refuses

_CODE = "func_grad"


@dataclass(frozen=True)
class FuncGrad:
    """torch.func.vjp(f, x)(ȳ) = x̄, the gradient that autograd gives.

    torch.func calls `forward` without a ctx and fills one in `setup_context`; a
    Function whose `forward` takes ctx is not for torch.func, which is only a note.
    """

    level: Level = "contract"

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch when the gradients differ or only torch.func's raises."""
        classes = functions(subject)
        if not classes:
            return
        if old := lacks_setup_context(classes):
            yield Mismatch(
                _CODE,
                "note",
                f"torch.func (grad, vjp, vmap, ...) does not run {', '.join(old)}",
                verdict="correct",
                hint="forward(*args) and setup_context(ctx, inputs, output) instead of "
                "forward(ctx, *args)",
            )
            return
        found = attempt(lambda: _gradients(subject))
        if isinstance(found, Crash):
            own = raised_inside(found.error, classes) and not refuses(found.error)
            yield Mismatch(
                _CODE,
                "warning" if own else "note",
                f"torch.func.vjp raises {found}",
                verdict="fragile" if own else "correct",
                hint="pass tensors to the backward by ctx.save_for_backward only",
            )
            return
        for place, name in enumerate(subject.input_names):
            ours, theirs = subject.gradients[0][place], found[place]
            if ours is None and not largest_entry(theirs):
                continue
            ours = torch.zeros_like(theirs) if ours is None else ours
            scale = subject.scale(place, found, subject.gradients[0])
            error = largest_entry(theirs - ours) / scale
            if error > subject.tolerance:
                yield Mismatch(
                    _CODE,
                    "error",
                    f"torch.func.vjp gives another gradient of {name} than autograd: "
                    f"relative difference {error:.2g}",
                    input=name,
                    numbers={"relative error": error},
                    subject=subject,
                )


def _gradients(subject: Subject) -> tuple[torch.Tensor, ...]:
    pull = torch.func.vjp(lambda *xs: subject.run(xs), *subject.fresh())[1]
    return pull(tuple(v.clone() for v in subject.cotangents[0]))
