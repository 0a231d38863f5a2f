"""How a pipeline run is put together."""

from knet_hvd.checkpoint import StopSignals
from knet_hvd.comm import World, check_agreement
from knet_hvd.devices import compute_deterministically
from knet_hvd.training.loop.trainer import Trainer, closed_on_error
from knet_hvd.training.pipeline.config import PipelineConfig
from knet_hvd.training.pipeline.resume import PipelineRules, saved_plan
from knet_hvd.training.pipeline.task import PipelineTask
from knet_hvd.training.state.checkpoints import CheckpointManager


def open_trainer(
    config: PipelineConfig, world: World, signals: StopSignals | None = None
) -> Trainer[PipelineTask]:
    """Build this rank's part of a run, from a checkpoint or from the start.

    Args:
        config: The same on every rank.
        world: All ranks; every rank has to call.
        signals: Those that ask the job to save its state and stop.

    Raises:
        CheckpointError: On every rank, if the run cannot continue from the latest
            checkpoint, or not write any.
        RankMismatchError: If ranks differ in configuration or in what crosses.
        DataError: If a data file is missing or malformed.
        ValueError: If a setting is unknown or does not fit.
    """
    check_agreement(world, config.facts(), "the job's configuration")
    checkpoints = CheckpointManager(config, PipelineRules(config, world), signals)
    with closed_on_error(checkpoints):
        if config.deterministic:
            compute_deterministically()  # before a GPU is touched
        # Measuring again might find other cuts: those of the checkpoint are kept.
        plan = None if checkpoints.manifest is None else saved_plan(checkpoints.manifest)
        task = PipelineTask(config, world, plan)
        return Trainer(config, task, checkpoints)
