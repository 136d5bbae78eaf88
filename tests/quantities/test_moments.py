import math
import warnings

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn

from gradlab.quantities import (
    LargestMagnitude,
    Moment,
    NonFiniteCount,
    Norm,
    ZeroCount,
)


def norms(*grads: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    return Norm()([torch.zeros_like(grad) for grad in grads], grads, dtype)


def combined(moment: Moment, parts: Tensor) -> float:
    return moment.combine(parts, torch.zeros(len(parts), dtype=torch.long), 1).item()


def test_each_gradient_has_the_norm_that_clipping_goes_by() -> None:
    grads = [torch.randn(3, 4), torch.randn(5), torch.randn(2, 2, 2)]
    expected = torch.stack([torch.nn.utils.get_total_norm([grad]) for grad in grads])
    torch.testing.assert_close(norms(*grads), expected, rtol=0, atol=0)


def test_half_precision_neither_overflows_nor_vanishes() -> None:
    large = torch.full((1000,), 30000.0, dtype=torch.float16)
    small = torch.full((1000,), 1e-4, dtype=torch.float16)
    assert large.norm().isinf()
    found = norms(large, small, large.bfloat16())
    assert found.dtype == torch.float32
    expected = [x.double().norm().float() for x in (large, small, large.bfloat16())]
    torch.testing.assert_close(found, torch.stack(expected))


def test_float64_stays_float64_beside_float32() -> None:
    precise = torch.full((2,), 1e-200, dtype=torch.float64) * 1e50
    found = norms(torch.ones(4), precise)
    assert found.tolist() == [2.0, precise.norm().item()]


def test_float64_holds_what_float32_cannot() -> None:
    tiny = torch.full((4,), 1e-30)
    assert norms(tiny).item() == 0.0
    assert norms(tiny, dtype=torch.float64).item() == pytest.approx(2e-30)


def test_complex_norm_is_that_of_the_moduli() -> None:
    grad = torch.tensor([3 + 4j, 0j])
    assert norms(grad).item() == 5.0
    assert norms(grad, dtype=torch.float64).item() == 5.0


def test_sparse_gradient_has_the_norm_of_the_dense_one() -> None:
    table = nn.Embedding(5, 3, sparse=True)
    table(torch.tensor([1, 1, 4])).square().sum().backward()
    grad = table.weight.grad
    assert grad is not None
    assert not grad.is_coalesced()
    found = norms(grad)
    torch.testing.assert_close(found[0], grad.to_dense().norm())
    assert not grad.is_coalesced()


def test_compressed_gradient_has_the_norm_of_the_dense_one() -> None:
    dense = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    with warnings.catch_warnings():
        # torch calls the layout a beta, once a process.
        warnings.simplefilter("ignore")
        grad = dense.to_sparse_csr()
    assert norms(grad).item() == dense.norm().item()


def test_empty_gradient_has_norm_zero() -> None:
    assert norms(torch.empty(0), torch.ones(1), torch.empty(3, 0)).tolist() == [0, 1, 0]
    assert norms().tolist() == []


def test_what_is_not_finite_shows() -> None:
    found = norms(torch.tensor([1.0, math.inf]), torch.tensor([math.nan, 1.0]))
    assert found[0].isinf()
    assert found[1].isnan()


def test_non_contiguous_gradient() -> None:
    grad = torch.randn(4, 6)[:, ::2].T
    torch.testing.assert_close(norms(grad)[0], grad.contiguous().norm())


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12), st.integers(0, 12))
def test_parts_combine_to_the_norm_of_the_whole(numbers: list[float], cut: int) -> None:
    whole = torch.tensor(numbers, dtype=torch.float64)
    parts = norms(whole[:cut], whole[cut:], dtype=torch.float64)
    assert combined(Norm(), parts) == pytest.approx(whole.norm().item())


def test_combination_does_not_overflow() -> None:
    parts = torch.tensor([3e200, 4e200], dtype=torch.float64)
    assert combined(Norm(), parts) == pytest.approx(5e200)
    assert combined(Norm(), parts.reciprocal()) == pytest.approx(5e-200 / 12)


@pytest.mark.parametrize("moment", [Norm(), LargestMagnitude(), ZeroCount()])
def test_a_whole_shows_what_is_not_finite(moment: Moment) -> None:
    parts = torch.tensor([1.0, math.inf, math.nan, 2.0], dtype=torch.float64)
    whole = torch.tensor([0, 0, 1, 2])
    found = moment.combine(parts, whole, 4).tolist()
    assert found[0] == math.inf
    assert math.isnan(found[1])
    assert found[2:] == [2.0, 0.0]


def test_is_a_value() -> None:
    assert len({Norm(), Norm(), Norm("value")}) == 2


def test_what_float32_cannot_hold_is_refined() -> None:
    grads = [torch.full((4,), 1e-30), torch.ones(4)]
    numbers = torch.tensor([0.0, 2.0], dtype=torch.float64)
    refined = Norm().refine(grads, grads, numbers).tolist()
    assert refined == pytest.approx([2e-30, 2.0])


def test_largest_magnitude() -> None:
    grads = [
        torch.tensor([1.0, -3.0]),
        torch.tensor([3 + 4j]),
        torch.empty(0),
        torch.tensor([1.0, math.nan]),
        torch.tensor([-math.inf], dtype=torch.bfloat16),
    ]
    found = [LargestMagnitude()([g], [g]).item() for g in grads]
    assert found[:3] == [3.0, 5.0, 0.0]
    assert math.isnan(found[3])
    assert found[4] == math.inf


def test_what_is_not_finite_is_counted_only_where_the_norm_tells() -> None:
    grads = [torch.ones(3), torch.tensor([math.nan, 1.0, math.inf])]
    numbers = NonFiniteCount()(grads, grads).double()
    assert NonFiniteCount().refine(grads, grads, numbers).tolist() == [0.0, 2.0]
    # Finite numbers whose norm overflows float32 are not counted.
    huge = [torch.full((4,), 3e38)]
    numbers = NonFiniteCount()(huge, huge).double()
    assert NonFiniteCount().refine(huge, huge, numbers).tolist() == [0.0]


def test_zeros_of_a_sparse_gradient_are_those_of_the_dense_one() -> None:
    dense = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    assert ZeroCount()([dense], [dense]).tolist() == [3.0]
    sparse = dense.to_sparse()
    assert ZeroCount()([dense], [sparse]).tolist() == [3.0]
