"""Which arguments are batched is found out by trial."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlab.monitor._slices import chosen_rows, cut, planned


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return nn.functional.linear(x, weight, bias)


@pytest.mark.parametrize(
    ("forward", "args", "depths", "outputs"),
    [
        (linear, (torch.randn(64, 5), torch.randn(3, 5)), (1, 0), (1,)),
        # As many units as rows: the shapes of the output tell them apart.
        (linear, (torch.randn(64, 64), torch.randn(64, 64)), (1, 0), (1,)),
        (torch.add, (torch.randn(64, 5), torch.randn(64, 5)), (1, 1), (1,)),
        (torch.add, (torch.randn(64, 5), torch.randn(5)), (1, 0), (1,)),
        (
            nn.functional.cross_entropy,
            (torch.randn(64, 64), torch.randint(64, (64,)), torch.rand(64)),
            (1, 1, 0),
            (0,),
        ),
        (torch.bmm, (torch.randn(64, 2, 3), torch.randn(64, 3, 2)), (1, 1), (1,)),
        # A sum over rows: its output is whole.
        (lambda x: x.sum(0), (torch.randn(64, 5),), (1,), (0,)),
        # The wrong way round: what is batched comes second.
        (
            lambda w, x: linear(x, w),
            (torch.randn(32, 5), torch.randn(64, 5)),
            (0, 1),
            (1,),
        ),
    ],
)
def test_what_is_cut(
    forward: Any, args: tuple[Any, ...], depths: tuple[int, ...], outputs: Any
) -> None:
    plan = planned(forward, args, rows=8, cuttable=1)
    assert (plan.args, plan.outputs, plan.sizes) == (depths, outputs, (8,))


def test_a_small_batch_stays_whole() -> None:
    args = (torch.randn(8, 5), torch.randn(3, 5))
    assert planned(linear, args, rows=8, cuttable=1).args == (0, 0)


def test_what_cannot_be_cut_stays_whole() -> None:
    args = (torch.randn(64, 64), torch.arange(64))
    plan = planned(lambda x, i: x.index_select(0, i), args, rows=8, cuttable=0)
    assert plan.args == (0, 0)


def test_large_sequences_are_cut_twice() -> None:
    args = (torch.randn(16, 256, 64), torch.randn(32, 64))
    plan = planned(linear, args, rows=8, cuttable=2)
    assert (plan.args, plan.outputs) == ((2, 0), (2,))
    rows = chosen_rows(args[0], plan.sizes)
    assert cut(args, plan.args, rows)[0].numel() <= 2**14


def test_channels_are_not_cut_where_the_forward_refuses() -> None:
    args = (torch.randn(16, 12, 30, 30), torch.randn(4, 12, 3, 3))
    plan = planned(nn.functional.conv2d, args, rows=8, cuttable=2)
    assert plan.args == (1, 0)


def test_the_rows_with_the_largest_entries_are_chosen() -> None:
    x = torch.zeros(100, 4)
    x[[17, 63], [0, 3]] = torch.tensor([50.0, -70.0])
    (rows,) = chosen_rows(x, (6,))
    assert len(rows) == len(set(rows.tolist())) == 6
    assert {17, 63} < set(rows.tolist())
    assert rows.tolist() == sorted(rows.tolist())


def test_copies_but_of_parameters() -> None:
    x, weight = torch.randn(4, 3), nn.Parameter(torch.randn(3, 3))
    first, second, third = cut((x, weight, None), (0, 0, 0), [])
    assert first.data_ptr() != x.data_ptr()
    assert second is weight
    assert third is None
