"""Gather what all ranks know at the end of a pipeline job."""

import json
from typing import Any

from knet_hvd.comm import World
from knet_hvd.models import num_parameters, parameters_sha256
from knet_hvd.training.loop.task import Results
from knet_hvd.training.pipeline.build import StageJob
from knet_hvd.training.pipeline.config import PipelineConfig
from knet_hvd.training.pipeline.reports.summary import StageSummary, merge_replicas, summarize

_PATIENCE = 20
"""How many times longer ranks wait for each other at the end than for a frame: the
first stage is ahead of the last by all the frames under way."""


def gather_summary(
    config: PipelineConfig, world: World, job: StageJob, results: Results, train: dict[str, float]
) -> dict[str, Any]:
    """Return the summary of the job, the same on every rank.

    Args:
        config: The job's configuration.
        world: All ranks; every rank has to call.
        job: What this rank trained with.
        results: What this rank's training loop knows.
        train: Metrics on the training split at the end; those of the last stage count.

    Raises:
        KnetError: If a rank is lost.
    """
    own_steps = results.num_steps - results.resumed_step
    counted, seconds = results.counted, results.train_seconds
    own = StageSummary(
        stage=job.stage.index,
        replica=job.replicas.index,
        rank=world.rank,
        ranks=[world.rank],
        blocks=[name for name, _ in job.stage.blocks.named_children()],
        parameters=num_parameters(job.stage.blocks),
        decoupler_parameters=num_parameters(job.gradient_source.modules),
        idle_fraction=counted["idle_s"] / seconds,
        peak_memory_bytes=results.peak_memory_bytes,
        replica_wait_fraction=counted["waited_s"] / seconds,
        sent_bytes_per_step=counted["sent_bytes"] / max(own_steps, 1),
        gradient_bytes_per_step=job.replicas.gradient_bytes,
        uncompressed_gradient_bytes_per_step=job.replicas.uncompressed_bytes,
        train_seconds=seconds,
        train=train,
        test=dict(results.test),
        parameters_sha256=parameters_sha256(job.stage.blocks),
        metrics={k: float(v) for k, v in job.gradient_source.metrics.items()},
    )
    texts = world.gather_text(json.dumps(own.to_dict()), "the other stages' results", _PATIENCE)
    parts = [StageSummary.from_dict(json.loads(text)) for text in texts]
    num_samples = own_steps * config.batch_size * config.replicas
    summary = summarize(config, merge_replicas(parts), results.num_steps, num_samples)
    return summary | {"resumed_step": results.resumed_step}
