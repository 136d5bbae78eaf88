"""A slice of a real call, to be run again: in float64, or a little way off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Slice:
    """A slice of a real call.

    Attributes:
        args: The arguments of forward, detached.
        kwargs: Its keyword arguments.
        needed: Which arguments required a gradient.
        grads: The gradient that came to each output; None where none came.
        autocast: The device and the dtype of autocast around the call; None: off.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    needed: tuple[bool, ...]
    grads: tuple[Tensor | None, ...]
    autocast: tuple[str, torch.dtype] | None

    @property
    def dtype(self) -> torch.dtype:
        """The coarsest dtype of the call."""
        values = (*self.args, *self.grads)
        dtypes = [t.dtype.to_real() for t in values if t is not None and _is_float(t)]
        if self.autocast is not None:
            dtypes.append(self.autocast[1])
        return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)

    @property
    def device(self) -> str:
        """The type of the device of the first tensor."""
        return next(a.device.type for a in self.args if isinstance(a, Tensor))

    def with_grads(self, grads: tuple[Tensor | None, ...]) -> Slice:
        """The same call, with the gradients that came.

        Args:
            grads: One for each output.
        """
        return replace(self, grads=grads)

    def with_copies(self) -> Slice:
        """The same call with copies of its parameters."""
        args = (
            a.detach().clone() if isinstance(a, nn.Parameter) else a for a in self.args
        )
        return replace(self, args=tuple(args))

    def wide(self) -> Slice:
        """The same numbers in float64."""
        return self._mapped(to_wide)

    def moved(self, relative: float, constant: float) -> Slice:
        """The call elsewhere: each x is x + u (relative |x| + constant max|x|).

        Args:
            relative: In units of each entry.
            constant: In units of the largest entry; it tells zeros apart.

        Returns:
            The call with u uniform in [-1, 1], always the same draw.
        """
        # Of its own, so that watching draws no random number of the run's.
        generators: dict[torch.device, torch.Generator] = {}

        def move(t: Tensor) -> Tensor:
            if not t.numel():
                return t
            if t.device not in generators:
                generators[t.device] = torch.Generator(t.device).manual_seed(0)
            u = torch.rand(
                t.shape, generator=generators[t.device], device=t.device, dtype=t.dtype
            )
            size = t.abs()
            return t + (2 * u - 1) * (relative * size + constant * size.amax())

        return self._mapped(move)

    def gradients(self, function: Callable[..., Any]) -> list[Tensor | None]:
        """Runs forward and backward.

        Args:
            function: What to run, of the same arguments.

        Returns:
            The gradient of each argument; None where there is none.
        """
        with torch.enable_grad():
            leaves = [
                arg.detach().requires_grad_(needed) if isinstance(arg, Tensor) else arg
                for arg, needed in zip(self.args, self.needed, strict=True)
            ]
            with self._autocast():
                # Clones, since a forward may write to its inputs.
                args = [x.clone() if isinstance(x, Tensor) else x for x in leaves]
                outputs = function(*args, **self.kwargs)
            outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
            pairs = [
                (y, grad.to(y.dtype))
                for y, grad in zip(outputs, self.grads, strict=False)
                if grad is not None and isinstance(y, Tensor) and y.requires_grad
            ]
            if not pairs:
                return [None] * len(leaves)
            wanted = [
                x for x, needed in zip(leaves, self.needed, strict=True) if needed
            ]
            ys, grads = zip(*pairs, strict=True)
            found = iter(torch.autograd.grad(ys, wanted, grads, allow_unused=True))
        got = [next(found) if needed else None for needed in self.needed]
        return [None if g is None else g.detach() for g in got]

    def _autocast(self) -> torch.autocast:
        if self.autocast is None:
            return torch.autocast(self.device, enabled=False)
        device, dtype = self.autocast
        return torch.autocast(device, dtype, cache_enabled=False)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Slice:
        args = tuple(change(a) if _is_float(a) else a for a in self.args)
        grads = tuple(None if v is None else change(v) for v in self.grads)
        return replace(self, args=args, grads=grads)


def to_wide(tensor: Tensor) -> Tensor:
    """The numbers in float64 or complex128.

    Args:
        tensor: Real or complex.
    """
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and (
        value.is_floating_point() or value.is_complex()
    )
