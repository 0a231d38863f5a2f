"""Placement by measurement: slow ranks get less to do."""

import math

import pytest
import torch
from torch import nn

from knet_hvd.comm import World, measure_links
from knet_hvd.comm.throttle import throttle_of
from knet_hvd.data import load_dataset
from knet_hvd.errors import KnetError
from knet_hvd.pipeline import Pipeline
from knet_hvd.pipeline.decouplers import Local
from knet_hvd.pipeline.placement.cuts import equal_cuts
from knet_hvd.pipeline.placement.planning import measure_costs
from knet_hvd.pipeline.placement.search import place
from knet_hvd.training.pipeline.build import job_model, pipeline_spec
from knet_hvd.training.pipeline.config import PipelineConfig
from knet_hvd.training.pipeline.run import open_trainer
from tests.parallel.mpi import needs_mpi_ranks, world

__all__ = ["world"]


def test_links_between_all_pairs_are_measured(world: World) -> None:
    links = measure_links(world)
    assert len(links) == world.size * (world.size - 1)
    for link in links.values():
        assert 0 < link.latency_s < 1
        assert 1e6 < link.bytes_per_s < math.inf
        assert link.seconds(10**9) > link.seconds(10)


@needs_mpi_ranks(2)
def test_a_slow_rank_gets_less(world: World) -> None:
    slow = world.size % 2  # the first or another one: measuring takes long
    config = PipelineConfig(
        model="vgg16",
        width=0.1,
        decoupler=Local(),
        placement="measured",
        slow_rank=f"{slow}:8.0",
        max_steps=3,
    )
    trainer = open_trainer(config, world)
    dataset = load_dataset("digits")
    spec = pipeline_spec(config, dataset, job_model(config, dataset))
    costs = measure_costs(spec, world, config.links, throttle=throttle_of(world, config.slow_rank))
    bounds = [0, *equal_cuts(14, world.size), 14]
    equal_s = max(costs.stage_s(rank, bounds[rank], bounds[rank + 1]) for rank in range(world.size))
    assert place(costs).step_s < 0.8 * equal_s
    summary = trainer.train()
    assert sorted(s["rank"] for s in summary["stages"]) == list(range(world.size))
    assert sum(len(s["blocks"]) for s in summary["stages"]) == 14


@needs_mpi_ranks(2)
def test_memory_that_is_too_small(world: World) -> None:
    limits = (0.1,) * world.size
    config = PipelineConfig(placement="measured", memory_limits_mb=limits)
    with pytest.raises(KnetError, match="no placement of 4 blocks fits the memory"):
        open_trainer(config, world)


@needs_mpi_ranks(2)
def test_memory_that_is_too_small_for_a_network_of_ones_own() -> None:
    with pytest.raises(KnetError, match="no placement of 4 blocks fits the memory"):
        Pipeline(
            lambda: nn.Sequential(*[nn.Linear(100, 100) for _ in range(4)]),
            example=torch.zeros(8, 100),
            loss=nn.functional.cross_entropy,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
            cuts="measured",
            memory_limits_mb=(0.1,) * 4,
        )
