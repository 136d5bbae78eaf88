"""Follows every operator, and sees where a non-finite number is born.

A result is *born* non-finite if all it was made from is finite. Else it inherits: each
storage that is not finite has the birth it goes back to. NaN made from infinity (∞ − ∞,
0·∞, a softmax of −∞ only) is a birth with a parent. An infinity that was asked for, as
masked_fill(−∞), is deliberate: it is to blame for nothing, what makes NaN of it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._autograd import _get_sequence_nr
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from ._culprit import Culprit, Kind
from ._evidence import (
    Arguments,
    born_beside,
    names_infinity,
    operands_of,
    overflowed,
    tensors_in,
)
from ._finite import dense, hit_rows, non_finite
from ._user_line import user_line


class CollectiveError(RuntimeError):
    """A collective was about to run, in which the other ranks would not take part."""


class Site(NamedTuple):
    """Where an operator was called."""

    op: str = ""
    module: str = ""
    source: str = ""
    code: str = ""


@dataclass(frozen=True, eq=False)
class Birth:
    """A non-finite number that nothing non-finite went into.

    Attributes:
        index: Which one, in the order of the run; `DOUBTFUL` comes after all others.
        culprit: What is known of it.
        parent: The birth of the infinity that this NaN was made from.
        deliberate: Whether it is an infinity that was asked for.
    """

    index: int
    culprit: Culprit
    parent: Birth | None = None
    deliberate: bool = False

    @property
    def first(self) -> Birth:
        """Its earliest ancestor that was not asked for."""
        birth = self
        while birth.parent is not None and not birth.parent.deliberate:
            birth = birth.parent
        return birth

    @property
    def verdict(self) -> Culprit:
        """That ancestor, and what its number led to."""
        first = self.first
        culprit = first.culprit
        if first is not self:
            late = self.culprit
            call = late.call if late.elementwise else late.op.strip("_")
            place = f" in the backward of {late.function}" if late.function else ""
            then = f"{call} makes {late.result} of it{place}"
            culprit = replace(culprit, then=then)
        if first.parent is not None:
            asked = first.parent.culprit
            culprit = replace(
                culprit, note=f"its {asked.result} comes from {asked.origin}"
            )
        return culprit


class Births(TorchDispatchMode):
    """Records the births of non-finite numbers while it is entered.

    Args:
        batch: How many entries the batch has along dimension 0; 0 if unknown.

    Attributes:
        path: The modules that are running, the innermost last.
        nodes: For each node of the graph the call that it is the backward of.
        protected: What `put_back` restores if an operator writes to it, by storage.
    """

    def __init__(self, batch: int = 0) -> None:
        super().__init__()
        self.batch = batch
        self.path: list[str] = []
        self.nodes: dict[Any, Site] = {}
        self.protected: dict[int, Tensor] = {}
        self._written: dict[int, tuple[Tensor, Tensor]] = {}
        self._backward = False
        self._quiet = False
        self._sites: dict[int, Site] = {}
        self._origins: dict[int, tuple[StorageWeakRef, Birth]] = {}
        self._born = 0
        self._guilty: Birth | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run one operator and look at what it gave.

        Args:
            func: The operator.
            types: The subclasses of Tensor among its arguments, which go first.
            args: Its arguments.
            kwargs: Its arguments by name.

        Returns:
            What it returned.

        Raises:
            CollectiveError: If it is a collective.
        """
        kwargs = kwargs or {}
        if self._quiet:
            return func(*args, **kwargs)
        if any(kind not in _PLAIN for kind in types):
            return NotImplemented
        if func.namespace in _COLLECTIVE:
            raise CollectiveError(str(func))
        name = func._schema.name.rpartition("::")[2]
        inputs, written, before = self._inputs(func, name, args, kwargs)
        out = func(*args, **kwargs)
        if not self._backward or torch.is_grad_enabled():
            # The node of this call was made just before it.
            number = _get_sequence_nr() - 1
            if number not in self._sites:
                self._sites[number] = self._here(name)
        if func.is_view or name.startswith(_UNINITIALIZED):
            return out
        results = {id(tensor): tensor for tensor in (*written, *tensors_in(out))}
        for tensor in results.values():
            if bad := non_finite(tensor):
                call = tree_map(lambda x: before.get(id(x), x), (args, kwargs))
                site = self._here(name)
                self._look(func, site, call, inputs, tensor, bad)
        return out

    def begin_backward(self, nodes: Iterable[Any]) -> None:
        """The forward is over.

        Args:
            nodes: The nodes of its graph.
        """
        self._backward = True
        for node in nodes:
            self.nodes[node] = self._sites.get(node._sequence_nr(), Site())
        self._sites.clear()

    def put_back(self) -> None:
        """Undo what operators have written to protected tensors."""
        for tensor, before in self._written.values():
            tensor.copy_(before)
        self._written.clear()

    def seed(
        self, tensor: Tensor, kind: Kind, name: str, doubtful: bool = False
    ) -> None:
        """Look at a tensor that is there before the forward.

        Args:
            tensor: The tensor.
            kind: What it is.
            name: Its name.
            doubtful: Whether the forward may have made it non-finite itself, the first
                time: then it is to blame only if nothing else is.
        """
        if bad := non_finite(tensor):
            culprit = replace(self.facts(kind, tensor, bad), names=(name,))
            if doubtful:
                note = "unless this forward, which writes to it, made it so"
                self._inherit(tensor, Birth(DOUBTFUL, replace(culprit, note=note)))
                return
            # An additive mask holds -inf, and is meant to.
            self._bear(tensor, culprit, None, kind == "batch" and bad == {"-inf"})

    def find_unseen(
        self,
        tensor: Tensor,
        sources: Iterable[Tensor],
        kind: Kind,
        site: Site,
        function: str = "",
    ) -> None:
        """Look at a result that may have been made without torch's operators.

        Args:
            tensor: The tensor.
            sources: What it was made from.
            kind: Where it was made.
            site: What made it.
            function: The `autograd.Function` whose backward returned it.
        """
        # What vmap and grad hand around has no storage.
        if torch._C._are_functorch_transforms_active() or self._known(tensor):
            return
        self._quiet = True
        if bad := non_finite(tensor):
            births = [self._known(one) for one in sources if non_finite(one)]
            if known := [birth for birth in births if birth is not None]:
                self._inherit(tensor, _guiltiest(known))
            else:
                culprit = replace(self.facts(kind, tensor, bad), function=function)
                culprit = replace(culprit, **site._asdict())
                self._bear(tensor, culprit, None, False)
        self._quiet = False

    def blame(self, tensors: Iterable[Tensor]) -> Birth | None:
        """The first birth that non-finite tensors go back to; None if all are finite.

        Args:
            tensors: Any tensors.
        """
        births = [
            self._known(tensor) or self._unseen(tensor, bad, Site())
            for tensor in tensors
            if (bad := non_finite(tensor))
        ]
        births.sort(key=lambda birth: (birth.deliberate, birth.first.index))
        return births[0] if births else None

    def facts(self, kind: Kind, tensor: Tensor, bad: set[str]) -> Culprit:
        """What a non-finite tensor shows by itself.

        Args:
            kind: Where it was made.
            tensor: The tensor.
            bad: What it holds, of `nan`, `inf` and `-inf`.

        Returns:
            A culprit without the operation.
        """
        wrong = ~torch.isfinite(dense(tensor))
        return Culprit(
            kind,
            result=" and ".join(sorted(bad, key=["nan", "inf", "-inf"].index)),
            count=int(wrong.sum()),
            of=wrong.numel(),
            shape=tuple(tensor.shape),
            entries=hit_rows(tensor, self.batch),
            batch=self.batch,
        )

    def _inputs(
        self, func: Any, name: str, args: Any, kwargs: Any
    ) -> tuple[list[Tensor], list[Tensor], dict[int, Tensor]]:
        """What is read, what is written to, and of that what it was, by identity."""
        inputs: list[Tensor] = []
        written: list[Tensor] = []
        before: dict[int, Tensor] = {}
        training = func.namespace == "aten" and _is_training(func, name, args, kwargs)
        for i, argument in enumerate(func._schema.arguments):
            given = args[i] if i < len(args) else kwargs.get(argument.name)
            if argument.name.startswith("running_") and training:
                # Only written to, by most without saying so.
                continue
            tensors = tensors_in(given)
            if argument.alias_info is None or not argument.alias_info.is_write:
                inputs += tensors
                continue
            written += tensors
            for tensor in tensors:
                self._save(tensor)
                if argument.is_out or name in _ONLY_WRITE:
                    continue
                before[id(tensor)] = copy = tensor.clone()
                inputs.append(copy)
                if birth := self._known(tensor):
                    self._inherit(copy, birth)
        return inputs, written, before

    def _save(self, tensor: Tensor) -> None:
        whole = self.protected.get(_storage(tensor))
        if whole is not None and _storage(whole) not in self._written:
            self._written[_storage(whole)] = whole, whole.clone()

    def _look(
        self,
        func: Any,
        site: Site,
        call: Arguments,
        inputs: list[Tensor],
        tensor: Tensor,
        bad: set[str],
    ) -> None:
        """Tell whether a non-finite result is inherited or born here."""
        parents: list[Birth] = []
        nans: list[Birth] = []
        for one in inputs:
            if found := non_finite(one):
                birth = self._known(one) or self._unseen(one, found, site)
                (nans if "nan" in found else parents).append(birth)
        if "nan" in bad and nans:
            doubtful = all(birth.index == DOUBTFUL for birth in nans)
            self._inherit(tensor, _guiltiest(nans + parents if doubtful else nans))
            return
        parents += nans
        born = "nan" in bad or not parents
        if not born and all(birth.deliberate for birth in parents):
            # Beside an infinity that was asked for, another may be born.
            born = torch.Tag.pointwise in func.tags and born_beside(tensor, inputs)
        if not born:
            self._inherit(tensor, _guiltiest(parents))
            return
        culprit = self._placed(self.facts("forward", tensor, bad), site)
        culprit = replace(
            culprit,
            operands=operands_of(func, call, inputs, tensor),
            overflows="" if parents else overflowed(func, call, tensor),
        )
        parent = _guiltiest(parents) if parents else None
        self._bear(tensor, culprit, parent, "nan" not in bad and names_infinity(call))

    def _placed(self, culprit: Culprit, site: Site) -> Culprit:
        node = torch._C._current_autograd_node()
        # A checkpoint runs a forward again in the middle of the backward.
        recomputed = self._backward and torch.is_grad_enabled()
        if node is not None and not recomputed:
            of = self.nodes.get(node)
            if of is None:
                # Of a backward inside of the forward, or of one run again.
                of = self._sites.get(node._sequence_nr(), Site())
            function = function_name(node) or of.op or node.name()
            culprit = replace(culprit, kind="backward", function=function)
            line = site if site.source else of
            site = Site(site.op, of.module, line.source, line.code)
        return replace(culprit, **site._asdict())

    def _here(self, name: str) -> Site:
        return Site(name, self.path[-1] if self.path else "", *user_line())

    def _unseen(self, tensor: Tensor, bad: set[str], site: Site) -> Birth:
        """The birth of what no operator has made: a constant, or what a kernel gave."""
        # A constant has no gradient, and infinity in it was asked for.
        constant = "nan" not in bad and not tensor.requires_grad
        if self._guilty is not None and not constant:
            # The kernel has most likely handed on what was made before.
            self._inherit(tensor, self._guilty)
            return self._guilty
        culprit = replace(self.facts("unseen", tensor, bad), **site._asdict())
        return self._bear(tensor, replace(culprit, op=""), None, constant)

    def _bear(
        self, tensor: Tensor, culprit: Culprit, parent: Birth | None, deliberate: bool
    ) -> Birth:
        birth = Birth(self._born, culprit, parent, deliberate)
        self._born += 1
        if not deliberate:
            self._guilty = birth
        self._inherit(tensor, birth)
        return birth

    def _inherit(self, tensor: Tensor, birth: Birth) -> None:
        # While a storage is referred to, even weakly, no other has its address.
        storage = StorageWeakRef(dense_storage(tensor))
        self._origins[_storage(tensor)] = storage, birth

    def _known(self, tensor: Tensor) -> Birth | None:
        origin = self._origins.get(_storage(tensor))
        return None if origin is None else origin[1]


def function_name(node: Any) -> str:
    """The name of the `autograd.Function` of a node; empty if it is one of torch's.

    Args:
        node: A node of the graph.
    """
    if not isinstance(node, torch.autograd.function.BackwardCFunction):
        return ""
    return type(node).__name__.removesuffix("Backward")


def dense_storage(tensor: Tensor) -> torch.UntypedStorage:
    """Where the values of a tensor are kept.

    Args:
        tensor: Any tensor.
    """
    if tensor.layout is torch.sparse_coo:
        tensor = tensor._values()
    elif tensor.layout is not torch.strided:
        tensor = tensor.values()
    return tensor.untyped_storage()


def _storage(tensor: Tensor) -> int:
    return dense_storage(tensor)._cdata


def _is_training(func: Any, name: str, args: Any, kwargs: Any) -> bool:
    """Whether a batch norm, or its backward, takes the statistics of the batch."""
    for i, argument in enumerate(func._schema.arguments):
        if argument.name in ("training", "train", "update"):
            return bool(args[i] if i < len(args) else kwargs.get(argument.name))
    # The backwards of cuDNN and MIOpen, and the parts of SyncBatchNorm, do.
    return not name.endswith(("_no_training", "_no_update"))


def _guiltiest(births: list[Birth]) -> Birth:
    """The earliest that was not asked for, if there is one."""
    return min(births, key=lambda birth: (birth.deliberate, birth.index))


DOUBTFUL = sys.maxsize
_PLAIN = {Tensor, torch.nn.Parameter, torch.nn.Buffer}
_COLLECTIVE = {"c10d", "_c10d_functional", "c10d_functional", "_dtensor", "symm_mem"}
_UNINITIALIZED = ("empty", "new_empty", "resize_")
_ONLY_WRITE = {
    *("copy_", "fill_", "zero_", "normal_", "uniform_", "bernoulli_", "exponential_"),
    *("random_", "set_", "log_normal_", "cauchy_", "geometric_"),
}
