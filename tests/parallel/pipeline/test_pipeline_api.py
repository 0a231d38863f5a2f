"""The public class Pipeline: networks, losses, optimizers and loaders of a user's own."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from mpi4py.MPI import COMM_WORLD
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from knet_hvd.pipeline import Backprop, Delayed, Local, Pipeline, Synthetic
from knet_hvd.pipeline.blocks.draws import BlockDraws
from knet_hvd.pipeline.decouplers import Decoupler

STEPS, ROWS = 50, 16


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)
    )


def cnn() -> nn.Sequential:
    def block(channels: int) -> nn.Sequential:
        norm = nn.BatchNorm2d(6)
        layers = [nn.Conv2d(channels, 6, 3, padding=1), norm, nn.ReLU(), nn.Dropout(0.3)]
        return nn.Sequential(*layers)

    return nn.Sequential(
        block(1), block(6), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3)
    )


def transformer() -> nn.Sequential:
    layers = [nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True) for _ in range(2)]
    return nn.Sequential(nn.Embedding(12, 8), *layers, nn.Flatten(), nn.Linear(40, 3))


def sentences() -> TensorDataset:
    """Return sequences of numbers below 12 whose class their mean tells."""
    generator = torch.Generator().manual_seed(7)
    targets = torch.randint(3, (160,), generator=generator)
    words = torch.randint(8, (160, 5), generator=generator)
    return TensorDataset(words + 2 * targets[:, None], targets)


def samples(*shape: int) -> TensorDataset:
    """Return samples whose class their mean tells."""
    generator = torch.Generator().manual_seed(7)
    targets = torch.randint(3, (160,), generator=generator)
    noise = torch.randn(160, *shape, generator=generator)
    return TensorDataset(0.3 * noise + targets.view(-1, *[1] * len(shape)), targets)


def loader(data: TensorDataset) -> DataLoader[tuple[Tensor, ...]]:
    """Return what a user's script has: a loader with an order of its own and a short last batch."""
    generator = torch.Generator().manual_seed(3)
    return DataLoader(data, batch_size=48, shuffle=True, generator=generator)


def adamw(parameters: list[nn.Parameter], rate: float = 0.01) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=rate)


def momentum(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Return one that does not enlarge the rounding of gradients near zero, as Adam does."""
    return torch.optim.SGD(parameters, lr=0.02, momentum=0.9)


def plain_loop(
    network: nn.Sequential,
    data: TensorDataset,
    clip: float | None = None,
    optimizer_of: Callable[[list[nn.Parameter]], torch.optim.Optimizer] = adamw,
) -> list[float]:
    """Train as a script without this package does."""
    optimizer, draws = optimizer_of(list(network.parameters())), BlockDraws(seed=1)
    losses: list[float] = []
    while len(losses) < STEPS:
        for inputs, targets in loader(data):
            output = draws.run(network, inputs, step=len(losses))  # the units that we drop
            loss = functional.cross_entropy(output, targets)
            loss.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(network.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses


def pipelined(
    network: Any, data: TensorDataset, decoupler: Decoupler, *, steps: int = STEPS, **settings: Any
) -> tuple[Pipeline, list[float]]:
    pipeline = Pipeline(
        network,
        example=data[:1][0],
        loss=functional.cross_entropy,
        decoupler=decoupler,
        timeout_s=30.0,
        **{"optimizer": adamw, **settings},
    )
    losses: list[float] = []
    while len(losses) < steps:
        has_data = pipeline.stage.is_first or settings.get("targets") != "send"
        for inputs, targets in pipeline.batches(loader(data) if has_data else None):
            losses.append(pipeline.step(inputs, targets))
    return pipeline, losses


@pytest.mark.parametrize("targets", ["shared", "send"])
@pytest.mark.parametrize(
    ("build", "data", "optimizer"),
    [
        (mlp, samples(6), adamw),
        (cnn, samples(1, 6, 6), adamw),
        (transformer, sentences(), momentum),
    ],
    ids=["mlp", "cnn", "transformer"],
)
def test_locked_stages_compute_what_a_plain_loop_does(
    build: Callable[[], nn.Sequential], data: TensorDataset, optimizer: Any, targets: str
) -> None:
    torch.manual_seed(1)
    whole = build()
    expected_losses = plain_loop(whole, data, optimizer_of=optimizer)
    torch.manual_seed(1)
    network = build if targets == "send" else build()  # a function, or a network
    pipeline, losses = pipelined(network, data, Backprop(), targets=targets, optimizer=optimizer)
    assert losses == pytest.approx(expected_losses, abs=1e-5), "each rank knows each step's loss"
    state = pipeline.export()
    whole.eval()
    with torch.no_grad():
        output = whole(data.tensors[0])
    loss = float(functional.cross_entropy(output, data.tensors[1]))
    has_data = pipeline.stage.is_first or targets == "shared"
    assert pipeline.evaluate(loader(data) if has_data else None) == pytest.approx(loss, abs=1e-5)
    pipeline.close()
    if pipeline.rank:
        assert state is None
        return
    assert state is not None
    assert list(state) == list(whole.state_dict())
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(state[name], value, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "decoupler", [Local(), Delayed(), Delayed(recompute=False), Synthetic(targets="corrected")]
)
def test_decoupled_stages_learn(decoupler: Decoupler) -> None:
    data = samples(6)
    torch.manual_seed(1)
    # In four stages gradients are three updates old: weights have to move more slowly.
    late = COMM_WORLD.Get_size() > 2
    optimizer = partial(adamw, rate=0.003) if late else adamw
    steps = 400 if late else STEPS
    pipeline, _ = pipelined(mlp(), data, decoupler, steps=steps, optimizer=optimizer)
    assert_learned(pipeline, data)


def assert_learned(pipeline: Pipeline, data: TensorDataset) -> None:
    def accuracy(output: Tensor, targets: Tensor) -> Tensor:
        return (output.argmax(1) == targets).double().mean()

    found = pipeline.evaluate(loader(data), metric=accuracy)
    pipeline.close()
    assert found > 0.9, "0.33 by chance"


def test_the_norm_of_all_gradients_is_limited() -> None:
    data = samples(6)
    torch.manual_seed(1)
    whole = mlp()
    plain_loop(whole, data, clip=0.05)
    torch.manual_seed(1)
    pipeline, _ = pipelined(mlp(), data, Backprop(), clip_grad_norm=0.05)
    state = pipeline.export()
    pipeline.close()
    if state is not None:
        for name, value in whole.state_dict().items():
            torch.testing.assert_close(state[name], value, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "decoupler", [Backprop(), Delayed(recompute=False), Synthetic(targets="corrected")], ids=str
)
def test_a_run_that_was_stopped_ends_in_the_same_bits(decoupler: Decoupler, tmp_path: Path) -> None:
    """A plain loader, epoch after epoch; the second run continues after the first epoch."""
    folder = Path(shared(str(tmp_path / "checkpoints")))
    curves = folder.parent / "curves"
    data = samples(6)

    def run(first_epoch: int, last_epoch: int) -> dict[str, Tensor] | None:
        torch.manual_seed(1)
        pipeline = Pipeline(
            mlp(),
            example=data[:1][0],
            loss=functional.cross_entropy,
            optimizer=adamw,
            decoupler=decoupler,
            deterministic=True,
            logdir=curves,
            log_every=2,
            timeout_s=30.0,
        )
        assert pipeline.load(folder, batch_size=48) == 4 * first_epoch
        for _ in range(first_epoch, last_epoch):
            for inputs, targets in DataLoader(data, batch_size=48, shuffle=True):
                pipeline.step(inputs, targets)
            if first_epoch == 0 and last_epoch == 1:
                pipeline.save(folder)
        state = pipeline.export()
        pipeline.close()
        return state

    expected = run(0, 2)
    shutil.rmtree(curves, ignore_errors=True)  # of all ranks: the first run's are not wanted
    COMM_WORLD.Barrier()
    run(0, 1)
    state = run(1, 2)
    if state is not None and expected is not None:
        for name, value in expected.items():
            assert torch.equal(state[name], value), name
        stages = [events_of(curves / f"stage{stage}") for stage in range(COMM_WORLD.Get_size())]
        for events in stages:
            assert {"stage/idle_share", "wire/bytes_per_step"} <= set(events.Tags()["scalars"])
        losses = sorted(event.step for event in stages[-1].Scalars("train/loss"))
        assert losses == [0, 2, 4, 6], "once each, though two runs wrote them"


def events_of(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def shared(text: str) -> str:
    """Return the text of rank 0 on all ranks."""
    found: str = COMM_WORLD.bcast(text)
    return found


@pytest.mark.parametrize("as_function", [False, True])
def test_measured_cuts_compute_what_a_plain_loop_does(as_function: bool) -> None:
    """Wherever the cuts are and whichever rank holds the first stage."""
    data = samples(6)
    torch.manual_seed(1)
    whole = mlp()
    expected = plain_loop(whole, data)
    torch.manual_seed(1)
    network = mlp if as_function else mlp()
    pipeline, losses = pipelined(network, data, Backprop(), cuts="measured", batch_size=48)
    table = pipeline.placement()
    pipeline.close()
    assert losses == pytest.approx(expected, abs=1e-5)
    assert "ms a step" in table
