"""What a monitor is asked to measure, checked."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..pathologies import Pathology
from ..quantities import (
    ActivationRMS,
    ClipCoefficient,
    GradNonFinite,
    GradNorm,
    GradRMS,
    OutputGradRMS,
    Quantity,
    Saturation,
    UpdateRatio,
    quantities as every_quantity,
)

DEFAULT: tuple[Quantity, ...] = (
    GradNorm(),
    GradRMS(),
    GradNonFinite(),
    ClipCoefficient(),
    UpdateRatio(),
)
"""What is measured if nothing is said."""

OF_ACTIVATIONS: tuple[Quantity, ...] = (OutputGradRMS(), ActivationRMS(), Saturation())
"""What is added where activations are watched."""


def chosen_quantities(
    model: nn.Module,
    quantities: Sequence[Quantity] | None,
    activations: bool | Sequence[str] | None,
    pathologies: Sequence[Pathology] = (),
) -> tuple[Quantity, ...]:
    """The quantities of a monitor: the usual ones if none is named.

    Args:
        model: What is watched.
        quantities: Those named; None is the usual ones and what pathologies need.
        activations: Whether, or where, activations are watched; None: if named.
        pathologies: What is looked for.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the model has nothing to train, two quantities share a name, or
            one needs activations that are not watched.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"a model is an nn.Module, got {type(model).__name__}")
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError(
            "a watched model has a parameter to train, got "
            f"{type(model).__name__} with none that requires a gradient"
        )
    if quantities is None:
        quantities = _usual(bool(activations), pathologies)
    must_be_listed("quantities", quantities)
    for quantity in quantities:
        if not isinstance(quantity, Quantity):
            known = ", ".join(dict.fromkeys(type(q).__name__ for q in every_quantity))
            raise TypeError(
                "quantities are instances of gradlab.quantities.Quantity, got "
                f"{quantity!r}; is it a class that was not called, or a name? There "
                f"are {known}"
            )
    chosen = (*quantities, *_added(quantities, activations))
    names = [quantity.name for quantity in chosen]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            "a monitor measures at least one quantity, each under its own name, "
            f"got {names}"
        )
    return chosen


def must_be_listed(name: str, given: object) -> None:
    """Make sure that an option is a list.

    Args:
        name: The option.
        given: What was given.

    Raises:
        TypeError: If it is one thing, or a string.
    """
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(
            f"{name} is a list, got {given!r}; write {name}=[…], also for one"
        )


def _usual(activations: bool, pathologies: Sequence[Pathology]) -> tuple[Quantity, ...]:
    usual = (*DEFAULT, *OF_ACTIVATIONS) if activations else DEFAULT
    needed = {name for pathology in pathologies for name in pathology.needs}
    needed -= {q.name for q in usual}
    return (
        *usual,
        *(
            q
            for q in every_quantity
            if q.name in needed and (activations or q.feed != "activation")
        ),
    )


def _added(
    quantities: Sequence[Quantity], activations: bool | Sequence[str] | None
) -> tuple[Quantity, ...]:
    if isinstance(activations, str) or not (
        activations is None
        or isinstance(activations, bool)
        or (
            isinstance(activations, Sequence)
            and all(isinstance(pattern, str) for pattern in activations)
        )
    ):
        raise TypeError(
            "activations is True, False or a list of patterns of module paths, got "
            f"{activations!r}"
        )
    named = [q.name for q in quantities if q.feed == "activation"]
    if named and activations is False:
        raise ValueError(
            "a quantity of activations is measured where they are watched, got "
            f"{', '.join(named)} with activations=False; say activations=True"
        )
    if named or activations is None or activations is False:
        return ()
    return OF_ACTIVATIONS
