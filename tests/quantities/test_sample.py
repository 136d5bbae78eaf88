"""Where the entries of a sample are taken."""

import torch
from hypothesis import given, strategies as st
from torch import Tensor

from gradlab.quantities import layout
from gradlab.quantities._sample import RUN, RUNS, _step


def taken(*tensors: Tensor) -> list[Tensor]:
    """The sampled entries of each tensor, without what fills up."""
    places = layout(tensors)
    rows = places.draw(tensors)
    found = [rows[places.owners == i].flatten() for i in range(len(tensors))]
    for i, entries in enumerate(found):
        fill = int(places.padding[i])
        assert not entries[len(entries) - fill :].any()
        found[i] = entries[: len(entries) - fill]
    return found


def test_small_tensors_are_taken_whole() -> None:
    tensors = [torch.randn(3, 4), torch.randn(()), torch.empty(0), torch.randn(4096)]
    for entries, tensor in zip(taken(*tensors), tensors, strict=True):
        assert torch.equal(entries, tensor.flatten())
    assert layout(tensors).weights.tolist() == [1.0] * 4


def test_a_large_one_in_runs_of_neighbours() -> None:
    tensor = torch.arange(300 * 400.0).view(300, 400)
    small, large = taken(torch.ones(5), tensor)
    assert small.tolist() == [1.0] * 5
    runs = large.view(-1, RUN)
    assert len(runs) == RUNS
    assert (runs - runs[:, :1]).equal(torch.arange(float(RUN)).expand_as(runs))
    assert len(large.unique()) == len(large)
    # Each in another row, and all columns alike.
    assert len((runs[:, 0] // 400).unique()) == RUNS
    assert len((large % 400).unique()) == 400
    assert layout([tensor]).weights.item() == tensor.numel() / (RUN * RUNS)


def test_a_tall_one_in_more_runs() -> None:
    tall = torch.arange(30_000 * 4.0).view(30_000, 4)
    (entries,) = taken(tall)
    assert len(entries) == 4 * RUN * RUNS


@given(st.integers(4097, 10**8), st.data())
def test_runs_stay_inside_and_reach_far(n: int, data: st.DataObject) -> None:
    row = data.draw(st.integers(1, n))
    step = _step(n, row, RUNS)
    assert step >= RUN
    assert 0.8 * n < (RUNS - 1) * step + RUN <= n


def test_dtypes_and_layouts() -> None:
    tensors = [
        torch.randn(3).bfloat16(),
        torch.randn(2, dtype=torch.complex64),
        torch.randn(4, 6)[:, ::2],
        torch.randn(3, 2).T,
        torch.randn(2, 1, 3).expand(2, 4, 3),
    ]
    half, parts, gaps, turned, spread = taken(*tensors)
    assert half.dtype == torch.float32
    assert half.tolist() == tensors[0].tolist()
    assert torch.equal(parts, torch.view_as_real(tensors[1]).flatten())
    assert torch.equal(gaps, tensors[2].flatten())
    assert torch.equal(turned.sort().values, tensors[3].flatten().sort().values)
    assert torch.equal(spread, tensors[4].flatten())
    assert taken(torch.ones(2), torch.ones(2).double())[0].dtype == torch.float64


def test_none_is_drawn_as_zeros() -> None:
    tensors = [torch.ones(300, 300), torch.ones(7)]
    rows = layout(tensors).draw([None, tensors[1]])
    assert rows.sum() == 7
