"""The training loop of the data-parallel job."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor, nn

from knet_hvd.agreement import check_agreement
from knet_hvd.checkpoint import StopSignals
from knet_hvd.collectives.horovod import HorovodCollectives
from knet_hvd.data import ImageDataset, ShardedBatches, load_dataset
from knet_hvd.data_parallel.exchanges.registry import check_exchange
from knet_hvd.data_parallel.ranks.agreement import CollectiveRanks
from knet_hvd.flat_config import to_flat_dict
from knet_hvd.metrics import open_logger, profile_steps, progress
from knet_hvd.metrics.process_memory import keep_freed_blocks
from knet_hvd.models import build_model, parameters_sha256
from knet_hvd.training.data_parallel.checkpoints import JobCheckpoints
from knet_hvd.training.data_parallel.config import TrainingConfig
from knet_hvd.training.data_parallel.evaluation import evaluate
from knet_hvd.training.data_parallel.monitor import TrainingMonitor
from knet_hvd.training.data_parallel.optimizer import make_optimizer
from knet_hvd.training.data_parallel.rank_state import JobState, check_finite
from knet_hvd.training.elastic.worker.commits import ElasticCommits
from knet_hvd.training.ema import ParameterEma
from knet_hvd.training.inputs import ImagePreprocessor
from knet_hvd.training.learning_rate import set_learning_rate
from knet_hvd.training.trainer import Trainer


class DataParallelTrainer(Trainer):
    """Train one model on all ranks of Horovod."""

    def __init__(
        self,
        config: TrainingConfig,
        signals: StopSignals | None = None,
        on_progress: Callable[[], None] = lambda: None,
        make_checkpoints: Callable[[], "JobCheckpoints | ElasticCommits"] | None = None,
    ) -> None:
        """Load data, build the model and the optimizer; Horovod is initialized.

        Args:
            config: The same on every rank.
            signals: Those that ask the job to save its state and stop.
            on_progress: Called after each step and each evaluation.
            make_checkpoints: Of an elastic job.

        Raises:
            CheckpointError: On every rank, if it cannot go on from the latest
                checkpoint, or not write any.
            RankMismatchError: On every rank, if configurations differ.
            DataError: If a data file is missing or malformed.
            ValueError: If the model or another setting is unknown.
        """
        if config.exchange != "allreduce":
            check_exchange(config.exchange)
        ranks = CollectiveRanks(HorovodCollectives())
        check_agreement(ranks, config.facts(), "the job's configuration", same_names=True)
        self.config = config
        self._on_progress = on_progress
        make = make_checkpoints or partial(JobCheckpoints, config, signals)
        self._checkpoints: JobCheckpoints | ElasticCommits = make()
        try:
            self._build(config)
        except BaseException:
            self._checkpoints.close()
            raise

    def _build(self, config: TrainingConfig) -> None:
        if config.keep_freed_memory:
            keep_freed_blocks()
        self.dataset: ImageDataset = load_dataset(config.data, config.data_dir)
        self._inputs = ImagePreprocessor(self.dataset, config)
        torch.manual_seed(config.seed)
        self.model = build_model(
            config.model,
            in_shape=self._inputs.in_shape,
            num_classes=self.dataset.num_classes,
            width=config.width,
        )
        self.batches = ShardedBatches(
            images=self.dataset.train_images,
            labels=self.dataset.train_labels,
            batch_size=config.batch_size,
            rank=hvd.rank(),
            num_ranks=hvd.size(),
            seed=config.seed,
            transform=self._inputs.transform,
        )
        start = self._checkpoints.position
        epochs_left = config.epochs - start.epoch - 1
        steps_left = self.batches.num_batches(start.images) - start.batch
        steps_left += epochs_left * len(self.batches)
        self._plan_steps(start.step + steps_left, config.max_steps)
        chosen = self._checkpoints.chosen(config)
        self.optimizer = make_optimizer(self.model, chosen)
        average = ParameterEma(config.average_decay)
        hvd.broadcast_parameters(self.model.state_dict(), root_rank=0)
        torch.manual_seed(config.seed * 1009 + hvd.rank())  # dropout differs by rank
        self._state = JobState(self.model, self.optimizer, average, config.seed)
        self._checkpoints.begin(self._state, self.batches, self.num_steps)

    @property
    def advice(self) -> str:
        """What ``compression="auto"`` found; empty without it."""
        advice = self.optimizer.compression_advice
        return str(advice or self._checkpoints.advice)

    def train(self) -> dict[str, Any]:
        """Run all steps and return the summary, the same on every rank.

        After it, ``close``.

        Raises:
            PreemptionError: On every rank, if a signal ended the run; it is saved.
            KnetError: On every rank, if training diverged.
        """
        config, start = self.config, self._checkpoints.position
        step, elapsed_s = start.step, 0.0
        first = (start.batch, start.images)
        first_step = self._checkpoints.first_logged_step
        with (
            open_logger(config.logdir, hvd.rank(), first_step) as logger,
            profile_steps(config.profile, hvd.rank()) as after_step,
            progress(desc="training", rank=hvd.rank(), total=self.num_steps) as bar,
        ):
            bar.update(step)
            # The run after a kill goes on from here, and so must its curves.
            self._state.before_capture = logger.flush
            monitor = TrainingMonitor(config, logger, self.optimizer)
            for epoch in range(start.epoch, config.epochs):
                begin = time.perf_counter()
                for made in self._epoch(epoch, first, step, monitor):
                    step = made
                    after_step()
                    bar.update()
                first = (0, 0)
                elapsed_s += time.perf_counter() - begin
                check_finite(self.model, step)
                accuracy = self.evaluate()
                self._on_progress()
                loss = f"{float(self._state.loss):.3f}"
                bar.set_postfix(loss=loss, test=f"{accuracy:.4f}", refresh=False)
                monitor.after_epoch(accuracy, step)
                if step == self.num_steps:
                    break
            summary = self._summary(accuracy, step, elapsed_s)
            monitor.finish(summary)
        return summary

    def _epoch(
        self, epoch: int, first: tuple[int, int], step: int, monitor: TrainingMonitor
    ) -> Iterator[int]:
        """Make the steps that are left of an epoch; yield the number made in all."""
        for images, labels in self.batches.batches(epoch, *first):
            if step == self.num_steps:
                break
            self._checkpoints.before_step()
            self._step(images, labels, step, monitor)
            step += 1
            self._checkpoints.after_step(step, step == self.num_steps)
            self._on_progress()
            yield step

    def _step(self, images: Tensor, labels: Tensor, step: int, monitor: TrainingMonitor) -> None:
        """Make one training step."""
        config = self.config
        remaining = self._checkpoints.position.remaining_at(step, self.num_steps)
        set_learning_rate(
            self.optimizer.param_groups,
            config.learning_rate_schedule,
            config.learning_rate,
            remaining,
        )
        self.model.train()
        self.optimizer.zero_grad()
        monitor.before_step(step)
        loss = nn.functional.cross_entropy(self._forward(images), labels)
        loss.backward()
        self.optimizer.step()
        self._state.average.update(self.model, step)
        self._state.loss = loss.detach()
        monitor.after_step(step, loss.detach(), labels.numel() * hvd.size())

    def _forward(self, images: Tensor) -> Tensor:
        """Return the logits fp32 [n, classes] of images uint8 [n, c, h, w]."""
        inputs = self._inputs(images)
        bf16 = self.config.precision == "bf16"
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits: Tensor = self.model(inputs)
        return logits.float()

    def evaluate(self) -> float:
        """Return the test accuracy, each rank having evaluated its share."""
        with self._state.average.applied(self.model):
            return evaluate(self.model, self.dataset, self._forward)

    def _summary(self, accuracy: float, steps: int, elapsed_s: float) -> dict[str, Any]:
        images = (steps - self.resumed_step) * self.config.batch_size * hvd.size()
        return {
            "test_accuracy": accuracy,
            "train_loss": float(self._state.loss),
            "train_seconds": elapsed_s,
            "samples_per_second": images / elapsed_s,
            "steps": steps,
            "resumed_step": self.resumed_step,
            "num_ranks": hvd.size(),
            "num_parameters": sum(p.numel() for p in self.model.parameters()),
            "wire_bytes_per_step": self.optimizer.wire_bytes.compressed,
            "uncompressed_wire_bytes_per_step": self.optimizer.wire_bytes.uncompressed,
            "compression_ratio": self.optimizer.wire_bytes.ratio,
            "compression_advice": self.advice,
            "parameters_sha256": parameters_sha256(self.model),
            "config": to_flat_dict(self.config),
        }
