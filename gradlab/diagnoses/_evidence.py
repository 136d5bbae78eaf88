"""`Evidence`: a wrong gradient beside the true one, and the question all diagnoses ask.

A diagnosis proposes what the backward may have computed instead. It is believed only if
the proposal reproduces the gradient under test for two independent cotangents, and far
better than the truth does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gradlab.subject import (
    DIFFERENCES,
    GIVEN,
    Mismatch,
    Subject,
    Tensors,
    attempt,
    expected_gradient,
    largest_entry,
    own_gradient,
    truth,
)

from ._measured_jacobian import measurable, measured_jacobian, transposed_product

Proposal = Callable[[int], Tensor | None]
"""The gradient that a mistake would give for the first (0) or second (1) cotangents."""

MANY, FEW = 600, 24
"""Up to so many entries, finite differences are cheap enough once, or at each point."""

BUDGET = 10.0
"""Seconds from the first proposal on; a slow function is left unexplained after it."""


@dataclass(frozen=True)
class Evidence:
    """The gradient of one input as it is and as it should be.

    Attributes:
        subject: The function and the point.
        place: Index into `subject.tensors`.
        actual: The gradient under test for both cotangents.
        expected: The true one.
    """

    subject: Subject
    place: int
    actual: Tensors
    expected: Tensors

    @property
    def x(self) -> Tensor:
        """The input whose gradient is wrong."""
        return self.subject.tensors[self.place]

    @property
    def name(self) -> str:
        """Its name."""
        return self.subject.input_names[self.place]

    @property
    def cotangents(self) -> tuple[Tensors, Tensors]:
        """Both grad_outputs, one tensor for each output."""
        return self.subject.cotangents

    @property
    def tolerance(self) -> float:
        """The relative error up to which a proposal is the gradient under test."""
        return max(1e-6, self.subject.tolerance)

    @cached_property
    def comparable(self) -> Tensors:
        """Where both gradients are finite."""
        pairs = zip(self.actual, self.expected, strict=True)
        return tuple(torch.isfinite(g) & torch.isfinite(r) for g, r in pairs)

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """The largest deviation that a proposal may have, for both cotangents."""
        first, second = (
            min(
                self.tolerance * largest_entry(g[where]),
                1e-2 * largest_entry((g - r)[where]),
            )
            for g, r, where in zip(
                self.actual, self.expected, self.comparable, strict=True
            )
        )
        return first, second

    def matches(self, i: int, candidate: Tensor | None) -> bool:
        """Whether a tensor is the gradient under test for one pair of cotangents.

        Args:
            i: Which cotangents.
            candidate: What to hold against it.
        """
        g = self.actual[i]
        if candidate is None or candidate.shape != g.shape:
            return False
        off = (g - candidate)[self.comparable[i]].abs()
        return bool(torch.isfinite(off).all()) and largest_entry(off) <= self.bounds[i]

    def explained_by(self, proposal: Proposal) -> bool:
        """Whether a proposal reproduces the gradient under test, twice.

        Args:
            proposal: The gradient that a mistake would give.
        """
        if time.perf_counter() > self._deadline:
            return False
        for i in (0, 1):
            candidate = attempt(lambda i=i: proposal(i))
            if not isinstance(candidate, Tensor) or not self.matches(i, candidate):
                return False
        return True

    @cached_property
    def _deadline(self) -> float:
        return time.perf_counter() + BUDGET

    @cached_property
    def factor(self) -> float | None:
        """The c of x̄ = c · true x̄, if it is one for both cotangents."""
        r = self.expected[0][self.comparable[0]]
        g = self.actual[0][self.comparable[0]]
        size = float(torch.linalg.vector_norm(r)) ** 2
        if not size:
            return None
        c = torch.sum(r.conj() * g) / size
        if abs(c.imag if c.is_complex() else 0.0) > 1e-9 * abs(c):
            return None
        number = float(c.real)
        if not self.explained_by(lambda i: number * self.expected[i]):
            return None
        return number

    def true(
        self, cotangents: Sequence[Tensor], tensors: Sequence[Tensor] | None = None
    ) -> Tensor | None:
        """The true gradient for other cotangents, or at another point.

        Args:
            cotangents: A grad_output for each output.
            tensors: The point to run at, instead of the subject's.

        Returns:
            The gradient; None where it cannot be had in a short time.
        """
        found = truth(self.subject)
        if found.kind == DIFFERENCES:
            return self._measured(cotangents, tensors)
        if tensors is None:
            return expected_gradient(self.subject, cotangents, self.place)
        grads = (
            self.subject.vjp(cotangents, tensors, self.subject.reference)
            if found.kind == GIVEN
            else own_gradient(self.subject, cotangents, tensors)
        )
        return grads[self.place]

    def _measured(
        self, cotangents: Sequence[Tensor], tensors: Sequence[Tensor] | None
    ) -> Tensor | None:
        if tensors is None:
            if not measurable(self.subject, self.place, MANY):
                return None
            return transposed_product(self._jacobian, cotangents, self.x)
        if not measurable(self.subject, self.place, FEW):
            return None
        at = self.subject.moved(tensors)
        jacobian = measured_jacobian(at, self.place)
        return transposed_product(jacobian, cotangents, self.x)

    @cached_property
    def _jacobian(self) -> list[Tensor]:
        return measured_jacobian(self.subject, self.place)

    def reads(self, read: Callable[[Tensor], Tensor]) -> bool:
        """Whether the backward computes the true gradient of a changed grad_output.

        Args:
            read: What it makes of each grad_output; of the same shape.
        """
        return self.explained_by(
            lambda i: self.true([read(v).reshape(v.shape) for v in self.cotangents[i]])
        )

    def at(self, place: int, replace: Callable[[Tensor], Tensor]) -> bool:
        """Whether the gradient is the true one at a point where one input differs.

        Args:
            place: Index into `subject.tensors` of the input that is replaced.
            replace: What it is replaced by.
        """

        def proposal(i: int) -> Tensor | None:
            tensors = list(self.subject.tensors)
            tensors[place] = replace(tensors[place])
            return self.true(self.cotangents[i], tensors)

        return self.explained_by(proposal)


def evidence(mismatch: Mismatch) -> Evidence | None:
    """What a diagnosis reasons from.

    Args:
        mismatch: What a check found.

    Returns:
        The evidence; None where there is no value to explain: the mismatch is about a
        contract, or the gradient is chosen, zero or not finite.
    """
    cache = mismatch.__dict__
    if "_evidence" not in cache:
        cache["_evidence"] = _weigh(mismatch)
    return cache["_evidence"]


def _weigh(mismatch: Mismatch) -> Evidence | None:
    subject, place = mismatch.subject, mismatch.place
    actual, expected = mismatch.actual, mismatch.expected
    if subject is None or place is None or actual is None or expected is None:
        return None
    if mismatch.verdict not in ("wrong", "approximate"):
        return None
    if any(
        bool((torch.isfinite(r) & ~torch.isfinite(g)).any())
        for g, r in zip(actual, expected, strict=True)
    ) or not any(largest_entry(g) for g in actual):
        return None
    return Evidence(subject, place, actual, expected)
