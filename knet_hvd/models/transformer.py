"""A small transformer that predicts the next character of a text.

Sources: Vaswani et al., "Attention Is All You Need" (NIPS 2017); as a language model
with learned positions, and normalization before each part instead of after it: Radford
et al., "Language Models are Unsupervised Multitask Learners" (2019, GPT-2), section 2.3,
whose initial values it has too. There is no dropout.

| block            | layers at width 1.0                                       | output     |
|------------------|-----------------------------------------------------------|------------|
| embedding        | characters and positions, each a vector of 160; their sum | [t, 160]   |
| layer1 to layer4 | attention of 5 heads of 32; 640 hidden units with GELU    | [t, 160]   |
| head             | normalization; fully connected, one output a character    | [t, vocab] |

The width changes the number of heads, each of which has 32 features. Embedding and head
share no weights, since they are on different stages of a pipeline. 1,279,780 parameters
with sequences of 64 characters out of 100.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from knet_hvd.models.blocks import Shape, init_normal, named_blocks, scaled

_HEADS = 5
_HEAD_FEATURES = 32
_LAYERS = 4
_HIDDEN_FACTOR = 4
_STD = 0.02


def transformer(in_shape: Shape, num_classes: int, width: float = 1.0) -> nn.Sequential:
    """Build a pre-norm decoder over characters (Radford et al. 2019).

    Args:
        in_shape: The most characters of a sequence, as a tuple of one.
        num_classes: Characters of the vocabulary.
        width: The factor on the number of heads, and so on all layers.

    Returns:
        Six blocks, from characters int64 [n, t] to logits [n, t, num_classes]. Those of a
        position depend on the characters up to it only.
    """
    heads = scaled(_HEADS, width)
    features = heads * _HEAD_FEATURES
    blocks: dict[str, list[nn.Module]] = {
        "embedding": [Embedding(num_classes, in_shape[0], features)]
    }
    for number in range(1, _LAYERS + 1):
        blocks[f"layer{number}"] = [DecoderLayer(features, heads)]
    logits = nn.Linear(features, num_classes)
    init_normal(logits, _STD)
    blocks["head"] = [nn.LayerNorm(features), logits]
    return named_blocks(blocks)


class Embedding(nn.Module):
    """Add the vectors of characters and of their positions."""

    def __init__(self, vocabulary: int, length: int, features: int) -> None:
        """Draw the vectors.

        Args:
            vocabulary: Different characters.
            length: Positions that there are vectors for.
            features: Of each vector.
        """
        super().__init__()
        self.characters = nn.Embedding(vocabulary, features)
        self.positions = nn.Parameter(torch.empty(length, features))
        nn.init.normal_(self.characters.weight, std=_STD)
        nn.init.normal_(self.positions, std=_STD)

    def forward(self, characters: Tensor) -> Tensor:
        """Return [n, t, features] for characters int64 [n, t].

        Raises:
            ValueError: If the sequences are longer than `length`.
        """
        length = characters.shape[1]
        if length > len(self.positions):
            raise ValueError(
                f"transformer: expected at most {len(self.positions)} characters, got {length}"
            )
        vectors: Tensor = self.characters(characters)
        return vectors + self.positions[:length]


class DecoderLayer(nn.Module):
    """Add attention to earlier positions, then a perceptron at each position."""

    def __init__(self, features: int, heads: int) -> None:
        """Build the layers, and draw their weights as GPT-2 does.

        Args:
            features: Of each position.
            heads: A divisor of `features`.
        """
        super().__init__()
        self._heads = heads
        hidden = _HIDDEN_FACTOR * features
        self.norm1, self.norm2 = nn.LayerNorm(features), nn.LayerNorm(features)
        self.query_key_value = nn.Linear(features, 3 * features)
        self.project = nn.Linear(features, features)
        self.expand, self.contract = nn.Linear(features, hidden), nn.Linear(hidden, features)
        for layer in (self.query_key_value, self.expand):
            init_normal(layer, _STD)
        # What is added to the sum of all layers is scaled by their number.
        for layer in (self.project, self.contract):
            init_normal(layer, _STD / math.sqrt(2 * _LAYERS))

    def forward(self, vectors: Tensor) -> Tensor:
        """Return [n, t, features] for vectors [n, t, features]."""
        vectors = vectors + self._attention(self.norm1(vectors))
        perceptron: Tensor = self.contract(functional.gelu(self.expand(self.norm2(vectors))))
        return vectors + perceptron

    def _attention(self, vectors: Tensor) -> Tensor:
        """Return what each position takes of itself and of those before it."""
        split = self.query_key_value(vectors).unflatten(2, (3, self._heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each [n, heads, t, head features]
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        projected: Tensor = self.project(mixed.transpose(1, 2).flatten(2))
        return projected
