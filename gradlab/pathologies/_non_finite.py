"""The gradient has entries that are NaN or infinite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ._depth import layer_of
from ._finding import Finding
from ._history import History
from ._pathology import Pathology


@dataclass(frozen=True)
class NonFinite(Pathology):
    """NaN or infinity in the gradient, and the layer where it came in.

    A backward pass carries NaN from the output towards the input, so the layer nearest
    to the output that has some is the first one: above it the gradient is finite. If
    every layer has some, the loss or the forward pass made it.

    One non-finite gradient that the parameters survive is the search of a loss scale,
    whose steps are skipped: that is said after `patience` of them in a row only.

    Attributes:
        patience: How many in a row are too many while the parameters are finite.
    """

    patience: int = 8

    code: ClassVar[str] = "non_finite"
    needs: ClassVar[tuple[str, ...]] = ("grad_nonfinite", "param_norm")
    every: ClassVar[int] = 1

    def __call__(self, history: History) -> Finding | None:
        """Look at the last reading, then back to where it began.

        Args:
            history: The run.
        """
        total = history.total()
        bad_gradient = ~(history["grad_nonfinite"][:, total] == 0)
        bad_gradient &= history.available("grad_nonfinite")[:, total]
        bad_parameters = ~np.isfinite(history["param_norm"][:, total])
        bad_parameters &= history.available("param_norm")[:, total]
        bad = bad_gradient | bad_parameters
        if not bad[-1]:
            return None
        run = int(np.argmin(bad[::-1])) if not bad.all() else len(bad)
        if not bad_parameters[-1] and run < self.patience:
            return None
        begin = len(bad) - run
        counts = history["grad_nonfinite"][begin]
        params = history["param_norm"][begin]
        there = history.available("grad_nonfinite")[begin]
        rows = [i for i in history.parameters.tolist() if there[i]]
        hit = [i for i in rows if counts[i] != 0]
        spoilt = [i for i in rows if not np.isfinite(params[i])]
        step = int(history.steps()[begin])
        evidence = {
            "first_step": float(step),
            "tensors_hit": float(len(hit)),
            "tensors": float(len(rows)),
            "entries": float(np.nansum(counts[hit])),
        }
        where = hit or spoilt or rows
        names = tuple(history.rows[i].name for i in reversed(where))
        layer = layer_of(history.rows[where[-1]])
        if spoilt:
            names = tuple(history.rows[i].name for i in spoilt)
            symptom = (
                f"parameters are NaN or infinite since step {step}: {names[0]} first, "
                f"{len(spoilt)} of {len(rows)}"
            )
            causes = (
                "the update before that was too large: the learning rate",
                "a non-finite gradient between two readings",
            )
            experiment = "a learning rate ten times smaller from a checkpoint before it"
        elif where[-1] == rows[-1] or layer == layer_of(history.rows[rows[-1]]):
            symptom = (
                f"the gradient is NaN or infinite since step {step}, in {layer}, the "
                "last layer, and from there"
            )
            causes = (
                "the loss: log(0), a division by zero, a root at 0, a label or an "
                "input that is not finite",
                "an overflow in the forward pass",
            )
            experiment = (
                "torch.isfinite(...).all() of the batch, the output and the loss at "
                f"step {step}"
            )
        else:
            symptom = (
                f"the gradient is NaN or infinite since step {step}: {layer} is the "
                "first on the way back, the layers after it are finite"
            )
            causes = (
                f"the backward of what comes after {layer}: a root or a norm at 0, a "
                "division by zero, a masked softmax without an entry",
                f"an overflow in the backward of {layer}",
            )
            experiment = (
                f"torch.autograd.detect_anomaly() around step {step}; it names the "
                "operation"
            )
        return Finding(
            self.code,
            history.step,
            symptom,
            layers=names,
            evidence=evidence,
            causes=causes,
            experiment=experiment,
            confidence=0.99 if bad_parameters[-1] else 0.8,
        )
