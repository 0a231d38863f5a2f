"""The numbers that show how one stage does: waits, staleness, bytes, and its decoupler's."""

from knet_hvd.comm import World
from knet_hvd.metrics import StepSpan
from knet_hvd.pipeline.links import StageLinks
from knet_hvd.pipeline.replicas.base import Replicas
from knet_hvd.pipeline.runners.base import Runner


class StageScalars:
    """Read what a stage has counted since the last report."""

    def __init__(self, world: World, runner: Runner, links: StageLinks, replicas: Replicas) -> None:
        """Start to count.

        Args:
            world: Knows the time waited.
            runner: Knows staleness, and the gradient source with its metrics.
            links: Know the bytes sent to other stages.
            replicas: Of the stage; know the bytes of gradients.
        """
        self._waiter, self._runner = world.waiter, runner
        self._links, self._replicas = links, replicas
        self.restart()

    def restart(self) -> None:
        """Start again, after a report or an evaluation."""
        self._mark = (self._waiter.idle_s, self._links.sent_bytes)

    def since(self, span: StepSpan) -> dict[str, float]:
        """Return what the steps since the start showed, by tag.

        Args:
            span: Those steps.
        """
        idle_s, sent_bytes = self._mark
        scalars = {
            "stage/idle_share": (self._waiter.idle_s - idle_s) / span.elapsed_s,
            "stage/staleness_steps": float(self._runner.staleness),
            "wire/bytes_per_step": (self._links.sent_bytes - sent_bytes) / span.steps,
        }
        if self._replicas.number > 1:
            scalars["wire/gradient_bytes_per_step"] = self._replicas.gradient_bytes
        for name, value in self._runner.gradient_source.metrics.items():
            scalars[self._tag(name)] = float(value)
        return scalars

    def _tag(self, metric: str) -> str:
        """Return where a decoupler's metric belongs: a local loss is not the network's."""
        if metric != "loss":
            return f"synthetic_gradient/{metric}"
        return "train/loss" if self._runner.stage.is_last else "stage/local_loss"
