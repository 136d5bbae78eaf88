"""Each seeded bug shows under the trigger it was written for, its healthy twin not.

`TRIGGERS` is the table: the name of a bug, and what to do to a function to see it. The
bugs of isolation run in a process of their own.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from experiments.bench.seeded_bugs import (
    BUGS,
    SeededBug,
    _inputs,
    _layouts,
    _shapes,
    _state,
    _transforms,
)
from experiments.bench.seeded_bugs._healthy_layers import RmsNorm
from gradlab._opinfo import make_tensors

Fn = Callable[..., Any]
Trigger = Callable[[SeededBug, Fn], None]

MODULES = (_inputs, _layouts, _shapes, _state, _transforms)
CONTRACT_BUGS = tuple(bug for module in MODULES for bug in module.bugs)
HIDDEN = ("input", "layout", "shape", "memory", "subset", "transform", "second_order")


class _Context:
    """What an old-style forward may say to its ctx, none of it heard."""

    def __init__(self, needs: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...

    def set_materialize_grads(self, value: bool) -> None: ...


def reference(bug: SeededBug) -> Fn:
    """The healthy forward alone, which autograd differentiates."""
    if bug.name == "rms_norm_saves_reused_workspace":
        return RmsNorm.forward
    if bug.name == "center_reads_training_flag_in_backward":
        return lambda x: x - x.mean(0)
    cls = bug.healthy.__self__  # type: ignore
    if cls.setup_context is not torch.autograd.Function.setup_context:
        return cls.forward
    return lambda *inputs: cls.forward(
        _Context(tuple(isinstance(x, Tensor) and x.requires_grad for x in inputs)),
        *inputs,
    )


def fresh(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Leaves of the same numbers, layouts and needs."""
    return tuple(
        x.detach().clone().requires_grad_(x.requires_grad)
        if isinstance(x, Tensor)
        else x
        for x in inputs
    )


def given(bug: SeededBug, dtype: torch.dtype = torch.float64) -> tuple[Any, ...]:
    drawn = bug.inputs(make_tensors(torch.float64))
    return tuple(
        x.detach().to(dtype).requires_grad_(x.requires_grad)
        if isinstance(x, Tensor) and x.is_floating_point()
        else x
        for x in drawn
    )


def outputs_of(y: Any) -> tuple[Tensor, ...]:
    return y if isinstance(y, tuple) else (y,)


def leaves(inputs: tuple[Any, ...]) -> list[Tensor]:
    return [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]


def normal(y: Tensor) -> Tensor:
    draw = torch.randn(
        y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7)
    )
    return draw.to(y.dtype)


def gradients(
    fn: Fn, inputs: tuple[Any, ...], layout: Callable[[Tensor], Tensor] = normal
) -> list[Tensor]:
    """The gradients of every leaf, by `autograd.grad`."""
    ys = outputs_of(fn(*inputs))
    return list(torch.autograd.grad(ys, leaves(inputs), [layout(y) for y in ys]))


def close(got: Any, want: Any) -> None:
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


# ----------------------------------------------------------------------- the triggers


def at(*inputs: Any) -> Trigger:
    """The gradients at these inputs are those of autograd."""

    def trigger(bug: SeededBug, fn: Fn) -> None:
        want = gradients(reference(bug), fresh(inputs))
        close(gradients(fn, fresh(inputs)), want)

    return trigger


def under(layout: Callable[[Tensor], Tensor]) -> Trigger:
    """The gradients for this layout of grad_output are those of autograd."""

    def trigger(bug: SeededBug, fn: Fn) -> None:
        inputs = given(bug)
        want = gradients(reference(bug), fresh(inputs), layout)
        close(gradients(fn, fresh(inputs), layout), want)

    return trigger


def transposed(y: Tensor) -> Tensor:
    return normal(y).transpose(0, -1).contiguous().transpose(0, -1)


def expanded(y: Tensor) -> Tensor:
    return normal(y)[0].expand(y.shape)


def offset(y: Tensor) -> Tensor:
    return torch.cat([normal(y)[:1], normal(y)])[1:]


def channels_last(y: Tensor) -> Tensor:
    return normal(y).contiguous(memory_format=torch.channels_last)


def keeps_grad_output(bug: SeededBug, fn: Fn) -> None:
    inputs = given(bug)
    y = fn(*inputs)
    grad_y = normal(y)
    torch.autograd.grad(y, leaves(inputs), grad_y)
    close(grad_y, normal(y))


def keeps_inputs(bug: SeededBug, fn: Fn) -> None:
    inputs = given(bug)
    gradients(fn, inputs)
    for x, before in zip(leaves(inputs), leaves(given(bug)), strict=True):
        close(x, before)


def twice_backward(bug: SeededBug, fn: Fn) -> None:
    inputs = given(bug)
    y = fn(*inputs)
    run = [
        [
            grad.clone()
            for grad in torch.autograd.grad(
                y, leaves(inputs), 2 * normal(y), retain_graph=True
            )
        ]
        for _ in range(2)
    ]
    close(run[0], run[1])


def twice_forward(bug: SeededBug, fn: Fn) -> None:
    first, second = given(bug), given(bug)
    with torch.no_grad():
        second[0].mul_(1 + torch.arange(second[0].shape[-1]))
    want = gradients(reference(bug), fresh(first))
    y = fn(*first)
    fn(*second)
    close(list(torch.autograd.grad(y, leaves(first), normal(y))), want)


def keeps_gradient(bug: SeededBug, fn: Fn) -> None:
    grad = gradients(fn, given(bug))[0]
    before = grad.clone()
    y = fn(*(inputs := given(bug)))
    torch.autograd.grad(y, leaves(inputs), 2 * normal(y))
    close(grad, before)


def accumulates_once(bug: SeededBug, fn: Fn) -> None:
    inputs = given(bug)
    y = fn(*inputs)
    y.backward(normal(y))
    want = gradients(reference(bug), given(bug))
    close([x.grad for x in leaves(inputs)], want)


def same_twice(bug: SeededBug, fn: Fn) -> None:
    x = given(bug)[0]
    (got,) = torch.autograd.grad(fn(x, x), x, normal(x))
    (want,) = torch.autograd.grad(reference(bug)(x, x), x, normal(x))
    close(got, want)


def evaluates_between(bug: SeededBug, fn: Any) -> None:
    fn = copy.deepcopy(fn).train()
    want = gradients(reference(bug), given(bug))
    x = given(bug)[0]
    y = fn(x)
    fn.eval()
    close(list(torch.autograd.grad(y, x, normal(y))), want)


def frees(bug: SeededBug, fn: Fn) -> None:
    """Without the collector, input and node are gone after the backward."""
    inputs = tuple(
        x.clone() if isinstance(x, Tensor) and x.is_floating_point() else x
        for x in given(bug)
    )
    gc.collect()
    gc.disable()
    try:
        y = fn(*inputs)
        node, x = weakref.ref(y.grad_fn), weakref.ref(inputs[0])
        y.backward(normal(y))
        del inputs
        assert x() is None
        del y
        assert node() is None
    finally:
        gc.enable()
        gc.collect()


def frees_saved(bug: SeededBug, fn: Fn) -> None:
    """After the backward, the input goes though the output stays."""
    x = given(bug)[0].clone()
    y = fn(x)
    y.backward(normal(y))
    address = weakref.ref(x)
    node = y.grad_fn
    del x
    assert address() is None
    assert node is not None
    assert not any(isinstance(value, Tensor) for value in vars(node).values())


def alive() -> int:
    gc.collect()
    return sum(type(thing) is Tensor for thing in gc.get_objects())


def stays_small(bug: SeededBug, fn: Fn) -> None:
    gradients(fn, given(bug))
    before = alive()
    for _ in range(5):
        gradients(fn, given(bug))
    assert alive() < before + 5


def six_times(bug: SeededBug, fn: Fn) -> None:
    want = gradients(reference(bug), given(bug))
    for _ in range(6):
        close(gradients(fn, given(bug)), want)


def initialises(bug: SeededBug, fn: Fn) -> None:
    """With this flag, torch fills what `empty` returns with NaN."""
    want = gradients(reference(bug), given(bug))
    torch.use_deterministic_algorithms(True)
    try:
        close(gradients(fn, given(bug)), want)
    finally:
        torch.use_deterministic_algorithms(False)


def true_second_order(bug: SeededBug, fn: Fn) -> None:
    found = []
    for f in (fn, reference(bug)):
        inputs = given(bug)
        y = f(*inputs)
        firsts = torch.autograd.grad(
            y, leaves(inputs), normal(y).requires_grad_(), create_graph=True
        )
        total = torch.stack([(g * normal(g)).sum() for g in firsts]).sum()
        found.append(
            torch.autograd.grad(
                total, leaves(inputs), allow_unused=True, materialize_grads=True
            )
        )
    close(found[0], found[1])


def true_tangent(bug: SeededBug, fn: Fn) -> None:
    inputs = tuple(x.detach() for x in given(bug))
    tangents = tuple(normal(x) for x in inputs)
    got = torch.func.jvp(fn, inputs, tangents)
    want = torch.func.jvp(reference(bug), inputs, tangents)
    close(got, want)


def vmapped(in_dims: tuple[int, ...]) -> Trigger:
    def trigger(bug: SeededBug, fn: Fn) -> None:
        inputs = tuple(
            torch.stack([x.detach() * s for s in (1, 2, 3)], d)
            for x, d in zip(given(bug), in_dims, strict=True)
        )
        got = torch.vmap(fn, in_dims)(*inputs)
        close(got, torch.vmap(reference(bug), in_dims)(*inputs))

    return trigger


def per_sample(bug: SeededBug, fn: Fn) -> None:
    x = given(bug)[0].detach()

    def grad(f: Fn) -> Tensor:
        return torch.vmap(torch.func.grad(lambda row: f(row).square().sum()))(x)

    close(grad(fn), grad(reference(bug)))


def compiled(bug: SeededBug, fn: Fn) -> None:
    torch.compiler.reset()
    compiled_fn = torch.compile(lambda x: fn(x), backend="aot_eager")
    got = gradients(compiled_fn, given(bug))
    close(got, gradients(reference(bug), given(bug)))


def frozen(*which: int) -> Trigger:
    """With these inputs frozen, the others get their gradients, and only those."""

    def trigger(bug: SeededBug, fn: Fn) -> None:
        def inputs() -> tuple[Any, ...]:
            return tuple(
                x.detach() if i in which else x for i, x in enumerate(given(bug))
            )

        want = gradients(reference(bug), inputs())
        close(gradients(fn, inputs()), want)

    return trigger


@contextlib.contextmanager
def raw_returns(y: Tensor) -> Any:
    """Collects what the backward of `y` returns, before the engine corrects it."""
    cls = y.grad_fn._forward_cls  # type: ignore
    inherited, seen = cls.backward, []

    def spy(ctx: Any, *grads: Any) -> Any:
        returned = inherited(ctx, *grads)
        seen.append(returned if isinstance(returned, tuple) else (returned,))
        return returned

    own = "backward" in vars(cls)
    before = vars(cls).get("backward")
    cls.backward = staticmethod(spy)
    try:
        yield seen
    finally:
        if own:
            cls.backward = before
        else:
            del cls.backward


def wastes_nothing(bug: SeededBug, fn: Fn) -> None:
    x, weight, bias = given(bug)
    y = fn(x.detach(), weight, bias.detach())
    with raw_returns(y) as seen:
        torch.autograd.grad(y, weight, normal(y))
    assert [grad is None for grad in seen[0]] == [True, False, True]


def raw_as_inputs(dtype: torch.dtype = torch.float64) -> Trigger:
    def trigger(bug: SeededBug, fn: Fn) -> None:
        inputs = given(bug, dtype)
        y = fn(*inputs)
        with raw_returns(y) as seen:
            torch.autograd.grad(y, leaves(inputs), normal(y))
        for grad, x in zip(seen[0], inputs, strict=True):
            if not x.requires_grad:
                assert grad is None
            else:
                assert (grad.shape, grad.dtype) == (x.shape, x.dtype)

    return trigger


def one_output(bug: SeededBug, fn: Fn) -> None:
    for which in (0, 1):
        x = given(bug)[0]
        y = fn(x)[which]
        (got,) = torch.autograd.grad(y, x, normal(y), allow_unused=True)
        z = reference(bug)(x)[which]
        close(got, torch.autograd.grad(z, x, normal(z))[0])


def error(fn: Fn, bug: SeededBug, inputs: tuple[Any, ...], exact: list[Tensor]) -> Any:
    got = gradients(fn, inputs)
    return [
        float((g.double() - e).abs().max() / e.abs().max())
        for g, e in zip(got, exact, strict=True)
    ]


def precise(dtype: torch.dtype, *other: Any) -> Trigger:
    """Errors of at most four times those of autograd in this dtype."""

    def trigger(bug: SeededBug, fn: Fn) -> None:
        inputs = tuple(
            x.detach().to(dtype).requires_grad_(x.requires_grad)
            if isinstance(x, Tensor) and x.is_floating_point()
            else x
            for x in (other or given(bug))
        )
        double = tuple(
            x.detach().double().requires_grad_()
            if isinstance(x, Tensor) and x.is_floating_point()
            else x
            for x in inputs
        )
        y = reference(bug)(*inputs)
        grad_y = normal(y).double()
        exact = gradients(reference(bug), double, lambda _: grad_y)
        limit = error(reference(bug), bug, fresh(inputs), exact)
        found = error(fn, bug, fresh(inputs), exact)
        tiny = torch.finfo(dtype).eps
        for got, want in zip(found, limit, strict=True):
            assert got <= 4 * want + tiny

    return trigger


def autocast_around(backward: bool) -> Trigger:
    """The gradients under autocast are autograd's, up to half precision."""

    def trigger(bug: SeededBug, fn: Fn) -> None:
        found = []
        for f in (fn, reference(bug)):
            inputs = given(bug, torch.float32)
            with torch.autocast("cpu", torch.bfloat16):
                y = f(*inputs)
                if backward:
                    found.append(torch.autograd.grad(y, leaves(inputs), normal(y)))
            if not backward:
                found.append(torch.autograd.grad(y, leaves(inputs), normal(y)))
        for got, want in zip(*found, strict=True):
            torch.testing.assert_close(got, want, rtol=0.02, atol=0.02)

    return trigger


def float32_under_autocast(bug: SeededBug, fn: Fn) -> None:
    inputs = given(bug, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = fn(*inputs)
        got = torch.autograd.grad(y, leaves(inputs), normal(y))
    want = gradients(reference(bug), given(bug, torch.float32))
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-5, atol=1e-5)


def runs(dtype: torch.dtype) -> Trigger:
    def trigger(bug: SeededBug, fn: Fn) -> None:
        gradients(fn, given(bug, dtype))

    return trigger


def make(*shape: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    draw = torch.randn(shape, dtype=torch.float64, generator=generator)
    return (draw * scale).requires_grad_()


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64, requires_grad=True)


def leaf(x: Tensor) -> Tensor:
    """A leaf of the very layout of `x`."""
    return x.detach().requires_grad_()


def ints(*numbers: Any) -> Tensor:
    return torch.tensor(numbers)


_POSITIVE = leaf(make(3, 4).abs() + 0.1)

TRIGGERS: dict[str, Trigger] = {
    # layouts
    "relu_walks_memory_of_grad_output": under(transposed),
    "linear_views_grad_output": under(transposed),
    "gelu_views_grad_output_as_vector": under(transposed),
    "sigmoid_forgets_storage_offset_of_grad_output": under(offset),
    "softplus_ravels_grad_output_in_memory_order": under(transposed),
    "log_softmax_copies_strides_of_expanded_grad_output": under(expanded),
    "rms_norm_walks_memory_of_input": at(leaf(make(4, 3).t()), make(4)),
    "swish_zips_memory_of_input_and_grad_output": under(transposed),
    "linear_walks_memory_of_transposed_weight": at(
        make(3, 4), leaf(make(4, 6).t()), make(6)
    ),
    "embedding_views_indices": at(make(7, 4), ints([5, 1], [2, 6], [0, 3]).t()),
    "avg_pool2d_misreads_channels_last_grad_output": under(channels_last),
    "matmul_takes_strided_grad_output_for_transposed": under(transposed),
    "exp_takes_partly_expanded_grad_output_for_scalar": under(expanded),
    "channel_bias_steps_by_plane": under(channels_last),
    # state
    "relu_masks_grad_output_in_place": keeps_grad_output,
    "sigmoid_multiplies_contiguous_grad_output_in_place": keeps_grad_output,
    "softmax_shifts_input_in_place": keeps_inputs,
    "rms_norm_normalises_saved_input_in_place": keeps_inputs,
    "cross_entropy_scales_saved_gradient_in_place": twice_backward,
    "tanh_keeps_output_on_class": twice_forward,
    "tanh_pops_outputs_from_stack_of_class": twice_forward,
    "swish_returns_workspace_as_gradient": keeps_gradient,
    "rms_norm_saves_reused_workspace": twice_forward,
    "leaky_relu_deletes_slope_from_ctx": twice_backward,
    "linear_adds_to_weight_grad_itself": accumulates_once,
    "divide_keys_gradients_by_address": same_twice,
    "center_reads_training_flag_in_backward": evaluates_between,
    "gelu_keeps_input_on_ctx": frees_saved,
    "sigmoid_keeps_output_on_ctx": frees,
    "log_softmax_cache_grows": stays_small,
    "matmul_remembers_every_grad_output": stays_small,
    "dropout_redraws_mask_in_backward": six_times,
    "gelu_noisy_one_call_of_three": six_times,
    "embedding_leaves_rows_uninitialised": initialises,
    "multiply_adds_up_trials_of_tuner": six_times,
    "softplus_alternates_between_kernels": six_times,
    # inputs
    "norm_divides_by_zero_for_zero_row": at(zeros(3, 4)),
    "std_divides_by_zero_for_constant_row": at(leaf(zeros(3, 4) + 2)),
    "power_nan_for_exponent_at_zero": at(zeros(3, 4), _POSITIVE),
    "atan2_nan_at_origin": at(zeros(3, 4), zeros(3, 4)),
    "prod_divides_by_zero_factor": at(leaf(make(3, 4) * ints(1, 0, 1, 1))),
    "safe_log_forgets_clamp": at(leaf(make(3, 4) - 1)),
    "amax_gives_whole_gradient_to_each_tie": at(zeros(3, 4)),
    "maximum_counts_tie_twice": at(zeros(3, 4), zeros(3, 4)),
    "max_pool1d_gives_whole_gradient_to_each_tie": at(zeros(3, 6)),
    "embedding_overwrites_repeated_index": at(make(7, 4), ints(5, 2, 5)),
    "gather_overwrites_repeated_index": at(make(2, 4), ints([2, 2], [1, 3])),
    "padded_embedding_trains_padding": at(make(7, 4), ints(5, 0, 1)),
    "cross_entropy_mean_counts_ignored_targets": at(make(4, 6), ints(2, -100, 5, 3)),
    "cross_entropy_trains_ignored_targets": at(make(4, 6), ints(2, -100, 5, 3)),
    "softplus_overflows_at_large_x": at(make(3, 4, scale=1e3)),
    "logsumexp_overflows_at_large_x": at(make(3, 4, scale=1e3)),
    "binary_cross_entropy_nan_when_saturated": at(make(4, scale=1e3), ints(0, 1, 1, 0)),
    "hardtanh_forgets_lower_limit": at(make(3, 4, scale=5)),
    "relu6_forgets_six": at(make(3, 4, scale=20)),
    "elu_series_bad_for_very_negative_x": at(make(3, 4, scale=5)),
    "gelu_cuts_slope_beyond_three": at(make(3, 4, scale=3)),
    "smooth_l1_linear_part_loses_sign": at(make(3, 4), make(3, 4, scale=-5)),
    "layer_norm_applies_weight_twice": at(make(3, 4), make(4), zeros(4)),
    "rms_norm_forgets_weight": at(make(3, 4), make(4)),
    "rms_norm_forgets_eps": at(make(3, 4, scale=1e-5), make(4)),
    "layer_norm_recovers_normal_without_bias": at(make(3, 4), make(4), make(4)),
    "shift_scale_forgets_shift": at(make(3, 4), make(4), make(4)),
    "gated_cell_forgets_previous_state": at(make(3, 4), make(3, 4), _POSITIVE),
    "segment_sum_assumes_sorted_segments": at(make(4, 3), ints(2, 0, 1, 0)),
    "masked_mean_forgets_mask": at(make(2, 2), ints([1, 0], [1, 1]).bool()),
    # shapes
    "relu_skips_last_incomplete_block": at(make(3, 5)),
    "layer_norm_weight_skips_odd_last_row": at(make(5, 6), make(6), make(6)),
    "swish_masks_row_beyond_tile": at(make(3, 13)),
    "softmax_sums_along_dim_one": at(make(2, 3, 4)),
    "log_softmax_unpacks_two_dims": at(make(2, 3, 4)),
    "linear_transposes_matrices_only": at(make(2, 3, 4), make(6, 4), make(6)),
    "linear_squeezes_batch_of_one": at(make(1, 4), make(6, 4), make(6)),
    "linear_bias_nan_for_empty_batch": at(make(0, 4), make(6, 4), make(6)),
    "tanh_stacks_rows_of_empty_batch": at(make(0, 4)),
    "exp_takes_maximum_of_empty_grad_output": at(make(0, 4)),
    "spatial_mean_divides_by_height_squared": at(make(2, 3, 4, 5)),
    "avg_pool2d_interpolates_odd_size": at(make(2, 3, 5, 4)),
    "avg_pool2d_too_small_for_odd_size": at(make(2, 3, 5, 4)),
    "conv1d_forgets_groups": at(make(2, 4, 6), make(6, 2, 3)),
    "merge_heads_reshapes_without_transposing": at(make(2, 2, 3, 4)),
    "linear_takes_square_weight_for_transposed": at(make(3, 4), make(4, 4), make(4)),
    "mse_divides_by_length": at(make(3, 4), make(3, 4).detach() + 1),
    "cross_entropy_divides_by_batch_only": at(make(2, 6, 2), ints([2, 0], [5, 3])),
    # transforms
    "tanh_saves_slope_of_forward": true_second_order,
    "softmax_detaches_saved_output": true_second_order,
    "swish_uses_data_of_saved_input": true_second_order,
    "layer_norm_saves_statistics_of_forward": true_second_order,
    "gelu_computes_slope_under_no_grad": true_second_order,
    "scale_becomes_python_number": true_second_order,
    "swish_jvp_misses_term": true_tangent,
    "multiply_jvp_uses_one_tangent": true_tangent,
    "softmax_vmap_rule_ignores_in_dims": vmapped((1,)),
    "matmul_vmap_rule_uses_first_weight": vmapped((0, 1)),
    "relu_takes_item_under_generated_vmap_rule": per_sample,
    "gelu_approximates_while_compiling": compiled,
    "linear_ignores_needs_input_grad": wastes_nothing,
    "linear_asks_for_weight_with_index_of_bias": frozen(2),
    "layer_norm_zero_weight_gradient_when_bias_frozen": frozen(2),
    "rms_norm_casts_none_when_weight_frozen": frozen(1),
    "matmul_saves_operand_by_its_own_need": frozen(0),
    "split_concatenates_none_of_unused_half": one_output,
    "sin_cos_gives_up_when_one_is_unused": one_output,
    "linear_mixes_dtypes_under_autocast": autocast_around(backward=False),
    "matmul_forgets_custom_bwd": float32_under_autocast,
    "softmax_backward_casts_to_autocast_dtype": float32_under_autocast,
    "linear_bias_adds_up_in_bfloat16": precise(torch.bfloat16),
    "tanh_backward_in_float32": precise(torch.float64),
    "matmul_backward_rounds_float32_to_bfloat16": precise(torch.float32),
    "embedding_hard_codes_float64": runs(torch.float32),
    "rms_norm_squares_overflow_float16": precise(
        torch.float16, make(3, 4, scale=500), make(4)
    ),
    "softplus_overflows_float16": precise(torch.float16, make(3, 4, scale=30)),
    "linear_returns_unsummed_bias_gradient": raw_as_inputs(),
    "multiply_returns_unsummed_broadcast_gradient": raw_as_inputs(),
    "layer_norm_sums_bias_over_first_dim_only": raw_as_inputs(),
    "sigmoid_returns_float32_for_bfloat16": raw_as_inputs(torch.bfloat16),
    "log_softmax_returns_one_gradient_too_many": raw_as_inputs(),
    "cross_entropy_returns_one_gradient_too_few": raw_as_inputs(),
    "embedding_returns_gradient_of_indices": raw_as_inputs(),
}


FAILURES = (AssertionError, RuntimeError, AttributeError, ValueError, TypeError)
SHOWN = [bug for bug in CONTRACT_BUGS if bug.kind != "isolation"]


def named(bugs: list[SeededBug]) -> Any:
    return pytest.mark.parametrize("bug", bugs, ids=[bug.name for bug in bugs])


@named(SHOWN)
def test_healthy_survives_the_trigger(bug: SeededBug) -> None:
    TRIGGERS[bug.name](bug, bug.healthy)


@named(SHOWN)
def test_trigger_shows_the_bug(bug: SeededBug) -> None:
    with pytest.raises(FAILURES):
        TRIGGERS[bug.name](bug, bug.wrong)


@named([bug for bug in SHOWN if bug.kind in HIDDEN])
def test_bug_is_hidden_at_the_given_inputs(bug: SeededBug) -> None:
    want = gradients(reference(bug), given(bug))
    close(gradients(bug.wrong, given(bug)), want)


@named(list(CONTRACT_BUGS))
def test_healthy_is_right_at_the_given_inputs(bug: SeededBug) -> None:
    want = gradients(reference(bug), given(bug))
    close(gradients(bug.healthy, given(bug)), want)
    assert torch.autograd.gradcheck(bug.healthy, given(bug))


def test_all_are_in_the_suite() -> None:
    assert set(CONTRACT_BUGS) <= set(BUGS)
    assert set(TRIGGERS) == {bug.name for bug in SHOWN}


RUN = """
import resource, sys, torch
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
torch.set_num_threads(1)
from experiments.bench.seeded_bugs import BUGS
from gradlab._opinfo import make_tensors
bug = next(bug for bug in BUGS if bug.name == sys.argv[1])
x = bug.inputs(make_tensors(torch.float64))[0]
y = getattr(bug, sys.argv[2])(x)
(grad,) = torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)
if "second" in bug.name:
    torch.autograd.grad(grad.sum(), x)
print("survived")
"""


def survives(name: str, which: str, timeout: float) -> bool:
    command = [sys.executable, "-c", RUN, name, which]
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return run.stdout == "survived\n"


@named([bug for bug in CONTRACT_BUGS if bug.kind == "isolation"])
def test_only_healthy_comes_back(bug: SeededBug) -> None:
    assert survives(bug.name, "healthy", 60)
    assert not survives(bug.name, "wrong", 6)
