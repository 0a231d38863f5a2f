"""The results of a pipeline job, gathered from all stages."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from knet_hvd.config import to_flat_dict
from knet_hvd.pipeline.config import PipelineConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class StageSummary:
    """Hold what one stage knows at the end.

    Attributes:
        stage: Which stage.
        rank: The rank that held it.
        blocks: Names of its blocks.
        parameters: Trainable values of its blocks.
        decoupler_parameters: Trainable values of its synthesizer or local loss.
        idle_fraction: Share of the training time in which it waited for other stages.
        peak_memory_bytes: Growth of resident memory over what the process held before
            it built anything, at the highest point of training.
        sent_bytes_per_step: Bytes that it sent a training step, headers included.
        train_seconds: Time of its training steps, evaluation not included.
        train_accuracy: At the end; 0 on all stages but the last.
        test_accuracy: At the end; 0 on all stages but the last.
        parameters_sha256: Of its parameters' bytes, in order.
        metrics: What its decoupler observed last.
    """

    stage: int
    rank: int
    blocks: list[str]
    parameters: int
    decoupler_parameters: int
    idle_fraction: float
    peak_memory_bytes: int
    sent_bytes_per_step: float
    train_seconds: float
    train_accuracy: float
    test_accuracy: float
    parameters_sha256: str
    metrics: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON takes."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "StageSummary":
        """Return what another rank's `to_dict` described."""
        return cls(**values)


def summarize(
    config: PipelineConfig,
    stages: Sequence[StageSummary],
    num_steps: int,
    num_samples: int,
) -> dict[str, Any]:
    """Return the summary of a job.

    Args:
        config: Its configuration.
        stages: What each stage knows, in order.
        num_steps: Steps trained.
        num_samples: Images trained on.
    """
    last = stages[-1]
    # The stages' times overlap; the longest one holds all of the job's training.
    elapsed_s = max(stage.train_seconds for stage in stages)
    hidden = ("train_accuracy", "test_accuracy", "train_seconds")
    return {
        "train_accuracy": last.train_accuracy,
        "test_accuracy": last.test_accuracy,
        "train_loss": last.metrics.get("loss"),
        "samples_per_second": num_samples / elapsed_s,
        "train_seconds": elapsed_s,
        "steps": num_steps,
        "num_stages": len(stages),
        "bytes_per_step": sum(stage.sent_bytes_per_step for stage in stages),
        "num_parameters": sum(stage.parameters for stage in stages),
        "stages": [
            {key: value for key, value in stage.to_dict().items() if key not in hidden}
            for stage in stages
        ],
        "config": to_flat_dict(config),
    }
