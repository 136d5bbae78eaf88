"""`Subject`: a differentiable function at one point, to be run again and again.

Every run gets fresh copies of its inputs and the random state of the first run, so that
no probe can poison the next one. The public ways to build one are in `_build.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ._random_state import RandomState

Tensors = tuple[Tensor, ...]
Grads = tuple[Tensor | None, ...]


@dataclass(frozen=True)
class Subject:
    """A function and the arguments it is probed with.

    Attributes:
        title: What to call it in a report.
        call: The function, of as many arguments as `leaves` has.
        leaves: The arguments, nested containers flattened; tensors are detached.
        names: A name for each of them.
        places: Indices into `leaves` of what is differentiated.
        random_state: What every run starts from.
        seed: Seed of cotangents and directions.
        single: Whether forward values have the granularity of float32 although they
            are stored wider.
        reference: A function of the same arguments to hold this one against.
        owned: How many of the first leaves a Module owns: their shapes are given.
        lent: Indices into `leaves` of the tensors that Modules hold during a run.
        modules: The Modules that are called or passed along.
    """

    title: str
    call: Callable[..., Any]
    leaves: tuple[Any, ...]
    names: tuple[str, ...]
    places: tuple[int, ...]
    random_state: RandomState
    seed: int = 0
    single: bool = False
    reference: Callable[..., Any] | None = None
    owned: int = 0
    lent: frozenset[int] = frozenset()
    modules: tuple[torch.nn.Module, ...] = ()

    @property
    def tensors(self) -> Tensors:
        """The tensors that are differentiated, detached: read them, never write."""
        return tuple(self.leaves[i] for i in self.places)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of `tensors`."""
        return tuple(self.names[i] for i in self.places)

    @property
    def dtype(self) -> torch.dtype:
        """The widest real dtype of the inputs."""
        dtypes = [t.dtype.to_real() for t in self.tensors]
        return max(dtypes, key=lambda dtype: torch.finfo(dtype).bits)

    @property
    def eps(self) -> float:
        """The relative spacing of the numbers that the forward computes with."""
        return torch.finfo(torch.float32 if self.single else self.dtype).eps

    @property
    def tolerance(self) -> float:
        """The relative error up to which gradients are the same: 1e-7 in float64."""
        return float(f"{self.eps**0.45:.0e}")

    def fresh(self, tensors: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Copies of the differentiated inputs that require grad and are leaves.

        Args:
            tensors: Copies of these instead; layouts are kept where they are dense.
        """
        given = self.tensors if tensors is None else tensors
        return [t.detach().clone().requires_grad_() for t in given]

    def run(
        self,
        tensors: Sequence[Tensor],
        call: Callable[..., Any] | None = None,
    ) -> Tensors:
        """Runs the function and returns its differentiable outputs.

        Args:
            tensors: One for each of `places`; passed on as they are.
            call: Run this instead, with the same arguments.

        Returns:
            The floating point or complex outputs, out of any containers, that required
            grad in the first run; in the first run itself, all of them.
        """
        return tuple(y for y in self._run(tensors, call) if y is not None)

    def _run(
        self, tensors: Sequence[Tensor], call: Callable[..., Any] | None = None
    ) -> list[Tensor | None]:
        args = [a.clone() if isinstance(a, Tensor) else a for a in self.leaves]
        for place, tensor in zip(self.places, tensors, strict=True):
            args[place] = tensor
        self.random_state.restore(tensors=self.__dict__.get("_draws", True))
        outputs = pytree.tree_leaves((call or self.call)(*args))
        floats = [y for y in outputs if _is_float(y)]
        if "differentiable" in self.__dict__:
            if len(floats) != len(self.differentiable):
                return list(floats)
            pairs = zip(floats, self.differentiable, strict=True)
            return [y if keep else None for y, keep in pairs]
        return list(floats)

    @cached_property
    def differentiable(self) -> tuple[bool, ...]:
        """Which of the floating point outputs requires grad."""
        outputs = self._run(self.fresh())
        self.__dict__["_draws"] = not self.random_state.same()
        return tuple(y is not None and y.requires_grad for y in outputs)

    @property
    def draws(self) -> bool:
        """Whether the forward draws random numbers."""
        assert any(self.differentiable)
        return self.__dict__["_draws"]

    @cached_property
    def outputs(self) -> Tensors:
        """The differentiable outputs, detached."""
        assert any(self.differentiable)
        return tuple(y.detach() for y in self.run(self.fresh()))

    @cached_property
    def cotangents(self) -> tuple[Tensors, Tensors]:
        """Two independent normal grad_outputs: one to find with, one to confirm."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        first, second = (
            tuple(normal_like(y, generator) for y in self.outputs) for _ in range(2)
        )
        return first, second

    def vjp(
        self,
        cotangents: Sequence[Tensor],
        tensors: Sequence[Tensor] | None = None,
        call: Callable[..., Any] | None = None,
    ) -> Grads:
        """Runs forward and backward and returns the gradient of each input.

        Args:
            cotangents: A grad_output for each differentiable output; they are copied.
            tensors: The point to run at, instead of `tensors`.
            call: Run this instead, with the same arguments.

        Returns:
            The gradients, None where the graph does not reach.
        """
        leaves = self.fresh(tensors)
        return grad(self.run(leaves, call), leaves, [v.clone() for v in cotangents])

    @cached_property
    def gradients(self) -> tuple[Grads, Grads]:
        """The gradient under test, for each of `cotangents`."""
        # Copies, since a backward may return memory that its next run writes to.
        first, second = (
            tuple(None if g is None else g.clone() for g in self.vjp(v))
            for v in self.cotangents
        )
        return first, second

    def scale(self, place: int, *gradients: Grads) -> float:
        """What an error in the gradient of one input is measured against.

        The largest entry of any of `gradients`; where all of them vanish, a small part
        of the size that |ȳ| |y| / |x| suggests, so that rounding is not an error.

        Args:
            place: Index into `tensors`.
            *gradients: Gradients of all inputs.
        """
        present = (g[place] for g in gradients)
        largest = max((largest_entry(g) for g in present if g is not None), default=0.0)
        x = largest_entry(self.tensors[place]) or 1.0
        y = max((largest_entry(y) for y in self.outputs), default=0.0)
        return max(largest, 1e-6 * y / x, 1e-300)

    def at(self, leaves: Iterable[Any], title: str = "") -> Subject:
        """The same function at another point.

        Args:
            leaves: All the arguments, in the order of `leaves`.
            title: What to call it.
        """
        moved = replace(
            self,
            title=title or self.title,
            leaves=tuple(a.detach() if isinstance(a, Tensor) else a for a in leaves),
        )
        if "_draws" in self.__dict__:
            moved.__dict__["_draws"] = self.__dict__["_draws"]
        return moved

    def moved(self, tensors: Sequence[Tensor], title: str = "") -> Subject:
        """The same function with other values for the differentiated inputs.

        Args:
            tensors: One for each of `places`.
            title: What to call it.
        """
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        return self.at(leaves, title)


def grad(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    cotangents: Sequence[Tensor | None],
    **options: Any,
) -> Grads:
    """`torch.autograd.grad` that forgives outputs without a graph.

    Args:
        outputs: The outputs.
        inputs: What to differentiate with respect to.
        cotangents: A grad_output for each output; None to leave the output out.
        **options: `create_graph`, `retain_graph`.

    Returns:
        A gradient for each input, None where the graph does not reach.
    """
    pairs = [
        (y, v)
        for y, v in zip(outputs, cotangents, strict=True)
        if y.requires_grad and v is not None
    ]
    if not pairs:
        return (None,) * len(inputs)
    ys, vs = zip(*pairs, strict=True)
    try:
        return torch.autograd.grad(ys, inputs, vs, allow_unused=True, **options)
    except RuntimeError as error:
        # As reentrant checkpoints say, which write into the .grad of parameters.
        if "with .grad()" not in str(error) or options.keys() - {"retain_graph"}:
            raise
    for x in inputs:
        x.grad = None
    torch.autograd.backward(ys, vs, **options)
    return tuple(x.grad for x in inputs)


def filled(gradient: Tensor | None, like: Tensor) -> Tensor:
    """A gradient, or zeros where there is none.

    Args:
        gradient: What autograd gave.
        like: The input it belongs to.
    """
    return torch.zeros_like(like) if gradient is None else gradient


def normal_like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """A signed normal tensor of the shape, dtype and device of another one.

    Args:
        tensor: The one to resemble; complex ones get two independent parts.
        generator: Where the numbers come from; on the CPU.
    """
    draw = torch.randn(
        tensor.shape,
        dtype=torch.complex128 if tensor.is_complex() else torch.float64,
        generator=generator,
    )
    return draw.to(tensor.device, tensor.dtype)


def largest_entry(tensor: Tensor) -> float:
    """The largest finite magnitude; 0 for an empty tensor.

    Args:
        tensor: Real or complex.
    """
    if not tensor.numel():
        return 0.0
    largest = float(tensor.detach().abs().max())
    if math.isfinite(largest):
        return largest
    return float(tensor.detach().abs().nan_to_num(0.0, 0.0, 0.0).max())


def inner(a: Tensor, b: Tensor) -> float:
    """Re Σ conj(a) b, the inner product that autograd's gradients are dual to.

    Args:
        a: A tensor.
        b: One of the same shape.
    """
    if a.is_complex() or b.is_complex():
        return float((a.conj().to(torch.complex128) * b).real.sum())
    return float(torch.sum(a.to(torch.float64) * b))


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and (
        value.is_floating_point() or value.is_complex()
    )
