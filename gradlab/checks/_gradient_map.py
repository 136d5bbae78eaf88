"""(x, ȳ) ↦ x̄, the backward itself, as a function to be differentiated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradlab.subject import Subject, Tensors, grad


def gradient_map(subject: Subject) -> Subject:
    """The map from inputs and grad_outputs to gradients, at the first cotangents.

    Args:
        subject: The function whose gradient it is.

    Returns:
        A subject for `derivative` to run; its inputs are x and ȳ, its outputs x̄.
    """
    count = len(subject.leaves)
    cotangents = subject.cotangents[0]

    def call(*leaves: Any) -> Tensors:
        xs = subject.fresh([leaves[i] for i in subject.places])
        with torch.enable_grad():
            return gradients(subject, xs, leaves[count:])

    return Subject(
        subject.title,
        call,
        (*subject.leaves, *cotangents),
        (*subject.names, *(f"grad_output {i}" for i in range(len(cotangents)))),
        (*subject.places, *range(count, count + len(cotangents))),
        subject.random_state,
        subject.seed,
        subject.single,
    )


def gradients(
    subject: Subject, xs: Sequence[Tensor], sent: Sequence[Tensor], **options: Any
) -> Tensors:
    """The gradients at some inputs that require grad, zeros where none arrive.

    Args:
        subject: The function.
        xs: The inputs.
        sent: A grad_output for each output.
        **options: `create_graph`.
    """
    # Clones: a leaf that requires grad may not be written to, a grad_output may.
    found = grad(subject.run(xs), xs, [v.clone() for v in sent], **options)
    return tuple(
        torch.zeros_like(x) if g is None else g for g, x in zip(found, xs, strict=True)
    )
