"""Points around the user's: different, legitimate, within what the values promise."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gradlab.points import (
    batch_of_one,
    equal_sizes,
    equal_values,
    extra_leading_dimension,
    extra_trailing_dimension,
    fresh_values,
    off_default_values,
    one_dimension_alone,
    other_sizes,
    special_indices,
    special_values,
)
from gradlab.points._invariants import fixed, permutation, within_bounds
from gradlab.subject import Subject, build


def leaf(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def linear() -> Subject:
    return build(F.linear, (leaf(3, 4), leaf(5, 4), leaf(5)))


def shapes(subject: Subject) -> list[tuple[int, ...]]:
    return [tuple(a.shape) for a in subject.leaves if isinstance(a, Tensor)]


def test_batch_of_one() -> None:
    (point,) = batch_of_one(linear())
    assert shapes(point) == [(1, 4), (5, 4), (5,)]


def test_other_sizes_change_together() -> None:
    found = {tuple(shapes(point)) for point in other_sizes(linear())}
    assert found == {
        ((67, 4), (5, 4), (5,)),
        ((3, 67), (5, 67), (5,)),
        ((3, 4), (67, 4), (67,)),
    }


def test_equal_sizes() -> None:
    found = [shapes(point) for point in equal_sizes(linear())]
    assert [(4, 4), (5, 4), (5,)] in found
    assert [(3, 4), (4, 4), (4,)] in found


def test_a_constant_table_is_repeated_not_cut() -> None:
    table = torch.randn(4, dtype=torch.float64).repeat(2)
    subject = build(torch.mul, (leaf(3, 8), table))
    (longer, *_) = [p for p in other_sizes(subject) if "instead of 8" in p.title]
    halves = longer.leaves[1].chunk(2)
    assert torch.equal(*halves)


def test_an_extra_leading_dimension_is_one_more_batch() -> None:
    (point,) = extra_leading_dimension(linear())
    assert shapes(point) == [(2, 3, 4), (5, 4), (5,)]
    # Not a batch: the scan would run over the new dimension instead.
    subject = build(lambda x: x.cumsum(0), leaf(3, 4))
    assert not list(extra_leading_dimension(subject))


def test_an_extra_trailing_dimension_for_targets() -> None:
    subject = build(F.cross_entropy, (leaf(3, 4), torch.tensor([1, 0, 3])))
    (point,) = extra_trailing_dimension(subject)
    assert shapes(point) == [(3, 4, 2), (3, 2)]


def test_one_dimension_alone() -> None:
    subject = build(lambda x: x.mean((-2, -1)), leaf(2, 4, 4))
    assert (2, 2, 4) in [shapes(p)[0] for p in one_dimension_alone(subject)]


def test_a_modules_parameters_keep_their_shapes() -> None:
    subject = build(torch.nn.Linear(4, 4), torch.randn(4, 4))
    for shape in (batch_of_one, other_sizes, equal_sizes, one_dimension_alone):
        for point in shape(subject):
            assert shapes(point)[:2] == [(4, 4), (4,)]


def test_special_values() -> None:
    found = {p.title: p.tensors[0] for p in special_values(build(F.relu, leaf(3, 4)))}
    assert not found["zeros for input"].any()
    assert (found["some zeros in input"] == 0).sum() == 4
    whole = found["whole numbers for input"]
    assert torch.equal(whole, whole.round())
    assert {"ties in input", "5 times input", "1000 times input"} <= set(found)


def test_zeros_stay_where_the_output_is_finite() -> None:
    exponent = torch.tensor([[-1.0], [2.5], [1.5]], dtype=torch.float64).expand(3, 4)
    subject = build(torch.pow, (leaf(3, 4).detach().abs().requires_grad_(), exponent))
    points = {p.title: p for p in special_values(subject)}
    assert torch.isfinite(points["some zeros in inputs[0]"].outputs[0]).all()
    assert (points["some zeros in inputs[0]"].tensors[0] == 0).sum() == 2


def test_default_values_are_left() -> None:
    subject = build(torch.nn.LayerNorm(4), leaf(3, 4))
    (point,) = off_default_values(subject)
    weight, bias, x = point.tensors
    assert weight.std() > 0
    assert bias.std() > 0
    assert torch.equal(x, subject.tensors[2])


def test_equal_values() -> None:
    points = {
        p.title: p for p in equal_values(build(torch.maximum, (leaf(6), leaf(6))))
    }
    x, y = points["ties of inputs[0] and inputs[1]"].tensors
    assert (x == y).sum() == 2


def test_indices_stay_in_range() -> None:
    subject = build(F.embedding, (torch.tensor([2, 4, 1]), leaf(5, 3)))
    points = list(special_indices(subject))
    assert {"duplicates in input", "0 in input"} <= {p.title for p in points}
    assert all(int(p.leaves[0].min()) >= 0 for p in points)
    target = build(F.cross_entropy, (leaf(3, 4), torch.tensor([1, 0, 0])))
    assert "-100 in target" in {p.title for p in special_indices(target)}


def test_fresh_values_keep_promises() -> None:
    p = torch.rand(3, 4, dtype=torch.float64).requires_grad_()
    (point,) = fresh_values(build(torch.special.entr, p))
    assert 0 <= float(point.tensors[0].min()) <= float(point.tensors[0].max()) <= 1


@pytest.mark.parametrize(
    ("x", "is_fixed"),
    [
        (torch.randn(3, 4), False),
        (torch.ones(3), False),
        (torch.eye(3), True),
        (torch.randn(3, 4).softmax(-1), True),
        (F.normalize(torch.randn(3, 4)), True),
        (torch.randn(3, 3).tril(), True),
        (torch.arange(5.0) / 7, True),
        (torch.tensor([0.0, 1.0, 1.0, 0.0]), True),
    ],
)
def test_what_promises_something_is_left_alone(x: Tensor, is_fixed: bool) -> None:
    assert fixed(x) is is_fixed


def test_permutations_are_recognised() -> None:
    assert permutation(torch.tensor([2, 0, 1]))
    assert permutation(torch.randn(3, 4).argsort(0))
    assert not permutation(torch.tensor([2, 0, 2]))
    assert not permutation(torch.tensor([[2, 0], [1, 3]]))
    assert not permutation(torch.randn(3))


def test_bounds() -> None:
    new = torch.tensor([-1.5, 0.5])
    assert (within_bounds(new, torch.tensor([0.5, 3.0])) >= 0).all()
    assert (within_bounds(new, -torch.tensor([0.5, 3.0])) <= 0).all()
    assert torch.equal(within_bounds(new, torch.tensor([-1.0, 1.0])), new)


def test_a_symmetric_matrix_stays_one_with_eigenvalues_apart() -> None:
    a = torch.randn(4, 4, dtype=torch.float64)
    definite = (a @ a.mT + torch.eye(4, dtype=torch.float64)).requires_grad_()
    subject = build(lambda x: torch.linalg.eigvalsh(x + x.mT), (definite,))
    found = [*batch_of_one(subject), *other_sizes(subject)]
    found += list(one_dimension_alone(subject))
    assert found
    for point in found:
        (x,) = point.tensors
        assert torch.equal(x, x.mT)
        eigenvalues = torch.linalg.eigvalsh(x)
        assert eigenvalues.min() > 0
        assert bool((eigenvalues.diff() > 1e-6).all())
