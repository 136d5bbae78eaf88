"""Keeps a slice of what Functions are called with, and of the gradient that comes back.

What no gradient comes back to is never booked: an evaluation, the first forward of a
reentrant checkpoint, the recomputed one of the other kind.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..subject import Call, RandomState, own_forward
from ._backward_error import NotComparableError
from ._function_calls import Grads, Observer, Spies, unobserved
from ._known_functions import KnownFunction
from ._replay import Slice
from ._slices import Plan, chosen_rows, cut, planned

CALLS = 4
"""How many calls of one site are kept, the last ones."""
LARGEST = 2**26
_PLAIN = (Tensor, nn.Parameter)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_MODULE_CALL = nn.Module._call_impl.__code__


class KeptCall(NamedTuple):
    """A slice of a call.

    Attributes:
        known: The Function.
        slice: What it was called with, and the gradient that came back.
        versions: The parameters among its arguments, with their versions then.
    """

    known: KnownFunction
    slice: Slice
    versions: tuple[tuple[nn.Parameter, int], ...]

    def refuse_changed(self) -> None:
        """Makes sure that the arguments are what they were, and not too many.

        Raises:
            NotComparableError: If they are not.
        """
        for parameter, version in self.versions:
            if parameter._version != version:
                raise NotComparableError(
                    "a parameter was changed in place since its forward"
                )
            if parameter.numel() and not parameter.untyped_storage().size():
                raise NotComparableError("a sharded parameter was freed after its use")
        count = sum(a.numel() for a in self.slice.args if isinstance(a, Tensor))
        if count > LARGEST:
            raise NotComparableError(
                f"its arguments have {count} entries, more than {LARGEST}"
            )


class KeptCalls(Observer):
    """The calls of some Functions in one step of a model.

    Args:
        model: The model; while it is in evaluation mode nothing is kept.
        functions: The Functions.
        rows: How many rows of a batch to keep, at most.
        most: Of how many sites to keep calls in a step; those are taken in turn.
        due: Asked at the first call of a step whether to keep its calls.

    Attributes:
        watching: Whether calls are kept; None until `due` was asked.
        sites: Every call site seen, in the order of the forward: the module's path and
            the name of the Function.
        calls: What was kept in this step, by site.
        skipped: Site to the reason why a call was not kept.
        freed: Whether parameters must be copied, since they are sharded.
    """

    def __init__(
        self,
        model: nn.Module,
        functions: Sequence[KnownFunction],
        rows: int,
        most: int,
        due: Callable[[], bool],
    ) -> None:
        self.sites: dict[str, None] = {}
        self.calls: dict[str, deque[KeptCall]] = {}
        self.skipped: dict[str, str] = {}
        self.epoch = 0
        self._model, self._rows, self._due = model, rows, due
        self._most, self._turn = most, 0
        self._chosen: set[str] = set()
        self._paths: dict[int, str] = {}
        self._plans: dict[Any, Plan] = {}
        # FSDP2 frees the whole parameters that a forward and its backward work with.
        self.freed = any(hasattr(p, "full_tensor") for p in model.parameters())
        self._spies = Spies(functions, self)
        self.watching = None

    def restore(self) -> None:
        """Keep calls again after `remove`; without it, nothing happens."""
        if self._spies.restore():
            self.restart()

    def remove(self) -> None:
        """Leave no trace on the classes; safe to call twice."""
        self._spies.remove()
        self.restart(False)

    def restart(self, watching: bool | None = None) -> None:
        """Forget the calls of this step.

        Args:
            watching: Whether to keep those that follow; None asks at the next one.
        """
        self.watching = watching
        self.calls = {}
        self.epoch += 1
        if watching:
            self._begin()

    def on_call(
        self, known: KnownFunction, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[Grads], None] | None:
        """Keep a slice of the arguments of one call.

        Args:
            known: The Function.
            args: The arguments of its forward.
            kwargs: Its keyword arguments.

        Returns:
            What keeps the gradient when it comes; None if the call is not kept.
        """
        if self.watching is None:
            self.restart(self._due())
        if not self.watching or not self._model.training or _elsewhere(args):
            return None
        site = f"{self._place()}:{known.name}"
        if site not in self.sites and len(self._chosen) < self._most:
            self._chosen.add(site)
        self.sites.setdefault(site, None)
        if site not in self._chosen:
            return None
        try:
            return self._keep(site, known, args, kwargs)
        except Exception as error:
            self.skipped[site] = reason_of(error)
            return None

    def book(self, epoch: int, site: str, call: KeptCall) -> None:
        """A gradient has come back to a call.

        Args:
            epoch: Of which step the call is.
            site: Where it was made.
            call: The call.
        """
        if epoch == self.epoch:
            # The last ones: a step that GradScaler skipped is forgotten.
            self.calls.setdefault(site, deque(maxlen=CALLS)).append(call)

    def _begin(self) -> None:
        """A sampled step begins: name the modules, choose whose turn it is."""
        self._paths = {id(m): path for path, m in self._model.named_modules()}
        order = [*self.sites, *self.sites]
        first = self._turn % max(len(self.sites), 1)
        self._chosen = set(order[first : first + self._most])
        self._turn = first + self._most

    def _keep(
        self,
        site: str,
        known: KnownFunction,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Callable[[Grads], None]:
        for arg in args:
            if isinstance(arg, Tensor) and (
                type(arg) not in _PLAIN or arg.layout != torch.strided
            ):
                raise NotComparableError(
                    f"it was called with a {type(arg).__name__} of layout "
                    f"{arg.layout}, not a plain tensor"
                )
        plan = self._plan(site, known, args, kwargs)
        rows = chosen_rows(args[plan.lead], plan.sizes)
        # Before the forward, which may write to them.
        return _Waiting(self, site, known, plan, rows, args, kwargs)

    def _plan(
        self,
        site: str,
        known: KnownFunction,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Plan:
        key = site, tuple(a.shape if isinstance(a, Tensor) else None for a in args)
        if key not in self._plans:
            # Integers may be indices into what would be cut.
            integers = any(isinstance(a, Tensor) and a.dtype in _INTEGERS for a in args)
            body = partial(own_forward(Call(known.function, args, ())), **kwargs)
            state = RandomState()
            with unobserved():
                self._plans[key] = planned(
                    body, args, self._rows, known.cuttable - integers
                )
            state.restore()
        return self._plans[key]

    def _place(self) -> str:
        """The path of the innermost module of the model that is being called."""
        frame = sys._getframe(1)
        outside = "root"
        while frame is not None:
            if frame.f_code is _MODULE_CALL:
                module = frame.f_locals["self"]
                path = self._paths.get(id(module))
                if path is not None:
                    return path.replace("/", ":") or "root"
                outside = type(module).__name__ if outside == "root" else outside
            frame = frame.f_back
        return outside


class _Waiting:
    """A call whose gradient has not come yet."""

    def __init__(
        self,
        calls: KeptCalls,
        site: str,
        known: KnownFunction,
        plan: Plan,
        rows: Sequence[Tensor],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._calls, self._site, self._known = calls, site, known
        self._epoch, self._plan, self._rows = calls.epoch, plan, rows
        parameters = [a for a in args if isinstance(a, nn.Parameter)]
        self._versions = tuple((p, p._version) for p in parameters)
        self._slice = Slice(
            tuple(cut(args, plan.args, rows)),
            kwargs,
            tuple(isinstance(a, Tensor) and a.requires_grad for a in args),
            (),
            _autocast(args),
        )

    def __call__(self, grads: Grads) -> None:
        if all(grad is None for grad in grads):
            return
        try:
            call = self._slice.with_grads(
                tuple(cut(grads, self._plan.outputs, self._rows))
            )
            kept = KeptCall(self._known, call, self._versions)
            if self._calls.freed:
                kept = KeptCall(self._known, call.with_copies(), ())
            self._calls.book(self._epoch, self._site, kept)
        except Exception as error:
            self._calls.skipped[self._site] = reason_of(error)


def reason_of(error: Exception) -> str:
    """Why a call is not compared, in words.

    Args:
        error: What was raised.
    """
    if isinstance(error, NotComparableError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _autocast(args: Sequence[Any]) -> tuple[str, torch.dtype] | None:
    device = next(a.device.type for a in args if isinstance(a, Tensor))
    if not torch.is_autocast_enabled(device):
        return None
    return device, torch.get_autocast_dtype(device)


def _elsewhere(args: Sequence[Any]) -> bool:
    """Whether a transform, a tracer or the capture of a CUDA graph is at work."""
    tensors = [a for a in args if isinstance(a, Tensor)]
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor  # type: ignore[attr-defined]
    return (
        not tensors
        or torch._C._get_tracing_state() is not None
        or any(map(wrapped, tensors))
        or any(t.is_meta for t in tensors)
        or (tensors[0].is_cuda and torch.cuda.is_current_stream_capturing())
    )
