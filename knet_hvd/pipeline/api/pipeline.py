"""The public class: train a network of one's own, cut over the ranks of MPI."""

import atexit
import json
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from knet_hvd.comm import World, check_agreement
from knet_hvd.comm.reports import Reports
from knet_hvd.comm.transfer import broadcast_tensors, gather_tensors
from knet_hvd.pipeline.activation import Activation, tensors_of
from knet_hvd.pipeline.api.evaluation import Metric, sum_metric
from knet_hvd.pipeline.blocks.draws import BlockDraws
from knet_hvd.pipeline.blocks.given import state_tensors
from knet_hvd.pipeline.blocks.sharing import check_not_shared
from knet_hvd.pipeline.blocks.user_model import Model, user_model
from knet_hvd.pipeline.build import build_parts
from knet_hvd.pipeline.clipping import Clipping
from knet_hvd.pipeline.connect import BuiltStage, connect
from knet_hvd.pipeline.decouplers import Decoupler, decoupler_named
from knet_hvd.pipeline.link_settings import LinkSettings
from knet_hvd.pipeline.loss_head import Loss, LossHead
from knet_hvd.pipeline.optimizers import Optimizer
from knet_hvd.pipeline.placement.cuts import output_signatures
from knet_hvd.pipeline.placement.planning import (
    measure_costs,
    plan_by_costs,
    plan_by_cuts,
    plan_facts,
    plan_table,
)
from knet_hvd.pipeline.placement.search import Plan
from knet_hvd.pipeline.spec import PipelineSpec
from knet_hvd.pipeline.stage import Precision, Stage

Cuts = Literal["equal", "measured"] | Sequence[int]
_MEASURED_ROWS = 32
"""Samples of a batch to measure with, where no batch size is given."""


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
        plan: Which blocks are on which ranks.
        stage: The blocks of this rank.
        num_steps: Steps made so far.
    """

    def __init__(
        self,
        model: Model,
        *,
        example: Activation,
        loss: Loss,
        optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
        decoupler: Decoupler | str = "backprop",
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
        self._world = World(timeout_s)
        self.rank = self._world.rank
        self._model = user_model(model, split, len(tensors_of(example)))
        self._user_optimizer: torch.optim.Optimizer | None = None
        self._make_optimizer = optimizer
        self._loss = loss
        self._links_settings = links or LinkSettings()
        if isinstance(decoupler, str):
            decoupler = decoupler_named(decoupler)()
        self._spec = PipelineSpec(
            builder=self._model.source,
            example=example,
            loss=loss,
            make_optimizer=self._own_optimizer,
            decoupler=decoupler,
            num_classes=num_classes or _last_dimension(self._model.source.skeleton, example),
            num_microbatches=microbatches,
            precision=precision,
            seed=seed,
            deterministic=deterministic,
        )
        self.plan = self._place(cuts, batch_size)
        self._build(clip_grad_norm)
        self._rows = batch_size
        self._built: BuiltStage | None = None
        self.num_steps = 0
        self._is_closed = False
        atexit.register(self.close)

    def _place(self, cuts: Cuts, batch_size: int | None) -> Plan:
        """Return which blocks are on which ranks, the same on every rank."""
        world, source = self._world, self._spec.builder
        shapes = {
            prefix + key: [str(value.dtype), list(value.shape)]
            for prefix, block in zip(self._model.prefixes, self._model.blocks, strict=True)
            for key, value in block.state_dict().items()
        }
        check_agreement(world, {"parameters": shapes, "cuts": cuts}, "the model", same_names=True)
        if cuts == "measured":
            rows = batch_size or _MEASURED_ROWS
            with torch.random.fork_rng(devices=[]):
                costs = measure_costs(self._spec.with_rows(rows), world, self._links_settings)
            plan = plan_by_costs(costs, replicas=1)
        else:
            chosen = () if cuts == "equal" else tuple(int(cut) for cut in cuts)
            plan = plan_by_cuts(world.size, len(source), world.size, chosen)
        check_agreement(world, plan_facts(plan), "the placement")
        bounds = [0, *plan.cuts, len(source)]
        stages = [s for s in range(world.size) for _ in range(bounds[s], bounds[s + 1])]
        check_not_shared(self._model.blocks, self._model.prefixes, stages)
        return plan

    def _build(self, clip_grad_norm: float | None) -> None:
        """Build what this rank learns with."""
        if self._model.network is not None:
            broadcast_tensors(self._world, state_tensors(self._model.network))
        self._parts = build_parts(self._spec, self.plan, self._world)
        self.stage: Stage = self._parts.stage
        seed = torch.initial_seed() if self._spec.seed is None else self._spec.seed
        seed = int(self._world.gather_text(str(seed), "the seed")[0])
        first_block = [0, *self.plan.cuts][self.stage.index]
        self.stage.draws = BlockDraws(seed, first_block)
        if self._user_optimizer is None:  # a script may still hang a scheduler on it
            self._own_optimizer([nn.Parameter(torch.zeros(0))])
        if clip_grad_norm is not None:
            locked = self._spec.decoupler.locked
            self.stage.clipping = Clipping(clip_grad_norm, self._world if locked else None)
        last = self.plan.order[-1]
        others = [rank for rank in range(self._world.size) if rank != last]
        self._reports = Reports(self._world, last, others)

    def _own_optimizer(self, parameters: list[nn.Parameter]) -> Optimizer:
        self._user_optimizer = self._make_optimizer(parameters)
        return self._user_optimizer

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer of this rank, such as for a learning-rate scheduler."""
        if self._user_optimizer is None:
            raise ValueError("optimizer: expected a torch.optim.Optimizer from the function given")
        return self._user_optimizer

    def placement(self) -> str:
        """Return which blocks are where, as a table in Markdown."""
        return plan_table(self.plan, self._spec.builder.names)

    def step(self, inputs: Activation, targets: Tensor) -> float:
        """Train on one batch; every rank has to call, with the same batch.

        Args:
            inputs: [n, ...] each; only the first stage looks at them.
            targets: [n, ...].

        Returns:
            The newest loss that has come from the last stage: of this step where stages
            wait for each other, else of one of the last steps.

        Raises:
            KnetError: If a neighbor is lost or sends something else.
            ValueError: If the batch does not fit.
        """
        built = self._connected(len(targets))
        own_inputs = inputs if self.stage.is_first else None
        built.runner.step(self.num_steps, own_inputs, targets)
        step = self.num_steps
        self.num_steps += 1
        source = built.runner.gradient_source
        if isinstance(source, LossHead):
            self._reports.report(step, float(source.step_loss))
        return self._reports.latest(step if self._spec.decoupler.locked else 0)

    def _connected(self, num_samples: int) -> BuiltStage:
        """Return what makes steps; the links are opened when the first batch is there."""
        if self._is_closed:
            raise ValueError("the pipeline is closed")
        if self._built is None:
            self._rows = self._rows or num_samples
            check_agreement(self._world, {"samples": self._rows}, "the first batch")
            self._built = connect(
                self._spec,
                self._parts,
                self._world,
                rows=self._rows_of_part,
                links=self._links_settings,
            )
        if not 1 <= num_samples <= (self._rows or 0):
            raise ValueError(
                f"batch: expected 1 to {self._rows} samples, as in the first batch, got "
                f"{num_samples}: give batch_size={num_samples}, the largest there is"
            )
        return self._built

    @property
    def _rows_of_part(self) -> int:
        return -(-(self._rows or 1) // self._spec.num_microbatches)

    def evaluate(
        self, batches: Iterable[tuple[Activation, Tensor]], metric: Metric | None = None
    ) -> float:
        """Return the mean of a metric, the same on every rank; every rank has to call.

        First learns from all gradients that are still to come back.

        Args:
            batches: Inputs and targets, the same on every rank.
            metric: Called on the last stage with output and targets of a batch; returns
                the mean over its samples. The loss if not given.

        Raises:
            KnetError: If a rank is lost.
            ValueError: If there is no batch.
        """
        iterator = iter(batches)
        first = next(iterator, None)
        if first is None:
            raise ValueError("batches: expected at least one, got none")
        built = self._connected(min(len(first[1]), self._rows or len(first[1])))
        built.runner.drain()
        total, count = sum_metric(
            self.stage,
            built.links,
            _chain(first, iterator),
            metric or self._loss,
            rows=self._rows_of_part,
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
        self.drain()
        names, source = self._model.prefixes, self._spec.builder
        prefixes = dict(zip(source.names, names, strict=True))
        own = {
            prefixes[name] + key: value
            for name, block in self.stage.blocks._modules.items()
            if block is not None
            for key, value in block.state_dict().items()
        }
        return gather_tensors(self._world, own, "the model's state")

    def drain(self) -> None:
        """Learn from all gradients that are still to come back; every rank has to call."""
        if self._built is not None:
            self._built.runner.drain()

    def close(self) -> None:
        """Learn from what is still to come back, and let go of all links."""
        if self._is_closed:
            return
        self._is_closed = True
        atexit.unregister(self.close)
        self.drain()
        self._reports.close()
        if self._built is not None:
            self._built.links.close()
        self._world.close()

    def __enter__(self) -> "Pipeline":
        """Return the pipeline, which the end of the block closes."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the pipeline, unless an error has left others waiting."""
        if error is None:
            self.close()


def _chain(first: Any, rest: Iterable[Any]) -> Iterable[Any]:
    yield first
    yield from rest


def _last_dimension(skeleton: nn.Sequential, example: Activation) -> int | None:
    """Return the last dimension of the network's output, as classifiers have one logit each."""
    shape = output_signatures(skeleton, example)[-1].sample_shape
    return shape[-1] if shape else None
