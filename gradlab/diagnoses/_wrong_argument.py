"""A number that the call was given is not the one that the backward uses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from gradlab.subject import DIFFERENCES, GIVEN, Mismatch, own_gradient, truth

from ._evidence import Evidence, evidence
from ._missing_eps import MissingEps


@dataclass(frozen=True)
class WrongArgument:
    """x̄ is the true gradient for another number: a = 1, −a, 1/a, a², √a or 1 − a."""

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is not None:
            return None
        for index, leaf in enumerate(seen.subject.leaves):
            if not isinstance(leaf, (int, float)) or isinstance(leaf, bool):
                continue
            name = seen.subject.names[index]
            for value, what in _others(leaf):
                if seen.explained_by(lambda i, k=index, a=value: _true(seen, i, k, a)):
                    near = value * 1.07 + type(leaf)(1)
                    if MissingEps()(mismatch) or seen.explained_by(
                        lambda i, k=index, a=near: _true(seen, i, k, a)
                    ):
                        return None  # any number out of the way would do
                    return (
                        f"{name} = {leaf:g} is not what the backward uses: the "
                        f"gradient is the true one for {what.replace('a', name)}"
                    )
        return None


def _others(a: float) -> Iterator[tuple[float, str]]:
    choices = [(type(a)(1), "a = 1"), (-a, "−a")]
    if isinstance(a, float) and a:
        choices += [(1 / a, "1/a"), (a * a, "a²"), (1 - a, "1 − a"), (0.0, "a = 0")]
        choices += [(abs(a) ** 0.5, "√a"), (2 * a, "2 a"), (a / 2, "a/2")]
    yield from ((value, what) for value, what in choices if value != a)


def _true(seen: Evidence, i: int, index: int, value: float) -> Tensor | None:
    leaves = list(seen.subject.leaves)
    leaves[index] = value
    other = seen.subject.at(leaves)
    kind = truth(seen.subject).kind
    if kind == DIFFERENCES:
        return None
    if kind == GIVEN:
        return other.vjp(seen.cotangents[i], call=other.reference)[seen.place]
    return own_gradient(other, seen.cotangents[i])[seen.place]
