"""Sparse gradients: their rows as Horovod sends them, or as dense ones."""

from typing import Any

import horovod.torch as hvd
import pytest
import torch
from torch import nn

import knet_hvd
from knet_hvd import KnetError, TernaryConfig
from tests.parallel.bits import assert_same_on_all_ranks, same_bits
from tests.parallel.helpers import needs_ranks
from tests.parallel.optimizers import EXCHANGES, wrap


def embedding(sparse: bool) -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(40, 16, sparse=sparse)


def look_up(model: nn.Embedding, step: int) -> torch.Tensor:
    rows = torch.tensor([3, 5 + hvd.rank(), 7 + step, 3])
    result: torch.Tensor = model(rows).square().sum()
    return result


@needs_ranks(2)
@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("min_values", [1, 10_000])
def test_sparse_gradients_cross_as_dense_ones(min_values: int, exchange: str) -> None:
    config = TernaryConfig(min_values=min_values)
    models = [embedding(sparse=True), embedding(sparse=False)]
    for model in models:
        optimizer = knet_hvd.DistributedOptimizer(
            # A power of two, by which a sparse and a dense update round alike.
            torch.optim.SGD(model.parameters(), lr=0.125),
            model.named_parameters(),
            sparse_as_dense=True,
            ternary=config,
            exchange=exchange,
        )
        for step in range(3):
            optimizer.zero_grad()
            look_up(model, step).backward()
            optimizer.step()
            assert model.weight.grad is not None
            assert model.weight.grad.is_sparse == model.sparse
    assert same_bits(models[0].weight.detach(), models[1].weight.detach())
    assert_same_on_all_ranks(models[0].parameters())


class Words(nn.Module):
    """An embedding whose gradients are sparse, before a layer that is exchanged as codes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = embedding(sparse=True)
        self.layer = nn.Linear(16, 64)

    def loss(self, rows: list[int]) -> torch.Tensor:
        features = self.embedding(torch.tensor(rows)) if rows else torch.ones(1, 16)
        result: torch.Tensor = self.layer(features).square().mean()
        return result


def halve(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        assert parameter.grad is not None
        parameter.grad.mul_(0.5)


def averaging(model: nn.Module, **arguments: Any) -> Any:
    kind = arguments.pop("kind", torch.optim.SGD)
    optimizer = kind(model.parameters(), lr=0.1)
    return knet_hvd.DistributedOptimizer(optimizer, model.named_parameters(), **arguments)


@needs_ranks(2)
@pytest.mark.parametrize("op", [hvd.Average, hvd.Sum])
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_sparse_gradients_cross_beside_the_codes(exchange: str, op: int) -> None:
    model, alone = Words(), Words()
    optimizer = averaging(model, exchange=exchange, op=op)
    for step in range(3):
        rows = [3, 5 + hvd.rank(), 7 + step, 3]
        alone.load_state_dict(model.state_dict())
        alone.zero_grad()
        alone.loss(rows).backward()
        assert alone.embedding.weight.grad is not None
        want = hvd.allreduce(alone.embedding.weight.grad.to_dense(), op=op, name="want")
        model.loss(rows).backward()
        optimizer.synchronize()
        gradient = model.embedding.weight.grad
        assert gradient is not None
        assert gradient.is_sparse
        assert gradient.is_coalesced()
        assert len(gradient.indices()[0]) == len(gradient.indices().unique())
        torch.testing.assert_close(gradient.to_dense(), want)
        with optimizer.skip_synchronize():
            optimizer.step()
        optimizer.zero_grad()
        assert_same_on_all_ranks(model.parameters())
    assert optimizer.ternary_names == ["layer.weight"]
    others = hvd.size() - 1
    rows_sent = 3 * (8 + 4 * 16) * others  # an index and 16 values for each row
    codes_and_bias = optimizer.wire_bytes.compressed - rows_sent
    assert 0 < codes_and_bias < 64 * 16 * 4


@needs_ranks(2)
@pytest.mark.parametrize("as_dense", [False, True])
@pytest.mark.parametrize("who", ["the first", "the last", "nobody"])
def test_ranks_whose_batch_uses_no_row_take_part(as_dense: bool, who: str) -> None:
    """In the first step rank 0 uses some; then who has gradients changes."""
    model = Words()
    optimizer = averaging(model, sparse_as_dense=as_dense)
    users = {"the first": [0], "the last": [hvd.size() - 1], "nobody": []}[who]
    for step in range(4):
        model.loss([1, 2, 2] if hvd.rank() in (users if step else [0]) else []).backward()
        optimizer.step()
        assert_same_on_all_ranks(model.parameters())
        optimizer.zero_grad()


@needs_ranks(2)
def test_an_embedding_that_is_used_later_crosses_as_a_dense_gradient(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Words()
    optimizer = averaging(model)
    before = model.embedding.weight.detach().clone()
    for step in range(3):
        model.loss([4] if step and hvd.rank() == 0 else []).backward()
        optimizer.step()
        optimizer.zero_grad()
        assert_same_on_all_ranks(model.parameters())
    assert not torch.equal(model.embedding.weight, before)
    warnings = [
        r.message for r in caplog.records if "embedding.weight: its gradient is" in r.message
    ]
    assert len(warnings) == (hvd.rank() == 0)


@needs_ranks(2)
def test_sparse_gradients_accumulate_and_are_changed_in_the_end_only() -> None:
    model = Words()
    optimizer = averaging(model, backward_passes_per_step=2)
    for step in range(2):
        for part in range(2):
            model.loss([part, 9 + hvd.rank(), step]).backward()
        optimizer.synchronize()
        halve(model.embedding)
        with optimizer.skip_synchronize():
            optimizer.step()
        optimizer.zero_grad()
        assert_same_on_all_ranks(model.parameters())
    for _ in range(2):
        model.loss([1]).backward()
    halve(model.embedding)
    with pytest.raises(KnetError, match="its gradient was changed in place between backward"):
        optimizer.synchronize()


@needs_ranks(2)
def test_an_optimizer_for_sparse_gradients_alone() -> None:
    model = embedding(sparse=True)
    optimizer = averaging(model, kind=torch.optim.SparseAdam)
    for step in range(3):
        look_up(model, step).backward()
        optimizer.step()
        optimizer.zero_grad()
        assert_same_on_all_ranks(model.parameters())


@needs_ranks(2)
def test_path_b_leaves_sparse_gradients_to_horovod() -> None:
    model = embedding(sparse=True)
    named = dict(model.named_parameters())
    optimizer = wrap(torch.optim.SGD(named.values(), lr=0.1), named, "allreduce")
    for step in range(2):
        look_up(model, step).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert_same_on_all_ranks(named.values())
    dense = wrap(torch.optim.SGD(named.values(), lr=0.1), named, "allreduce", sparse_as_dense=True)
    with pytest.raises(
        KnetError, match=r"weight: its gradient is sparse.*Leave sparse_as_dense out"
    ):
        look_up(model, 0).backward()
    assert dense is not None
