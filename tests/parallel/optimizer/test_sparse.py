"""Sparse gradients: as dense ones, by Horovod, or not at all."""

import horovod.torch as hvd
import pytest
import torch
from torch import nn

import knet_hvd
from knet_hvd import KnetError, TernaryConfig
from tests.parallel.helpers import EXCHANGES, assert_same_on_all_ranks, needs_ranks, same_bits, wrap


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


@needs_ranks(2)
def test_sparse_gradients_are_else_an_error() -> None:
    model = embedding(sparse=True)
    optimizer = knet_hvd.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.1), model.named_parameters()
    )
    with pytest.raises(KnetError, match=r"weight: sparse gradient; pass sparse_as_dens"):
        look_up(model, 0).backward()
    model.weight.grad = None
    assert optimizer is not None


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
    with pytest.raises(KnetError, match=r"knet_hvd\.DistributedOptimizer"):
        look_up(model, 0).backward()
    assert dense is not None
