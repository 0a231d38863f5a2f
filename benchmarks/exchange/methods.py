"""The ways to average a set of gradients that benchmarks compare.

Each method owns nothing but its optimizer or hook: parameters are shared between them,
and every exchange begins with complete gradients, as at the end of backward.
"""

import math
import os
from collections.abc import Callable
from typing import Any

import horovod.torch as hvd
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook

import knet_hvd
from benchmarks.codec.gradient_sets import Shapes

METHODS = ("fp32", "fp16", "allgather", "alltoall", "allreduce", "ddp-fp16", "ddp-powersgd")


class GradientSet:
    """Parameters of given shapes, and random gradients for them."""

    def __init__(self, shapes: Shapes) -> None:
        """Make the parameters; every rank draws gradients of its own."""
        generator = torch.Generator().manual_seed(hvd.rank())
        self.parameters = {name: nn.Parameter(torch.zeros(s)) for name, s in shapes}
        largest = max(math.prod(shape) for _, shape in shapes)
        self._noise = torch.randn(largest, generator=generator)
        for parameter in self.parameters.values():
            parameter.grad = torch.empty_like(parameter)

    def refill(self) -> None:
        """Put this rank's own gradients back."""
        for parameter in self.parameters.values():
            self.give(parameter)

    def give(self, parameter: nn.Parameter) -> Tensor:
        """Return a parameter's gradient, filled."""
        assert parameter.grad is not None
        noise = self._noise[: parameter.numel()]
        return parameter.grad.copy_(noise.view_as(parameter))


class Method:
    """One way to average the gradients."""

    wire_bytes: float
    advice: str = ""

    def prepare(self) -> None:
        """Do what is not part of an exchange."""

    def exchange(self) -> None:
        """Average all gradients; return when they are there."""
        raise NotImplementedError


class OptimizerMethod(Method):
    """Horovod's optimizer or ours: gradients lie in ``grad`` before and after."""

    def __init__(self, name: str, gradients: GradientSet) -> None:
        """Make the optimizer; ``name`` is one of METHODS or ``auto``."""
        self.gradients = gradients
        named = list(gradients.parameters.items())
        base = torch.optim.SGD([p for _, p in named], lr=0.1)
        values = sum(p.numel() for _, p in named)
        full = 2 * 4 * values * (hvd.size() - 1) / hvd.size()
        if name in ("fp32", "fp16"):
            compressor = getattr(hvd.Compression, {"fp32": "none"}.get(name, name))
            self.optimizer = hvd.DistributedOptimizer(base, named, compressor)
            self.wire_bytes = full if name == "fp32" else full / 2
        elif name == "allreduce":
            compressor = knet_hvd.Compression.ternary(named)
            self.optimizer = hvd.DistributedOptimizer(base, named, compressor)
            self.wire_bytes = compressor.wire_bytes_per_step
        elif name == "auto":
            self.optimizer = knet_hvd.DistributedOptimizer(base, named, name)
            self.advice = str(self.optimizer.compression_advice)
            self.wire_bytes = math.nan
        else:
            self.optimizer = knet_hvd.DistributedOptimizer(base, named, exchange=name)
            self.wire_bytes = self.optimizer.wire_bytes.compressed

    def prepare(self) -> None:
        """Put the gradients back."""
        self.gradients.refill()

    def exchange(self) -> None:
        """See ``Method.exchange``."""
        self.optimizer.synchronize()


class _HandOver(torch.autograd.Function):
    """A backward pass that computes nothing: it hands over gradients that exist."""

    @staticmethod
    def forward(ctx: Any, gradients: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return parameters[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        return None, *ctx.gradients


class _Holder(nn.Module):
    def __init__(self, gradients: GradientSet) -> None:
        super().__init__()
        self.own = nn.ParameterList(nn.Parameter(p.detach()) for p in gradients.parameters.values())
        self.gradients = [p.grad for p in gradients.parameters.values()]

    def forward(self) -> Tensor:
        return _HandOver.apply(self.gradients, *self.own)  # type: ignore[no-any-return]


class DdpMethod(Method):
    """DistributedDataParallel with a communication hook, over gloo.

    A hook needs a real backward pass, which copies the gradients into DDP's buckets;
    ``ddp-nothing`` measures that part alone, to be taken off.
    """

    def __init__(self, name: str, gradients: GradientSet) -> None:
        """Make the model; ``name`` begins with ``ddp-``."""
        self.gradients = gradients
        self.model = wrap_in_ddp(_Holder(gradients), name)
        self.wire_bytes = math.nan

    def prepare(self) -> None:
        """Put the gradients back, and forget DDP's."""
        self.gradients.refill()
        self.model.zero_grad(set_to_none=True)

    def exchange(self) -> None:
        """See ``Method.exchange``."""
        self.model().backward()


def wrap_in_ddp(model: nn.Module, name: str) -> nn.parallel.DistributedDataParallel:
    """Return a model whose gradients DDP averages over gloo with the hook of that name.

    Parameters have to be the same on all ranks already.
    """
    if not dist.is_initialized():
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", "29517")
        dist.init_process_group("gloo", rank=hvd.rank(), world_size=hvd.size())
    # Of several buckets, PowerSGD starts further operations as those of each end, which
    # over gloo happens in another order on other ranks: they fail or hang.
    bucket_cap_mb = 10_000 if name == "ddp-powersgd" else None
    wrapped = nn.parallel.DistributedDataParallel(
        model, init_sync=False, gradient_as_bucket_view=True, bucket_cap_mb=bucket_cap_mb
    )
    wrapped.register_comm_hook(*_hook(name))
    return wrapped


def _hook(name: str) -> tuple[Any, Callable[..., Any]]:
    if name == "ddp-fp16":
        return None, default_hooks.fp16_compress_hook
    if name == "ddp-powersgd":
        return PowerSGDState(None, 4, start_powerSGD_iter=2), powerSGD_hook
    return None, _no_hook


def _no_hook(_: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


def make_method(name: str, gradients: GradientSet) -> Method:
    """Return the method of that name, one of METHODS, ``auto`` or ``ddp-nothing``."""
    if name.startswith("ddp-"):
        return DdpMethod(name, gradients)
    return OptimizerMethod(name, gradients)
