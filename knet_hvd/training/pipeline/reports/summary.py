"""The results of a pipeline job, gathered from all stages."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from statistics import mean
from typing import Any

from knet_hvd.flat_config import to_flat_dict
from knet_hvd.training.pipeline.config import PipelineConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class StageSummary:
    """Hold what one stage knows at the end.

    Attributes:
        stage: Which stage.
        rank: The rank that held it, or its first replica.
        blocks: Names of its blocks.
        parameters: Trainable values of its blocks.
        decoupler_parameters: Trainable values of its synthesizer or local loss.
        idle_fraction: Share of the training time in which it waited for other stages.
        peak_memory_bytes: Growth of resident memory over what the process held before
            it built anything, at the highest point of training.
        sent_bytes_per_step: Bytes that it sent a training step, headers included.
        train_seconds: Time of its training steps, evaluation not included.
        train: Loss and metrics at the end; 0 on all stages but the last.
        test: Loss and metrics at the end; 0 on all stages but the last.
        parameters_sha256: Of its parameters' bytes, in order.
        metrics: What its decoupler observed last.
        replica: Which of the stage's replicas.
        ranks: All ranks that held it.
        replica_wait_fraction: The part of `idle_fraction` in which it waited for the
            averages of the replicas' gradients.
        gradient_bytes_per_step: Bytes that it sent a step for them, by formula.
        uncompressed_gradient_bytes_per_step: What that would be in fp32.
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
    train: dict[str, float]
    test: dict[str, float]
    parameters_sha256: str
    metrics: dict[str, float] = field(default_factory=dict)
    replica: int = 0
    ranks: list[int] = field(default_factory=list)
    replica_wait_fraction: float = 0.0
    gradient_bytes_per_step: float = 0.0
    uncompressed_gradient_bytes_per_step: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON takes."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "StageSummary":
        """Return what another rank's `to_dict` described."""
        return cls(**values)


_SUMS = ("sent_bytes_per_step", "gradient_bytes_per_step", "uncompressed_gradient_bytes_per_step")
_MEANS = ("idle_fraction", "replica_wait_fraction")
_MAXIMA = ("peak_memory_bytes", "train_seconds")


def merge_replicas(parts: Sequence[StageSummary]) -> list[StageSummary]:
    """Return a summary for each stage, in order: bytes add up over its replicas.

    Shares of time and metrics become means, memory and time the maximum.

    Args:
        parts: What each rank knows.
    """
    ordered = sorted(parts, key=lambda part: (part.stage, part.replica))
    stages = groupby(ordered, key=lambda part: part.stage)
    return [_merge(list(replicas)) for _, replicas in stages]


def _merge(replicas: Sequence[StageSummary]) -> StageSummary:
    def values(name: str) -> list[Any]:
        return [getattr(replica, name) for replica in replicas]

    first = replicas[0]
    return replace(
        first,
        ranks=[replica.rank for replica in replicas],
        metrics={
            name: mean(replica.metrics[name] for replica in replicas) for name in first.metrics
        },
        **{name: sum(values(name)) for name in _SUMS},
        **{name: mean(values(name)) for name in _MEANS},
        **{name: max(values(name)) for name in _MAXIMA},
    )


def summarize(
    config: PipelineConfig, stages: Sequence[StageSummary], num_steps: int, num_samples: int
) -> dict[str, Any]:
    """Return the summary of a job.

    Args:
        config: Its configuration.
        stages: What each stage knows, in order.
        num_steps: Steps trained.
        num_samples: Samples trained on.
    """
    last = stages[-1]
    # The stages' times overlap; the longest one holds all of the job's training.
    elapsed_s = max(stage.train_seconds for stage in stages)
    hidden = ("train", "test", "train_seconds", "replica")
    gradient_bytes = sum(stage.gradient_bytes_per_step for stage in stages)
    uncompressed = sum(stage.uncompressed_gradient_bytes_per_step for stage in stages)
    sent_bytes = sum(stage.sent_bytes_per_step for stage in stages)
    return {
        # The loss of the training itself has that name.
        **{f"train_{name}": value for name, value in last.train.items() if name != "loss"},
        **{f"test_{name}": value for name, value in last.test.items()},
        "train_loss": last.metrics.get("loss"),
        "samples_per_second": num_samples / elapsed_s,
        "train_seconds": elapsed_s,
        "steps": num_steps,
        "num_stages": len(stages),
        "replicas": config.replicas,
        "bytes_per_step": sent_bytes + gradient_bytes,
        "gradient_bytes_per_step": gradient_bytes,
        "gradient_compression_ratio": (uncompressed / gradient_bytes if gradient_bytes else 1.0),
        "num_parameters": sum(stage.parameters for stage in stages),
        "stages": [
            {key: value for key, value in stage.to_dict().items() if key not in hidden}
            for stage in stages
        ],
        "config": to_flat_dict(config),
    }
