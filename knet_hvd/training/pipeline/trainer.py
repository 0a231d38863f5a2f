"""The training loop of the pipeline job."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from knet_hvd.checkpoint import StopSignals
from knet_hvd.comm import World, check_agreement
from knet_hvd.errors import KnetError, PreemptionError
from knet_hvd.metrics import profile_steps, progress
from knet_hvd.pipeline.build import open_replicas
from knet_hvd.pipeline.placement.planning import plan_table
from knet_hvd.training.ema import ParameterEma
from knet_hvd.training.learning_rate import set_learning_rate
from knet_hvd.training.pipeline.build import build_stage_job
from knet_hvd.training.pipeline.checkpoints import PipelineCheckpoints
from knet_hvd.training.pipeline.config import PipelineConfig
from knet_hvd.training.pipeline.evaluation import count_correct
from knet_hvd.training.pipeline.rank_state import StageState, not_finite
from knet_hvd.training.pipeline.reports.meter import TrainingMeter
from knet_hvd.training.pipeline.reports.monitor import StageMonitor
from knet_hvd.training.pipeline.reports.results import gather_summary
from knet_hvd.training.trainer import Trainer


class PipelineTrainer(Trainer):
    """Train one stage of a network on each rank."""

    def __init__(
        self, config: PipelineConfig, world: World, signals: StopSignals | None = None
    ) -> None:
        """Load data, build this rank's stage, and connect it to its neighbors.

        Args:
            config: The same on every rank.
            world: All ranks.
            signals: Those that ask the job to save its state and stop.

        Raises:
            CheckpointError: On every rank, if it cannot go on from the latest
                checkpoint, or not write any.
            RankMismatchError: If ranks differ in configuration or in what crosses.
            DataError: If a data file is missing or malformed.
            ValueError: If a setting is unknown or does not fit.
        """
        check_agreement(world, config.facts(), "the job's configuration")
        self.config = config
        self._world = world
        self._checkpoints: PipelineCheckpoints = PipelineCheckpoints(config, world, signals)
        try:
            if config.deterministic:
                torch.use_deterministic_algorithms(True)
            self._build(config, world)
        except BaseException:
            self._checkpoints.close()
            raise

    def _build(self, config: PipelineConfig, world: World) -> None:
        seed = (config.ternary.seed + config.seed) % 2**32
        self._replicas = open_replicas(
            world,
            config.replicas,
            config.compression,
            replace(config.ternary, seed=seed),
            config.microbatches,
        )
        job = build_stage_job(config, world, self._replicas, self._checkpoints.saved_plan)
        self._job, self._links, self._runner = job, job.links, job.runner
        self.plan, self.stage = job.plan, job.stage
        batches = job.source.num_batches
        self._plan_steps(batches * config.epochs, config.max_steps)
        torch.manual_seed(config.seed * 1009 + world.rank)  # dropout differs by stage
        self._state = StageState(
            stage=job.stage,
            runner=job.runner,
            links=job.links,
            replicas=job.replicas,
            world=world,
            next_rank=job.next_rank,
            average=ParameterEma(config.average_decay),
        )
        self._checkpoints.begin(self._state, job.plan, batches, self.num_steps)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Leave links and groups after a preemption, and stop the progress thread."""
        try:
            yield
        except PreemptionError:  # on all ranks, with nothing under way
            self._links.close()
            self._replicas.close()
            raise
        finally:
            self._world.stop_progress()

    def plan_table(self) -> str:
        """Return which blocks are where, as a table in Markdown."""
        return plan_table(self.plan, self._job.block_names)

    def train(self) -> dict[str, Any]:
        """Run all steps and return the summary, the same on every rank.

        After it, ``close``.

        Raises:
            PreemptionError: On every rank, if a signal ended the run; it is saved.
            KnetError: If training diverged, or a rank is lost.
        """
        self._world.end_start()
        with self._connected():
            return self._train()

    def _train(self) -> dict[str, Any]:
        start = self._checkpoints.position
        self._meter = TrainingMeter(self._world, self._replicas, self._links)
        self._step, first_batch, accuracy = start.step, start.batch, 0.0
        monitor = StageMonitor(
            *(self.config, self._runner, self._links, self._world, self._replicas),
            self._checkpoints.first_logged_step,
        )
        # The run after a kill goes on from here, and so must its curves.
        self._state.before_capture = monitor.logger.flush
        monitor.placement(self.plan, self._job.block_names)
        self._job.memory.restart_peak()
        # The last stage alone knows loss and accuracy, so its rank shows them.
        bar_rank = self._replicas.index if self.stage.is_last else 1
        with (
            monitor.logger,
            profile_steps(self.config.profile, self._world.rank) as self._after_profiled_step,
            progress(desc="training", rank=bar_rank, total=self.num_steps) as bar,
        ):
            bar.update(self._step)
            for epoch in range(start.epoch, self.config.epochs):
                self._train_epoch(epoch, first_batch, monitor, bar)
                first_batch = 0
                self._check_finite()
                peak_bytes = self._job.memory.peak_bytes
                accuracy = self.evaluate("test")
                if self.stage.is_last:
                    monitor.after_epoch(accuracy, self._step)
                    bar.set_postfix(test=f"{accuracy:.4f}", refresh=False)
                if self._step == self.num_steps:
                    break
            train_accuracy = self.evaluate("train")
            monitor.finish()
        self._links.close()
        summary = gather_summary(
            *(self.config, self._world, self._job, self._meter),
            resumed_step=self.resumed_step,
            num_steps=self._step,
            accuracies={"train_accuracy": train_accuracy, "test_accuracy": accuracy},
            peak_bytes=peak_bytes,
        )
        self._replicas.close()
        return summary

    def _train_epoch(self, epoch: int, first_batch: int, monitor: StageMonitor, bar: Any) -> None:
        monitor.restart()
        with self._meter.training():
            for inputs, labels in self._job.source.training(epoch, first_batch):
                if self._step == self.num_steps:
                    break
                self._train_step(inputs, labels, monitor)
                bar.update()
            self._runner.drain()

    def _train_step(self, inputs: Tensor | None, labels: Tensor, monitor: StageMonitor) -> None:
        self._checkpoints.before_step()
        self._set_learning_rate()
        self._runner.step(self._step, inputs, labels)
        self._state.average.update(self.stage.blocks, self._step)
        self._after_profiled_step()
        monitor.after_step(self._step, len(labels))
        self._step += 1
        is_last = self._step == self.num_steps
        if is_last:
            self._runner.drain()  # so that the last checkpoint holds the final model
        self._checkpoints.after_step(self._step, is_last)

    def _set_learning_rate(self) -> None:
        if self.stage.optimizer is not None:
            set_learning_rate(
                self.stage.optimizer.param_groups,
                self.config.learning_rate_schedule,
                self.config.learning_rate,
                1 - self._step / self.num_steps,
            )

    def _check_finite(self) -> None:
        """Stop a run that has diverged."""
        error = not_finite(self.stage, self._step)
        if error:
            raise KnetError(error)

    def evaluate(self, split: str) -> float:
        """Return the accuracy on a split; 0 on all stages but the last.

        Args:
            split: train or test.
        """
        self._replicas.before_evaluation(self.stage, self._runner.gradient_source)
        batches = self._job.source.evaluation(split, self.config.microbatch_size)
        with self._state.average.applied(self.stage.blocks):
            correct = count_correct(self.stage, self._links, batches, first_step=0)
        if self.stage.is_last:
            correct = self._replicas.total(correct)
        return correct / self._job.source.num_samples(split)
