"""Which Functions are checked while they train, and against what."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from .._opinfo import OpInfo, make_tensors
from ..subject import Call, FunctionClass, graph_nodes, no_grad_ignored, own_forward

Reference = Callable[..., Any]
Op = OpInfo | FunctionClass | tuple[FunctionClass, Reference]
"""What can be registered: a Function, one with its reference, or the OpInfo of one."""


@dataclass(frozen=True)
class KnownFunction:
    """A Function with an explicit backward, and what autograd differentiates instead.

    Attributes:
        name: What its calls are called.
        function: The class whose calls are seen.
        reference: The same function in differentiable torch ops; None: its own forward.
        torch_op: torch's own op of the reference's arguments, if there is one.
        cuttable: How many leading dimensions of its arguments may be cut down.
    """

    name: str
    function: FunctionClass
    reference: Reference | None
    torch_op: Reference | None
    cuttable: int

    @cached_property
    def where(self) -> str:
        """The file and the line of its backward, as `path:line`."""
        written: Mapping[str, Any] = getattr(self.function, "_written", {})
        backward = inspect.unwrap(written.get("backward", self.function.backward))
        code = getattr(backward, "__code__", None)
        if code is None:
            return ""
        path = Path(code.co_filename)
        if path.is_relative_to(Path.cwd()):
            path = path.relative_to(Path.cwd())
        return f"{path}:{code.co_firstlineno}"

    def autograd(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the reference with the arguments of the Function's forward.

        They are passed by name where the reference has that name, by position
        otherwise.

        Args:
            *args: The arguments of `forward`.
            **kwargs: Its keyword arguments.
        """
        if self.reference is None:
            with no_grad_ignored():
                return own_forward(Call(self.function, args, ()))(*args, **kwargs)
        return self._call(self.reference, args, kwargs)

    @property
    def peer(self) -> Reference | None:
        """The op of torch, called with the arguments of the Function's forward."""
        return None if self.torch_op is None else self._peer

    def _peer(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(self.torch_op, args, kwargs)

    def _call(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        positional: list[Any] = []
        named = dict(kwargs)
        for i, arg in enumerate(args):
            name = self._names[i] if i < len(self._names) else None
            if name is None:
                positional.append(arg)
            else:
                named[name] = arg
        return op(*positional, **named)

    @cached_property
    def _names(self) -> tuple[str | None, ...]:
        """The name of each argument of `forward`; None if the reference lacks it."""
        forward = list(inspect.signature(self.function.forward).parameters)
        if not has_setup_context(self.function):
            forward = forward[1:]
        try:
            theirs = inspect.signature(self.reference or self.function.forward)
        except ValueError:
            return ()  # torch's builtins have no signature
        kinds = {name: p.kind for name, p in theirs.parameters.items()}
        by_name = (
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.KEYWORD_ONLY,
        )
        return tuple(n if kinds.get(n) in by_name else None for n in forward)


def known_functions(ops: Iterable[Op]) -> list[KnownFunction]:
    """The Functions that are registered, then gradlab's own.

    Args:
        ops: What is registered.

    Raises:
        TypeError: If one is of the wrong kind.
        ValueError: If an OpInfo is not of one Function, or a Function comes twice.
    """
    # The layers are many files, which a monitor needs only for this.
    from ..layers import opinfos

    given = [_known(op) for op in ops]
    classes = [known.function for known in given]
    if len(set(classes)) < len(classes):
        names = [known.name for known in given]
        raise ValueError(f"a Function is registered once, got {names}")
    own = [_of_opinfo(opinfo, cuttable=2) for opinfo in opinfos]
    return [*given, *(known for known in own if known.function not in classes)]


def has_setup_context(function: FunctionClass) -> bool:
    """Whether a Function's forward takes no ctx.

    Args:
        function: The class.
    """
    return function.setup_context is not torch.autograd.Function.setup_context


def _known(op: Op) -> KnownFunction:
    if isinstance(op, OpInfo):
        return _of_opinfo(op, cuttable=1)
    function, reference = op if isinstance(op, tuple) and len(op) == 2 else (op, None)
    if (
        not isinstance(function, type)
        or not issubclass(function, torch.autograd.Function)
        or not (reference is None or callable(reference))
    ):
        raise TypeError(
            "what is checked is an autograd.Function class, a pair of one and its "
            f"reference, or an OpInfo; got {op!r}"
        )
    return KnownFunction(function.__name__, _eager(function), reference, None, 1)


def _of_opinfo(opinfo: OpInfo, cuttable: int) -> KnownFunction:
    sample = next(iter(opinfo.sample_inputs(make_tensors(torch.float32))))
    outputs = sample.bind(opinfo.op)(*sample.tensors)
    nodes = graph_nodes(outputs)
    classes = (getattr(node, "_forward_cls", None) for node in nodes)
    found = {cls for cls in classes if cls is not None}
    if len(found) != 1:
        raise ValueError(
            "an OpInfo is checked in training if its op calls one autograd.Function, "
            f"got {len(found)} in {opinfo.name}; register (Function, reference) pairs"
        )
    (function,) = found
    reference, torch_op = opinfo.reference, opinfo.torch_op
    return KnownFunction(opinfo.name, function, reference, torch_op, cuttable)


def _eager(function: FunctionClass) -> FunctionClass:
    """The class that eager calls go to; torch.compile traces the other one."""
    return getattr(function, "_eager", function)
