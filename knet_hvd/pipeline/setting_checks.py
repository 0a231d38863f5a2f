"""Settings that not every decoupler has a use for."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from knet_hvd.training.pipeline.config import PipelineConfig


def check_decoupler_settings(config: "PipelineConfig") -> None:
    """Raise unless the decoupler can do what the other settings ask for.

    Args:
        config: Of the job.

    Raises:
        ValueError: If it cannot.
    """
    decoupler, microbatches = config.decoupler, config.microbatches
    if not config.recompute and decoupler != "delayed":
        raise ValueError(f"recompute: only delayed runs forward again, got {decoupler}")
    if config.predict_weights and decoupler != "delayed":
        raise ValueError(f"predict_weights: only for delayed, got {decoupler}")
    if config.predict_weights and config.optimizer == "sgd":
        raise ValueError("predict_weights: the averages of momentum or adam are needed, got sgd")
    # What is left for the next update is each replica's own, and not saved.
    replicas_are_saved = config.replicas > 1 and config.checkpoint_dir is not None
    corrects = decoupler in ("synthetic", "conditioned") and config.synthesizer.correct
    if corrects and replicas_are_saved:
        raise ValueError(
            "synthesizer.correct: expected no replicas together with checkpoints, got "
            f"{config.replicas}"
        )
    if microbatches == 1:
        return
    if decoupler not in ("backprop", "delayed"):
        raise ValueError(
            f"microbatches: expected 1 with {decoupler}, whose stages overlap without "
            f"them, got {microbatches}"
        )
    # Horovod's optimizer cannot be saved between two microbatches of an update.
    if decoupler == "delayed" and replicas_are_saved:
        raise ValueError(
            "microbatches: expected 1 with delayed gradients, replicas and checkpoints "
            f"together, got {microbatches}"
        )
