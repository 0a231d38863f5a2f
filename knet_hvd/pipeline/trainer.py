"""The training loop of the pipeline job."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from knet_hvd.checkpoint import StopSignals
from knet_hvd.comm import World, check_agreement
from knet_hvd.config import KnetError, PreemptionError, to_flat_dict
from knet_hvd.data import load_dataset
from knet_hvd.metrics import progress
from knet_hvd.models import num_parameters, parameters_sha256
from knet_hvd.pipeline.assembly import (
    build_stage,
    build_stage_decoupler,
    make_runner,
)
from knet_hvd.pipeline.batch_source import BatchSource
from knet_hvd.pipeline.config import PipelineConfig
from knet_hvd.pipeline.decouplers.registry import decoupler_class
from knet_hvd.pipeline.evaluation import count_correct
from knet_hvd.pipeline.job_checkpoints import PipelineCheckpoints
from knet_hvd.pipeline.memory import MemoryMeter, release_freed_blocks
from knet_hvd.pipeline.meter import TrainingMeter
from knet_hvd.pipeline.monitor import StageMonitor
from knet_hvd.pipeline.planning import (
    mesh_of,
    plan_facts,
    plan_stages,
    plan_table,
)
from knet_hvd.pipeline.replicas import open_replicas
from knet_hvd.pipeline.splitting import block_names, output_shapes
from knet_hvd.pipeline.stage_links import open_links
from knet_hvd.pipeline.stage_state import StageState, not_finite
from knet_hvd.pipeline.summary import StageSummary, merge_replicas, summarize
from knet_hvd.pipeline.throttle import throttle_of

_PATIENCE = 20
"""How many times longer ranks wait for each other at the end than for a frame: the
first stage is ahead of the last by all the frames under way."""


class PipelineTrainer:
    """Train one stage of a network on each rank."""

    def __init__(
        self, config: PipelineConfig, world: World, signals: StopSignals | None = None
    ) -> None:
        """Load data, build this rank's stage, and connect it to its neighbours.

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
        facts = to_flat_dict(replace(config, data_dir=None, logdir=None, summary=None))
        check_agreement(world, facts, "the job's configuration")
        self.config = config
        self._world = world
        self._checkpoints = PipelineCheckpoints(config, world, signals)
        try:
            if config.deterministic:
                torch.use_deterministic_algorithms(True)
            self._replicas = open_replicas(config, world)
            self._build(config, world)
        except BaseException:
            self._checkpoints.close()
            raise

    def _build(self, config: PipelineConfig, world: World) -> None:
        dataset = load_dataset(config.data, config.data_dir)
        in_shape, num_classes = dataset.in_shape, dataset.num_classes
        if config.release_above_mb is not None:
            release_freed_blocks(int(1e6 * config.release_above_mb))
        self._memory = MemoryMeter()
        shapes = output_shapes(
            config.model, in_shape=in_shape, num_classes=num_classes, width=config.width
        )
        self.plan = self._checkpoints.plan(
            partial(plan_stages, config, world, shapes, in_shape, num_classes)
        )
        check_agreement(world, plan_facts(self.plan), "the placement")
        names = block_names(config.model, in_shape, num_classes, config.width)
        self._names = names
        mesh, cuts = mesh_of(self.plan), self.plan.cuts
        index = mesh.stage_of(world.rank)
        self._source = BatchSource(
            dataset, config, images=index == 0, replica=self._replicas.index
        )
        del dataset  # only the first stage keeps images
        self.stage = build_stage(
            config, cuts, index, in_shape=in_shape, num_classes=num_classes
        )
        self._links = open_links(
            world,
            mesh,
            [shapes[cut - 1] for cut in cuts],
            config,
            decoupler_class(config.decoupler).gradients_return,
        )
        out_shape = shapes[cuts[index] - 1] if not self.stage.is_last else ()
        decoupler = build_stage_decoupler(config, self.stage, out_shape, num_classes)
        self._replicas.attach(self.stage, decoupler)
        self._runner = make_runner(
            config,
            self.stage,
            decoupler,
            self._links,
            throttle_of(world, config.slow_rank),
        )
        self.num_steps = self._source.num_batches * config.epochs
        if config.max_steps is not None:
            self.num_steps = min(self.num_steps, config.max_steps)
        torch.manual_seed(config.seed * 1009 + world.rank)  # dropout differs by stage
        self._state = StageState(
            *(self.stage, self._runner, self._links, self._replicas, world),
            mesh.next(world.rank),
        )
        batches = self._source.num_batches
        self._checkpoints.begin(self._state, self.plan, batches, self.num_steps)

    @property
    def resumed_step(self) -> int:
        """Steps that a checkpoint held, from which the run goes on; 0 without one."""
        return self._checkpoints.position.step

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Take in what would block others, and leave links and groups in the end."""
        self._world.meanwhile = self._runner.take_in
        try:
            yield
        except PreemptionError:  # on all ranks, with nothing under way
            self._links.close()
            self._replicas.close()
            raise
        finally:
            self._world.meanwhile = lambda: None
            self._world.let_rest()

    def plan_table(self) -> str:
        """Return which blocks are where, as a table in Markdown."""
        return plan_table(self.plan, self._names)

    def train(self) -> dict[str, Any]:
        """Run all steps and return the summary, the same on every rank.

        After it, ``close``.

        Raises:
            PreemptionError: On every rank, if a signal ended the run; it is saved.
            KnetError: If training diverged, or a rank is lost.
        """
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
        monitor.placement(self.plan, self._names)
        self._memory.restart_peak()
        # The last stage alone knows loss and accuracy, so its rank shows them.
        bar_rank = self._replicas.index if self.stage.is_last else 1
        with (
            monitor.logger,
            progress(desc="training", rank=bar_rank, total=self.num_steps) as bar,
        ):
            bar.update(self._step)
            for epoch in range(start.epoch, self.config.epochs):
                self._train_epoch(epoch, first_batch, monitor, bar)
                first_batch = 0
                self._check_finite()
                peak_bytes = self._memory.peak_bytes
                accuracy = self.evaluate("test")
                if self.stage.is_last:
                    monitor.after_epoch(accuracy, self._step)
                    bar.set_postfix(test=f"{accuracy:.4f}", refresh=False)
                if self._step == self.num_steps:
                    break
            train_accuracy = self.evaluate("train")
        self._links.close()
        summary = self._summary(accuracy, train_accuracy, peak_bytes)
        self._replicas.close()
        return summary

    def close(self) -> None:
        """Wait for the last checkpoint, and let another job have the folder.

        Raises:
            CheckpointError: On every rank, if the last one could not be written.
        """
        try:
            self._checkpoints.finish(self.num_steps)
        finally:
            self._checkpoints.close()

    def _train_epoch(
        self, epoch: int, first_batch: int, monitor: StageMonitor, bar: Any
    ) -> None:
        monitor.restart(time.perf_counter())
        with self._meter.training():
            for inputs, labels in self._source.training(epoch, first_batch):
                if self._step == self.num_steps:
                    break
                self._train_step(inputs, labels, monitor)
                bar.update()
            self._runner.drain()

    def _train_step(
        self, inputs: Tensor | None, labels: Tensor, monitor: StageMonitor
    ) -> None:
        self._checkpoints.before_step()
        self._set_learning_rate()
        self._runner.step(self._step, inputs, labels)
        monitor.after_step(self._step, len(labels), time.perf_counter())
        self._step += 1
        is_last = self._step == self.num_steps
        if is_last:
            self._runner.drain()  # so that the last checkpoint holds the final model
        self._checkpoints.after_step(self._step, is_last)

    def _set_learning_rate(self) -> None:
        if self.config.learning_rate_schedule == "constant":
            return
        angle = math.pi * self._step / self.num_steps
        rate = self.config.learning_rate * 0.5 * (1 + math.cos(angle))
        if self.stage.optimizer is not None:
            for group in self.stage.optimizer.param_groups:
                group["lr"] = rate

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
        self._replicas.before_evaluation(self.stage, self._runner.decoupler)
        batches = self._source.evaluation(split, self.config.microbatch_size)
        correct = count_correct(self.stage, self._links, batches, first_step=0)
        if self.stage.is_last:
            correct = self._replicas.total(correct)
        return correct / self._source.num_samples(split)

    def _summary(
        self, accuracy: float, train_accuracy: float, peak_bytes: int
    ) -> dict[str, Any]:
        """Return the summary of all stages."""
        num_steps, meter = self._step - self.resumed_step, self._meter
        own = StageSummary(
            stage=self.stage.index,
            replica=self._replicas.index,
            rank=self._world.rank,
            ranks=[self._world.rank],
            blocks=[name for name, _ in self.stage.blocks.named_children()],
            parameters=num_parameters(self.stage.blocks),
            decoupler_parameters=num_parameters(self._runner.decoupler.modules),
            idle_fraction=meter.idle_s / meter.elapsed_s,
            peak_memory_bytes=peak_bytes,
            replica_wait_fraction=meter.waited_s / meter.elapsed_s,
            sent_bytes_per_step=meter.sent_bytes / max(num_steps, 1),
            gradient_bytes_per_step=self._replicas.gradient_bytes,
            uncompressed_gradient_bytes_per_step=self._replicas.uncompressed_bytes,
            train_seconds=meter.elapsed_s,
            train_accuracy=train_accuracy,
            test_accuracy=accuracy,
            parameters_sha256=parameters_sha256(self.stage.blocks),
            metrics={k: float(v) for k, v in self._runner.decoupler.metrics.items()},
        )
        texts = self._world.gather_text(
            json.dumps(own.to_dict()), "the other stages' results", _PATIENCE
        )
        parts = [StageSummary.from_dict(json.loads(text)) for text in texts]
        stages = merge_replicas(parts)
        images = num_steps * self.config.batch_size * self.config.replicas
        summary = summarize(self.config, stages, self._step, images)
        return summary | {"resumed_step": self.resumed_step}
