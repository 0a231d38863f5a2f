"""The public class: train a network of one's own, cut over the ranks of MPI."""

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from knet_hvd.comm import World
from knet_hvd.comm.transfer import gather_tensors
from knet_hvd.pipeline.activation import Activation, tensors_of
from knet_hvd.pipeline.api.ending import Ending
from knet_hvd.pipeline.api.evaluation import Metric, sum_metric
from knet_hvd.pipeline.api.member import Member, OptimizerOf
from knet_hvd.pipeline.api.placing import Cuts
from knet_hvd.pipeline.blocks.base import BlockSource
from knet_hvd.pipeline.blocks.user_model import Model, user_model
from knet_hvd.pipeline.decouplers import Decoupler, decoupler_named
from knet_hvd.pipeline.link_settings import LinkSettings
from knet_hvd.pipeline.loss_head import Loss, LossHead
from knet_hvd.pipeline.placement.cuts import output_signatures
from knet_hvd.pipeline.placement.planning import plan_table
from knet_hvd.pipeline.placement.search import Plan
from knet_hvd.pipeline.spec import PipelineSpec
from knet_hvd.pipeline.stage import Precision, Stage


class Pipeline:
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
        optimizer: Of this rank's parameters, such as for a learning-rate scheduler.
        num_steps: Steps made so far.
    """

    optimizer: Optimizer

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
        split: Sequence[str] = (),
        microbatches: int = 1,
        batch_size: int | None = None,
        num_classes: int | None = None,
        clip_grad_norm: float | None = None,
        precision: Precision = "fp32",
        links: LinkSettings | None = None,
        seed: int | None = None,
        deterministic: bool = False,
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
            optimizer: Returns the optimizer of this rank's parameters.
            decoupler: Where the gradients of stages come from, or its name.
            targets: shared: every rank has the batches, and takes the targets from them; send:
                only the first stage has, and targets travel with the activations. Loop over
                ``pipeline.batches(loader)`` then.
            cuts: equal: as many blocks to each rank; measured: by the speed of ranks and
                network; or the number of blocks before each cut.
            split: Parts of the module at which blocks begin, such as ["layers.4", "head"].
            microbatches: Parts of a batch, which follow each other through the stages.
            batch_size: The most samples of a batch; that of the first batch if not given.
            num_classes: Classes of the targets, for the decouplers that need it; if not
                given, the last dimension of the network's output.
            clip_grad_norm: The largest norm of the gradients: of all stages where they wait
                for each other, else of each stage's own.
            precision: bf16: autocast of forward and backward.
            links: How tensors cross.
            seed: Of the initial values that a function as model draws; if not given,
                PyTorch's generator as it is, which has to be the same on every rank.
            deterministic: Take late gradients after a fixed number of steps, so that the
                same command gives the same bits.
            timeout_s: The longest wait for another rank.

        Raises:
            KnetError: If a rank does not come.
            RankMismatchError: If ranks differ in the model or in how it is cut.
            TypeError: If the model is none of these.
            ValueError: If the model cannot be cut, or a setting does not fit.
        """
        if targets not in ("shared", "send"):
            raise ValueError(f"targets: expected shared or send, got {targets!r}")
        self._world = World(timeout_s)
        self.rank = self._world.rank
        self.num_steps = 0
        self._loss, self._decoupler = loss, _decoupler(decoupler)
        self._is_closed = False
        self._ending = Ending(self._world, self.close)
        with self._ending.telling():
            own = user_model(model, split, len(tensors_of(example)))
            self._names = own.source.names
            spec = PipelineSpec(
                builder=own.source,
                example=example,
                loss=loss,
                make_optimizer=partial(self._own_optimizer, optimizer),
                decoupler=self._decoupler,
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
                cuts=cuts,
                links=links or LinkSettings(),
                batch_size=batch_size,
            )
            if self.stage.optimizer is None:  # a script may still hang a scheduler on one
                self._own_optimizer(optimizer, [nn.Parameter(torch.zeros(0))])
            if clip_grad_norm is not None:
                self._member.clip(clip_grad_norm)
            if targets == "send":
                self._member.send_targets()
            self._world.gather_text("", "all ranks to be ready")

    def _own_optimizer(self, make: OptimizerOf, parameters: list[nn.Parameter]) -> Optimizer:
        made = make(parameters)
        if not isinstance(made, Optimizer):
            raise TypeError(
                "optimizer: expected a function that returns a torch.optim.Optimizer, got "
                f"{type(made).__name__}"
            )
        self.optimizer = made
        return made

    @property
    def plan(self) -> Plan:
        """Return which blocks are on which ranks."""
        return self._member.plan

    @property
    def stage(self) -> Stage:
        """Return the blocks of this rank."""
        return self._member.stage

    def placement(self) -> str:
        """Return which blocks are where, as a table in Markdown."""
        return plan_table(self.plan, self._names)

    def batches(self, loader: Iterable[Any] | None = None) -> Iterator[tuple[Any, Any]]:
        """Yield the batches of a loop, for ``step``; every rank has to call.

        Args:
            loader: Yields inputs and targets. Where targets are sent, only the first stage
                needs one: other ranks get None and None as often.
        """
        sent = self._member.sent
        if sent is not None:
            yield from sent.loop(loader)
        else:
            yield from loader or ()

    def step(self, inputs: Activation | None = None, targets: Tensor | None = None) -> float:
        """Train on one batch; every rank has to call, with the same batch.

        Args:
            inputs: [n, ...] each; only the first stage looks at them.
            targets: [n, ...]; where they are sent, only the first stage looks at them.

        Returns:
            The newest loss that has come from the last stage: of this step where stages
            wait for each other, else of one of the last steps.

        Raises:
            KnetError: If another rank is lost, fails, or sends something else.
            ValueError: If the batch does not fit.
        """
        if self._is_closed:
            raise ValueError("the pipeline is closed")
        self._world.notices.step = step = self.num_steps
        with self._ending.telling():
            own = self._member.targets_of(targets)
            runner = self._member.connected(len(own)).runner
            runner.step(step, inputs if self.stage.is_first else None, own)
            self.num_steps += 1
            reports, source = self._member.reports, runner.gradient_source
            if isinstance(source, LossHead):
                reports.report(step, float(source.step_loss))
            return reports.latest(step if self._decoupler.locked else 0)

    def evaluate(self, batches: Iterable[Any] | None = None, metric: Metric | None = None) -> float:
        """Return the mean of a metric, the same on every rank; every rank has to call.

        First learns from all gradients that are still to come back.

        Args:
            batches: Inputs and targets, as for ``batches``.
            metric: Called on the last stage with output and targets of a batch; returns
                the mean over its samples. The loss if not given.

        Raises:
            KnetError: If another rank is lost or fails.
            ValueError: If there is no batch.
        """
        with self._ending.after_steps(self.num_steps, self._member.poll):
            found = ((x, self._member.targets_of(y)) for x, y in self.batches(batches))
            first = next(found, None)
            if first is None:
                raise ValueError("batches: expected at least one, got none")
            built = self._member.connected_for(len(first[1]))
            built.runner.drain()
            total, count = sum_metric(
                self.stage,
                built.links,
                chain([first], found),
                metric or self._loss,
                rows=self._member.rows_of_part,
            )
            texts = self._world.gather_text(json.dumps([total, count]), "an evaluation")
        pairs = [json.loads(text) for text in texts]
        return float(sum(pair[0] for pair in pairs) / sum(pair[1] for pair in pairs))

    def export(self) -> dict[str, Tensor] | None:
        """Return the state dictionary of the whole model; every rank has to call.

        First learns from all gradients that are still to come back.

        Returns:
            On rank 0, under the names of the user's network; None elsewhere.
        """
        with self._ending.after_steps(self.num_steps, self._member.poll):
            self._member.drain()
            return gather_tensors(self._world, self._member.state(), "the model's state")

    def save(self, folder: str | Path, keep: int = 3) -> None:
        """Save the state of all ranks after the last step; every rank has to call.

        What is under way is saved with it: nothing is learned early. A checkpoint is there
        as a whole or not at all.

        Args:
            folder: Of the checkpoints, seen by all ranks.
            keep: How many of the latest checkpoints stay.

        Raises:
            CheckpointError: On every rank, if it could not be written.
        """
        with self._ending.after_steps(self.num_steps, self._member.poll):
            self._member.save(Path(folder), self.num_steps, keep)

    def load(self, folder: str | Path, batch_size: int) -> int:
        """Continue from the latest good checkpoint; every rank has to call.

        Also brings back PyTorch's generator, so that a loader that shuffles with it draws
        what it would have drawn.

        Args:
            folder: Of the checkpoints.
            batch_size: The most samples of a batch, as in the run that was saved.

        Returns:
            The steps made by then; 0 if there is no checkpoint.

        Raises:
            CheckpointError: On every rank, if no checkpoint is good, or the latest is of
                another pipeline.
        """
        with self._ending.after_steps(self.num_steps, self._member.poll):
            self.num_steps = self._member.load(Path(folder), batch_size)
        return self.num_steps

    def close(self) -> None:
        """Learn from what is still to come back, and let go of all links.

        The end of the script does so too.
        """
        if self._is_closed:
            return
        self._is_closed = True
        with self._ending.after_steps(self.num_steps, self._member.poll):
            self._member.drain()
            self._member.close()
        self._world.close()
        self._ending.forget()

    def __enter__(self) -> "Pipeline":
        """Return the pipeline, which the end of the block closes."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the pipeline, or tell the other ranks of an error."""
        if error is None:
            self.close()
        else:
            self._ending.fail(error)


def _decoupler(decoupler: Decoupler | str) -> Decoupler:
    return decoupler_named(decoupler)() if isinstance(decoupler, str) else decoupler


def _last_dimension(source: BlockSource, example: Activation) -> int | None:
    """Return the last dimension of the network's output, as classifiers have one logit each."""
    shape = output_signatures(source, example)[-1].sample_shape
    return shape[-1] if shape else None
