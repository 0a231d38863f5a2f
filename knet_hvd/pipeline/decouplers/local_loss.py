"""Local losses: small classifiers after a stage that is not the last.

`classifier` is after Belilovsky, Eickenberg and Oyallon, "Decoupled Greedy Learning of
CNNs" (ICML 2020), section 4, MLP-SR: the activation is averaged to 2x2 positions, three
1x1 convolutions and a small multilayer perceptron follow. A fully connected activation
gets the perceptron alone. So does a sequence: averaged over its positions where a sample
has one target, at each position where each has its own.

`predsim` is after Nøkland and Eidnes, "Training Neural Networks with Local Error
Signals" (ICML 2019), section 2: 1 % of that classifier's loss, and 99 % of the mean
squared difference between two matrices of similarities within the batch, of the
activations (after one layer of their own) and of the targets.
"""

from torch import Tensor, nn
from torch.nn import functional

from knet_hvd.pipeline.decouplers.base import check_dimensions

_NUM_POINTWISE = 3
_SIMILARITY_WEIGHT = 0.99


class LocalLoss(nn.Module):
    """Judge an activation, [n, features], [n, t, features] or [n, c, h, w], by the targets."""

    def __init__(
        self,
        shape: tuple[int, ...],
        num_classes: int,
        hidden_units: int,
        *,
        similarities: bool = False,
    ) -> None:
        """Build the layers.

        Args:
            shape: The activation's, without the batch: one to three numbers.
            num_classes: Classes of the targets.
            hidden_units: Hidden units of the classifier; 0 for a linear one.
            similarities: Add similarities within the batch (`predsim`).

        Raises:
            ValueError: If the shape has another number of dimensions.
        """
        super().__init__()
        check_dimensions(shape, "local loss")
        self._num_classes = num_classes
        self._is_sequence = len(shape) == 2
        features = shape[1:] if self._is_sequence else shape
        self._classifier = nn.Sequential(
            *_pointwise(features), *_perceptron(features, num_classes, hidden_units)
        )
        self._similarity: nn.Module | None = None
        if similarities:
            self._similarity = (
                nn.Linear(features[0], features[0], bias=False)
                if len(features) == 1
                else nn.Conv2d(features[0], features[0], 3, padding=1, bias=False)
            )

    def forward(self, activation: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, a mean over the targets.

        Args:
            activation: fp32 [n, ...].
            targets: int64 [n], or [n, t] for a sequence.

        Returns:
            fp32 [].

        Raises:
            ValueError: If there are targets for positions that the activation has not.
        """
        if self._is_sequence:
            activation, targets = _samples_of_sequence(activation, targets)
        if targets.dim() != 1:
            raise ValueError(
                f"targets: expected one for each sample, or for each position of a sequence, got "
                f"{list(targets.shape)} for activations {list(activation.shape)}"
            )
        loss = functional.cross_entropy(self._classifier(activation), targets)
        if self._similarity is None:
            return loss
        one_hot = functional.one_hot(targets, self._num_classes).to(activation.dtype)
        difference = functional.mse_loss(
            similarity_matrix(self._similarity(activation)), similarity_matrix(one_hot)
        )
        return (1 - _SIMILARITY_WEIGHT) * loss + _SIMILARITY_WEIGHT * difference


def _samples_of_sequence(activation: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return [n, features] and [n]: the mean of each sequence, or all positions."""
    if targets.shape == activation.shape[:2]:
        return activation.flatten(0, 1), targets.flatten()
    return activation.mean(dim=1), targets


def similarity_matrix(values: Tensor) -> Tensor:
    """Return the cosine similarity of each sample to each, around their own means.

    Args:
        values: fp32 [n, features], or [n, c, h, w]: then the deviation of each channel
            over its positions stands for the channel.

    Returns:
        fp32 [n, n], from -1 to 1.
    """
    if values.dim() == 4:
        flat = values.flatten(2)
        values = flat.std(dim=2) if flat.shape[2] > 1 else flat.squeeze(2)
    centered = values - values.mean(dim=1, keepdim=True)
    unit = functional.normalize(centered, dim=1, eps=1e-8)
    return unit @ unit.t()


def _pointwise(shape: tuple[int, ...]) -> list[nn.Module]:
    """Return the layers that make a small image of an image."""
    if len(shape) == 1:
        return []
    size = min(2, shape[1]), min(2, shape[2])
    layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(size)]
    for _ in range(_NUM_POINTWISE):
        convolution = nn.Conv2d(shape[0], shape[0], 1, bias=False)
        layers += [convolution, nn.BatchNorm2d(shape[0]), nn.ReLU()]
    return [*layers, nn.Flatten()]


def _perceptron(shape: tuple[int, ...], num_classes: int, hidden_units: int) -> list[nn.Module]:
    positions = min(2, shape[1]) * min(2, shape[2]) if len(shape) == 3 else 1
    num_in = shape[0] * positions
    if hidden_units == 0:
        return [nn.Linear(num_in, num_classes)]
    hidden = [nn.Linear(num_in, hidden_units), nn.ReLU()]
    return [*hidden, nn.Linear(hidden_units, num_classes)]
