"""Says of a vanishing or exploding gradient whether weights or activations did it."""

from __future__ import annotations

from dataclasses import replace

from .._snapshot import Snapshot
from ..pathologies import Finding, Shares, shares

_GAINS = ("output_grad_rms", "weight_gain", "activation_gain")
_WHO = {
    "weights": "the weights (initialization, or what training made of them)",
    "activations": "the derivatives of the activation functions",
    "others": "what is no module (functional activations, skip connections)",
}


class GuiltyFactor:
    """Adds to findings what each factor multiplied the gradient by.

    It explains for a `Watchdog`, where the quantities `OutputGradRMS`, `WeightGain` and
    `ActivationGain` are measured.
    """

    def __init__(self) -> None:
        self._shares: Shares | None = None

    def observe(self, snapshot: Snapshot) -> None:
        """Keep the factors of a reading.

        Args:
            snapshot: What was measured; one without gains is passed over.
        """
        if all(name in snapshot.quantities for name in _GAINS) and snapshot.rows:
            columns = (snapshot.column(name).numpy() for name in _GAINS)
            self._shares = shares(*columns)

    def __call__(self, finding: Finding) -> Finding:
        """Name who did it, first among the causes.

        Args:
            finding: What was found.

        Returns:
            The finding; one of a vanishing or exploding gradient says more.
        """
        if finding.code not in {"vanishing", "exploding"} or self._shares is None:
            return finding
        found = self._shares
        evidence = {f"by_{name}": 10**share for name, share in found._asdict().items()}
        evidence = {**finding.evidence, **evidence}
        if found.guilty is None:
            return replace(finding, evidence=evidence)
        share = found._asdict()[found.guilty]
        cause = (
            f"{_WHO[found.guilty]}, ×{10**share:.1g} from the last module to the first"
        )
        return replace(finding, evidence=evidence, causes=(cause, *finding.causes))
