"""Path B: ternary gradients as ``compression=`` of Horovod's own optimizer.

Horovod sums what ``compress`` returns. Packed codes cannot be summed, but codes under
one scale can: as digits of base 2N + 1 in integers that N ranks may add without a
carry. The shared scale is known beforehand because it comes from the previous step,
whose root mean squares rode along in the same buffer.
"""

from collections.abc import Iterable, MutableMapping
from dataclasses import asdict, dataclass
from typing import Any
from weakref import WeakValueDictionary

import horovod.torch as hvd
import torch
from torch import Tensor

from knet_hvd.agreement import check_agreement
from knet_hvd.collectives import check_devices
from knet_hvd.collectives.horovod import HorovodCollectives
from knet_hvd.compression import ErrorFeedback, LevelsCodec, TernaryCodec, TernaryConfig
from knet_hvd.compression.scales import magnitude
from knet_hvd.data_parallel.allreduce.parameter_state import ParameterState, ParameterTable
from knet_hvd.data_parallel.allreduce.words import (
    HEADER_WORDS,
    full_precision_buffer,
    make_header,
    split_full_precision,
    split_header,
    sum_dtype,
    word_bits,
)
from knet_hvd.data_parallel.arguments import check_op, check_process_set, ternary_config
from knet_hvd.data_parallel.gradient_versions import GradientVersion
from knet_hvd.data_parallel.ranks.agreement import CollectiveRanks
from knet_hvd.data_parallel.ranks.fixed_ranks import FixedRanks
from knet_hvd.errors import KnetError
from knet_hvd.performance import allreduce_bytes

_crossing: MutableMapping[tuple[int, str], "TernaryCompressor"] = WeakValueDictionary()
"""Whose gradient crosses under a name, by process set and name: Horovod takes each name once."""


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
        self._num_ranks = int(process_set.size()) if process_set.included() else 1
        self._average = op == hvd.Average
        self._codec = TernaryCodec(config, hvd.rank())
        self._levels = LevelsCodec(self._num_ranks, word_bits(self._average, self._num_ranks))
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
        self._claim(state.name)
        scale = None if state.stays_float else state.scale
        context = _Context(state, tensor, GradientVersion.of(tensor), scale)
        if state.stays_float:
            bf16 = tensor.dtype == torch.bfloat16  # which Horovod does not sum
            return (tensor.float() if bf16 else tensor), context
        values = tensor.detach().contiguous()
        if self._feedback is not None:
            values = self._feedback.add_to(state.name, values)
        size = magnitude(values, self._codec.config)
        if context.scale is None:
            return full_precision_buffer(values, size), context
        scales = values.new_tensor([context.scale], dtype=torch.float32)
        payload = values.new_empty(self._codec.payload_bytes(values.numel()), dtype=torch.uint8)
        self._codec.encode([values], scales, [state.stream], state.step, payload)
        if self._feedback is not None:
            sent = torch.empty_like(values)
            self._codec.decode(payload[None], scales, [sent])
            self._feedback.update(state.name, values, sent)
        header = make_header(context.scale, state.step, size)
        return self._summable(payload, values.numel(), header), context

    def _claim(self, name: str) -> None:
        """Note that a gradient crosses under this name until ``decompress``."""
        key = (self._process_set.process_set_id, name)
        if _crossing.setdefault(key, self) is not self:
            raise KnetError(
                f"two optimizers exchange a gradient of the name {name!r} at once. "
                "Give each its own names, here and in hvd.DistributedOptimizer: "
                'named = [(f"critic.{name}", p) for name, p in critic.named_parameters()]'
            )

    def _summable(self, payload: Tensor, numel: int, header: list[int]) -> Tensor:
        codes = torch.empty(numel, dtype=torch.int16, device=payload.device)
        self._codec.unpack(payload, codes)
        words = self._levels.pack_own(codes)
        head = torch.tensor(header, dtype=torch.int64, device=payload.device)
        return torch.cat([head, words]).to(sum_dtype(self._average))

    def decompress(self, tensor: Tensor, context: _Context | None) -> Tensor:
        """Return the averaged (or summed) gradient and learn the next step's scale.

        Raises:
            RankMismatchError: If ranks did not use the same scale or another ``op``.
            KnetError: If the gradient was changed since backward.
        """
        if context is None:  # a sparse gradient, which Horovod did not compress
            return tensor
        state, gradient = context.state, context.gradient
        _crossing.pop((self._process_set.process_set_id, state.name), None)
        context.version.check(state.name, state.parameter)
        if state.stays_float:
            return tensor.to(gradient.dtype)
        if context.scale is None:
            return self._from_full_precision(tensor, context)
        header, words = split_header(tensor, self._num_ranks, self._average)
        header.check(state.name, context.scale, state.step, self._num_ranks)
        state.step += 1
        out = torch.empty_like(gradient, memory_format=torch.contiguous_format)
        if header.num_invalid:
            return out.fill_(torch.nan)
        mean = header.mean_magnitude(context.scale, self._num_ranks)
        state.set_scale(mean, self._codec.config.effective_clip_factor)
        sums = torch.empty(out.numel(), dtype=torch.int16, device=out.device)
        self._levels.unpack(words, sums)
        scales = torch.tensor([context.scale], dtype=torch.float32, device=out.device)
        divisor = self._num_ranks if self._average else 1
        self._codec.dequantize(sums, scales, [out], divisor)
        return out

    def _from_full_precision(self, tensor: Tensor, context: _Context) -> Tensor:
        flat, magnitude, num_invalid = split_full_precision(tensor)
        gradient = flat.to(context.gradient.dtype).view(context.gradient.shape)
        if num_invalid:
            return torch.full_like(gradient, torch.nan)
        if self._feedback is not None:
            self._feedback.clear(context.state.name)
        mean = magnitude if self._average else magnitude / self._num_ranks
        context.state.set_scale(mean, self._codec.config.effective_clip_factor)
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
                total += 8 * (HEADER_WORDS + self._levels.num_words(numel))
        return allreduce_bytes(total, self._num_ranks)

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
