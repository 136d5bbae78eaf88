"""The activation side of a monitor: taps, their reading, the ledger of dead units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from ..quantities import DeadUnits, Quantity
from ._activation_reading import read_activations
from ._activations import ActivationTaps
from ._dead_units import DeadUnitLedger
from ._reading import Table
from ._taps import callers
from ._watched import watched_modules


class ActivationWatch:
    """Measures from the first output of a step to the optimizer's step.

    Args:
        model: The model.
        patterns: Globs on module paths; None is the usual modules.
        quantities: What to measure, of the feed `activation`.
        due: Whether the step that is beginning may be read.
        scaler: Whose scale is divided out of the gradients; None finds the one whose
            `step` calls the optimizer's.

    Attributes:
        quantities: What is measured.
        ledger: When each unit was last active; None unless that is measured.
    """

    def __init__(
        self,
        model: nn.Module,
        patterns: Sequence[str] | None,
        quantities: Sequence[Quantity],
        due: Callable[[], bool],
        scaler: GradScaler | None = None,
    ) -> None:
        self.quantities = tuple(quantities)
        windows = [q.window for q in quantities if isinstance(q, DeadUnits)]
        self.ledger = DeadUnitLedger(windows[0]) if windows else None
        self._scaler = scaler
        self._stepping = False
        watched = watched_modules(model, patterns)
        self._taps = ActivationTaps(model, watched, quantities, due, self._updates)

    def restore(self) -> None:
        """Watch again after `remove`."""
        self._taps.restore()

    def remove(self) -> None:
        """Leave no hook behind; safe to call twice."""
        self._taps.remove()

    def rest(self) -> None:
        """Take the hooks off until `restore`, where that is safe."""
        self._taps.rest()

    def seconds(self) -> float:
        """How long the hooks have measured since this was asked last."""
        seconds, self._taps.seconds = self._taps.seconds, 0.0
        return seconds

    def scale(self, found: Tensor | None) -> float | Tensor:
        """What the loss was multiplied by.

        Args:
            found: The scale that GradScaler left on a fused optimizer.
        """
        if self._scaler is not None:
            # get_scale() would wait for the device.
            return self._scaler.scale(torch.ones(()))
        return 1.0 if found is None else found

    def on_step(self, due: bool) -> None:
        """The optimizer begins its step; a closure may run the model within it.

        Args:
            due: Whether this step is read.
        """
        raised, self._stepping = self._stepping, True
        if self._scaler is None:
            self._scaler = next(_scalers(), None)
        if not due:
            self._taps.restart(False)
        elif raised or self._taps.sampling is None:
            self._taps.restart(True)

    def on_done(self) -> None:
        """The step is over: the next output begins another."""
        self._stepping = False
        self._taps.restart()

    def _updates(self) -> int:
        """A number that changes with each `update()` of the scaler."""
        scale = None if self._scaler is None else self._scaler._scale
        return 0 if scale is None else scale._version

    @torch.no_grad()
    def read(self, step: int, scale: float | Tensor | None = None) -> Table | None:
        """What was measured since the last reading.

        Within a step nothing more is measured until it is over: a closure may go on.

        Args:
            step: The step.
            scale: What the loss was multiplied by; None asks the scaler.
        """
        factor = self.scale(None) if scale is None else scale
        table = read_activations(self._taps, factor, self.ledger, step)
        self._taps.restart(False if self._stepping else None)
        return table


def _scalers() -> Iterator[GradScaler]:
    """The GradScalers in whose `step` this is called."""
    for one in callers(GradScaler.step.__code__):
        if isinstance(one, GradScaler):
            yield one
