"""Two gradients are returned in each other's place."""

from __future__ import annotations

from dataclasses import dataclass

from gradlab.subject import Mismatch, truth

from ._evidence import evidence


@dataclass(frozen=True)
class SwappedInputs:
    """ā = (∂y/∂b)ᵀ ȳ for two inputs a and b of one shape."""

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is not None:
            return None
        found = truth(seen.subject).gradients
        if found is None:
            return None
        for place, other in enumerate(seen.subject.input_names):
            if place == seen.place:
                continue
            if seen.explained_by(lambda i, place=place: found[i][place]):
                return (
                    f"the gradient of {seen.name} (input {seen.place}) is that of "
                    f"{other} (input {place}): the order in the return is wrong"
                )
        return None
