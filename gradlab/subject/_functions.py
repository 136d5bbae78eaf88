"""The `autograd.Function` classes inside a graph: find them, and stand in for them.

torch looks `forward`, `setup_context` and `backward` up on the class at every call, so
what is put on the class for a while is used even by a captured `SomeFunction.apply`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._subject import grad

FunctionClass = type[torch.autograd.Function]
_MISSING = object()


@dataclass(frozen=True)
class Call:
    """One application of a Function, as it was seen from inside.

    Attributes:
        function: The class.
        args: The arguments of `forward`.
        needed: Which of them required grad.
    """

    function: FunctionClass
    args: tuple[Any, ...]
    needed: tuple[bool, ...]


@dataclass(frozen=True)
class BackwardCall:
    """One run of a Function's backward, before the engine repairs what it returns.

    Attributes:
        function: The class.
        grad_outputs: What it was given.
        returned: What it returned, as a tuple.
        needs_input_grad: What was asked for.
        kept: Names of attributes of ctx that hold tensors.
        metadata: Shape and dtype of each tensor argument of `forward`, else None.
    """

    function: FunctionClass
    grad_outputs: tuple[Tensor | None, ...]
    returned: tuple[Any, ...]
    needs_input_grad: tuple[bool, ...]
    kept: tuple[str, ...]
    metadata: tuple[tuple[torch.Size, torch.dtype] | None, ...]


def find_functions(outputs: Iterable[Tensor]) -> tuple[FunctionClass, ...]:
    """Walks the graph and returns the Function classes in it, the outermost first.

    Args:
        outputs: Tensors with a `grad_fn`.

    Returns:
        Each class once, in the order in which a backward reaches it.
    """
    found: dict[FunctionClass, None] = {}
    for node in graph_nodes(outputs):
        cls = getattr(node, "_forward_cls", None)
        if cls is not None:
            found[cls] = None
    return tuple(found)


def graph_nodes(outputs: Iterable[Tensor]) -> Iterator[Any]:
    """Every node of the graph behind some tensors, once.

    Args:
        outputs: Tensors; those without a `grad_fn` are passed over.

    Yields:
        The nodes, breadth first.
    """
    queue = [y.grad_fn for y in outputs if y.grad_fn is not None]
    seen = set(queue)
    for node in queue:
        yield node
        for child, _ in node.next_functions:
            if child is not None and child not in seen:
                seen.add(child)
                queue.append(child)


@contextmanager
def own_forward_differentiated(classes: Sequence[FunctionClass]) -> Iterator[None]:
    """Inside, the backward of each class is autograd of its own forward.

    Args:
        classes: The classes to stand in for.
    """
    with arguments_kept(classes), own_forward_stands_in(classes):
        yield


@contextmanager
def arguments_kept(classes: Sequence[FunctionClass]) -> Iterator[None]:
    """Inside, every application keeps what `own_forward_stands_in` needs later.

    Args:
        classes: The classes to prepare.
    """

    def keep(ctx: Any, args: tuple[Any, ...]) -> None:
        ctx._gradlab_args = tuple(map(_detached, args))

    with ExitStack() as stack:
        for cls in classes:
            stack.enter_context(_arguments_seen(cls, keep))
        yield


@contextmanager
def own_forward_stands_in(classes: Sequence[FunctionClass]) -> Iterator[None]:
    """Inside, a backward through a graph made under `arguments_kept` is autograd's.

    Args:
        classes: The classes to stand in for.
    """
    with ExitStack() as stack:
        for cls in classes:
            stack.enter_context(_replaced(cls, backward=_differentiate(cls)))
        yield


@contextmanager
def calls_recorded(classes: Sequence[FunctionClass]) -> Iterator[list[Call]]:
    """Inside, every application of the classes is recorded.

    Args:
        classes: The classes to watch.

    Yields:
        The list that the calls are added to, their tensors detached.
    """
    calls: list[Call] = []

    def record(cls: FunctionClass) -> Callable[..., None]:
        def note(ctx: Any, args: tuple[Any, ...]) -> None:
            needed = tuple(isinstance(a, Tensor) and a.requires_grad for a in args)
            calls.append(Call(cls, tuple(map(_detached, args)), needed))

        return note

    with ExitStack() as stack:
        for cls in classes:
            stack.enter_context(_arguments_seen(cls, record(cls)))
        yield calls


@contextmanager
def backwards_recorded(
    classes: Sequence[FunctionClass],
) -> Iterator[list[BackwardCall]]:
    """Inside, what the backward of each class returns is recorded, as it returns it.

    Args:
        classes: The classes to watch.

    Yields:
        The list that the runs are added to.
    """
    runs: list[BackwardCall] = []

    def listen(cls: FunctionClass, original: Callable[..., Any]) -> Callable[..., Any]:
        def backward(ctx: Any, *grads: Tensor | None) -> Any:
            result = original(ctx, *grads)
            kept = tuple(
                name
                for name, value in vars(ctx).items()
                if isinstance(value, Tensor) and not name.startswith("_gradlab")
            )
            run = BackwardCall(
                cls,
                grads,
                result if isinstance(result, tuple) else (result,),
                tuple(ctx.needs_input_grad),
                kept,
                ctx._gradlab_metadata,
            )
            runs.append(run)
            return result

        return backward

    def describe(ctx: Any, args: tuple[Any, ...]) -> None:
        ctx._gradlab_metadata = tuple(
            (a.shape, a.dtype) if isinstance(a, Tensor) else None for a in args
        )

    with ExitStack() as stack:
        for cls in classes:
            stack.enter_context(_arguments_seen(cls, describe))
            stack.enter_context(_replaced(cls, backward=listen(cls, _backward(cls))))
        yield runs


def own_forward(call: Call) -> Callable[..., Any]:
    """The body of a Function's forward as a plain function of the same arguments.

    Args:
        call: The application whose class to take it from.
    """
    return _body(call.function)


def _differentiate(cls: FunctionClass) -> Callable[..., Any]:
    body = _body(cls)

    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        needed = ctx.needs_input_grad
        with torch.enable_grad(), no_grad_ignored():
            args = [
                a.detach().requires_grad_() if wanted else a
                for a, wanted in zip(ctx._gradlab_args, needed, strict=True)
            ]
            # Clones, since a forward may write to its inputs.
            ys = body(*(a.clone() if isinstance(a, Tensor) else a for a in args))
        outputs = ys if isinstance(ys, tuple) else (ys,)
        leaves = [a for a, wanted in zip(args, needed, strict=True) if wanted]
        tensors = [y if isinstance(y, Tensor) else torch.zeros(()) for y in outputs]
        found = iter(grad(tensors, leaves, grads))
        return tuple(next(found) if wanted else None for wanted in needed)

    return backward


class OwnContext:
    """A ctx for running a `forward(ctx, ...)` outside of autograd's machinery."""

    saved_tensors: tuple[Any, ...] = ()
    needs_input_grad: tuple[bool, ...] = (True,) * 64

    def save_for_backward(self, *tensors: Any) -> None:
        """Keeps the tensors, as autograd would."""
        self.saved_tensors = tensors

    save_for_forward = save_for_backward

    def mark_dirty(self, *tensors: Any) -> None:
        """Does nothing: the stand-in works on copies."""

    mark_non_differentiable = mark_dirty

    def set_materialize_grads(self, value: bool) -> None:
        """Does nothing: no backward reads it."""


def _body(cls: FunctionClass) -> Callable[..., Any]:
    forward = cls.forward
    if _has_setup_context(cls):
        return forward

    def body(*args: Any) -> Any:
        return forward(OwnContext(), *args)

    return body


@contextmanager
def no_grad_ignored() -> Iterator[None]:
    """Inside, `torch.no_grad` does nothing, as a context and as a decorator."""
    no_grad: Any = torch.no_grad
    enter, leave = no_grad.__enter__, no_grad.__exit__
    no_grad.__enter__ = lambda self: None
    no_grad.__exit__ = lambda self, *exc: None
    try:
        yield
    finally:
        no_grad.__enter__, no_grad.__exit__ = enter, leave


@contextmanager
def _arguments_seen(
    cls: FunctionClass, see: Callable[[Any, tuple[Any, ...]], None]
) -> Iterator[None]:
    if _has_setup_context(cls):
        setup_context: Callable[..., Any] = cls.setup_context

        def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            see(ctx, inputs)
            setup_context(ctx, inputs, output)

        with _replaced(cls, setup_context=setup):
            yield
        return
    forward: Callable[..., Any] = cls.forward

    def seen(ctx: Any, *args: Any) -> Any:
        see(ctx, args)
        return forward(ctx, *args)

    with _replaced(cls, forward=seen):
        yield


@contextmanager
def _replaced(cls: FunctionClass, **methods: Callable[..., Any]) -> Iterator[None]:
    if "backward" in methods and cls.vjp is not torch.autograd.Function.vjp:
        methods["vjp"] = methods.pop("backward")
    own = {name: cls.__dict__.get(name, _MISSING) for name in methods}
    try:
        for name, method in methods.items():
            setattr(cls, name, staticmethod(method))
        yield
    finally:
        for name, method in own.items():
            if method is _MISSING:
                delattr(cls, name)
            else:
                setattr(cls, name, method)


def _backward(cls: FunctionClass) -> Callable[..., Any]:
    if cls.vjp is not torch.autograd.Function.vjp:
        return cls.vjp
    return cls.backward


def _has_setup_context(cls: FunctionClass) -> bool:
    return cls.setup_context is not torch.autograd.Function.setup_context


def _detached(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value
