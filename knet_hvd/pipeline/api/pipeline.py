"""The public class: train a network of one's own, cut over the ranks of MPI."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from knet_hvd.compression import TernaryConfig
from knet_hvd.devices import CPU, take_device
from knet_hvd.pipeline.activation import Activation, on_device, tensors_of
from knet_hvd.pipeline.api.losses import StepLosses
from knet_hvd.pipeline.api.member import Member, OptimizerOf, Optimizers
from knet_hvd.pipeline.api.placing import Cuts, Placing
from knet_hvd.pipeline.api.run import PipelineRun
from knet_hvd.pipeline.api.tracking import Tracking
from knet_hvd.pipeline.blocks.base import BlockSource
from knet_hvd.pipeline.blocks.user_model import Model, user_model
from knet_hvd.pipeline.build import open_replicas
from knet_hvd.pipeline.decouplers import Decoupler, decoupler_named
from knet_hvd.pipeline.link_settings import LinkSettings
from knet_hvd.pipeline.loss_head import Loss
from knet_hvd.pipeline.placement.cuts import num_stages, output_signatures
from knet_hvd.pipeline.replicas.base import Replicas
from knet_hvd.pipeline.spec import PipelineSpec
from knet_hvd.pipeline.stage import Precision
from knet_hvd.pipeline.updates.combined import Optimizer, combined


class Pipeline(PipelineRun):
    """Train a network whose blocks lie on many ranks.

    Every rank runs the same script, as ``mpirun -np 4 python train.py`` starts it; one rank
    is a pipeline of one stage and trains as a plain loop does::

        pipeline = Pipeline(
            nn.Sequential(...),
            example=x[:1],
            loss=nn.functional.cross_entropy,
            optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=3e-4),
            decoupler=Delayed(),
        )
        for x, y in loader:
            loss = pipeline.step(x, y)
        accuracy = pipeline.evaluate(test_loader, metric=accuracy)
        state = pipeline.export()  # on rank 0

    Attributes:
        rank: This process.
        optimizer: What your function returned for this rank's parameters, such as for a
            learning-rate scheduler.
        device: What this rank computes on.
        devices: A line that says which device each rank took.
        num_steps: Steps made so far.
    """

    optimizer: Optimizers

    def __init__(
        self,
        model: Model,
        *,
        example: Activation,
        loss: Loss,
        optimizer: OptimizerOf,
        decoupler: Decoupler | str = "backprop",
        targets: Literal["shared", "send"] = "shared",
        cuts: Cuts = "equal",
        memory_limits_mb: Sequence[float] = (),
        split: Sequence[str] = (),
        microbatches: int = 1,
        batch_size: int | None = None,
        num_classes: int | None = None,
        clip_grad_norm: float | None = None,
        precision: Precision = "fp32",
        replicas: int = 1,
        compression: Literal["none", "fp16", "ternary"] = "ternary",
        ternary: TernaryConfig | None = None,
        device: str | torch.device = "auto",
        links: LinkSettings | None = None,
        seed: int | None = None,
        deterministic: bool = False,
        logdir: str | Path | None = None,
        log_every: int = 20,
        timeout_s: float = 300.0,
    ) -> None:
        """Place the blocks, and build those of this rank; every rank has to call.

        Args:
            model: nn.Sequential or a list of modules: these are the blocks. Or any module,
                with ``split``. Or a function that returns one of these: then no rank needs
                memory for more than its own blocks. A network that exists already gets the
                values of rank 0 on all ranks, and its modules themselves are trained.
            example: Inputs of the network, [n, ...] each, a tensor or a tuple of tensors
                with at least one row. Batches may have other numbers of rows, and shorter
                sequences, but none that are longer.
            loss: Called on the last stage with output and targets; returns the mean over
                the samples.
            optimizer: Returns the optimizer of this rank's parameters; or a list of several,
                each with some of them.
            decoupler: Where the gradients of stages come from, or its name.
            targets: shared: every rank has the batches, and takes the targets from them; send:
                only the first stage has, and targets travel with the activations. Loop over
                ``pipeline.batches(loader)`` then.
            cuts: equal: as many blocks to each rank; measured: by the speed of ranks and
                network; or the number of blocks before each cut.
            memory_limits_mb: Memory of each rank for ``measured``, in millions of bytes; 0 for
                no limit. It is estimated for an optimizer that keeps two values a parameter.
            split: Parts of the module at which blocks begin, such as ["layers.4", "head"].
            microbatches: Parts of a batch, which follow each other through the stages.
            batch_size: The most samples of a batch; that of the first batch if not given.
            num_classes: Classes of the targets, for the decouplers that need it; if not
                given, the last dimension of the network's output.
            clip_grad_norm: The largest norm of the gradients: of all stages where they wait
                for each other, else of each stage's own.
            precision: bf16: autocast of forward and backward.
            replicas: Replicas of each stage, which average gradients with Horovod: each trains on
                its share of every batch. There are as many stages as ranks by replicas.
            compression: How gradients cross between replicas.
            ternary: Settings of ternary gradients.
            device: What this rank computes on. auto: the GPU of its number on its host, the CPU
                where there is no GPU; cpu; cuda; or a device of PyTorch's. The blocks of this
                rank and all batches move there.
            links: How tensors cross.
            seed: Of the initial values that a function as model draws; if not given,
                PyTorch's generator as it is, which has to be the same on every rank.
            deterministic: Take late gradients after a fixed number of steps, so that the
                same command gives the same bits. On a GPU call
                ``knet_hvd.devices.compute_deterministically`` before.
            logdir: Where to write curves for TensorBoard: a run for each stage, with its loss,
                waits, bytes, and what its decoupler measures.
            log_every: Steps between two points of a curve.
            timeout_s: The longest wait for another rank.

        Raises:
            KnetError: If a rank does not come, or has no such device of its own; or if no
                placement fits the ranks' memory.
            RankMismatchError: If ranks differ in the model or in how it is cut.
            TypeError: If the model is none of these.
            ValueError: If the model cannot be cut, or a setting does not fit.
        """
        if targets not in ("shared", "send"):
            raise ValueError(f"targets: expected shared or send, got {targets!r}")
        super().__init__(timeout_s)
        with self._ending.telling():
            taken = take_device(device, self._world.gather_text)
            self.device, self.devices = taken.device, taken.line
            own = user_model(model, split, len(tensors_of(example)))
            if own.network is not None:
                own.network.cpu()  # this rank's blocks alone go to its device
            example = on_device(example, CPU)
            spec = PipelineSpec(
                builder=own.source,
                example=example,
                loss=loss,
                make_optimizer=partial(self._own_optimizer, optimizer),
                decoupler=_decoupler(decoupler),
                num_classes=num_classes or _last_dimension(own.source, example),
                num_microbatches=microbatches,
                precision=precision,
                seed=seed,
                deterministic=deterministic,
            )
            self._member = Member(
                self._world,
                own,
                spec,
                placing=Placing(cuts=cuts, memory_limits_mb=memory_limits_mb),
                links=links or LinkSettings(),
                batch_size=batch_size,
                replicas=self._replicas(replicas, compression, ternary, microbatches),
                device=taken.device,
                log_every=log_every,
            )
            self._losses = StepLosses(self._world, self.plan.order[-replicas:])
            self._tracking = Tracking(self._member, logdir, log_every)
            if self.stage.optimizer is None:  # a script may still hang a scheduler on one
                self._own_optimizer(optimizer, [nn.Parameter(torch.zeros(0))])
            if clip_grad_norm is not None:
                self._member.clip(clip_grad_norm)
            if targets == "send":
                self._member.send_targets()
            self._world.gather_text("", "all ranks to be ready")

    def _replicas(
        self, number: int, compression: str, ternary: TernaryConfig | None, microbatches: int
    ) -> Replicas:
        if number < 1:
            raise ValueError(f"replicas: expected at least 1, got {number}")
        if compression not in ("none", "fp16", "ternary"):
            raise ValueError(f"compression: expected none, fp16 or ternary, got {compression!r}")
        num_stages(self._world.size, number)  # before groups are formed
        return open_replicas(
            self._world, number, compression, ternary or TernaryConfig(), microbatches
        )

    def _own_optimizer(self, make: OptimizerOf, parameters: list[nn.Parameter]) -> Optimizer:
        made = make(parameters)
        several = isinstance(made, Sequence) and len(made) > 0
        for each in made if isinstance(made, Sequence) and several else [made]:
            if not isinstance(each, torch.optim.Optimizer):
                raise TypeError(
                    "optimizer: expected a function that returns a torch.optim.Optimizer, or a "
                    f"list of them, got {type(each).__name__}"
                )
        self.optimizer = made
        return combined(made, parameters) if isinstance(made, Sequence) else made


def _decoupler(decoupler: Decoupler | str) -> Decoupler:
    return decoupler_named(decoupler)() if isinstance(decoupler, str) else decoupler


def _last_dimension(source: BlockSource, example: Activation) -> int | None:
    """Return the last dimension of the network's output, as classifiers have one logit each."""
    shape = output_signatures(source, example)[-1].sample_shape
    return shape[-1] if shape else None
