"""What a monitor is asked to measure, checked."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..quantities import ActivationRMS, DeadUnits, OutputGradRMS, Quantity, Saturation

_OF_ACTIVATIONS = (OutputGradRMS(), ActivationRMS(), DeadUnits(), Saturation())


def chosen_quantities(
    model: nn.Module,
    quantities: Sequence[Quantity],
    activations: bool | Sequence[str] | None,
) -> tuple[Quantity, ...]:
    """The quantities of a monitor: of activations the usual ones if none is named.

    Args:
        model: What is watched.
        quantities: Those named.
        activations: Whether, or where, activations are watched; None: if named.

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
    for quantity in quantities:
        if not isinstance(quantity, Quantity):
            raise TypeError(
                "quantities are instances of gradlab.quantities.Quantity, got "
                f"{quantity!r}; is it a class that was not called?"
            )
    chosen = (*quantities, *_added(quantities, activations))
    names = [quantity.name for quantity in chosen]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            "a monitor measures at least one quantity, each under its own name, "
            f"got {names}"
        )
    return chosen


def _added(
    quantities: Sequence[Quantity], activations: bool | Sequence[str] | None
) -> tuple[Quantity, ...]:
    if isinstance(activations, str) or not (
        activations is None
        or isinstance(activations, bool)
        or all(isinstance(pattern, str) for pattern in activations)
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
    return _OF_ACTIVATIONS
