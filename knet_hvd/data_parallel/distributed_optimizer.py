"""Path A: an optimizer that exchanges ternary gradients, in place of Horovod's own."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Literal

import horovod.torch as hvd
import torch
from torch import Tensor

from knet_hvd.compression import TernaryCodec, TernaryConfig
from knet_hvd.compression.levels import MAX_RANKS
from knet_hvd.config import KnetError
from knet_hvd.data_parallel.agreement import check_agreement
from knet_hvd.data_parallel.buckets import NamedParameter, plan_buckets
from knet_hvd.data_parallel.exchanges import ExchangeChoice, make_exchange
from knet_hvd.data_parallel.reducer import GradientReducer
from knet_hvd.data_parallel.snapshots import GradientSnapshot

_MAX_BUCKET_VALUES = 4 * 2**20


class TernaryOptimizer(torch.optim.Optimizer):
    """What ``DistributedOptimizer`` adds to the class of the optimizer it wraps.

    Never constructed by itself; ``step``, ``synchronize``, ``skip_synchronize`` and
    ``zero_grad`` behave as those of Horovod's optimizer.
    """

    _reducer: GradientReducer | None
    _managed: dict[Tensor, str]
    _passes_left: dict[Tensor, int]
    _sparse_as_dense: bool
    _was_sparse: set[Tensor]
    backward_passes_per_step: int
    _synchronized: bool
    _should_synchronize: bool

    def _attach(self) -> None:
        """Have every parameter's gradient reported when it is complete."""
        self._synchronized = False
        self._should_synchronize = True
        self._was_sparse = set()
        self._reset_passes()
        if self._reducer is not None:
            for parameter in self._managed:
                parameter.register_post_accumulate_grad_hook(self._on_gradient)

    def _reset_passes(self) -> None:
        self._passes_left = dict.fromkeys(self._managed, self.backward_passes_per_step)

    def _on_gradient(self, parameter: Tensor) -> None:
        if self._passes_left[parameter] == 0:
            raise KnetError(
                f"{self._managed[parameter]}: its gradient was computed more than "
                f"backward_passes_per_step={self.backward_passes_per_step} times before "
                "step(); raise backward_passes_per_step to accumulate gradients"
            )
        self._passes_left[parameter] -= 1
        if self._passes_left[parameter] == 0 and self._reducer is not None:
            self._densify(parameter)
            self._reducer.mark_ready(parameter)

    def _densify(self, parameter: Tensor) -> None:
        gradient = parameter.grad
        if gradient is not None and gradient.is_sparse and self._sparse_as_dense:
            parameter.grad = gradient.to_dense()
            self._was_sparse.add(parameter)

    def synchronize(self) -> None:
        """Wait until all gradients are averaged, for example to clip them before step.

        Raises:
            KnetError: If a parameter was unfrozen after the optimizer was made.
        """
        if self._reducer is not None:
            self._check_unfrozen()
            for parameter in self._managed:
                self._densify(parameter)
            self._reducer.finish()
            self._reset_passes()
            for parameter in self._was_sparse:
                if parameter.grad is not None:
                    parameter.grad = parameter.grad.to_sparse()
            self._was_sparse.clear()
        self._synchronized = True

    def _check_unfrozen(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter not in self._managed:
                    raise KnetError(
                        f"a parameter of shape {tuple(parameter.shape)} has a gradient "
                        "but was frozen or unknown when DistributedOptimizer was made; "
                        "make the optimizer after unfreezing or adding it"
                    )

    @contextmanager
    def skip_synchronize(self) -> Iterator[None]:
        """Let ``step`` inside this context not synchronize again."""
        self._should_synchronize = False
        try:
            yield
        finally:
            self._should_synchronize = True

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Average the gradients over all ranks and update the parameters."""
        if self._should_synchronize:
            if self._synchronized:
                warnings.warn(
                    "step() after synchronize() exchanges nothing new; put it into "
                    "`with optimizer.skip_synchronize():`",
                    stacklevel=2,
                )
            else:
                self.synchronize()
        self._synchronized = False
        return super().step(closure)  # type: ignore[arg-type]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients; not while they are being exchanged.

        Raises:
            KnetError: If called between ``backward`` and ``step`` or ``synchronize``.
        """
        if self._reducer is not None and self._reducer.is_busy:
            raise KnetError(
                "zero_grad() after backward() and before step() or synchronize() would "
                "change gradients that are being exchanged"
            )
        super().zero_grad(set_to_none)

    def set_backward_passes_per_step(self, passes: int) -> None:
        """Accumulate gradients over that many backward passes from the next step on."""
        self.backward_passes_per_step = passes
        self._reset_passes()

    def load_state_dict(self, state_dict: Any) -> None:
        """Load the wrapped optimizer's state; the compressor has its own."""
        if self._reducer is not None:
            self._reducer.reset()
        self._synchronized = False
        self._reset_passes()
        super().load_state_dict(state_dict)

    def compression_state_dict(self) -> dict[str, Any]:
        """Return the compressor's state on this rank: step and residuals."""
        if self._reducer is None:
            return {"step": 0, "residuals": {}}
        feedback = self._reducer.error_feedback
        residuals = feedback.state_dict() if feedback is not None else {}
        return {"step": self._reducer.step, "residuals": residuals}

    def load_compression_state_dict(self, state: dict[str, Any]) -> None:
        """Load what ``compression_state_dict`` returned on this rank."""
        if self._reducer is not None:
            self._reducer.step = int(state["step"])
            if self._reducer.error_feedback is not None:
                self._reducer.error_feedback.load_state_dict(state["residuals"])

    def request_snapshots(self, names: Iterable[str]) -> None:
        """Take snapshots of these parameters' gradients in the following steps."""
        if self._reducer is not None:
            self._reducer.snapshot_names = frozenset(names)

    @property
    def snapshots(self) -> dict[str, GradientSnapshot]:
        """The latest snapshots of the parameters that were asked for."""
        return self._reducer.snapshots if self._reducer is not None else {}

    @property
    def scales(self) -> dict[str, Tensor]:
        """The latest shared scales [num_scales] of each ternary parameter."""
        return self._reducer.scales if self._reducer is not None else {}

    @property
    def wire_bytes_per_step(self) -> float:
        """Bytes this rank sends in a step, by formula, headers not counted."""
        return self._reducer.wire_bytes() if self._reducer is not None else 0.0

    @property
    def uncompressed_wire_bytes_per_step(self) -> float:
        """Bytes Horovod would send in the gradients' own dtypes, by formula."""
        if self._reducer is None:
            return 0.0
        return self._reducer.uncompressed_wire_bytes()


def DistributedOptimizer(  # noqa: N802 - Horovod's name
    optimizer: torch.optim.Optimizer,
    named_parameters: Iterable[tuple[str, Tensor]] | None = None,
    compression: Any = "ternary",
    backward_passes_per_step: int = 1,
    op: Any = hvd.Average,
    gradient_predivide_factor: float = 1.0,
    num_groups: int = 0,
    groups: int | Sequence[Sequence[Tensor]] | None = None,
    sparse_as_dense: bool = False,
    process_set: hvd.ProcessSet = hvd.global_process_set,
    *,
    ternary: TernaryConfig | None = None,
    exchange: ExchangeChoice = "auto",
    max_bucket_values: int = _MAX_BUCKET_VALUES,
) -> Any:
    """Wrap an optimizer so that it averages ternary gradients over all ranks (TernGrad).

    Takes the place of ``hvd.DistributedOptimizer``: the same first arguments, the same
    methods. Scales are shared by a maximum over ranks before encoding (arXiv 1705.07878,
    eq. 4), so codes add up exactly and all ranks get the same gradient, bit for bit. A
    gradient with NaN or infinite values is NaN on all ranks.

    Args:
        optimizer: What updates the parameters.
        named_parameters: Usually ``model.named_parameters()``; the names appear in
            ``float_parameters`` patterns and messages.
        compression: ``"ternary"``; ``"none"`` or ``"fp16"`` for Horovod's optimizer. A
            Horovod compressor (``hvd.Compression.fp16``) keeps ternary codes and applies
            to the tensors that stay in floating point.
        backward_passes_per_step: Backward passes to accumulate before an exchange.
        op: ``hvd.Average`` or ``hvd.Sum``.
        gradient_predivide_factor: Accepted for compatibility: sums of codes are exact
            integers, so that dividing before or after makes no difference.
        num_groups: Horovod's older name for an integer ``groups``.
        groups: Number of groups, or lists of parameters, that cross together.
        sparse_as_dense: Exchange sparse gradients as dense ones; without it a sparse
            gradient is an error.
        process_set: The ranks that train together.
        ternary: Settings of the codec; see ``TernaryConfig``.
        exchange: ``"allgather"``, ``"alltoall"`` or ``"auto"``, the one that sends
            fewer bytes with this number of ranks.
        max_bucket_values: Gradients cross in buckets of about that many values.

    Returns:
        An optimizer of a subclass of ``type(optimizer)`` and ``TernaryOptimizer`` that
        shares the state and parameter groups of ``optimizer``.

    Raises:
        ValueError: If an argument is out of range or not supported.
        RankMismatchError: On every rank, if ranks disagree on parameters or settings.
        KnetError: If not all ranks get here within 30 s.
    """
    config = ternary or TernaryConfig()
    if isinstance(compression, str) and compression not in ("ternary", "none", "fp16"):
        raise ValueError(
            f"compression: expected 'ternary', 'none' or 'fp16', got {compression!r}"
        )
    if op not in (hvd.Average, hvd.Sum):
        raise ValueError("op: knet_hvd.DistributedOptimizer supports hvd.Average and hvd.Sum")
    if gradient_predivide_factor != 1.0 and op != hvd.Average:
        raise ValueError("gradient_predivide_factor needs op=hvd.Average")
    if backward_passes_per_step < 1:
        raise ValueError(
            f"backward_passes_per_step: expected at least 1, got {backward_passes_per_step}"
        )
    if process_set.included() and process_set.size() > MAX_RANKS:
        raise ValueError(f"at most {MAX_RANKS} ranks, got {process_set.size()}")
    parameters = _named_parameters(optimizer, named_parameters)
    if process_set.included():
        settings = (compression, op, backward_passes_per_step, exchange, max_bucket_values)
        facts = {"settings": settings, "ternary": asdict(config)}
        facts |= {p.name: f"{p.tensor.dtype} {list(p.tensor.shape)}" for p in parameters}
        check_agreement(facts, "parameters and settings of DistributedOptimizer", process_set)
    if compression in ("none", "fp16"):
        return hvd.DistributedOptimizer(
            optimizer,
            named_parameters=[(p.name, p.tensor) for p in parameters],
            compression=getattr(hvd.Compression, compression),
            backward_passes_per_step=backward_passes_per_step,
            op=op,
            gradient_predivide_factor=gradient_predivide_factor,
            num_groups=num_groups,
            groups=groups,  # type: ignore[arg-type]
            sparse_as_dense=sparse_as_dense,
            process_set=process_set,
        )
    reducer = None
    if process_set.included() and process_set.size() > 1:
        divisor = process_set.size() if op == hvd.Average else 1
        codec = TernaryCodec(config, hvd.rank())
        chosen = make_exchange(exchange, codec, process_set, divisor)
        buckets = plan_buckets(
            parameters,
            codec,
            max_bucket_values,
            _group_names(parameters, groups if groups is not None else num_groups),
        )
        floats = hvd.Compression.none if compression == "ternary" else compression
        reducer = GradientReducer(codec, chosen, *buckets, floats)
    return _wrap(optimizer, parameters, reducer, backward_passes_per_step, sparse_as_dense)


def _wrap(
    optimizer: torch.optim.Optimizer,
    parameters: list[NamedParameter],
    reducer: GradientReducer | None,
    backward_passes_per_step: int,
    sparse_as_dense: bool,
) -> TernaryOptimizer:
    """Return the optimizer again, as a TernaryOptimizer of its own class."""
    base = type(optimizer)
    cls = type(base.__name__, (TernaryOptimizer, base), {})
    wrapped: TernaryOptimizer = cls.__new__(cls)
    state = dict(optimizer.__dict__)
    state.pop("step", None)  # a scheduler's patch, bound to the optimizer wrapped here
    wrapped.__dict__.update(state)
    wrapped._reducer = reducer
    wrapped._managed = {p.tensor: p.name for p in parameters}
    wrapped.backward_passes_per_step = backward_passes_per_step
    wrapped._sparse_as_dense = sparse_as_dense
    wrapped._attach()
    return wrapped


def _named_parameters(
    optimizer: torch.optim.Optimizer,
    named_parameters: Iterable[tuple[str, Tensor]] | None,
) -> list[NamedParameter]:
    """Return the trainable parameters in the model's order, with unique names."""
    own = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    if named_parameters is None:
        named_parameters = [(f"parameter.{i}", tensor) for i, tensor in enumerate(own)]
    names: dict[Tensor, str] = {}
    for name, tensor in named_parameters:
        if name in names.values():
            raise ValueError(f"named_parameters: the name {name!r} appears twice")
        names.setdefault(tensor, name)
    nameless = [tuple(tensor.shape) for tensor in own if tensor not in names]
    if nameless:
        raise ValueError(
            f"named_parameters: {len(nameless)} of the optimizer's parameters have no "
            f"name, the first of shape {nameless[0]}; pass model.named_parameters()"
        )
    known = set(own)
    trained = [(name, t) for t, name in names.items() if t in known and t.requires_grad]
    for name, tensor in trained:
        if not tensor.is_floating_point():
            raise ValueError(f"{name}: expected a floating-point parameter, got {tensor.dtype}")
    return [NamedParameter(name, tensor, i) for i, (name, tensor) in enumerate(trained)]


def _group_names(
    parameters: list[NamedParameter], groups: int | Sequence[Sequence[Tensor]]
) -> list[frozenset[str]]:
    """Return the groups as sets of names."""
    if isinstance(groups, int):
        if groups < 0:
            raise ValueError(f"groups: expected at least 0, got {groups}")
        size = -(-len(parameters) // groups) if groups else 0
        starts = range(0, len(parameters), size) if groups and parameters else range(0)
        return [frozenset(p.name for p in parameters[i : i + size]) for i in starts]
    names = {p.tensor: p.name for p in parameters}
    members = [[names[t] for t in group if t in names] for group in groups]
    flat = [name for group in members for name in group]
    if len(flat) != len(set(flat)):
        raise ValueError("groups: a parameter appears in more than one group")
    return [frozenset(group) for group in members]
