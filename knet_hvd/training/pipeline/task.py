"""What a pipeline job trains on each rank: one stage of a network."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor

from knet_hvd.comm import World
from knet_hvd.devices.moving import moved
from knet_hvd.errors import PreemptionError
from knet_hvd.pipeline.activation import only_tensor
from knet_hvd.pipeline.build import open_replicas
from knet_hvd.pipeline.placement.planning import plan_table
from knet_hvd.pipeline.placement.search import Plan
from knet_hvd.training.batches import expect_inputs
from knet_hvd.training.loop.evaluation import evaluate
from knet_hvd.training.loop.task import Results, TrainingTask
from knet_hvd.training.pipeline.build import build_stage_job
from knet_hvd.training.pipeline.config import PipelineConfig
from knet_hvd.training.pipeline.reports.curves import StageCurves
from knet_hvd.training.pipeline.reports.results import gather_summary
from knet_hvd.training.pipeline.state import StageState
from knet_hvd.training.state.ema import ParameterEma


class PipelineTask(TrainingTask):
    """Train one stage of a network on each rank.

    Attributes:
        plan: Which blocks are on which ranks.
        stage: The blocks of this rank.
        runner: Makes the steps.
        links: To the neighbors.
        replicas: Of this rank's stage.
    """

    def __init__(self, config: PipelineConfig, world: World, saved: Plan | None = None) -> None:
        """Load data, build this rank's stage, and connect it to its neighbors.

        Args:
            config: The same on every rank.
            world: All ranks; every rank has to call.
            saved: The plan of the checkpoint that the run continues from, if any.

        Raises:
            CheckpointError: On every rank, if the checkpoint has other cuts.
            RankMismatchError: If ranks differ in the placement or in what crosses.
            DataError: If a data file is missing or malformed.
            ValueError: If a setting is unknown or does not fit.
        """
        self._config = config
        self._world = world
        seed = (config.ternary.seed + config.seed) % 2**32
        self.replicas = open_replicas(
            world,
            config.replicas,
            config.compression,
            replace(config.ternary, seed=seed),
            config.microbatches,
        )
        job = build_stage_job(config, world, self.replicas, saved)
        self._job, self.plan, self.stage = job, job.member.plan, job.stage
        self.runner, self.links = job.built.runner, job.built.links
        self.source, self.memory = job.source, job.memory
        self.state = StageState(job, world, ParameterEma(config.average_decay))
        self.curves = StageCurves(config, job, world)
        self.rank, self.device = world.rank, self.stage.device
        # The last stage alone knows loss and accuracy.
        self.reports = self.stage.is_last and self.replicas.index == 0

    @property
    def devices(self) -> str:
        """Return a line that says which device each rank took."""
        return self._job.devices

    def plan_table(self) -> str:
        """Return which blocks are where, as a table in Markdown."""
        return plan_table(self.plan, self._job.member.block_names)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Leave links and groups after a preemption, and stop the progress thread."""
        self._world.end_start()
        try:
            yield
        except PreemptionError:  # on all ranks, with nothing under way
            self.links.close()
            self.replicas.close()
            raise
        finally:
            self._world.stop_progress()

    def step(self, step: int, inputs: Tensor | None, targets: Tensor) -> None:
        """Make one training step of this stage: see ``TrainingTask``."""
        self.runner.step(step, inputs, targets)

    def drain(self) -> None:
        """Learn from all gradients that are still to come back."""
        self.runner.drain()

    @property
    def loss(self) -> float | None:
        """Return the loss of the latest step whose metrics were wanted, on the last stage."""
        loss = self.runner.gradient_source.metrics.get("loss")
        return None if loss is None else float(loss)

    def before_evaluation(self) -> None:
        """Take the first replica's batch statistics; replicas have the same parameters."""
        self.replicas.before_evaluation(self.stage, self.runner.gradient_source)

    def predictions(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Pass the inputs of this replica's share through the stages.

        Yields:
            Outputs and targets on the last stage; nothing on others.
        """
        inputs_link, outputs_link = self.links.inputs, self.links.outputs
        batches = self.source.evaluation(split, self._config.microbatch_size)
        for number, (inputs, targets) in enumerate(batches):
            if inputs_link is not None:
                inputs = only_tensor(inputs_link.receive(number))
            received = moved(expect_inputs(inputs), self.device)
            output = only_tensor(self.stage.forward(received))
            if outputs_link is None:
                yield output, moved(targets, self.device)
            else:
                outputs_link.send(output, number)

    def total(self, values: Tensor) -> Tensor:
        """Return the sums over the replicas of the last stage; 0 on other stages."""
        return self.replicas.total(values) if self.stage.is_last else values

    def counters(self) -> dict[str, float]:
        """Return this rank's waits and what it sent to other stages."""
        return {
            "idle_s": self._world.waiter.idle_s,
            "waited_s": self.replicas.waited_s,
            "sent_bytes": self.links.sent_bytes,
        }

    def summary(self, results: Results) -> dict[str, Any]:
        """Gather the summary from all stages, and leave links and groups."""
        train = evaluate(self, "train")
        self.links.close()
        summary = gather_summary(self._config, self._world, self._job, results, train)
        self.replicas.close()
        return summary
