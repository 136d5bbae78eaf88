"""Neither forward nor backward writes to what it was given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from gradlab._report import Level
from gradlab.subject import Crash, Mismatch, Subject, attempt, grad

from ._difference import listed, same_values


@dataclass(frozen=True)
class LeavesArgumentsAlone:
    """x after = x before, ȳ after = ȳ before, y after the backward = y before it.

    An in-place op is excused: it returns the input that it wrote to.
    """

    level: Level = "contract"

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch for each argument that is written to."""
        leaves = subject.fresh()
        ys = subject.run(leaves)
        written = [
            name
            for name, leaf, x in zip(
                subject.input_names, leaves, subject.tensors, strict=True
            )
            if not same_values(leaf.detach(), x)
            and not any(_share_storage(leaf, y) for y in ys)
        ]
        if written:
            yield _mismatch(
                subject,
                f"the forward writes to {listed(written)}, and does not return it",
                "work on a copy, or return the input and say ctx.mark_dirty(input)",
            )
        vs = [v.clone() for v in subject.cotangents[0]]
        before = [t.detach().clone() for t in (*leaves, *ys)]
        if isinstance(attempt(lambda: grad(ys, leaves, vs)), Crash):
            return
        after = (*leaves, *ys)
        names = (*subject.input_names, *_outputs(ys, "output"))
        changed = [
            name
            for name, t, old in zip(names, after, before, strict=True)
            if not same_values(t.detach(), old)
        ]
        if changed:
            yield _mismatch(
                subject,
                f"the backward writes to {listed(changed)}, which is not its own",
                "saved tensors are the caller's: use out-of-place ops on them, or "
                "clone first",
            )
        spoilt = [
            name
            for name, v, old in zip(
                _outputs(ys, "grad_output"), vs, subject.cotangents[0], strict=True
            )
            if not same_values(v, old)
        ]
        if spoilt:
            yield _mismatch(
                subject,
                f"the backward writes to {listed(spoilt)}: every other branch of the "
                "graph that gets the same tensor gets it changed",
                "use the out-of-place op, or grad_output.clone() first",
            )


def _mismatch(subject: Subject, message: str, hint: str) -> Mismatch:
    return Mismatch(
        "leaves_arguments_alone", "error", message, hint=hint, subject=subject
    )


def _outputs(ys: tuple[Tensor, ...], word: str) -> list[str]:
    return [word] if len(ys) == 1 else [f"{word} {i}" for i in range(len(ys))]


def _share_storage(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
