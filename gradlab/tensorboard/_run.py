"""The event files of one directory, as the tables and the scalars in them."""

# Protobuf makes the classes of its modules at import.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2
from tensorboard.util.tensor_util import make_ndarray

from ..quantities import quantities
from . import _table
from ._records import records
from ._stage import STAGE


class Series(NamedTuple):
    """The scalars of a tag.

    Attributes:
        stage: The stage that the tag's description names.
        numbers: The last number written for each step.
    """

    stage: str | None
    numbers: dict[int, float]


class Entry(NamedTuple):
    """A table as it was written."""

    step: int
    layout: _table.Layout
    tensor: tensor_pb2.TensorProto


@dataclass(frozen=True)
class Run:
    """What a directory of event files holds.

    Attributes:
        tables: The tables by quantity and stage, in the order of writing.
        scalars: The scalars by tag.
    """

    tables: dict[tuple[str, str], list[Entry]] = field(default_factory=dict)
    scalars: dict[str, Series] = field(default_factory=dict)

    def quantities(self) -> dict[str, list[str | None]]:
        """The stages of each quantity, the first written first."""
        found: dict[str, list[str | None]] = {}
        for quantity, stage in self.tables:
            found.setdefault(quantity, []).append(stage)
        names = {quantity.name for quantity in quantities}
        for tag, (stage, _) in self.scalars.items():
            name, slash, _ = tag.partition("/")
            # A logger does not say the stage: a quantity is known by its name then.
            if slash and (stage or name in names):
                stages = found.setdefault(name.removesuffix(f"_{stage}"), [])
                if stage not in stages and (stage or not stages):
                    stages.append(stage)
        return found

    def select(
        self, quantity: str, stage: str | None
    ) -> tuple[str | None, list[Entry], dict[str, Series]]:
        """One quantity at one stage.

        Args:
            quantity: The name of the quantity.
            stage: The stage, None for the one written first.

        Returns:
            The stage as far as it is known, the tables, and the scalars by what follows
            the quantity in their tags.
        """
        first = [one for name, one in self.tables if name == quantity]
        wanted = stage or (first[0] if first else None)
        entries = self.tables.get((quantity, wanted), []) if wanted else []
        series: dict[str, Series] = {}
        for tag, one in self.scalars.items():
            name, slash, rest = tag.partition("/")
            if not slash or name not in (quantity, f"{quantity}_{wanted}"):
                continue
            # What says no stage is of the one that was written first.
            if one.stage == wanted or wanted is None or (not one.stage and not stage):
                series[rest] = one
        if wanted is None:
            stages = {one.stage for one in series.values()}
            wanted = stages.pop() if len(stages) == 1 else None
        return wanted, entries, series


def load(folder: Path) -> Run:
    """Read all event files of a directory, the oldest first.

    Args:
        folder: The directory.

    Raises:
        ValueError: If a later gradlab wrote a table in a way that this one does not
            know.
    """
    run = Run()
    begun = sorted(
        (event_pb2.Event.FromString(head).wall_time, path.name, path)
        for path in folder.glob("*tfevents*")
        if path.is_file() and (head := next(records(path), None)) is not None
    )
    for *_, path in begun:
        layouts: dict[str, _table.Layout] = {}
        for data in records(path):
            event = event_pb2.Event.FromString(data)
            for value in event.summary.value:
                _take(run, event.step, value, layouts)
    return run


def _take(
    run: Run,
    step: int,
    value: summary_pb2.Summary.Value,
    layouts: dict[str, _table.Layout],
) -> None:
    """File one value of an event; the layouts are those of the file so far."""
    tag = value.tag
    if value.HasField("metadata"):
        if (layout := _table.layout_of(value.metadata)) is not None:
            layouts[tag] = layout
        elif tag not in run.scalars and (
            value.metadata.plugin_data.plugin_name == "scalars"
        ):
            text = value.metadata.summary_description
            stage = text.removeprefix(STAGE) if text.startswith(STAGE) else None
            run.scalars[tag] = Series(stage, {})
    which = value.WhichOneof("value")
    if which == "simple_value":
        if tag not in run.scalars:
            run.scalars[tag] = Series(None, {})
        run.scalars[tag].numbers[step] = value.simple_value
    elif which == "tensor" and tag in layouts:
        layout = layouts[tag]
        key = (layout.quantity, layout.stage)
        run.tables.setdefault(key, []).append(Entry(step, layout, value.tensor))
    elif which == "tensor" and tag in run.scalars:
        # What TensorFlow and SummaryWriter's new style write for a scalar.
        run.scalars[tag].numbers[step] = make_ndarray(value.tensor).item()
