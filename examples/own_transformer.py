"""Train a small language model of your own on the help texts that Python carries.

    mpirun -np 2 python examples/own_transformer.py
    mpirun -np 4 python examples/own_transformer.py --decoupler backprop

The network is no nn.Sequential: `split` names the layers at which it may be cut.
"""

import argparse
from pydoc_data.topics import topics

import torch
from torch import Tensor, nn

from knet_hvd.pipeline import Pipeline

LENGTH, WIDTH, LAYERS = 64, 96, 4


class Characters(nn.Module):
    def __init__(self, num_characters: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(num_characters, WIDTH)
        self.position = nn.Parameter(0.02 * torch.randn(LENGTH, WIDTH))
        layer = {"nhead": 4, "dim_feedforward": 4 * WIDTH, "dropout": 0.0, "batch_first": True}
        layers = [nn.TransformerEncoderLayer(WIDTH, **layer) for _ in range(LAYERS)]
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(WIDTH, num_characters)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(LENGTH))

    def forward(self, characters: Tensor) -> Tensor:
        x = self.embed(characters) + self.position
        for layer in self.layers:
            x = layer(x, src_mask=self.mask)
        return self.head(x).transpose(1, 2)  # [n, characters, length], for cross_entropy


parser = argparse.ArgumentParser()
parser.add_argument("--decoupler", default="delayed", help="backprop or delayed")
parser.add_argument("--steps", type=int, default=400)
flags = parser.parse_args()
torch.manual_seed(0)  # the same batches on every rank

letters = sorted(set("".join(topics.values())))
text = torch.tensor([letters.index(letter) for letter in "".join(topics.values())])
pipeline = Pipeline(
    Characters(len(letters)),
    split=["layers.1", "layers.2", "layers.3"],
    example=text[None, :LENGTH],
    loss=nn.functional.cross_entropy,
    optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=2e-3),
    decoupler=flags.decoupler,
)
for step in range(flags.steps):
    starts = torch.randint(len(text) - LENGTH, (32,)).tolist()
    windows = torch.stack([text[start : start + LENGTH + 1] for start in starts])
    loss = pipeline.step(windows[:, :-1], windows[:, 1:])
    if pipeline.rank == 0 and step % 50 == 49:
        print(f"step {step + 1}: {loss:.2f} nats a character", flush=True)
if pipeline.rank == 0:
    print(pipeline.placement())
