"""A subject at numbers that a narrower dtype can hold, in that dtype and in its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gradlab.subject import (
    Grads,
    Subject,
    Tensors,
    functions,
    largest_entry,
    own_forward_differentiated,
)


@dataclass(frozen=True)
class Rounded:
    """The same point and the same ȳ, narrow and wide: only the arithmetic differs.

    ȳ has no signs: a sum over rows then grows, and stands still once it is too large
    for its dtype to add 1 to it.

    Attributes:
        subject: Where the point comes from.
        dtype: The narrow dtype.
        factor: A factor on all floating point arguments, for another point.
        largest: Instead, the entries of the first input grow to 0.6 to 1 times this.
        which: Which of the subject's cotangents.
    """

    subject: Subject
    dtype: torch.dtype
    factor: float = 1.0
    which: int = 0
    largest: float | None = None

    @cached_property
    def narrow(self) -> Subject:
        """The subject in the narrow dtype."""
        return self._alike(self._cast(leaf) for leaf in self._leaves())

    @cached_property
    def cotangents(self) -> Tensors:
        """ȳ in the narrow dtype."""
        signed = self.subject.cotangents[self.which]
        return tuple(self._cast(v if v.is_complex() else v.abs()) for v in signed)

    @cached_property
    def expected(self) -> Grads:
        """The gradient under test itself, computed in the subject's own dtype."""
        pairs = zip(self.narrow.leaves, self._leaves(), strict=True)
        wide = self._alike(
            a.to(b.dtype) if isinstance(a, Tensor) else a for a, b in pairs
        )
        pairs = zip(self.cotangents, self.subject.cotangents[0], strict=True)
        return wide.vjp([v.to(like.dtype) for v, like in pairs])

    @cached_property
    def own(self) -> Grads:
        """Autograd of the own forward, computed in the narrow dtype."""
        with own_forward_differentiated(functions(self.subject)):
            return self.narrow.vjp(self.cotangents)

    def errors(self, grads: Grads) -> list[float]:
        """The error of each gradient relative to its largest entry, or what it sums.

        Args:
            grads: The gradients, in any dtype.

        Returns:
            An error for each input; infinite where an entry is lost that is expected.
        """
        found = []
        for place, (g, r) in enumerate(zip(grads, self.expected, strict=True)):
            x = self.subject.tensors[place]
            r = torch.zeros_like(x) if r is None else r
            g = torch.zeros_like(x) if g is None else g.to(r.dtype)
            if bool((r.isfinite() & ~g.isfinite()).any()):
                found.append(float("inf"))
                continue
            error = largest_entry(torch.where(r.isfinite(), g - r, torch.zeros_like(r)))
            found.append(error / max(largest_entry(r), 0.1 * self._terms(place), 1e-30))
        return found

    def _terms(self, place: int) -> float:
        """The size |ȳ| |y| / |x| of what a gradient adds up, which may cancel."""
        pairs = zip(self.cotangents, self.subject.outputs, strict=True)
        products = [largest_entry(v) * largest_entry(y) for v, y in pairs]
        x = largest_entry(self.narrow.tensors[place]) or 1.0
        return max(products, default=0.0) / x

    def _leaves(self) -> list[Any]:
        leaves = list(self.subject.leaves)
        if self.largest is not None:
            first = self.subject.places[0]
            size = largest_entry(leaves[first]) or 1.0
            x = leaves[first] / size
            leaves[first] = self.largest * (0.6 * x.sgn() + 0.4 * x)
        elif self.factor != 1:
            leaves = [
                leaf * self.factor
                if isinstance(leaf, Tensor) and leaf.is_floating_point()
                else leaf
                for leaf in leaves
            ]
        return leaves

    def _cast(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if value.is_complex():
            return value.to(torch.complex64)
        return value.to(self.dtype) if value.is_floating_point() else value

    def _alike(self, leaves: Any) -> Subject:
        alike = self.subject.at(leaves)
        # What was found out in the first run holds here too, and saves two runs.
        alike.__dict__["differentiable"] = self.subject.differentiable
        return alike
