"""What made the first non-finite number, as data and as one sentence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ._advice import advice_for

Kind = Literal[
    "forward", "backward", "loss", "batch", "weights", "buffer", "unseen", "unknown"
]
"""Where it was made; `unseen` outside of torch's operators, `unknown` not found out."""

MOST = 8
"""How many entries of a batch are named before "and n more"."""


@dataclass(frozen=True)
class Operand:
    """One argument of the operation.

    Attributes:
        shape: Its shape; `()` for a number.
        dtype: Its dtype, as `float32`; `number` for a Python number.
        low: The smallest value; of a softmax, in the row that is hit.
        high: The largest.
        value: What an elementwise operation had at the first entry that is hit; None
            for other operations.
    """

    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float
    value: float | None = None

    def __str__(self) -> str:
        if self.value is not None:
            return f"{self.value:.4g}"
        kind = f"{self.dtype}[{', '.join(map(str, self.shape))}]"
        if self.low == self.high:
            return f"{kind} (all {self.low:.4g})"
        return f"{kind} ({self.low:.4g} to {self.high:.4g})"


@dataclass(frozen=True)
class Culprit:
    """The first thing that was not finite although all it was made from was.

    Attributes:
        kind: Where it was made.
        op: The operation, in torch's name for it: `log`, `_softmax`, `div`.
        function: For `backward`: whose backward, as `sqrt` or the name of an
            `autograd.Function`.
        module: The path of the module that ran it; `""` is the root.
        source: The innermost line of user code, as `model.py:42`; `""` if all of the
            way down is torch's.
        code: What that line says.
        operands: The tensors it was made from, and its numbers if it is elementwise.
        result: What it gave: `nan`, `inf`, `-inf`, or several of them.
        count: How many entries are not finite.
        of: How many entries there are.
        shape: Their shape.
        entries: The entries of the batch that are hit, along dimension 0, where that
            can be told.
        batch: How many entries the batch has.
        overflows: The dtype that was too small for the result; `""` if a wider one
            would not have helped.
        names: For `batch`, `weights` and `buffer`: which.
        microbatch: Which forward since the last step, from 0.
        microbatches: How many there were.
        then: What the first one led to, if NaN came only from a later operation.
        note: What else must be known; for `unknown` the reason.

    Example:
        >>> number = Operand((2, 3), "float32", low=0.0, high=1.0, value=0.0)
        >>> print(
        ...     Culprit(
        ...         "forward",
        ...         op="log",
        ...         module="head",
        ...         source="model.py:42",
        ...         operands=(number,),
        ...         result="-inf",
        ...         count=1,
        ...         of=6,
        ...         entries=(1,),
        ...         batch=2,
        ...     )
        ... )  # doctest: +NORMALIZE_WHITESPACE
        log(0) gives -inf at 1 of 6 entries, in the forward of head (model.py:42);
        batch entry 1 of 2
    """

    kind: Kind
    op: str = ""
    function: str = ""
    module: str = ""
    source: str = ""
    code: str = ""
    operands: tuple[Operand, ...] = ()
    result: str = ""
    count: int = 0
    of: int = 0
    shape: tuple[int, ...] = ()
    entries: tuple[int, ...] = ()
    batch: int = 0
    overflows: str = ""
    names: tuple[str, ...] = ()
    microbatch: int = 0
    microbatches: int = 1
    then: str = ""
    note: str = ""

    def __str__(self) -> str:
        parts = [self.what + self._where(), self._entries()]
        if self.microbatches > 1 and self.kind not in ("weights", "unknown"):
            parts.append(f"microbatch {self.microbatch} of {self.microbatches}")
        parts += [f"then {self.then}" if self.then else "", self.note]
        return "; ".join(part for part in parts if part)

    @property
    def what(self) -> str:
        """What happened, without the place."""
        hit = f"{self.result} at {self.count} of {self.of} entries"
        named = ", ".join(self.names[:4])
        named += f" and {len(self.names) - 4} more" if len(self.names) > 4 else ""
        match self.kind:
            case "batch":
                return f"the batch holds {hit}: {named}"
            case "weights":
                return f"weights were not finite before this step: {named} ({hit})"
            case "buffer":
                return f"a buffer was not finite before this step: {named} ({hit})"
            case "loss":
                output = f", {self.operands[0]}," if self.operands else ""
                return (
                    f"the gradient that came back to the output of the model{output} "
                    f"is {hit}: what comes after the model made it, the loss"
                )
            case "unseen":
                return (
                    f"{hit} come from outside of torch's operators: a constant, NumPy, "
                    "a kernel of its own, data inside of an object"
                )
            case "unknown":
                return "what made the first non-finite number was not found out"
        if self.overflows:
            hit = hit.replace(self.result, self.overflows, 1)
            return f"{self.call} overflows {hit}"
        return f"{self.call} gives {hit}"

    @property
    def call(self) -> str:
        """The operation and what it was given, as `log(0)`."""
        name = self.op.strip("_") or self.function
        if not self.operands:
            return name
        given = ", ".join(map(str, self.operands))
        return f"{name}({given})" if self.elementwise else f"{name} of {given}"

    @property
    def elementwise(self) -> bool:
        """Whether the operands have the values of one entry."""
        return all(operand.value is not None for operand in self.operands)

    @property
    def origin(self) -> str:
        """The shortest way to name it, as `masked_fill (model.py:42)`."""
        name = ", ".join(self.names) or self.op.strip("_") or "a constant"
        return f"{name} ({self.source})" if self.source else name

    @property
    def cause(self) -> str:
        """What is to blame, in a few words."""
        module = self.module or "the model"
        match self.kind:
            case "forward":
                return f"{self.call} in {module}"
            case "backward":
                return f"the backward of {self.function.strip('_')} in {module}"
            case "batch":
                return "the data"
            case "loss":
                return "the loss, or what else comes after the model"
        return self.what

    @property
    def advice(self) -> str:
        """One thing to try."""
        match self.kind:
            case "batch":
                return "look at these entries of the data set, and drop or mend them"
            case "weights" | "buffer":
                return "resume from a checkpoint before it; read every step, to see why"
            case "loss":
                return (
                    "gradlab.monitor.find_non_finite(model, *batch, loss=...), which "
                    "names the operation in the loss"
                )
            case "unseen":
                return "look at what this module takes from outside"
            case "unknown":
                return ""
        if self.overflows:
            name = self.op.strip("_")
            scale = "; a smaller loss scale" if self.kind == "backward" else ""
            return (
                f"{name} in a wider dtype than {self.overflows} (outside of autocast), "
                f"or smaller values before it{scale}"
            )
        return advice_for(self.function or self.op, self.kind)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, ready for JSON."""
        return asdict(self)

    def _where(self) -> str:
        code = self.code if len(self.code) <= 60 else f"{self.code[:57]}..."
        line = f"{self.source}: {code}" if code else self.source
        line = f" ({line})" if line else ""
        module = self.module or "the model"
        if self.kind == "backward":
            function = self.function.strip("_")
            return f", in the backward of {function} in {module}{line}"
        if self.kind == "forward" or (self.kind == "unseen" and (self.module or line)):
            return f", in the forward of {module}{line}"
        return ""

    def _entries(self) -> str:
        if not self.entries or self.kind in ("weights", "buffer"):
            return ""
        if len(self.entries) == self.batch:
            return f"all {self.batch} batch entries"
        few = ", ".join(map(str, self.entries[:MOST]))
        more = len(self.entries) - MOST
        few += f" and {more} more" if more > 0 else ""
        noun = "entry" if len(self.entries) == 1 else "entries"
        return f"batch {noun} {few} of {self.batch}"
