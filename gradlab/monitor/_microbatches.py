"""What one microbatch's gradient, or one rank's, is beside that of the whole step.

`.grad` after the first backward of a step is the gradient of one microbatch, and at the
end the sum over all: a hook that runs when a parameter's gradient has been accumulated
keeps the norms of both. Under DistributedDataParallel the hook sees this rank's own
gradient; once the backward is over, `.grad` is that of all ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.autograd import Variable

from ..quantities import Moment, Norm, Quantity, SquaredNorm
from ._activation_watch import _scalers
from ._layers import Layers
from ._measure import NO_FLOAT64
from ._reading import Table, assemble
from ._shards import local, reduce_over_shards

# After so many steps of one microbatch on one rank, norms are for nothing.
_PATIENCE = 8
_NOISE, _SIGNAL = SquaredNorm("value"), SquaredNorm()


@dataclass(slots=True)
class _Sum:
    """The gradient of a parameter as it is summed up over microbatches.

    Attributes:
        version: Where it is and how often it was written to.
        batches: How many microbatches are in it.
        first: The norm after the first of them; None if that was not measured.
        own: The norm after the last of them, of this rank.
        all: The norm after the last of them, of all ranks.
    """

    version: tuple[int, int]
    batches: int
    first: Tensor | None
    own: Tensor | None
    all: Tensor | None


class Microbatches:
    """Reads the quantities fed with microbatches and ranks.

    Args:
        quantities: Those of the feeds `microbatch` and `rank`.
        due: Whether the coming step may be read.
        safely: Calls a function; what that raises does not reach the run.
        scaler: The GradScaler of the run; None finds the one whose `step` calls the
            optimizer's.
    """

    def __init__(
        self,
        quantities: Sequence[Quantity],
        due: Callable[[], bool],
        safely: Callable[..., Any],
        scaler: GradScaler | None = None,
    ) -> None:
        self._of_noise = [q for q in quantities if q.feed == "microbatch"]
        self._of_rank = [q for q in quantities if q.feed == "rank"]
        self._due = due
        self._safely = safely
        self._scaler = scaler
        self._watched: dict[int, Tensor] = {}
        self._hooks: list[Any] = []
        self._sums: dict[int, _Sum] = {}
        self._averages: WeakKeyDictionary[Layers, Tensor] = WeakKeyDictionary()
        # Steps in a row of one microbatch on one rank.
        self._alone = 0
        self._ending = False
        self._seconds = 0.0

    def __bool__(self) -> bool:
        return bool(self._of_noise or self._of_rank)

    @property
    def watching(self) -> bool:
        """Whether there are hooks."""
        return bool(self._hooks)

    def watch(self, layers: Layers) -> None:
        """Begin to watch parameters, those that are not watched yet.

        Args:
            layers: The parameters.
        """
        if not (self._of_noise or self._of_rank):
            return
        for parameter in layers.parameters:
            if id(parameter) not in self._watched:
                self._watched[id(parameter)] = parameter
                hook = parameter.register_post_accumulate_grad_hook(self._accumulated)
                self._hooks.append(hook)

    def remove(self) -> None:
        """Leave no hook behind; safe to call twice."""
        for hook in self._hooks:
            hook.remove()
        self._watched.clear()
        self._hooks.clear()
        self._sums.clear()

    def seconds(self) -> float:
        """How long the hooks have measured since this was asked last."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def over(self, layers: Layers) -> None:
        """The step is over: what comes next is another sum.

        Args:
            layers: The parameters that have moved.
        """
        # A backward that raised has not called back.
        self._ending = False
        if self._watched:
            for parameter in layers.parameters:
                self._sums.pop(id(parameter), None)
            self.watch(layers)

    @torch.no_grad()
    def read(
        self, layers: Layers, total: str
    ) -> Iterator[tuple[Sequence[Quantity], Table]]:
        """What there is to say about the step that is about to be taken.

        Args:
            layers: The parameters that are about to move.
            total: The name of the total row.

        Yields:
            Quantities and their table.
        """
        sums = [self._sums.get(id(p)) for p in layers.parameters]
        batches = max((one.batches for one in sums if one is not None), default=0)
        known = [
            (i, one.first, one.own, one.all)
            for i, one in enumerate(sums)
            if one is not None and one.batches == batches
        ]
        there: list[int] = []
        norms: list[Tensor] = []
        for i, first, own, reduced in known:
            if first is not None and own is not None:
                there.append(i)
                norms += [first, own, own if reduced is None else reduced]
        if not there:
            return
        if self._scaler is None:
            self._scaler = next(_scalers(), None)
        numbers = self._on_host(norms)
        first, own, whole = numbers.view(-1, 3).unbind(1)
        ranks = 1 if torch.equal(own, whole) else _ranks()
        self._alone = 0 if batches * _ranks() > 1 else self._alone + 1
        if self._of_rank:
            found: dict[Moment, Tensor] = {Norm(): own}
            yield self._of_rank, assemble(layers, there, found, self._of_rank, total)
        n = batches * ranks
        if not self._of_noise or n == 1:
            return
        squares = torch.stack([first, whole / batches]).square()
        grads = [layers.parameters[i].grad for i in there]
        cut = [None if grad is None else local(grad, grad)[2] for grad in grads]
        reduce_over_shards([_NOISE, _SIGNAL], squares, cut)
        one, all_ = squares
        noise, signal = n * (one - all_) / (n - 1), (n * all_ - one) / (n - 1)
        averages = self._averaged(layers, there, torch.stack([noise, signal]))
        found = {_NOISE: averages[0], _SIGNAL: averages[1]}
        yield self._of_noise, assemble(layers, there, found, self._of_noise, total)

    def _averaged(self, layers: Layers, there: Sequence[int], now: Tensor) -> Tensor:
        """Exponential averages of two numbers a parameter, `[2, there]`."""
        decay = max(getattr(quantity, "decay", 0.0) for quantity in self._of_noise)
        known = self._averages.get(layers)
        if known is None:
            known = torch.zeros(3, len(layers.parameters), dtype=torch.float64)
            self._averages[layers] = known
        where = torch.tensor(there)
        # The third row is the weight that the averages have.
        now = torch.cat([now, torch.ones_like(now[:1])])
        mixed = decay * known[:, where] + (1 - decay) * now
        known[:, where] = torch.where(now.isfinite().all(dim=0), mixed, known[:, where])
        return known[:2, where] / known[2, where]

    def _on_host(self, norms: Sequence[Tensor]) -> Tensor:
        device = norms[0].device
        wide = torch.float32 if device.type in NO_FLOAT64 else torch.float64
        column = [torch.stack([norm.to(device, wide) for norm in norms])]
        if self._scaler is not None:
            # get_scale() would wait for the device.
            scale = self._scaler.scale(torch.ones((), device=device))
            column.append(torch.as_tensor(scale).to(device, wide).view(1))
        numbers = torch.cat(column).to("cpu", torch.float64)
        return numbers if self._scaler is None else numbers[:-1] / numbers[-1]

    def _accumulated(self, parameter: Tensor) -> None:
        start = perf_counter()
        self._safely(self._count, parameter)
        self._seconds += perf_counter() - start

    def _count(self, parameter: Tensor) -> None:
        grad = _part(parameter)
        if grad is None:
            return
        version = grad.data_ptr(), grad._version
        known = self._sums.get(id(parameter))
        if known is None or not _goes_on(known.version, version, grad):
            wanted = self._alone < _PATIENCE or bool(self._of_rank)
            norm = _norm(grad) if wanted and self._due() else None
            self._sums[id(parameter)] = _Sum(version, 1, norm, norm, None)
        else:
            self._alone = 0
            known.version = version
            known.batches += 1
            if known.first is not None:
                known.own = _norm(grad)
        if not self._ending and _ranks() > 1 and grad is parameter.grad:
            # When all of this backward is done, DDP's own callback with it.
            self._ending = True
            Variable._execution_engine.queue_callback(self._ends)

    def _ends(self) -> None:
        Variable._execution_engine.queue_callback(self._ended)

    def _ended(self) -> None:
        self._ending = False
        start = perf_counter()
        self._safely(self._see_all_ranks)
        self._seconds += perf_counter() - start

    @torch.no_grad()
    def _see_all_ranks(self) -> None:
        for parameter in self._watched.values():
            grad, known = _part(parameter), self._sums.get(id(parameter))
            if grad is not None and known is not None:
                known.version = grad.data_ptr(), grad._version
                known.all = None if known.first is None else _norm(grad)


def _part(parameter: Tensor) -> Tensor | None:
    """This rank's part of the gradient; None of a sparse one."""
    grad: Any = parameter.grad
    if grad is None or grad.layout is not torch.strided:
        return None
    if type(grad) is not Tensor and hasattr(grad, "full_tensor"):
        return grad.to_local().detach()
    return grad


def _goes_on(last: tuple[int, int], now: tuple[int, int], grad: Tensor) -> bool:
    """Whether a gradient was added to the one there was, and not to nothing."""
    writes = now[1] - last[1]
    if now[0] != last[0] or writes < 1:
        return False
    # Adding writes once, zeroing and clipping once more. Gradients that share a storage
    # (buckets, FSDP2) count the writes to all of them.
    shared = grad.untyped_storage().nbytes() > grad.numel() * grad.element_size()
    return shared or writes == 1


def _norm(grad: Tensor) -> Tensor:
    wide = torch.promote_types(grad.dtype, torch.float32)
    # In a backward that is itself differentiated a gradient has a graph.
    return torch.linalg.vector_norm(grad.detach(), dtype=wide)


def _ranks() -> int:
    dist = torch.distributed
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size()
