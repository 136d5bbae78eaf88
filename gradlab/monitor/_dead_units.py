"""Remembers when each unit was last active: one batch does not make a unit dead."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

_NEVER = -1


class DeadUnitLedger:
    """The last step in which each unit of each layer was active, on its device.

    A unit is active in a step if it had a nonzero output and a nonzero gradient of it.
    It is dead when it has not been active for `window` steps on end; one that is active
    again has recovered.

    Args:
        window: After how many steps without activity a unit is dead.

    Raises:
        ValueError: If the window is not a whole number of at least 1.

    Example:
        >>> ledger = DeadUnitLedger(window=2)
        >>> for step in range(3):
        ...     ledger.update("relu", torch.tensor([True, step == 0]), step)
        >>> ledger.dead("relu").tolist(), ledger.last_active("relu").tolist()
        ([1], [2, 0])
    """

    def __init__(self, window: int = 100) -> None:
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise ValueError(
                "the window of dead units is a whole number of steps, at least 1, got "
                f"{window!r}"
            )
        self.window = window
        self._last: dict[str, Tensor] = {}
        self._since: dict[str, Tensor] = {}
        self._back: dict[str, Tensor] = {}
        self._step: dict[str, int] = {}

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers whose units are known, in the order in which they appeared."""
        return tuple(self._last)

    def update(self, layer: str, active: Bool[Tensor, " units"], step: int) -> None:
        """Note which units were active in a step; nothing comes to the host.

        Args:
            layer: The name of the layer.
            active: Which of its units were.
            step: The step, not before the last one.
        """
        last = self._last.get(layer)
        if last is None or last.shape != active.shape or last.device != active.device:
            # Silence counts from the step before the first one seen.
            self._since[layer] = torch.full_like(active, step - 1, dtype=torch.int64)
            self._last[layer] = torch.full_like(active, _NEVER, dtype=torch.int64)
            self._back[layer] = torch.zeros_like(active)
        else:
            self._back[layer] = active & self._silent(layer, self._step[layer])
        self._step[layer] = step
        self._last[layer].masked_fill_(active, step)
        self._since[layer].masked_fill_(active, step)

    def last_active(self, layer: str) -> Int64[Tensor, " units"]:
        """The last step in which each unit was active, -1 if none was seen.

        Args:
            layer: The name of the layer.

        Raises:
            KeyError: If no units of that layer were seen.
        """
        return self._of(self._last, layer).cpu()

    def dead(self, layer: str) -> Int64[Tensor, " dead"]:
        """The units that have been silent for the whole window.

        Args:
            layer: The name of the layer.

        Raises:
            KeyError: If no units of that layer were seen.
        """
        self._of(self._last, layer)
        return self._silent(layer, self._step[layer]).nonzero().flatten().cpu()

    def recovered(self, layer: str) -> Int64[Tensor, " recovered"]:
        """The units that were dead and became active in the last step.

        Args:
            layer: The name of the layer.

        Raises:
            KeyError: If no units of that layer were seen.
        """
        return self._of(self._back, layer).nonzero().flatten().cpu()

    def _silent(self, layer: str, step: int) -> Tensor:
        return self._since[layer] <= step - self.window

    def _of(self, table: dict[str, Tensor], layer: str) -> Tensor:
        if layer not in table:
            raise KeyError(f"no units of {layer!r}; seen: {', '.join(self.layers)}")
        return table[layer]
