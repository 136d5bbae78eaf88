"""An output that nobody uses sends back nothing, which is a gradient of zeros."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab._report import Level
from gradlab.subject import Crash, Mismatch, Subject, attempt, grad

from ._difference import differences, figures, listed, named


@dataclass(frozen=True)
class UndefinedGradients:
    """x̄(ȳ₁, none) = x̄(ȳ₁, 0): each output alone, and all but one of them.

    With one output there is nothing to claim: autograd does not run the backward then.
    """

    level: Level = "contract"
    limit: int = 8

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch for each set of used outputs that fails."""
        count = len(subject.outputs)
        if count < 2:
            return
        used = [{i} for i in range(count)]
        if count > 2:
            used += [set(range(count)) - {i} for i in range(count)]
        crashes: dict[str, list[str]] = {}
        for outputs in used[: self.limit]:
            given = [
                v if i in outputs else None for i, v in enumerate(subject.cotangents[0])
            ]
            got = attempt(lambda given=given: _vjp(subject, given))
            label = f"output {listed(map(str, sorted(outputs)))}"
            if isinstance(got, Crash):
                crashes.setdefault(str(got), []).append(label)
                continue
            zeros = [
                torch.zeros_like(w) if v is None else v
                for v, w in zip(given, subject.cotangents[0], strict=True)
            ]
            expected = attempt(lambda zeros=zeros: subject.vjp(zeros))
            if isinstance(expected, Crash):
                continue
            if found := differences(subject, got, expected):
                yield Mismatch(
                    "undefined_gradients",
                    "error",
                    f"the gradient of {named(subject, found)} is wrong when only "
                    f"{label} is used",
                    where=f"only {label} used",
                    hint="a grad_output of None counts as zeros: add up what is there",
                    numbers=figures(found),
                    subject=subject,
                    place=found[0].place,
                )
        for crash, labels in crashes.items():
            yield Mismatch(
                "undefined_gradients",
                "error",
                f"the backward raises {crash} when only {' or '.join(labels)} is used",
                where=f"only {' or '.join(labels)} used",
                hint="skip a grad_output that is None, or leave "
                "ctx.set_materialize_grads(True), the default",
                subject=subject,
            )


def _vjp(subject: Subject, vs: list[Tensor | None]) -> tuple[Tensor | None, ...]:
    leaves = subject.fresh()
    ys = subject.run(leaves)
    return grad(ys, leaves, [None if v is None else v.clone() for v in vs])
