"""Points and shapes around the user's, where backwards that look right go wrong.

Each is a function from a `Subject` to subjects like it, titled with what is different.
To add one: the function, its line here, and a test in `tests/points/`.
"""

from collections.abc import Callable, Iterator

from gradlab.subject import Subject

from ._shapes import (
    batch_of_one as batch_of_one,
    equal_sizes as equal_sizes,
    extra_leading_dimension as extra_leading_dimension,
    extra_trailing_dimension as extra_trailing_dimension,
    one_dimension_alone as one_dimension_alone,
    other_sizes as other_sizes,
)
from ._values import (
    equal_values as equal_values,
    fresh_values as fresh_values,
    off_default_values as off_default_values,
    special_indices as special_indices,
    special_values as special_values,
)

Point = Callable[[Subject], Iterator[Subject]]

points: tuple[Point, ...] = (
    fresh_values,
    special_values,
    equal_values,
    special_indices,
    batch_of_one,
    extra_leading_dimension,
)
"""All but `off_default_values`, which comes first and which the others start from."""

guesses: tuple[Point, ...] = (
    other_sizes,
    equal_sizes,
    one_dimension_alone,
    extra_trailing_dimension,
)
"""Shapes that the function may never have meant to take, although it runs on them."""
