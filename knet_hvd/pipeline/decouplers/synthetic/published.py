"""DNI: synthetic gradients.

Jaderberg et al., "Decoupled Neural Interfaces using Synthetic Gradients" (ICML 2017),
section 2: a module is updated at once with the gradient that its synthesizer predicts
from its output. The next module sends back the gradient that it got from its own
synthesizer (from the loss, if it is the last), and the synthesizer learns to predict
that, by mean squared error.

What differs: the gradient comes back some steps later, when the module has made other
steps; so the synthesizer is run again on the kept activation. And it predicts gradients
of single samples, not of the batch's mean: see `Synthesizer`. Unless told otherwise, a
stage makes steps that are the shorter the poorer its synthesizer's predictions are: see
`PredictionQuality`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from knet_hvd.checkpoint import StateTree
from knet_hvd.pipeline.activation import Activation, only_tensor
from knet_hvd.pipeline.decouplers.graph_stash import KeptGraph
from knet_hvd.pipeline.decouplers.synthetic.quality import FullQuality
from knet_hvd.pipeline.gradient_source import LateGradientSource, backward_through
from knet_hvd.pipeline.optimizers import make_optimizer, update
from knet_hvd.pipeline.packing import pack_tensor, unpack_optional, unpack_tensor
from knet_hvd.pipeline.stage import Batch, Stage

_TINY = torch.finfo(torch.float32).tiny
_DELAY_LIMIT = 4


@dataclass(slots=True, eq=False)
class SyntheticMemory:
    """What is kept of a batch until its gradient comes back.

    Attributes:
        output: fp32 [n, ...], what the synthesizer sees.
        prediction: fp32 [n, ...], of single samples, if metrics are wanted.
        graph: From the inputs to the output, if it will be used again.
        applied_gradient: fp32 [n, ...], what the stage has learned from, if it will
            learn from the rest.
    """

    output: Tensor
    prediction: Tensor | None = None
    graph: KeptGraph | None = None
    applied_gradient: Tensor | None = None


class SyntheticGradient(LateGradientSource):
    """Learn at once from a predicted gradient, and learn to predict it.

    Metrics: `synthesizer_loss`, `cosine_similarity` and `norm_ratio` of the predicted
    gradient to the one that came back, and `lr_scale` of the stage's learning rate.
    """

    def __init__(self, synthesizer: nn.Module, quality: FullQuality, learning_rate: float) -> None:
        """Take what predicts.

        Args:
            synthesizer: Predicts from the stage's outputs.
            quality: Says how far the stage follows the predictions.
            learning_rate: Adam's, for both.
        """
        super().__init__()
        self._synthesizer = synthesizer
        self._quality = quality
        self.modules.extend([synthesizer, quality])
        self.optimizer = make_optimizer(self.modules, "adam", learning_rate)

    @staticmethod
    def delay_limit(num_later_stages: int) -> int:
        """Return the most steps that a gradient may take, if not said otherwise."""
        return _DELAY_LIMIT

    def forward(self, stage: Stage, batch: Batch) -> Tensor:
        """Run the stage forward on the batch's inputs."""
        output = only_tensor(stage.run(batch))
        batch.memory = SyntheticMemory(output)
        return output

    def backward_now(self, stage: Stage, batch: Batch) -> bool:
        """Go backward from the predicted gradient."""
        memory: SyntheticMemory = batch.memory
        with torch.no_grad():
            prediction = self._predict(stage, batch)
        if batch.log_metrics:
            memory.prediction = prediction
        self._follow(stage, memory, prediction / batch.num_samples)
        return True

    def _follow(self, stage: Stage, memory: SyntheticMemory, gradient: Tensor) -> None:
        """Go backward from a predicted gradient, of the mean over the samples."""
        self.lr_scale = self._quality.value() ** 2
        output, memory.output = memory.output, memory.output.detach()
        backward_through(output, gradient)

    def backward_late(self, stage: Stage, batch: Batch, gradient: Activation) -> bool:
        """Teach the synthesizer; the stage itself learns nothing."""
        memory: SyntheticMemory = batch.memory
        target = only_tensor(gradient) * batch.num_samples
        prediction = self._predict(stage, batch)
        loss = functional.mse_loss(prediction, target)
        loss.backward()
        self._quality.learn(self._judge(prediction.detach(), target))
        update(self.optimizer)
        if memory.prediction is not None:
            self.metrics["synthesizer_loss"] = loss.detach()
            self.metrics.update(compare(memory.prediction, target))
            self.metrics["lr_scale"] = torch.tensor(self.lr_scale)
        return False

    def _judge(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the quality of a prediction: its direction alone counts."""
        return compare(prediction, target)["cosine_similarity"]

    def _predict(self, stage: Stage, batch: Batch) -> Tensor:
        """Return the gradient of each sample's loss, fp32."""
        memory: SyntheticMemory = batch.memory
        with stage.autocast():
            prediction: Tensor = self._synthesizer(memory.output.detach(), batch.targets)
        return prediction.float()

    def pack_memory(self, batch: Batch) -> StateTree:
        """Return the kept activation and prediction."""
        memory: SyntheticMemory = batch.memory
        return {
            "output": pack_tensor(memory.output),
            "prediction": pack_tensor(memory.prediction),
        }

    def unpack_memory(self, stage: Stage, batch: Batch, tree: StateTree) -> None:
        """Take the kept activation and prediction."""
        prediction = unpack_optional(tree["prediction"], stage.device)
        output = unpack_tensor(tree["output"], stage.device)
        batch.memory = SyntheticMemory(output, prediction)


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
