"""The last steps of every quantity, written out when something goes wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..pathologies import Finding, History


def write_recording(
    path: Path, histories: Iterable[History], findings: Sequence[Finding], reason: str
) -> None:
    """Write the kept steps as one JSON file, whole or not at all.

    For each kind of snapshot: `rows`, `steps`, and each quantity as `[step][row]`. A
    number that is unavailable is null; NaN and the infinities are the strings `"nan"`,
    `"inf"`, `"-inf"`, so that every JSON reader takes the file.

    Args:
        path: The file; an older one is replaced.
        histories: What was kept.
        findings: What was found so far.
        reason: Why it is written.
    """
    data: dict[str, Any] = {
        "reason": reason,
        "findings": [finding.to_dict() for finding in findings],
        "snapshots": [_plain(history) for history in histories],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(dumps(data))
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def snapshots_of(path: Path) -> list[dict[str, Any]]:
    """The recorded steps of a file, `quantities` with NaN where it says so.

    Args:
        path: What `write_recording` wrote.
    """
    data = json.loads(path.read_text())
    for one in data["snapshots"]:
        for table in one["quantities"].values():
            for row in table:
                row[:] = [float(n) if isinstance(n, str) else n for n in row]
    return data["snapshots"]


def dumps(data: dict[str, Any]) -> str:
    """One line of strict JSON.

    Args:
        data: Plain data.
    """
    return json.dumps(_strict(data), allow_nan=False)


def _plain(history: History) -> dict[str, Any]:
    return {
        "rows": [{"name": row.name, "kind": row.kind} for row in history.rows],
        "steps": history.steps().tolist(),
        "quantities": {
            quantity: [
                [n if there else None for n, there in zip(*pair, strict=True)]
                for pair in zip(
                    history[quantity].tolist(),
                    history.available(quantity).tolist(),
                    strict=True,
                )
            ]
            for quantity in history.quantities
        },
    }


def _strict(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _strict(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_strict(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return str(data)
    return data
