"""What a data-parallel job trains on each rank: the whole model, on a share of each batch."""

from collections.abc import Iterator
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor

from knet_hvd.agreement import check_agreement
from knet_hvd.checkpoint import Manifest
from knet_hvd.collectives.horovod import HorovodCollectives
from knet_hvd.data import load_dataset
from knet_hvd.data_parallel.ranks.agreement import CollectiveRanks
from knet_hvd.devices import take_device
from knet_hvd.devices.moving import moved
from knet_hvd.flat_config import to_flat_dict
from knet_hvd.metrics.process_memory import MemoryMeter, keep_freed_blocks
from knet_hvd.models import ModelFactory, num_parameters, parameters_sha256
from knet_hvd.training.batches import BatchSource, expect_inputs
from knet_hvd.training.data_parallel.config import TrainingConfig
from knet_hvd.training.data_parallel.curves import GradientCurves
from knet_hvd.training.data_parallel.optimizer import make_optimizer
from knet_hvd.training.data_parallel.resume import choice_details, chosen
from knet_hvd.training.data_parallel.state import DataParallelState
from knet_hvd.training.loop.task import Results, TrainingTask
from knet_hvd.training.state.ema import ParameterEma
from knet_hvd.training.state.rank_state import RankState

_EVALUATION_BATCH = 500


class DataParallelTask(TrainingTask):
    """Average gradients over all ranks of Horovod in every step.

    Attributes:
        model: The same on all ranks, but for batch statistics.
        optimizer: Averages, then updates.
        advice: What ``compression="auto"`` found; empty without it.
        devices: A line that says which device each rank took.
    """

    state: DataParallelState

    def __init__(self, config: TrainingConfig, manifest: Manifest | None = None) -> None:
        """Load data, build the model and the optimizer; Horovod is initialized.

        Args:
            config: The same on every rank.
            manifest: Of the checkpoint that the run continues from, if any.

        Raises:
            DataError: If a data file is missing or malformed.
            KnetError: If a function of the user's cannot be imported, or fails; or if a rank has
                no such device of its own.
            RankMismatchError: If ranks have loaded different data.
            ValueError: If the model or another setting is unknown.
        """
        self._config = config
        self.rank, self.reports = hvd.rank(), hvd.rank() == 0
        if config.keep_freed_memory:
            keep_freed_blocks()
        dataset = load_dataset(config.data, config.data_dir, config.image_settings)
        ranks = CollectiveRanks(HorovodCollectives())
        check_agreement(ranks, dataset.facts(), "the data set", same_names=True)
        # Horovod knows the number that an elastic job gave last; the environment may not.
        taken = take_device(config.device, ranks.gather_text, hvd.local_rank())
        self.device, self.devices = taken.device, taken.line
        self.memory = MemoryMeter(self.device)
        factory = ModelFactory(config.model)
        torch.manual_seed(config.seed)
        self.model = factory(
            in_shape=dataset.in_shape, num_classes=dataset.num_classes, width=config.width
        )
        self.model.to(self.device)
        self.source = BatchSource(dataset, config, share=hvd.rank(), num_shares=hvd.size())
        used = chosen(config, manifest)
        self.optimizer = make_optimizer(self.model, used)
        hvd.broadcast_parameters(self.model.state_dict(), root_rank=0)
        torch.manual_seed(config.seed * 1009 + hvd.rank())  # dropout differs by rank
        saved_advice = manifest.detail("advice", str) if manifest else ""
        self.advice = str(self.optimizer.compression_advice or saved_advice)
        self.state = DataParallelState(
            RankState(
                self.model,
                self.optimizer,
                ParameterEma(config.average_decay),
                device=self.device,
            ),
            self.optimizer,
            config.seed,
            {"advice": saved_advice, **choice_details(used, self.optimizer)},
            whole=config.elastic,
        )
        self.curves = GradientCurves(config, self.state, self.optimizer)

    def step(self, step: int, inputs: Tensor | None, targets: Tensor) -> None:
        """Make one training step: see ``TrainingTask``."""
        self.model.train()
        self.optimizer.zero_grad()
        outputs = self._outputs(expect_inputs(inputs))
        loss = self.source.loss(outputs, moved(targets, self.device))
        loss.backward()
        self.optimizer.step()
        self.state.loss = loss.detach()

    def _outputs(self, inputs: Tensor) -> Tensor:
        """Return the model's outputs fp32 [n, ...]."""
        bf16 = self._config.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            outputs: Tensor = self.model(moved(inputs, self.device))
        return outputs.float()

    def drain(self) -> None:
        """Do nothing: every step waits for its gradients."""

    @property
    def loss(self) -> float:
        """Return the loss of this rank's latest batch."""
        return float(self.state.loss)

    def before_evaluation(self) -> None:
        """Take rank 0's batch statistics: every rank keeps its own while it trains."""
        buffers = dict(self.model.named_buffers())
        if buffers:
            hvd.broadcast_parameters(buffers, root_rank=0)

    def predictions(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the outputs and targets of this rank's share: see ``TrainingTask``."""
        for inputs, targets in self.source.evaluation(split, _EVALUATION_BATCH):
            yield self._outputs(expect_inputs(inputs)), moved(targets, self.device)

    def total(self, values: Tensor) -> Tensor:
        """Return the sums over all ranks."""
        total: Tensor = hvd.allreduce(values, op=hvd.Sum, name="knet_hvd.evaluation")
        return total

    def summary(self, results: Results) -> dict[str, Any]:
        """Return the summary of the run, the same on every rank but for times."""
        num_steps = results.num_steps - results.resumed_step
        num_samples = num_steps * self._config.batch_size * hvd.size()
        wire_bytes = self.optimizer.wire_bytes
        return {
            **{f"test_{name}": value for name, value in results.test.items()},
            "train_loss": self.loss,
            "train_seconds": results.train_seconds,
            "samples_per_second": num_samples / results.train_seconds,
            "peak_memory_bytes": results.peak_memory_bytes,
            "steps": results.num_steps,
            "resumed_step": results.resumed_step,
            "num_ranks": hvd.size(),
            "num_parameters": num_parameters(self.model),
            "wire_bytes_per_step": wire_bytes.compressed,
            "uncompressed_wire_bytes_per_step": wire_bytes.uncompressed,
            "compression_ratio": wire_bytes.ratio,
            "compression_advice": self.advice,
            "parameters_sha256": parameters_sha256(self.model),
            "config": to_flat_dict(self._config),
        }
