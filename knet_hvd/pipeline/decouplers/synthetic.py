"""DNI: synthetic gradients.

Jaderberg et al., "Decoupled Neural Interfaces using Synthetic Gradients" (ICML 2017),
section 2: a module is updated at once with the gradient that its synthesizer predicts
from its output. The next module sends back the gradient that it got from its own
synthesizer (from the loss, if it is the last), and the synthesizer learns to predict
that, by mean squared error.

What differs: the gradient comes back some steps later, while the module has gone on; so
the synthesizer is run again on the kept activation. And it predicts gradients of single
samples, not of the batch's mean: see `Synthesizer`. Unless told otherwise, a stage
makes steps that are the shorter the less its synthesizer can be trusted: see `Trust`.

With `SynthesizerConfig.targets = "true"` a stage still learns at once, but sends back
the gradient of the loss: it keeps the graph of a batch until that comes, and goes
backward a second time, to its inputs only. In the terms of the supplement's BP(lambda)
that is lambda = 1, late: no synthesizer has to wait until the next one has learned.

With `SynthesizerConfig.correct` it then goes backward to its parameters too, from the
difference between the true gradient and the one that it has followed; what comes of
that joins its next update. So each batch gives a true gradient in the end: in part at
once, and the rest late. A synthesizer that knows nothing leaves delayed gradients.
"""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from knet_hvd.pipeline.decouplers.base import Decoupler, go_backward, present
from knet_hvd.pipeline.decouplers.graph_stash import KeptGraphs
from knet_hvd.pipeline.decouplers.synthesizer import Synthesizer, SynthesizerConfig
from knet_hvd.pipeline.decouplers.trust import Trust
from knet_hvd.pipeline.optimizers import make_optimizer, update
from knet_hvd.pipeline.stage import Batch, Stage

_TINY = torch.finfo(torch.float32).tiny


class Synthetic(Decoupler):
    """Learn at once from a predicted gradient, and learn to predict it.

    Metrics: `synthesizer_loss`, `cosine_similarity` and `norm_ratio` of the predicted
    gradient to the one that came back, and `update_share` of the stage's learning rate.
    """

    gradients_return: ClassVar[bool] = True

    def __init__(
        self, shape: tuple[int, ...], config: SynthesizerConfig, num_labels: int = 0
    ) -> None:
        """Build the synthesizer.

        Args:
            shape: The stage's output, without the batch.
            config: Settings of the synthesizer.
            num_labels: Classes if it is to see the labels, 0 if not.
        """
        super().__init__()
        self._synthesizer = Synthesizer(shape, config, num_labels)
        self._trust = Trust() if config.trust else None
        self._graphs = KeptGraphs() if config.targets == "true" else None
        self._correct = config.correct
        self.modules.append(self._synthesizer)
        if self._trust is not None:
            self.modules.append(self._trust)
        self.optimizer = make_optimizer(self.modules, "adam", config.learning_rate)

    def forward(self, stage: Stage, batch: Batch) -> None:
        """Compute the output; where true gradients pass, with a graph to keep."""
        keep = self._correct or present(batch.inputs).requires_grad
        if self._graphs is not None and keep:
            self._graphs.forward(stage, batch)
        else:
            super().forward(stage, batch)

    def revive(self, stage: Stage, batch: Batch) -> None:
        """Make the graph of a checkpoint's batch again, if it had one."""
        if self._graphs is not None and batch.stash is not None:
            self._graphs.revive(stage, batch)

    def learn(self, stage: Stage, batch: Batch) -> bool:
        """Go backward from the predicted gradient."""
        output = present(batch.output)
        with torch.no_grad():
            prediction = self._predict(stage, batch)
        gradient = prediction / batch.num_samples
        trust = 1.0 if self._trust is None else self._trust.mean()
        if self._correct:
            gradient *= trust
            batch.followed = gradient
        else:
            self.update_share = trust**2
        if batch.stash is not None:
            parameters = list(stage.blocks.parameters())
            if parameters:
                output.backward(gradient, retain_graph=True, inputs=parameters)
        else:
            batch.output = output.detach()
            go_backward(output, gradient)
        if batch.observed:
            batch.prediction = prediction
        return True

    def learn_from(self, stage: Stage, batch: Batch, gradient: Tensor) -> bool:
        """Teach the synthesizer."""
        target = gradient * batch.num_samples
        prediction = self._predict(stage, batch)
        loss = functional.mse_loss(prediction, target)
        loss.backward()
        if self._trust is not None:
            alike = compare(prediction.detach(), target)
            similarity = alike["cosine_similarity"]
            if self._correct:  # the factor that leaves the least to correct
                similarity = similarity / alike["norm_ratio"].clamp_min(_TINY)
            self._trust.loss(similarity.clamp(-1, 1)).backward()
        update(self.optimizer)
        if batch.prediction is not None:
            self.metrics["synthesizer_loss"] = loss.detach()
            self.metrics.update(compare(batch.prediction, target))
            self.metrics["update_share"] = torch.tensor(self.update_share)
        if self._graphs is not None and batch.stash is not None:
            if self._correct:
                _add_missing(stage, batch, gradient)
            inputs = present(batch.inputs)
            if inputs.requires_grad:
                (inputs.grad,) = torch.autograd.grad(present(batch.output), inputs, gradient)
            self._graphs.let_go(batch)
        return False

    def _predict(self, stage: Stage, batch: Batch) -> Tensor:
        """Return the gradient of each sample's loss, fp32."""
        with stage.autocast():
            output = present(batch.output).detach()
            prediction: Tensor = self._synthesizer(output, batch.labels)
        return prediction.float()


def _add_missing(stage: Stage, batch: Batch, gradient: Tensor) -> None:
    """Add what the synthetic gradient missed to the parameters' gradients."""
    parameters = list(stage.blocks.parameters())
    if not parameters:
        return
    # Not backward(): replicas average when it reaches a parameter, in the next update.
    missing = torch.autograd.grad(
        present(batch.output),
        parameters,
        gradient - present(batch.followed),
        retain_graph=present(batch.inputs).requires_grad,
    )
    for parameter, each in zip(parameters, missing, strict=True):
        if parameter.grad is None:
            # In the parameter's layout: fused optimizers take that for granted.
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad += each


def compare(prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Return how alike a predicted and a true gradient are.

    Args:
        prediction: Of any shape.
        target: Of the same shape.

    Returns:
        `cosine_similarity`, and `norm_ratio`, the norm of the prediction by that of the
        target; both 0 where a gradient is zero.
    """
    # Not flatten(): the two may lie in memory in different orders.
    product = (prediction * target).sum()
    norms = prediction.norm(), target.norm()
    return {
        "cosine_similarity": product / (norms[0] * norms[1]).clamp_min(_TINY),
        "norm_ratio": norms[0] / norms[1].clamp_min(_TINY),
    }
