"""The training loop of the data-parallel job."""

import time
from dataclasses import replace
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor, nn

from knet_hvd.config import KnetError, to_flat_dict
from knet_hvd.data import ImageDataset, ShardedBatches, load_dataset
from knet_hvd.data_parallel.agreement import check_agreement
from knet_hvd.data_parallel.job_optimizer import make_optimizer
from knet_hvd.data_parallel.model_inputs import ModelInputs
from knet_hvd.data_parallel.monitor import TrainingMonitor
from knet_hvd.data_parallel.moving_average import MovingAverage
from knet_hvd.data_parallel.training_config import TrainingConfig
from knet_hvd.metrics import open_logger, profile_steps, progress
from knet_hvd.models import build_model, parameters_sha256

_EVALUATION_BATCH = 500


class DataParallelTrainer:
    """Train one model on all ranks of Horovod."""

    def __init__(self, config: TrainingConfig) -> None:
        """Load data, build the model and the optimizer; Horovod is initialized.

        Args:
            config: The same on every rank.

        Raises:
            RankMismatchError: On every rank, if configurations differ.
            DataError: If a data file is missing or malformed.
            ValueError: If the model or another setting is unknown.
        """
        facts = to_flat_dict(
            replace(config, data_dir=None, logdir=None, summary=None, profile=None)
        )
        check_agreement(facts, "the job's configuration")
        self.config = config
        self.dataset: ImageDataset = load_dataset(config.data, config.data_dir)
        self._inputs = ModelInputs(self.dataset, config)
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
        self.num_steps = len(self.batches) * config.epochs
        if config.max_steps is not None:
            self.num_steps = min(self.num_steps, config.max_steps)
        self.optimizer, self.wire_bytes = make_optimizer(self.model, config)
        self._average = MovingAverage(config.average_decay)
        hvd.broadcast_parameters(self.model.state_dict(), root_rank=0)
        torch.manual_seed(config.seed * 1009 + hvd.rank())  # dropout differs by rank

    @property
    def advice(self) -> str:
        """What ``compression="auto"`` found; empty without it."""
        return str(getattr(self.optimizer, "compression_advice", None) or "")

    def train(self) -> dict[str, Any]:
        """Run all steps and return the summary, the same on every rank."""
        config = self.config
        step, losses, elapsed_s = 0, torch.zeros(()), 0.0
        with (
            open_logger(config.logdir, hvd.rank()) as logger,
            profile_steps(config.profile, hvd.rank()) as after_step,
            progress(desc="training", rank=hvd.rank(), total=self.num_steps) as bar,
        ):
            monitor = TrainingMonitor(config, logger, self.optimizer, self.wire_bytes)
            for epoch in range(config.epochs):
                start = time.perf_counter()
                for images, labels in self.batches.batches(epoch):
                    if step == self.num_steps:
                        break
                    losses = self._step(images, labels, step, monitor)
                    step += 1
                    after_step()
                    bar.update()
                elapsed_s += time.perf_counter() - start
                self._check_finite(step)
                accuracy = self.evaluate()
                bar.set_postfix(
                    loss=f"{float(losses):.3f}", test=f"{accuracy:.4f}", refresh=False
                )
                monitor.after_epoch(accuracy, step)
                if step == self.num_steps:
                    break
            summary = self._summary(accuracy, float(losses), step, elapsed_s)
            monitor.finish(summary)
        return summary

    def _step(
        self, images: Tensor, labels: Tensor, step: int, monitor: TrainingMonitor
    ) -> Tensor:
        """Make one training step; return the batch's loss."""
        if self.config.schedule == "polynomial":
            remaining = 1.0 - step / self.num_steps
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * remaining**0.5
        self.model.train()
        self.optimizer.zero_grad()
        monitor.before_step(step)
        loss = nn.functional.cross_entropy(self._forward(images), labels)
        loss.backward()
        self.optimizer.step()
        if self.config.average_decay:
            self._average.update(self.model, step)
        monitor.after_step(step, loss.detach(), labels.numel() * hvd.size())
        return loss.detach()

    def _forward(self, images: Tensor) -> Tensor:
        """Return the logits fp32 [n, classes] of images uint8 [n, c, h, w]."""
        inputs = self._inputs(images)
        bf16 = self.config.precision == "bf16"
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits: Tensor = self.model(inputs)
        return logits.float()

    def _check_finite(self, step: int) -> None:
        """Stop a run that has diverged; parameters are the same on all ranks."""
        for name, parameter in self.model.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise KnetError(
                    f"training diverged before step {step}: {name} is not finite; "
                    "lower --learning-rate"
                )

    @torch.no_grad()
    def evaluate(self) -> float:
        """Return the test accuracy, each rank having evaluated its share.

        Batch statistics are rank 0's: every rank keeps its own while it trains.
        """
        buffers = dict(self.model.named_buffers())
        if buffers:
            hvd.broadcast_parameters(buffers, root_rank=0)
        own = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self._load_parameters(self._average.shadow)
        self.model.eval()
        images = self.dataset.test_images[hvd.rank() :: hvd.size()]
        labels = self.dataset.test_labels[hvd.rank() :: hvd.size()]
        correct = torch.zeros(1, dtype=torch.int64)
        for x, y in zip(
            images.split(_EVALUATION_BATCH),
            labels.split(_EVALUATION_BATCH),
            strict=True,
        ):
            correct += (self._forward(x).argmax(1) == y).sum()
        self._load_parameters(own)
        total = hvd.allreduce(correct, op=hvd.Sum, name="knet_hvd.correct")
        return float(total) / len(self.dataset.test_labels)

    def _load_parameters(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            if name in values:
                parameter.copy_(values[name])

    def _summary(
        self, accuracy: float, loss: float, steps: int, elapsed_s: float
    ) -> dict[str, Any]:
        images = steps * self.config.batch_size * hvd.size()
        return {
            "test_accuracy": accuracy,
            "train_loss": loss,
            "train_seconds": elapsed_s,
            "samples_per_second": images / elapsed_s,
            "steps": steps,
            "num_ranks": hvd.size(),
            "num_parameters": sum(p.numel() for p in self.model.parameters()),
            "wire_bytes_per_step": self.wire_bytes.compressed,
            "uncompressed_wire_bytes_per_step": self.wire_bytes.uncompressed,
            "compression_ratio": self.wire_bytes.ratio,
            "compression_advice": self.advice,
            "parameters_sha256": parameters_sha256(self.model),
            "config": to_flat_dict(self.config),
        }
