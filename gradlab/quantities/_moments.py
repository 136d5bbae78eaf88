"""The moments there are: norms, the largest magnitude, counts."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ._moment import Moment, Of, Reduce, stored


@dataclass(frozen=True)
class Norm(Moment):
    """The Euclidean norm √Σ|t|² of the gradients, or of the values.

    Squares are accumulated in float32 at least, so that half precision neither
    overflows nor vanishes; a norm below 1e-15 or above 1e18, whose squares leave
    float32, is measured again in float64. A sparse tensor has the norm of the dense
    one, a complex one that of its moduli, an empty one the norm 0.

    Example:
        >>> Norm()([torch.zeros(2)], [torch.tensor([3.0, 4.0])])
        tensor([5.])
        >>> parts = torch.tensor([3.0, 4.0], dtype=torch.float64)
        >>> Norm().combine(parts, torch.tensor([0, 0]), wholes=1)
        tensor([5.], dtype=torch.float64)
    """

    of: Of = "gradient"
    reduce: ClassVar[Reduce] = "norm"

    @property
    def degree(self) -> int:
        """1 for gradients, 0 for values."""
        return int(self.of == "gradient")

    def __call__(
        self,
        values: Sequence[Tensor],
        grads: Sequence[Tensor],
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, " n"]:
        """Measure the norm of each tensor.

        Args:
            values: The tensors.
            grads: Their gradients, all on one device.
            dtype: The least precise dtype to accumulate in.

        Returns:
            One norm for each.
        """
        tensors = grads if self.of == "gradient" else values
        if not tensors:
            return torch.empty(0, dtype=dtype)
        kinds = {t.dtype for t in tensors}
        if len(kinds) == 1:
            wide = torch.promote_types(kinds.pop(), dtype)
            # What is sparse has no such kernel, and says so.
            with contextlib.suppress(RuntimeError):
                return torch.stack(_norms(tensors, wide))
        tensors = [stored(t) for t in tensors]
        kinds = {t.dtype for t in tensors}
        norms = list(tensors)
        for kind in kinds:
            where = [i for i, t in enumerate(tensors) if t.dtype == kind]
            alike = [tensors[i] for i in where]
            wide = torch.promote_types(kind, dtype)
            for i, norm in zip(where, _norms(alike, wide), strict=True):
                norms[i] = norm
        return torch.stack(norms)

    def of_rows(
        self, values: Float[Tensor, "n k"], grads: Float[Tensor, "n k"]
    ) -> Float[Tensor, " n"]:
        """Measure the norm of each row, in its dtype.

        Args:
            values: The rows.
            grads: Their gradients.

        Returns:
            One norm for each.
        """
        rows = grads if self.of == "gradient" else values
        return torch.linalg.vector_norm(rows, dim=1)

    def refine(
        self,
        values: Sequence[Tensor],
        grads: Sequence[Tensor],
        numbers: Float64[Tensor, " n"],
        scale: float | Tensor = 1.0,
    ) -> Float64[Tensor, " n"]:
        """Measure in float64 what float32 cannot hold.

        Args:
            values: The tensors.
            grads: Their gradients.
            numbers: Their norms in float32.
            scale: Does not matter here.

        Returns:
            Their norms.
        """
        host = numbers.numpy()
        fits = host.min() >= _LOW and host.max() <= _HIGH
        if fits or grads[0].device.type == "mps":
            return numbers
        fits = (numbers >= _LOW) & (numbers <= _HIGH)
        again = (~fits).nonzero().flatten().tolist()
        wide = self([values[i] for i in again], [grads[i] for i in again], _WIDE)
        refined = numbers.clone()
        refined[again] = wide.to("cpu", _WIDE)
        return refined


@dataclass(frozen=True)
class SquaredNorm(Moment):
    """Σ|t|² of the gradients, or of the values; of an estimate it can be negative."""

    of: Of = "gradient"
    reduce: ClassVar[Reduce] = "sum"

    @property
    def degree(self) -> int:
        """2 for gradients, 0 for values."""
        return 2 * int(self.of == "gradient")

    def __call__(
        self, values: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> Float[Tensor, " n"]:
        """Measure the squared norm of each tensor.

        Args:
            values: The tensors.
            grads: Their gradients.

        Returns:
            One number for each.
        """
        return Norm(self.of)(values, grads, _WIDE).square()


@dataclass(frozen=True)
class LargestMagnitude(Moment):
    """max |g|; NaN where an entry is NaN, 0 for an empty gradient."""

    reduce: ClassVar[Reduce] = "max"
    degree: ClassVar[int] = 1

    def __call__(
        self, values: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> Float[Tensor, " n"]:
        """Measure the largest magnitude of each gradient.

        Args:
            values: The tensors; their values do not matter here.
            grads: Their gradients.

        Returns:
            One number for each.
        """
        tensors = [stored(grad) for grad in grads]
        if any(not t.numel() or t.is_complex() for t in tensors):
            return torch.stack([_largest(tensor) for tensor in tensors])
        # One pass, as fast as the memory; torch._foreach_norm(..., inf) is ten times
        # slower on the CPU.
        low, high = zip(*map(torch.aminmax, tensors), strict=True)
        return torch.maximum(-_stacked(low), _stacked(high))


@dataclass(frozen=True)
class NonFiniteCount(Moment):
    """How many entries of the gradient are NaN or infinite.

    A norm tells for nothing whether there are any: only then the entries are looked at.
    """

    reduce: ClassVar[Reduce] = "sum"
    degree: ClassVar[int] = 0

    @property
    def measured_as(self) -> Moment:
        """The norm."""
        return Norm()

    def __call__(
        self, values: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> Float[Tensor, " n"]:
        """A number for each gradient that is finite if the gradient may be.

        Args:
            values: The tensors; their values do not matter here.
            grads: Their gradients.

        Returns:
            Their norms.
        """
        return Norm()(values, grads)

    def refine(
        self,
        values: Sequence[Tensor],
        grads: Sequence[Tensor],
        numbers: Float64[Tensor, " n"],
        scale: float | Tensor = 1.0,
    ) -> Float64[Tensor, " n"]:
        """Count in those gradients whose norm is not finite.

        Args:
            values: The tensors.
            grads: Their gradients.
            numbers: Their norms.
            scale: Does not matter here.

        Returns:
            The counts.
        """
        counts = torch.zeros_like(numbers)
        if not numbers.sum().isfinite():
            again = (~numbers.isfinite()).nonzero().flatten().tolist()
            found = [(~stored(grads[i]).isfinite()).sum() for i in again]
            counts[again] = torch.stack(found).to("cpu", numbers.dtype)
        return counts


@dataclass(frozen=True)
class Dot(Moment):
    """Σ Re(conj(v) g), the inner product of the values and the gradients."""

    reduce: ClassVar[Reduce] = "sum"
    degree: ClassVar[int] = 1

    def __call__(
        self, values: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> Float[Tensor, " n"]:
        """Measure the inner product of each pair.

        Args:
            values: The tensors.
            grads: What to multiply them with, of the same shapes.

        Returns:
            One number for each.
        """
        if not grads:
            return torch.empty(0, dtype=_WIDE)
        pairs = zip(values, grads, strict=True)
        return torch.stack([_dot(v, g) for v, g in pairs])

    def of_rows(
        self, values: Float[Tensor, "n k"], grads: Float[Tensor, "n k"]
    ) -> Float[Tensor, " n"]:
        """Measure the inner product of each pair of rows, in their dtype.

        Args:
            values: The rows.
            grads: What to multiply them with.

        Returns:
            One number for each.
        """
        return torch.linalg.vecdot(values, grads)


def _dot(v: Tensor, g: Tensor) -> Tensor:
    wide = torch.promote_types(g.dtype, torch.float32)
    return torch.vdot(v.reshape(-1).to(wide), g.reshape(-1).to(wide)).real


_WIDE = torch.float64
# Norms whose squares float32 holds, with room to spare.
_LOW, _HIGH = 1e-15, 1e18


def _norms(tensors: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    given = tensors if isinstance(tensors, list | tuple) else [*tensors]
    norms = torch._foreach_norm  # pyright: ignore[reportPrivateImportUsage]
    return norms(given, 2, dtype=dtype)


def _stacked(numbers: Sequence[Tensor]) -> Tensor:
    if len({number.dtype for number in numbers}) > 1:
        return torch.stack([number.double() for number in numbers])
    return torch.stack(tuple(numbers))


def _largest(grad: Tensor) -> Tensor:
    if not grad.numel():
        return grad.new_zeros((), dtype=torch.float32)
    if grad.is_complex():
        return grad.abs().amax().to(grad.dtype.to_real())
    low, high = torch.aminmax(grad)
    return torch.maximum(-low, high)
