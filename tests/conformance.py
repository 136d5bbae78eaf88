"""The conformance matrix: every op, every sample, every cell; nothing written per op.

A cell states one claim about an op at one sample and raises an exception where it does
not hold. `CELLS` is the matrix's header; `make conformance` prints the table.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import io
import itertools
import pickle
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gradlab import ModuleInput, OpInfo, SampleInput, layers
from gradlab._opinfo import make_tensors

Cell = Callable[[OpInfo, SampleInput], None]
Grads = tuple[Tensor | None, ...]


# What the cells are made of.


def samples(opinfo: OpInfo, dtype: torch.dtype = torch.float64) -> list[SampleInput]:
    return list(opinfo.sample_inputs(make_tensors(dtype)))


def cast(sample: SampleInput, dtype: torch.dtype) -> SampleInput:
    """The same sample with its floating point tensors in another dtype, new leaves."""

    def convert(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            leaf = value.detach().to(dtype).clone(memory_format=torch.preserve_format)
            return leaf.requires_grad_(value.requires_grad)
        return value

    args = [convert(value) for value in sample.args]
    kwargs = {key: convert(value) for key, value in sample.kwargs.items()}
    return SampleInput(sample.name, *args, **kwargs)


def cotangents(outputs: Sequence[Tensor], seed: int = 1) -> list[Tensor]:
    """Fixed numbers of both signs; no random draw, which `vmap` would refuse."""
    return [
        torch.arange(y.numel(), dtype=torch.float64)
        .add(seed)
        .mul(seed + 1.7)
        .sin()
        .reshape(y.shape)
        .to(y.dtype)
        for y in outputs
    ]


def scalar(bound: Callable[..., tuple[Tensor, ...]]) -> Callable[..., Tensor]:
    """Σ ⟨y, v⟩ with fixed cotangents v: one number whose gradient is the VJP at v."""

    def loss(*tensors: Tensor) -> Tensor:
        outputs = bound(*tensors)
        pairs = zip(outputs, cotangents(outputs), strict=True)
        return torch.stack([(y * v).sum() for y, v in pairs]).sum()

    return loss


def evaluate(
    op: Callable[..., Any], sample: SampleInput, **options: Any
) -> tuple[tuple[Tensor, ...], Grads]:
    """Outputs, and gradients for fixed random cotangents."""
    outputs = sample.bind(op)(*sample.tensors)
    grads = torch.autograd.grad(
        outputs, sample.tensors, cotangents(outputs), allow_unused=True, **options
    )
    return outputs, grads


def assert_close(actual: Any, expected: Any, what: str) -> None:
    """Equal to 2⁸ units of rounding of the tensor's own largest entry (or of 1)."""
    if isinstance(expected, (tuple, list)):
        assert len(actual) == len(expected), f"{what}: {len(actual)} tensors"
        for i, pair in enumerate(zip(actual, expected, strict=True)):
            assert_close(*pair, f"{what} {i}")
    elif expected is None or actual is None:
        rest = expected if actual is None else actual
        assert rest is None or not rest.any(), f"{what}: None against a gradient"
    else:
        assert actual.shape == expected.shape, f"{what}: {actual.shape}"
        assert actual.dtype == expected.dtype, f"{what}: {actual.dtype}"
        if not expected.dtype.is_floating_point:
            assert torch.equal(actual, expected), what
            return
        scale = max(1.0, largest(expected))
        atol = 2**8 * torch.finfo(expected.dtype).eps * scale
        torch.testing.assert_close(
            actual, expected, rtol=0, atol=atol, msg=lambda text: f"{what}: {text}"
        )


def largest(x: Tensor) -> float:
    return x.detach().abs().max().item() if x.numel() else 0.0


DRAWS = 16


def accuracy(
    opinfo: OpInfo,
    sample: SampleInput,
    dtype: torch.dtype,
    run: Callable[[Callable[..., Any], SampleInput], list[Any]],
    torch_run: Callable[[Callable[..., Any], SampleInput], list[Any]] | None = None,
) -> None:
    """Error at most twice torch's own, against a float64 oracle on the same numbers.

    The error of a tensor is its worst entry's, root mean square over several draws of
    the sample, since one draw of five numbers is a lottery. A result that is the
    oracle's, correctly rounded, is always accurate enough.
    """
    squares: dict[int, list[Tensor]] = {}
    for seed in range(DRAWS):
        draw = {s.name: s for s in opinfo.sample_inputs(make_tensors(dtype, seed=seed))}
        low = draw[sample.name]
        exact = run(opinfo.reference, cast(low, torch.float64))
        torchs = (torch_run or run)(opinfo.torch_op, low)
        ours = run(opinfo.op, low)
        for i, (a, b, e) in enumerate(zip(ours, torchs, exact, strict=True)):
            if a is None or b is None or e is None:
                assert not any(x is not None and x.any() for x in (a, b, e))
                continue
            assert a.dtype == b.dtype, f"{i}: {a.dtype}, torch has {b.dtype}"
            rounding = torch.finfo(b.dtype).eps / 2 * largest(e)
            errors = largest(a.double() - e), largest(b.double() - e), rounding
            squares.setdefault(i, []).append(torch.tensor(errors).square())
    for i, rows in squares.items():
        ours_, torchs_, rounding_ = torch.stack(rows).mean(0).sqrt().tolist()
        assert ours_ <= max(2 * torchs_, rounding_), (
            f"output, then gradient {i}: error {ours_:.3g}, torch's {torchs_:.3g}, "
            f"one rounding {rounding_:.3g}"
        )


def both(op: Callable[..., Any], sample: SampleInput, **options: Any) -> list[Any]:
    outputs, grads = evaluate(op, sample, **options)
    return [*outputs, *grads]


# The cells.


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
        assert_close(evaluate(opinfo.op, sample), before, "packed")
    assert packed or not any(g is not None and g.any() for g in before[1])
    with torch.autograd.graph.save_on_cpu():
        assert_close(evaluate(opinfo.op, sample), before, "on the CPU")


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


# The same for Modules: they stand in for torch.nn's.


def _twins(given: ModuleInput) -> tuple[torch.nn.Module, torch.nn.Module]:
    modules = []
    for cls in (given.cls, given.torch_cls):
        torch.manual_seed(0)
        modules.append(given.build(cls).double())
    return modules[0], modules[1]


def _run(module: torch.nn.Module, inputs: Sequence[Any]) -> list[Tensor]:
    """Outputs and gradients, with respect to inputs and parameters."""
    output = module(*inputs)
    outputs = list(output) if isinstance(output, tuple) else [output]
    real = [y for y in outputs if y.is_floating_point()]
    leaves = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
    leaves += list(module.parameters())
    return [*outputs, *torch.autograd.grad(real, leaves, cotangents(real))]


def drop_in_module(given: ModuleInput) -> None:
    ours, torchs = _twins(given)
    assert isinstance(ours, given.torch_cls)
    assert str(ours) == str(torchs)
    assert list(ours.state_dict()) == list(torchs.state_dict())
    for a, b in zip(ours.parameters(), torchs.parameters(), strict=True):
        assert torch.equal(a, b), "initialisation differs"
    expected = _run(torchs, given.inputs)
    assert_close(_run(ours, given.inputs), expected, "output, gradient")
    with torch.no_grad():
        for parameter in torchs.parameters():
            parameter.add_(0.5)
    ours.load_state_dict(torchs.state_dict())
    expected = _run(torchs, given.inputs)
    assert_close(_run(ours, given.inputs), expected, "after load_state_dict")
    torchs.load_state_dict(ours.state_dict())


def deepcopy_and_pickle(given: ModuleInput) -> None:
    ours, _ = _twins(given)
    expected = _run(ours, given.inputs)
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    clones = (
        copy.deepcopy(ours),
        pickle.loads(pickle.dumps(ours)),
        torch.load(file, weights_only=False),
    )
    for clone in clones:
        assert type(clone) is given.cls
        assert_close(_run(clone, given.inputs), expected, "clone")


MODULE_CELLS: dict[str, Callable[[ModuleInput], None]] = {
    cell.__name__: cell for cell in (drop_in_module, deepcopy_and_pickle)
}


def matrix(opinfos: Sequence[OpInfo]) -> list[tuple[OpInfo, SampleInput, str]]:
    """Every op at every sample in every cell that speaks about it."""
    return [
        (opinfo, sample, name)
        for opinfo in opinfos
        for sample in samples(opinfo)
        for name in CELLS
        if name != "empty_batch" or not sample.args[0].numel()
    ]


def failure(
    opinfo: OpInfo, sample: SampleInput | ModuleInput, cell: str
) -> Exception | None:
    """What the cell raises, or None where the claim holds."""
    try:
        if isinstance(sample, ModuleInput):
            MODULE_CELLS[cell](sample)
        else:
            CELLS[cell](opinfo, sample)
    except Exception as exception:
        return exception
    return None


def torch_fails_too(opinfo: OpInfo, sample: SampleInput, cell: str) -> bool:
    """Whether torch's own op fails the cell: the one excuse for a known failure."""
    torch_itself = dataclasses.replace(opinfo, op=opinfo.torch_op)
    return failure(torch_itself, sample, cell) is not None


def table(opinfos: Sequence[OpInfo]) -> tuple[Table, list[str]]:
    """The matrix, one row a cell and one column an op, and what does not hold."""
    todo: list[tuple[OpInfo, Any, str]] = [*matrix(opinfos)]
    todo += [
        (opinfo, given, cell)
        for opinfo in opinfos
        for given in opinfo.module_inputs(make_tensors(torch.float64))
        for cell in MODULE_CELLS
    ]
    held: Counter[tuple[str, str]] = Counter()
    asked: Counter[tuple[str, str]] = Counter()
    notes = []
    for opinfo, sample, cell in track(todo, "Checking", console=Console(stderr=True)):
        place = opinfo.name, cell
        asked[place] += 1
        raised = failure(opinfo, sample, cell)
        held[place] += raised is None
        if raised is not None:
            key = f"{cell}/{getattr(sample, 'name', 'module')}"
            reason = opinfo.known_failures.get(key, f"NEW: {raised}".splitlines()[0])
            if cell in CELLS and not torch_fails_too(opinfo, sample, cell):
                reason += " (torch's own op passes)"
            notes.append(f"{opinfo.name} {key}: {reason}")
    grid = Table("claim", *(opinfo.name for opinfo in opinfos))
    for cell in (*CELLS, *MODULE_CELLS):
        counts = [(held[o.name, cell], asked[o.name, cell]) for o in opinfos]
        marks = [f"{a}" if a == b else f"[bold]{a} of {b}[/bold]" for a, b in counts]
        grid.add_row(cell, *marks)
    grid.caption = f"{held.total()} of {asked.total()} hold; a number is its samples"
    return grid, notes


def main() -> None:
    """Prints the conformance matrix; exits with 1 if a cell is worse than torch's."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.set_num_threads(1)
    grid, notes = table(layers.opinfos)
    console = Console()
    console.width = max(console.width, 150)
    console.print(grid)
    for note in notes:
        print(note)
    raise SystemExit(any("passes)" in note or "NEW" in note for note in notes))


if __name__ == "__main__":
    main()
