"""What a pipeline does again and again: training steps and evaluations."""

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from torch import Tensor

from knet_hvd.pipeline.activation import Activation
from knet_hvd.pipeline.api.evaluation import Metric, sum_metric
from knet_hvd.pipeline.api.session import PipelineSession
from knet_hvd.pipeline.loss_head import LossHead


class PipelineRun(PipelineSession):
    """Train and evaluate what ``Pipeline`` has built."""

    def batches(self, loader: Iterable[Any] | None = None) -> Iterator[tuple[Any, Any]]:
        """Yield the batches of a loop, for ``step``; every rank has to call.

        Args:
            loader: Yields inputs and targets. Where targets are sent, only the first stage
                needs one: other ranks get None and None as often.
        """
        sent = self._member.sent
        if sent is not None:
            yield from sent.loop(loader)
        else:
            yield from loader or ()

    def step(self, inputs: Activation | None = None, targets: Tensor | None = None) -> float:
        """Train on one batch; every rank has to call, with the same batch.

        Replicas share it: each trains on a run of its samples.

        Args:
            inputs: [n, ...] each; only the first stage looks at them.
            targets: [n, ...]; where they are sent, only the first stage looks at them.

        Returns:
            The newest loss that has come from the last stage: of this step where stages
            wait for each other, else of one of the last steps.

        Raises:
            KnetError: If another rank is lost, fails, or sends something else.
            ValueError: If the batch does not fit.
        """
        if self._is_closed:
            raise ValueError("the pipeline is closed")
        self._world.notices.step = step = self.num_steps
        with self._ending.telling():
            own = self._member.targets_of(targets)
            runner, share = self._member.connected(len(own)).runner, self._member.share
            runner.step(
                step,
                share.of(inputs) if self.stage.is_first and inputs is not None else None,
                share.targets(own),
                share.mean_samples(len(own)),
            )
            self.num_steps += 1
            losses, source = self._losses, runner.gradient_source
            if isinstance(source, LossHead):
                losses.report(step, float(source.step_loss))
            self._tracking.after_step(step, len(own))
            return losses.latest(step if self._member.spec.decoupler.locked else 0)

    def evaluate(self, batches: Iterable[Any] | None = None, metric: Metric | None = None) -> float:
        """Return the mean of a metric, the same on every rank; every rank has to call.

        First learns from all gradients that are still to come back.

        Args:
            batches: Inputs and targets, as for ``batches``.
            metric: Called on the last stage with output and targets of a batch; returns
                the mean over its samples. The loss if not given.

        Raises:
            KnetError: If another rank is lost or fails.
            ValueError: If there is no batch.
        """
        with self._ending.after_steps(self.num_steps, self._member.poll):
            found = ((x, self._member.targets_of(y)) for x, y in self.batches(batches))
            first = next(found, None)
            if first is None:
                raise ValueError("batches: expected at least one, got none")
            built = self._member.connected_for(len(first[1]))
            built.runner.drain()
            self._member.agree()
            total, count = sum_metric(
                self.stage,
                built.links,
                chain([first], found),
                metric or self._member.spec.loss,
                rows=self._member.rows_of_part,
                replica=self._member.share.index,
                num_replicas=self._member.share.number,
            )
            texts = self._world.gather_text(json.dumps([total, count]), "an evaluation")
        pairs = [json.loads(text) for text in texts]
        mean = float(sum(pair[0] for pair in pairs) / sum(pair[1] for pair in pairs))
        name = "loss" if metric is None else getattr(metric, "__name__", "metric")
        self._tracking.after_evaluation(name, mean, self.num_steps)
        return mean
