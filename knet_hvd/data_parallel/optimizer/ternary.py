"""The class of path A: an optimizer whose gradients cross as ternary codes."""

import warnings
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakIdKeyDictionary

from knet_hvd.data_parallel.gradient_versions import GradientVersion
from knet_hvd.data_parallel.optimizer.reducer_view import ReducerView
from knet_hvd.data_parallel.ranks.fixed_ranks import FixedRanks
from knet_hvd.errors import KnetError
from knet_hvd.performance import Advice

_hooks: MutableMapping[Tensor, RemovableHandle] = WeakIdKeyDictionary()
"""Of each parameter, the hook of the latest optimizer that was made for it."""


class TernaryOptimizer(ReducerView):
    """What ``DistributedOptimizer`` adds to the class of the optimizer it wraps.

    Never constructed by itself; ``step``, ``synchronize``, ``skip_synchronize`` and
    ``zero_grad`` behave as those of Horovod's optimizer. ``step`` is put into the class
    made for the wrapped optimizer: the one of its parent class must not exchange, since
    ``hvd.broadcast_optimizer_state`` calls it on some ranks only.
    """

    compression_advice: Advice | None
    _ranks: FixedRanks
    _managed: dict[Tensor, str]
    _passes_left: dict[Tensor, int]
    _exchanging: dict[Tensor, GradientVersion]
    backward_passes_per_step: int
    _synchronized: bool
    _should_synchronize: bool

    def __init__(self, *arguments: Any) -> None:
        """Refuse to be made as the base of another optimizer, such as Horovod's.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "optimizer: it is already a knet_hvd.DistributedOptimizer, which exchanges gradients; "
            "do not pass it to hvd.DistributedOptimizer"
        )

    def _attach(self) -> None:
        """Have every parameter's gradient reported when it is complete."""
        self._synchronized = False
        self._should_synchronize = True
        self._expect_gradients()
        for parameter in self._reducer.parameters:
            if parameter in _hooks:
                _hooks[parameter].remove()
            _hooks[parameter] = parameter.register_post_accumulate_grad_hook(self._on_gradient)

    def _expect_gradients(self) -> None:
        self._passes_left = dict.fromkeys(self._managed, self.backward_passes_per_step)
        self._exchanging = {}

    def _on_gradient(self, parameter: Tensor) -> None:
        if not self._exchanging:
            self._ranks.check("knet_hvd.DistributedOptimizer")
        self._synchronized = False
        if self._passes_left[parameter] == 0:
            raise KnetError(
                f"{self._managed[parameter]}: its gradient was computed more than "
                f"backward_passes_per_step={self.backward_passes_per_step} times "
                "before step(); raise backward_passes_per_step to accumulate gradients"
            )
        self._passes_left[parameter] -= 1
        if self._passes_left[parameter] == 0:
            self._densify(parameter)
            if parameter.grad is not None:
                self._exchanging[parameter] = GradientVersion.of(parameter.grad)
            self._reducer.mark_ready(parameter)

    def _densify(self, parameter: Tensor) -> None:
        gradient = parameter.grad
        if gradient is None or not gradient.is_sparse:
            return
        if not self._reducer.may_stay_sparse(parameter):
            parameter.grad = gradient.to_dense()

    @property
    def _parameter_names(self) -> dict[Tensor, str]:
        """Names by parameter, which scripts read from Horovod's optimizer."""
        return dict(self._managed)

    def poll(self) -> bool:
        """Return whether ``step`` would not wait; call it after ``backward`` only.

        Raises:
            KnetError: As ``synchronize``.
        """
        if self._synchronized:
            return True
        self._prepare()
        return self._reducer.poll()

    def synchronize(self) -> None:
        """Wait until all gradients are averaged, for example to clip them before step.

        Raises:
            KnetError: If a gradient was changed since backward; if a parameter was unfrozen, or the
                ranks changed, after the optimizer was made.
        """
        self._prepare()
        self._reducer.finish()
        self._expect_gradients()
        # On all ranks, also where a batch left no gradient: updates of dense gradients may round
        # differently.
        for parameter in self._reducer.sparse:
            if parameter.grad is not None and not parameter.grad.is_sparse:
                parameter.grad = parameter.grad.to_sparse()
        self._synchronized = True

    def _prepare(self) -> None:
        self._ranks.check("knet_hvd.DistributedOptimizer")
        self._check_unfrozen()
        for parameter, version in self._exchanging.items():
            version.check(self._managed[parameter], parameter)
        for parameter in self._reducer.parameters:
            self._densify(parameter)

    def _check_unfrozen(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and not self._reducer.manages(parameter):
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

    def synchronize_and_step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Average the gradients over all ranks and update the parameters.

        Args:
            closure: Computes the loss and its gradients, which are averaged after it.

        Raises:
            KnetError: As ``synchronize``; in ``skip_synchronize`` also if gradients are still
                being exchanged.
        """
        if self._should_synchronize:
            if self._synchronized:
                warnings.warn(
                    "optimizer.step() called without optimizer.skip_synchronize() context after "
                    "optimizer.synchronize(). It exchanges nothing new; put it into "
                    "`with optimizer.skip_synchronize():`",
                    stacklevel=2,
                )
            elif closure is None:
                self.synchronize()
            else:
                closure = self._synchronized_after(closure)
        elif self._exchanging or self._reducer.is_busy:
            raise KnetError(
                "step() in skip_synchronize() would use this rank's own gradients: backward() has "
                "produced new ones since synchronize(). Call optimizer.synchronize() before it"
            )
        result = super().step(closure)
        self._synchronized = False
        return result

    def _synchronized_after(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        def compute() -> Any:
            loss = closure()
            self.synchronize()
            return loss

        return compute

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients; not while they are being exchanged.

        Raises:
            KnetError: If called between ``backward`` and ``step`` or ``synchronize``.
        """
        if self._exchanging or self._reducer.is_busy:
            raise KnetError(
                "zero_grad() after backward() and before step() or synchronize() would "
                "change gradients that are being exchanged"
            )
        self._synchronized = False
        super().zero_grad(set_to_none)

    def set_backward_passes_per_step(self, passes: int) -> None:
        """Accumulate gradients over that many backward passes from the next step on."""
        self.backward_passes_per_step = passes
        self._expect_gradients()

    def load_state_dict(self, state_dict: Any) -> None:
        """Load the wrapped optimizer's state; the compressor has its own."""
        self._reducer.reset()
        self._synchronized = False
        self._expect_gradients()
        super().load_state_dict(state_dict)
