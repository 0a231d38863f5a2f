"""Path B: ternary gradients as ``compression=`` of Horovod's own optimizer.

Horovod sums what ``compress`` returns. Packed codes cannot be summed, but codes under
one scale can: as digits of base 2N + 1 in integers that N ranks may add without a
carry. The shared scale is known beforehand because it comes from the previous step,
whose root mean squares rode along in the same buffer.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor

from knet_hvd.agreement import check_agreement
from knet_hvd.collectives import check_devices
from knet_hvd.collectives.horovod import HorovodCollectives
from knet_hvd.compression import ErrorFeedback, TernaryConfig
from knet_hvd.compression.scales import magnitude
from knet_hvd.data_parallel.allreduce.names_in_flight import claim, release
from knet_hvd.data_parallel.allreduce.parameter_state import ParameterState, ParameterTable
from knet_hvd.data_parallel.allreduce.summable import SummableCodes
from knet_hvd.data_parallel.allreduce.words import (
    full_precision_buffer,
    make_header,
    split_full_precision,
    split_header,
)
from knet_hvd.data_parallel.arguments import ternary_config
from knet_hvd.data_parallel.gradient_versions import GradientVersion
from knet_hvd.data_parallel.horovod_arguments import check_op, check_process_set
from knet_hvd.data_parallel.ranks.agreement import CollectiveRanks
from knet_hvd.data_parallel.ranks.fixed_ranks import FixedRanks
from knet_hvd.performance import allreduce_bytes


@dataclass(frozen=True, slots=True)
class _Context:
    """What ``decompress`` must know of the tensor that ``compress`` was given."""

    state: ParameterState
    gradient: Tensor
    version: GradientVersion
    scale: float | None


class TernaryCompressor:
    """Compress gradients for ``hvd.DistributedOptimizer(compression=...)``.

    The first step goes in full precision and yields the first shared scale, c times the
    mean over ranks of the root mean square (or standard deviation); each step yields
    the scale of the next. The codes are exact sums; only the scale is one step old.
    Where it has become useless (the gradient was zero, or changed 4096-fold), a step
    goes in full precision again.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Tensor]],
        *,
        ternary: TernaryConfig | None = None,
        op: Any = hvd.Average,
        process_set: hvd.ProcessSet = hvd.global_process_set,
        timeout_s: float | None = None,
    ) -> None:
        """Prepare the state of every parameter and check that ranks agree.

        Args:
            named_parameters: Usually ``model.named_parameters()``.
            ternary: Settings; one scale a tensor by ``"rms"`` or ``"std"`` only.
            op: The ``op`` that the optimizer is given, ``hvd.Average`` or ``hvd.Sum``.
            process_set: The process set that the optimizer is given.
            timeout_s: Seconds to wait for other ranks here; ``KNET_START_TIMEOUT_S``,
                or 30, if not given.

        Raises:
            TypeError: If an argument is of another type.
            ValueError: If a setting is not supported here.
            RankMismatchError: On every rank, if ranks disagree.
        """
        config = ternary_config(ternary)
        if config.scale_rule == "max" or config.scale_group_size:
            raise ValueError(
                "Compression.ternary shares one scale a tensor, 2.5 times a root mean "
                "square or standard deviation; "
                f"got scale_rule={config.scale_rule!r}, "
                f"scale_group_size={config.scale_group_size}. "
                "knet_hvd.DistributedOptimizer supports both"
            )
        check_op(op, "Compression.ternary")
        check_process_set(process_set)
        self._ranks = FixedRanks.now()
        self._process_set = process_set
        self._states = ParameterTable(named_parameters, config)
        num_ranks = int(process_set.size()) if process_set.included() else 1
        self._codes = SummableCodes(config, hvd.rank(), num_ranks, op == hvd.Average)
        self._feedback = ErrorFeedback() if config.error_feedback else None
        if process_set.included():
            facts: dict[str, object] = {"settings": op, "ternary": asdict(config)}
            for state in self._states:
                shape = list(state.parameter.shape)
                facts[state.name] = f"{state.parameter.dtype} {shape}"
            collectives = HorovodCollectives(process_set)
            check_devices(collectives, [state.parameter for state in self._states])
            ranks = CollectiveRanks(collectives, timeout_s)
            check_agreement(ranks, facts, "arguments of Compression.ternary", same_names=True)

    def compress(self, tensor: Tensor) -> tuple[Tensor, _Context]:
        """Return what Horovod sums in place of a gradient, and the way back.

        Args:
            tensor: ``p.grad`` of one of the named parameters.

        Raises:
            KnetError: If it is anything else (a sparse gradient made dense, Adasum), or a gradient
                of another optimizer crosses under the same name, or the ranks have changed.
        """
        state = self._states.find(tensor)
        self._ranks.check("Compression.ternary")
        claim(self._process_set.process_set_id, state.name, self)
        scale = None if state.stays_float else state.scale
        context = _Context(state, tensor, GradientVersion.of(tensor), scale)
        if state.stays_float:
            bf16 = tensor.dtype == torch.bfloat16  # which Horovod does not sum
            return (tensor.float() if bf16 else tensor), context
        values = tensor.detach().contiguous()
        if self._feedback is not None:
            values = self._feedback.add_to(state.name, values)
        size = magnitude(values, self._codes.config)
        if context.scale is None:
            return full_precision_buffer(values, size), context
        payload = self._codes.encode(values, context.scale, state.stream, state.step)
        if self._feedback is not None:
            sent = self._codes.decode(payload, context.scale, torch.empty_like(values))
            self._feedback.update(state.name, values, sent)
        header = make_header(context.scale, state.step, size)
        return self._codes.to_words(payload, values.numel(), header), context

    def decompress(self, tensor: Tensor, context: _Context | None) -> Tensor:
        """Return the averaged (or summed) gradient and learn the next step's scale.

        Raises:
            RankMismatchError: If ranks did not use the same scale or another ``op``.
            KnetError: If the gradient was changed since backward.
        """
        if context is None:  # a sparse gradient, which Horovod did not compress
            return tensor
        state, gradient = context.state, context.gradient
        release(self._process_set.process_set_id, state.name)
        context.version.check(state.name, state.parameter)
        if state.stays_float:
            return tensor.to(gradient.dtype)
        if context.scale is None:
            return self._from_full_precision(tensor, context)
        num_ranks = self._codes.num_ranks
        header, words = split_header(tensor, num_ranks, self._codes.average)
        header.check(state.name, context.scale, state.step, num_ranks)
        state.step += 1
        out = torch.empty_like(gradient, memory_format=torch.contiguous_format)
        if header.num_invalid:
            return out.fill_(torch.nan)
        mean = header.mean_magnitude(context.scale, num_ranks)
        state.set_scale(mean, self._codes.config.effective_clip_factor)
        return self._codes.from_words(words, context.scale, out)

    def _from_full_precision(self, tensor: Tensor, context: _Context) -> Tensor:
        flat, magnitude, num_invalid = split_full_precision(tensor)
        gradient = flat.to(context.gradient.dtype).view(context.gradient.shape)
        if num_invalid:
            return torch.full_like(gradient, torch.nan)
        if self._feedback is not None:
            self._feedback.clear(context.state.name)
        mean = magnitude if self._codes.average else magnitude / self._codes.num_ranks
        context.state.set_scale(mean, self._codes.config.effective_clip_factor)
        return gradient

    @property
    def wire_bytes_per_step(self) -> float:
        """Bytes this rank sends in a step with codes, by formula."""
        total = 0
        for state in self._states:
            numel = state.parameter.numel()
            if state.stays_float:
                bf16 = state.parameter.dtype == torch.bfloat16
                total += numel * (4 if bf16 else state.parameter.element_size())
            else:
                total += self._codes.num_bytes(numel)
        return allreduce_bytes(total, self._codes.num_ranks)

    def state_dict(self) -> dict[str, Any]:
        """Return scales, steps and residuals by parameter name."""
        return {
            "scales": {state.name: state.scale for state in self._states},
            "steps": {state.name: state.step for state in self._states},
            "residuals": self._feedback.state_dict() if self._feedback else {},
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Load what ``state_dict`` returned on this rank."""
        for state in self._states:
            state.scale = saved["scales"][state.name]
            state.step = saved["steps"][state.name]
        if self._feedback is not None:
            self._feedback.load_state_dict(saved["residuals"])
