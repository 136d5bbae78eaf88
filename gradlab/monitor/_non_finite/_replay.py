"""Runs one forward and backward again, under watch, and leaves everything as it was.

Parameters are replaced by aliases that have their own gradient and hooks, buffers and
inputs by copies. What the forward writes to a parameter is undone.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_map

from .._watched import _tensors as tensors_of
from ._births import Birth, Births, Site, dense_storage, function_name
from ._call import Call
from ._culprit import Culprit
from ._evidence import operand
from ._finite import hit_rows, non_finite
from ._graph import ends_first, nodes_behind
from ._untouched import set_generators, untouched


def replay(
    model: nn.Module,
    call: Call,
    *,
    backward: bool = True,
    loss: Callable[[Any], Tensor] | None = None,
) -> Culprit | None:
    """Run a call again and name what made the first non-finite number.

    Args:
        model: The model whose module was called.
        call: The call.
        backward: Whether to run the backward too, if the forward is finite.
        loss: Makes the loss of the output; None goes back from the gradients that the
            call got.

    Returns:
        What made it; None if everything is finite.
    """
    births = Births(next((len(t) for t in call.inputs if t.ndim), 0))
    run = _Run(model, call, births, backward, loss)
    aliases: dict[str, Tensor] = {}
    for name, parameter in run.named_parameters():
        aliases[name] = nn.Parameter(parameter.data, parameter.requires_grad)
        births.protected[dense_storage(parameter)._cdata] = parameter.data
        births.seed(parameter.data, "weights", name.removeprefix("model."))
    written = _statistics(model)
    for name, buffer in run.named_buffers():
        aliases[name] = copy = buffer.detach().clone()
        doubtful = id(buffer) in written or not call.found(buffer)
        births.seed(copy, "buffer", name.removeprefix("model."), doubtful)
    with untouched(model), _plain():
        try:
            return torch.func.functional_call(run, aliases, ())
        finally:
            births.put_back()


class _Run(nn.Module):
    """The whole replay as one forward, so that parameters stay replaced all through."""

    def __init__(
        self,
        model: nn.Module,
        call: Call,
        births: Births,
        backward: bool,
        loss: Callable[[Any], Tensor] | None,
    ) -> None:
        super().__init__()
        self.model = model
        self.call, self.births = call, births
        self.goes_back, self.loss = backward, loss

    def forward(self) -> Culprit | None:
        call, births = self.call, self.births
        leaves: list[Tensor] = []
        args, kwargs = _copies((call.args, call.kwargs), leaves)
        for i, tensor in enumerate(tensors_of((*args, kwargs))):
            births.seed(tensor, "batch", call.name_of(i))
        if call.generators is not None:
            set_generators(call.generators)
        with contextlib.ExitStack() as stack:
            for kind, on, dtype in call.autocast:
                autocast = torch.autocast(kind, dtype, on, cache_enabled=False)
                stack.enter_context(autocast)
            stack.enter_context(_paths(self.model, births))
            with births:
                output = self.model.get_submodule(call.path)(*args, **kwargs)
                returned = list(tensors_of(output))
                ends = returned
                if self.loss is not None:
                    births.path.append("the loss")
                    ends = [self.loss(output)]
        used = [end for i, end in enumerate(ends) if i in call.grads or not call.grads]
        birth = births.blame(used)
        if birth is not None and not birth.deliberate:
            return self._named(birth, returned)
        if not self.goes_back:
            return None
        grads = call.grads
        if self.loss is not None:
            grads = {0: torch.ones_like(ends[0])}
        outer, inner = ends_first(ends, grads)
        for i in outer:
            if bad := non_finite(grads[i]):
                return self._from_outside(ends[i], grads[i], bad, birth)
        late = self._go_back(ends, grads, outer, inner, leaves) or birth
        return None if late is None else self._named(late, returned)

    def _go_back(
        self,
        ends: Sequence[Tensor],
        grads: dict[int, Tensor],
        outer: Sequence[int],
        inner: Sequence[int],
        leaves: Sequence[Tensor],
    ) -> Birth | None:
        births = self.births
        births.begin_backward(nodes_behind([ends[i] for i in (*outer, *inner)]))
        with _paths(self.model, births), _returns(births), _foreign(births, self):
            for some in (outer, *([i] for i in inner)):
                with births:
                    torch.autograd.backward(
                        [ends[i] for i in some],
                        [grads[i] for i in some],
                        retain_graph=bool(inner),
                    )
                back = [leaf.grad for leaf in (*self.parameters(), *leaves)]
                if birth := births.blame(grad for grad in back if grad is not None):
                    return birth
        return None

    def _from_outside(
        self, end: Tensor, grad: Tensor, bad: set[str], birth: Birth | None
    ) -> Culprit:
        culprit = self.births.facts("loss", grad, bad)
        note = ""
        if birth is not None:
            made = birth.culprit
            note = f"the {made.result} of the output come from {made.origin}"
        output = operand(end, end.detach())
        return replace(culprit, module=self.call.path, operands=(output,), note=note)

    def _named(self, birth: Birth, returned: Sequence[Tensor]) -> Culprit:
        culprit = birth.verdict
        if culprit.kind == "weights":
            names = [n for n, p in self.named_parameters() if non_finite(p)]
            return replace(
                culprit, names=tuple(name.removeprefix("model.") for name in names)
            )
        if birth.deliberate:
            culprit = replace(culprit, note="it was asked for, and reaches the loss")
        if culprit.kind == "forward" and not culprit.entries:
            rows = (hit_rows(tensor, self.births.batch) for tensor in returned)
            return replace(culprit, entries=next(filter(None, rows), ()))
        return culprit


def _statistics(model: nn.Module) -> set[int]:
    """The buffers that norm layers in training write to, which torch does not count."""
    norms = (m for m in model.modules() if isinstance(m, _NormBase) and m.training)
    return {id(buffer) for norm in norms for buffer in norm.buffers(recurse=False)}


def _copies(arguments: Any, leaves: list[Tensor]) -> Any:
    def copy(one: Any) -> Any:
        if not isinstance(one, Tensor):
            return one
        mine = one.detach().clone()
        if not one.requires_grad:
            return mine
        leaves.append(mine.requires_grad_())
        # What is not a leaf may be changed in place.
        return mine if one.is_leaf else mine.clone()

    return tree_map(copy, arguments)


@contextlib.contextmanager
def _plain() -> Iterator[None]:
    """Ordinary autograd, whoever asks; compiled parts run as they were written."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        # It would raise at the first NaN.
        stack.enter_context(torch.autograd.set_detect_anomaly(False))
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


@contextlib.contextmanager
def _paths(model: nn.Module, births: Births) -> Iterator[None]:
    """Keep book of the modules that are running."""
    handles = []
    for path, module in model.named_modules():
        parts = [part for part in path.split(".") if part != "_orig_mod"]
        enter, leave = _Enter(births, ".".join(parts)), _Leave(births)
        handles += [
            module.register_forward_pre_hook(enter, prepend=True),
            module.register_forward_hook(leave, with_kwargs=True, always_call=True),
        ]
    try:
        yield
    finally:
        births.path.clear()
        for handle in handles:
            handle.remove()


class _Enter:
    def __init__(self, births: Births, path: str) -> None:
        self._births, self._path = births, path

    def __call__(self, module: nn.Module, args: Any) -> None:
        self._births.path.append(self._path)


class _Leave:
    def __init__(self, births: Births) -> None:
        self._births = births

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        births = self._births
        sources = list(tensors_of((args, kwargs)))
        for tensor in tensors_of(output):
            site = Site(module=births.path[-1])
            births.find_unseen(tensor, sources, "unseen", site)
        births.path.pop()


@contextlib.contextmanager
def _returns(births: Births) -> Iterator[None]:
    """Look at what each autograd.Function returns; it may not use torch's operators."""
    handles = [
        node.register_hook(_Returned(births, function_name(node), site))
        for node, site in births.nodes.items()
        if function_name(node)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Returned:
    def __init__(self, births: Births, name: str, site: Site) -> None:
        self._births, self._name, self._site = births, name, site

    def __call__(self, grad_inputs: Any, grad_outputs: Any) -> None:
        sent = [grad for grad in grad_outputs if grad is not None]
        site = self._site._replace(op="")
        for grad in grad_inputs:
            if grad is not None:
                self._births.find_unseen(grad, sent, "backward", site, self._name)


@contextlib.contextmanager
def _foreign(births: Births, run: nn.Module) -> Iterator[None]:
    """Leave leaves that are not the model's the gradient that they had."""
    own = {id(parameter) for parameter in run.parameters()}
    found = [getattr(node, "variable", None) for node in births.nodes]
    kept = [(v, v.grad) for v in found if v is not None and id(v) not in own]
    for leaf, _ in kept:
        leaf.grad = None
    try:
        yield
    finally:
        for leaf, grad in kept:
            leaf.grad = grad
