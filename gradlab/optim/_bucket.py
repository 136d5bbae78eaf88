"""`Bucket`: parameters that are updated together, as lists for `torch._foreach_*`.

On a CPU a foreach op is a loop over the tensors, and each op of an update reads its
lists anew. So a bucket there is no larger than a cache, and the temporaries of the
update stay in it. Elsewhere a bucket is the whole group: one kernel an op.
"""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any

import torch
from torch import Tensor

Tensors = list[Tensor] | tuple[Tensor, ...]
"""What a foreach op takes and returns."""

_CACHE_BYTES = 2 << 20


class Bucket:
    """Parameters that are updated together, with their gradients and their state.

    All are on one device, of one dtype, and either all new or none. Complex tensors
    come as their real views: to an update the two parts are independent numbers.

    Args:
        owners: The parameters; the keys of `store`.
        store: The optimizer's state.
        first: Whether this is the first update of these parameters.
        maximize: Whether to hand out the gradients with their sign turned.

    Attributes:
        params: The parameters θ, to be updated in place.
        grads: Their gradients g, never to be written to.
        first: Whether this is the first update of these parameters.
    """

    def __init__(
        self,
        owners: list[Tensor],
        store: MutableMapping[Tensor, Any],
        *,
        first: bool,
        maximize: bool,
    ) -> None:
        self._owners, self._store = owners, store
        self.params = _real(owners)
        self.grads: Tensors = _real([p.grad for p in owners if p.grad is not None])
        if maximize:
            self.grads = torch._foreach_neg(self.grads)
        self.first = first

    def state(self, name: str) -> list[Tensor]:
        """Gives the state tensors of one name, zeros where there are none yet.

        Args:
            name: The key, as torch's optimizer of the same name calls it.

        Returns:
            One tensor for each parameter, to be updated in place.
        """
        found: list[Tensor] = []
        for p in self._owners:
            row = self._store[p]
            if name not in row:
                row[name] = torch.zeros_like(p)
            found.append(row[name])
        return _real(found)

    def count(self) -> list[float]:
        """Counts this update in the `step` of each parameter.

        Returns:
            The number t of updates of each parameter, this one included.

        Raises:
            RuntimeError: In the capture of a CUDA graph, which would replay one t for
                ever.
        """
        if self.params[0].is_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                "step() must run outside of CUDA graphs, got a stream that is capturing"
                " one; capture the rest, or use torch.optim with capturable=True"
            )
        steps: list[Tensor] = []
        for p in self._owners:
            row = self._store[p]
            if "step" not in row:
                row["step"] = torch.zeros((), dtype=step_dtype())
            steps.append(row["step"])
        # A plain 1 would become a tensor once for each step: four times slower.
        torch._foreach_add_(steps, torch.ones(()), alpha=1)
        return [step.item() for step in steps]


def buckets(
    params: Iterable[Tensor], store: MutableMapping[Tensor, Any], *, maximize: bool
) -> Iterator[Bucket]:
    """Sorts the parameters that have a gradient into buckets.

    Args:
        params: The parameters of one group.
        store: The optimizer's state.
        maximize: Whether to turn the sign of the gradients.

    Yields:
        Every parameter that has a gradient, once.

    Raises:
        RuntimeError: When a gradient is sparse.
    """
    alike: defaultdict[Any, list[Tensor]] = defaultdict(list)
    for p in params:
        if (grad := p.grad) is None:
            continue
        if grad.layout is not torch.strided:
            raise RuntimeError(
                f"gradients must be dense, got one of layout {grad.layout}; "
                "build the embedding with sparse=False or use torch.optim.SparseAdam"
            )
        alike[p.device, p.dtype, not store.get(p)].append(p)
    for (device, _, first), owners in alike.items():
        for some in _cache_sized(owners) if device.type == "cpu" else [owners]:
            yield Bucket(some, store, first=first, maximize=maximize)


def scale_(tensors: Tensors, factor: float) -> None:
    """Multiplies tensors by a number in place, and rounds once.

    On a CPU, `_foreach_mul_` first rounds a plain factor to the tensors' dtype, so that
    β₂ = 0.999 becomes 1 in bfloat16. A 0-d tensor it takes as it is.

    Args:
        tensors: Tensors of one dtype on one device, at least one.
        factor: The number.
    """
    if tensors[0].is_cpu and tensors[0].dtype in (torch.bfloat16, torch.float16):
        torch._foreach_mul_(tensors, torch.tensor(factor, dtype=torch.float32))
    else:
        torch._foreach_mul_(tensors, factor)


def step_dtype() -> torch.dtype:
    """Gives the dtype of `step`: that of new tensors, but one that can count."""
    return torch.promote_types(torch.get_default_dtype(), torch.float32)


def _cache_sized(params: list[Tensor]) -> Iterator[list[Tensor]]:
    some: list[Tensor] = []
    size = 0
    for p in params:
        if some and size + p.nbytes > _CACHE_BYTES:
            yield some
            some, size = [], 0
        some.append(p)
        size += p.nbytes
    yield some


def _real(tensors: list[Tensor]) -> list[Tensor]:
    if not tensors[0].is_complex():
        return tensors
    return [torch.view_as_real(t.resolve_conj()) for t in tensors]
