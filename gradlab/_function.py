"""`Function`: `torch.autograd.Function` with the house rules built in once.

What an author writes, as static methods (x and y are tensors, ẋ and ȳ their tangent
and their gradient):

- `forward(x, ...)`: the value, in torch ops. A tensor that only the backward needs is
  one more output, declared non-differentiable in `setup_context`.
- `setup_context(ctx, inputs, output)`: what to save; no arithmetic.
- `backward(ctx, ȳ, ...)`: the rule, in differentiable torch ops, from *inputs and
  outputs*. It runs wherever something differentiates through it (`create_graph=True`,
  `torch.func`) or batches it: second derivatives are true, never `once_differentiable`.
- `fused_backward(ctx, ȳ, ...)`, optional: the same rule in one native kernel or in
  place on buffers of its own; it may read saved intermediates. It runs in ordinary
  training, on plain tensors, where nothing differentiates through it; where it returns
  NotImplemented, the rule runs.
- `jvp(ctx, ẋ, ...)`, optional: the tangent ẏ, for forward mode.

What this class adds:

- `vmap` (a generated rule) and `torch.func`, which need `setup_context`;
- forward mode *and* `torch.compile(fullgraph=True)`: Dynamo refuses a Function with a
  `jvp`, so the class it sees has none, and eager calls go to a twin that has it;
- autocast: `call` casts the inputs as torch's own op would and then switches autocast
  off, in the forward and in the backward. `torch.amp.custom_fwd` breaks on
  `setup_context`;
- a cheap `apply`: torch's own binds `inspect.signature` at every call;
- float32 arithmetic in the rule for half precision tensors, as native kernels do;
- gradients that nobody sent stay None instead of becoming tensors of zeros.

A limit of torch: `torch.compile(torch.func.grad(f))` ignores every custom backward and
differentiates `forward` instead (pytorch#193279). That is the same number where the
rule is the true gradient, and another where it is a chosen one.

Source: the notes "Extending PyTorch" and "Extending torch.func with autograd.Function".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

CastPolicy = Literal["lower_precision", "float32"]
"""What autocast does to an op's inputs: to its own dtype, or up to float32."""

_Rule = Callable[..., Any]
_METHODS = ("forward", "setup_context", "backward", "fused_backward", "jvp")


class Function(torch.autograd.Function):
    """Base class of every explicit backward pass in gradlab.

    Class Attributes:
        autocast: The cast that torch's own op gets under autocast, by device type:
            `{"cpu": "lower_precision"}`. The entry for `"cuda"` also serves every
            other accelerator. A device that is absent: the op runs in its input dtype.

    Raises:
        TypeError: When a subclass has no `setup_context` or no `backward` of its own.

    Example:
        >>> class Cube(Function):
        ...     @staticmethod
        ...     def forward(x):
        ...         return x**3
        ...
        ...     @staticmethod
        ...     def setup_context(ctx, inputs, output):
        ...         ctx.save_for_backward(*inputs)
        ...
        ...     @staticmethod
        ...     def backward(ctx, grad_y):
        ...         (x,) = ctx.saved_tensors
        ...         return grad_y * 3 * x**2
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> Cube.call(x).sum().backward()
        >>> x.grad
        tensor([ 3., 12.])
    """

    generate_vmap_rule = True
    autocast: ClassVar[Mapping[str, CastPolicy]] = {}
    fused_backward: ClassVar[_Rule | None] = None
    call: ClassVar[_Rule]
    """`call(*args)`: `apply(*args)` as torch's own op would run, autocast included."""
    _written: ClassVar[dict[str, _Rule]] = {}
    _eager: ClassVar[type[Function]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        own = cls.__dict__
        if "_is_twin" in own:
            return
        cls._written = cls._written | {n: _static(own[n]) for n in _METHODS if n in own}
        for name in _METHODS[:3]:
            if name not in cls._written:
                raise TypeError(
                    f"{cls.__name__} must define the static method `{name}`; a gradlab "
                    "Function has forward(*args), setup_context(ctx, inputs, output) "
                    "and backward(ctx, *grads), which is what torch.func needs"
                )
        written = cls._written
        cls.setup_context = staticmethod(_no_zeros(written["setup_context"]))
        backward = _dispatch(written["backward"], written.get("fused_backward"))
        cls.backward = staticmethod(backward)
        cls.call = staticmethod(_caller(cls, cls.autocast))
        cls._eager = cls
        if "jvp" in written:
            if "jvp" in own:
                del cls.jvp
            twin = {"jvp": staticmethod(written["jvp"]), "_is_twin": True}
            cls._eager = type(
                cls.__name__, (cls,), twin | {"__module__": cls.__module__}
            )

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Applies the Function in the dtype of its inputs.

        `torch.compile` does not run this method: it traces the class itself.

        Args:
            *args: The arguments of `forward`, all of them, by position.

        Returns:
            What `forward` returns.
        """
        if torch._C._are_functorch_transforms_active():
            return super(Function, cls._eager).apply(*args)
        return super(torch.autograd.Function, cls._eager).apply(*args)  # type: ignore[misc]


def _static(method: Any) -> _Rule:
    return method.__func__ if isinstance(method, staticmethod) else method


def _caller(function: type[Function], autocast: Mapping[str, CastPolicy]) -> _Rule:
    # A closure, since Dynamo reads no attributes of a Function class.
    def call(*args: Any) -> Any:
        if not args or not isinstance(args[0], Tensor):
            got = type(args[0]).__name__ if args else "nothing"
            raise TypeError(
                f"{function.__name__}: the first argument must be a torch.Tensor, got "
                f"{got}. Wrap it with torch.as_tensor"
            )
        device = args[0].device.type
        if not _autocasts(device):
            return function.apply(*args)
        policy = autocast.get(device if device == "cpu" else "cuda")
        if policy is not None:
            lower = torch.get_autocast_dtype(device)
            dtype = lower if policy == "lower_precision" else torch.float32
            args = tuple(_cast(arg, dtype) for arg in args)
        with torch.autocast(device, enabled=False):
            return function.apply(*args)

    return call


def _autocasts(device: str) -> bool:
    # torch raises for a device that autocast does not know.
    return device != "meta" and torch.is_autocast_enabled(device)


def _no_zeros(setup_context: _Rule) -> _Rule:
    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)
        setup_context(ctx, inputs, output)
        if torch.compiler.is_compiling():
            ctx.has_gradient = tuple(map(_has_gradient, inputs))

    return setup


def _dispatch(rule: _Rule, fused: _Rule | None) -> _Rule:
    """One backward out of two spellings: the rule, and its fused kernel if any."""

    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        if torch.compiler.is_compiling() and not isinstance(ctx, _AllAsked):
            ctx = _AllAsked(ctx)
        sent = [grad for grad in grads if grad is not None]
        if not sent:
            return (None,) * len(ctx.needs_input_grad)
        device = sent[0].device.type
        if _autocasts(device):
            with torch.autocast(device, enabled=False):
                return backward(ctx, *grads)
        if fused is None:
            return rule(ctx, *grads)
        if _plain(sent) and (result := fused(ctx, *grads)) is not NotImplemented:
            return result
        if torch.compiler.is_compiling():
            return rule(ctx, *grads)
        # Kernels compute in float32 inside; op by op, the rule must be told to.
        return rule(_Widened(ctx), *map(_widen, grads))

    return backward


class _AllAsked:
    """A ctx that asks for every gradient there is; compilers drop what nobody uses.

    Under `torch.compile(torch.func.grad(f))`, Dynamo's own `needs_input_grad` is False
    for an argument of f wherever another input of the Function is an intermediate
    tensor: the gradients of all weights but those of the first layer would be zero.
    """

    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx

    @property
    def needs_input_grad(self) -> tuple[bool, ...]:
        return getattr(self._ctx, "has_gradient", self._ctx.needs_input_grad)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)


def _has_gradient(arg: Any) -> bool:
    return isinstance(arg, Tensor) and (arg.is_floating_point() or arg.is_complex())


class _Widened:
    """A ctx whose saved tensors have at least the precision of float32."""

    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        return tuple(map(_widen, self._ctx.saved_tensors))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)


def _widen(x: Tensor | None) -> Tensor | None:
    if x is None or x.dtype not in (torch.bfloat16, torch.float16):
        return x
    return x.float()


def _plain(grads: list[Tensor]) -> bool:
    """Whether nothing differentiates or batches what is computed from `grads`."""
    if torch.is_grad_enabled():
        return False
    if torch.compiler.is_compiling():
        return True
    batched = torch._C._functorch.is_legacy_batchedtensor  # type: ignore[attr-defined]
    return not torch._C._are_functorch_transforms_active() and not any(
        map(batched, grads)
    )


def _cast(arg: Any, dtype: torch.dtype) -> Any:
    if isinstance(arg, Tensor) and arg.is_floating_point():
        return arg if arg.dtype == torch.float64 else arg.to(dtype)
    return arg
