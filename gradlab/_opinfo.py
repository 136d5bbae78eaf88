"""`OpInfo`: what the test suite, the benchmarks and the checker know about an op.

An op's file ends with `opinfo = OpInfo(op, reference, torch_op, sample_inputs, ...)`.
Everything that is run for every op (conformance, benchmark rows, tables) reads it from
there; a new op adds no test code. The words are torch's own (torch.testing's OpInfo).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Make(Protocol):
    """Makes one sample tensor; `make_tensors` is the one that is used."""

    def __call__(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Returns a tensor of `shape`, normal with standard deviation `scale`."""
        ...


def make_tensors(dtype: torch.dtype, device: str = "cpu", seed: int = 0) -> Make:
    """Returns a `Make` whose tensors are float64 draws rounded to `dtype`.

    The same seed draws the same numbers for every dtype, up to that rounding.

    Args:
        dtype: Floating point dtype of the tensors, which require gradients.
        device: Device of the tensors; the draws are made on the CPU.
        seed: Seed of the private generator; torch's global one is not touched.

    Returns:
        The factory that a `sample_inputs` is called with.

    Example:
        >>> make = make_tensors(torch.float32)
        >>> make(2, 3).shape, make(1).requires_grad
        (torch.Size([2, 3]), True)
    """
    generator = torch.Generator().manual_seed(seed)

    def make(*shape: int, scale: float = 1.0) -> Tensor:
        draw = torch.randn(shape, dtype=torch.float64, generator=generator) * scale
        return draw.to(device, dtype).requires_grad_()

    return make


class SampleInput:
    """One call of an op: `op(*args, **kwargs)`, under a name for the test's id."""

    def __init__(self, name: str, *args: Any, **kwargs: Any) -> None:
        self.name, self.args, self.kwargs = name, args, kwargs

    def __repr__(self) -> str:
        return f"SampleInput({self.name!r})"

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors to differentiate with respect to, in the order of the call."""
        return [value for value in self._values() if _differentiable(value)]

    def bind(self, op: Callable[..., Any]) -> Callable[..., tuple[Tensor, ...]]:
        """Turns `op` into a function of `tensors` alone.

        Args:
            op: The op, its reference or torch's own.

        Returns:
            A function from as many tensors as `tensors` has to the floating point
            outputs of the op, as a tuple.
        """

        def bound(*tensors: Tensor) -> tuple[Tensor, ...]:
            rest = iter(tensors)
            args = [next(rest) if _differentiable(a) else a for a in self.args]
            kwargs = {
                key: next(rest) if _differentiable(value) else value
                for key, value in self.kwargs.items()
            }
            output = op(*args, **kwargs)
            outputs = output if isinstance(output, tuple) else (output,)
            return tuple(y for y in outputs if y.is_floating_point() or y.is_complex())

        return bound

    def _values(self) -> Iterator[Any]:
        yield from self.args
        yield from self.kwargs.values()


def _differentiable(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


@dataclass(frozen=True)
class ErrorInput:
    """A call that must fail: with the type torch raises and a message of our own.

    Attributes:
        sample: The call.
        error: The exception type; torch's own op must raise it too.
        match: Regular expression that the message must contain.
    """

    sample: SampleInput
    error: type[Exception]
    match: str


class ModuleInput:
    """One Module and one call of it: `cls(*args, **kwargs)(*inputs)`.

    Example:
        >>> ModuleInput(torch.nn.Linear, 3, 4).on(torch.zeros(2, 3)).build()
        Linear(in_features=3, out_features=4, bias=True)
    """

    def __init__(self, cls: type[torch.nn.Module], *args: Any, **kwargs: Any) -> None:
        self.cls, self.args, self.kwargs = cls, args, kwargs
        self.inputs: tuple[Any, ...] = ()

    def on(self, *inputs: Any) -> ModuleInput:
        """Sets what the Module is called with, and returns itself."""
        self.inputs = inputs
        return self

    def build(self, cls: type[torch.nn.Module] | None = None) -> torch.nn.Module:
        """Builds the Module, or with `cls` another one from the same arguments."""
        return (cls or self.cls)(*self.args, **self.kwargs)

    @property
    def torch_cls(self) -> type[torch.nn.Module]:
        """The class of `torch.nn` that this one stands in for."""
        return getattr(torch.nn, self.cls.__name__)


@dataclass(frozen=True)
class OpInfo:
    """An op and what there is to hold it against.

    Attributes:
        op: The public functional, with the explicit backward.
        reference: The equation in differentiable torch ops.
        torch_op: torch's own functional with the same signature.
        sample_inputs: Yields calls, given a `Make`. Weights are ordinary inputs.
        module_inputs: Yields Modules and a call of each.
        bench_inputs: Yields three calls, small to large, for the benchmark.
        error_inputs: Yields calls that must fail.
        known_failures: `"cell/sample"` to the reason why it cannot hold. torch's own
            op must fail there too, which the suite verifies.
    """

    op: Callable[..., Any]
    reference: Callable[..., Any]
    torch_op: Callable[..., Any]
    sample_inputs: Callable[[Make], Iterable[SampleInput]]
    module_inputs: Callable[[Make], Iterable[ModuleInput]]
    bench_inputs: Callable[[Make], Iterable[SampleInput]]
    error_inputs: Callable[[Make], Iterable[ErrorInput]]
    known_failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The op's name, the stem of its file."""
        return self.op.__name__
