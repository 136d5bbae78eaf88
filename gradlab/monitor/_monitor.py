"""Watches the gradients of a model in a training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from .._snapshot import Snapshot, Stage
from ..pathologies import Pathology, pathologies as every_pathology
from ..quantities import Feed, Quantity
from ._action import Action, Actions, Audit, Run
from ._activation_watch import ActivationWatch
from ._agreement import rank
from ._dead_units import DeadUnitLedger
from ._guilty_factor import GuiltyFactor
from ._known_functions import Op
from ._layers import Outline
from ._live_gradcheck import LiveGradcheck
from ._non_finite import NonFiniteTrace
from ._options import chosen_quantities, must_be_listed
from ._outputs import Terminal
from ._sinks import Sink, Sinks
from ._step_reader import OF_MICROBATCHES, OF_UPDATES, StepReader
from ._tiers import Tiers
from ._watchdog import Watchdog

_TIER: dict[Feed, str] = {
    **{"gradient": "gradient", "clipping": "gradient", "activation": "activation"},
    **dict.fromkeys(OF_MICROBATCHES, "gradient"),
    **dict.fromkeys(OF_UPDATES, "update"),
}


class Monitor:
    """Reads the gradients of a model once an optimizer step and hands them on.

    A watched optimizer is read the moment before it applies its gradient, so clipping,
    accumulation and the reduction over ranks have happened and the stage is `applied`.
    Call `before_clipping` to have the gradient before clipping too. A closure is read
    after its first run. The loss scale of a fused optimizer under `GradScaler` is
    divided out. A step that `GradScaler` skips is not seen, except that a fused
    optimizer is called and its non-finite gradient reported.

    Watching changes nothing: without activations the model gets no hook (to measure
    microbatches or single ranks, its parameters get one each), the gradients
    are only read, on their device, with one transfer to the host for all of them (and a
    second for those that float32 cannot hold). A step that is not read costs some
    dictionary lookups. What fails while watching is a warning, once, and is counted in
    `failures`; training goes on.

    Rows of a snapshot: the total, the modules that own trainable parameters, these
    parameters. A frozen parameter has no row; one without a gradient is unavailable.
    With several optimizers each snapshot has the parameters of the one that takes the
    step, and its total is called `total/0`, `total/1`, … in the order in which they
    were attached.

    Under DistributedDataParallel every rank can watch the module inside the wrapper;
    give sinks to one of them. Of sharded gradients (DTensor: FSDP2, tensor parallelism)
    each rank reads its shard, and one collective for all of them makes the numbers
    those of the whole: every rank must watch, with the same options.

    Args:
        model: The model; its module paths name the rows.
        optimizer: The optimizer to watch; more with `attach`. None to call `observe`
            yourself.
        quantities: What to measure. None is the gradient's norm, rms and count of
            non-finite entries, the clip coefficient, the update ratio, and whatever
            `pathologies` need.
        every_n_steps: Read the first of every n steps.
        start: The first step to read.
        end: The first step not to read any more; None reads to the end.
        modules: Globs on module paths: the layers to have rows. The total stays that of
            the model.
        activations: Whether to watch the outputs of modules too, with forward hooks,
            and the gradients that come back to them: True for every module that owns
            parameters or is an activation function, or globs on module paths; None if
            a quantity of activations is named. They get a snapshot of their own.
        budget: The share of the run's time that watching may take, as 0.02: it then
            reads as often as that allows, gradients oftener than activations, and
            measures what it takes as the quantity `overhead`.
            Between readings the hooks are off the model (not with several optimizers,
            and on modules not once `torch.compile` has traced them; compile before the
            first reading). Counted is the host's time in hooks, but not that of `trace`
            and `live_gradcheck`, which stay on, nor the 2 µs a backward that torch
            takes for a parameter that once had a hook, as for the noise scale.
        pathologies: What to look for: True is all that are on by default. Findings go
            to the terminal, and to each sink that takes them.
        actions: What to do about findings.
        dry_run: Whether actions only say what they would do.
        trace: Whether to keep what the model was called with until the step is over, so
            that the first non-finite gradient is traced back to the operation, the line
            and the entries of the batch that made it (`NonFiniteTrace`).
        live_gradcheck: Compare explicit backwards with autograd of their references on
            rows of the real batch, the first of every so many steps (`LiveGradcheck`).
        functions: Your Functions to compare beside gradlab's: a Function, a pair of one
            and its reference, or an OpInfo.
        scaler: The GradScaler of the run; its scale is divided out of the gradients of
            activations, microbatches and single ranks, which nobody unscales. None
            finds the one whose `step` calls a watched optimizer's.
        sinks: What is called with each snapshot, and with `finding(finding)` and
            `crashed(error)` if it has these. A sink that fails is reported once, its
            losses are counted in `lost`, and training goes on.
        clock: Tells the step of a reading; None counts the optimizer steps seen.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the model has nothing to train, a number is out of its range, a
            pattern fits no module, or two quantities share a name.

    Attributes:
        model: The model.
        quantities: What is measured.

    Example:
        >>> import torch
        >>> from gradlab.quantities import GradNorm
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters())
        >>> show = lambda snapshot: print(snapshot.scalars())
        >>> with Monitor(model, optimizer, quantities=[GradNorm()], sinks=[show]):
        ...     model(torch.tensor([[3.0, 4.0]])).sum().backward()
        ...     optimizer.step()
        {'grad_norm/total': 5.09901951..., 'grad_norm/root': 5.09901951...}
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        *,
        quantities: Sequence[Quantity] | None = None,
        every_n_steps: int = 1,
        start: int = 0,
        end: int | None = None,
        modules: Sequence[str] | None = None,
        activations: bool | Sequence[str] | None = None,
        budget: float | None = None,
        pathologies: bool | Sequence[Pathology] = False,
        actions: Sequence[Action] = (),
        dry_run: bool = True,
        trace: bool = False,
        live_gradcheck: int | None = None,
        functions: Sequence[Op] = (),
        scaler: GradScaler | None = None,
        sinks: Sequence[Sink] = (),
        clock: Callable[[], int] | None = None,
    ) -> None:
        for name, flag in (("dry_run", dry_run), ("trace", trace)):
            if not isinstance(flag, bool):
                raise TypeError(f"{name} is True or False, got {flag!r}")
        if scaler is not None and not hasattr(scaler, "get_scale"):
            raise TypeError(f"a scaler is a torch.amp.GradScaler, got {scaler!r}")
        if clock is not None and not callable(clock):
            raise TypeError(f"a clock is called for the step, got clock={clock!r}")
        for name, listed in (("actions", actions), ("functions", functions)):
            must_be_listed(name, listed)
        looked_for = _looked_for(pathologies)
        chosen = chosen_quantities(model, quantities, activations, looked_for)
        self.model = model
        self.quantities = chosen
        outline = Outline(model, modules)
        outline.check()
        in_use = dict.fromkeys(_TIER[quantity.feed] for quantity in chosen)
        tiers = Tiers([*in_use], every_n_steps, start, end, budget)
        self._run = Run(model)
        codes = [pathology.code for pathology in looked_for]
        self._actions = Actions(actions, self._run, dry_run, codes)
        self._sinks = Sinks(sinks)
        self._reader = StepReader(
            outline, chosen, tiers, self._sinks, self._run, clock, scaler
        )
        self._trace: NonFiniteTrace | None = None
        self._live: LiveGradcheck | None = None
        try:
            if of_activations := [q for q in chosen if q.feed == "activation"]:
                patterns = None if isinstance(activations, bool) else activations
                self._reader.activations = ActivationWatch(
                    model, patterns, of_activations, self._reader.may_be_read, scaler
                )
            if live_gradcheck is not None or functions:
                self._live = LiveGradcheck(
                    model,
                    ops=functions,
                    every_n_steps=100 if live_gradcheck is None else live_gradcheck,
                    clock=self._reader.now,
                    sinks=[self._sinks.take],
                )
            if trace:
                self._trace = NonFiniteTrace(model)
            if looked_for:
                # What all ranks see is printed once.
                printed = [] if rank() else [Terminal()]
                outputs = [*printed, *self._sinks.of_findings()]
                traced = [] if self._trace is None else [self._trace]
                explain = [GuiltyFactor(), *traced]
                acts = [self._actions] if actions else []
                watchdog = Watchdog(looked_for, outputs, explain=explain, acts=acts)
                self._sinks.add(watchdog)
            if optimizer is not None:
                self.attach(optimizer)
        except BaseException:
            self.detach()
            raise

    @property
    def step(self) -> int:
        """The step of the next snapshot: the optimizer steps seen, or as it was set.

        Set it after a resume; it counts on from there.
        """
        return self._reader.step

    @step.setter
    def step(self, step: int) -> None:
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise ValueError(f"a step is a whole number, counted from 0, got {step!r}")
        self._reader.step = step

    @property
    def lost(self) -> int:
        """How many snapshots sinks have failed to take."""
        return self._sinks.lost

    @property
    def failures(self) -> int:
        """How often reading failed; the first time is a warning."""
        return self._reader.failures

    @property
    def should_stop(self) -> bool:
        """Whether an action asked for the end of the run; a plain loop looks at it."""
        return self._run.stop

    @property
    def audit(self) -> list[Audit]:
        """What was done about findings, or would have been in a dry run."""
        return self._actions.audit

    @property
    def dead_units(self) -> DeadUnitLedger | None:
        """When each unit was last active; None unless `DeadUnits` is measured."""
        watch = self._reader.activations
        return None if watch is None else watch.ledger

    def attach(self, optimizer: Optimizer) -> None:
        """Watch one more optimizer.

        Args:
            optimizer: An optimizer of some of the model's parameters.

        Raises:
            TypeError: If it is not an optimizer.
            ValueError: If it is watched already or has no parameter of the model.
        """
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                "a watched optimizer is a torch.optim.Optimizer, got "
                f"{type(optimizer).__name__}"
            )
        if id(optimizer) in self._reader.taps:
            raise ValueError(
                f"an optimizer is attached once, got this {type(optimizer).__name__} "
                "again; detach() lets go of all"
            )
        if _owned(optimizer).isdisjoint(id(p) for p in self.model.parameters()):
            raise ValueError(
                "a watched optimizer trains the watched model, got "
                f"{type(optimizer).__name__}, which shares no parameter with "
                f"{type(self.model).__name__}; was it made from another copy?"
            )
        if self._live is not None:
            self._live.attach(optimizer)
        if self._trace is not None:
            self._trace.restore()
        self._reader.add(optimizer)

    def detach(self) -> None:
        """Leave no hook behind and flush the sinks; safe to call twice."""
        self._reader.remove()
        if self._live is not None:
            self._live.detach()
        if self._trace is not None:
            self._trace.remove()
        self._sinks.flush()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._sinks.crashed(error)
        self.detach()
        self._sinks.close()

    def observe(
        self,
        step: int,
        stage: Stage,
        scale: float | Tensor = 1.0,
        *,
        optimizer: Optimizer | None = None,
        total: str = "total",
    ) -> Snapshot:
        """Read the gradients now, whatever the schedule says.

        Args:
            step: The step they belong to.
            stage: Where they are on their way to the update.
            scale: What the loss was multiplied by; it is divided out.
            optimizer: Read its parameters only; None reads the whole model.
            total: The name of the total row.

        Returns:
            The snapshot that the sinks were handed.

        Raises:
            ValueError: If no quantity is of gradients.
        """
        if not self._reader.of_gradients:
            raise ValueError(
                "observe() reads quantities of gradients, got none: updates are "
                "measured when a watched optimizer takes its step"
            )
        return self._reader.read_gradients(step, stage, scale, optimizer, total)

    def before_clipping(
        self, optimizer: Optimizer | None = None, scale: float | Tensor = 1.0
    ) -> None:
        """Call it just before clipping, to have the gradient before and after it.

        If the coming step is read, the gradients are read now, with the stage
        `unscaled`. If something writes to them before the step, as clipping does, they
        are read there too, `applied`, and the ratio is the quantity `clip_coefficient`.
        The sinks get both at the step, so that an action can still skip it; of several
        calls before a step the last counts. With a GradScaler unscale first, as
        clipping asks for too.

        Args:
            optimizer: Whose gradients are clipped; None is every watched one.
            scale: What the gradients are still multiplied by.

        Raises:
            ValueError: If no such optimizer is watched.

        Example:
            >>> import torch
            >>> model = nn.Linear(2, 1)
            >>> optimizer = torch.optim.SGD(model.parameters())
            >>> show = lambda s: print(s.step, s.stage, s.quantities)
            >>> with Monitor(model, optimizer, sinks=[show]) as monitor:
            ...     model(torch.ones(4, 2)).sum().backward()
            ...     monitor.before_clipping()
            ...     _ = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            ...     optimizer.step()
            0 unscaled ('grad_norm', 'grad_rms', 'grad_nonfinite')
            0 applied ('grad_norm', 'grad_rms', 'grad_nonfinite')
            0 applied ('clip_coefficient',)
            0 applied ('update_ratio',)
        """
        watched = [tap.optimizer for tap in self._reader.taps.values()]
        if optimizer is not None and optimizer not in watched:
            raise ValueError(
                "before_clipping() is about a watched optimizer, got a "
                f"{type(optimizer).__name__} that is not; attach it first"
            )
        if not watched:
            raise ValueError(
                "before_clipping() is about the step of a watched optimizer, got none "
                "that is watched; attach one first"
            )
        for one in watched if optimizer is None else [optimizer]:
            self._reader.before_clipping(one, scale)

    def observe_activations(
        self, step: int, scale: float | Tensor | None = None
    ) -> Snapshot | None:
        """Read now what flowed through the model since the last reading.

        A watched optimizer calls it at its step. The stage is `raw`: of this rank, the
        microbatches of a step taken together.

        Args:
            step: The step it belongs to.
            scale: What the loss was multiplied by; None asks the scaler.

        Returns:
            The snapshot that the sinks were handed, one row a module in the order of
            the forward; None if no gradient came back to a watched module.

        Raises:
            ValueError: If activations are not watched.
        """
        if self._reader.activations is None:
            raise ValueError(
                "observe_activations() reads watched activations, got a Monitor made "
                "without activations=True"
            )
        return self._reader.read_activations(step, scale)


def _looked_for(pathologies: bool | Sequence[Pathology]) -> tuple[Pathology, ...]:
    if isinstance(pathologies, bool):
        return every_pathology if pathologies else ()
    must_be_listed("pathologies", pathologies)
    for pathology in pathologies:
        if not isinstance(pathology, Pathology):
            known = ", ".join(type(one).__name__ for one in every_pathology)
            raise TypeError(
                "pathologies are True, False or instances of "
                f"gradlab.pathologies.Pathology, got {pathology!r}; is it a class that "
                f"was not called, or a name? There are {known}"
            )
    return tuple(pathologies)


def _owned(optimizer: Optimizer) -> set[int]:
    return {id(p) for group in optimizer.param_groups for p in group["params"]}
