"""One claim a function, about an op at one sample; raises where it does not hold."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gradlab import OpInfo, SampleInput

from ._evaluate import accuracy, assert_close, both, cast, cotangents, evaluate, scalar

Cell = Callable[[OpInfo, SampleInput], None]


def matches_reference(opinfo: OpInfo, sample: SampleInput) -> None:
    ours, expected = (evaluate(op, sample) for op in (opinfo.op, opinfo.reference))
    assert_close(ours, expected, "output, gradient")


def matches_torch(opinfo: OpInfo, sample: SampleInput) -> None:
    ours, expected = (evaluate(op, sample) for op in (opinfo.op, opinfo.torch_op))
    assert_close(ours, expected, "output, gradient")


def gradcheck(opinfo: OpInfo, sample: SampleInput) -> None:
    assert torch.autograd.gradcheck(
        sample.bind(opinfo.op), sample.tensors, check_batched_grad=True
    )


def gradgradcheck(opinfo: OpInfo, sample: SampleInput) -> None:
    assert torch.autograd.gradgradcheck(
        sample.bind(opinfo.op), sample.tensors, gen_non_contig_grad_outputs=True
    )


def forward_mode(opinfo: OpInfo, sample: SampleInput) -> None:
    tangents = tuple(cotangents(sample.tensors, seed=2))
    tensors = tuple(x.detach() for x in sample.tensors)
    ours, expected = (
        torch.func.jvp(sample.bind(op), tensors, tangents)
        for op in (opinfo.op, opinfo.reference)
    )
    assert_close(ours, expected, "output, tangent")
    assert torch.autograd.gradcheck(
        sample.bind(opinfo.op),
        sample.tensors,
        check_forward_ad=True,
        check_backward_ad=False,
        check_undefined_grad=False,
    )


def func_grad(opinfo: OpInfo, sample: SampleInput) -> None:
    loss, argnums = scalar(sample.bind(opinfo.op)), tuple(range(len(sample.tensors)))
    tensors = [x.detach() for x in sample.tensors]
    assert_close(
        torch.func.grad(loss, argnums)(*tensors),
        torch.autograd.grad(loss(*sample.tensors), sample.tensors, allow_unused=True),
        "gradient",
    )


def vmap_grad(opinfo: OpInfo, sample: SampleInput) -> None:
    loss, count = scalar(sample.bind(opinfo.op)), len(sample.tensors)
    tensors = [x.detach() for x in sample.tensors]
    grad = torch.func.grad(loss, tuple(range(count)))
    for batched in {(True,) * count, (True,) + (False,) * (count - 1)}:
        stacked = [
            torch.stack([x, 0.5 * x, -x]) if b else x
            for x, b in zip(tensors, batched, strict=True)
        ]
        axes = tuple(0 if b else None for b in batched)
        rows = [
            grad(*(s[i] if b else s for s, b in zip(stacked, batched, strict=True)))
            for i in range(3)
        ]
        expected = [torch.stack(column) for column in zip(*rows, strict=True)]
        actual = torch.func.vmap(grad, axes)(*stacked)
        assert_close(actual, expected, f"batched {batched}, gradient")


def jacrev(opinfo: OpInfo, sample: SampleInput) -> None:
    argnums = tuple(range(len(sample.tensors)))
    tensors = [x.detach() for x in sample.tensors]
    ours, expected = (
        torch.func.jacrev(sample.bind(op), argnums)(*tensors)
        for op in (opinfo.op, opinfo.reference)
    )
    assert_close(ours, expected, "Jacobian")


def hessian(opinfo: OpInfo, sample: SampleInput) -> None:
    argnums = tuple(range(len(sample.tensors)))
    tensors = [x.detach() for x in sample.tensors]
    ours, expected = (
        torch.func.hessian(scalar(sample.bind(op)), argnums)(*tensors)
        for op in (opinfo.op, opinfo.reference)
    )
    assert_close(ours, expected, "Hessian")


def compile_fullgraph(opinfo: OpInfo, sample: SampleInput) -> None:
    torch._dynamo.reset()
    bound = sample.bind(opinfo.op)
    compiled = torch.compile(bound, fullgraph=True, backend="aot_eager")
    outputs = compiled(*sample.tensors)
    grads = torch.autograd.grad(
        outputs, sample.tensors, cotangents(outputs), allow_unused=True
    )
    assert_close((outputs, grads), evaluate(opinfo.op, sample), "output, gradient")


def autocast_bfloat16(opinfo: OpInfo, sample: SampleInput) -> None:
    def run(op: Callable[..., Any], sample: SampleInput, inside: bool) -> list[Any]:
        enabled = sample.tensors[0].dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            outputs = sample.bind(op)(*sample.tensors)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled and inside):
            grads = torch.autograd.grad(
                outputs, sample.tensors, cotangents(outputs), allow_unused=True
            )
        return [*outputs, *grads]

    for inside in (False, True):
        torch_run = functools.partial(run, inside=False)
        ours_run = functools.partial(run, inside=inside)
        accuracy(opinfo, sample, torch.float32, ours_run, torch_run)


def activation_checkpointing(opinfo: OpInfo, sample: SampleInput) -> None:
    for reentrant in (False, True):

        def checkpointed(*args: Any, reentrant: bool = reentrant, **kwargs: Any) -> Any:
            def op(*args: Any) -> Any:
                return opinfo.op(*args, **kwargs)

            return checkpoint(op, *args, use_reentrant=reentrant)

        # Reentrant checkpointing differentiates positional arguments, by .backward().
        leaves = cast(sample, torch.float64)
        if reentrant and any(isinstance(v, Tensor) for v in leaves.kwargs.values()):
            continue
        outputs = leaves.bind(checkpointed)(*leaves.tensors)
        torch.autograd.backward(outputs, cotangents(outputs))
        grads = [x.grad for x in leaves.tensors]
        assert_close((outputs, grads), evaluate(opinfo.op, leaves), f"{reentrant=}")


def retain_graph_twice(opinfo: OpInfo, sample: SampleInput) -> None:
    outputs = sample.bind(opinfo.op)(*sample.tensors)
    first, second = (
        torch.autograd.grad(
            outputs,
            sample.tensors,
            cotangents(outputs),
            retain_graph=True,
            allow_unused=True,
        )
        for _ in range(2)
    )
    for a, b in zip(first, second, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


def saved_tensors_hooks(opinfo: OpInfo, sample: SampleInput) -> None:
    packed = 0

    def pack(saved: Tensor) -> Tensor:
        nonlocal packed
        packed += 1
        return saved.detach().clone()

    before = evaluate(opinfo.op, sample)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        outputs = sample.bind(opinfo.op)(*sample.tensors)
    assert packed or not outputs[0].numel(), "what was saved went past the hooks"
    grads = torch.autograd.grad(
        outputs, sample.tensors, cotangents(outputs), allow_unused=True
    )
    assert_close((outputs, grads), before, "packed")
    with torch.autograd.graph.save_on_cpu():
        after = evaluate(opinfo.op, sample)
    assert_close(after, before, "on the CPU")


def layouts_of_grad_output(opinfo: OpInfo, sample: SampleInput) -> None:
    outputs = sample.bind(opinfo.op)(*sample.tensors)

    def grads(cotangent: Sequence[Tensor]) -> Any:
        return torch.autograd.grad(
            outputs, sample.tensors, cotangent, retain_graph=True, allow_unused=True
        )

    ones = [torch.ones_like(y) for y in outputs]
    expanded = [y.new_ones(()).expand(y.shape) for y in outputs]
    assert_close(grads(expanded), grads(ones), "expanded")
    dense = cotangents(outputs)
    copies = [v.clone() for v in dense]
    expected = grads(dense)
    assert_close(dense, copies, "grad_output was written to")
    for name, layout in LAYOUTS.items():
        assert_close(grads([layout(v) for v in dense]), expected, name)


def layouts_of_inputs(opinfo: OpInfo, sample: SampleInput) -> None:
    expected = evaluate(opinfo.op, sample)
    places = range(len(sample.tensors))
    for i, (name, layout) in itertools.product(places, LAYOUTS.items()):
        tensors = [x.detach() for x in sample.tensors]
        tensors[i] = layout(tensors[i])
        copies = [x.clone() for x in tensors]
        tensors = [x.requires_grad_() for x in tensors]
        outputs = sample.bind(opinfo.op)(*tensors)
        grads = torch.autograd.grad(
            outputs, tensors, cotangents(outputs), allow_unused=True
        )
        assert_close((outputs, grads), expected, f"input {i} {name}")
        assert_close(tensors, copies, "an input was written to")


def requires_grad_subsets(opinfo: OpInfo, sample: SampleInput) -> None:
    _, expected = evaluate(opinfo.op, sample)
    for wanted in itertools.product((True, False), repeat=len(sample.tensors)):
        tensors = [
            x.detach().clone().requires_grad_(w)
            for x, w in zip(sample.tensors, wanted, strict=True)
        ]
        outputs = sample.bind(opinfo.op)(*tensors)
        if not any(wanted):
            assert not any(y.requires_grad for y in outputs)
            continue
        torch.autograd.backward(outputs, cotangents(outputs))
        for x, w, grad in zip(tensors, wanted, expected, strict=True):
            assert w or x.grad is None
            assert_close(x.grad, grad if w else None, f"{wanted}")


def empty_batch(opinfo: OpInfo, sample: SampleInput) -> None:
    """Only for samples with no rows: torch's outputs and gradients, shapes and all."""
    ours, expected = (evaluate(op, sample) for op in (opinfo.op, opinfo.torch_op))
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, equal_nan=True)


def float32_error(opinfo: OpInfo, sample: SampleInput) -> None:
    for options in ({}, {"create_graph": True}):
        run = functools.partial(both, **options)
        accuracy(opinfo, sample, torch.float32, run)


def bfloat16_error(opinfo: OpInfo, sample: SampleInput) -> None:
    for options in ({}, {"create_graph": True}):
        run = functools.partial(both, **options)
        accuracy(opinfo, sample, torch.bfloat16, run)


def _strided(x: Tensor) -> Tensor:
    """Every second element of a larger buffer, from an offset."""
    buffer = x.new_zeros(*x.shape, 2)
    buffer[..., 1] = x
    return buffer[..., 1]


def _reversed(x: Tensor) -> Tensor:
    """The axes in the opposite order in memory: no two of them can be viewed as one."""
    axes = tuple(reversed(range(x.ndim)))
    return x.permute(axes).contiguous().permute(axes)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


LAYOUTS = {"strided": _strided, "reversed": _reversed, "channels_last": _channels_last}

CELLS: dict[str, Cell] = {
    cell.__name__: cell
    for cell in (
        matches_reference,
        matches_torch,
        gradcheck,
        gradgradcheck,
        forward_mode,
        func_grad,
        vmap_grad,
        jacrev,
        hessian,
        compile_fullgraph,
        autocast_bfloat16,
        activation_checkpointing,
        retain_graph_twice,
        saved_tensors_hooks,
        layouts_of_grad_output,
        layouts_of_inputs,
        requires_grad_subsets,
        empty_batch,
        float32_error,
        bfloat16_error,
    )
}
