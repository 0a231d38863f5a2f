"""Random numbers of blocks: the same in any stage and in any run of a batch."""

import torch
from torch import nn

from knet_hvd.pipeline.blocks.draws import BlockDraws

NETWORK = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 4), nn.Dropout(0.5))
INPUTS = torch.ones(3, 4)


def test_pytorchs_generator_stays_where_it_is() -> None:
    before = torch.get_rng_state()
    BlockDraws(seed=3).run(NETWORK, INPUTS, step=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_that_runs_again_drops_the_same_units() -> None:
    draws = BlockDraws(seed=3)
    first = [draws.run(NETWORK, INPUTS, step) for step in range(6)]
    assert torch.equal(draws.run(NETWORK, INPUTS, 2), first[2])
    assert not torch.equal(first[2], first[3]), "another step drops others"
    assert not torch.equal(draws.run(NETWORK, INPUTS, 2, microbatch=1), first[2])
    assert not torch.equal(BlockDraws(seed=4).run(NETWORK, INPUTS, 2), first[2])


def test_a_cut_changes_nothing() -> None:
    whole = BlockDraws(seed=3)
    first, last = BlockDraws(seed=3), BlockDraws(seed=3, first_block=2)
    for step in range(6):
        expected = whole.run(NETWORK, INPUTS, step)
        middle = first.run(NETWORK[:2], INPUTS, step)
        assert torch.equal(last.run(NETWORK[2:], middle, step), expected)
