"""The moment between the end of a backward pass and the clipping of the gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor
from torch.autograd.variable import Variable
from torch.utils.hooks import RemovableHandle


class EndOfBackward:
    """Calls back when a backward pass has ended, its gradients reduced over ranks.

    There is one hook, on the parameter that was the last to get its gradient. The
    engine runs callbacks that were queued during a backward pass at its end, in the
    order of queueing; one that queues another comes after that of
    DistributedDataParallel, whose reduction is done then.

    To find the last parameter, all have a hook up to the first step, and after a step
    without a call. Passes that run inside another (reentrant checkpointing) are then
    called back for too, each at its end: the last call before a step is the one that
    counts.

    Args:
        parameters: Those of the model.
        wanted: Whether the pass that is running is one to call back for.
        call: What is called; it must not raise.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        wanted: Callable[[], bool],
        call: Callable[[], object],
    ) -> None:
        self._parameters = list(parameters)
        self._wanted = wanted
        self._call = call
        self._hooks: list[RemovableHandle] = []
        self._last: Tensor | None = None
        self._queued = False
        self._watch(self._parameters)

    def step_taken(self) -> None:
        """Watch the last parameter alone from now on; all, if none got a gradient."""
        if self._last is None:
            self._watch(self._parameters)
        elif len(self._hooks) > 1:
            self._watch([self._last])
        self._last = None

    def remove(self) -> None:
        """Leave no hook behind; safe to call twice."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _watch(self, parameters: Iterable[Tensor]) -> None:
        self.remove()
        self._queued = False
        self._hooks += [
            p.register_post_accumulate_grad_hook(self._got)
            for p in parameters
            if p.requires_grad
        ]

    def _got(self, parameter: Tensor) -> None:
        self._last = parameter
        if not self._queued and self._wanted():
            self._queued = True
            _at_the_end(self._ended)

    def _ended(self) -> None:
        _at_the_end(self._over)

    def _over(self) -> None:
        self._queued = False
        self._call()


def _at_the_end(call: Callable[[], None]) -> None:
    # torch.utils.module_tracker and fully_shard find the end of a pass in this way.
    engine = Variable._execution_engine
    engine.queue_callback(call)
