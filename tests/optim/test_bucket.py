"""A bucket holds parameters that are alike, and no more of them than a cache takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gradlab.optim._bucket import buckets, scale_

KIB = 1024 // 4  # in float32


def parameter(numel: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    p = torch.zeros(numel, dtype=dtype).requires_grad_()
    p.grad = torch.ones_like(p)
    return p


def split(params: list[Tensor], store: dict[Tensor, Any]) -> list[list[int]]:
    position = {id(p): i for i, p in enumerate(params)}
    found = buckets(params, store, maximize=False)
    return [[position[id(p)] for p in bucket.params] for bucket in found]


def test_small_ones_share_and_a_large_one_is_alone() -> None:
    sizes = 1, 1500 * KIB, 400 * KIB, 300 * KIB, 10_000 * KIB, 5, 0
    expected = [[0, 1, 2], [3], [4], [5, 6]]
    assert split([parameter(n) for n in sizes], {}) == expected


def test_dtypes_do_not_mix() -> None:
    dtypes = torch.float32, torch.float64, torch.bfloat16, torch.float32
    params = [parameter(dtype=dtype) for dtype in dtypes]
    assert split(params, {}) == [[0, 3], [1], [2]]


def test_new_ones_do_not_mix_with_old_ones() -> None:
    params = [parameter(), parameter(), parameter()]
    store = {params[1]: {"momentum_buffer": torch.zeros(1)}, params[2]: {}}
    assert split(params, store) == [[0, 2], [1]]


def test_without_gradient_left_out() -> None:
    params = [parameter(), parameter()]
    params[0].grad = None
    assert split(params, {}) == [[1]]
    params[1].grad = None
    assert split(params, {}) == []


def test_state_is_made_once_and_kept() -> None:
    p = parameter(3)
    store: dict[Tensor, Any] = {p: {}}
    (bucket,) = buckets([p], store, maximize=False)
    (made,) = bucket.state("b")
    made += 1
    assert store[p]["b"] is made
    assert bucket.state("b")[0] is made
    assert bucket.count() == [1.0]
    assert bucket.count() == [2.0]
    assert store[p]["step"].shape == ()


def test_complex_ones_come_as_real_views() -> None:
    p = torch.zeros(2, dtype=torch.complex64).requires_grad_()
    p.grad = torch.tensor([1 + 2j, 3 - 4j]).conj()
    store: dict[Tensor, Any] = {p: {}}
    (bucket,) = buckets([p], store, maximize=True)
    assert bucket.grads[0].tolist() == [[-1.0, 2.0], [-3.0, -4.0]]
    with torch.no_grad():
        bucket.params[0].fill_(1)
        bucket.state("b")[0].fill_(2)
    assert p.tolist() == [1 + 1j, 1 + 1j]
    assert store[p]["b"].tolist() == [2 + 2j, 2 + 2j]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_factor_is_not_rounded(dtype: torch.dtype) -> None:
    x = torch.randn(1000, dtype=dtype)
    y = x.clone()
    scale_([y], 0.99)
    assert torch.equal(y, x * 0.99)
