"""A convolution's gradient that correlates where it must convolve."""

from __future__ import annotations

from dataclasses import dataclass

from gradlab.subject import Mismatch

from ._evidence import evidence


@dataclass(frozen=True)
class UnflippedKernel:
    """x̄ᵢ = Σₖ w₋ₖ ȳ₍ᵢ₋ₖ₎: the kernel w is not flipped, or its channels exchanged."""

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is not None:
            return None
        for place, name in enumerate(seen.subject.input_names):
            w = seen.subject.tensors[place]
            if place == seen.place or w.ndim < 3:
                continue
            spatial = [d for d in range(2, w.ndim) if w.shape[d] > 1]
            choices = [tuple(spatial), *((d,) for d in spatial)]
            for dims in dict.fromkeys(choices):
                if dims and seen.at(place, lambda w, dims=dims: w.flip(dims)):
                    return (
                        f"the kernel {name} is not flipped along "
                        f"{_axes(dims)}: the gradient is the true one for {name} "
                        "flipped there"
                    )
            if w.shape[0] != w.shape[1]:
                continue
            for dims in dict.fromkeys([(), *choices]):
                if seen.at(place, lambda w, d=dims: w.transpose(0, 1).flip(d)):
                    return (
                        f"the kernel {name} has axes 0 and 1 (out and in channels) "
                        "exchanged"
                        + (f" and {_axes(dims)} not flipped" if dims else "")
                    )
        return None


def _axes(dims: tuple[int, ...]) -> str:
    return ("axes " if len(dims) > 1 else "axis ") + " and ".join(map(str, dims))
